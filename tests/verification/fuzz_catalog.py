"""Open catalogs that were made to do harm: ``python -m tests.verification.fuzz_catalog``.

Mutates the index, and the headers of NetCDF files for which the index then vouches. Whatever the
mutation, the catalog opens or an error of the package names the file; this process survives, and
nothing takes `LONGEST` seconds.
"""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

import mids
from mids.catalog.index import documents
from mids.errors import MidsError

LONGEST = 5.0
HOSTILE = (
    None,
    True,
    -1,
    2**70,
    10**400,
    1e308,
    float("nan"),
    "",
    "../../etc/passwd",
    "/etc/passwd",
    "http://127.0.0.1:9/x.nc",
    "data/\x00.nc",
    "\ud800",
    "x" * 100_000,
    "<script>",
    [],
    {},
    [[[[]]]],
    {"path": []},
)


def make(folder):
    """Make the catalog that is mutated."""
    catalog = mids.open_catalog(folder, create=True)
    points = np.geomspace(1.0, 10.0, 5)
    for n in range(2):
        ds = mids.from_trajectories(
            time=points, loss=np.exp(-points - n), overlap=np.full((5, 1), 0.5), dim=100
        )
        catalog.add(ds, key=f"k{n}")
    return catalog


def mutated_bytes(content, choose, most=None):
    """Return content with a few bytes changed, removed, repeated or cut off."""
    content = bytearray(content)
    for _ in range(choose.choice((1, 1, 1, 2, 4, 16))):
        place = choose.randrange(min(len(content), most or len(content)))
        kind = choose.randrange(6)
        length = choose.choice((1, 2, 4, 8, 64))
        if kind == 0:
            content[place] ^= 1 << choose.randrange(8)
        elif kind == 1:
            content[place : place + length] = choose.randbytes(length)
        elif kind == 2:
            content[place : place + length] = b"\xff" * length
        elif kind == 3:
            content[place : place + length] = bytes(length)
        elif kind == 4 and choose.random() < 0.3:
            del content[place + 1 : place + length]
        elif kind == 5 and choose.random() < 0.3:
            del content[max(place, 1) :]
    return bytes(content)


def mutated_json(content, choose):
    """Return JSON text in which a few values or names are hostile ones."""
    tree = json.loads(content)
    for _ in range(choose.choice((1, 1, 2, 5))):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = choose.choice(keys)
            if isinstance(node[key], dict | list) and choose.random() < 0.8:
                node = node[key]
                continue
            action = choose.randrange(4)
            if action == 0:
                del node[key]
            elif action == 1 and isinstance(node, list):
                node.append(copy.deepcopy(node[key]))
            elif action == 2 and isinstance(node, dict):
                node[str(choose.choice(HOSTILE))[:50]] = node.pop(key)
            else:
                node[key] = copy.deepcopy(choose.choice(HOSTILE))
            break
    return json.dumps(tree).encode()


def deep(choose):
    """Return JSON that is nested deeper than anyone needs."""
    depth = choose.choice((100, 10_000, 1_000_000))
    return choose.choice((b"[" * depth, b'{"resources":' * depth, b"[" * depth + b"]" * depth))


def use(folder):
    """Do with a catalog what a reader does; return what came of it."""
    try:
        catalog = mids.open_catalog(folder)
        repr(catalog), catalog._repr_html_(), catalog.to_dataframe()
        for key in catalog:
            with catalog[key] as ds:
                ds.load()
                ds.mi.validate()
                repr(ds.mi)
    except MidsError as error:
        return type(error).__name__
    return "opened"


def timed(outcomes, folder):
    """Count what comes of a catalog, and see that it comes in time."""
    started = time.perf_counter()
    outcomes[use(folder)] += 1
    seconds = time.perf_counter() - started
    outcomes["longest"] = max(outcomes["longest"], seconds)
    assert seconds < LONGEST, f"{seconds:.1f} s"


def fuzz_index(folder, count, seed):
    """Open catalogs with mutated indexes."""
    choose = random.Random(seed)
    make(folder)
    index = folder / "datapackage.json"
    content = index.read_bytes()
    outcomes = collections.Counter()
    for _ in range(count):
        kind = choose.random()
        if kind < 0.5:
            index.write_bytes(mutated_json(content, choose))
        elif kind < 0.99:
            index.write_bytes(mutated_bytes(content, choose))
        else:
            index.write_bytes(deep(choose))
        timed(outcomes, folder)
    return outcomes


def fuzz_netcdf(folder, count, seed):
    """Open catalogs with mutated files that the index has the checksums of."""
    choose = random.Random(seed)
    entries = make(folder).entries
    path = folder / entries["k0"].path
    content = path.read_bytes()
    others = {key: entry for key, entry in entries.items() if key != "k0"}
    outcomes = collections.Counter()
    for _ in range(count):
        hostile = mutated_bytes(content, choose, most=choose.choice((600, 4096, None)))
        path.write_bytes(hostile)
        sha256 = hashlib.sha256(hostile).hexdigest()
        entry = dataclasses.replace(entries["k0"], sha256=sha256, bytes=len(hostile))
        for name, text in documents([entry, *others.values()]).items():
            (folder / name).write_bytes(text)
        try:
            timed(outcomes, folder)
        except BaseException:
            shutil.copy(path, Path(tempfile.gettempdir(), "hostile.nc"))
            raise
    return outcomes


def main() -> int:
    """Run and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="mutations in all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # xarray warns of odd attributes
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of small files
    for fuzz in (fuzz_index, fuzz_netcdf):
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            found = fuzz(Path(folder), options.count // 2, options.seed)
        longest = found.pop("longest")
        print(f"{fuzz.__name__}: {options.count // 2} mutations, longest {longest:.2f} s:", end=" ")
        print(", ".join(f"{number} {outcome}" for outcome, number in found.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
