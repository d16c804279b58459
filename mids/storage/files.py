"""Files that appear under their names when they are complete."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import validation
from ..errors import FileError, InputError

ABANDONED_SECONDS = 86_400.0  # age of temporary files that killed processes have left


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file in the folder of `path`, which replaces it if all goes well."""
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.mids-part")
    try:
        yield temporary
        # Content before name: a loss of power leaves the old file or the new one.
        sync(temporary)
        os.replace(temporary, path)
        # A new name is on disk only when its folder is.
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def file_lock(path: Path) -> Any:
    """Return a lock between processes that its owner's death releases."""
    from filelock import FileLock

    return FileLock(path, is_singleton=False)


def sync(path: Path) -> None:
    """Make the system write a file, or the names in a folder where it can, to disk."""
    # Only POSIX systems can open a folder to sync it.
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_output(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file to write, or say why not; remove what killed processes left."""
    path = validation.path(path)
    folder = path.absolute().parent
    try:
        exists, is_folder = folder.is_dir(), path.is_dir()
        if not is_folder:
            path.exists()  # raises where links go in circles
    except OSError as error:
        raise FileError(f"cannot write {path} ({error.strerror}); give another path") from None
    if not exists:
        raise InputError(
            f"cannot write {path}: the folder {folder} does not exist; create it or give another"
        )
    if is_folder:
        raise InputError(f"cannot write {path}: it is a folder; give the name of a file in it")
    for left in folder.glob(".*.mids-part"):
        with contextlib.suppress(OSError):
            # Younger ones may belong to a process that is still writing.
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink()
    return path
