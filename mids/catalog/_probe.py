"""Run as a script, apart from the package: open NetCDF files that nobody vouches for.

Reads one path per line from standard input and answers each with one line of JSON, the problem
found or null. The file is opened and read to its end with all checksums, under limits on memory
and open files, so that what crashes, hangs or fills this process does so here and not in the one
that asks. Without the package: it starts in a moment and has nothing to lose.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import netCDF4

MEMORY = 2**29
"""Bytes of address space beyond what this process needs for itself."""
FREE = 2**26
RATIO = 256
"""A file may declare `FREE` bytes of content and `RATIO` bytes for each of its own."""
BLOCK = 2**22
ATTRIBUTES = 2**24
NAMES = 1000


def limit_memory() -> None:
    """Keep what is allocated from now on within `MEMORY`, where the system can."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass


def allow_open_files(more: int | None) -> None:
    """Allow so many more files to be opened; None lifts the limit."""
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if more is None:
        soft = hard
    else:
        probe = os.dup(0)  # the lowest free descriptor
        os.close(probe)
        soft = probe + more
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def problem(path: str) -> str | None:
    """Return what is wrong with a file, or None.

    What is stored in other files (virtual and external datasets, links) is found by the files that
    stay open, or by the failure to open one; HDF5 reads the former as missing where it cannot.
    """
    import netCDF4

    size = os.path.getsize(path)
    try:
        for others, read in ((1, _unchunked), (0, _content)):
            allow_open_files(1 + others)
            with netCDF4.Dataset(path) as dataset:
                found = _structure(dataset, FREE + RATIO * size)
                if found is not None:
                    return found
                read(dataset)
                if others and not _may_open_one():
                    return "it keeps data in other files, which are not part of the catalog"
    except MemoryError:
        return "it needs far more memory than its size explains"
    except Exception as error:
        return f"it is damaged ({' '.join(str(error).split())[:200]})"
    finally:
        allow_open_files(None)
    return None


def _may_open_one() -> bool:
    try:
        os.close(os.dup(0))
    except OSError:
        return False
    return True


def _structure(dataset: netCDF4.Dataset, most: int) -> str | None:
    if dataset.groups or dataset.cmptypes or dataset.vltypes or dataset.enumtypes:
        return "it has groups or types of its own, which no dataset of mids has"
    if len(dataset.variables) > NAMES or len(dataset.dimensions) > NAMES:
        return f"it has more than {NAMES} variables or dimensions"
    declared = 0
    for name, variable in dataset.variables.items():
        if variable.dtype is not str and np.dtype(variable.dtype).kind not in "iufS":
            return f"its variable {name!r} has type {variable.dtype}, which no dataset of mids has"
        is_array = variable.ndim and variable.size and variable.dtype is not str
        if is_array and variable.chunking() == "contiguous":
            return f"its variable {name!r} is not stored in chunks; add it with mids itself"
        itemsize = 16 if variable.dtype is str else np.dtype(variable.dtype).itemsize
        count = itemsize
        for length in variable.shape:
            count *= length
        declared += count
    if declared > most:
        return f"it unpacks to {declared} bytes, far more than its size explains"
    total = 0
    owners: list[Any] = [dataset, *dataset.variables.values()]
    for owner in owners:
        for name in owner.ncattrs():
            total += len(str(owner.getncattr(name)))
            if total > ATTRIBUTES:
                return f"its attributes hold more than {ATTRIBUTES} characters"
    return None


def _unchunked(dataset: netCDF4.Dataset) -> None:
    """Read what may lie in another file: chunks never do."""
    for variable in dataset.variables.values():
        if variable.chunking() == "contiguous":
            variable[...]


def _content(dataset: netCDF4.Dataset) -> None:
    """Read everything."""
    for variable in dataset.variables.values():
        variable.set_auto_maskandscale(False)
        if not variable.ndim:
            variable[...]
            continue
        row = max(np.prod(variable.shape[1:], dtype=float), 1)
        step = max(int(BLOCK / row), 1)
        for start in range(0, variable.shape[0], step):
            variable[start : start + step]


def main() -> None:
    """Answer until nobody asks."""
    problem(os.devnull)  # imports the library before memory is limited
    limit_memory()
    for line in sys.stdin:
        answer = problem(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
