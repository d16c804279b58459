"""Stores in an object store: an S3 server in this process, interrupted and resumed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from test_generate import PATHS, TESTS, TOY, simulated
from toy_flow import SIMULATED

import mids
from mids.errors import FileError
from mids.simulation.simulate import differences
from mids.storage import store as stores

s3fs = pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def address():
    """Start a server; its address."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(address, monkeypatch):
    """Make a bucket that is empty afterwards; return its file system."""
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stores, "BEAT", 1.0)
    files = s3fs.S3FileSystem()
    files.mkdirs("bucket", exist_ok=True)
    yield files
    files.invalidate_cache()
    files.rm("bucket", recursive=True)


def sweep():
    """Two variables of a sweep: the server is slow."""
    return mids.simulate(**TOY)[["loss", "status", "recipe"]]


KILLED = """
import os, sys
sys.path[:0] = {paths!r}
import dask, mids
from mids.storage.store import Location
from test_object_store import sweep
write, count = Location.write, 0
def deadly(location, name, *rest, **options):
    global count
    count += name.startswith("blocks/")
    if count == 3:
        os.kill(os.getpid(), 9)  # the chunks are there, the mark is not
    write(location, name, *rest, **options)
Location.write = deadly
with dask.config.set(scheduler="synchronous"):
    mids.generate(sweep(), "s3://bucket/sweep")
"""


@pytest.mark.slow
def test_a_store_in_a_bucket(bucket):
    """Killed, resumed, damaged, opened and grown."""
    code = KILLED.format(paths=PATHS)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TESTS.parent, env=os.environ, capture_output=True
    )
    assert done.returncode == -9, done.stderr
    with pytest.raises(FileError, match="not finished: 2 of 6 blocks are there"):
        mids.open_dataset("s3://bucket/sweep")
    ds = mids.generate(sweep(), "s3://bucket/sweep")
    assert len(simulated()) == 12
    assert not differences(sweep(), ds)

    content = bytearray(bucket.cat("bucket/sweep/loss/c.0.1.0"))
    content[len(content) // 2] ^= 1
    bucket.pipe_file("bucket/sweep/loss/c.0.1.0", bytes(content))
    bucket.rm_file("bucket/sweep/status/c.1.1")
    for name, at in (("loss/c.0.1.0 is damaged", 0), ("status/c.1.1 is missing", 1)):
        with pytest.raises(FileError, match=f"s3://bucket/sweep/{name}"):
            mids.open_dataset("s3://bucket/sweep").isel(dim=at).compute()
    SIMULATED.clear()
    ds = mids.generate(mids.simulate(**TOY | {"runs": 11})[list(ds)], "s3://bucket/sweep")
    assert simulated() == {(d, r) for d in (100, 10000) for r in range(4, 11)}
    assert not differences(mids.simulate(**TOY | {"runs": 11})[list(ds)], ds)
    assert not bucket.exists("bucket/sweep/claims")


def test_one_of_two_claims_is_granted(bucket):
    """The server creates an object only if there is none."""
    location = stores.Location("s3://bucket/claimed")
    location.write("claims/00000001", b"one", mode="create")
    with pytest.raises(FileExistsError):
        location.write("claims/00000001", b"two", mode="create")
    location.remove("claims/00000001")
    told = pytest.raises(FileError, match="is being written by process")
    with stores.claimed(location), told, stores.claimed(location):
        pass
