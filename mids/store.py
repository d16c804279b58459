"""Sweeps larger than memory: many blocks of runs, one lazy dataset.

A store is a folder (or, with Zarr, a place in an object store) with

* ``store.json``: what is simulated and how it is cut into blocks, written first;
* ``header.nc``, and ``d<dim>/r<first run>.nc`` for each block, NetCDF files of the schema that can
  be opened one by one; or ``data.zarr``, a Zarr group with one object for each block and variable;
* ``records/<block>.json``: checksums of a block and how its runs ended, written after it;
* ``manifest.json``: all records, written when everything is there; the single ones are then
  removed.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ._files import NETCDF_LOCK
from .errors import FileError
from .progress import causes_text
from .storage import Storage

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["ZARR", "Block", "Layout", "is_store", "open_store", "recorded"]

STORE_VERSION = 1
"""Newest layout that this version reads, and the one it writes."""


ZARR = "data.zarr"
"""Name of the Zarr group."""


@dataclass(frozen=True)
class Block:
    """A block of runs of some dimensions, by position."""

    index: tuple[int, int]
    dims: slice
    runs: slice

    def name(self, labels: list[int]) -> str:
        """Name of the block in the store, from the values of its dimensions."""
        return f"d{labels[self.dims.start]}/r{self.runs.start:09d}"


@dataclass(frozen=True)
class Layout:
    """How a dataset is cut into blocks.

    Parameters
    ----------
    labels : list of int
        Values of the coordinate ``dim``, or positions where there is none.
    chunks : mapping
        Lengths of the blocks along ``dim`` and ``run``.
    """

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
    """Tell whether a folder or URL holds a store, finished or not.

    Parameters
    ----------
    place : str or path

    Returns
    -------
    bool

    Examples
    --------
    >>> is_store("nowhere")
    False
    """
    text = os.fspath(place)
    if "://" not in text and not Path(text).is_dir():
        return False
    return Storage(text).read("store.json") is not None


def recorded(storage: Storage) -> dict[str, dict[str, Any]]:
    """Return the records of blocks that no manifest holds yet, by the names of the blocks."""
    found = {}
    for folder in storage.names("records"):
        for name in storage.names(f"records/{folder}"):
            content = storage.read(f"records/{folder}/{name}")
            if name.endswith(".json") and content is not None:
                found[f"{folder}/{name.removesuffix('.json')}"] = json.loads(content)
    return found


def open_store(place: str | os.PathLike[str]) -> xr.Dataset:
    """Open a finished store as one lazy dataset.

    Parameters
    ----------
    place : str or path
        Folder or URL that `mids.generate` wrote.

    Returns
    -------
    xarray.Dataset
        With dask arrays in the blocks of the store; a block of a variable is read when it is
        computed.

    Raises
    ------
    FileError
        If the store is not finished, of a newer version, or damaged.
    """
    storage = Storage(place)
    begun, content = storage.read("store.json"), storage.read("manifest.json")
    if begun is None:
        raise FileError(f"{storage.place} is no store: it has no store.json; check the path")
    store = json.loads(begun)
    if store["mids_store"] > STORE_VERSION:
        raise FileError(
            f"{storage.place} has store version {store['mids_store']}, newer than "
            f"{STORE_VERSION}, the newest this version of mids reads; upgrade with: "
            "python -m pip install --upgrade mids"
        )
    recipe = store["recipe"]
    layout = Layout(recipe["labels"], recipe["chunks"])
    if content is None:
        done = len(recorded(storage))
        raise FileError(
            f"{storage.place} is not finished: {done} of {len(layout)} blocks are there; "
            "call mids.generate with the same arguments to complete it"
        )
    records = json.loads(content)["blocks"]
    if store["format"] == "zarr":
        ds: xr.Dataset = xr.open_zarr(storage.location(ZARR), chunks={}, consolidated=True)
    else:
        ds = _open_blocks(storage, layout, recipe["variables"])
    causes: Counter[str] = Counter()
    for record in records.values():
        causes.update(record["causes"])
    attrs = ds.attrs | store["attributes"]
    if causes:
        attrs["failures"] = causes_text(causes, ds.sizes["dim"] * ds.sizes["run"])
    ds.encoding["source"] = storage.place
    return ds.assign_attrs(attrs)


def _open_blocks(storage: Storage, layout: Layout, variables: Mapping[str, Any]) -> xr.Dataset:
    """Return the dataset of a store of NetCDF files."""
    from xarray.backends import NetCDF4DataStore

    folder = storage.folder
    if folder is None:
        raise FileError(f"{storage.place} has NetCDF files, which are read from folders only")
    with NETCDF_LOCK:
        try:
            header = NetCDF4DataStore.open(str(folder / "header.nc"), lock=NETCDF_LOCK)
            with xr.open_dataset(header) as ds:
                ds.load()
        except OSError as error:
            raise FileError(f"{folder / 'header.nc'} is damaged ({error})") from None
    paths = np.array([str(folder / f"{block.name(layout.labels)}.nc") for block in layout])
    grid = paths.reshape(len(layout.chunks["dim"]), len(layout.chunks["run"]))
    arrays = {
        name: xr.Variable(
            entry["dims"], _read_lazily(grid, layout, name, entry), entry["attributes"]
        )
        for name, entry in variables.items()
    }
    return ds.assign(arrays)


def _read_lazily(
    paths: np.ndarray, layout: Layout, name: str, entry: Mapping[str, Any]
) -> da.Array:
    import dask.array as da
    from dask.base import tokenize

    rest = [(size,) for size in entry["shape"][2:]]
    chunks = (tuple(layout.chunks["dim"]), tuple(layout.chunks["run"]), *rest)
    array: da.Array = da.map_blocks(
        _read_block,
        paths=paths,
        variable=name,
        chunks=chunks,
        dtype=entry["dtype"],
        meta=np.empty((0,) * len(chunks), dtype=entry["dtype"]),
        name=f"read-{name}-{tokenize(paths.tolist(), name)}",
    )
    return array


def _read_block(paths: np.ndarray, variable: str, block_id: tuple[int, ...]) -> np.ndarray:
    """Read one variable of one block."""
    import netCDF4

    path = paths[block_id[:2]]
    try:
        with NETCDF_LOCK, netCDF4.Dataset(path) as file:
            file.set_auto_maskandscale(False)
            block: np.ndarray = file[variable][...]
    except (OSError, RuntimeError, IndexError) as error:
        raise FileError(
            f"{path} is missing or damaged ({error}); call mids.generate with the same arguments "
            "to check the store and simulate what is lost"
        ) from None
    return block


def _slices(lengths: list[int]) -> list[slice]:
    ends = np.cumsum(lengths).tolist()
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
