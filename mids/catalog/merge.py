"""Taking over the datasets of another catalog, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError
from ..storage import netcdf as io
from . import files
from .describe import describe
from .entry import Entry
from .folder import Folder

__all__ = ["merge"]


def merge(
    folder: Folder, theirs: Mapping[str, Entry], fetched: Mapping[str, Path], origin: str
) -> list[str]:
    """Take over the datasets of another catalog; see `Catalog.merge`."""
    checked = {key: describe(fetched[key], key) for key in theirs}
    with folder.workshop() as workshop:
        copies = {key: files.copy(fetched[key], workshop / f"{key}.nc") for key in theirs}
        added: list[str] = []

        def join(entries: dict[str, Entry]) -> Mapping[Path, Entry]:
            conflicts = [
                key
                for key in theirs
                if key in entries
                and entries[key].sha256 != checked[key].sha256
                and not _equal(folder.file(entries[key]), copies[key])
            ]
            if conflicts:
                raise InputError(
                    f"{folder.root} and {origin} have different datasets of the same "
                    f"key: {', '.join(conflicts)}; nothing was merged; remove them from one, "
                    "or add them under another key"
                )
            added.extend(key for key in theirs if key not in entries)
            entries |= {key: checked[key] for key in added}
            return {copies[key]: checked[key] for key in added}

        folder.change(join)
    return added


def _equal(one: Path, two: Path) -> bool:
    """Tell whether two files hold the same data, made in the same way at whatever time."""
    with io.open_dataset(one) as first, io.open_dataset(two) as second:
        for ds in (first, second):
            for name in ("date_created", "history"):
                ds.attrs.pop(name, None)
        return bool(first.identical(second))
