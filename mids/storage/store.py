"""Stores: one Zarr group in a folder or object store, with what it holds and who writes it.

Besides the group, which `xarray.open_zarr` opens too, a store has ``mids.json``, which says what is
simulated and whether it is complete; ``blocks/``, with a mark for each block of runs that has been
written; and ``lock``, or ``claims/`` in an object store, which keep a second writer out.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import ceil, prod
from pathlib import Path
from typing import Any

import xarray as xr

from .. import validation
from ..errors import FileError, InputError, MissingDependencyError
from .files import file_lock, replacing

STORE_VERSION = 2  # layout that this version writes and reads

STATE = "mids.json"

BEAT = 10.0  # seconds after which the writer of a store in an object store renews its claim

CODECS = {"bytes", "vlen-utf8", "blosc", "crc32c"}


class Location:
    """A folder, or a location that fsspec knows by its URL: objects by name, each written whole."""

    def __init__(self, store: str | os.PathLike[str]) -> None:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        self.folder: Path | None = None
        if not isinstance(store, str) or "://" not in store:
            self.folder = validation.path(store, "store").absolute()  # workers run elsewhere
            self.url = self.root = str(self.folder)
            self.files = LocalFileSystem()
            return
        self.url = store.rstrip("/")
        try:
            self.files, self.root = fsspec.url_to_fs(self.url)
        except ImportError as error:
            raise MissingDependencyError(f"{self.url} needs a package: {error}") from None
        except ValueError as error:
            raise InputError(
                f"cannot use {self.url} ({error}); pass a folder or a URL such as s3://bucket/sweep"
            ) from None

    def zarr(self, read_only: bool = False) -> Any:
        """Return Zarr's view of the location."""
        stores = validation.package("zarr.storage", "stores need zarr", "store")
        if self.folder is None:
            return stores.FsspecStore.from_url(self.url, read_only=read_only)
        return stores.LocalStore(self.folder, read_only=read_only)

    def create(self) -> None:
        """Make the folder; object stores have none."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the folder {self.url} ({error.strerror}); give a new one in a folder "
                "that exists and can be written"
            ) from None

    def read(self, name: str) -> bytes | None:
        """Return the content of an object; None if there is none."""
        try:
            content: bytes = self.files.cat_file(f"{self.root}/{name}")
            return content
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise FileError(f"cannot read {self.url}/{name} ({error})") from None

    def write(self, name: str, content: bytes, mode: str = "overwrite") -> None:
        """Write an object, which appears when it is complete."""
        if self.folder is None:
            self.files.pipe_file(f"{self.root}/{name}", content, mode=mode)
            return
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of what lies in a folder, which need not exist."""
        try:
            # fsspec remembers listings, but others write here, too.
            self.files.invalidate_cache()
            found = self.files.ls(f"{self.root}/{folder}".rstrip("/"), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted({str(path).rstrip("/").rpartition("/")[2] for path in found} - {""})

    def remove(self, name: str) -> None:
        """Remove an object that may be gone."""
        if self.files.exists(f"{self.root}/{name}"):
            self.files.rm_file(f"{self.root}/{name}")


# -- who writes ---------------------------------------------------------------------------------


@contextmanager
def claimed(location: Location) -> Iterator[threading.Event]:
    """Be the only writer of a store, or say who is; give an event that tells if the claim is lost.

    The claim ends with the process: the system frees the lock of a folder; in an object store a
    claim that is no longer renewed is ignored.
    """
    owner = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T %Z')}"
    if location.folder is None:
        with _claim_object(location, owner) as lost:
            yield lost
        return
    try:
        held = file_lock(location.folder / "lock").acquire(timeout=0)
    except TimeoutError:
        raise _busy(location, location.read("writer")) from None
    except OSError as error:
        raise FileError(
            f"cannot write {location.url} ({error.strerror or error}); check its permissions"
        ) from None
    with held:
        # Only to tell others who holds the lock.
        location.write("writer", owner.encode())
        yield threading.Event()


@contextmanager
def _claim_object(location: Location, owner: str) -> Iterator[threading.Event]:
    """Claim by the object with the highest number in ``claims/``, which only one can create."""
    last = (location.names("claims") or ["0"])[-1]
    before = location.read(f"claims/{last}")
    if before is not None:
        # Three beats: a claim that nobody renews in that time is abandoned.
        for _ in range(30):  # a living writer renews its claim meanwhile
            time.sleep(BEAT / 10)
            if location.read(f"claims/{last}") != before:
                raise _busy(location, before)
    name = f"claims/{int(last) + 1:08d}"
    try:
        location.write(name, owner.encode(), mode="create")
    except FileExistsError:
        raise _busy(location, location.read(name)) from None
    location.remove(f"claims/{last}")
    ended, lost = threading.Event(), threading.Event()

    def renew() -> None:
        beats = 0
        while not ended.wait(BEAT) and not lost.is_set():
            beats += 1
            # A later writer has removed the claim: this process was taken for dead.
            if location.read(name) is None:
                lost.set()
            else:
                location.write(name, f"{owner}\n{beats}".encode())

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    try:
        yield lost
    finally:
        ended.set()
        renewing.join()
        location.remove(name)


def _busy(location: Location, owner: bytes | None) -> FileError:
    who = (owner or b"another process").decode(errors="replace").partition("\n")[0]
    return FileError(
        f"{location.url} is being written by {who}; wait until it has ended and repeat the call, "
        "or give another store"
    )


# -- what it holds ------------------------------------------------------------------------------


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read_state(location: Location) -> dict[str, Any] | None:
    """Return what ``mids.json`` says of a store; None if there is none."""
    content = location.read(STATE)
    if content is None:
        return None
    try:
        state: dict[str, Any] = json.loads(content)
        sound = state.pop("sha256") == digest(json.dumps(state).encode())
        version = int(state["mids_store"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise FileError(
            f"{location.url}/{STATE} is damaged; it says what the store holds: restore it from a "
            "copy, or simulate into a new store (xarray.open_zarr opens this one all the same)"
        )
    if version != STORE_VERSION:
        raise FileError(
            f"{location.url} has store version {version}, and this version of mids reads "
            f"{STORE_VERSION}; upgrade with: python -m pip install --upgrade mids"
        )
    return state


def write_state(location: Location, state: Mapping[str, Any]) -> None:
    """Write ``mids.json`` with its own checksum."""
    content = {"mids_store": STORE_VERSION, **state}
    signed = {**content, "sha256": digest(json.dumps(content).encode())}
    location.write(STATE, json.dumps(signed, indent=1).encode())


def is_store(location: str | os.PathLike[str]) -> bool:
    """Tell whether a folder or URL holds a store, finished or not."""
    at = Location(location)
    return (at.folder is None or at.folder.is_dir()) and at.read(STATE) is not None


def open_store(store: str | os.PathLike[str]) -> xr.Dataset:
    """Open a finished store as one lazy dataset, whose chunks are checked when they are read."""
    location = Location(store)
    state = read_state(location)
    if state is None:
        raise FileError(f"{location.url} is no store: it has no {STATE}; check the path")
    view = location.zarr(read_only=True)
    from .chunks import REMEDY, CheckedChunks

    try:
        if not state["complete"]:
            count = prod(
                ceil(size / (state["chunk"] if name == "run" else 1))
                for name, size in state["sizes"].items()
            )
            raise FileError(
                f"{location.url} is not finished: {len(location.names('blocks'))} of {count} "
                "blocks are there; call mids.generate with the same arguments to complete it"
            )
        # The header says how chunks are read, so it is checked before it is used.
        header = location.read("zarr.json") or b""
        if digest(header) != state["header"]:
            raise FileError(f"{location.url}/zarr.json is missing or damaged; {REMEDY}")
        # A foreign header could name any codec, and Zarr would run it.
        arrays = json.loads(header)["consolidated_metadata"]["metadata"].values()
        found = {codec["name"] for array in arrays for codec in array["codecs"]}
        if not found <= CODECS:
            raise FileError(f"{location.url} has codecs that mids does not write: {found - CODECS}")
        ds: xr.Dataset = xr.open_zarr(
            CheckedChunks(view, location.url), consolidated=True, zarr_format=3, chunks={}
        )
        coords = ds.coords.to_dataset().compute(scheduler="synchronous").coords.items()
        ds = ds.assign_coords(
            {n: c.astype(object).astype(str) if c.dtype.kind in "OT" else c for n, c in coords}
        )
        ds = ds[[*state["variables"]]]
        if "recipe" in ds:  # analyses look at it before they compute anything
            ds["recipe"] = ds["recipe"].compute(scheduler="synchronous")
        failed, runs = int(state["failed"]), prod(map(int, state["sizes"].values()))
    except FileError:
        raise
    except Exception as error:  # damaged content may raise anything in Zarr, its codecs and JSON
        raise FileError(f"{location.url} is damaged ({error!r:.200}); {REMEDY}") from None
    if failed:
        ds.attrs["failures"] = f"{failed} of {runs} runs failed (status 3)"
    ds.encoding["source"] = location.url
    return ds
