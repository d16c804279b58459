"""Gradient descent on a fixed set of samples: its gradient, its limit, how runs end."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mids
from mids.errors import InputError
from mids.flows import Empirical, HermiteKernel
from mids.flows._features import Link
from mids.flows._offline import descend, draw_samples, objective, refit
from mids.flows._sampled import State
from mids.flows.readout import Readout
from mids.flows.sampled import start
from mids.hermite import hermite_values
from mids.initial import draw
from mids.simulate import differences

LADDER = mids.Target.parse("h1(z1) + h1(z1)*h1(z2) - 0.5*h2(z2)")
KEY, LEVELS = np.array([3, 4], np.uint64), np.array([0.1, 0.5, 0.9])
LINKS = {
    "hermite": Readout("hermite-ridge", 0.02, None, HermiteKernel(polynomial=1), 1, 1.0),
    "random": Readout("random-features", 0.02, None, None, 12, 1.5),
}


class Problem:
    """A set of samples and a run on it, driven by hand."""

    def __init__(self, readout, n, dim, noise=0.0, student_rank=2, seed=0):
        rng = np.random.default_rng(seed)
        self.readout, self.dim = readout, dim
        self.features = readout.build(LADDER, student_rank, rng)
        arrays = start(self.features, draw(2, student_rank, dim, rng), dim, noise, rng)
        arrays["gradient"] = arrays["gradient"].astype(float)
        self.state = State(**arrays)
        self.x = np.zeros((n, arrays["gradient"].shape[1]), np.float32)
        self.labels, self.z = np.zeros(n), np.zeros((n, student_rank))
        self.wide = np.zeros_like(arrays["gradient"])
        link = Link(LADDER.modes, LADDER.coefficients, noise)
        draw_samples(link, KEY, dim, self.x, self.labels)
        self.refit()

    def refit(self):
        arguments = self.x, self.labels, self.wide, self.z, self.state
        refit(self.features, self.readout.ridge, *arguments)

    def descend(self, step, stop, tolerance=0.0):
        return descend(
            *(self.features, self.readout.ridge, step, tolerance, LEVELS),
            *(self.x, self.labels, self.wide, self.z, self.state, stop),
        )

    def loss(self):
        ridge, z = self.readout.ridge, self.z
        return objective(self.features, ridge, self.labels, z, self.state.link)

    def profiled(self, W):
        """Minimum over links of the empirical loss, by NumPy."""
        z = self.x[:, : self.dim].astype(float) @ W
        if len(self.features.phases):
            angles = z @ self.features.frequencies.T + self.features.phases
            values = np.sqrt(2 / len(self.features.phases)) * np.cos(angles)
        else:
            single = hermite_values(z, int(self.features.exponents.max()))
            picked = single[:, np.arange(z.shape[1]), self.features.exponents]
            values = picked.prod(axis=-1)
        penalty = self.readout.ridge * np.diag(self.features.penalty)
        gram = values.T @ values / len(z) + penalty
        link = np.linalg.solve(gram, values.T @ self.labels / len(z))
        return 0.5 * np.square(values @ link - self.labels).mean() + 0.5 * link @ penalty @ link


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("student_rank", [1, 2, 3])
def test_steps_go_down_the_gradient_of_the_profiled_loss(kind, student_rank):
    problem = Problem(LINKS[kind], n=70, dim=9, noise=0.3, student_rank=student_rank)
    W = problem.state.frame.T.copy()
    assert problem.loss() == pytest.approx(problem.profiled(W), rel=1e-12)
    gradient = np.zeros_like(W)
    for k, i in np.ndindex(*W.shape):
        shift = np.zeros_like(W)
        shift[k, i] = 1e-5
        gradient[k, i] = (problem.profiled(W + shift) - problem.profiled(W - shift)) / 2e-5
    wanted = (np.eye(9) - W @ W.T) @ gradient
    problem.descend(1e-6, 1)
    moved = (problem.state.frame.T - W) / 1e-6
    np.testing.assert_allclose(-moved, wanted, atol=2e-5 * np.abs(wanted).max())
    if kind == "hermite":  # the loss depends on the span alone
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(student_rank,) * 2))[0]
        assert problem.profiled(W @ turn) == pytest.approx(problem.profiled(W), rel=1e-10)


@pytest.mark.parametrize("kind", LINKS)
def test_the_loss_falls_until_the_gradient_vanishes(kind):
    problem = Problem(LINKS[kind], n=300, dim=12, noise=0.2)
    losses, over = [problem.loss()], False
    for stop in range(20, 20_000, 20):
        over = problem.descend(0.1, stop, tolerance=1e-6)
        losses.append(problem.loss())
        if over:
            break
    assert over
    assert (np.diff(losses) <= 1e-14).all()
    assert np.abs(problem.state.frame @ problem.state.frame.T - np.eye(2)).max() < 1e-12
    steps = int(problem.state.used[0])
    assert problem.descend(0.1, steps + 5, tolerance=1e-6) and problem.state.used[0] == steps


def test_larger_sets_begin_with_the_smaller():
    small, large = (Problem(LINKS["hermite"], n, dim=9, noise=0.5) for n in (30, 100))
    np.testing.assert_array_equal(large.x[:30], small.x)
    np.testing.assert_array_equal(large.labels[:30], small.labels)
    np.testing.assert_allclose(
        small.labels,
        LADDER(small.x[:, :2].astype(float)) + 0.5 * small.x[:, 9].astype(float),
        rtol=1e-12,
    )


def empirical(flow=None, target=LADDER, **arguments):
    given = {"dim": [10, 12], "runs": 3, "time": np.linspace(0, 20, 6)}
    return mids.simulate(target, flow=flow or Empirical(n=500, noise=0.1), **{**given, **arguments})


@pytest.mark.parametrize("readout", ["hermite-ridge", "random-features"])
@pytest.mark.parametrize("student_rank", [1, 2, 3])
def test_datasets_keep_the_schema_and_replay(readout, student_rank):
    flow = Empirical(n=500, noise=0.1, readout=readout, features=10)
    ds = empirical(flow, student_rank=student_rank)
    ds.mi.validate()
    ds = ds.compute()
    assert differences(ds, mids.replay(ds)) == []
    assert ds.mi.flow == flow
    assert differences(ds, empirical(flow, student_rank=student_rank, chunks=1)) == []
    assert (ds.loss.diff("time") <= 1e-12).all()
    assert "samples" not in ds.coords


def test_many_samples_follow_the_population_flow():
    arguments = {"dim": 12, "runs": 3, "target": "h1(z1) + h1(z1)*h1(z2)", "time": [0.0, 12.0]}
    ds = empirical(Empirical(n=10_000, step=0.04), **arguments).compute()
    population = mids.simulate(**arguments).compute()
    delay = ds.crossing_time - population.crossing_time
    assert np.abs(delay).max() < 0.5 and np.abs(delay).mean() < 0.15
    np.testing.assert_allclose(ds.risk.isel(time=-1), 0, atol=1e-3)


def test_more_samples_learn_more_often():
    """None of the runs succeeds with few samples for the dimension, and all do with many."""
    arguments = {"dim": 40, "runs": 6, "target": "h1(z1) + h1(z1)*h1(z2)", "time": [0, 60]}
    learned = [
        float((empirical(Empirical(n=n, noise=0.5), **arguments).status == 0).mean())
        for n in (40, 1600)
    ]
    assert learned == [0, 1]


def test_runs_end_trapped_censored_or_converged():
    arguments = {"target": "h2(z1)", "dim": 32, "runs": 6, "time": [0, 2, 400]}
    few = empirical(Empirical(n=100, noise=0.3), **arguments).compute()
    overlap = few.overlap.isel(time=-1, direction=0)
    assert {0, 2} <= set(few.status.values.ravel().tolist())
    assert (overlap.where(few.status == 2, 0) < 0.5).all()
    assert (overlap.where(few.status == 0, 1) > 0.5).all()
    assert (few.n_steps.where(few.status == 2) < 4000).sum() == (few.status == 2).sum()
    early = empirical(Empirical(n=100, noise=0.3), **{**arguments, "time": [0, 0.5]})
    assert (early.status == 1).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n": 0}, "n must be an integer of at least 1"),
        ({"n": 10, "tolerance": -1}, "tolerance"),
        ({"n": 10, "step": 2}, "step"),
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
        (Empirical(n=10**8), {}, r"must fit in 4 GB, got n=100000000 of dim 12, 4.8 GB"),
        (Empirical(n=5, ridge=0), {}, "at least as many samples as the link has features, 6"),
    ],
)
def test_flows_that_cannot_run_are_named_before_any_work(flow, arguments, message):
    with pytest.raises(InputError, match=message):
        empirical(flow, **arguments)
