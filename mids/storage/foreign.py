"""Files that others may have made: what their metadata may say, and what may be read of them.

`datasets` looks at the metadata of an open HDF5 file, in milliseconds: everything that a dataset of
mids has lies in the file itself, in plain arrays that are not larger than compression explains.
`check` reads a whole file in another process, with limits on time and memory: HDF5 trusts what it
reads, and may crash. The verdict is remembered by the content of the file. Run as a
script, this module is that process; it does not import the package.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import subprocess
import sys
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import h5py

CPU_SECONDS, CLOCK_SECONDS = 2.0, 15.0  # of the other process, which needs 0.2 s for itself
BYTES_PER_SECOND = 5e6  # for the content it may compute longer, and wait ten times that
MEMORY = 2**29  # bytes of address space that it may have beyond what it needs for itself
FREE = 2**26
RATIO = 1032  # the most that deflate can unpack; a file may declare as much, and `FREE` bytes
NAMES = 1000
ATTRIBUTES = 2**24
MOST_DIMS = 32
BLOCK = 2**22
FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32"}

_verdicts: dict[str, str] = {}  # what is wrong with files, by checksum; nothing if they are fine
_checksums: dict[tuple[str, int, int, int], str] = {}


# -- metadata -----------------------------------------------------------------------------------


class HarmfulError(Exception):
    """Why the metadata of a file are not those of a dataset."""


def datasets(file: h5py.File, path: Path | None = None) -> dict[str, h5py.Dataset]:
    """Return the datasets of a file by name once their metadata are seen; HarmfulError if not.

    Texts lie in a heap, where many may be one long one: only reading them shows how much they are,
    which the other process does where it could be too much and `path` is given.
    """
    import h5py

    size = file.id.get_filesize()
    names = list(file)
    if len(names) > NAMES:
        raise HarmfulError(f"it has more than {NAMES} variables and dimensions")
    links = file.id.links
    # Links are looked at before `file.items()` below would follow them.
    kinds = {n: links.get_info(n.encode("utf-8", "surrogateescape")).type for n in names}
    if set(kinds.values()) - {h5py.h5l.TYPE_HARD}:
        raise HarmfulError("it has links to other data, which no dataset of mids has")
    found = dict(file.items())
    declared = attributes = texts = 0
    for name, variable in found.items():
        if not isinstance(variable, h5py.Dataset):
            raise HarmfulError("it has groups or types of its own, which no dataset of mids has")
        _check_storage(name, variable.id)
        # A dimension without a coordinate declares a length, but has no data.
        declared += 0 if is_bare_dimension(variable) else variable.id.dtype.itemsize * variable.size
        texts += variable.size * _is_long(variable.id.get_type())
    for owner in (file, *found.values()):
        for i in range(h5py.h5a.get_num_attrs(owner.id)):
            attribute = h5py.h5a.open(owner.id, index=i)
            count = attribute.get_space().get_simple_extent_npoints()
            attributes += attribute.get_storage_size()
            # NetCDF's own list of dims has an entry for each, and HDF5 allows 32 dims.
            texts += count * (count > MOST_DIMS and _is_long(attribute.get_type()))
    if declared > FREE + RATIO * size:
        raise HarmfulError(f"it unpacks to {declared} bytes, far more than its size explains")
    if attributes > ATTRIBUTES:
        raise HarmfulError(f"its attributes hold more than {ATTRIBUTES} bytes")
    # At worst every text is as long as the file: only reading tells, and another process does it.
    if texts * size > MEMORY and path is not None:
        check(path, checksum(path.resolve()))
    return found


def _is_long(kind: h5py.h5t.TypeID) -> bool:
    """Tell whether values of a type are texts or lists in the heap."""
    import h5py

    is_text = isinstance(kind, h5py.h5t.TypeStringID)
    return kind.is_variable_str() if is_text else isinstance(kind, h5py.h5t.TypeVlenID)


def is_bare_dimension(variable: h5py.Dataset) -> bool:
    """Tell whether this is how NetCDF-4 writes a dimension without a coordinate."""
    start = b"This is a netCDF dimension but not a netCDF variable"
    return bool(np.bytes_(variable.attrs.get("NAME", b"")).startswith(start))


def _check_storage(name: str, variable: h5py.h5d.DatasetID) -> None:
    import h5py

    created = variable.get_create_plist()
    if created.get_external_count() or created.get_layout() == h5py.h5d.VIRTUAL:
        raise HarmfulError(f"its variable {name!r} keeps data in other files, which are not read")
    filters = [created.get_filter(i)[0] for i in range(created.get_nfilters())]
    if not FILTERS.keys() >= set(filters):
        raise HarmfulError(
            f"its variable {name!r} has filters other than {', '.join(FILTERS.values())}"
        )
    numbers_and_text = h5py.h5t.TypeStringID | h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID
    if not isinstance(variable.get_type(), numbers_and_text):
        raise HarmfulError(f"its variable {name!r} is no array of numbers or text")


# -- content ------------------------------------------------------------------------------------


def check(path: Path, sha256: str) -> None:
    """Raise FileError unless a file can be opened and read to its end, or was before."""
    from ..errors import FileError

    verdict = cache() / "checked" / sha256
    if verdict.exists():
        return
    if sha256 not in _verdicts:
        _verdicts[sha256] = _found(path)
    if _verdicts[sha256]:
        raise FileError(f"{path} cannot be used: {_verdicts[sha256]}")
    with contextlib.suppress(OSError):
        verdict.parent.mkdir(parents=True, exist_ok=True)
        verdict.touch()


def _found(path: Path) -> str:
    """Return what the other process says of a file, or what became of it."""
    # Such variables say where HDF5 looks for plugins, and Python for modules.
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("HDF5_", "PYTHON"))}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
    content = path.stat().st_size / BYTES_PER_SECOND
    seconds, longest = ceil(CPU_SECONDS + content), CLOCK_SECONDS + 10 * content
    try:
        done = subprocess.run(
            [sys.executable, "-I", __file__, os.fspath(path.absolute()), str(seconds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=longest,
        )
    except subprocess.TimeoutExpired:
        return f"reading it takes more than {longest:.0f} s"
    if done.returncode:
        return "reading it crashes the HDF5 library, or needs too much time or memory"
    return done.stdout.decode(errors="replace").strip()


def cache() -> Path:
    """Return the folder of what can be fetched or found out again."""
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(os.environ.get("MIDS_CACHE") or Path(home or Path.home() / ".cache") / "mids")


def vouch(sha256: str) -> None:
    """Say that the file of this checksum was written here."""
    _verdicts[sha256] = ""


def _read_all(path: str) -> str:
    """Return what is wrong with a file, read to its end, or nothing."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            for variable in datasets(file).values():
                for attribute in variable.attrs:
                    variable.attrs[attribute]
                if not variable.shape:
                    variable[()]
                    continue
                # In steps, so that memory is bounded whatever the variable declares.
                row = variable.dtype.itemsize * max(variable.size // max(len(variable), 1), 1)
                step = max(BLOCK // row, 1)
                for start in range(0, len(variable), step):
                    variable[start : start + step]
            for attribute in file.attrs:
                file.attrs[attribute]
            return ""
    except HarmfulError as error:
        return str(error)
    except MemoryError:
        return "it needs far more memory than its size explains"
    except Exception as error:
        return f"it is damaged ({' '.join(str(error).split())[:200]})"


def _limit(seconds: int) -> None:
    """Keep time, memory and core dumps of this process within bounds, where that can be done."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm") as file:
            # The limit is on address space, of which Python and HDF5 have taken some already.
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# -- plain files --------------------------------------------------------------------------------


def read(path: Path, most: int) -> bytes:
    """Return the content of a plain file of at most `most` bytes."""
    from ..errors import FileError

    with os.fdopen(_open(path), "rb") as file:
        # One byte more than allowed reveals a longer file without reading it all.
        content = file.read(most + 1)
    if len(content) > most:
        raise FileError(f"{path} has more than {most} bytes")
    return content


def checksum(path: Path) -> str:
    """Return the sha256 of a plain file, remembered as long as the file does not change."""
    descriptor = _open(path)
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        stamp = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
        if stamp not in _checksums:
            _checksums[stamp] = hashlib.file_digest(file, "sha256").hexdigest()
    return _checksums[stamp]


def _open(path: Path) -> int:
    """Open a file for reading if it is a plain one, not a link, device or pipe."""
    from ..errors import FileError

    # O_NONBLOCK: opening a pipe would wait for a writer; O_NOFOLLOW: a link put there just now.
    flags = [getattr(os, name, 0) for name in ("O_BINARY", "O_NONBLOCK", "O_NOFOLLOW")]
    if path.is_symlink():
        raise FileError(f"{path} is a link, which a catalog must not hold; copy the file")
    try:
        descriptor = os.open(path, os.O_RDONLY | sum(flags))
    except FileNotFoundError:
        raise FileError(f"{path} is missing; get it again or reindex") from None
    except OSError as error:
        raise FileError(f"cannot read {path} ({error.strerror})") from None
    # Asked of the open file, for its name may lead elsewhere by now.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileError(f"{path} is no plain file")
    return descriptor


if __name__ == "__main__":
    import h5py  # before memory is limited

    _limit(int(sys.argv[2]))
    sys.stdout.write(_read_all(sys.argv[1]))
