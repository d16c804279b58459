"""Checkpoints of long runs: complete or absent, and never code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileError, InputError
from ..validation import shown

__all__ = ["Checkpoint", "check_folder"]

INTERVAL = 20.0
"""Seconds between two checkpoints of a run."""


def check_folder(folder: object) -> str:
    """Return the path of a folder for checkpoints, which need not exist yet."""
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise InputError(
            f"checkpoint must be the path of a folder, got {shown(folder)}; pass for example "
            'checkpoint="checkpoints"'
        )
    path = Path(folder).absolute()
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir():
        raise InputError(f"checkpoint must be a folder, but {there} is a file; give another path")
    if not os.access(there, os.W_OK):
        raise InputError(f"checkpoint {path} cannot be written, {there} is read-only; give another")
    return str(path)


class Checkpoint:
    """The file that holds where a run has got to.

    Its name contains a digest of everything the run's numbers depend on, so that no run goes on
    from the state of another. It is written under another name and renamed when it is complete.
    """

    def __init__(self, folder: str | None, name: str, identity: Mapping[str, Any]) -> None:
        text = json.dumps(identity, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.path = None if folder is None else Path(folder, f"{name}-{digest[:32]}.npz")
        self._last = time.monotonic()

    def load(self) -> dict[str, np.ndarray] | None:
        """Return the arrays of the last checkpoint, or None if there is none."""
        if self.path is None or not self.path.exists():
            return None
        try:
            with self.path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise FileError(
                f"the checkpoint {self.path} is damaged ({error}); delete it to start that run over"
            ) from None

    def save(self, arrays: Mapping[str, np.ndarray], *, now: bool = False) -> None:
        """Keep arrays, if the last checkpoint is older than 20 seconds or `now` is set."""
        if self.path is None or not (now or time.monotonic() - self._last >= INTERVAL):
            return
        temporary = self.path.with_name(f"{self.path.stem}.{uuid.uuid4().hex}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise FileError(
                f"cannot write the checkpoint {self.path} ({error.strerror or error}); "
                "give another folder or free some space"
            ) from None
        self._last = time.monotonic()
