"""Computing on clusters: the numbers of the threads, no warnings, progress, the command line."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import dask
import numpy as np
import pytest
from click.testing import CliRunner
from toy_flow import ToyFlow

import mids
from mids.cli import main
from mids.errors import ClusterError
from mids.simulation.simulate import differences

distributed = pytest.importorskip("distributed")

TARGET = "h1(z1) + h1(z1)*h3(z2)"
SWEEP = {"target": TARGET, "dim": [1e2, 1e6], "runs": 12, "chunks": 3, "rtol": 1e-5}


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=0.4
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    """Connect to two worker processes as to a cluster elsewhere, and collect what it logs."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logger = logging.getLogger("distributed")
    logger.addHandler(handler)
    with distributed.Client(cluster.scheduler_address) as client:
        yield client
    logger.removeHandler(handler)
    assert "run_spec" not in log.getvalue()


@pytest.fixture(scope="module")
def local():
    return mids.simulate(**SWEEP).compute(scheduler="threads")


def analysed(ds):
    return mids.compare(ds).merge(mids.plateaus(ds), compat="override", join="override")


@pytest.mark.slow
def test_processes_give_the_numbers_of_threads(client, local):
    lazy = mids.simulate(**SWEEP)
    assert not differences(local, lazy.compute())
    assert not differences(local[["loss"]], lazy[["loss"]].compute())
    here = dask.compute(analysed(local), scheduler="threads")[0]
    assert analysed(lazy).compute().identical(here)


def test_files_written_on_a_cluster(client, local, tmp_path):
    mids.to_netcdf(mids.simulate(**SWEEP), tmp_path / "runs.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["runs.nc"]
    with mids.open_dataset(tmp_path / "runs.nc", chunks={"run": 3}) as ds:
        assert not differences(local, ds.compute())  # workers read the file, too


def test_variables_that_are_kept_and_computed_again(client, local):
    lazy = mids.simulate(**SWEEP)
    kept = lazy.loss.persist()
    assert not differences(local, lazy.compute())
    client.gather(client.compute([lazy.status, lazy.loss]))
    del kept


@pytest.mark.parametrize(
    ("arguments", "blocks"),
    [
        ({"target": "h2(z1)"}, 8_000),
        ({"target": TARGET}, 8_000),
        ({"target": "staircase(4)"}, 8_000),
        ({"target": TARGET, "runs": np.arange(1, 1_000_001)}, 8_000),
    ],
)
def test_graphs_of_millions_of_runs_are_small(arguments, blocks):
    given = {"dim": 10.0 ** np.arange(2, 9), "runs": 1_000_000, "flow": ToyFlow()}
    ds = mids.simulate(**given | arguments)
    assert len(ds.__dask_graph__()) < 50_000
    assert 100 < len(ds.chunks["dim"]) * len(ds.chunks["run"]) < blocks
    counted = isinstance(given["runs"], int) and "runs" not in arguments
    graph = {name: variable.data.dask for name, variable in ds.variables.items() if variable.chunks}
    assert len(pickle.dumps(graph)) < (200_000 if counted else 20_000_000)


class Slow(ToyFlow):
    """Takes long enough to be asked about."""

    def integrate(self, problem):
        time.sleep(0.5)
        return super().integrate(problem)


def test_progress_counts_blocks_here_and_on_a_cluster(client, monkeypatch, capsys):
    module = import_module("mids.simulation.progress")
    monkeypatch.setattr(module, "DELAY", 0.0)
    monkeypatch.setattr(module, "LOG_INTERVAL", 0.05)
    with mids.progress():
        mids.simulate(**SWEEP | {"flow": Slow()}).compute()
    assert re.search(r"[1-8]/8 .*blocks", capsys.readouterr().err)
    with dask.config.set(scheduler="threads"), mids.progress():
        mids.simulate(**SWEEP).compute()
    assert re.search(r"8/8 .*blocks", capsys.readouterr().err)


class Unlucky(ToyFlow):
    """Raises on one run."""

    def integrate(self, problem):
        if 3 in problem.runs:
            raise FloatingPointError("overlap left [0, 1]")
        return super().integrate(problem)


def test_workers_say_here_why_runs_failed(client, caplog):
    with mids.progress():
        mids.simulate(**SWEEP | {"flow": Unlucky()}).compute()
        deadline = time.monotonic() + 60  # the messages come a moment after the result
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "1 of 3 runs failed at d = 100, from run 3 on: 1 with FloatingPoint" in caplog.text


class Lethal(ToyFlow):
    """Kills the worker that simulates it, at its first attempt."""

    def integrate(self, problem):
        if 5 in problem.runs and problem.dim == 100:
            mark = Path(os.environ["MIDS_TEST_MARK"])
            if not mark.exists():
                mark.touch()
                os._exit(1)
        return super().integrate(problem)


@pytest.mark.slow
def test_lost_workers(tmp_path, monkeypatch):
    """Their blocks move to others; where none may be lost it is an error, and the call resumes."""
    monkeypatch.setenv("MIDS_TEST_MARK", str(tmp_path / "mark"))
    spec = SWEEP | {"flow": Lethal()}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs="CRITICAL"
        ) as cluster,
        distributed.Client(cluster),
    ):
        with pytest.raises(ClusterError, match=r"lost its worker.*[0-7] blocks are kept"):
            mids.generate(spec, tmp_path / "sweep")
        ds = mids.generate(spec, tmp_path / "sweep").compute()
    assert not differences(mids.simulate(**spec), ds)


# -- the command line ---------------------------------------------------------------------------

OPTIONS = ("--target", TARGET, "--dim", "1e2,1e6", "--runs", "12", "--rtol", "1e-5")


def run(*arguments):
    return CliRunner().invoke(main, ["simulate", *OPTIONS, *map(str, arguments)])


def test_commands_compute_on_a_scheduler(cluster, local, tmp_path):
    done = run("--scheduler", cluster.scheduler_address, "-o", tmp_path / "runs.nc")
    assert done.exit_code == 0, done.output
    with mids.open_dataset(tmp_path / "runs.nc") as ds:
        assert not differences(local, ds)
    assert run().stdout == done.stdout.partition("wrote")[0]


@pytest.mark.slow
def test_commands_start_workers(local, tmp_path):
    done = run("--workers", 1, "-o", tmp_path / "runs.nc")
    assert done.exit_code == 0, done.output
    with mids.open_dataset(tmp_path / "runs.nc") as ds:
        assert not differences(local, ds)


def test_stores_written_by_commands(cluster, local, tmp_path, monkeypatch):
    """The store is given relative to a folder that is not that of the workers."""
    monkeypatch.chdir(tmp_path)
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in SWEEP.items())
    Path("sweep.toml").write_text("".join(lines))
    options = ["--spec", "sweep.toml", "--scheduler", cluster.scheduler_address]
    done = CliRunner().invoke(main, ["generate", "sweep", *options])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("sweep is complete: 24 runs, ")
    with distributed.Client(cluster.scheduler_address):
        assert not differences(local, mids.open_dataset("sweep").compute())


@pytest.mark.slow
def test_an_interruption_of_workers_is_one_line(tmp_path):
    """Ctrl-C in a terminal reaches all processes."""
    spec = SWEEP | {"runs": 60_000, "chunks": 600}
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in spec.items())
    (tmp_path / "sweep.toml").write_text("".join(lines))
    command = [sys.executable, "-m", "mids", "generate", "--spec", "sweep.toml", "sweep"]
    process = subprocess.Popen(
        [*command, "--workers", "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(mids.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("sweep/blocks/*")) and time.monotonic() < deadline:
        time.sleep(0.05)  # until the workers have written one of two hundred blocks
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=300)
    *bars, last = error.splitlines()  # of progress, where it took long
    assert (process.returncode, out, last) == (130, "", "interrupted")
    assert all("|" in bar and bar.rstrip().endswith("]") for bar in bars if bar)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "--workers must be an integer of at least 1"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "both given"),
        (["--scheduler", "nonsense://x"], "cannot reach a dask scheduler at nonsense://x"),
    ],
)
def test_clusters_that_cannot_be_reached_are_one_line(arguments, message):
    # In a process of its own: a client that reached nothing stays dask's default.
    command = [sys.executable, "-m", "mids", "simulate", *OPTIONS, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
