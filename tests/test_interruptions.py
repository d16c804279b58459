"""Ctrl-C, as a terminal sends it: to the process and to all that it has started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import mids
from mids.errors import FileError
from mids.simulate import differences

ROOT = Path(__file__).parents[1]
SWEEP = {
    "target": "h1(z1) + h1(z1)*h3(z2)",
    "dim": [100, 10_000],
    "runs": 2000,
    "chunks": 50,
    "rtol": 1e-6,
}
COMMAND = """
from mids.cli import main
if __name__ == "__main__":
    main()
"""
SCRIPT = """
import dask, mids
from contextlib import nullcontext
if __name__ == "__main__":
    with {context}:
        mids.generate("sweep.toml", "sweep")
"""
CONTEXTS = {
    "threads": "nullcontext()",
    "processes": 'dask.config.set(scheduler="processes", num_workers=2)',
}
PREFIX = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A test that runs in the background has had SIGINT ignored."""


@pytest.fixture
def folder(tmp_path):
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in SWEEP.items())
    (tmp_path / "sweep.toml").write_text("".join(lines))
    return tmp_path


@contextmanager
def started(folder, code, *arguments):
    """Start Python as a terminal does, with processes of its own group."""
    script = folder / "script.py"
    script.write_text(PREFIX + code)
    with subprocess.Popen(
        [sys.executable, script, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def interrupt(process, ready):
    """Press Ctrl-C when it is time to; return what has been written to stderr."""
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=60)
    return message


def records(folder):
    return list((folder / "sweep" / "records").rglob("*.json"))


def check_store(folder, message):
    """Check that what is kept is what the message says, and that it can be resumed."""
    kept = len(records(folder))
    assert 0 < kept < 80
    assert f" blocks are kept in {folder / 'sweep'}; the same call simulates the others" in message
    said = int(message.rpartition(" of 80 blocks")[0].split()[-1])
    assert 0 < said <= kept  # a cluster may complete one more
    assert not list((folder / "sweep").rglob("*.part"))
    with pytest.raises(FileError, match=f"not finished: {kept} of 80 blocks are there"):
        mids.open_dataset(folder / "sweep")


@pytest.fixture(scope="module")
def address():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.parametrize("on", ["threads", "--workers", "--scheduler"])
def test_the_command_that_generates(folder, on, request):
    options = []
    if on != "threads":
        pytest.importorskip("distributed")
        options = [on, "2" if on == "--workers" else request.getfixturevalue("address")]
    with started(folder, COMMAND, "generate", "--spec", "sweep.toml", "sweep", *options) as process:
        message = interrupt(process, lambda: records(folder))
    assert process.returncode == 130, message
    assert message.splitlines()[-1].startswith("interrupted: "), message
    assert "Traceback" not in message
    check_store(folder, message)


@pytest.mark.parametrize("scheduler", CONTEXTS)
def test_generate_in_python(folder, scheduler):
    with started(folder, SCRIPT.format(context=CONTEXTS[scheduler])) as process:
        message = interrupt(process, lambda: records(folder))
    assert process.returncode == -signal.SIGINT
    assert message.splitlines()[-1].startswith("KeyboardInterrupt: "), message
    assert message.count("Traceback") == 1, message
    check_store(folder, message)
    if scheduler == "threads":
        ds = mids.generate(folder / "sweep.toml", folder / "sweep")
        assert not differences(ds.isel(run=slice(50)), mids.replay(ds.isel(run=slice(50))))


@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_the_command_that_simulates(folder, options):
    if options:
        pytest.importorskip("distributed")
    arguments = ("simulate", "--spec", "sweep.toml", "-o", "out.nc", *options)
    with started(folder, COMMAND, *arguments) as process:
        message = interrupt(process, lambda: list(folder.glob(".out.nc.*.part")))
    assert process.returncode == 130, message
    expected = "nothing is kept; mids generate writes sweeps block by block and resumes them"
    assert message.splitlines()[-1] == f"interrupted: {expected}"
    assert "Traceback" not in message
    assert {path.name for path in folder.iterdir()} == {"sweep.toml", "script.py"}
