"""What a file of a catalog is, read off the file itself, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import FileError
from ..storage import netcdf as io
from . import files, probe
from .entry import Entry, check_key
from .folder import Folder

__all__ = ["describe", "describe_all"]


def describe(file: Path, key: str) -> Entry:
    """Return the entry of a file that anyone may have written."""
    sha256 = files.checksum(file)
    probe.check(file, sha256)
    with io.open_dataset(file) as ds:
        return Entry.of(key, ds, sha256=sha256, size=file.stat().st_size)


def describe_all(folder: Folder) -> None:
    """Make the index of a folder from its files; see `mids.catalog.reindex`."""
    if not folder.data.is_dir():
        raise FileError(f"{folder.root} has no folder data; put NetCDF files there")

    def rebuild(entries: dict[str, Entry]) -> Mapping[Path, Entry]:
        problems = []
        for file in sorted(folder.data.glob("*.nc")):
            if file.name.startswith("."):
                continue
            try:
                entries[file.stem] = describe(file, check_key(file.stem))
            except (FileError, ValueError) as error:
                problems.append(str(error) if file.name in str(error) else f"{file}: {error}")
        if problems:
            raise FileError("cannot index:\n  " + "\n  ".join(problems))
        return {}

    folder.change(rebuild, afresh=True)
