"""Reading files that someone else may have put there."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

from ..errors import FileError

__all__ = ["check", "checksum", "copy", "read"]

BLOCK = 2**20

_KNOWN: dict[tuple[str, int, int, int], str] = {}


def read(path: Path, most: int) -> bytes:
    """Return the content of a plain file of at most so many bytes."""
    descriptor = _open(path)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise FileError(f"{path} has more than {most} bytes")
    return content


def check(path: Path, *, size: int, sha256: str) -> None:
    """Raise FileError unless a file has this size and checksum."""
    found = os.lstat(path).st_size if os.path.lexists(path) else None
    if found is not None and not path.is_symlink() and found != size:
        raise FileError(
            f"{path} has {found} bytes, but the index says {size}: it is "
            f"{'truncated' if found < size else 'another file'}; get it again or reindex"
        )
    if checksum(path) != sha256:
        raise FileError(
            f"{path} is not the file of the index (sha256 differs): it is damaged or was replaced; "
            "get it again or reindex"
        )


def checksum(path: Path) -> str:
    """Return the sha256 of a plain file, remembered as long as the file does not change."""
    descriptor = _open(path)
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        stamp = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
        if stamp not in _KNOWN:
            digest = hashlib.sha256()
            while block := file.read(BLOCK):
                digest.update(block)
            _KNOWN[stamp] = digest.hexdigest()
    return _KNOWN[stamp]


def copy(source: Path, path: Path) -> Path:
    """Copy a plain file and see it on disk."""
    with os.fdopen(_open(source), "rb") as file, path.open("xb") as target:
        shutil.copyfileobj(file, target, BLOCK)
        target.flush()
        os.fsync(target.fileno())
    return path


def _open(path: Path) -> int:
    """Open a file for reading if it is a plain one, not a link, device or pipe."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if path.is_symlink():
            raise FileError(f"{path} is a link, which a catalog must not hold; copy the file")
        descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        raise FileError(f"{path} is missing; get it again or reindex") from None
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"cannot read {path} ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileError(f"{path} is no plain file")
    return descriptor
