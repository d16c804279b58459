"""Stores in an object store: an S3 server in this process, interrupted and resumed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_generate import TOY, simulated
from toy_flow import SIMULATED

import mids
from mids.errors import FileError
from mids.simulation.replay import differences

s3fs = pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")
pytest.importorskip("zarr")

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def address():
    """Start a server; its address."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture(scope="module")
def whole(address):
    """Write a store without interruption; its objects."""
    with pytest.MonkeyPatch.context() as patch:
        files = connected(address, patch)
        files.mkdirs("kept")
        mids.generate(sweep(), "s3://kept/whole")
        return objects(files, "kept/whole")


def connected(address, monkeypatch):
    """Make the server the one that is spoken to; return its file system."""
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return s3fs.S3FileSystem()


@pytest.fixture
def bucket(address, monkeypatch):
    """Make a bucket that is empty afterwards; return its file system."""
    files = connected(address, monkeypatch)
    files.mkdirs("bucket", exist_ok=True)
    yield files
    files.invalidate_cache()
    files.rm("bucket", recursive=True)


def sweep():
    """Two variables of a sweep: the server is slow."""
    return mids.simulate(**TOY)[["loss", "status"]]


def objects(files, store):
    """Return the content of every object of a store but the one with its date."""
    files.invalidate_cache()
    found = {name.removeprefix(f"{store}/"): name for name in files.find(store)}
    return {name: files.cat(path) for name, path in found.items() if name != "store.json"}


def test_a_store_in_a_bucket_is_the_lazy_dataset(bucket):
    ds = mids.generate(sweep(), "s3://bucket/sweep")
    assert not differences(sweep(), ds)
    SIMULATED.clear()
    with mids.open_dataset("s3://bucket/sweep") as again:
        assert not differences(ds, again)
    mids.generate(sweep(), "s3://bucket/sweep")
    assert not SIMULATED


KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
import mids, mids.storage.write_block as w
from test_object_store import sweep
write, count = w._write_zarr, 0
def deadly(ds, block, files, name):
    global count
    count += 1
    if count == 3 and not {written}:
        os.kill(os.getpid(), 9)
    names = write(ds, block, files, name)
    if count == 3:
        os.kill(os.getpid(), 9)  # the objects are there, their record is not
    return names
w._write_zarr = deadly
import dask
with dask.config.set(scheduler="synchronous"):
    mids.generate(sweep(), "s3://bucket/killed")
"""


@pytest.mark.parametrize("written", [False, True])
def test_a_killed_process_loses_only_the_block_it_was_at(whole, bucket, written):
    code = KILLED.format(tests=str(TESTS), written=written)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TESTS.parent, env=os.environ, capture_output=True
    )
    assert done.returncode == -9, done.stderr
    with pytest.raises(FileError, match="not finished: 2 of 6 blocks are there"):
        mids.open_dataset("s3://bucket/killed")
    mids.generate(sweep(), "s3://bucket/killed")
    assert len(simulated()) == 12
    assert objects(bucket, "bucket/killed") == whole


def test_a_damaged_object_is_written_again(whole, bucket):
    bucket.copy("kept/whole", "bucket/sweep", recursive=True)
    before = objects(bucket, "bucket/sweep")
    assert before == whole
    name = "data.zarr/loss/0.1.0"
    content = bytearray(before[name])
    content[len(content) // 2] ^= 1
    bucket.pipe_file(f"bucket/sweep/{name}", bytes(content))
    SIMULATED.clear()
    mids.generate(sweep(), "s3://bucket/sweep")
    assert simulated() == {(100, r) for r in (4, 5, 6, 7)}
    assert objects(bucket, "bucket/sweep") == before
