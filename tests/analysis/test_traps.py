"""Trap statistics, and the theory of the planted flow."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from scipy.integrate import solve_ivp
from scipy.stats import binomtest

import mids
from mids.analysis.known_frame import KnownLink, order
from mids.errors import DatasetError, InputError


def refuse(*args, **kwargs):
    raise AssertionError("something was computed")


def ended(*counts):
    status = np.repeat(np.arange(4, dtype=np.int8), counts)
    return xr.Dataset({"status": (("dim", "run"), status[None])}, {"dim": [100]})


@pytest.mark.parametrize("counts", [(5, 0, 7, 0), (5, 2, 7, 1), (0, 0, 9, 0), (9, 0, 0, 0)])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_intervals_are_the_exact_binomial_ones(counts, confidence):
    found = mids.traps(ended(*counts), confidence=confidence)
    names = ("converged", "censored", "trapped", "failed")
    assert tuple(int(found[name][0]) for name in names) == counts
    test = binomtest(counts[2], counts[0] + counts[2])
    low, high = test.proportion_ci(confidence, method="exact")
    assert found.low.item() == pytest.approx(low, rel=1e-12)
    assert found.high.item() == pytest.approx(high, rel=1e-12)
    assert found.probability.item() == pytest.approx(test.statistic)


def test_undecided_runs_say_nothing():
    found = mids.traps(ended(0, 4, 0, 2))
    assert np.isnan(found.probability.item())
    assert (found.low.item(), found.high.item()) == (0.0, 1.0)


def test_nothing_is_computed_before_it_is_asked_for():
    ds = mids.simulate("h3(z1)", dim=[100, 1e4], runs=20, flow="planted")
    with dask.config.set(scheduler=refuse):
        found = ds.mi.traps(confidence=0.9)
        assert set(found.probability.dims) == {"dim"}
    assert ((found.low < 0.5) & (found.high > 0.5)).all()


def test_wrong_arguments_are_named():
    with pytest.raises(DatasetError, match="needs the variable 'status'"):
        mids.traps(xr.Dataset())
    with pytest.raises(DatasetError, match="with the dimension 'run'"):
        mids.traps(ended(3, 0, 1, 0).isel(run=0))
    with pytest.raises(InputError, match="confidence"):
        mids.traps(ended(3, 0, 1, 0), confidence=1.5)


# -- theory of one direction --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["h1(z1)", "h2(z1)", "h3(z1)", "h4(z1)", "h2(z1) + h3(z1)", "h1(z1) - 2*h2(z1)", "1+h5(z1)"],
)
def test_theory_holds_run_by_run(text):
    ds = mids.simulate(text, dim=[1e2, 1e5], runs=30, flow="planted").compute()
    theory = ds.mi.theory()
    assert (theory.method.where(theory.visited, 1) == 1).all()  # a quadrature
    time = theory.escape_time.isel(saddle=0)
    beyond = ds.crossing_time.sel(direction=0, level=0.1) == 0
    measured = ds.crossing_time.sel(direction=0, level=0.5).where(~beyond)
    np.testing.assert_allclose(measured, time.where(np.isfinite(time)), rtol=1e-7)
    np.testing.assert_array_equal(theory.n_saddles == 0, beyond)
    limit = ds.mi.target.norm**2 - (text[0] == "1")
    visits = np.nonzero(~beyond.values)
    np.testing.assert_allclose(theory.saddle_loss.isel(saddle=0).values[visits], limit)
    first = ds.loss.isel(time=0).values[visits]
    np.testing.assert_allclose(theory.loss.isel(saddle=0).values[visits], first, atol=1e-8)


@pytest.mark.parametrize("start", [-0.7, -0.3, -0.05, 0.05, 0.3, 0.69])
def test_escape_times_through_zero_and_up_to_critical_points(start):
    target = mids.Target({(1,): 0.5, (2,): 0.8, (3,): 0.3})

    def slope(_, m):
        return (0.25 + 2 * 0.64 * m + 3 * 0.09 * m**2) * (1 - m**2)

    def reached(_, m):
        return m[0] ** 2 - 0.5

    reached.terminal = True
    found = solve_ivp(slope, (0, 1e3), [start], "DOP853", rtol=1e-11, atol=1e-13, events=reached)
    expected = found.t_events[0][0] if len(found.t_events[0]) else np.inf
    assert KnownLink(target).escape_time(start) == pytest.approx(expected, rel=1e-8)


@pytest.mark.slow
def test_compare_and_scaling_know_the_planted_flow():
    ds = mids.simulate("h4(z1)", dim=[1e3, 1e4, 1e5], runs=100, flow="planted")
    comparison = ds.mi.compare().compute()
    assert comparison.ratio.notnull().mean() > 0.99
    np.testing.assert_allclose(comparison.ratio.fillna(1), 1, rtol=1e-7)
    fit = ds.mi.scaling(resamples=200).compute()
    assert fit.rate.item() == "d" and fit.expected.item() == 1.0
    assert fit.low.item() < 1.0 < fit.high.item()
    assert [order(s)[0] for s in (1, 2, 3, 4, 5)] == [0, 0, 0.5, 1, 1.5]
