"""The folder of a catalog: its files, and changes that are complete or leave no trace.

A new file gets a name that no other had, then the index is replaced, which is the change, then the
files that it no longer names go. The names of both are written to a journal before, so that the
next one that may write removes what was left by a process that was killed in between.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .. import validation
from ..errors import FileError, InputError, MidsError
from ..storage import foreign
from ..storage import netcdf as io
from ..storage.files import file_lock, replacing, sync
from .index import INDEX, LARGEST_INDEX, Entry, check_key, documents, key_of_name, parse

WORKSHOP = ".writing-"
JOURNAL = ".changing"

Change = Callable[[dict[str, Entry]], Mapping[Path, Entry]]


def describe(file: Path, key: str | None = None) -> Entry:
    """Return the entry of a file that anyone may have written, once it is seen to be harmless."""
    sha256 = foreign.checksum(file)
    key = key or check_key(key_of_name(file.name, sha256))
    foreign.check(file, sha256)
    with io.open_dataset(file) as ds:
        size = file.stat().st_size
        return Entry.of(key, ds, sha256=sha256, size=size, path=f"data/{file.name}")


class Folder:
    """The files of a catalog on this machine."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        try:
            self.root = validation.path(root).resolve()
        except (OSError, RuntimeError) as error:
            raise FileError(f"{root} cannot be followed ({error}); give another path") from None
        self._seen: tuple[object, dict[str, Entry]] | None = None

    @property
    def data(self) -> Path:
        """The folder of the datasets."""
        return self.root / "data"

    def entries(self) -> dict[str, Entry]:
        """Return what the index says now, by key."""
        index = self.root / INDEX
        try:
            for path in (index, self.data):
                if path.is_symlink():
                    raise FileError(
                        f"{path} is a link, which a catalog must not hold; copy the files"
                    )
            state = os.stat(index)
        except (FileNotFoundError, NotADirectoryError):
            raise FileError(
                f"{self.root} is no catalog: it has no {INDEX}; mids.open_catalog(path, "
                "create=True) starts one, and `mids catalog reindex` makes the index of data/*.nc"
            ) from None
        except PermissionError as error:
            raise FileError(f"cannot read {index} ({error.strerror})") from None
        stamp = (state.st_ino, state.st_size, state.st_mtime_ns)
        if self._seen is None or self._seen[0] != stamp:
            try:
                self._seen = stamp, parse(foreign.read(index, LARGEST_INDEX))
            except FileError as error:
                raise FileError(
                    f"{index} is damaged: {error}; `mids catalog reindex` makes it again from "
                    "data/*.nc"
                ) from None
        return self._seen[1]

    def files(self) -> list[Path]:
        """Return the datasets that lie in the data folder, whether the index names them or not."""
        try:
            paths = sorted(self.data.iterdir())
        except OSError as error:
            raise FileError(
                f"cannot list {self.data} ({error.strerror}); put NetCDF files there, and allow "
                "reading it"
            ) from None
        return [path for path in paths if not path.name.startswith(".")]

    def strays(self) -> list[str]:
        """Name files in the data folder that are not in the index."""
        known = {Path(entry.path).name for entry in self.entries().values()}
        return [
            f"{path} is not in the index; reindex to take it in, or delete it"
            for path in self.files()
            if path.name not in known
        ]

    def file(self, entry: Entry) -> Path:
        """Return the file of an entry once its size and checksum are those of the index."""
        path = self.root / entry.path
        if path.is_file() and not path.is_symlink() and path.stat().st_size != entry.bytes:
            found = path.stat().st_size
            kind = "truncated" if found < entry.bytes else "another file"
            raise FileError(
                f"{path} has {found} bytes, but the index says {entry.bytes}: it is {kind}; get it "
                "again or reindex"
            )
        if foreign.checksum(path) != entry.sha256:
            raise FileError(
                f"{path} is not the file of the index (sha256 differs): it is damaged or was "
                "replaced; get it again or reindex"
            )
        return path

    # -- writing --------------------------------------------------------------------------------

    def create(self) -> None:
        """Start an empty catalog, unless there is one."""
        with self._locked(create=True):
            if not (self.root / INDEX).exists():
                if any(path.suffix == ".nc" for path in self.files()):
                    raise FileError(
                        f"{self.root} has datasets but no {INDEX}; `mids catalog reindex` makes it "
                        "again from data/*.nc"
                    )
                self._put(INDEX, documents([])[INDEX])
                self._tidy({})

    def reindex(self) -> None:
        """Make the index from the files alone; those that are no datasets are named together."""

        def rebuild(entries: dict[str, Entry]) -> Mapping[Path, Entry]:
            problems = []
            for file in self.files():
                if file.suffix != ".nc":
                    continue
                try:
                    entry = describe(file)
                    if entry.key in entries:
                        first = entries[entry.key].path
                        raise FileError(f"{file} has the key of {first}; delete one")
                    entries[entry.key] = entry
                except (FileError, ValueError) as error:
                    problems.append(str(error) if file.name in str(error) else f"{file}: {error}")
            if problems:
                raise FileError("cannot index:\n  " + "\n  ".join(problems))
            return {}

        self.files()  # or say why they cannot be listed
        self.change(rebuild, afresh=True)

    def check_free(self, entries: Mapping[str, Entry], key: str) -> None:
        """Raise InputError if the key is taken."""
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

    @contextmanager
    def workshop(self) -> Iterator[Path]:
        """Give a hidden folder for files that are being written, which goes with its owner."""
        # Under the lock until the folder has an owner, or a writer that tidies would remove it.
        with self._locked():
            folder = Path(tempfile.mkdtemp(prefix=WORKSHOP, dir=self.root))
            owner = file_lock(folder / "lock")
            owner.acquire()
        try:
            yield folder
        finally:
            owner.release()
            shutil.rmtree(folder, ignore_errors=True)

    def change(self, decide: Change, *, afresh: bool = False) -> None:
        """Change the catalog, alone and as a whole; `decide` gives the files that are new."""
        with self._locked():
            before: dict[str, Entry] = {}
            # Reindexing is the remedy for an index that is damaged or missing.
            with contextlib.suppress(FileError) if afresh else contextlib.nullcontext():
                before = self.entries()
                self._tidy(before)
            after = {} if afresh else dict(before)
            new = decide(after)
            # Reindexing deletes no datasets.
            gone = {entry.path for entry in before.values()} if not afresh else set()
            gone -= {entry.path for entry in after.values()}
            names = [Path(path).name for path in (*gone, *(entry.path for entry in new.values()))]
            self._put(JOURNAL, json.dumps(names).encode())
            try:
                for source, entry in new.items():
                    os.replace(source, self.root / entry.path)
                sync(self.data)
                self._put(INDEX, documents(after.values())[INDEX])
            finally:
                if (self.root / INDEX).exists():
                    self._tidy(self.entries())

    def recover(self) -> None:
        """Finish or undo what an interrupted change left, where that is possible and needed."""
        waste = (f"{WORKSHOP}*", JOURNAL, ".*.mids-part")
        left = any(any(self.root.glob(pattern)) for pattern in waste)
        if left or self._stale(self.entries()):
            # Readers may lack permission to write, and a writer at work tidies up itself.
            with contextlib.suppress(MidsError, OSError), self._locked(timeout=0):
                self._tidy(self.entries())

    @contextmanager
    def _locked(self, *, create: bool = False, timeout: float = -1) -> Iterator[None]:
        """Keep other writers out; what the system refuses is an error that says so."""
        try:
            lock = file_lock(self.root / ".lock")
            if create:
                self.data.mkdir(parents=True, exist_ok=True)
            with lock.acquire(timeout=timeout):
                yield
        except OSError as error:
            if isinstance(error, MidsError):
                raise
            raise FileError(
                f"cannot write the catalog {self.root} ({error.strerror or error}); check "
                "permissions and free space"
            ) from error

    def _stale(self, entries: Mapping[str, Entry]) -> dict[str, bytes]:
        """Return the derived files that are not those of the index."""
        stale = documents(entries.values())
        del stale[INDEX]  # it may have been written in another way
        for name in list(stale):
            with contextlib.suppress(FileError):
                if foreign.read(self.root / name, LARGEST_INDEX) == stale[name]:
                    del stale[name]
        return stale

    def _put(self, name: str, content: bytes) -> None:
        """Replace a file of the root."""
        with replacing(self.root / name) as temporary:
            temporary.write_bytes(content)

    def _tidy(self, entries: Mapping[str, Entry]) -> None:
        """Remove what a change has left, and derive again; the lock is held."""
        known = {Path(entry.path).name for entry in entries.values()}
        journal = self.root / JOURNAL
        if journal.exists():
            with contextlib.suppress(ValueError, TypeError):
                for name in json.loads(foreign.read(journal, LARGEST_INDEX)):
                    # A foreign journal must not remove anything else.
                    if Path(name).name == name and name.endswith(".nc") and name not in known:
                        (self.data / name).unlink(missing_ok=True)
            journal.unlink()
        for name, content in self._stale(entries).items():
            self._put(name, content)
        for path in self.root.glob(f"{WORKSHOP}*"):
            # The owner holds this lock as long as it lives.
            with contextlib.suppress(OSError), file_lock(path / "lock").acquire(timeout=0):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.root.glob(".*.mids-part"):  # of index files: this process has the lock
            path.unlink(missing_ok=True)
