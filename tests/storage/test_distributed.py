"""Computing on clusters: the numbers of the threads, no warnings, progress, the command line."""

from __future__ import annotations

import io
import json
import logging
import pickle
import time
from pathlib import Path

import dask
import numpy as np
import pytest
from click.testing import CliRunner
from test_generate import tree
from toy_flow import ToyFlow

import mids
from mids.cli import main
from mids.simulation import progress
from mids.simulation.replay import differences

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


def test_processes_give_the_numbers_of_threads(client, local):
    lazy = mids.simulate(**SWEEP)
    assert not differences(local, lazy.compute())
    assert not differences(local[["loss"]], lazy[["loss"]].compute())
    here = dask.compute(analysed(local), scheduler="threads")[0]
    assert analysed(lazy).compute().identical(here)


def test_files_written_on_a_cluster(client, local, tmp_path):
    mids.to_netcdf(mids.simulate(**SWEEP), tmp_path / "runs.nc")
    with mids.open_dataset(tmp_path / "runs.nc", chunks={"run": 3}) as ds:
        assert not differences(local, ds.compute())


def test_the_processes_scheduler_gives_the_numbers_of_threads(local):
    lazy = mids.simulate(**SWEEP)[["loss", "crossing_time"]]
    with dask.config.set(scheduler="processes", num_workers=2):
        out = io.StringIO()
        with progress.watching(24, out) as seen:
            computed = lazy.compute()
    assert not differences(local[list(lazy)], computed)
    assert seen.done == 24


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


def test_progress_counts_tasks_of_analyses_on_a_cluster(client):
    mine = client.submit(int, 1)
    parts = [client.submit(pow, 2, k, pure=False) for k in range(3)]
    distributed.wait([mine, *parts])
    del parts
    out = io.StringIO()
    with progress.watching(doing="measuring", stream=out) as shown:
        asked = [client.submit(pow, 3, k, pure=False) for k in range(4)]
        deadline = time.monotonic() + 120
        while shown.text().split(",")[0] != "4 of 4 tasks" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert shown.text().startswith("4 of 4 tasks, ")
        del asked
        while shown.total and time.monotonic() < deadline:
            time.sleep(0.05)
        assert shown.text().startswith("measuring, ")
    assert mine.result() == 1


@pytest.mark.parametrize(
    ("lazy", "count"),
    [
        (lambda: mids.simulate(**SWEEP), 24),
        (lambda: mids.phase_diagram("h1(z1)", dim=[8, 16], n=[5, 20, 80], runs=4), 24),
    ],
    ids=["simulate", "phase_diagram"],
)
def test_progress_counts_runs_on_a_cluster(client, lazy, count):
    out = io.StringIO()
    with progress.watching(count, out) as seen:
        lazy().compute()
        deadline = time.monotonic() + 120  # the events come a moment after the result
        while seen.done < count and time.monotonic() < deadline:
            time.sleep(0.01)
    assert seen.text().startswith(f"{count} of {count} runs, ")


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


def test_commands_start_workers(local, tmp_path):
    done = run("--workers", 2, "-o", tmp_path / "runs.nc")
    assert done.exit_code == 0, done.output
    with mids.open_dataset(tmp_path / "runs.nc") as ds:
        assert not differences(local, ds)


@pytest.mark.parametrize("option", ["--scheduler", "--workers"])
def test_stores_written_by_commands_have_the_bytes_of_threads(
    cluster, tmp_path, monkeypatch, option
):
    """The store is given relative to a folder that is not that of the workers."""
    monkeypatch.chdir(tmp_path)
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in SWEEP.items())
    Path("sweep.toml").write_text("".join(lines))
    value = cluster.scheduler_address if option == "--scheduler" else "2"
    arguments = ["generate", "--spec", "sweep.toml", "sweep"]
    done = CliRunner().invoke(main, [*arguments, option, value])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("sweep is complete: 24 runs, ")
    mids.generate("sweep.toml", "threads")
    assert tree("sweep") == tree("threads")
    with distributed.Client(cluster.scheduler_address):
        assert not differences(mids.open_dataset("threads"), mids.open_dataset("sweep").compute())


def test_commands_say_that_a_cluster_has_no_workers(tmp_path, monkeypatch):
    """They are waited for, with a line that says so, and the work begins when they come."""
    monkeypatch.setattr(progress, "DELAY", 0.1)
    (tmp_path / "sweep.toml").write_text(f"target = {TARGET!r}\ndim = [1e2]\nruns = 4\n")
    generate = ["generate", "--spec", str(tmp_path / "sweep.toml"), str(tmp_path / "sweep")]
    with distributed.LocalCluster(
        n_workers=0, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        address, say = cluster.scheduler_address, progress.Progress.say

        def said(shown, text):
            say(shown, text)
            cluster.scale(1)

        monkeypatch.setattr(progress.Progress, "say", said)
        for command in (generate, ["simulate", *OPTIONS]):
            cluster.scale(0)
            with distributed.Client(address) as client:
                while client.nthreads():
                    time.sleep(0.05)
            done = CliRunner().invoke(main, [*command, "--scheduler", address])
            assert done.exit_code == 0, done.output
            assert done.stderr.startswith(f"waiting for workers of {address}, "), done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "--workers must be an integer of at least 1"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "both given"),
        (["--scheduler", "nonsense://x"], "cannot reach a dask scheduler at nonsense://x"),
    ],
)
def test_clusters_that_cannot_be_reached_are_one_line(arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert done.output.count("\n") == 1
