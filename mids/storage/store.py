"""Sweeps larger than memory: many blocks of runs, one lazy dataset.

A store is a folder (or, with Zarr, a place in an object store) with

* ``store.json``: what is simulated and how it is cut into blocks, written first;
* ``header.nc``, and ``d<dim>/r<first run>.nc`` for each block, NetCDF files of the schema that can
  be opened one by one; or ``data.zarr``, a Zarr group with one object for each block and variable;
* ``records/<block>.json``: checksums of a block and how its runs ended, written after it;
* ``manifest.json``: all records, written when everything is there; the single ones are then
  removed.

The JSON files hold their own checksums, and nothing is taken from another file before its checksum
holds: a byte that changed is an error when it is read.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import FileError
from ..simulation.progress import causes_text
from .named_files import NamedFiles, sha256
from .read_block import NETCDF_LOCK, REMEDY, ZARR, NetCDFBlocks, ZarrBlocks, block_name, lazy_array

__all__ = ["Block", "Layout", "begun", "is_store", "open_store", "recorded"]

STORE_VERSION = 1
"""Newest layout that this version reads, and the one it writes."""


@dataclass(frozen=True)
class Block:
    """A block of runs of some dimensions, by position."""

    index: tuple[int, int]
    dims: slice
    runs: slice

    def name(self, labels: list[int]) -> str:
        """Name of the block in the store, from the values of its dimensions."""
        return block_name(labels[self.dims.start], self.runs.start)


@dataclass(frozen=True)
class Layout:
    """How a dataset is cut into blocks."""

    labels: list[int]
    chunks: Mapping[str, list[int]]

    def __iter__(self) -> Iterator[Block]:
        """Go through the blocks, dimension by dimension."""
        dims, runs = (_slices(self.chunks[name]) for name in ("dim", "run"))
        for i, dim in enumerate(dims):
            for j, run in enumerate(runs):
                yield Block((i, j), dim, run)

    def __len__(self) -> int:
        return len(self.chunks["dim"]) * len(self.chunks["run"])


def is_store(place: str | os.PathLike[str]) -> bool:
    """Tell whether a folder or URL holds a store, finished or not."""
    text = os.fspath(place)
    if "://" not in text and not Path(text).is_dir():
        return False
    return NamedFiles(text).read("store.json") is not None


def begun(files: NamedFiles) -> dict[str, Any] | None:
    """Return ``store.json``, which says what a store holds; None if there is none."""
    try:
        store = files.document("store.json")
    except FileError as error:
        raise FileError(
            f"{error}; it says what the store holds: restore it from a copy, or simulate into a "
            "new store (files of single blocks can be opened all the same)"
        ) from None
    if store is not None and store["mids_store"] > STORE_VERSION:
        raise FileError(
            f"{files.place} has store version {store['mids_store']}, newer than "
            f"{STORE_VERSION}, the newest this version of mids reads; upgrade with: "
            "python -m pip install --upgrade mids"
        )
    return store


def recorded(files: NamedFiles) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the records of blocks that no manifest holds yet."""
    found: dict[str, dict[str, Any]] = {}
    damaged: list[str] = []
    for folder in files.names("records"):
        for name in files.names(f"records/{folder}"):
            if not name.endswith(".json"):
                continue
            try:
                record = files.document(f"records/{folder}/{name}")
            except FileError as error:
                damaged.append(str(error))
                continue
            if record is not None:
                found[f"{folder}/{name.removesuffix('.json')}"] = record
    return found, damaged


def open_store(place: str | os.PathLike[str]) -> xr.Dataset:
    """Open a finished store as one lazy dataset."""
    files = NamedFiles(place)
    store = begun(files)
    if store is None:
        raise FileError(f"{files.place} is no store: it has no store.json; check the path")
    recipe = store["recipe"]
    layout = Layout(recipe["labels"], recipe["chunks"])
    manifest = _manifest(files, layout)
    records = manifest["blocks"]
    _check_header(files, manifest["header"])
    ds, reader = (_zarr_header if store["format"] == "zarr" else _netcdf_header)(files)
    dims = [layout.labels[part.start] for part in _slices(layout.chunks["dim"])]
    variables = {
        name: xr.Variable(
            entry["dims"],
            lazy_array(reader(name), entry, dims, layout.chunks, records),
            entry["attributes"],
        )
        for name, entry in recipe["variables"].items()
    }
    causes: Counter[str] = Counter()
    for record in records.values():
        causes.update(record["causes"])
    attrs = ds.attrs | store["attributes"]
    if causes:
        attrs["failures"] = causes_text(causes, ds.sizes["dim"] * ds.sizes["run"])
    ds = ds.assign(variables).assign_attrs(attrs)
    ds.encoding["source"] = files.place
    return ds


def _manifest(files: NamedFiles, layout: Layout) -> dict[str, Any]:
    """Return the manifest of a finished store, which has a record of every block."""
    try:
        manifest = files.document("manifest.json")
    except FileError as error:
        raise FileError(f"{error}; {REMEDY}") from None
    if manifest is None:
        records, damaged = recorded(files)
        raise FileError(
            f"{files.place} is not finished: {len(records)} of {len(layout)} blocks are there; "
            + "".join(f"{text}; " for text in damaged[:1])
            + "call mids.generate with the same arguments to complete it"
        )
    for block in layout:
        if block.name(layout.labels) not in manifest["blocks"]:
            raise FileError(
                f"{files.location('manifest.json')} lacks {block.name(layout.labels)}; {REMEDY}"
            )
    return manifest


def _check_header(files: NamedFiles, record: Mapping[str, Any]) -> None:
    for name, expected in record["files"].items():
        if name.rpartition("/")[2] in (".zarray", ".zattrs", ".zgroup"):  # again in .zmetadata
            continue
        content = files.read(name)
        if content is None or sha256(content) != expected["sha256"]:
            raise FileError(f"{files.location(name)} is missing or damaged; {REMEDY}")


def _netcdf_header(files: NamedFiles) -> tuple[xr.Dataset, Callable[[str], NetCDFBlocks]]:
    from xarray.backends import NetCDF4DataStore

    if files.folder is None:
        raise FileError(f"{files.place} has NetCDF files, which are read from folders only")
    with NETCDF_LOCK:
        file = NetCDF4DataStore.open(str(files.folder / "header.nc"), lock=NETCDF_LOCK)
        with xr.open_dataset(file) as ds:
            ds.load()
    return ds, partial(NetCDFBlocks, files.place)


def _zarr_header(files: NamedFiles) -> tuple[xr.Dataset, Callable[[str], ZarrBlocks]]:
    metadata = json.loads(files.read(f"{ZARR}/.zmetadata") or "")["metadata"]
    ds = xr.open_zarr(files.location(ZARR), chunks=None, consolidated=True)
    return ds.drop_vars(list(ds.data_vars)).load(), lambda name: ZarrBlocks(
        files.place, name, metadata[f"{name}/.zarray"]
    )


def _slices(lengths: list[int]) -> list[slice]:
    ends = np.cumsum(lengths).tolist()
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
