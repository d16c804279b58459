"""Reading blocks of stores lazily, each after its checksum.

A changed byte within an HDF5 file may be read as other numbers, or stop the process that reads it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FileError
from .named_files import NamedFiles, sha256

if TYPE_CHECKING:
    import dask.array as da

__all__ = [
    "NETCDF_LOCK",
    "REMEDY",
    "ZARR",
    "NetCDFBlocks",
    "ZarrBlocks",
    "block_name",
    "lazy_array",
    "object_name",
]

REMEDY = "call mids.generate with the same arguments to check the store and simulate what is lost"

NETCDF_LOCK = threading.RLock()

ZARR = "data.zarr"
"""Name of the Zarr group."""


def block_name(dim: int, first: int) -> str:
    """Name of a block in its store, from the value of its dimension and its first run."""
    return f"d{dim}/r{first:09d}"


def object_name(variable: str, dim: int, block: int, ndim: int) -> str:
    """Name of the object that holds a variable of a block, from the block's position."""
    return f"{ZARR}/{variable}/{dim}.{block}{'.0' * (ndim - 2)}"


@dataclass(frozen=True)
class NetCDFBlocks:
    """A variable in the files of a folder, one for each block."""

    place: str
    variable: str

    def file(self, dim: np.ndarray, runs: np.ndarray) -> str:
        """Name of the file."""
        return f"{block_name(dim[1], runs[1])}.nc"

    def read(self, name: str, checksum: str, runs: int) -> np.ndarray:
        """Read the variable from a file."""
        import netCDF4

        path = NamedFiles(self.place).location(name)
        state = Path(path).stat()
        # The system sets the last of these, and nobody else can.
        stamp = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        _check_file(path, stamp, checksum)
        with NETCDF_LOCK, netCDF4.Dataset(path) as file:
            file.set_auto_maskandscale(False)
            block: np.ndarray = file[self.variable][...]
        return block


@lru_cache(maxsize=100_000)
def _check_file(path: str, stamp: tuple[int, ...], checksum: str) -> None:
    """Check a file once in a process while it stays the same, as several variables are read."""
    _check(Path(path).read_bytes(), checksum)


def _check(content: bytes, checksum: str) -> None:
    if sha256(content) != checksum:
        raise OSError("its checksum differs")


@dataclass(frozen=True)
class ZarrBlocks:
    """A variable in the objects of a Zarr group, one for each block, with Zarr's metadata."""

    place: str
    variable: str
    metadata: Mapping[str, Any]

    def file(self, dim: np.ndarray, runs: np.ndarray) -> str:
        """Name of the object."""
        return object_name(self.variable, dim[0], runs[0], len(self.metadata["shape"]))

    def read(self, name: str, checksum: str, runs: int) -> np.ndarray:
        """Read an object, as an array of one block."""
        import zarr
        from zarr.buffer import cpu

        content = NamedFiles(self.place).read(name)
        if content is None:
            raise OSError("not there")
        _check(content, checksum)
        shape = [1, runs, *self.metadata["shape"][2:]]
        parts = {
            ".zarray": json.dumps({**self.metadata, "shape": shape}).encode(),
            ".".join("0" * len(shape)): content,
        }
        store = zarr.storage.MemoryStore({k: cpu.Buffer.from_bytes(v) for k, v in parts.items()})
        return np.asarray(zarr.open_array(store, mode="r", zarr_format=2)[...])


def lazy_array(
    blocks: NetCDFBlocks | ZarrBlocks,
    entry: Mapping[str, Any],
    labels: list[int],
    chunks: Mapping[str, list[int]],
    records: Mapping[str, Mapping[str, Any]],
) -> da.Array:
    """Return a variable of a store as a dask array with one task for each block."""
    import dask.array as da
    from dask.base import tokenize
    from dask.layers import ArrayValuesDep

    lengths = np.array(chunks["run"], dtype=np.int64)
    runs = np.stack([np.arange(len(lengths)), np.cumsum(lengths) - lengths, lengths], axis=1)
    dims = np.stack([np.arange(len(labels)), np.array(labels, dtype=np.int64)], axis=1)
    checksums = np.empty((len(dims), len(runs)), dtype="S64")
    for i, j in np.ndindex(checksums.shape):
        files = records[block_name(dims[i, 1], runs[j, 1])]["files"]
        checksums[i, j] = files[blocks.file(dims[i], runs[j])]["sha256"]
    along = (tuple(chunks["dim"]), tuple(chunks["run"]))
    axes = dict(zip("uvwxyz", entry["shape"][2:], strict=False))
    dtype = np.dtype(entry["dtype"])
    # What only one block needs goes into its task alone.
    array: da.Array = da.blockwise(
        _read,
        ("d", "r", *axes),
        ArrayValuesDep(along[:1], dims),
        "d",
        ArrayValuesDep(along[1:], runs),
        "r",
        ArrayValuesDep(along, checksums),
        "dr",
        new_axes=axes,
        adjust_chunks=dict(zip("dr", along, strict=True)),
        name=f"read-{blocks.variable}-{tokenize(blocks, dims, runs, checksums)}",
        dtype=dtype,
        meta=np.empty((0,) * len(entry["shape"]), dtype=dtype),
        align_arrays=False,
        blocks=blocks,
        to=dtype.str,
    )
    return array


def _read(
    dim: np.ndarray,
    runs: np.ndarray,
    checksum: bytes,
    *,
    blocks: NetCDFBlocks | ZarrBlocks,
    to: str,
) -> np.ndarray:
    """Read one variable of one block."""
    name = blocks.file(dim, runs)
    try:
        block = blocks.read(name, checksum.decode(), int(runs[2]))
    except (OSError, RuntimeError, IndexError, ValueError) as error:
        path = NamedFiles(blocks.place).location(name)
        raise FileError(f"{path} is missing or damaged ({error}); {REMEDY}") from None
    return block.astype(to, copy=False)
