"""Stores: the dataset itself, resumed and grown to equal arrays, damage named, clear refusals."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
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
from mids.errors import FileError, InputError
from mids.simulation.simulate import differences
from mids.storage import store as stores
from mids.storage.files import sync

TARGET = "h1(z1) + h1(z1)*h3(z2)"
TIME = np.concatenate([[0.0], np.geomspace(0.1, 1e4, 20)])
SPEC = {"target": TARGET, "dim": [100, 1e4], "runs": 10, "chunks": 4, "time": TIME}
TOY = SPEC | {"flow": ToyFlow()}
TESTS = Path(__file__).parents[1]
PATHS = [str(TESTS), str(TESTS / "storage")]


@pytest.fixture
def whole(tmp_path):
    """Write a store without interruption, and forget what was simulated."""
    store = tmp_path / "whole"
    mids.generate(TOY, store)
    SIMULATED.clear()
    return store


@pytest.fixture(params=["folder", "memory"])
def location(request, tmp_path):
    return tmp_path / "sweep" if request.param == "folder" else f"memory://{uuid.uuid4()}"


def simulated():
    return {(dim, run) for dim, run in SIMULATED}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def blocks(store):
    return len(list((Path(store) / "blocks").iterdir()))


# -- what is written ----------------------------------------------------------------------------


def test_a_store_is_the_lazy_dataset(location):
    lazy = mids.simulate(**TOY)
    ds = mids.generate(TOY, location)
    assert not differences(lazy, ds)
    assert list(ds.data_vars) == list(lazy.data_vars)
    assert (
        ds.drop_attrs(deep=False)
        .drop_encoding()
        .compute()
        .identical(lazy.drop_attrs(deep=False).compute())
    )
    assert ds.attrs.keys() == lazy.attrs.keys()
    assert [name for name, array in ds.data_vars.items() if array.chunks is None] == ["recipe"]
    assert ds.chunks["run"] == (4, 4, 2)
    ds.mi.validate()


def test_opening_reads_nothing_and_computing_only_what_is_asked_for(whole):
    with dask.config.set(scheduler=lambda *a, **k: pytest.fail("a task was computed")):
        ds = mids.open_dataset(whole)
        repr(ds)
    (whole / "loss" / "c.0.0.0").unlink()
    ds.loss.isel(dim=1).compute()
    with pytest.raises(FileError, match=r"loss/c\.0\.0\.0 is missing; call mids\.generate"):
        ds.loss.isel(dim=0, run=2).compute()
    assert mids.open_dataset(whole, chunks={"run": -1}).chunks["run"] == (10,)


def test_zarr_opens_a_store_without_mids(whole):
    assert not differences(mids.open_dataset(whole), xr.open_zarr(whole))


SPECS = {
    "a selection": lambda: mids.simulate(**TOY)[["crossing_time", "status"]].isel(run=slice(0, 9)),
    "uneven blocks": lambda: mids.simulate(**TOY).isel(run=slice(1, 9)),
    "listed runs": lambda: TOY | {"runs": [7, 3, 11, 20, 2]},
    "large starts": lambda: (
        TOY | {"initial": np.random.default_rng(0).uniform(-0.4, 0.4, (1100, 2, 2)), "runs": 1100}
    ),
    "something derived": lambda: (mids.simulate(**TOY)[["loss"]] ** 2).assign(
        size=lambda d: d.loss.max("time"), learned=lambda d: d.loss.min("time") < 0.1
    ),
    "a sweep": lambda: TOY | {"seed": [0, 1], "target": {"a": TARGET, "b": "h2(z1)"}, "runs": 3},
}


@pytest.mark.parametrize("case", SPECS)
def test_what_can_be_stored(case, location):
    spec = SPECS[case]()
    if isinstance(spec, dict):
        spec = spec | {"chunks": 400} if "initial" in spec else spec
        expected = mids.simulate(**spec)
    else:
        expected = spec
    ds = mids.generate(spec, location)
    assert ds.drop_attrs().drop_encoding().compute().identical(expected.drop_attrs().compute())
    SIMULATED.clear()
    mids.generate(spec, location)
    assert not SIMULATED


@pytest.mark.slow
def test_a_spec_file_and_the_commands(tmp_path):
    file, store = tmp_path / "sweep.toml", tmp_path / "sweep"
    file.write_text(f'target = "{TARGET}"\ndim = [1e2, 1e4]\nruns = 6\nchunks = 4\nrtol = 1e-5\n')
    done = CliRunner().invoke(main, ["generate", "--spec", str(file), str(store)])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{store} is complete: 12 runs, ")
    arguments = ["generate", "--spec", str(file), str(store), "--runs", "8", "--rtol", "1e-5"]
    done = CliRunner().invoke(main, arguments)
    assert done.stdout.startswith(f"{store} is complete: 16 runs, ")
    for command in ("saddles", "info", "replay"):
        assert CliRunner().invoke(main, [command, str(store)]).exit_code == 0
    ds = mids.open_dataset(store)
    assert not differences(ds, mids.replay(ds))
    done = CliRunner().invoke(main, ["export", str(store), str(tmp_path / "sweep.nc")])
    assert (done.exit_code, done.stderr) == (0, "")
    with mids.open_dataset(tmp_path / "sweep.nc") as file:
        assert not differences(ds, file)
        assert file.attrs.keys() == ds.attrs.keys()
        file.mi.validate()


def test_compact_stores(tmp_path):
    ds = mids.generate(TOY, tmp_path / "sweep", compact=True)
    assert (ds.loss.dtype, ds.crossing_time.dtype) == (np.float32, np.float64)
    assert not differences(ds, mids.simulate(**TOY))
    with pytest.raises(InputError, match=r"loss\.dtype is '<f4' there and '<f8' here"):
        mids.generate(TOY, tmp_path / "sweep")


def test_numbers_do_not_depend_on_the_scheduler(whole, tmp_path):
    with dask.config.set(scheduler="synchronous"):
        ds = mids.generate(TOY, tmp_path / "other").compute()
    assert ds.equals(mids.open_dataset(whole).compute())


# -- growth -------------------------------------------------------------------------------------

GROWTH = {
    "runs": ({"runs": 13}, {(d, r) for d in (100, 10000) for r in range(8, 13)}),
    "dims": ({"dim": [10, 100, 1e4]}, {(10, r) for r in range(10)}),
    "both": (
        {"runs": 12, "dim": [100, 1000, 1e4]},
        {(d, r) for d in (100, 10000) for r in range(8, 12)} | {(1000, r) for r in range(12)},
    ),
    "in other blocks": (
        {"runs": 16, "chunks": 8},
        {(d, r) for d in (100, 10000) for r in range(8, 16)},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", GROWTH)
def test_what_is_missing_is_simulated_where_a_sweep_grows(whole, case):
    change, expected = GROWTH[case]
    date = mids.open_dataset(whole).attrs["date_created"]
    ds = mids.generate(TOY | change, whole)
    assert simulated() == expected
    order = sorted(ds.dim.values, key=lambda dim: (dim not in (100, 10000), dim))
    assert ds.dim.values.tolist() == order
    assert not differences(mids.simulate(**TOY | change | {"dim": order}), ds)
    assert ds.attrs["date_created"] == date
    SIMULATED.clear()
    mids.generate(TOY | change, whole)
    assert not SIMULATED


@pytest.mark.slow
def test_sweeps_grow_by_the_values_of_any_dim(tmp_path):
    sweep = TOY | {"target": {"a": TARGET, "b": "h2(z1)"}, "dim": 100}
    mids.generate(sweep | {"seed": [0, 2]}, tmp_path / "sweep")
    SIMULATED.clear()
    ds = mids.generate(sweep | {"seed": [1, 0, 2]}, tmp_path / "sweep")
    assert SIMULATED.total() == 2 * 10
    assert ds.seed.values.tolist() == [0, 2, 1]
    assert not differences(mids.simulate(**sweep | {"seed": [0, 2, 1]}), ds)
    swapped = sweep | {"target": {"b": TARGET, "a": "h2(z1)"}, "seed": [0, 2, 1]}
    with pytest.raises(InputError, match="recipe differs"):
        mids.generate(swapped, tmp_path / "sweep")


class Other(ToyFlow):
    """Has M(t), too."""

    name = "other"

    def variables(self, target):
        return (*super().variables(target), "correlation")

    def integrate(self, problem):
        times, (n, rank, q) = len(problem.time), problem.initial.shape
        found = np.broadcast_to(problem.initial[:, None], (n, times, rank, q))
        return super().integrate(problem) | {"correlation": found}


SMALL = TOY | {"target": {"a": "h3(z1)"}, "dim": 100, "runs": 5, "time": TIME[:4]}
WIDER = {
    "modes before and after": [
        {},
        {"target": {"b": "h1(z1) + h5(z1)", "a": "h3(z1)"}},
        {"target": {"b": "h1(z1) + h5(z1)", "c": "h4(z1)", "a": "h3(z1)"}},
    ],
    "directions": [{}, {"target": {"a": "h3(z1)", "b": "h1(z1)*h1(z2)*h1(z3) + h2(z1)"}}],
    "variables, columns": [
        {"flow": {"a": ToyFlow()}, "student_rank": [1]},
        {"flow": {"b": Other(), "a": ToyFlow()}, "student_rank": [2, 1]},
    ],
    "everything": [
        {"flow": {"a": ToyFlow()}, "seed": [1]},
        {
            "flow": {"b": Other(), "a": ToyFlow()},
            "seed": [0, 1],
            "target": {"b": "h2(z1) + h1(z2)", "a": "h3(z1)"},
            "dim": [50, 100],
            "runs": 7,
        },
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WIDER)
def test_values_may_bring_modes_directions_columns_and_variables(case, tmp_path):
    """The store is that of the whole sweep, and only what is missing is simulated."""
    location = f"memory://{uuid.uuid4()}" if case == "directions" else tmp_path / "sweep"
    kept, compact = 0, case == "everything"
    for change in WIDER[case]:
        spec = SMALL | change
        SIMULATED.clear()
        ds = mids.generate(spec, location, compact=compact)
        cells = ds.recipe[..., 0].size
        assert SIMULATED.total() == cells - kept
        kept = cells if case != "everything" else cells // 5 * 4  # of blocks of 4 runs
        whole = mids.simulate(**spec).sel({dim: ds[dim] for dim in ds.dims if dim in ds.indexes})
        assert not differences(ds, whole)
        assert [*ds.data_vars] == [*whole.data_vars]
        assert ds.coords.to_dataset().drop_attrs().identical(whole.coords.to_dataset().drop_attrs())
        ds.mi.validate()


def test_a_store_without_layouts_grows(tmp_path):
    """As mids wrote it before blocks could change their layout."""
    mids.generate(SMALL, tmp_path / "sweep")
    location = stores.Location(tmp_path / "sweep")
    state = stores.read_state(location)
    stores.write_state(location, {name: state[name] for name in state if name != "layouts"})
    for name in location.names("blocks"):
        location.write(f"blocks/{name}", b"0")
    wider = SMALL | WIDER["directions"][1]
    SIMULATED.clear()
    assert not differences(mids.generate(wider, tmp_path / "sweep"), mids.simulate(**wider))
    assert SIMULATED.total() == 5 + 10


def test_selections_of_the_same_modes_grow_and_of_others_are_refused(tmp_path):
    wider = SMALL | {"target": {"a": "h3(z1)", "b": "h4(z1) + h2(z2)"}}
    of_a = mids.simulate(**wider).sel(target=["a"])
    mids.generate(of_a.sel(mode=["h3(z1)"], direction=[0]), tmp_path / "sweep")
    for other in ({"mode": ["h4(z1)"]}, {"direction": [1]}, {"axis": [0], "axis_t": [0]}):
        by = {dim: of_a[dim].get_index(dim).get_indexer(at) for dim, at in other.items()}
        with pytest.raises(InputError, match="holds another sweep"):
            mids.generate(mids.simulate(**wider).isel(by), tmp_path / "sweep")


@pytest.mark.slow
def test_blocks_that_were_being_written_again_are_simulated(tmp_path, monkeypatch):
    """Cut off in one of two blocks, of 4 runs and 1, or after both; then also with more values."""
    steps = [SMALL | change for change in WIDER["modes before and after"]]
    mids.generate(steps[0], tmp_path / "start")
    for at, spec, again in (
        (4, steps[1], (4, 1)),
        (22, steps[2], (4, 1)),
        (60, steps[1], (-4, -1)),
    ):
        calls = itertools.count()

        def cut(path, calls=calls, at=at):
            if next(calls) == at:
                raise KeyboardInterrupt
            sync(path)

        store = shutil.copytree(tmp_path / "start", tmp_path / str(at))
        with monkeypatch.context() as patch, dask.config.set(scheduler="synchronous"):
            patch.setattr("mids.storage.generation.sync", cut)
            with pytest.raises(KeyboardInterrupt):
                mids.generate(steps[1], store)
        SIMULATED.clear()
        ds = mids.generate(spec, store)
        assert SIMULATED.total() - (ds.recipe[..., 0].size - 5) in again
        assert not differences(ds, mids.simulate(**spec).sel(target=ds.target))


@pytest.mark.slow
def test_growth_that_is_cut_off_goes_on(whole, monkeypatch):
    """Nothing of the shorter blocks remains that would count as complete."""
    for at in range(4):
        calls = iter(range(100))

        def write_state(*arguments, at=at, calls=calls, write=stores.write_state):
            if next(calls) >= at % 2:
                raise KeyboardInterrupt
            write(*arguments)

        with monkeypatch.context() as patch:
            name = "mids.storage.generation." + ("write_state" if at < 2 else "_computed")
            patch.setattr(name, write_state if at < 2 else lambda tasks: 1 / 0)
            with pytest.raises((KeyboardInterrupt, ZeroDivisionError)):
                mids.generate(TOY | {"runs": 11 + at}, whole)
    ds = mids.generate(TOY | {"runs": 14}, whole)
    assert not differences(mids.simulate(**TOY | {"runs": 14}), ds)


# -- interruptions and damage -------------------------------------------------------------------

DAMAGE = {
    "missing": (lambda s: (s / "loss" / "c.0.1.0").unlink(), "loss/c.0.1.0 is missing"),
    "flipped": (lambda s: flip(s / "status" / "c.0.1"), "status/c.0.1 is damaged"),
    "truncated": (lambda s: os.truncate(s / "gram0" / "c.0.1.0.0", 9), "gram0/c.0.1.0.0 is dam"),
    "empty": (lambda s: os.truncate(s / "n_rhs" / "c.0.1", 0), "n_rhs/c.0.1 is damaged"),
    "no mark": (lambda s: (s / "blocks" / "0.1").unlink(), None),
    "mark cut off": (lambda s: os.truncate(s / "blocks" / "0.1", 0), None),
    "header": (lambda s: flip(s / "zarr.json"), "zarr.json is missing or damaged"),
    "coordinate": (lambda s: flip(s / "time" / "c.0"), "time/c.0 is damaged"),
    "temporary": (lambda s: (s / "loss" / "c.0.12ab.partial").write_bytes(b"x"), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_an_error_that_names_the_chunk_and_simulated_again(whole, case):
    before = mids.open_dataset(whole).compute()
    damage, message = DAMAGE[case]
    damage(whole)
    if message:
        with pytest.raises(FileError, match=rf"{whole}/{message}.*; call mids\.generate"):
            mids.open_dataset(whole).compute()
    ds = mids.generate(TOY, whole)
    assert ds.compute().identical(before)
    untouched = case in ("header", "coordinate", "temporary")
    assert simulated() == (set() if untouched else {(100, run) for run in (4, 5, 6, 7)})
    assert not list(whole.rglob("*.partial"))


@pytest.mark.slow
def test_no_changed_byte_is_read_silently(whole):
    rng = np.random.default_rng(0)
    for name in ("crossing_time/c.1.1.0.0", "loss/c.1.1.0", "status/c.1.1", "mids.json"):
        content = (whole / name).read_bytes()
        for at in np.linspace(0, len(content) - 1, 6).astype(int):
            changed = bytearray(content)
            changed[at] ^= 1 << int(rng.integers(8))
            (whole / name).write_bytes(changed)
            with pytest.raises(FileError, match=rf"{whole}/{name} is damaged"):
                mids.open_dataset(whole).isel(dim=1, run=5).compute()
        (whole / name).write_bytes(content)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[1, 2]", b'{"sha256": 1}'])
def test_without_its_description_a_store_is_left_alone(whole, content):
    (whole / "mids.json").write_bytes(content)
    for use in (mids.open_dataset, lambda store: mids.generate(TOY, store)):
        with pytest.raises(FileError, match=r"mids\.json is damaged; .*restore it"):
            use(whole)
    assert (whole / "mids.json").read_bytes() == content
    assert not SIMULATED


@pytest.mark.slow
def test_foreign_descriptions_are_refused(whole):
    """Signed anew, with types that are not those that mids writes."""
    location = stores.Location(whole)
    state = stores.read_state(location)
    for name in state:
        for value in (None, {}, "x"):
            stores.write_state(location, {**state, name: value})
            try:
                mids.open_dataset(whole).close()
            except FileError as error:
                assert str(whole) in str(error)
    stores.write_state(location, state | {"mids_store": 9})
    with pytest.raises(FileError, match=r"version 9, and this version of mids reads 2"):
        mids.open_dataset(whole)


def test_codecs_that_mids_does_not_write_are_refused(whole):
    header = json.loads((whole / "zarr.json").read_text())
    header["consolidated_metadata"]["metadata"]["loss"]["codecs"] = [{"name": "numcodecs.pickle"}]
    (whole / "zarr.json").write_text(json.dumps(header))
    location = stores.Location(whole)
    digest = stores.digest((whole / "zarr.json").read_bytes())
    stores.write_state(location, stores.read_state(location) | {"header": digest})
    with pytest.raises(FileError, match=r"codecs that mids does not write: .*numcodecs\.pickle"):
        mids.open_dataset(whole)


KILLED = """
import os, sys
sys.path[:0] = {tests!r}
import dask, mids, mids.storage.generation as g
from mids.storage.store import Location
from test_generate import TOY
write, count = Location.write, 0
def deadly(location, name, *rest, **options):
    global count
    count += name.startswith("blocks/")
    if count == {after}:
        os.kill(os.getpid(), 9)  # the chunks are there, the mark is not
    write(location, name, *rest, **options)
Location.write = deadly
with dask.config.set(scheduler="synchronous"):
    mids.generate(TOY, sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_process_loses_only_the_block_it_was_at(whole, tmp_path):
    store = tmp_path / "killed"
    code = KILLED.format(tests=PATHS, after=3)
    done = subprocess.run(
        [sys.executable, "-c", code, str(store)], cwd=TESTS.parent, capture_output=True
    )
    assert done.returncode == -9, done.stderr
    assert blocks(store) == 2
    with pytest.raises(FileError, match="not finished: 2 of 6 blocks are there"):
        mids.open_dataset(store)
    ds = mids.generate(TOY, store)
    assert len(simulated()) == 12
    assert ds.compute().equals(mids.open_dataset(whole).compute())


LIMIT = """
import resource, sys
sys.path[:0] = {tests!r}
import mids, mids.errors
from test_generate import TOY
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    mids.generate(TOY | {{"runs": 300, "chunks": 300}}, sys.argv[1])
except mids.errors.FileError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_the_rest_is_kept(tmp_path):
    store = tmp_path / "full"
    done = subprocess.run(
        [sys.executable, "-c", LIMIT.format(tests=PATHS), str(store)],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout
    assert "free space; 0 blocks are kept" in done.stdout
    spec = TOY | {"runs": 300, "chunks": 300}
    assert not differences(mids.simulate(**spec), mids.generate(spec, store))


# -- failures -----------------------------------------------------------------------------------


class Unlucky(ToyFlow):
    """Raises on two runs."""

    def integrate(self, problem):
        for run in problem.runs.tolist():
            if run in (3, 8):
                raise FloatingPointError(f"overlap {run} left [0, 1]")
        return super().integrate(problem)


def test_failed_runs_are_counted_and_their_causes_logged(location, caplog):
    with caplog.at_level(logging.WARNING, "mids"):
        ds = mids.generate(SPEC | {"flow": Unlucky()}, location)
    assert ds.attrs["failures"] == "4 of 20 runs failed (status 3)"
    assert len(caplog.messages) == 4
    assert (
        "1 of 4 runs failed at d = 100, from run 3 on: 1 with FloatingPointError: overlap 3 left "
        "[0, 1]"
    ) in caplog.messages
    assert (ds.status.isel(run=[3, 8]) == 3).all()
    assert not differences(ds.isel(run=[0, 1, 2, 9]), mids.simulate(**TOY).isel(run=[0, 1, 2, 9]))


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "seed is 0 there and 4 here"),
        ({"runs": 9}, "runs is 10 there and 9 here"),
        ({"runs": range(1, 12)}, "run differs"),
        ({"dim": [100, 2e4]}, r"dim has \[10000\] there and not here"),
        ({"flow": ToyFlow(2.0)}, "flow.slow is 1.0 there and 2.0 here"),
        ({"time": TIME * 2}, "time differs"),
    ],
)
def test_another_sweep_is_refused_with_what_differs(whole, change, message):
    state = (whole / "mids.json").read_bytes()
    with pytest.raises(InputError, match=f"holds another sweep: .*{message}.*or a new store"):
        mids.generate(TOY | change, whole)
    assert (whole / "mids.json").read_bytes() == state
    assert not differences(mids.simulate(**TOY), mids.open_dataset(whole))


def test_what_is_derived_in_another_way_is_refused(tmp_path):
    ds = mids.simulate(**TOY)
    mids.generate(ds[["status", "recipe"]].assign(size=ds.loss.max("time")), tmp_path / "sweep")
    with pytest.raises(InputError, match=r"size\.graph is"):
        mids.generate(ds[["status", "recipe"]].assign(size=ds.loss.min("time")), tmp_path / "sweep")


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (7, {}, "spec must be a mapping"),
        ({"target": "h1(z1)"}, {}, "needs dim"),
        (TOY, {"store": 7}, "store must be the path"),
        (TOY, {"store": "no/where"}, "cannot make the folder .*in a folder that exists"),
        (TOY, {"store": "file"}, "cannot make the folder .*give a new one"),
        (TOY, {"store": "a" * 300}, "at most"),
        (TOY, {"store": "a\0b"}, "store must be the path"),
        (TOY, {"store": "."}, "neither empty nor a store"),
        (TOY, {"store": "nope://x"}, "cannot use nope://x"),
        (xr.Dataset({"a": ("x", [1.0])}), {}, "lazy dataset"),
        (xr.Dataset({"a": (("dim", "run"), [[1.0]])}), {}, "lazy dataset"),
        (
            xr.Dataset({"a": (("dim", "run"), [[1.0]]), "b": ("run", [1.0])}).chunk(),
            {},
            r"b has float64 of \('run',\)",
        ),
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
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "lock", "writer"}
