"""The folder of a catalog: its files, and changes that happen as a whole or not at all.

A new dataset is first *parked* under a hidden name that holds its key and checksum, then the index
is replaced, which is the moment of the change, then the file gets its name. A dataset that goes is
parked the other way round. Whatever stops this in between, a parked file that the index names is
the dataset, and any other is waste: readers look there first, and the next one that may write
tidies up.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..errors import FileError, InputError, MidsError
from ..storage.files import replacing, sync
from . import files
from .entry import KEY, Entry
from .index import DERIVED, INDEX, LARGEST_INDEX, documents, parse
from .lock import FileLock

__all__ = ["Folder"]

PARKED = re.compile(rf"\.(?P<key>{KEY.pattern})\.nc\.(?P<checksum>[0-9a-f]{{32}})\.parked")
WORKSHOP = ".writing-"

Change = Callable[[dict[str, Entry]], Mapping[Path, Entry]]


class Folder:
    """The files of a catalog on this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._seen: tuple[object, dict[str, Entry]] | None = None

    @property
    def data(self) -> Path:
        """The folder of the datasets."""
        return self.root / "data"

    def entries(self) -> dict[str, Entry]:
        """Return what the index says now, by key."""
        index = self.root / INDEX
        for path in (index, self.data):
            if path.is_symlink():
                raise FileError(f"{path} is a link, which a catalog must not hold; copy the files")
        try:
            state = os.stat(index)
        except (FileNotFoundError, NotADirectoryError):
            raise FileError(
                f"{self.root} is no catalog: it has no {INDEX}; mids.open_catalog(path, "
                "create=True) starts one, and `mids catalog reindex` makes the index of data/*.nc"
            ) from None
        stamp = (state.st_ino, state.st_size, state.st_mtime_ns)
        if self._seen is None or self._seen[0] != stamp:
            try:
                self._seen = stamp, parse(files.read(index, LARGEST_INDEX))
            except FileError as error:
                raise FileError(
                    f"{index} is damaged: {error}; `mids catalog reindex` makes it again from "
                    "data/*.nc"
                ) from None
        return self._seen[1]

    def create(self) -> None:
        """Start an empty catalog, unless there is one."""
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / ".lock"):
                if not (self.root / INDEX).exists():
                    if any(self.data.glob("[!.]*.nc")):
                        raise FileError(
                            f"{self.root} has datasets but no {INDEX}; `mids catalog reindex` "
                            "makes it again from data/*.nc"
                        )
                    self._tidy({})
                    self._write_index({})
        except OSError as error:
            if isinstance(error, MidsError):
                raise
            raise _not_writable(self.root, error) from error

    def check_free(self, entries: Mapping[str, Entry], key: str) -> None:
        """Raise InputError if a new dataset of this key would replace another file."""
        if key in entries:
            raise InputError(
                f"the catalog has a dataset {key!r} already; pass another key, or overwrite=True "
                "to replace it"
            )
        if os.path.lexists(self.data / f"{key}.nc"):
            raise InputError(
                f"data/{key}.nc is there but not in the index; reindex to take it in, pass another "
                "key, or overwrite=True to replace it"
            )

    def file(self, entry: Entry) -> Path:
        """Return the file of an entry once its size and checksum are those of the index."""
        path = self.root / entry.path
        for attempt in range(5):  # others may be moving it into place
            parked = self._parked(entry)
            current = parked if os.path.lexists(parked) else path
            try:
                files.check(current, size=entry.bytes, sha256=entry.sha256)
            except FileError:
                if attempt == 4 or (current == path and not os.path.lexists(parked)):
                    raise
            else:
                return current
        raise AssertionError

    def strays(self) -> list[str]:
        """Name files in the data folder that are not in the index."""
        known = {Path(entry.path).name for entry in self.entries().values()}
        return [
            f"{path} is not in the index; reindex to take it in, or delete it"
            for path in sorted(self.data.iterdir())
            if path.name not in known and not path.name.startswith(".")
        ]

    @contextmanager
    def workshop(self) -> Iterator[Path]:
        """Give a hidden folder for files that are being written, which goes with its owner."""
        try:
            with FileLock(self.root / ".lock"):
                folder = self.root / f"{WORKSHOP}{uuid.uuid4().hex[:12]}"
                folder.mkdir()
                owner = FileLock(folder / "lock")
                owner.acquire()
        except OSError as error:
            raise _not_writable(self.root, error) from error
        try:
            yield folder
        finally:
            owner.release()
            shutil.rmtree(folder, ignore_errors=True)

    def change(self, decide: Change, *, afresh: bool = False) -> None:
        """Change the catalog, alone and as a whole."""
        try:
            with FileLock(self.root / ".lock"):
                try:
                    self._change(decide, afresh)
                except BaseException:
                    with contextlib.suppress(OSError):
                        self._tidy(self.entries())
                    raise
        except OSError as error:
            if isinstance(error, MidsError):
                raise
            raise _not_writable(self.root, error) from error

    def _change(self, decide: Change, afresh: bool) -> None:
        before: dict[str, Entry] = {}
        if not afresh:
            before = self.entries()
            self._tidy(before)
        else:
            with contextlib.suppress(FileError):
                self._tidy(self.entries())
        after = dict(before)
        for source, entry in decide(after).items():
            os.replace(source, self._parked(entry))
        for key in before.keys() - after.keys():
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.root / before[key].path, self._parked(before[key]))
        sync(self.data)
        self._write_index(after)
        self._tidy(after)

    def recover(self) -> None:
        """Finish or undo what an interrupted change left, where that is possible and needed."""
        if not self._untidy():
            return
        with contextlib.suppress(OSError):  # a catalog that cannot be written is read as it is
            lock = FileLock(self.root / ".lock")
            if lock.acquire(blocking=False):
                try:
                    self._tidy(self.entries())
                finally:
                    lock.release()

    def _untidy(self) -> bool:
        waste = ((self.root, f"{WORKSHOP}*"), (self.root, ".*.part"), (self.data, ".*.parked"))
        if any(any(folder.glob(pattern)) for folder, pattern in waste):
            return True
        return any(
            self._content(name) != content
            for name, content in documents(self.entries().values()).items()
            if name in DERIVED
        )

    def _content(self, name: str) -> bytes | None:
        try:
            return files.read(self.root / name, LARGEST_INDEX)
        except FileError:
            return None

    def _parked(self, entry: Entry) -> Path:
        return self.data / f".{entry.key}.nc.{entry.sha256[:32]}.parked"

    def _write_index(self, entries: Mapping[str, Entry]) -> None:
        content = documents(entries.values())[INDEX]
        with replacing(self.root / INDEX) as temporary:
            temporary.write_bytes(content)

    def _tidy(self, entries: Mapping[str, Entry]) -> None:
        """Bring everything in line with the index; the lock is held."""
        self.data.mkdir(exist_ok=True)
        for path in list(self.data.glob(".*.parked")):
            match = PARKED.fullmatch(path.name)
            entry = entries.get(match["key"]) if match else None
            if entry is not None and self._parked(entry) == path:
                os.replace(path, self.root / entry.path)
            elif match:
                path.unlink()
        for name, content in documents(entries.values()).items():
            if name in DERIVED and self._content(name) != content:
                with replacing(self.root / name) as temporary:
                    temporary.write_bytes(content)
        for path in self.root.glob(f"{WORKSHOP}*"):
            _remove_if_abandoned(path)
        for path in self.root.glob(".*.part"):  # of index files: this process has the lock
            path.unlink(missing_ok=True)


def _remove_if_abandoned(workshop: Path) -> None:
    owner = FileLock(workshop / "lock")
    with contextlib.suppress(OSError):
        if owner.acquire(blocking=False):
            owner.release()
            shutil.rmtree(workshop, ignore_errors=True)


def _not_writable(root: Path, error: OSError) -> FileError:
    return FileError(
        f"cannot write the catalog {root} ({error.strerror or error}); check permissions and free "
        "space"
    )
