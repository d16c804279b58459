"""Named files in a folder or an object store: each is written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import FileError, InputError, MissingDependencyError
from .files import replacing

__all__ = ["NamedFiles", "sha256"]


class NamedFiles:
    """A folder, or a place that fsspec knows by its URL, such as ``s3://bucket/sweep``."""

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self.place = os.fspath(place)
        self.folder: Path | None = None
        self._files: Any = None
        if "://" not in self.place:
            self.folder = Path(self.place).absolute()
            self.place = str(self.folder)  # for processes that work in other folders
            return
        import fsspec

        try:
            self._files, self._root = fsspec.url_to_fs(self.place)
        except ImportError as error:
            raise MissingDependencyError(f"{self.place} needs a package: {error}") from None
        except ValueError as error:
            raise InputError(
                f"cannot use {self.place} ({error}); pass a folder or a URL such as "
                "s3://bucket/sweep"
            ) from None

    def location(self, name: str) -> str:
        """Return the path or URL of a file or folder."""
        return (
            f"{self.place.rstrip('/')}/{name}" if self.folder is None else str(self.folder / name)
        )

    def create(self) -> None:
        """Make the folder; object stores have none."""
        if self.folder is None:
            return
        if not self.folder.parent.is_dir():
            raise InputError(
                f"cannot write {self.place}: the folder {self.folder.parent} does not exist; "
                "create it or give another"
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"cannot write {self.place}: it is a file; give a new folder")
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot write {self.place} ({error.strerror})") from None

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if it does not exist."""
        try:
            if self.folder is not None:
                return (self.folder / name).read_bytes()
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
            return content
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise FileError(f"cannot read {name} in {self.place} ({error})") from None

    def write(self, name: str, content: bytes) -> None:
        """Write a file; it appears when it is complete."""
        try:
            if self.folder is None:
                self._files.pipe_file(f"{self._root}/{name}", content)
                return
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise FileError(
                f"cannot write {self.place} ({error}); check permissions and free space"
            ) from None

    def document(self, name: str) -> dict[str, Any] | None:
        """Read what `write_document` wrote, None if it is not there."""
        content = self.read(name)
        if content is None:
            return None
        try:
            found: dict[str, Any] = json.loads(content)
            if found.pop("sha256") == _checksum(found):
                return found
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass  # no JSON, or another one
        raise FileError(f"{self.location(name)} is damaged")

    def write_document(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a mapping as JSON with its own checksum."""
        signed = {**content, "sha256": _checksum(content)}
        self.write(name, json.dumps(signed, indent=1).encode())

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of what lies directly in a folder, which need not exist."""
        try:
            if self.folder is not None:
                return sorted(os.listdir(self.folder / folder))
            where = f"{self._root}/{folder}".rstrip("/")
            self._files.invalidate_cache()
            found = self._files.ls(where, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise FileError(f"cannot read {self.place} ({error})") from None
        return sorted({str(path).rstrip("/").rpartition("/")[2] for path in found})

    def remove(self, name: str) -> None:
        """Remove a file or an empty folder that may be gone."""
        if self.folder is None:
            if self._files.exists(f"{self._root}/{name}"):
                self._files.rm(f"{self._root}/{name}", recursive=True)
            return
        path = self.folder / name
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)

    def remove_unfinished(self) -> None:
        """Remove what processes that were killed had begun to write."""
        if self.folder is not None:
            for path in self.folder.rglob(".*.part"):
                path.unlink(missing_ok=True)


def _checksum(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content).encode())


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
