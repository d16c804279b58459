"""Lazy simulation: graphs, streams, chunks, initial conditions, time grids, replay."""

from __future__ import annotations

import io
import logging
import math

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit
from toy_flow import SIMULATED, ToyFlow

import mids
from mids import schema
from mids.errors import DatasetError, InputError
from mids.flows import TwoTimescale
from mids.flows.initial import draw_runs
from mids.simulation.simulate import differences, from_spec

TARGET = mids.Target.parse("h1(z1) + h1(z1)*h3(z2)")
TIME = np.concatenate([[0.0], np.geomspace(0.1, 1e4, 20)])


@pytest.fixture
def toy_known(monkeypatch):
    """Let datasets of the toy flow find their flow again, as a registered one would."""
    monkeypatch.setattr(mids.flows, "from_dict", lambda data: ToyFlow(data["slow"]))


def toy(**arguments):
    given = {"dim": [100, 1000], "runs": 6, "time": TIME, "flow": ToyFlow(), "chunks": 2}
    return mids.simulate(**{"target": TARGET, **given, **arguments})


def only_recipe(ds):
    (recipe,) = schema.recipes(ds).values()
    return recipe


def refuse(*args, **kwargs):
    raise AssertionError("something was computed")


def identical(one, two):
    return not differences(one, two) and list(one) == list(two)


# -- graphs -------------------------------------------------------------------------------------


def test_nothing_is_simulated_before_it_is_computed():
    with dask.config.set(scheduler=refuse):
        ds = toy()
        repr(ds)
        ds.mi.validate()
    assert [name for name in ds.data_vars if ds[name].chunks is None] == ["recipe"]
    assert not SIMULATED


SELECTIONS = {
    "one variable": lambda ds: [ds.loss],
    "the status": lambda ds: [ds.status],
    "all variables": lambda ds: [ds],
    "each variable": lambda ds: list(ds.drop_vars("recipe").data_vars.values()),
    "two reductions": lambda ds: [ds.loss.mean("run"), ds.overlap.max("time"), ds.n_steps],
    "an expression": lambda ds: [ds.loss + ds.overlap.sum("direction") + ds.energy.sum("mode")],
}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_each_run_is_simulated_once(selection):
    ds = toy()
    dask.compute(*SELECTIONS[selection](ds))
    assert dict(SIMULATED) == {(dim, run): 1 for dim in (100, 1000) for run in range(6)}


def test_only_the_blocks_that_are_asked_for_are_simulated():
    toy().loss.isel(dim=1, run=3).compute()
    assert SIMULATED == {(1000, 2): 1, (1000, 3): 1}


def simulations(*collections):
    """Return the keys of the simulations in what dask makes of collections computed together."""
    graph = {}
    for optimized in dask.optimize(*collections):
        graph |= dict(optimized.__dask_graph__())
    return [key for key in graph if str(key[0]).startswith("simulate-")]


@pytest.mark.parametrize("selection", SELECTIONS)
def test_simulations_stay_tasks_of_their_own(selection):
    """Not even one variable takes its simulations into its own tasks: keys always mean the same."""
    assert len(simulations(*SELECTIONS[selection](toy()))) == 2 * 3


def test_graphs_of_large_sweeps_are_small():
    ds = toy(dim=[1e2, 1e4, 1e6], runs=100_000, chunks="auto")
    blocks = len(ds.chunks["dim"]) * len(ds.chunks["run"])
    tasks = len(ds.__dask_graph__())
    assert blocks < 200
    assert tasks <= blocks * (1 + len(ds.data_vars)) + 3 + len(ds.chunks["run"])


def test_graphs_of_millions_of_runs_stay_below_fifty_thousand_tasks():
    ds = mids.simulate(TARGET, dim=10.0 ** np.arange(2, 9), runs=1_000_000, flow=ToyFlow())
    assert len(ds.__dask_graph__()) < 50_000


def test_equal_sweeps_have_equal_keys():
    assert toy().loss.data.name == toy().loss.data.name
    assert toy().loss.data.name != toy(seed=1).loss.data.name
    assert toy().loss.data.name != toy(flow=ToyFlow(2.0)).loss.data.name


def test_distributed_gives_the_same_numbers_without_a_warning():
    distributed = pytest.importorskip("distributed")
    ds = toy()
    local = ds.compute()
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logger = logging.getLogger("distributed.scheduler")
    with distributed.Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0"
    ) as client:
        logger.addHandler(handler)
        SIMULATED.clear()
        assert identical(ds.compute(), local)
        assert set(SIMULATED.values()) == {1}
        kept = ds.loss.persist()
        ds.compute()
        xr.testing.assert_identical(ds.loss.compute(), local.loss)
        futures = client.compute([ds.status, ds.loss])
        client.gather(futures)
        del kept, futures
        logger.removeHandler(handler)
    assert "run_spec" not in log.getvalue()


# -- numbers ------------------------------------------------------------------------------------


def test_variables_are_those_of_the_flow_on_the_runs_own_start():
    ds = toy().compute()
    for index, dim in enumerate((100, 1000)):
        start = draw_runs(2, 2, dim, range(6), seed=0)
        gram = start @ start.swapaxes(-1, -2)
        np.testing.assert_array_equal(ds.gram0[index], gram)
        overlaps = np.linalg.eigvalsh(gram)[:, ::-1]
        expected = (logit(0.5) - logit(overlaps)) / [1.0, 0.1]
        np.testing.assert_allclose(ds.crossing_time[index].sel(level=0.5), expected, rtol=1e-12)


def test_coordinates_describe_the_modes():
    ds = toy()
    assert ds.mode.values.tolist() == ["h1(z1)", "h1(z1)h3(z2)"]
    assert ds.degree.values.tolist() == [1, 4]
    assert ds.exponents.values.tolist() == [[1, 0], [1, 3]]
    assert ds.energy.sel(mode="h1(z1)").dims == ("dim", "run", "time")
    assert ds.level.values.tolist() == [0.1, 0.5, 0.9]
    assert ds.exponents.dims == ("mode", "axis")


@pytest.mark.parametrize("chunks", [1, 4, 6, 100, 10**30, "auto"])
def test_numbers_do_not_depend_on_chunks(chunks):
    assert identical(toy(chunks=chunks), toy())


def test_threads_give_the_numbers_of_one_thread():
    ds = mids.simulate(TARGET, dim=1e4, runs=120, chunks=5, rtol=1e-5)
    one = ds.compute(scheduler="synchronous")
    for _ in range(3):
        assert identical(one, ds.compute(scheduler="threads", num_workers=4))


@settings(max_examples=6)
@given(
    runs=st.lists(st.integers(0, 50), min_size=1, max_size=8, unique=True),
    dims=st.permutations([100, 1000, 10**12]),
    chunks=st.integers(1, 9),
)
def test_streams_depend_on_seed_dim_and_run_only(runs, dims, chunks):
    one = mids.simulate(
        TARGET, dim=dims, runs=runs, flow=ToyFlow(), time=[0, 1, 2], chunks=chunks
    ).compute()
    for dim in dims:
        for run in runs:
            alone = mids.simulate(TARGET, dim=dim, runs=[run], flow=ToyFlow(), time=[0, 1, 2])
            np.testing.assert_array_equal(alone.gram0[0, 0], one.gram0.sel(dim=dim, run=run))


def test_seeds_differ():
    assert not np.isclose(toy(seed=0).gram0, toy(seed=1).gram0).any()


def test_dims_may_be_scalars_floats_and_arrays():
    assert toy(dim=1e4).sizes["dim"] == 1
    assert identical(toy(dim=[1e4, 100]), toy(dim=np.array([10000, 100])))
    assert toy(dim=xr.DataArray([100], dims="dim")).dim.dtype == np.int64


def test_targets_may_be_text():
    assert identical(toy(target=str(TARGET)), toy())


@pytest.mark.parametrize("points", [2, 500, 20_000])
def test_automatic_blocks_are_bounded(points):
    ds = toy(runs=100_000, time=np.arange(points), chunks="auto")
    block = ds.isel(dim=[0], run=slice(ds.chunks["run"][0]))
    assert block.nbytes < 130e6
    assert ds.chunks["run"][0] == 2 ** round(math.log2(ds.chunks["run"][0]))
    assert set(ds.chunks["dim"]) == {1}


# -- initial conditions -------------------------------------------------------------------------

M0 = np.random.default_rng(0).uniform(-0.4, 0.4, (2, 6, 2, 2))
DIMS = ("dim", "run", "axis", "student")
LABELS = {"dim": [100, 1000], "run": np.arange(6)}


@pytest.mark.parametrize(
    ("initial", "expected"),
    [
        (M0, M0),
        (M0[:, :1], np.broadcast_to(M0[:, :1], M0.shape)),
        (M0[0], np.broadcast_to(M0[0], M0.shape)),
        (M0[0, 0].tolist(), np.broadcast_to(M0[0, 0], M0.shape)),
        (xr.DataArray(M0, dims=DIMS), M0),
        (xr.DataArray(M0.swapaxes(0, 1), dims=("run", "dim", "axis", "student")), M0),
        (xr.DataArray(M0, dims=DIMS, coords=LABELS).isel(run=[5, 3, 1, 0, 2, 4]), M0),
        (xr.DataArray(M0[0], dims=DIMS[1:]), np.broadcast_to(M0[0], M0.shape)),
        (xr.DataArray(M0[:, 0], dims=("dim", "x", "y")), np.broadcast_to(M0[:, :1], M0.shape)),
    ],
)
def test_initial_conditions_broadcast(initial, expected):
    gram = toy(initial=initial).gram0.values
    np.testing.assert_allclose(gram, expected @ expected.swapaxes(-1, -2), rtol=1e-14)


def test_the_student_rank_is_that_of_the_initial_conditions():
    ds = toy(initial=M0[..., :1])
    assert only_recipe(ds)["student_rank"] == 1
    assert ds.sizes["direction"] == 2


def test_initial_conditions_of_each_run_are_a_variable():
    initial = np.random.default_rng(1).uniform(-0.5, 0.5, (1, 3000, 2, 2))
    ds = toy(initial=initial, runs=3000, chunks=500)
    assert only_recipe(ds)["initial"] == "variable"
    assert len(ds.attrs["mids_recipes"]) < 10_000
    ds.mi.validate()
    np.testing.assert_array_equal(ds.initial[1], initial[0])


# -- time ---------------------------------------------------------------------------------------


def test_the_default_grid_is_logarithmic_and_starts_at_zero():
    time = mids.simulate(TARGET, dim=1e4).time.values
    assert time[0] == 0
    np.testing.assert_allclose(np.diff(np.log10(time[1:])), 1 / 16, rtol=1e-9)


@pytest.mark.parametrize("text", ["h1(z1)", "h2(z1)", "h3(z1)", "staircase(2)", "parity(2)"])
@pytest.mark.parametrize("dim", [100, 10**6])
def test_the_default_grid_covers_the_last_escape(text, dim):
    ds = mids.simulate(text, dim=dim, runs=500, rtol=1e-5)
    assert float((ds.status == 0).mean()) > 0.99


def test_the_default_grid_grows_with_the_largest_dimension():
    ends = [mids.simulate("h2(z1)", dim=dim).time.values[-1] for dim in (100, 10**4, [1e2, 1e4])]
    assert ends[1] == ends[2] == pytest.approx(100 * ends[0], rel=0.2)


def test_the_default_grid_follows_given_initial_conditions():
    ends = [
        TwoTimescale().default_time(mids.targets.hermite(2), 100, 1, np.array([[m]]))[-1]
        for m in (1e-2, 1e-3)
    ]
    assert ends[1] == pytest.approx(100 * ends[0], rel=0.2)
    blind = TwoTimescale().default_time(mids.targets.hermite(2), 100, 1, np.array([[0.0]]))
    assert np.isfinite(blind).all()
    rank_one = TwoTimescale().default_time(mids.targets.parity(2), 100, 2, np.full((2, 2), 0.3))
    assert rank_one[-1] < 100  # what rounding adds to a singular start is no overlap


def test_grids_may_be_read_only_and_change_later():
    time = TIME.copy()
    ds = mids.simulate(TARGET, dim=100, runs=2, time=time)
    time[:] = 0
    time = TIME.copy()
    time.flags.writeable = False
    frozen = mids.simulate(TARGET, dim=100, runs=2, time=time)
    assert identical(ds, frozen) and (ds.status != 3).all()


# -- recipe and replay --------------------------------------------------------------------------


def test_the_recipe_has_everything():
    ds = toy()
    recipe = only_recipe(ds)
    assert recipe["target"] == TARGET.to_dict()
    assert recipe["flow"] == {"name": "toy", "slow": 1.0}
    assert (recipe["student_rank"], recipe["seed"], recipe["rtol"]) == (2, 0, 1e-8)
    assert schema.grids(ds) == {recipe["time"]: TIME.tolist()}
    assert recipe["versions"].keys() == {"mids", "numpy", "scipy", "numba"}
    assert (ds.recipe.values == schema.fingerprint_bytes([schema.fingerprint(recipe)])).all()


REPLAYED = {
    "counted": {},
    "listed": {"runs": [9, 2, 4]},
    "parameters": {"flow": ToyFlow(3.0), "seed": 5},
    "own starts": {"initial": M0},
    "one start": {"initial": M0[0, 0]},
}


@pytest.mark.parametrize("inline", [4096, 5], ids=["grid recorded", "grid as coordinate"])
@pytest.mark.parametrize("case", REPLAYED)
def test_replay_gives_the_same_bits(monkeypatch, toy_known, case, inline):
    monkeypatch.setattr("mids.simulation.graph.INLINE", inline)
    ds = toy(**REPLAYED[case])
    assert ("initial" in ds) == (case == "own starts")
    assert (schema.grids(ds) == {}) == (inline == 5)
    again = mids.replay(ds)
    assert identical(ds, again)
    part = ds.isel(run=[2, 1])
    selected = mids.replay(part)
    assert selected.run.values.tolist() == part.run.values.tolist()
    assert not differences(part, selected)


@pytest.mark.parametrize(
    "selection",
    [
        {"run": 1},
        {"dim": 0},
        {"dim": 1, "run": [0, 5]},
        {"time": [0, 3]},
        {"direction": 1, "level": [1]},
    ],
)
def test_replay_of_a_selection_simulates_what_was_selected(toy_known, selection):
    part = toy(chunks=1).isel(selection).compute()
    SIMULATED.clear()
    again = mids.replay(part).compute()
    assert identical(part, again)
    assert len(SIMULATED) == part.sizes.get("dim", 1) * part.sizes.get("run", 1)


def test_resampled_runs_are_replayed_once(toy_known):
    part = toy(chunks=1).isel(dim=[0], run=[4, 1, 4, 4]).compute()
    SIMULATED.clear()
    assert identical(part, mids.replay(part).compute())
    assert len(SIMULATED) == 2


def test_replay_needs_a_recipe():
    ds = toy()
    with pytest.raises(DatasetError, match=r"not in the attribute mids_recipes.*mids\.concat"):
        mids.replay(ds.drop_attrs())
    with pytest.raises(DatasetError, match="no variable 'recipe'"):
        mids.replay(ds.drop_vars("recipe"))
    outside = mids.from_trajectories(loss=[1.0, 0.5], time=[0, 1], dim=10, target=TARGET)
    with pytest.raises(DatasetError, match="nothing to replay"):
        mids.replay(outside)


def test_replay_needs_the_starts_that_were_given(toy_known):
    with pytest.raises(DatasetError, match="lost its variable 'initial'"):
        mids.replay(toy(initial=M0).drop_vars("initial"))


def test_replay_needs_the_grid(toy_known, monkeypatch):
    monkeypatch.setattr("mids.simulation.graph.INLINE", 5)
    with pytest.raises(DatasetError, match="lost the time grid"):
        mids.replay(toy().isel(time=slice(4)))


def test_differences_are_found_and_placed():
    ds = toy().compute()
    other = ds.copy(deep=True)
    other.loss[1, 3, 2] += 1e-15
    other["n_steps"] = other.n_steps.astype(float)
    other = other.drop_vars("status")
    found = differences(ds, other)
    assert found[0].startswith("status is missing")
    assert "n_steps has int64" in found[1]
    assert found[2] == "loss differs in 1 of 12 runs, first at dim 1000, run 3"
    assert differences(ds, toy()) == []


def test_differences_tell_nan_from_numbers():
    ds = toy().compute()
    other = ds.copy(deep=True)
    other.crossing_time[0, 0, 0, 0] = np.nan
    assert len(differences(ds, other)) == 1
    assert differences(other, other.copy(deep=True)) == []


def test_target_and_flow_are_recovered(toy_known):
    ds = toy(flow=ToyFlow(7.0))
    assert ds.mi.target == TARGET
    assert ds.mi.flow == ToyFlow(7.0)
    outside = mids.from_trajectories(loss=[1.0, 0.5], time=[0, 1], dim=10, target=TARGET)
    assert outside.mi.target == TARGET
    with pytest.raises(DatasetError, match="names no flow"):
        _ = outside.mi.flow


def test_titles_round_coefficients():
    target = mids.Target.parse("h1(z1) + h1(z1)*h3(z2)").normalize()
    ds = mids.simulate(target, dim=100, runs=1)
    assert ds.attrs["title"].endswith("target 0.707107*h1(z1) + 0.707107*h1(z1)h3(z2)")


def test_sweeps_may_be_mappings():
    spec = {"target": "staircase(2)", "dim": [100, 1e4], "runs": 3, "flow": "two-timescale"}
    ds = from_spec(spec)
    recorded = {
        "target": only_recipe(ds)["target"],
        "flow": only_recipe(ds)["flow"],
        "dim": [100, 10000],
        "runs": [0, 1, 2],
    }
    assert identical(from_spec(recorded), ds)


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 3}, "target must be a Target"),
        ({"target": "h1(y)"}, "cannot read the target"),
        ({"target": "2"}, "non-constant"),
        (
            {"target": "1e-99*h20(z1)", "dim": 1e12, "flow": "two-timescale", "time": None},
            "scale the target",
        ),
        ({"dim": 0}, "dim must be a whole number"),
        ({"dim": 3}, "rank . student_rank"),
        ({"dim": 1e2 + 0.5}, "100.5"),
        ({"dim": []}, "dim must be"),
        ({"dim": [100, 1e2]}, "100 more than once"),
        ({"runs": 0}, "runs must be an integer of at least 1, got 0"),
        ({"runs": 2.5}, "2.5"),
        ({"runs": 2**53}, "at most 100000000 in one dataset"),
        ({"runs": [2**63]}, r"below 2\*\*63"),
        ({"runs": []}, "distinct indices"),
        ({"runs": [1, 1]}, "distinct indices"),
        ({"runs": [[1], [2, 3]]}, r"must be an integer of at least 0"),
        ({"runs": [[1, 2]]}, r"must be an integer of at least 0"),
        ({"runs": [-1]}, "at least 0, got -1"),
        ({"seed": -1}, "seed"),
        ({"seed": "a"}, "seed"),
        ({"flow": "two-time"}, "two-timescale"),
        ({"flow": 7}, "flow"),
        ({"flow": "empirical"}, "needs the parameter 'n'"),
        ({"student_rank": 0}, "student_rank"),
        ({"time": [0, 2, 1]}, "strictly increase"),
        ({"time": [0, np.nan]}, "finite"),
        ({"time": [1, 2]}, "start at 0"),
        ({"initial": np.eye(2) * 1.1}, "singular values of at most 1, got 1.1"),
        ({"initial": np.zeros((3, 2))}, "initial must have shape"),
        ({"initial": np.zeros((3, 6, 2, 2))}, "broadcast over"),
        ({"initial": np.zeros((1, 2, 6, 2, 2))}, "broadcast over"),
        ({"initial": np.eye(2) * np.nan}, "finite"),
        ({"initial": np.eye(2) / 2, "student_rank": 3}, "initial must have shape"),
        ({"initial": xr.DataArray(np.zeros((2, 2)), dims=("run", "axis"))}, "initial must have"),
        (
            {"initial": xr.DataArray(M0[:, :2], dims=DIMS, coords={"run": [0, 7]})},
            r"no run \[1, 2, 3, 4, 5\]",
        ),
        (
            {"initial": xr.DataArray(M0[:, :2], dims=DIMS, coords={"run": [0, 0]})},
            "a run more than once",
        ),
        ({"initial": xr.DataArray(M0[:, :0], dims=DIMS)}, "broadcast over"),
        ({"rtol": 1}, "rtol"),
        ({"chunks": 0}, "chunks must be an integer"),
        ({"chunks": "big"}, "chunks must be"),
    ],
)
def test_wrong_arguments_are_named_before_any_work(arguments, message):
    with pytest.raises(InputError, match=message):
        toy(**arguments)
    assert not SIMULATED


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"dim": 100}, "needs target"),
        ({"target": "h1(z1)"}, "needs dim"),
        ({"target": "h1(z1)", "dims": 100}, "did you mean 'dim'"),
        ({"target": "h1(z1)", "dim": 100, "flow": {"name": "none"}}, "none"),
    ],
)
def test_wrong_specs_are_named(spec, message):
    with pytest.raises(InputError, match=message):
        from_spec(spec)


class Raising(ToyFlow):
    """A flow that raises on some runs, in whatever block they are."""

    def __init__(self, *bad, error=ZeroDivisionError):
        super().__init__()
        object.__setattr__(self, "bad", bad)
        object.__setattr__(self, "error", error)

    def integrate(self, problem):
        found = sorted(set(self.bad) & set(problem.runs.tolist()))
        if found:
            raise self.error(f"bad luck in run {found[0]}")
        return super().integrate(problem)


@pytest.mark.parametrize("chunks", [1, 4, 6])
def test_runs_that_raise_fail_alone(chunks):
    ds = toy(flow=Raising(0, 3), chunks=chunks).compute()
    good = toy().compute()
    failed = [0, 3]
    assert (ds.status.isel(run=failed) == 3).all()
    for name in ("loss", "overlap", "energy", "crossing_time"):
        assert ds[name].isel(run=failed).isnull().all()
    np.testing.assert_array_equal(ds.gram0, good.gram0)
    rest = [run for run in range(6) if run not in failed]
    assert not differences(ds.isel(run=rest), good.isel(run=rest))
    ds.mi.validate()
    assert "4 failed" in ds.mi.describe()


@pytest.mark.parametrize("error", [MemoryError, InputError])
def test_errors_that_no_single_run_causes_are_raised(error):
    with pytest.raises(error, match="bad luck"):
        toy(flow=Raising(2, error=error)).loss.compute()


def test_all_runs_may_fail():
    ds = toy(flow=Raising(*range(6))).compute()
    assert (ds.status == 3).all()
    assert ds.mi.saddles().n_saddles.sum() == 0


@pytest.mark.parametrize(
    "returned, told",
    [({"loss": np.zeros(3)}, r"loss of shape \(3,\)"), ({}, "returned no crossing_time, energy")],
)
def test_flows_that_return_too_little_are_named(returned, told):
    class Broken(ToyFlow):
        def integrate(self, problem):
            return (super().integrate(problem) if returned else {"loss": None}) | returned

    with pytest.raises(RuntimeError, match=told):
        toy(flow=Broken()).loss.compute()


@pytest.mark.parametrize("flow", ["two-timescale", "joint", "ambient"])
def test_runs_converge_where_the_target_has_more_variables_than_directions(flow):
    ds = mids.simulate("h1(z1) + h1(z2)", dim=[1000, 4000], runs=3, flow=flow).compute()
    assert (ds.loss.isel(time=-1) < 1e-3).all()
    assert (ds.status == 0).all()
    found = mids.saddles(ds)
    assert (found.n_saddles == 1).all() and not found.censored.any()


def test_replay_needs_labels_that_were_simulated():
    ds = mids.simulate("h1(z1)", dim=100, runs=1, time=[0.0, 1.0, 2.0, 3.0])
    with pytest.raises(DatasetError, match="time has values that were not simulated"):
        mids.replay(ds.coarsen(time=2).mean())


def test_a_flow_of_ones_own_is_known_by_its_dataset():
    ds = mids.simulate("h2(z1)", dim=[100, 1000], runs=2, flow=ToyFlow(slow=2.0)).compute()
    assert ds.mi.flow == ToyFlow(slow=2.0) and "toy, slow 2.0" in mids.describe(ds)
    assert mids.replay(ds).loss.equals(ds.loss)
    with pytest.raises(InputError, match=r"unknown flow name .toys.*import its module"):
        mids.flows.from_dict({"name": "toys"})


@pytest.mark.parametrize("nameless", [{}, {"ridge": 0.1}, {"name": None}])
def test_a_flow_without_a_name_is_refused(nameless):
    with pytest.raises(InputError, match="unknown flow name None"):
        mids.flows.from_dict(nameless)


@pytest.mark.parametrize("call", [mids.simulate, mids.theory])
def test_too_many_targets_are_refused_at_once(call):
    with pytest.raises(InputError, match="target has 1000000000000 values, at most"):
        call(range(10**12), dim=100)
