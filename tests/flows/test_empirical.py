"""Gradient descent on a fixed set of samples: its gradient, its limit, how runs end."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.sparse.linalg import ArpackNoConvergence

import mids
from mids.errors import InputError
from mids.flows import Empirical
from mids.flows.empirical import FLAT, Descent
from mids.flows.engine.normals import samples
from mids.flows.initial import draw, frame
from mids.flows.observables import CENSORED, CONVERGED, TRAPPED
from mids.simulation.simulate import differences
from mids.targets.basis import hermite_values

LADDER = mids.Target.parse("h1(z1) + h1(z1)*h1(z2) - 0.5*h2(z2)")
KEY = np.array([3, 4], np.uint64)
LINKS = {
    "hermite": {"ridge": 0.02, "kernel": {"polynomial": 1}},
    "random": {"ridge": 0.02, "readout": "random-features", "features": 12},
}


class Problem:
    """A set of samples and a run on it, and the same loss written for NumPy."""

    def __init__(self, flow, dim, student_rank=2, seed=0, target=LADDER, M=None):
        rng = np.random.default_rng(seed)
        self.flow, self.dim = flow, dim
        self.features = flow.link.build(target, student_rank, rng)
        M = draw(target.rank, student_rank, dim, rng) if M is None else np.array(M)
        self.run = Descent(flow, self.features, target, KEY, frame(M, dim, rng).T)
        self.x, self.labels = self.run.x.astype(float), self.run.labels

    @property
    def W(self):
        return self.run.frame.T.copy()

    def fitted(self, W):
        """Values of the fitted link, its partial derivatives, and the penalty."""
        z, features = self.x @ W, self.features
        if len(features.phases):
            angles = z @ features.frequencies.T + features.phases
            amplitude = np.sqrt(2 / len(features.phases))
            values = amplitude * np.cos(angles)
            primes = -amplitude * np.sin(angles)[:, None] * features.frequencies.T
        else:
            single = hermite_values(z, int(features.exponents.max()))
            picked = single[:, np.arange(z.shape[1]), features.exponents]
            values = picked.prod(axis=-1)
            primes = np.zeros((len(z), z.shape[1], len(features.penalty)))
            for i in range(z.shape[1]):
                lower = np.maximum(features.exponents - np.eye(z.shape[1], dtype=int)[i], 0)
                roots = np.sqrt(features.exponents[:, i])
                primes[:, i] = roots * single[:, np.arange(z.shape[1]), lower].prod(axis=-1)
        penalty = self.flow.ridge * np.diag(features.penalty)
        gram = values.T @ values / len(z) + penalty
        link = np.linalg.solve(gram, values.T @ self.labels / len(z))
        return values @ link, primes @ link, 0.5 * link @ penalty @ link

    def profiled(self, W):
        """Minimum over links of the empirical loss."""
        values, _, penalty = self.fitted(W)
        return 0.5 * np.square(values - self.labels).mean() + penalty

    def slope(self, W):
        """Minus its gradient on the Grassmannian."""
        values, primes, _ = self.fitted(W)
        gradient = self.x.T @ ((values - self.labels)[:, None] * primes) / len(self.x)
        return W @ (W.T @ gradient) - gradient


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("student_rank", [1, 2, 3])
def test_the_direction_is_down_the_gradient_of_the_profiled_loss(kind, student_rank):
    problem = Problem(Empirical(n=70, noise=0.3, **LINKS[kind]), 9, student_rank)
    W = problem.W
    assert problem.run.loss() == pytest.approx(problem.profiled(W), rel=1e-12)
    gradient = np.zeros_like(W)
    for k, i in np.ndindex(*W.shape):
        shift = np.zeros_like(W)
        shift[k, i] = 1e-5
        gradient[k, i] = (problem.profiled(W + shift) - problem.profiled(W - shift)) / 2e-5
    wanted = (W @ W.T - np.eye(9)) @ gradient
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(problem.run._slope.T, wanted, atol=2e-5 * scale)
    np.testing.assert_allclose(problem.slope(W), wanted, atol=2e-5 * scale)
    if kind == "hermite":  # the loss depends on the span alone
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(student_rank,) * 2))[0]
        assert problem.profiled(W @ turn) == pytest.approx(problem.profiled(W), rel=1e-10)


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("student_rank", [1, 2])
def test_the_flow_is_that_of_a_general_solver(kind, student_rank):
    """Frames, losses and crossing times against SciPy's, with errors that follow `accuracy`."""
    times, dim = np.array([0.3, 1.0, 3.0, 8.0]), 9
    problem = Problem(Empirical(n=300, noise=0.2, **LINKS[kind]), dim, student_rank)
    shape = problem.W.shape
    exact = solve_ivp(
        lambda _, y: problem.slope(y.reshape(shape)).ravel(),
        (0, times[-1]),
        problem.W.ravel(),
        method="DOP853",
        rtol=1e-10,
        atol=1e-12,
        dense_output=True,
    ).sol
    errors = []
    for accuracy in (3e-2, 3e-3, 3e-4):
        flow = Empirical(n=300, noise=0.2, accuracy=accuracy, **LINKS[kind])
        found, worst = Problem(flow, dim, student_rank), 0.0
        for time in times:
            found.run.follow(time)
            W = exact(time).reshape(shape)
            assert found.run.loss() == pytest.approx(problem.profiled(W), abs=accuracy)
            worst = max(worst, np.linalg.norm(found.W @ found.W.T - W @ W.T))
        errors.append(worst)
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 3e-3 and errors[2] < 3e-4
    crossing = found.run.crossing
    for direction, level in zip(*np.nonzero(crossing > 0), strict=True):
        M = exact(crossing[direction, level]).reshape(shape)[:2]
        overlaps = np.linalg.svd(M, compute_uv=False) ** 2
        assert overlaps[direction] == pytest.approx((0.1, 0.5, 0.9)[level], abs=2e-3)


@pytest.mark.parametrize("kind", LINKS)
def test_the_loss_falls_until_the_gradient_vanishes(kind):
    run = Problem(Empirical(n=300, noise=0.2, **LINKS[kind]), 12).run
    losses = [run.loss()]
    for stop in range(1, 2000):
        run.follow(stop)
        losses.append(run.loss())
        if run.over:
            break
    assert run.over and np.linalg.norm(run._slope) <= 1e-6
    assert (np.diff(losses) <= 1e-14).all()
    assert np.abs(run.frame @ run.frame.T - np.eye(2)).max() < 1e-12
    steps = run.steps
    run.follow(stop + 5)
    assert run.steps == steps


@pytest.mark.slow
@pytest.mark.parametrize("student_rank", [1, 2, 3])
def test_the_lowest_curvature_is_that_of_the_hessian(student_rank):
    """At the start, where it is negative, and at the end, where it is not, by differences."""
    problem = Problem(Empirical(n=400, noise=0.2, ridge=0.01), 8, student_rank)
    for stop in (0.0, 3000.0):
        problem.run.follow(stop)
        W = problem.W
        normal = np.linalg.svd(W.T)[2][student_rank:].T
        basis = [
            np.outer(normal[:, k], row)
            for k in range(8 - student_rank)
            for row in np.eye(student_rank)
        ]
        changes = [problem.slope(W + 1e-5 * a) - problem.slope(W - 1e-5 * a) for a in basis]
        hessian = -np.einsum("aij,bij->ab", changes, basis) / 2e-5
        lowest = np.linalg.eigvalsh(hessian + hessian.T)[0] / 2
        assert problem.run.lowest_curvature() == pytest.approx(lowest, abs=1e-4)
        assert (lowest < -0.01) == (stop == 0)
        np.testing.assert_allclose(problem.run._slope.T, problem.slope(W), atol=1e-9)


@pytest.fixture
def no_convergence(monkeypatch):
    tried = []

    def eigsh(operator, **settings):
        tried.append(settings["ncv"])
        raise ArpackNoConvergence("none", np.zeros(0), np.zeros((0, 0)))

    monkeypatch.setattr("scipy.sparse.linalg.eigsh", eigsh)
    return tried


@pytest.mark.parametrize("stop", [0.0, 3000.0])
def test_where_lanczos_fails_the_whole_hessian_tells_the_curvature(stop, request):
    problem = Problem(Empirical(n=400, noise=0.2, ridge=0.01), 8)
    problem.run.follow(stop)
    lowest = problem.run.lowest_curvature()
    tried = request.getfixturevalue("no_convergence")
    assert problem.run.lowest_curvature() == pytest.approx(lowest, abs=1e-4)
    assert tried == [16, 16]


@pytest.mark.slow
def test_a_curvature_that_is_not_found_makes_no_minimum(no_convergence, monkeypatch):
    """A run that has not learned stays undecided, though its gradient vanishes."""
    arguments = {"target": "h2(z1)", "dim": 8, "runs": 4, "time": [0, 1000]}
    flow = Empirical(n=25, noise=0.3, ridge=0.01)
    known = empirical(flow, **arguments).status.values
    assert {CONVERGED, TRAPPED} == set(known.ravel().tolist())
    monkeypatch.setattr("mids.flows.empirical.LARGEST", 7)
    assert np.isnan(Problem(flow, 8, 1, target=mids.targets.hermite(2)).run.lowest_curvature())
    unknown = empirical(flow, **arguments).status.values
    np.testing.assert_array_equal(unknown, np.where(known == TRAPPED, CENSORED, known))


def test_larger_sets_begin_with_the_smaller():
    small, large = (Problem(Empirical(n=n, noise=0.5), 9) for n in (30, 100))
    np.testing.assert_array_equal(large.x[:30], small.x)
    np.testing.assert_array_equal(large.labels[:30], small.labels)
    _, noise = samples(KEY, 30, 9, True)
    np.testing.assert_allclose(
        small.labels,
        LADDER(small.x[:, :2]) + 0.5 * noise,
        rtol=1e-12,
    )


def empirical(flow=None, target=LADDER, **arguments):
    given = {"dim": [10, 12], "runs": 3, "time": np.linspace(0, 20, 6)}
    return mids.simulate(target, flow=flow or Empirical(n=500, noise=0.1), **{**given, **arguments})


@pytest.mark.parametrize("readout", ["hermite-ridge", "random-features"])
@pytest.mark.parametrize("student_rank", [1, 2, 3])
def test_datasets_keep_the_schema_and_replay(readout, student_rank):
    few = {"features": 10} if readout == "random-features" else {}
    flow = Empirical(n=200, noise=0.1, readout=readout, **few)
    ds = empirical(flow, student_rank=student_rank, runs=2)
    ds.mi.validate()
    ds = ds.compute()
    assert differences(ds, mids.replay(ds)) == []
    assert ds.mi.flow == flow
    assert differences(ds, empirical(flow, student_rank=student_rank, runs=2, chunks=1)) == []
    assert (ds.loss.diff("time") <= 1e-12).all()
    assert "samples" not in ds.coords


def test_many_samples_follow_the_population_flow():
    arguments = {"dim": 12, "runs": 3, "target": "h1(z1) + h1(z1)*h1(z2)", "time": [0.0, 12.0]}
    ds = empirical(Empirical(n=4000), **arguments).compute()
    population = mids.simulate(**arguments).compute()
    delay = ds.crossing_time - population.crossing_time
    assert np.abs(delay).max() < 0.5 and np.abs(delay).mean() < 0.15
    np.testing.assert_allclose(ds.risk.isel(time=-1), 0, atol=1e-3)


@pytest.mark.slow
def test_more_samples_learn_more_often():
    """None of the runs succeeds with few samples for the dimension, and all do with many."""
    arguments = {"dim": 40, "runs": 2, "target": "h1(z1) + h1(z1)*h1(z2)", "time": [0, 40]}
    learned = [
        float((empirical(Empirical(n=n, noise=0.5), **arguments).status == 0).mean())
        for n in (40, 1600)
    ]
    assert learned == [0, 1]


@pytest.mark.slow
def test_runs_end_trapped_censored_or_converged():
    arguments = {"target": "h2(z1)", "dim": 32, "runs": 6, "time": [0, 2, 400]}
    few = empirical(Empirical(n=100, noise=0.3), **arguments).compute()
    overlap = few.overlap.isel(time=-1, direction=0)
    assert {0, 2} <= set(few.status.values.ravel().tolist())
    assert (overlap.where(few.status == 2, 0) < 0.5).all()
    assert (overlap.where(few.status == 0, 1) > 0.5).all()
    early = empirical(Empirical(n=100, noise=0.3), **{**arguments, "time": [0, 0.5]})
    assert (early.status == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "n", "seeds"), [(16, 50, range(3)), (6, 9, range(7, 11))])
def test_trapped_runs_sit_at_minima_that_are_not_global(dim, n, seeds):
    """Those that are said to have converged elsewhere are lower than what is near the target."""
    target, flow = mids.targets.hermite(2), Empirical(n=n, noise=0.3, ridge=0.01)
    kinds = []
    for seed in seeds:
        problem = Problem(flow, dim, 1, seed, target)
        problem.run.follow(3000.0)
        if problem.run.has_learned():
            continue
        assert problem.run.over
        assert np.linalg.norm(problem.slope(problem.W)) < 2e-6
        assert problem.run.lowest_curvature() >= -FLAT
        near = Problem(flow, dim, 1, seed, target)
        near.run._start(np.eye(dim)[:1])
        near.run.follow(3000.0)
        lower = problem.profiled(near.W) < problem.profiled(problem.W) - 1e-8
        assert problem.run.is_not_global() == lower
        kinds.append(lower)
    assert set(kinds) == ({True} if n == 50 else {True, False})


def test_saddles_are_passed():
    """Where the gradient is small but the Hessian has a negative eigenvalue the run goes on."""
    flow = Empirical(n=4000, noise=0.1, tolerance=0.1)
    problem = Problem(flow, 8, 1, target=mids.targets.hermite(2), M=[[0.3]])
    assert np.linalg.norm(problem.run._slope) < 0.1
    problem.run.follow(1e-3)
    assert not problem.run.over
    problem.run.follow(500.0)
    assert problem.run.has_learned() and problem.W[0, 0] ** 2 > 0.9


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n": 0}, "n must be an integer of at least 1"),
        ({"n": 10, "tolerance": -1}, "tolerance"),
        ({"n": 10, "accuracy": 0}, "accuracy"),
        ({"n": 10, "accuracy": 1}, "accuracy"),
        ({"n": 10, "noise": math.inf}, "noise"),
        ({"n": 10, "readout": "ridge"}, "readout"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises(InputError, match=message):
        Empirical(**parameters)


@pytest.mark.parametrize(
    ("flow", "arguments", "message"),
    [
        (Empirical(n=10**8), {}, "must fit in 4 GB, at 4 bytes a number, got n=100000000"),
        (Empirical(n=10**30), {}, "must fit in 4 GB"),
        (Empirical(n=5, ridge=0), {}, "at least as many samples as the link has features, 6"),
    ],
)
def test_flows_that_cannot_run_are_named_before_any_work(flow, arguments, message):
    with pytest.raises(InputError, match=message):
        empirical(flow, **arguments)
