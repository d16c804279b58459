"""Files, recipes, indexes and servers made to do harm: all are refused by name, or harmless."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import random
import socket
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

import mids
from mids.catalog.index import documents
from mids.errors import MidsError
from mids.storage import foreign

LONGEST = 20.0
"""Seconds that nothing may take."""
VALUES = (
    None,
    True,
    -1,
    0,
    3,
    1e9,
    10**12,
    2**70,
    10**400,
    1e308,
    float("nan"),
    "",
    "../../etc/passwd",
    "http://127.0.0.1:9/x.nc",
    "data/\x00.nc",
    "\ud800",
    "\x1b[31mred",
    "x" * 100_000,
    "h25(z1)*h25(z2)*h25(z3)",
    [],
    {},
    [[[[]]]],
    {"path": []},
    [0] * 1000,
)


class Ends(Counter):
    """What came of attempts, and which of them did what none may do."""

    longest = 0.0
    longest_work = 0.0

    def __init__(self):
        super().__init__()
        self.wrong = []

    def attempt(self, work, what):
        """Count how one attempt ends."""
        start, worked = time.monotonic(), sum(os.times()[:4])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                end = work() or "harmless"
        except MidsError as error:
            end = "refused"
            assert all(c.isprintable() or c == "\n" for c in str(error)), what
        except Exception as error:
            end = "wrong"
            at = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(at.filename).name}:{at.lineno}"
            self.blame(f"{what!r:.300} ends with {error!r:.300} at {where}")
        seconds, work_seconds = time.monotonic() - start, sum(os.times()[:4]) - worked
        self.longest = max(self.longest, seconds)
        self.longest_work = max(self.longest_work, work_seconds)
        # Others use the machine, too: waits as they would be alone.
        load = max(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0)
        if max(work_seconds, seconds / load) > LONGEST:
            self.blame(f"{what!r:.300} took {seconds:.0f} s, {work_seconds:.0f} s of them of CPU")
        self[end] += 1

    def blame(self, text):
        """Keep what went wrong, and say it at once."""
        self.wrong.append(text)
        print(text, file=sys.stderr, flush=True)

    def all_well(self):
        """Raise if any attempt did what none may do."""
        assert not self.wrong, "\n".join([f"{len(self.wrong)} of {self.total()}", *self.wrong])
        return self

    def __str__(self):
        """List the ends."""
        listed = ", ".join(f"{count} {end}" for end, count in self.most_common())
        times = f"{self.longest_work:.1f} s of CPU and {self.longest:.1f} s by the clock"
        return f"{listed}; at most {times}"


def mutated(tree, choose, values=VALUES):
    """Return JSON-able data in which a few values or names are others."""
    tree = copy.deepcopy(tree)
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
            elif action == 1 and isinstance(node, dict):
                node[str(choose.choice(values))[:50]] = node.pop(key)
            else:
                node[key] = copy.deepcopy(choose.choice(values))
            break
    return tree


def mutated_bytes(content, choose):
    """Return content with a few bytes changed, filled, removed or cut off."""
    content = bytearray(content)
    most = choose.choice((600, 4096, len(content)))
    for _ in range(choose.choice((1, 1, 1, 2, 4, 16))):
        at, length = choose.randrange(min(most, len(content))), choose.choice((1, 2, 4, 8, 64))
        filling = choose.choice((choose.randbytes(length), b"\xff" * length, bytes(length)))
        kind = choose.random()
        if kind < 0.9:
            content[at : at + length] = filling
        elif kind < 0.95:
            del content[at + 1 : at + length]
        else:
            del content[max(at, 1) :]
    return bytes(content)


# -- recipes ------------------------------------------------------------------------------------


def recipes(count=1000, seed=0):
    """Describe, replay and verify datasets whose recipes were changed."""
    choose = random.Random(seed)
    sources = [
        mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=[100, 1000], runs=2).compute(),
        mids.simulate("h2(z1)", dim=100, runs=2, flow="planted").compute(),
        mids.simulate("h2(z1)", dim=50, runs=1, flow=mids.flows.OnlineSGD(step=0.01)).isel(
            time=[0]
        ),
    ]
    ends = Ends()
    before = set(Path.cwd().iterdir())
    for _ in range(count):
        ds = choose.choice(sources)
        (entry,) = mids.schema.recipes(ds).values()
        entry = mutated(entry, choose)
        try:  # signed again, as its maker would
            key = mids.schema.fingerprint(entry)
            text = mids.schema.recorded({key: entry}, mids.schema.grids(ds))
        except (TypeError, ValueError, AttributeError, KeyError):
            key, text = "1" * 64, json.dumps({"recipes": {"1" * 64: entry}, "grids": {}})
        text = choose.choice((text, text, text, text[:-9], "[" * 10**5))
        (digits,) = mids.schema.fingerprint_bytes([key])
        hostile = ds.assign(recipe=ds.recipe * 0 + xr.DataArray(digits, dims="byte"))
        hostile = hostile.assign_attrs(mids_recipes=text)
        ends.attempt(lambda ds=hostile: use_recipe(ds), text[:300])
    assert set(Path.cwd().iterdir()) == before
    return ends.all_well()


def use_recipe(ds):
    """Do what a reader does; the replay is set up, not run."""
    refused = 0
    for use in (lambda: repr(ds.mi), ds.mi.describe, lambda: ds.mi.target, ds.mi.replay):
        try:
            use()
        except MidsError:
            refused += 1
    return "refused in part" if refused else "harmless"


# -- files --------------------------------------------------------------------------------------


def catalog_of_two(folder):
    """Make the catalog whose files and index are changed."""
    catalog = mids.open_catalog(folder, create=True)
    points = np.geomspace(1.0, 10.0, 5)
    for n in range(2):
        ds = mids.from_trajectories(
            time=points, loss=np.exp(-points - n), overlap=np.full((5, 1), 0.5), dim=100
        )
        catalog.add(ds, key=f"k{n}")
    return catalog


def vouched(folder, entry, content):
    """Put content in the place of a dataset, with an index that agrees."""
    folder = Path(folder)
    entries = mids.open_catalog(folder).entries
    (folder / entry.path).unlink(missing_ok=True)
    (folder / "data/new").write_bytes(content)
    sha256 = foreign.checksum(folder / "data/new")
    path = entry.path_of(entry.key, sha256)
    (folder / "data/new").rename(folder / path)
    entries[entry.key] = dataclasses.replace(entry, path=path, sha256=sha256, bytes=len(content))
    for name, text in documents(entries.values()).items():
        (folder / name).write_bytes(text)
    return mids.open_catalog(folder)


def _secret(path):
    secret = path.with_name("secret.h5")
    with h5py.File(secret, "w") as file:
        file["x"] = np.arange(10.0)
    return str(secret)


def external(path, file):
    """Keep a variable in another file."""
    file.create_dataset("stolen", (10,), "f8", external=[(_secret(path), 0, 80)])


def virtual(path, file):
    """Map a variable of another file."""
    layout = h5py.VirtualLayout((10,), "f8")
    layout[:] = h5py.VirtualSource(_secret(path), "x", (10,))
    file.create_virtual_dataset("stolen", layout)


def external_link(path, file):
    """Link to another file."""
    file["stolen"] = h5py.ExternalLink(_secret(path), "/x")


def soft_link(path, file):
    """Link to nothing."""
    file["stolen"] = h5py.SoftLink("/stolen")


def group_loop(path, file):
    """Hold a group that holds itself."""
    group = file.create_group("g")
    group["g"] = group


def root_loop(path, file):
    """Hold the root as a group of itself."""
    file["loop"] = file["/"]


def huge(path, file):
    """Declare far more than there is."""
    file.create_dataset("huge", (10**11,), "f8", chunks=(10**6,), compression="gzip")


def foreign_filter(path, file):
    """Ask for another filter."""
    file.create_dataset("lzf", data=np.zeros(100), chunks=(10,), compression="lzf")


def named_type(path, file):
    """Hold a type of its own."""
    file["kind"] = np.dtype([("a", "f8")])


def compound(path, file):
    """Hold records."""
    file["records"] = np.zeros(3, [("a", "f8")])


def ragged(path, file):
    """Hold arrays of any length."""
    file.create_dataset("ragged", (3,), h5py.vlen_dtype(np.float64))


def many(path, file):
    """Hold thousands of variables."""
    for k in range(foreign.NAMES + 1):
        file[f"v{k}"] = 0


def scaled(path, file):
    """Scale by a text."""
    file["loss"].attrs["scale_factor"] = "x"


def filled(path, file):
    """Fill with a list."""
    file["loss"].attrs["_FillValue"] = np.arange(3.0)


def unnamed(path, file):
    """Name dimensions that are not there."""
    del file["loss"].attrs["DIMENSION_LIST"]


def long_attribute(path, file):
    """Carry a large attribute."""
    file.attrs.create("title", np.bytes_(b"x" * 60_000))


def escapes(path, file):
    """Say something to the terminal."""
    file.attrs["title"] = "\x1b]0;owned\x07\x1b[2J"


def recipe_of_nothing(path, file):
    """Carry a recipe without sense."""
    file.attrs["mids_spec"] = file.attrs["mids_recipes"] = '{"flow": null, "runs": {}}'


def shared_texts(path, file):
    """Say one long text thousands of times."""
    texts = file.create_dataset(
        "texts", data=["x" * 2**20, *[""] * 3999], dtype=h5py.string_dtype()
    )
    file.flush()
    with path.open("r+b") as content:
        content.seek(texts.id.get_offset())
        reference = content.read(16)
        content.seek(texts.id.get_offset())
        content.write(reference * 4000)


def bomb(path, file):
    """Unpack a chunk to far more than the chunk."""
    import zlib

    packer = zlib.compressobj(9)
    zeros = [packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)]
    variable = file.create_dataset("bomb", (10,), "f8", chunks=(10,), compression="gzip")
    variable.id.write_direct_chunk((0,), zeros[0] + 256 * zeros[1] + packer.flush())


REFUSED = (
    external,
    virtual,
    external_link,
    soft_link,
    group_loop,
    root_loop,
    huge,
    foreign_filter,
    named_type,
    compound,
    ragged,
    many,
    scaled,
    shared_texts,
)
HARMFUL = (*REFUSED, filled, unnamed, long_attribute, escapes, recipe_of_nothing, bomb)


def made(harm, content, folder):
    """Return the path of a file that was changed by one kind of harm."""
    path = Path(folder) / f"{harm.__name__}.nc"
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        harm(path, file)
    return path


def files(folder, count=300, seed=0, harms=HARMFUL):
    """Use files of each kind by path and in catalogs, and files with changed bytes in catalogs."""
    choose = random.Random(seed)
    catalog = catalog_of_two(Path(folder) / "catalog")
    entry = catalog.entries["k0"]
    content = catalog.path("k0").read_bytes()
    ends = Ends()
    for harm in harms:
        path = made(harm, content, folder)
        if harm is not bomb:
            ends.attempt(lambda path=path: use_file(path), harm.__name__)
        hostile = path.read_bytes()
        ends.attempt(lambda b=hostile: use_catalog(folder, entry, b), harm.__name__)
    while ends.total() < count:
        hostile = mutated_bytes(content, choose)
        ends.attempt(lambda b=hostile: use_catalog(folder, entry, b), hostile[:600])
    return ends.all_well()


def use_file(path):
    """Open a file as a user does."""
    with mids.open_dataset(path) as ds:
        assert "stolen" not in ds
        repr(ds.load()), repr(ds.mi)


def use_catalog(folder, entry, content):
    """Open a dataset of a catalog, and verify all; the other dataset is always fine."""
    catalog = vouched(Path(folder) / "catalog", entry, content)
    found = catalog.verify(replay=1)
    assert found.datasets == 2 and not any("k1-" in text for text in found.problems), found
    with catalog["k0"] as ds:
        assert "stolen" not in ds
        ds.load()


def indexes(folder, count=300, seed=0):
    """Open catalogs whose index was changed."""
    choose = random.Random(seed)
    folder = Path(folder) / "indexes"
    catalog_of_two(folder)
    content = (folder / "datapackage.json").read_bytes()
    ends = Ends()
    for k in range(count):
        text = json.dumps(mutated(json.loads(content), choose)).encode()
        choices = (text, text, mutated_bytes(content, choose), b"[" * 10**6)
        (folder / "datapackage.json").write_bytes(choices[k % 4 if k % 40 == 3 else k % 3])

        def use():
            catalog = mids.open_catalog(folder)
            repr(catalog), catalog._repr_html_(), catalog.to_dataframe()
            for key in catalog:
                catalog[key].close()

        ends.attempt(use, text)
    return ends.all_well()


# -- servers ------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "nothing": b"",
    "no http": b"\x00\xff" * 50,
    "odd location": b"HTTP/1.1 302 F\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
    "location with bytes": b"HTTP/1.1 302 F\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
    "location of a port": b"HTTP/1.1 302 F\r\nLocation: http://a:x/\r\nContent-Length: 0\r\n\r\n",
    "to a file": b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    "elsewhere": b"HTTP/1.1 302 F\r\nLocation: http://example.org/\r\nContent-Length: 0\r\n\r\n",
    "in circles": b"HTTP/1.1 302 F\r\nLocation: datapackage.json\r\nContent-Length: 0\r\n\r\n",
    "escapes": b"HTTP/1.1 404 \x1b[31mred\x1b]0;x\x07\r\nContent-Length: 0\r\n\r\n",
    "error": b"HTTP/1.1 500 Internal\r\nContent-Length: 0\r\n\r\n",
    "odd status": b"HTTP/1.1 999 \r\nContent-Length: 0\r\n\r\n",
    "no number": b"HTTP/1.1 OK\r\n\r\n",
    "empty": OK + b"Content-Length: 0\r\n\r\n",
    "short": OK + b"Content-Length: 100\r\n\r\n{}",
    "negative": OK + b"Content-Length: -5\r\n\r\n{}",
    "odd length": OK + b"Content-Length: many\r\n\r\n{}",
    "odd chunks": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "packed": OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "page": OK + b"Content-Length: 6\r\n\r\n<html>",
    "list": OK + b"Content-Length: 2\r\n\r\n[]",
    "deep": OK + b"Content-Length: 100000\r\n\r\n" + b"[" * 100_000,
    "many headers": OK + b"X: y\r\n" * 1000 + b"\r\n",
    "long header": OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
}
SLOW = {"silent": b"", "slow headers": b"HTTP/1.1 200 OK\r\nX: ", "slow body": OK + b"\r\n"}


def servers(count=50, names=(*SLOW, "endless", *ANSWERS)):
    """Open catalogs at servers that answer anything, or byte by byte, or without an end."""
    ends = Ends()
    for k in range(count):
        name = names[k] if k < len(names) else [*ANSWERS][k % len(ANSWERS)]
        as_dataset = k >= len(names)

        def use(name=name, as_dataset=as_dataset):
            with serving(name, as_dataset) as url, contextlib.ExitStack() as stack:
                catalog = mids.open_catalog(url.replace("//", "//me:secret@"))
                stack.enter_context(catalog["k0"])

        ends.attempt(use, name)
    return ends.all_well()


@contextlib.contextmanager
def serving(name, as_dataset):
    """Answer every request, or every one for a dataset, in one way."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()
    row = {
        "key": "k0", "title": "", "target": "", "flow": "", "rank": None, "student_rank": None,
        "information_exponent": None, "leaps": "", "dims": "", "runs": 1, "path": "data/k0.nc",
        "sha256": "0" * 64, "bytes": 100, "schema": 1, "mids_version": "", "license": "",
        "created": "",
    }  # fmt: skip
    resource = {"path": row["path"], "hash": f"sha256:{row['sha256']}", "bytes": 100, "entry": row}
    index = json.dumps({"resources": [resource]}).encode()
    index = OK + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(index) + index

    def answer(connection):
        with connection, contextlib.suppress(OSError):
            asked = connection.recv(65536)
            if as_dataset and b"datapackage" in asked:
                connection.sendall(index)
            elif name == "endless":
                connection.sendall(OK + b"\r\n")
                while not ended.is_set():
                    connection.sendall(bytes(2**20))
            elif name in SLOW:
                connection.sendall(SLOW[name])
                while not ended.wait(1.0):
                    connection.sendall(b"" if name == "silent" else b"y")
            else:
                connection.sendall(ANSWERS[name])

    def accept():
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
