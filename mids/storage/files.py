"""Files that are written whole or not at all, and the lock of all calls into netCDF."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xarray.backends.locks import HDF5_LOCK, NETCDFC_LOCK, combine_locks

from ..errors import InputError

__all__ = ["NETCDF_LOCK", "check_output", "replacing", "sync"]


class _NetCDFLock:
    """The lock of all netCDF calls: reentrant, and holding xarray's own lock too.

    Files that other threads read through plain xarray are thus kept out as well.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._xarray = combine_locks([NETCDFC_LOCK, HDF5_LOCK])

    def acquire(self, blocking: bool = True) -> bool:
        """Acquire the lock, once more if this thread holds it."""
        if not self._lock.acquire(blocking):
            return False
        if self._depth == 0 and not self._xarray.acquire(blocking):
            self._lock.release()
            return False
        self._depth += 1
        return True

    def release(self) -> None:
        """Release the lock once."""
        self._depth -= 1
        if self._depth == 0:
            self._xarray.release()
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *args: object) -> None:
        self.release()

    def __reduce__(self) -> str:
        """Pickle as the lock of the process that unpickles."""
        return "NETCDF_LOCK"


NETCDF_LOCK = _NetCDFLock()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file in the folder of `path`, which replaces it if all goes well."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        with NETCDF_LOCK:  # not while another thread opens it
            temporary.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Make the system write a file, or the names in a folder where it can, to disk."""
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_output(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file to write, or say why nothing can be written there."""
    path = Path(path)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(
            f"cannot write {path}: the folder {folder} does not exist; create it or give another"
        )
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give the name of a file in it")
    return path
