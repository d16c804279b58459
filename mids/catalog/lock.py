"""A lock between processes that its owner's death releases."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

__all__ = ["FileLock"]

if os.name == "nt":  # pragma: no cover
    import msvcrt

    def _lock(descriptor: int, blocking: bool) -> None:
        while True:
            try:
                return msvcrt.locking(  # type: ignore[attr-defined,no-any-return]
                    descriptor,
                    msvcrt.LK_LOCK if blocking else msvcrt.LK_NBLCK,  # type: ignore[attr-defined]
                    1,
                )
            except OSError:  # LK_LOCK gives up after ten seconds
                if not blocking:
                    raise

else:
    import fcntl

    def _lock(descriptor: int, blocking: bool) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))


class FileLock:
    """An exclusive lock on a file, between threads and between processes.

    The operating system holds it for an open file, so that it ends with its owner, however that
    ends; the file itself stays and means nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take the lock, or tell that another has it."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self.path, flags, 0o666)
        try:
            _lock(descriptor, blocking)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
