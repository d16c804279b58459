"""Datasets in NetCDF-4 files: complete or absent, and safe in threads.

Files are read through h5py, which is safe in threads (netCDF4 is not, not even under one lock,
where a file is open twice), and written by xarray through h5netcdf, which is built on it. h5netcdf
as the reader takes twelve times as long to open a file. A file is written under another name in
the same folder and renamed when it is complete; its global attributes are written last, so that an
interrupted one is recognised.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, CachingFileManager
from xarray.backends.locks import HDF5_LOCK
from xarray.conventions import decode_cf_variables
from xarray.core import indexing

from .. import schema, validation
from ..errors import DatasetError, FileError
from ..simulation.upgrade import upgraded
from . import foreign
from .files import check_output, replacing
from .store import is_store, open_store

if TYPE_CHECKING:
    import h5py

CHUNK_BYTES = 2**20  # largest chunk on disk
CHUNK_SIZES = {"dim": 1, "run": 64, "time": 256}  # few chunks hold one run or one time
UNCUT_BYTES = 2**16  # up to this size a variable in memory is one chunk
OF_HDF5 = {
    *("CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST", "DIMENSION_LABELS"),
    *("_Netcdf4Dimid", "_Netcdf4Coordinates", "_NCProperties", "_nc3_strict"),
}
"""Attributes by which NetCDF-4 describes its own structure."""


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
    validation.dataset(ds)
    path = check_output(path)
    _check_names_and_attributes(ds)
    if validation.flag(compact, "compact"):
        ds = narrowed(ds)
    with replacing(path) as temporary:
        _write(ds, temporary, path)


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
        return ds if chunks is None else ds.chunk(chunks).unify_chunks()
    path = validation.path(path)
    _check_magic(path)
    manager = CachingFileManager(_opened, os.fspath(path.absolute()), _stamp(path), mode="r")
    try:
        written = _decoded(manager, path)
        ds = upgraded(written)
    except DatasetError as error:
        manager.close()
        raise FileError(f"{path} is not a dataset of mids: {error}") from None
    except BaseException:
        manager.close()
        raise
    ds.encoding["source"] = os.fspath(path.absolute())
    ds.encoding["mids_schema"] = written.attrs["mids_schema"]
    if chunks is not None:
        ds = ds.chunk(chunks)
    ds.set_close(manager.close)
    return ds


# -- writing ------------------------------------------------------------------------------------


def _write(ds: xr.Dataset, temporary: Path, path: Path) -> None:
    import dask
    import h5py
    from xarray.backends.locks import get_dask_scheduler

    bare = ds.drop_encoding().drop_attrs(deep=False)
    encoding = {name: _encoding(ds.variables[name], name in ds.dims) for name in ds.variables}
    one_process = get_dask_scheduler() == "multiprocessing"  # they would have no lock in common
    with dask.config.set({"scheduler": "threads"} if one_process else {}):
        try:
            bare.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)
            # The attributes come last: a file without `mids_schema` is refused as cut off.
            with h5py.File(temporary, "r+") as file:
                for name, value in ds.attrs.items():
                    file.attrs[name] = value
        except (OSError, RuntimeError) as error:
            if isinstance(error, FileError):
                raise
            raise FileError(
                f"cannot write {path} ({_reason(error)}); check permissions and free space"
            ) from error


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
        # CF allows no missing values in the coordinate of a dim.
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
    schema.recipes_in(ds.attrs)  # or say that a recipe was edited
    owners = {"the dataset": ds.attrs, **{n: v.attrs for n, v in ds.variables.items()}}
    problems = [
        f"{owner} has the attribute {name!r} of type {type(value).__name__}"
        for owner, attrs in owners.items()
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
            f"NetCDF cannot hold this dataset: {'; '.join(problems)}; attributes are strings, "
            "numbers and arrays of numbers (JSON text holds the rest)"
        )


def _storable(value: object) -> bool:
    if isinstance(value, str | bytes):
        return True
    array = np.asarray(value)
    return array.dtype.kind in "iuf" or (array.dtype.kind == "U" and array.ndim == 1)


# -- reading ------------------------------------------------------------------------------------


class _Array(BackendArray):
    """A variable of a file that is read when it is indexed."""

    def __init__(self, manager: CachingFileManager[Any], name: str, variable: h5py.Dataset) -> None:
        import h5py

        self.manager = manager
        self.name = name
        self.shape = variable.shape
        self.is_text = h5py.check_string_dtype(variable.dtype) is not None
        self.dtype = h5py.string_dtype() if self.is_text else variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        with HDF5_LOCK:  # files of other threads are not closed meanwhile
            variable = self.manager.acquire(needs_lock=False)[self.name]
            return (variable.asstr() if self.is_text else variable)[key]


def _opened(path: str, stamp: tuple[int, ...], mode: str) -> h5py.File:
    """Open a file that is still the one of `_stamp`, as it may be opened again later."""
    import h5py

    if _stamp(Path(path)) != stamp:
        raise FileError(f"{path} was replaced while it was open; open it again")
    return h5py.File(path, mode)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        state = path.stat()
    except OSError as error:
        raise FileError(f"cannot read {path} ({error.strerror}); check the path") from None
    return (state.st_ino, state.st_size, state.st_mtime_ns)


def _decoded(manager: CachingFileManager[Any], path: Path) -> xr.Dataset:
    """Return the lazy dataset of a file, once its metadata are seen to be those of one."""
    try:
        with HDF5_LOCK:
            file = manager.acquire(needs_lock=False)
            found = foreign.datasets(file, path)
            each = _read_attributes([file, *found.values()])
            attrs = next(each)
            _check_schema(path, attrs)
            variables = dict(_variables(manager, file, zip(found.items(), each, strict=True)))
        decoded, kept, coords = decode_cf_variables(variables, attrs, decode_timedelta=False)
        return xr.Dataset(decoded, attrs=kept).set_coords(coords & decoded.keys())
    except FileError:
        raise
    except foreign.HarmfulError as error:
        raise FileError(
            f"{path} cannot be used: {error}; open foreign files with xarray.open_dataset if you "
            "trust them"
        ) from None
    except Exception as error:  # wrong metadata may raise anything in HDF5 and xarray
        raise FileError(f"{path} is damaged ({_reason(error)}); get or make it again") from None


def _variables(
    manager: CachingFileManager[Any], file: h5py.File, described: Iterable[Any]
) -> Iterator[tuple[str, xr.Variable]]:
    import h5py

    for (name, variable), attrs in described:
        if foreign.is_bare_dimension(variable):
            continue
        # NetCDF-4 names dims by references to their coordinates; a coordinate is its own dim.
        if "DIMENSION_LIST" in variable.attrs:
            axes = variable.attrs["DIMENSION_LIST"]
            dims = [h5py.h5r.get_name(axis[0], file.id).decode()[1:] for axis in axes]
        else:
            dims = [name] * variable.ndim
        data = indexing.LazilyIndexedArray(_Array(manager, name, variable))
        encoding = {
            "dtype": str if data.array.is_text else variable.dtype,
            "zlib": variable.compression == "gzip",
            "complevel": variable.compression_opts or 0,
            "shuffle": variable.shuffle,
            "fletcher32": variable.fletcher32,
            "chunksizes": variable.chunks,
        }
        if attrs.keys() & {"scale_factor", "add_offset"}:
            raise foreign.HarmfulError(f"{name} is scaled, as no variable of mids is")
        yield name, xr.Variable(dims, data, attrs, encoding)


def _read_attributes(owners: Iterable[h5py.HLObject]) -> Iterator[dict[str, Any]]:
    """Read the attributes of a file and its variables; many may be one long text of its heap."""
    total = 0
    for owner in owners:
        found = {}
        for name in owner.attrs:
            if name in OF_HDF5:
                continue
            found[name] = _plain(owner.attrs[name])
            total += len(found[name]) if isinstance(found[name], str) else 0
            if total > foreign.ATTRIBUTES:
                raise foreign.HarmfulError(f"its texts have more than {total} characters")
        yield found


def _plain(value: Any) -> Any:
    """Return an attribute as NetCDF gives it: text, a number, or an array of several."""
    import h5py

    if isinstance(value, h5py.Empty):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "SO":
            value = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
        return value[0] if len(value) == 1 else value
    return value


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(8)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist; check the path") from None
    except IsADirectoryError:
        raise FileError(f"{path} is a folder; give the name of a file in it") from None
    except OSError as error:
        raise FileError(f"cannot read {path} ({error.strerror}); check its permissions") from None
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
