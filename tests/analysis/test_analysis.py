"""Saddles, theory and their comparison: exact times, laziness."""

from __future__ import annotations

import pickle
import re

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import mids
from mids.analysis import coupled
from mids.analysis.compare import summary
from mids.analysis.coupled import Race
from mids.errors import DatasetError, InputError
from mids.flows.initial import draw_runs

GRID = np.append(0, np.logspace(-3, 8, 300))
BY_RUN = {"time": (("run", "time"), np.stack([GRID, 2 * GRID]))}
COUPLED = ["h1(z1) + h1(z1)*h3(z2)", "h2(z1) + h1(z1)*h2(z2)"]


def curve(values, time=GRID, **variables):
    return xr.Dataset({"loss": ("time", values), **variables}, {"time": time})


def rotation(rank, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(rank, rank)))[0]


def refuse(*args, **kwargs):
    raise AssertionError("something was computed")


@pytest.fixture(scope="module", params=COUPLED)
def ds(request):
    target = mids.Target.parse(request.param).normalize()
    return mids.simulate(target, dim=[1e2, 1e4, 1e6, 1e8], runs=64).compute()


def test_saddles_are_exact_where_crossing_times_are_known(ds):
    found = mids.saddles(ds)
    assert found.attrs["method"] == "crossing times"
    large = found.isel(dim=slice(1, None))
    assert large.visited.all() and large.saddle.values.tolist() == [0, 1]
    half = ds.crossing_time.sel(level=0.5).rename(direction="saddle").values
    np.testing.assert_array_equal(large.escape_time, half[1:])
    assert not found.censored.any()
    curve_only = mids.saddles(ds.drop_vars("crossing_time").isel(dim=[2, 3]))
    both = (curve_only.n_saddles == 2).values
    assert both.mean() > 0.8  # the others stay for less than the curve can resolve
    ratio = curve_only.escape_time.isel(saddle=slice(2)).values[both] / half[2:][both]
    assert np.abs(ratio - 1).max() < 0.15  # the resolution of the time grid


def test_theory_predicts_each_run(ds):
    table = summary(mids.compare(ds)).set_index(["dim", "saddle"])
    assert table.index.tolist() == [(d, j) for d in (100, 10**4, 10**6, 10**8) for j in (0, 1)]
    for dim, close in ((100, 0.05), (10**4, 0.01), (10**6, 0.001), (10**8, 0.001)):
        assert (table.ratio[dim] - 1).abs().max() < close
    compared = mids.compare(ds).sel(dim=[10**4, 10**6, 10**8])
    assert compared.match.mean() > 0.99
    np.testing.assert_allclose(
        compared.loss.median("run"), compared.loss_theory.median("run"), rtol=1e-3
    )


def test_the_exponents_are_found_in_the_scaling(ds):
    fit = mids.scaling(ds.sel(dim=[10**4, 10**6, 10**8])).compute()
    exponents = mids.leaps(ds.mi.target).exponents
    np.testing.assert_array_equal(fit.expected + 1, exponents)
    for j, s in enumerate(exponents):
        if s > 1:
            assert fit.low[j] <= s - 1 <= fit.high[j]
        assert fit.low[j] < fit.slope[j] < fit.high[j]
    if exponents[0] == 1:  # t = log(d) / (2 c^2) + ..., c^2 = 1/2
        assert fit.time_low[0] <= 1 <= fit.time_high[0]
        assert fit.time_slope[0] == pytest.approx(1, abs=0.1)
    assert np.isnan(fit.local_slope[:, 0]).all()
    medians = np.log(mids.compare(ds).escape_time.sel(dim=fit.dim).median("run"))
    np.testing.assert_allclose(
        fit.local_slope[:, 1:], medians.diff("dim").T / np.log(100), rtol=1e-9
    )
    with pytest.raises(DatasetError, match="two dimensions"):
        mids.scaling(ds.isel(dim=[0]))


def test_runs_that_are_cut_off_or_failed_stay_marked(ds):
    short = ds.isel(time=ds.time < 1e3)
    crossing = ds.crossing_time.where(ds.crossing_time < 1e3)
    status = xr.where(crossing.isel(direction=-1, level=-1, drop=True).isnull(), 1, 0)
    status = status.astype(np.int8)
    status[-1, 0] = 3
    cut = short.assign(crossing_time=crossing, status=status)
    table = summary(mids.compare(cut))
    assert (table[table.saddle == 1].censored > 0).any()
    found = mids.saddles(cut)
    assert int(found.n_saddles[-1, 0]) == 0
    assert np.isnan(found.escape_time.where(found.censored)).all()


def test_runs_that_take_no_part_are_counted(ds):
    """Three runs failed, some are cut off, some never reach the second saddle."""
    learned = ds.crossing_time.sel(dim=10**6, direction=0, level=0.9)
    crossing = ds.crossing_time.where(ds.crossing_time < learned.median())
    status = xr.where(crossing.isel(direction=-1, level=-1, drop=True).isnull(), 1, 0)
    status = status.astype(np.int8)
    status[-1, :2] = status[0, 0] = 3
    cut = ds.assign(crossing_time=crossing, status=status)
    compared = mids.compare(cut)
    np.testing.assert_array_equal(compared.failed, status == 3)
    table = summary(compared).set_index(["dim", "saddle"])
    for dim, failed in ((100, 1), (10**4, 0), (10**6, 0), (10**8, 2)):
        for j in (0, 1):
            row, here = table.loc[(dim, j)], compared.sel(dim=dim, saddle=j)
            assert row.failed == failed
            assert row.censored == int(here.censored.sum())
            expected = here.loss_theory.notnull() & ~here.failed
            visited = here.escape_time.notnull() | here.censored
            assert row.unmatched == int((visited != expected).sum())
    assert table.unmatched.sum() > 0  # of those cut off before they reach the second saddle
    fit = mids.scaling(cut, resamples=10)
    assert int(fit.n_failed) == 3
    known = compared.escape_time.notnull().sum(["dim", "run"])
    total = known + fit.n_censored + fit.n_trapped + fit.n_unvisited + fit.n_failed
    assert (total == status.size).all()
    assert fit.n_censored.sum() > 0 and (fit.n_unvisited > 0).any()
    status[:] = 3
    table = summary(mids.compare(cut.assign(status=status)))
    assert (table.failed == ds.sizes["run"]).all() and table.unmatched.sum() == 0
    no_status = cut.drop_vars("status")
    assert not mids.compare(no_status).failed.any() and int(mids.scaling(no_status).n_failed) == 0


@pytest.mark.parametrize(
    "text",
    ["parity(2)", "staircase(2)", "0.6*h2(z1) - 0.8*h2(z2)", "h4(z1) + 0.5*h4(z2)"],
)
def test_limit_flows_predict_too(text):
    target = mids.Target.parse(text).normalize()
    ds = mids.simulate(target, dim=[1e4, 1e6], runs=6).compute()
    table = summary(mids.compare(ds)).set_index("dim")
    for dim, close in ((10**4, 0.02), (10**6, 0.002)):
        assert (table.ratio.loc[[dim]] - 1).abs().max() < close


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "dim", "close"),
    [
        ("staircase(3)", [1e3, 1e4], 3e-4),
        ("h1(z1) + h2(z1) + 1/2*h1(z1)*h1(z2)", [1e4], 5e-6),  # drifts on the way
        ("h1(z1) + 0.5*h2(z1)*h1(z2)", [1e2, 1e4], 1e-3),  # in closed form
    ],
)
def test_levels_of_short_stays_are_predicted(text, dim, close):
    """At log d saddles the level is not that of the saddle; the theory knows by how much."""
    target = mids.Target.parse(text).normalize()
    turned = target.rotate(rotation(target.rank, 1))
    ds = mids.simulate(turned, dim=dim, runs=12).compute()
    found, predicted = mids.compare(ds), mids.theory(ds)
    error = abs(found.loss / found.loss_theory - 1)
    assert (error.median("run") < close).all() and found.loss.notnull().mean() > 0.8
    away = abs(predicted.loss / predicted.saddle_loss - 1).isel(saddle=slice(1, None))
    assert (away.median("run") > 4 * close).any()
    coarse = mids.compare(ds.isel(time=slice(1, None, 3)))
    assert (abs(coarse.loss / coarse.loss_theory - 1).median("run") < close).all()
    # without times the level is that of the predicted curve itself
    own = mids.theory(ds[["recipe", "gram0"]])
    assert np.abs(own.loss / predicted.loss - 1).max() < 0.1
    np.testing.assert_array_equal(own.loss.isnull(), predicted.loss.isnull())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "saddle"),
    [("h2(z1) + h2(z1)*h1(z2)", 1), ("h3(z1) + h1(z1)*h2(z2) + h2(z2)*h1(z3)", 2)],
)
def test_levels_of_stays_that_only_a_fine_grid_shows(text, saddle):
    """A stay of log d after one of d or d^2 falls between the times of the usual grid."""
    target = mids.Target.parse(text).normalize()
    usual = mids.simulate(target, dim=1e6, runs=1).compute()
    assert mids.saddles(usual).loss.sel(saddle=saddle).isnull().all()
    crossing = usual.crossing_time.values[0, 0]
    enter, leave = crossing[saddle - 1, 2], crossing[saddle, 0]
    time = np.linspace(2 * enter - leave, 2 * leave - enter, 121)
    ds = mids.simulate(target, dim=1e6, runs=1, time=np.append(0, time)).compute()
    found = mids.compare(ds).sel(saddle=saddle)
    np.testing.assert_allclose(found.loss, found.loss_theory, rtol=3e-4)


def test_levels_are_compared_at_the_same_place_of_a_stay():
    """One time in a stay of log d after one of d, shorter than the error of its beginning."""
    target = mids.Target.parse("h2(z1) + h2(z1)*h1(z2)").normalize()
    crossing = mids.simulate(target, dim=1e5, runs=3).crossing_time.values[0]
    for run, (enter, leave) in enumerate(zip(crossing[:, 0, 2], crossing[:, 1, 0], strict=True)):
        time = [0.0, enter + 0.1 * (leave - enter), 2 * leave]
        ds = mids.simulate(target, dim=1e5, runs=[run], time=time).compute()
        found = mids.compare(ds).isel(saddle=1)
        assert abs(found.loss / found.loss_theory - 1) < 1e-3
        assert abs(found.loss / mids.theory(ds[["recipe", "gram0"]]).loss.isel(saddle=1) - 1) > 5e-3


def test_what_is_no_overlap_matrix_has_no_saddles():
    ds = mids.simulate(COUPLED[0], dim=1e4, runs=5).compute()
    wrong = ds.copy(deep=True)
    bad = [np.diag([2.0, 0.1]), np.diag([-0.1, 0.1]), np.full((2, 2), np.nan)]
    wrong["gram0"].values[0, 1:4] = bad
    found = mids.theory(wrong)
    assert found.n_saddles.values.tolist() == [[2, 0, 0, 0, 2]]
    known = {"run": [0, 4]}
    xr.testing.assert_equal(found.isel(known), mids.theory(ds).isel(known))
    turned = mids.theory(ds.transpose()).transpose(*found.loss.dims)
    xr.testing.assert_allclose(turned, mids.theory(ds))
    with pytest.raises(DatasetError, match="strictly increasing"):
        mids.saddles(ds.isel(time=slice(None, None, -1)))


def test_fewer_students_than_directions_meet_fewer_saddles():
    target = mids.Target.parse(COUPLED[0]).normalize()
    ds = mids.simulate(target, dim=1e4, runs=4, student_rank=1).compute()
    compared = mids.compare(ds)
    assert (mids.theory(ds).n_saddles == 1).all()  # where the runs end is none
    assert compared.match.sum("saddle").values.tolist() == [[1] * 4]
    assert compared.escape_time.notnull().sum("saddle").max() == 1
    np.testing.assert_allclose(compared.ratio.isel(saddle=0), 1, rtol=0.01)


def test_runs_and_dimensions_may_be_stacked_and_swapped():
    """Whatever the names of the dims; tables need dim and run to be some."""
    ds = mids.simulate(COUPLED[0], dim=[1e2, 1e4], runs=3).compute()
    expected = mids.compare(ds)
    stacked = ds.stack(cell=("dim", "run"))
    swapped = ds.assign_coords(logd=("dim", [2.0, 4.0])).swap_dims(dim="logd")
    unstacked = mids.compare(stacked).unstack("cell").transpose(*expected.dims)
    xr.testing.assert_identical(unstacked, expected)
    back = mids.compare(swapped).swap_dims(logd="dim").drop_vars("logd")
    xr.testing.assert_identical(back, expected)
    for given, remedy in ((stacked, "unstack('cell')"), (swapped, "swap_dims({'logd': 'dim'})")):
        for table in (summary, lambda compared, given=given: mids.scaling(given)):
            with pytest.raises(DatasetError, match=re.escape(remedy)):
                table(mids.compare(given))
    one = mids.scaling(ds.isel(run=0), resamples=10)
    xr.testing.assert_identical(one, mids.scaling(ds.isel(run=[0]), resamples=10))


@pytest.mark.parametrize("text", [COUPLED[0], "parity(2)"])
def test_theory_never_runs_the_flow(text, monkeypatch):
    start = mids.simulate(text, dim=1e4, runs=3)[["recipe", "gram0"]].compute()
    monkeypatch.setattr(mids.flows.TwoTimescale, "integrate", refuse)
    monkeypatch.setattr(mids, "simulate", refuse)
    assert np.isfinite(mids.theory(start).escape_time).all()
    assert np.isfinite(mids.theory(start, quantiles=[0.5], samples=20).escape_time_quantile).all()


def test_a_prediction_leaves_nothing_behind():
    """Threads of dask predict blocks of a lazy dataset with one model at the same time."""
    target = mids.Target.parse(COUPLED[0])
    predictor = Race(target)
    before = pickle.dumps(predictor)
    gram0 = mids.simulate(target, dim=1e4, runs=2).gram0.values[0]
    assert np.isfinite(predictor.predict(gram0).escape_time).all()
    assert pickle.dumps(predictor) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "dim"),
    [("h3(z1) + 0.5*h2(z1)*h1(z2) + 0.7*h3(z2)", 100), ("h2(z1) + h2(z1)*h1(z2)", 10_000)],
)
def test_a_prediction_does_not_depend_on_the_other_runs(text, dim):
    """Two critical subspaces of rank 1, some 20 degrees apart, or three, wherever one starts."""
    target = mids.Target.parse(text).normalize()
    M = draw_runs(2, 2, dim, range(12), 3)
    gram0 = M @ M.swapaxes(1, 2)
    together = Race(target).predict(gram0)
    for i in range(0, len(M), 3):
        alone = Race(target).predict(gram0[i : i + 1])
        for name in ("rank", "exponent", "saddle_loss", "enter_time", "escape_time"):
            there, here = getattr(together, name)[i], getattr(alone, name)[0]
            np.testing.assert_allclose(there, here, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("dim", [10**4, 10**6, 10**8])
def test_saddles_that_are_left_by_turning_are_those_of_the_ladder(dim):
    """The flow leaves span e1 by turning towards another critical subspace, too."""
    target = mids.Target.parse("h2(z1) + h2(z1)*h1(z2)").normalize()
    M = draw_runs(2, 2, dim, range(40), 0)
    found = Race(target).predict(M @ M.swapaxes(1, 2))
    losses = found.saddle_loss[found.rank == 1]
    expected = mids.leaps(target)[1].loss
    assert len(losses) >= 39
    assert np.mean(np.abs(losses - expected) < 1e-9) >= 0.9


def test_a_limit_flow_that_is_not_followed_to_its_end_has_an_unknown_time(monkeypatch):
    monkeypatch.setattr(coupled, "MAX_STEPS", 5)
    found = mids.theory(mids.simulate("parity(2)", dim=1e4, runs=3)).compute()
    assert (found.n_saddles == 1).all() and found.visited.isel(saddle=0).all()
    assert found.escape_time.isnull().all()


@pytest.mark.slow
def test_where_a_student_has_learned_all_it_can_is_no_saddle():
    target = "h1(z1) + h1(z1)*h1(z2) + h1(z1)*h1(z2)*h1(z3)"
    ds = mids.simulate(target, dim=[1e4, 1e8], runs=12, student_rank=2)
    assert (mids.theory(ds).n_saddles == 2).all()


@pytest.mark.slow
def test_trapped_runs_are_not_censored():
    """Half of the runs start on the wrong side of h3 and never leave; the others as d^(1/2)."""
    ds = mids.simulate("h3(z1)", dim=[1e4, 1e6, 1e8], runs=200, flow="planted").compute()
    for known in (ds, ds.drop_vars("crossing_time").isel(run=slice(20))):
        found = mids.saddles(known)
        np.testing.assert_array_equal(found.censored.isel(saddle=0), known.status == 1)
        np.testing.assert_array_equal(found.trapped.isel(saddle=0), known.status == 2)
    table = summary(mids.compare(ds))
    assert table.runs.tolist() == [200] * 3 and table.censored.sum() == (ds.status == 1).sum()
    assert table.trapped.tolist() == (ds.status == 2).sum("run").values.tolist()
    assert table.unmatched.tolist() == [0] * 3
    fit = mids.scaling(ds)
    assert int(fit.n_trapped[0]) == int((ds.status == 2).sum()) > 200
    assert int(fit.n_dims[0]) == 3
    assert fit.low[0] <= 0.5 <= fit.high[0]
    assert fit.high[0] - fit.low[0] < 0.1


@pytest.mark.slow
def test_stages_that_grow_side_by_side():
    """Each direction of a separable target is a clock of its own: t_j does not add up."""
    target = mids.Target.parse("h1(z1) + h2(z2) + h3(z3)").normalize()
    ds = mids.simulate(target, dim=[1e2, 1e4], runs=64).compute()
    ratio = summary(mids.compare(ds)).set_index(["dim", "saddle"]).ratio
    assert (ratio[100] - 1).abs().max() < 0.1
    assert (ratio[10**4] - 1).abs().max() < 3e-3


@pytest.mark.parametrize("student_rank", [1, 2])
def test_rounding_is_no_direction(student_rank):
    target = mids.Target.parse("h1(z1) + h1(z1)*h2(z2) + h2(z2)*h3(z3)").normalize()
    ds = mids.simulate(target, dim=1e8, runs=50, student_rank=student_rank)
    found = mids.theory(ds[["recipe", "gram0"]])
    assert np.isfinite(found.escape_time[..., :student_rank]).all()
    assert (found.n_saddles == student_rank).all()


def test_ridge_moves_measured_and_predicted_alike():
    target = mids.Target.parse(COUPLED[0]).normalize()
    flow = mids.flows.TwoTimescale(ridge=0.5, kernel=mids.flows.HermiteKernel(polynomial=1))
    ds = mids.simulate(target, dim=1e6, runs=8, flow=flow).compute()
    compared = mids.compare(ds)
    np.testing.assert_allclose(compared.ratio, 1, rtol=0.01)
    np.testing.assert_allclose(compared.loss, compared.loss_theory, rtol=1e-3)


def runs():
    return mids.simulate(COUPLED[0], dim=[100, 1000], runs=1)


@pytest.mark.parametrize("analysis", ["plateaus", "saddles", "theory", "compare", "scaling"])
def test_lazy_in_lazy_out(analysis):
    lazy = mids.simulate(COUPLED[0], dim=[1e2, 1e4], runs=4, chunks=2)
    function = getattr(mids, analysis)
    with dask.config.set(scheduler=refuse):
        result = function(lazy)
    assert any(variable.chunks is not None for variable in result.variables.values())
    xr.testing.assert_identical(result.compute(), function(lazy.compute()))


@pytest.mark.parametrize(("text", "others"), [("parity(2)", []), (COUPLED[0], [1])])
@pytest.mark.parametrize("first", [0.4, 0.8])
def test_a_run_that_starts_beyond_a_saddle_does_not_stay_there(text, others, first):
    """Overlaps of 0.16, short of 1/2, and of 0.64: no saddle on either side."""
    ds = mids.simulate(text, dim=100, initial=np.diag([first, 0.1])).isel(run=[0])
    for found in (mids.saddles(ds), mids.theory(ds)):
        assert found.saddle.values[found.visited.values.ravel()].tolist() == others
    compared = mids.compare(ds)
    for name in ("escape_time", "escape_time_theory", "loss_theory"):
        assert np.isnan(compared[name][0, 0, 0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "options"),
    [
        (COUPLED[0], {}),
        ("h1(z1) + h1(z1)*h2(z2) + h2(z2)*h3(z3)", {"student_rank": 5}),
        ("parity(3)", {"student_rank": 5}),
        ("staircase(4)", {}),
        ("h1(z1) + h2(z1) + 1/2*h1(z1)*h1(z2)", {}),
        ("h3(z1)", {"flow": "planted"}),
    ],
)
def test_theory_and_data_agree_where_runs_start_beyond_saddles(text, options):
    target = mids.Target.parse(text).normalize()
    for turned, runs in ((target, 60), (target.rotate(rotation(target.rank, 3)), 20)):
        ds = mids.simulate(turned, dim=[30, 100], runs=runs, **options)
        ds = ds[["recipe", "crossing_time", "gram0", "status", *({"initial"} & set(ds))]].compute()
        begun = (ds.crossing_time.sel(level=0.1) == 0).rename(direction="saddle").values
        compared = mids.compare(ds)
        visited = (compared.escape_time.notnull() | compared.censored).values
        expected = compared.escape_time_theory.notnull().values
        assert begun.any() and not visited[begun].any() and not expected[begun].any()
        np.testing.assert_array_equal(visited[..., 0], expected[..., 0])
        assert np.mean(visited == expected, axis=(1, 2))[1] > 0.95


@pytest.mark.parametrize("flow", ["two-timescale", "planted"])
def test_theory_does_not_depend_on_the_order_of_dims(flow):
    text = COUPLED[0] if flow == "two-timescale" else "h3(z1)"
    ds = mids.simulate(text, dim=[1e2, 1e4], runs=2, flow=flow).compute()
    turned = ds.transpose("axis", ...)
    expected = mids.theory(ds)
    xr.testing.assert_identical(mids.theory(turned).transpose(*expected.dims), expected)
    with pytest.raises(DatasetError, match="rename"):
        mids.theory(ds.rename(axis="row"))


def test_the_summary_is_a_frame():
    ds = mids.simulate("h2(z1)", dim=1e3, runs=5).compute()
    table = summary(mids.compare(ds))
    assert isinstance(table, pd.DataFrame)
    counts = ["dim", "saddle", "runs", "censored", "trapped", "unmatched", "failed"]
    assert table.loc[0, counts].tolist() == [1000, 0, 5, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mids.plateaus(curve(GRID), var="accuracy"), DatasetError, "no variable"),
        (lambda: mids.plateaus(curve(GRID, GRID[::-1])), DatasetError, "increasing"),
        (lambda: mids.plateaus(curve(GRID.astype(str))), DatasetError, r"astype\(float\)"),
        (lambda: mids.plateaus(curve(GRID + 0j)), DatasetError, "real numbers"),
        (
            lambda: mids.plateaus(curve(GRID).expand_dims(run=2).assign_coords(BY_RUN)),
            DatasetError,
            "the same for all runs",
        ),
        (lambda: mids.plateaus(curve(GRID), tolerance=0), InputError, "tolerance"),
        (lambda: mids.plateaus(curve(GRID), max_plateaus=0), InputError, "max_plateaus"),
        (
            lambda: mids.plateaus(curve(GRID).rename(time="epoch")),
            DatasetError,
            "rename",
        ),
        (lambda: mids.saddles(xr.Dataset()), DatasetError, "'loss'"),
        (lambda: mids.saddles(runs().isel(level=[0])), DatasetError, r"levels \[0.1\]"),
        (lambda: mids.compare(runs().isel(level=[0, 1])), DatasetError, r"levels \[0.1, 0.5\]"),
        (lambda: mids.saddles(runs().isel(direction=0)), DatasetError, "dimension 'direction'"),
        (lambda: mids.saddles(runs().isel(level=0)), DatasetError, "levels 0.1"),
        (lambda: mids.scaling(runs().isel(direction=[0])), DatasetError, "all 2 directions"),
        (lambda: mids.plateaus(runs().isel(run=[])), DatasetError, "no run"),
        (lambda: mids.scaling(runs().isel(run=[])), DatasetError, "at least one run"),
        (lambda: mids.scaling(runs().drop_vars("dim")), DatasetError, "coordinate 'dim'"),
        (lambda: summary(mids.compare(runs().rename(run="seed"))), DatasetError, "'seed'"),
        (lambda: mids.theory(curve(GRID)), DatasetError, "gram0"),
        (
            lambda: mids.compare(
                mids.simulate("h1(z1)", dim=100, runs=1).drop_vars("crossing_time")
            ),
            DatasetError,
            "crossing_time",
        ),
    ],
)
def test_errors_say_what_is_missing(call, error, message):
    with pytest.raises(error, match=message):
        call()
