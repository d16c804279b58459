"""What a worker does for a store: compute one block, write it, record its checksums."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import numpy as np
import xarray as xr

from .. import schema
from ..errors import FileError, MissingDependencyError
from ..simulation.graph import CAUSES
from . import netcdf as io
from .named_files import NamedFiles, sha256
from .read_block import ZARR, object_name
from .store import Block

__all__ = ["FORMATS", "NOT_IN_BLOCKS", "intact", "write_block", "write_header"]

FORMATS = ("netcdf", "zarr")

NOT_IN_BLOCKS = ("date_created", "history")
"""Attributes that say when a store was begun: they stay out of what has checksums."""


def write_block(payload: bytes, place: str, format: str, name: str) -> dict[str, Any]:
    """Compute one block of a sweep, write it and its record."""
    part, block = pickle.loads(payload)
    causes: Counter[str] = Counter()

    def finished(key: Any, result: Any, *_: Any) -> None:
        if isinstance(result, dict) and CAUSES in result:
            causes.update(result[CAUSES].values())

    ds = part.compute(
        scheduler="synchronous",
        optimize_graph=False,
        callbacks=[(None, None, None, finished, None)],
    )
    files = NamedFiles(place)
    written = _write_zarr if format == "zarr" else _write_netcdf
    names = written(ds, block, files, name)
    if "status" in ds:
        counts = np.bincount(ds["status"].values.ravel(), minlength=len(schema.STATUS)).tolist()
    else:
        counts = []
    record = {
        "runs": ds.sizes["dim"] * ds.sizes["run"],
        "status": dict(zip(schema.STATUS, counts, strict=False)),
        "causes": dict(sorted(causes.items())),
        "files": _checksums(files, names),
    }
    files.write_document(f"records/{name}.json", record)
    return record


def write_header(ds: xr.Dataset, files: NamedFiles, format: str) -> dict[str, Any]:
    """Write the coordinates and attributes of a store, and return their record."""
    if format == "zarr":
        names = _write_template(ds, files)
    else:
        assert files.folder is not None
        io.to_netcdf(ds.drop_vars(list(ds.data_vars)), files.folder / "header.nc")
        names = ["header.nc"]
    return {"files": _checksums(files, names)}


def _checksums(files: NamedFiles, names: list[str]) -> dict[str, Any]:
    contents = {name: files.read(name) for name in names}
    return {
        name: None if content is None else {"bytes": len(content), "sha256": sha256(content)}
        for name, content in contents.items()
    }


def intact(place: str, record: dict[str, Any]) -> bool:
    """Tell whether all files of a record are there with their checksums."""
    expected = record.get("files")
    return expected is not None and expected == _checksums(NamedFiles(place), list(expected))


def _write_netcdf(ds: xr.Dataset, block: Block, files: NamedFiles, name: str) -> list[str]:
    assert files.folder is not None
    path = files.folder / f"{name}.nc"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write {path.parent} ({error.strerror})") from None
    io.to_netcdf(ds, path)
    return [f"{name}.nc"]


def _write_template(ds: xr.Dataset, files: NamedFiles) -> list[str]:
    """Write the metadata and coordinates of a Zarr group that blocks are then written into."""
    try:
        from zarr.storage import MemoryStore
    except ImportError:
        raise MissingDependencyError(
            "stores in Zarr's format need zarr; install it with: "
            'python -m pip install "mids[zarr]"'
        ) from None
    # Without a fill value integers stay integers.
    encoding = {name: {"_FillValue": None} for name in ds.variables}
    objects: dict[str, Any] = {}
    ds.drop_encoding().to_zarr(
        MemoryStore(objects),
        mode="w",
        compute=False,
        zarr_format=2,
        consolidated=True,
        encoding=encoding,
    )
    for name, content in objects.items():
        files.write(f"{ZARR}/{name}", content.to_bytes())
    return [f"{ZARR}/{name}" for name in objects]


def _write_zarr(ds: xr.Dataset, block: Block, files: NamedFiles, name: str) -> list[str]:
    region = {"dim": block.dims, "run": block.runs}
    data = ds.drop_vars(list(ds.coords)).drop_attrs()
    try:
        data.drop_encoding().to_zarr(
            files.location(ZARR), region=region, zarr_format=2, write_empty_chunks=True
        )
    except OSError as error:
        raise FileError(
            f"cannot write {files.place} ({error}); check permissions and free space"
        ) from None
    return [
        object_name(str(variable), *block.index, array.ndim)
        for variable, array in ds.data_vars.items()
    ]
