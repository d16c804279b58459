"""Datasets in NetCDF-4 files: complete or absent, and safe in threads.

Neither netCDF nor HDF5 is thread-safe, not even across files, so every call into them happens
under `NETCDF_LOCK`, from opening to closing. A file is written under another name in the same
folder and renamed when it is complete; its global attributes are written last, so that an
interrupted one is recognised.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from xarray.backends import NetCDF4DataStore

from .. import schema
from ..errors import DatasetError, FileError
from .files import NETCDF_LOCK, check_output, replacing
from .store import is_store, open_store

if TYPE_CHECKING:
    import dask.array as da

__all__ = [
    "NETCDF_LOCK",
    "check_output",
    "narrowed",
    "open_dataset",
    "replacing",
    "to_netcdf",
]

CHUNK_BYTES = 2**20
"""Largest chunk on disk."""
CHUNK_SIZES = {"dim": 1, "run": 64, "time": 256}
"""Longest chunk along these: few chunks hold one run, and few hold one time."""
UNCUT_BYTES = 2**16
"""Up to this size a variable in memory is one chunk."""


def to_netcdf(ds: xr.Dataset, path: str | os.PathLike[str], *, compact: bool = False) -> None:
    """Write a dataset to a NetCDF-4 file.

    Lazy variables are computed block by block while they are written, each simulation once, so
    that the memory needed is set by the blocks. The file appears under its name when it is
    complete; an error or an interruption leaves what was there before. Data are compressed
    and carry checksums; without `compact` not a bit is lost.

    Parameters
    ----------
    ds : xarray.Dataset
        Any dataset whose attributes NetCDF can hold.
    path : str or path
        File to write, replaced if it exists. It may be the one that `ds` was opened from.
    compact : bool
        Round the curves to float32, as the schema allows (`mids.schema.Variable.compact`), which
        makes files about three times smaller. Times, crossing times and initial conditions stay
        float64; `mids.replay` rounds in the same way before it compares.

    Raises
    ------
    InputError
        If the folder does not exist, or `path` is a folder.
    DatasetError
        If NetCDF cannot hold an attribute or a name.
    FileError
        If the file cannot be written.

    Examples
    --------
    >>> import mids, os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "runs.nc")
    >>> to_netcdf(mids.simulate("h1(z1)", dim=[100, 10000], runs=2), path)
    >>> ds = open_dataset(path)
    >>> dict(ds.sizes)["dim"]
    2
    >>> ds.close()
    >>> folder.cleanup()
    """
    path = check_output(path)
    _check_names_and_attributes(ds)
    if compact:
        ds = narrowed(ds)
    with replacing(path) as temporary:
        _write(ds, temporary)


def open_dataset(
    path: str | os.PathLike[str], *, chunks: int | Mapping[Any, Any] | str | None = None
) -> xr.Dataset:
    """Open a NetCDF file of the schema, or a store that `mids.generate` wrote.

    Parameters
    ----------
    path : str or path
        The file; or the folder or URL of a store, which gives dask arrays in any case.
    chunks : int, mapping, "auto" or None
        None reads variables when they are used; anything else gives dask arrays, as in
        `xarray.Dataset.chunk`, for example ``{"run": 1000}``.

    Returns
    -------
    xarray.Dataset
        To be closed with its method ``close`` or used in a ``with`` statement.

    Raises
    ------
    FileError
        If there is no such file, or it is no NetCDF file, damaged, incomplete, not of this schema
        or of a newer version of it.

    Examples
    --------
    >>> open_dataset("nowhere.nc")
    Traceback (most recent call last):
        ...
    mids.errors.FileError: nowhere.nc does not exist; check the path
    """
    if is_store(path):
        ds = open_store(path)
        return ds if chunks is None else ds.chunk(chunks)
    path = Path(path)
    _check_magic(path)
    with NETCDF_LOCK:
        try:
            store = NetCDF4DataStore.open(os.fspath(path), mode="r", lock=NETCDF_LOCK)
        except OSError as error:
            raise FileError(
                f"{path} is damaged or truncated ({_reason(error)}); get or make it again"
            ) from None
        try:
            _check_schema(path, dict(store.get_attrs()))
            ds = xr.open_dataset(store)
        except FileError:
            store.close()
            raise
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            store.close()
            raise FileError(
                f"{path} is damaged ({_reason(error)}); get or make it again"
            ) from error
    ds.encoding["source"] = os.fspath(path.absolute())
    if chunks is not None:
        ds = ds.chunk(chunks)
        ds.set_close(store.close)
    return ds


# -- writing ------------------------------------------------------------------------------------


def _write(ds: xr.Dataset, path: Path) -> None:
    collected = _Collected()
    stripped = _read_apart(ds.drop_encoding().drop_attrs(deep=False))
    encoding = {name: _encoding(ds.variables[name], name in ds.dims) for name in ds.variables}
    with _netcdf(path, "w") as store:
        stripped.dump_to_store(store, writer=collected, encoding=encoding)
    if collected.arrays:
        _store(collected.arrays, path)
    with _netcdf(path, "r+") as store:
        store.set_attributes(ds.attrs)


def _read_apart(ds: xr.Dataset) -> xr.Dataset:
    """Read what is still in a file before the writing, or between the writes where it is large.

    Plain xarray reads under its own lock, which one who holds `NETCDF_LOCK` would wait for forever.
    """
    parts: dict[Hashable, xr.Variable] = {}
    for name, variable in ds.variables.items():
        if variable._in_memory or variable.chunks is not None:  # has no public test
            continue
        if variable.ndim and variable.dtype.kind in "iufb" and variable.nbytes > UNCUT_BYTES:
            parts[name] = ds[[name]].chunk().variables[name]
        else:
            parts[name] = variable.compute()
    coords = {name: part for name, part in parts.items() if name in ds.coords}
    data = {name: part for name, part in parts.items() if name not in coords}
    return ds.assign(data).assign_coords(coords)


class _Collected:
    """A writer for xarray's stores that puts lazy arrays aside and writes the others."""

    def __init__(self) -> None:
        self.arrays: dict[str, da.Array] = {}

    def add(self, source: Any, target: Any, region: None = None) -> None:
        """Take one variable."""
        if isinstance(source, np.ndarray):
            target[...] = source
        else:
            self.arrays[target.variable_name] = source


class _Slot:
    """One variable of a file as a target of `dask.array.store`, in any thread or process."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name

    def __setitem__(self, region: tuple[slice, ...], block: np.ndarray) -> None:
        with _netcdf(self.path, "r+") as store:
            if self.name not in store.ds.variables:  # removed, and made anew, a moment ago
                self.path.unlink(missing_ok=True)
                raise OSError(f"{self.path} is gone")
            store.ds[self.name].set_auto_maskandscale(False)
            store.ds[self.name][region] = block


@contextmanager
def _netcdf(path: Path, mode: Literal["w", "r+"]) -> Iterator[NetCDF4DataStore]:
    """Open a file that is being written, alone in this process, for a moment."""
    import netCDF4

    try:
        with NETCDF_LOCK:
            if mode == "r+":
                path.stat()  # netCDF would make a file anew that an interruption has removed
            with netCDF4.Dataset(path, mode) as dataset:
                yield NetCDF4DataStore(dataset, lock=NETCDF_LOCK)
    except (OSError, RuntimeError) as error:
        raise FileError(
            f"cannot write {path.parent} ({_reason(error)}); check permissions and free space"
        ) from error


def _store(arrays: dict[str, da.Array], path: Path) -> None:
    """Compute lazy arrays, each block once, and write them."""
    import dask.array
    from xarray.backends.locks import get_dask_scheduler, get_write_lock

    scheduler = get_dask_scheduler()
    options: dict[str, Any] = {}
    if scheduler == "distributed":  # other processes write too
        options["lock"] = get_write_lock(os.fspath(path))
    elif scheduler == "multiprocessing":  # has no lock between its processes
        options["scheduler"] = "threads"
    slots: list[Any] = [_Slot(path.absolute(), name) for name in arrays]
    dask.array.store(list(arrays.values()), slots, **{"lock": False, **options})


def narrowed(ds: xr.Dataset) -> xr.Dataset:
    """Round the variables that the schema has a narrower type for."""
    narrow = {
        name: ds[name].astype(entry.compact, keep_attrs=True)
        for name, entry in schema.VARIABLES.items()
        if name in ds.data_vars and entry.compact and ds[name].dtype == np.dtype(entry.dtype)
    }
    return ds.assign(narrow)


def _encoding(variable: xr.Variable, is_index: bool) -> dict[str, Any]:
    if variable.dtype.kind not in "iufb" or variable.ndim == 0 or variable.size == 0:
        return {}
    encoding: dict[str, Any] = {
        "zlib": True,
        "complevel": 1,
        "shuffle": True,
        "fletcher32": True,
        "chunksizes": _chunk_shape(variable),
    }
    if variable.dtype.kind == "f":
        encoding["_FillValue"] = None if is_index else np.nan
    return encoding


def _chunk_shape(variable: xr.Variable) -> tuple[int, ...]:
    """Return a chunk for the disk, of at most `CHUNK_SIZES` and `CHUNK_BYTES`, leading axes first.

    Where the memory has several blocks along an axis it divides them, so that no chunk is written
    twice. A list, such as the indices of a million runs, is cut by its bytes alone: HDF5 keeps some
    memory for each chunk.
    """
    if variable.chunks is None and variable.nbytes <= UNCUT_BYTES:
        return variable.shape
    blocks = variable.chunks or tuple((size,) for size in variable.shape)
    longest = CHUNK_SIZES if variable.ndim > 1 else {}
    shape = [
        _part(sizes, longest.get(str(name), max(sizes)))
        for name, sizes in zip(variable.dims, blocks, strict=True)
    ]
    for axis, size in enumerate(shape):
        excess = variable.dtype.itemsize * int(np.prod(shape)) / CHUNK_BYTES
        if excess <= 1:
            break
        shape[axis] = _part(blocks[axis], max(int(size / excess), 1))
    return tuple(shape)


def _part(sizes: tuple[int, ...], most: int) -> int:
    """Return a length of at most `most` that cuts blocks of these sizes into equal parts."""
    size = max(sizes)
    if len(sizes) == 1:
        return -(-size // -(-size // most))
    return max(n for n in range(1, min(size, most) + 1) if size % n == 0)


def _check_names_and_attributes(ds: xr.Dataset) -> None:
    """Raise one error for all names and attributes that NetCDF would refuse or change."""
    problems = [
        f"{place} has the attribute {name!r} of type {type(value).__name__}"
        for place, attrs in _attributes(ds)
        for name, value in attrs.items()
        if not isinstance(name, str) or not _storable(value)
    ]
    problems += [
        f"{name!r} is no name for a variable"
        for name in ds.variables
        if not isinstance(name, str) or "/" in name or not name
    ]
    if problems:
        raise DatasetError(
            "NetCDF cannot hold this dataset: "
            + "; ".join(problems)
            + "; attributes are strings, numbers and arrays of numbers (JSON text holds the rest)"
        )


def _attributes(ds: xr.Dataset) -> Iterator[tuple[Hashable, Mapping[Any, Any]]]:
    yield "the dataset", ds.attrs
    for name, variable in ds.variables.items():
        yield name, variable.attrs


def _storable(value: object) -> bool:
    if isinstance(value, bool | np.bool_) or value is None:
        return False
    if isinstance(value, str | bytes):
        return True
    array = np.asarray(value)
    return array.dtype.kind in "iuf" or (array.dtype.kind == "U" and array.ndim == 1)


# -- reading ------------------------------------------------------------------------------------


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(8)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist; check the path") from None
    except IsADirectoryError:
        raise FileError(f"{path} is a folder; give the name of a file in it") from None
    except OSError as error:
        raise FileError(f"cannot read {path} ({_reason(error)}); check its permissions") from None
    if magic != b"\x89HDF\r\n\x1a\n":
        raise FileError(
            f"{path} is no NetCDF-4 file, or damaged at its beginning; "
            "mids opens files that mids wrote"
        )


def _check_schema(path: Path, attrs: Mapping[str, Any]) -> None:
    version = attrs.get("mids_schema")
    if version is None:
        raise FileError(
            f"{path} has no attribute mids_schema: it is not a dataset of mids, or its writing was "
            "interrupted; open foreign files with xarray.open_dataset"
        )
    if not isinstance(version, int | np.integer) or version < 1:
        raise FileError(f"{path} has the attribute mids_schema {version!r}, which is no version")
    if version > schema.SCHEMA_VERSION:
        raise FileError(
            f"{path} has schema version {version}, newer than {schema.SCHEMA_VERSION}, the newest "
            "this version of mids reads; upgrade with: python -m pip install --upgrade mids"
        )


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
