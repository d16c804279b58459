"""Stores: the dataset itself, the same bytes after any interruption, and clear refusals."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from toy_flow import SIMULATED, ToyFlow

import mids
from mids.cli import main
from mids.errors import ClusterError, FileError, InputError
from mids.simulation.replay import differences
from mids.storage.named_files import NamedFiles

TARGET = "h1(z1) + h1(z1)*h3(z2)"
TIME = np.concatenate([[0.0], np.geomspace(0.1, 1e4, 20)])
SPEC = {"target": TARGET, "dim": [100, 1e4], "runs": 10, "chunks": 4, "time": TIME}
TOY = SPEC | {"flow": ToyFlow()}
TESTS = Path(__file__).parents[1]


def tree(store):
    """Return the checksum of every file of a store but the one with its date."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(store).rglob("*"))
        if path.is_file() and path.name != "store.json"
    }


@pytest.fixture
def whole(tmp_path):
    """Write a store without interruption, and forget what was simulated."""
    store = tmp_path / "whole"
    mids.generate(TOY, store)
    SIMULATED.clear()
    return store


@pytest.fixture(params=["netcdf", "zarr", "memory"])
def place(request, tmp_path):
    if request.param == "netcdf":
        return {"store": tmp_path / "sweep"}
    pytest.importorskip("zarr")
    if request.param == "zarr":
        return {"store": tmp_path / "sweep", "format": "zarr"}
    return {"store": f"memory://{uuid.uuid4()}"}


# -- what is written ----------------------------------------------------------------------------


def test_a_store_is_the_lazy_dataset(place):
    lazy = mids.simulate(**TOY)
    ds = mids.generate(TOY, **place)
    assert not differences(lazy, ds)
    assert (
        ds.drop_attrs(deep=False)
        .drop_encoding()
        .compute()
        .identical(lazy.drop_attrs(deep=False).compute())
    )
    assert ds.attrs.keys() == lazy.attrs.keys()
    assert all(variable.chunks is not None for variable in ds.data_vars.values())
    assert ds.chunks["run"] == (4, 4, 2)
    ds.mi.validate()


def test_opening_reads_nothing_and_computing_only_what_is_asked_for(whole, monkeypatch):
    with dask.config.set(scheduler=lambda *a, **k: pytest.fail("something was computed")):
        ds = mids.open_dataset(whole)
        repr(ds)
    (whole / "d100" / "r000000000.nc").unlink()
    ds.loss.isel(dim=1).compute()
    with pytest.raises(FileError, match=r"r000000000.nc is missing or damaged.*mids.generate"):
        ds.loss.isel(dim=0, run=2).compute()
    assert mids.open_dataset(whole, chunks={"run": -1}).chunks["run"] == (10,)
    tasks = len(ds.__dask_graph__())
    assert tasks <= 6 * len(ds.data_vars) + 10


def test_every_block_is_a_dataset_of_its_own(whole):
    with mids.open_dataset(whole / "d10000" / "r000000004.nc") as block:
        mids.validate(block)
        assert not differences(mids.simulate(**TOY).isel(dim=[1], run=slice(4, 8)), block)


def test_zarr_is_read_without_mids(tmp_path):
    pytest.importorskip("zarr")
    ds = mids.generate(TOY, tmp_path / "sweep", format="zarr")
    plain = xr.open_zarr(tmp_path / "sweep" / "data.zarr")
    assert not differences(ds, plain)


SPECS = {
    "a selection": lambda: mids.simulate(**TOY)[["crossing_time", "status"]].isel(run=slice(0, 9)),
    "listed runs": lambda: TOY | {"runs": [7, 3, 11, 20, 2]},
    "large starts": lambda: (
        TOY | {"initial": np.random.default_rng(0).uniform(-0.4, 0.4, (1100, 2, 2)), "runs": 1100}
    ),
    "something derived": lambda: (mids.simulate(**TOY)[["loss"]] ** 2).assign(
        size=lambda d: d.loss.max("time"), learned=lambda d: d.loss.min("time") < 0.1
    ),
}


@pytest.mark.parametrize("case", SPECS)
def test_what_can_be_stored(case, place):
    spec = SPECS[case]()
    if isinstance(spec, dict):
        spec = spec | {"chunks": 400} if "initial" in spec else spec
        expected = mids.simulate(**spec)
    else:
        expected = spec
    ds = mids.generate(spec, **place)
    assert ds.drop_attrs().drop_encoding().compute().identical(expected.drop_attrs().compute())
    SIMULATED.clear()
    mids.generate(spec, **place)
    assert not SIMULATED


def test_a_spec_file_and_the_command(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text(f'target = "{TARGET}"\ndim = [1e2, 1e4]\nruns = 6\nchunks = 4\nrtol = 1e-5\n')
    ds = mids.generate(file, tmp_path / "one")
    done = CliRunner().invoke(main, ["generate", "--spec", str(file), str(tmp_path / "two")])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'two'} is complete: 12 runs, ")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    for command in ("saddles", "info", "replay"):
        assert CliRunner().invoke(main, [command, str(tmp_path / "two")]).exit_code == 0
    assert not differences(ds, mids.replay(ds))


def test_compact_stores(tmp_path):
    ds = mids.generate(TOY, tmp_path / "sweep", compact=True)
    assert (ds.loss.dtype, ds.crossing_time.dtype) == (np.float32, np.float64)
    assert not differences(ds, mids.simulate(**TOY))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_bytes_do_not_depend_on_the_scheduler(whole, tmp_path, scheduler):
    with dask.config.set(scheduler=scheduler, num_workers=2):
        mids.generate(TOY, tmp_path / "other")
    assert tree(tmp_path / "other") == tree(whole)


# -- interruptions ------------------------------------------------------------------------------


def simulated():
    return {(dim, run) for dim, run in SIMULATED}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "missing": (
        lambda s: (s / "d100" / "r000000004.nc").unlink(),
        {(100, r) for r in (4, 5, 6, 7)},
    ),
    "flipped": (lambda s: flip(s / "d10000" / "r000000008.nc"), {(10000, 8), (10000, 9)}),
    "truncated": (
        lambda s: os.truncate(s / "d100" / "r000000008.nc", 100),
        {(100, 8), (100, 9)},
    ),
    "no manifest": (lambda s: (s / "manifest.json").unlink(), set()),
    "header": (lambda s: flip(s / "header.nc"), set()),
    "temporary": (lambda s: (s / "d100" / ".r000000004.nc.12.part").write_bytes(b"x"), set()),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_only_what_is_damaged_is_simulated_again(whole, case):
    before = tree(whole)
    damage, expected = DAMAGE[case]
    damage(whole)
    assert tree(whole) != before
    mids.generate(TOY, whole)
    assert tree(whole) == before
    if case == "no manifest":  # and with it all the checksums
        assert len(simulated()) == 20
    else:
        assert simulated() == expected


def test_a_lost_worker_leaves_nothing(whole, tmp_path, monkeypatch):
    def write_block(payload, place, *rest):
        (Path(place) / ".begun.nc.12.part").write_bytes(b"x")  # then killed; another one did this:
        return mids.storage.generation.write_block(payload, place, *rest)

    monkeypatch.setattr(
        mids.storage.generation,
        "run_tasks",
        lambda function, tasks, *_: (
            (name, write_block(*arguments) if function.__name__ == "write_block" else True)
            for name, arguments in tasks
        ),
    )
    mids.generate(TOY, tmp_path / "sweep")
    assert tree(tmp_path / "sweep") == tree(whole)


def test_damaged_zarr_objects_are_written_again(tmp_path):
    pytest.importorskip("zarr")
    mids.generate(TOY, tmp_path / "sweep", format="zarr")
    before = tree(tmp_path / "sweep")
    flip(tmp_path / "sweep" / "data.zarr" / "loss" / "0.1.0")
    (tmp_path / "sweep" / "data.zarr" / "overlap" / "1.2.0.0").unlink()
    SIMULATED.clear()
    mids.generate(TOY, tmp_path / "sweep", format="zarr")
    assert simulated() == {(100, r) for r in (4, 5, 6, 7)} | {(10000, 8), (10000, 9)}
    assert tree(tmp_path / "sweep") == before


SCRIPT = """
import os, sys, time
sys.path.insert(0, {tests!r})
import mids, mids.storage.write_block as w
from test_generate import TOY
write = w.io.to_netcdf
count = 0
def slow(ds, path, **options):
    global count
    count += 1
    time.sleep(0.3)
    if count >= {after}:
        os.kill(os.getpid(), 9)  # between computing and writing
    write(ds, path, **options)
w.io.to_netcdf = slow
if __name__ == "__main__":
    mids.generate(TOY, sys.argv[1])
"""


def start(store, after):
    code = SCRIPT.format(tests=str(TESTS), after=after)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(store)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=TESTS.parent,
    )


@pytest.mark.parametrize("after", [2, 5])
def test_a_killed_process_loses_only_the_blocks_it_was_at(whole, tmp_path, after):
    store = tmp_path / "killed"
    process = start(store, after)
    process.communicate(timeout=300)
    assert process.returncode == -9
    records = [json.loads(path.read_text()) for path in (store / "records").rglob("*.json")]
    kept, runs = len(records), sum(record["runs"] for record in records)
    with pytest.raises(FileError, match=f"not finished: {kept} of 6 blocks are there"):
        mids.open_dataset(store)
    mids.generate(TOY, store)
    assert len(SIMULATED) == 20 - runs
    assert tree(store) == tree(whole)


LIMIT = """
import resource, sys
sys.path.insert(0, {tests!r})
import mids, mids.errors
from test_generate import TOY
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    mids.generate(TOY | {{"runs": 40, "chunks": 40}}, sys.argv[1])
except mids.errors.FileError as error:
    print(error)
"""


def test_a_full_disk_is_an_error_and_the_rest_is_kept(tmp_path):
    store = tmp_path / "full"
    spec = TOY | {"runs": 40, "chunks": 40}
    done = subprocess.run(
        [sys.executable, "-c", LIMIT.format(tests=str(TESTS)), str(store)],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout
    assert "free space" in done.stdout
    assert "0 of 2 blocks are kept" in done.stdout
    assert not list(store.rglob("*.part")) and not list(store.rglob("r*.nc"))
    mids.generate(spec, store)
    mids.generate(spec, tmp_path / "whole")
    assert tree(store) == tree(tmp_path / "whole")


# -- failures -----------------------------------------------------------------------------------


class Unlucky(ToyFlow):
    """Raises on two runs."""

    def integrate(self, problem):
        for run in problem.runs.tolist():
            if run in (3, 8):
                raise FloatingPointError(f"overlap {run} left [0, 1]")
        return super().integrate(problem)


def test_failed_runs_are_counted_with_their_causes(place):
    ds = mids.generate(SPEC | {"flow": Unlucky()}, **place)
    assert ds.attrs["failures"].startswith(
        "4 of 20 runs failed (status 3): 2 with FloatingPointError: overlap 3 left [0, 1]"
    )
    assert (ds.status.isel(run=[3, 8]) == 3).all()
    assert not differences(ds.isel(run=[0, 1, 2, 9]), mids.simulate(**TOY).isel(run=[0, 1, 2, 9]))


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "seed is 0 there and 4 here"),
        ({"runs": 11}, "runs is 10 there and 11 here"),
        ({"dim": [100, 2e4]}, "dim is"),
        ({"chunks": 5}, "chunks.run is"),
        ({"flow": ToyFlow(2.0)}, "flow.slow is 1.0 there and 2.0 here"),
        ({"time": TIME * 2}, "time is"),
    ],
)
def test_another_sweep_is_refused_with_what_differs(whole, change, message):
    before = tree(whole)
    with pytest.raises(InputError, match=f"holds another sweep: .*{message}.*or a new store"):
        mids.generate(TOY | change, whole)
    assert tree(whole) == before
    assert not SIMULATED


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (7, {}, "spec must be a mapping"),
        ({"target": "h1(z1)"}, {}, "needs dim"),
        (TOY, {"format": "hdf"}, "allowed: 'netcdf', 'zarr'"),
        (TOY, {"store": "no/where"}, "does not exist"),
        (TOY, {"store": "file"}, "it is a file"),
        (TOY, {"store": "."}, "neither empty nor a store"),
        (TOY, {"store": "nope://x"}, "cannot use nope://x"),
        (TOY, {"store": "memory://x", "format": "netcdf"}, 'pass format="zarr"'),
        (mids.simulate(**TOY).isel(run=slice(1, 9)), {"format": "zarr"}, "rechunk first"),
        (xr.Dataset({"a": ("x", [1.0])}), {}, r"a has float64 of \('x',\)"),
        (xr.Dataset({"a": (("dim", "run"), [[1.0]])}), {}, "lazy dataset"),
    ],
)
def test_impossible_stores_are_refused_before_any_work(
    tmp_path, monkeypatch, spec, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=message):
        mids.generate(spec, **{"store": "sweep", **options})
    assert not SIMULATED
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_newer_store_is_refused(whole):
    files = NamedFiles(whole)
    files.write_document("store.json", files.document("store.json") | {"mids_store": 9})
    for use in (mids.open_dataset, lambda place: mids.generate(TOY, place)):
        with pytest.raises(FileError, match="version 9, newer than 1"):
            use(whole)


# -- clusters -----------------------------------------------------------------------------------


class Lethal(ToyFlow):
    """Kills the worker that simulates it, at its first attempt or always."""

    def integrate(self, problem):
        if 5 in problem.runs and problem.dim == 100:
            mark = Path(os.environ["MIDS_TEST_MARK"])
            if not mark.exists() or mark.read_text() == "always":
                if not mark.exists():
                    mark.write_text("once")
                os._exit(1)
        return super().integrate(problem)


@pytest.mark.parametrize("attempts", ["once", "always"])
def test_lost_workers(tmp_path, monkeypatch, attempts):
    distributed = pytest.importorskip("distributed")
    mark = tmp_path / "mark"
    monkeypatch.setenv("MIDS_TEST_MARK", str(mark))
    if attempts == "always":
        mark.write_text(attempts)
    monkeypatch.setattr("mids.storage.run_tasks.ATTEMPTS", 2)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs="CRITICAL"
        ) as cluster,
        distributed.Client(cluster),
    ):
        spec = SPEC | {"flow": Lethal()}
        if attempts == "always":
            with pytest.raises(ClusterError, match=r"lost its worker.*[0-5] of 6 blocks are kept"):
                mids.generate(spec, tmp_path / "sweep")
            mark.write_text("once")
        mids.generate(spec, tmp_path / "sweep")
    mids.generate(spec, tmp_path / "whole")
    assert tree(tmp_path / "sweep") == tree(tmp_path / "whole")
