"""The planted flow of several directions: predicted escapes beside simulated ones, run by run."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import ortho_group

import mids
from mids.analysis.known_frame import KnownFrame, KnownLink
from mids.flows.initial import draw_runs
from mids.targets.averaging import planted_slope


def turned(text, seed=1):
    target = mids.Target.parse(text)
    return target.rotate(ortho_group.rvs(target.rank, random_state=seed))


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        "h1(z1) + h1(z1)*h3(z2)",
        "h3(z1) + h4(z2)",
        "h2(z1) + h2(z2)",  # a family of saddles
        turned("h3(z1) + h3(z2)"),
        turned("h1(z1) + 0.7*h2(z1)*h1(z2) + 0.5*h2(z2)"),
    ],
    ids=str,
)
@pytest.mark.parametrize("dim", [1e2, 1e6])
def test_every_run_escapes_when_it_should_or_not_at_all(target, dim):
    ds = mids.simulate(target, dim=dim, runs=8, flow="planted").compute()
    found = ds.mi.theory()
    measured = ds.crossing_time.sel(level=0.5, drop=True).rename(direction="saddle")
    known = found.escape_time.notnull()
    assert (found.visited <= known).all()
    ends = np.isfinite(found.escape_time)
    assert (np.isfinite(measured) == ends).where(known, True).all()
    ratio = (measured / found.escape_time).where(ends)
    assert abs(ratio - 1).max() < 1e-3
    trapped = np.isposinf(found.escape_time).any("saddle")
    assert (trapped == (ds.status == 2)).where(~found.reason.any("saddle") | trapped, True).all()


def test_escape_times_are_those_of_another_integrator():
    """LSODA on the whole equation, which knows nothing of plateaus."""
    target = turned("h1(z1) + 0.7*h2(z1)*h1(z2) + 0.5*h2(z2)")
    starts = draw_runs(2, 2, 1000, range(3), 4)
    found = KnownFrame(target).predict(starts)

    def slope(_, flat):
        return planted_slope(target, flat.reshape(2, 2))[0].ravel()

    for start, rank, times in zip(starts, found.rank, found.escape_time, strict=True):
        path = solve_ivp(
            slope, (0, 60), start.ravel(), "LSODA", rtol=1e-9, atol=1e-12, dense_output=True
        )
        grid = np.linspace(0, 60, 60_001)
        overlap = np.linalg.svd(path.sol(grid).T.reshape(-1, 2, 2))[1] ** 2
        for k, time in zip(rank, times, strict=True):
            if np.isfinite(time):
                first = grid[np.argmax(overlap[:, int(k)] >= 0.5)]
                assert time == pytest.approx(first, abs=2e-3)


def test_one_direction_is_the_quadrature():
    target = mids.Target.parse("h3(z1) + 0.3*h4(z1)")
    starts = draw_runs(1, 1, 10**5, range(12), 0)
    one, other = (kind(target).predict(starts).escape_time for kind in (KnownLink, KnownFrame))
    np.testing.assert_allclose(other, one, rtol=1e-4)
    assert np.isinf(one).any() and np.isfinite(one).any()


def test_the_start_decides_what_is_learned():
    """Entries of M race by m' = 3 m^2: the largest is learned at the time 1 / (3 m)."""
    M = np.array([[[-3e-4, 5e-4], [-2e-4, -1e-4]], [[-3e-4, -5e-4], [-2e-4, -1e-4]]])
    found = KnownFrame(mids.Target.parse("h3(z1) + h3(z2)")).predict(M)
    assert found.escape_time[0, 0] == pytest.approx(1 / (3 * 5e-4), rel=1e-2)
    assert found.learned[0, 0] == 0
    assert np.isposinf([found.escape_time[0, 1], found.escape_time[1, 0]]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "powers"),
    [("h1(z1) + h1(z1)*h3(z2)", [0.0, 0.5]), ("h3(z1) + h1(z1)*h4(z2)", [0.5, 1.0])],
)
def test_powers_of_d_are_those_of_the_table(text, powers):
    table = mids.exponents(text).power.sel(scale="planted, time")
    np.testing.assert_allclose(table, powers)
    start = np.array([[1.0, 0.3], [0.2, 0.8]])
    dims = np.array([1e5, 1e7])
    ds = mids.simulate(
        text, dim=dims, runs=1, flow="planted", initial=start / dims[:, None, None, None] ** 0.5
    )
    for times in (
        ds.crossing_time.sel(level=0.5).squeeze("run"),
        ds.mi.theory().escape_time.squeeze("run"),
    ):
        slopes = np.diff(np.log(times.values), axis=0)[0] / np.log(100)
        np.testing.assert_allclose(slopes, powers, atol=0.01)
