"""The joint flow: its limit, its equations, its losses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import ortho_group

import mids
from mids.errors import InputError
from mids.flows import HermiteKernel, Joint, TwoTimescale
from mids.simulation.simulate import differences
from mids.targets.averaging import average
from mids.targets.basis import tensor_coefficients

LADDERS = (
    "h3(z1)",
    "h1(z1) + h1(z1)*h1(z2)",
    "h1(z1) + h1(z1)*h3(z2)",
    "h2(z1)*h1(z2)",
    "h1(z1) + h1(z1)*h2(z2) + h2(z2)*h2(z3)",
)


def pair(target, epsilon, **arguments):
    """Crossing times relative to the two-timescale flow from the same starts, minus 1."""
    given = {"dim": [1e2, 1e4], "runs": 4} | arguments
    flow = arguments.pop("flow", TwoTimescale())
    given.pop("flow", None)
    fast = mids.simulate(target, flow=flow, **given).compute()
    slow = mids.simulate(
        target,
        flow=Joint(epsilon=epsilon, ridge=flow.ridge, kernel=flow.kernel),
        time=fast.time.values,
        **given,
    ).compute()
    np.testing.assert_array_equal(fast.gram0, slow.gram0)
    began = fast.crossing_time == 0
    assert (began == (slow.crossing_time == 0)).all()
    return slow, fast, (slow.crossing_time / fast.crossing_time.where(~began, 1) - ~began).values


def orders(text, epsilons, **arguments):
    """Order in epsilon at which crossing times approach those of the two-timescale flow."""
    errors = [np.abs(pair(text, epsilon, **arguments)[2]).max() for epsilon in epsilons]
    return -np.diff(np.log(errors)) / np.log(4)


# All ladders, smaller epsilon and more runs: tests/verification/slow.py.
@pytest.mark.parametrize("text", LADDERS[2::2])
@pytest.mark.slow
def test_crossing_times_at_a_thousandth_are_within_a_percent(text):
    slow, fast, relative = pair(text, 1e-3, dim=100, runs=2)
    assert (slow.status == 0).all() and (fast.status == 0).all()
    assert np.abs(relative).max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("text", LADDERS[:2])
def test_the_two_timescale_flow_is_the_limit_to_first_order(text):
    found = orders(text, (4e-3, 1e-3), dim=50, runs=1)
    np.testing.assert_allclose(found, 1, atol=0.05)


@pytest.mark.slow
def test_the_limit_with_a_ridge_is_the_flow_with_that_ridge():
    flow = TwoTimescale(ridge=0.3, kernel=HermiteKernel(exponential=0.5))
    slow, fast, relative = pair(LADDERS[1], 1e-4, flow=flow)
    assert np.abs(relative).max() < 1e-3
    for name in ("loss", "risk", "energy"):
        np.testing.assert_allclose(slow[name], fast[name], atol=1e-3)
    assert (slow.loss - slow.risk).min() > 0


def test_slow_links_are_far_from_the_limit():
    _, _, relative = pair(LADDERS[1], 1.0, dim=1e3)
    assert np.abs(relative).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("text", ["h1(z1)", "h2(z1)", "z1*z2", "10*h1(z1)"])
@pytest.mark.parametrize("epsilon", [0.01, 1.0, 100.0, 1e4])
def test_the_default_grid_covers_the_last_escape_of_slow_links(text, epsilon):
    flow = Joint(epsilon=epsilon, link="zero")
    ds = mids.simulate(text, dim=1e3, runs=10, flow=flow, rtol=1e-5).compute()
    assert (ds.status == 0).all()


def test_runs_that_end_without_numbers_have_failed(monkeypatch):
    monkeypatch.setattr("mids.flows.engine.array_integrator.MAX_STEPS", 200)
    ds = mids.simulate("h1(z1)", dim=[100, 1e8], runs=2, flow="joint").compute()
    np.testing.assert_array_equal(np.isnan(ds.loss).any("time"), ds.status == 3)
    assert not ds.status[0].any() and ds.status[1].all()


@pytest.mark.parametrize("link", ["fitted", "zero"])
@pytest.mark.parametrize("students", [1, 2, 3])
def test_the_flow_is_that_of_full_tensors(link, students):
    """Frame and link by another integrator, from the loss and averages of full tensors."""
    target = mids.Target.parse("h1(z1) + 0.8*h1(z1)*h2(z2) + 0.3*h2(z2)")
    epsilon, ridge = 0.2, 0.1
    M0 = mids.flows.initial.draw_runs(2, students, 12, [3], 0)[0]
    shapes = [(students,) * k for k in range(target.degree + 1)]
    present = [bool(np.any(tensor)) for tensor in target.tensors]

    def parts(y):
        M, rest, tensors = y[: M0.size].reshape(M0.shape), y[M0.size :], []
        for shape in shapes:
            size = int(np.prod(shape))
            tensors.append(rest[:size].reshape(shape))
            rest = rest[size:]
        return M, tensors

    def slope(_, y):
        M, S = parts(y)
        averaged = average(target.tensors, M)
        units = np.eye(M.size).reshape(-1, *M.shape) * 1e-5

        def inner(M):
            return sum(np.sum(s * a) for s, a in zip(S, average(target.tensors, M), strict=True))

        D = np.array([inner(M + e) - inner(M - e) for e in units]).reshape(M.shape) / 2e-5
        velocity = [D - M @ (M.T @ D + D.T @ M) / 2]
        velocity += [(a - (1 + ridge) * s) / epsilon for a, s in zip(averaged, S, strict=True)]
        return np.concatenate([np.ravel(v) for v in velocity])

    fitted = [a / (1 + ridge) for a in average(target.tensors, M0)]
    start = [s if link == "fitted" else 0 * s for s in fitted]
    y0 = np.concatenate([M0.ravel(), *[np.ravel(s) for s in start]])
    time = np.linspace(0, 6, 13)
    found = solve_ivp(slope, (0, 6), y0, "DOP853", time, rtol=1e-9, atol=1e-12).y.T
    flow = Joint(epsilon=epsilon, link=link, ridge=ridge)
    ds = mids.simulate(target, dim=12, runs=1, flow=flow, initial=M0, time=time).compute()
    for k, y in enumerate(found):
        M, S = parts(y)
        averaged = average(target.tensors, M)
        sizes = np.zeros(2)
        sizes[: min(M.shape)] = np.linalg.svd(M)[1] ** 2
        np.testing.assert_allclose(ds.overlap[0, 0, k], sizes, atol=1e-7)
        risk = 0.5 * target.norm**2 + sum(
            0.5 * np.sum(s**2) - np.sum(s * a) for s, a in zip(S, averaged, strict=True)
        )
        penalty = sum(
            0.5 * ridge * np.sum(s**2) for s, there in zip(S, present, strict=True) if there
        )
        assert ds.risk[0, 0, k].item() == pytest.approx(risk, abs=1e-7)
        assert ds.loss[0, 0, k].item() == pytest.approx(risk + penalty, abs=1e-7)
        modes, own = tensor_coefficients(average(S, M.T))
        known = dict(zip(map(tuple, modes.tolist()), own, strict=True))
        expected = [known[tuple(beta)] for beta in target.modes.tolist()]
        np.testing.assert_allclose(ds.link[0, 0, k], expected, atol=1e-7)


@pytest.mark.slow
def test_a_link_from_zero_starts_at_the_loss_of_nothing_and_is_fitted_at_once():
    target = mids.Target.parse(LADDERS[1])
    time = np.concatenate([[0], np.geomspace(1e-5, 100, 60)])
    arguments = {"dim": 100, "runs": 3, "time": time}
    zero = mids.simulate(target, flow=Joint(epsilon=1e-3, link="zero"), **arguments).compute()
    fitted = mids.simulate(target, flow=Joint(epsilon=1e-3), **arguments).compute()
    np.testing.assert_allclose(zero.loss.isel(time=0), 0.5 * target.norm**2, rtol=1e-12)
    later = {"time": slice(0.05, None)}
    np.testing.assert_allclose(zero.loss.sel(later), fitted.loss.sel(later), atol=5e-3)


@pytest.mark.slow
def test_the_flow_commutes_with_rotations_of_the_link():
    target = mids.Target.parse(LADDERS[2])
    Q = ortho_group.rvs(2, random_state=1)
    start = mids.flows.initial.draw_runs(2, 2, 10**3, range(3), 0)
    arguments = {"dim": 1e3, "runs": 3, "flow": Joint(epsilon=0.1)}
    one = mids.simulate(target, initial=start, **arguments).compute()
    two = mids.simulate(
        target.rotate(Q), initial=Q @ start, time=one.time.values, **arguments
    ).compute()
    np.testing.assert_allclose(two.crossing_time, one.crossing_time, rtol=1e-6)


@pytest.mark.slow
def test_numbers_do_not_depend_on_blocks_and_are_replayed():
    sweep = {"target": LADDERS[1], "dim": [50, 500], "runs": 3, "flow": Joint(epsilon=0.2)}
    target = sweep.pop("target")
    ds = mids.simulate(target, chunks=2, **sweep).compute()
    mids.validate(ds)
    assert not differences(ds, mids.replay(ds))
    assert not differences(ds, mids.simulate(target, chunks=3, **sweep))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epsilon": 0}, "epsilon must be a finite number above 0 and at most"),
        ({"epsilon": np.inf}, "epsilon must be a finite number"),
        ({"epsilon": 1e300}, "at most 1e.06"),
        ({"link": "best"}, "allowed: 'fitted', 'zero'"),
        ({"ridge": -1}, "ridge"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises(InputError, match=message):
        Joint(**parameters)


def test_links_that_are_too_large_are_refused_before_any_work():
    target = mids.Target({(1, 0, 0, 0): 1.0, (4, 2, 2, 4): 1.0})
    with pytest.raises(InputError, match="has 459 Hermite coefficients"):
        mids.simulate(target, dim=1e4, flow="joint")
