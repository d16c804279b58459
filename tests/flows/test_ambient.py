"""The ambient flow, against the flow of the correlation matrix that it reduces to."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import mids
from mids.errors import InputError
from mids.flows import Ambient, HermiteKernel, TwoTimescale
from mids.flows.ambient import _follow
from mids.flows.initial import draw_runs, frame, stream
from mids.simulation.simulate import differences
from mids.targets.averaging import gradient

CASES = {
    "two leaps": ("h1(z1) + h1(z1)*h1(z2)", [20, 1000], {}),
    "one direction": ("h2(z1)", [1000], {}),
    "a high exponent": ("h3(z1)", [1000], {}),
    "two at once": ("h2(z1)*h1(z2)", [100], {}),
    "not diagonal": ("h1(z1) + h2(z2) + 0.5*h1(z1)*h1(z2)", [100, 1000], {}),
    "few students": ("h1(z1) + h1(z1)*h1(z2)", [1000], {"student_rank": 1}),
    "many students": ("h1(z1) + h1(z1)*h1(z2)", [300], {"student_rank": 4}),
    "the largest": ("h1(z1) + h1(z1)*h1(z2)", [10_000], {"runs": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_reduction_is_right(case):
    text, dims, arguments = CASES[case]
    arguments = {"runs": 2, "rtol": 1e-8, "seed": 3} | arguments
    reduced = mids.simulate(text, dim=dims, **arguments).compute()
    last = np.nanmax(reduced.crossing_time.values) * 1.5
    time = np.concatenate([[0], np.geomspace(1e-2, last, 40)])
    reduced = mids.simulate(text, dim=dims, time=time, **arguments).compute()
    full = mids.simulate(text, dim=dims, flow="ambient", time=time, **arguments).compute()
    np.testing.assert_array_equal(full.gram0, reduced.gram0)
    np.testing.assert_allclose(full.crossing_time, reduced.crossing_time, rtol=1e-6)
    for name in ("overlap", "energy", "loss"):
        np.testing.assert_allclose(full[name], reduced[name], atol=1e-6)
    np.testing.assert_array_equal(full.status, reduced.status)


def test_ridge_weighs_the_same_way():
    arguments = {"dim": 200, "runs": 2}
    parameters = {"ridge": 0.4, "kernel": HermiteKernel(polynomial=1)}
    reduced = mids.simulate(CASES["two leaps"][0], flow=TwoTimescale(**parameters), **arguments)
    full = mids.simulate(
        CASES["two leaps"][0], flow=Ambient(**parameters), time=reduced.time.values, **arguments
    ).compute()
    np.testing.assert_allclose(full.crossing_time, reduced.crossing_time, rtol=1e-6)
    np.testing.assert_allclose(full.risk, reduced.risk, atol=1e-6)
    np.testing.assert_allclose(full.loss, reduced.loss, atol=1e-6)


@pytest.mark.parametrize("students", [1, 2, 3])
def test_the_correlation_itself_follows_the_reduced_system(students):
    """M(t), not only G(t): M' = (I - M M^T) H M by another integrator."""
    target = mids.Target.parse("h1(z1) + h2(z2) + 0.5*h1(z1)*h1(z2)")
    M0 = draw_runs(2, students, 50, [1], 0)[0]
    time = np.linspace(0, 8, 17)

    def slope(_, y):
        M = y.reshape(M0.shape)
        return ((np.eye(2) - M @ M.T) @ gradient(target, M @ M.T) @ M).ravel()

    expected = solve_ivp(slope, (0, 8), M0.ravel(), "DOP853", time, rtol=1e-10, atol=1e-12).y.T
    path = np.full((len(time), *M0.shape), np.nan)
    start = frame(M0, 50, stream(0, 50, 1))
    crossing, counts = np.full((2, 3), np.nan), np.zeros(2, dtype=int)
    assert _follow(target, start, time, 1e-8, path, crossing, counts)
    np.testing.assert_allclose(path, expected.reshape(path.shape), atol=1e-7)


@pytest.mark.slow
def test_numbers_do_not_depend_on_blocks_and_are_replayed():
    sweep = {"dim": [20, 500], "runs": 3, "flow": "ambient", "time": [0, 1, 3, 10, 30]}
    ds = mids.simulate(CASES["two leaps"][0], chunks=1, **sweep).compute()
    mids.validate(ds)
    assert not differences(ds, mids.replay(ds))
    assert not differences(ds, mids.simulate(CASES["two leaps"][0], chunks=3, **sweep))


def test_the_frame_outside_the_target_does_not_matter():
    """Another seed completes the same M(0) otherwise; the crossings stay."""
    M = draw_runs(1, 1, 60, range(2), 0)
    one, two = (
        mids.simulate("h2(z1)", dim=60, runs=2, flow="ambient", initial=M, seed=seed).compute()
        for seed in (1, 2)
    )
    assert (one.crossing_time != two.crossing_time).any()
    np.testing.assert_allclose(one.crossing_time, two.crossing_time, rtol=1e-7)


@pytest.mark.parametrize("ridge", [0.0, 1e-17])
def test_losses_do_not_fall_below_zero(ridge):
    angle = np.linspace(0.1, 1.5, 8)
    for c, s in zip(np.cos(angle), np.sin(angle), strict=True):
        target = mids.Target.parse("h1(z1) + h1(z1)*h3(z2)").rotate([[c, -s], [s, c]]).normalize()
        flow = Ambient(ridge=ridge)
        ds = mids.simulate(
            target, dim=6, runs=1, flow=flow, initial=np.eye(2), time=[0.0, 1.0]
        ).compute()
        assert (ds.loss >= 0).all()


def test_large_dimensions_are_refused_before_any_work():
    with pytest.raises(InputError, match="'ambient' takes dim up to 20000, got 1000000"):
        mids.simulate("h1(z1)", dim=[100, 1e6], flow="ambient")


def test_runs_that_take_too_many_steps_fail_and_say_so(monkeypatch):
    monkeypatch.setattr("mids.flows.ambient.MAX_STEPS", 20)
    ds = mids.simulate("h2(z1)", dim=1000, runs=1, flow="ambient").compute()
    assert (ds.status == 3).all() and ds.n_steps.item() == 20
    assert np.isnan(ds.loss.isel(time=-1)).all() and np.isfinite(ds.loss.isel(time=0)).all()


def test_a_student_of_low_rank_stops_where_nothing_is_left_to_learn():
    times = {}
    for flow in ("ambient", "two-timescale"):
        ds = mids.simulate(
            "h1(z1) + h2(z2)", dim=60, runs=2, student_rank=1, flow=flow, time=[0.0, 1.0, 6.5e7]
        ).compute()
        assert (ds.status == 0).all()
        times[flow] = ds.crossing_time.values[0, :, 0]
    np.testing.assert_allclose(times["ambient"], times["two-timescale"], rtol=1e-6)
