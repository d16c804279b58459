"""Catalogs behind http, from servers that behave and servers that do not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import mids
from mids.catalog import remote
from mids.cli import main
from mids.errors import FileError, InputError, MissingDependencyError

pytest.importorskip("pooch")

# A server that was left in the middle of its answer may keep its socket for a moment.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "catalog"
    catalog = mids.open_catalog(folder, create=True)
    for dim in (100, 1000):
        catalog.add(mids.simulate("h2(z1)", dim=dim, runs=3), key=f"d{dim}")
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "catalog"))


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Use a cache and connections of the test's own, and do not wait."""
    monkeypatch.setenv("MIDS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.001)
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 60.0)  # slow is not silent


@contextmanager
def running(http):
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class Static(SimpleHTTPRequestHandler):
    """A plain static server, without ranges."""

    def log_message(self, *given):
        """Say nothing."""


class Faulty(BaseHTTPRequestHandler):
    """Serves a folder; `fault` may answer a request for a dataset itself."""

    def __init__(self, *given, folder, fault, log):
        self.folder, self.fault, self.log = folder, fault, log
        super().__init__(*given)

    def do_GET(self):
        """Answer."""
        self.log.append((self.path, self.headers.get("Range")))
        content = (self.folder / self.path.lstrip("/")).read_bytes()
        if self.path.endswith(".nc") and self.fault(self, content):
            return
        self.send(content)

    def send(self, content, *, length=None, status=200, **headers):
        """Send a body and the length it is said to have."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *given):
        """Say nothing."""


@contextmanager
def faulty(folder, fault):
    log = []
    http = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Faulty, folder=folder, fault=fault, log=log)
    )
    http.handle_error = lambda *given: None
    with running(http) as url:
        yield url, log


def requests_for(log, key):
    return [asked for path, asked in log if path.startswith(f"/data/{key}-")]


@contextmanager
def static(folder):
    """Serve a folder as ``python -m http.server --bind 127.0.0.1 -d folder`` does."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Static, directory=str(folder)))
    with running(http) as url:
        yield url


def stored(folder, key):
    (path,) = (folder / "data").glob(f"{key}-*.nc")
    return path


def cached(tmp_path, pattern="*.nc"):
    return [path for path in (tmp_path / "cache").rglob(pattern) if not path.name.startswith(".")]


# -- servers that behave ------------------------------------------------------------------------


def test_any_static_server_will_do(folder, tmp_path):
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Static, directory=str(folder)))
    with running(http) as url:
        catalog = mids.open_catalog(url.rstrip("/"))
        assert list(catalog.search(dims=1000)) == ["d1000"]
        assert not cached(tmp_path)
        with catalog["d1000"] as ds, mids.open_catalog(folder)["d1000"] as same:
            ds.mi.validate()
            assert ds.loss.chunks is not None
            np.testing.assert_array_equal(ds.loss, same.loss)
        assert [path.name for path in cached(tmp_path)] == [stored(folder, "d1000").name]
        assert catalog.verify().identical == 2
        assert mids.open_catalog(f"{url}datapackage.json").location == url
    with catalog["d100"] as ds:  # from the cache: the server is gone
        assert ds.loss.size


def test_the_server_of_python_will_do(folder):
    """As the manual says: python -m http.server --bind 127.0.0.1 -d catalog."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", folder]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as p:
        try:
            url = re.search(r"http://[0-9.:]+/", p.stdout.readline())[0]
            with mids.open_catalog(url)["d100"] as ds:
                assert ds.loss.size
        finally:
            p.kill()


def test_a_served_catalog_is_replayed_copied_and_added_to(folder, tmp_path):
    with static(folder) as url:
        run = CliRunner().invoke
        listed = run(main, ["catalog", "ls", url])
        assert "d100" in listed.output and "2 datasets" in listed.output
        fetched = run(main, ["catalog", "fetch", url, "d100"])
        assert fetched.exit_code == 0, fetched.output
        replayed = run(main, ["replay", fetched.output.strip()])
        assert "3 runs simulated again, identical bit by bit" in replayed.output
        merged = run(main, ["catalog", "merge", str(tmp_path / "mine"), url])
        assert "2 datasets are new" in merged.output
        mine = mids.open_catalog(tmp_path / "mine")
        mine.add(mids.simulate("h1(z1)", dim=100, runs=2), key="own")
        assert mine.verify().identical == 3
        for write in (
            lambda c: c.add(mids.simulate("h1(z1)", dim=100), key="x"),
            lambda c: c.remove("d100"),
            lambda c: c.merge(mine),
        ):
            with pytest.raises(InputError, match="behind a URL"):
                write(mids.open_catalog(url))


# -- servers that do not ------------------------------------------------------------------------


def test_a_download_that_is_cut_off_is_tried_again(folder):
    first = []

    def cut(request, content):
        first.append(request.path)
        if len(first) == 1:
            request.send(content[:8192], length=len(content))
        return len(first) == 1

    with faulty(folder, cut) as (url, log), mids.open_catalog(url)["d100"] as ds:
        assert ds.loss.size
    assert len(requests_for(log, "d100")) == 2


def other_content(request, content):
    request.send(bytes(len(content)))
    return True


def longer_content(request, content):
    request.send(content + b"x")
    return True


def endless_content(request, content):
    request.send_response(200)
    request.end_headers()
    for _ in range(1000):
        request.wfile.write(bytes(100_000))
    return True


def internal_error(request, content):
    request.send_error(500)
    return True


def not_there(request, content):
    request.send_error(404)
    return True


def silence(request, content):
    threading.Event().wait(2.0)
    return True


def in_circles(request, content):
    request.send(b"", status=302, Location=request.path)
    return True


@pytest.mark.parametrize(
    ("fault", "message", "requested"),
    [
        (other_content, "is not the file of the index", 1),
        (longer_content, "has more than the .* bytes it may have", 1),
        (endless_content, "has more than the .* bytes it may have", 1),
        (internal_error, r"500.*3 attempts", 3),
        (not_there, r"status 404.*check the address", 1),
        (silence, r"3 attempts", 3),
        (in_circles, r"5 redirects", 18),
    ],
)
def test_nothing_is_used_that_is_not_the_file_of_the_index(
    folder, tmp_path, monkeypatch, fault, message, requested
):
    with faulty(folder, fault) as (url, log):
        catalog = mids.open_catalog(url)
        if fault is silence:
            monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.2)
        with pytest.raises(FileError, match=rf"(?s)(d100-|{url}).*{message}"):
            catalog["d100"]
        deadline = time.monotonic() + 60  # a server may hear a request when nobody waits any more
        while len(requests_for(log, "d100")) < requested and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(requests_for(log, "d100")) == requested
    assert not cached(tmp_path)


def test_a_passing_error_is_survived(folder):
    answers = iter([True, True, False])

    def sometimes(request, content):
        broken = next(answers)
        if broken:
            request.send_error(503)
        return broken

    with faulty(folder, sometimes) as (url, log), mids.open_catalog(url)["d100"] as ds:
        assert ds.loss.size
    assert len(requests_for(log, "d100")) == 3


@pytest.mark.parametrize("same_host", [True, False])
def test_redirects_stay_on_the_host_that_was_asked(folder, same_host):
    asked = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *given):
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Other)) as elsewhere:

        def move(request, content):
            if request.path.startswith("/data/"):
                where = "/moved.nc" if same_host else f"{elsewhere}x.nc"
                request.send(b"", status=301, Location=where)
                return True
            return False

        (folder / "moved.nc").write_bytes(stored(folder, "d100").read_bytes())
        with faulty(folder, move) as (url, _):
            catalog = mids.open_catalog(url)
            if same_host:
                with catalog["d100"] as ds:
                    assert ds.loss.size
            else:
                with pytest.raises(FileError, match="sends to another host"):
                    catalog["d100"]
    assert asked == []


def test_an_index_cannot_name_files_elsewhere(folder, tmp_path):
    package = json.loads((folder / "datapackage.json").read_text())
    for path in ("http://127.0.0.1:9/x.nc", "../x.nc", "/etc/passwd", "data/../../x.nc"):
        package["resources"][-1]["path"] = path
        package["resources"][-1]["entry"]["path"] = path
        (folder / "datapackage.json").write_text(json.dumps(package))
        http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Static, directory=str(folder)))
        with running(http) as url, pytest.raises(FileError, match="its file can only be"):
            mids.open_catalog(url)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[]", b'{"resources": 3}', b'{"resources": [{"path": []}]}', bytes(10)],
)
def test_what_is_no_index_is_an_error(tmp_path, content):
    (tmp_path / "datapackage.json").write_bytes(content)
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Static, directory=str(tmp_path)))
    with running(http) as url, pytest.raises(FileError, match="is no index of a catalog"):
        mids.open_catalog(url)


def test_a_damaged_cache_is_fetched_again(folder, tmp_path):
    with static(folder) as url:
        catalog = mids.open_catalog(url)
        path = catalog.path("d100")
        damaged = bytearray(path.read_bytes())
        damaged[-100] ^= 1
        path.write_bytes(damaged)
        assert catalog.path("d100").read_bytes() == stored(folder, "d100").read_bytes()


def test_mistakes_with_urls(monkeypatch):
    with pytest.raises(FileError, match=r"cannot fetch http://127.0.0.1:9/datapackage.json"):
        mids.open_catalog("http://127.0.0.1:9")
    with pytest.raises(InputError, match="cannot create a catalog at"):
        mids.open_catalog("http://127.0.0.1:9", create=True)
    with pytest.raises(InputError, match="is no URL"):
        mids.open_catalog("http://127.0.0.1:port")
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(MissingDependencyError, match=r"mids\[catalog\]"):
        mids.open_catalog("http://127.0.0.1:9")


def test_the_cache_is_where_the_user_wants_it(folder, tmp_path):
    with static(folder) as url:
        chosen = mids.open_catalog(url, cache=tmp_path / "chosen").path("d100")
    assert chosen.is_relative_to(tmp_path / "chosen")
    assert os.listdir(tmp_path / "chosen")
