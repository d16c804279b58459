"""Theory of networks: neurons that do not act on each other, and the exit of those that do."""

from __future__ import annotations

import numpy as np
import pytest

import mids
from mids.analysis import neurons
from mids.errors import DatasetError
from mids.flows import Planted, TwoLayer
from mids.targets import additive

ALONE = {"loss": "correlation"}
ROOT = 2**0.5


def simulate(target, flow, **arguments):
    return mids.simulate(target, flow=flow, **{"dim": 1e3, "runs": 4, **arguments}).compute()


def compared(ds):
    """Both sides of the one saddle, that of the start."""
    return mids.compare(ds).squeeze("saddle")


def equiangular(count, cosine, link):
    vectors = np.linalg.cholesky(np.full((count, count), cosine) + (1 - cosine) * np.eye(count)).T
    return additive(np.ones(count), link, vectors)


@pytest.mark.parametrize(("cosine", "shared"), [(0.2, 1), (0.6, 3)])
def test_neurons_on_equiangular_vectors_go_to_one_or_to_their_average(cosine, shared):
    """Simsek, Bendjeddou, Hsu 2024: the average attracts beyond (s - 2) / (k + s - 2) = 0.4."""
    ds = simulate(equiangular(3, cosine, "h4"), TwoLayer(neurons=4, activation="h4", **ALONE))
    found, both = mids.theory(ds), compared(ds)
    assert found.critical_cosine == 0.4
    assert found.cosine == pytest.approx(cosine)
    assert (found.shared == shared).all()
    assert both.match.all()
    np.testing.assert_allclose(both.ratio, 1.0, atol=1e-6)
    assert (both.nearest == both.nearest_theory.fillna(-1)).all()
    assert (ds.coverage == 0).all() == (shared == 3)
    last = ds.neuron_overlap.isel(time=-1).values @ ds.mi.target.directions
    assert (np.ptp(last, axis=-1) < 1e-3).all() == (shared == 3)


CASES = [
    (equiangular(5, 0.1, "h3"), {"activation": "h3", "second_layer": (1.0, 0.5, -2.0, 0.01)}),
    (additive([1.0, 0.7, -0.5], "erf"), {"activation": "erf"}),
    ("h3(z1) + 0.5*h1(z1)", {"activation": "erf"}),
    ("h2(z1) + 0.4*h3(z2) + 0.2*h1(z1)*h2(z2)", {"activation": "relu"}),
    ("0.01*h2(z1) + 0.004*h3(z2)", {"activation": (0.0, 0.0, 1.0, 1.0)}),
]


@pytest.mark.parametrize(("target", "kind"), CASES)
def test_neurons_of_any_activation_escape_when_theory_says(target, kind):
    flow = TwoLayer(neurons=4, **kind, **ALONE)
    both = compared(simulate(target, flow, dim=1e4, runs=2))
    assert (both.match == both.escape_time.notnull()).all()
    assert both.match.mean() > 0.4
    assert not both.censored.any()
    np.testing.assert_allclose(both.ratio.values[both.match.values], 1.0, atol=1e-6)
    assert (both.nearest == both.nearest_theory.fillna(-1)).all()


def test_one_neuron_has_the_same_theory_under_the_squared_loss():
    one = TwoLayer(activation="relu")
    both = compared(simulate("h3(z1) + 0.5*h2(z1)", one))
    np.testing.assert_allclose(both.ratio, 1.0, atol=1e-6)
    assert (both.nearest == 0).all()


def test_what_is_followed_is_the_quadrature():
    """Orthonormal index vectors have both."""
    target, series = additive([1.0, 0.7, -0.5], "h3"), np.eye(4)[3]
    start = np.random.default_rng(0).standard_normal((20, 3, 2)) / 1e4
    arguments = {"target": target, "series": series, "layer": np.array([1.0, -0.4])}
    exact, followed = (f(start, **arguments) for f in (neurons._times, neurons._paths))
    assert 0.5 < np.isfinite(exact[:, 0]).mean() < 1
    np.testing.assert_allclose(followed, exact, rtol=1e-7)


@pytest.mark.parametrize(("order", "power"), [(3, 0.5), (4, 1.0)])
def test_one_neuron_escapes_in_the_power_that_is_published(order, power):
    """Simsek, Bendjeddou, Hsu 2024: d^(s/2 - 1), from overlaps of order d^(-1/2)."""
    dims = np.array([1e8, 1e10])
    start = np.array([[0.9], [0.4], [-0.2]]) / dims[:, None, None, None] ** 0.5
    flow = TwoLayer(activation=f"h{order}", **ALONE)
    ds = simulate(equiangular(3, 0.2, f"h{order}"), flow, dim=dims, runs=1, initial=start)
    measured = ds.neuron_crossing_time.sel(level=0.5).values.ravel()
    for times in (measured, mids.theory(ds).escape_time.values.ravel()):
        assert np.diff(np.log(times))[0] / np.log(100) == pytest.approx(power, abs=0.01)


def test_runs_whose_theories_differ_are_told_apart():
    flows = [Planted(), TwoLayer(neurons=3, activation="h4", **ALONE)]
    ds = mids.simulate(additive([1.0, 0.5, 0.7], "h4"), dim=100, runs=1, flow=flows)
    for analysis in (mids.theory, mids.compare):
        with pytest.raises(DatasetError, match="select runs of one kind"):
            analysis(ds)
        assert analysis(ds.isel(flow=[1]))


@pytest.mark.parametrize("width", [2, 8])
def test_a_wider_network_leaves_its_start_by_a_constant_factor_sooner(width):
    """Arnaboldi, Krzakala, Loureiro, Stephan 2023, phase retrieval: the formula with the width."""
    flow = TwoLayer(neurons=width, activation={2: ROOT}, second_layer=1 / width)
    grid = np.append(0.0, np.geomspace(0.1, 60.0, 400))
    ds = simulate(f"{ROOT}*h2(z1)", flow, dim=1e6, runs=20, time=grid)
    both = compared(ds)
    np.testing.assert_allclose(both.ratio, 1.0, atol=2e-3)
    squares = (ds.initial.values[0, :, 0] ** 2).sum(axis=-1)
    formula = width * np.log(0.01 * (width + 1) / (2 * squares)) / 8
    np.testing.assert_allclose(both.escape_time[0], formula, rtol=5e-3)


@pytest.mark.slow
def test_steps_on_samples_delay_the_exit_as_the_formula_says():
    """The same with d step / batch = 0.6 and noisy labels, in the mean over runs."""
    width, dim, noise, ratio = 4, 10**5, 0.5, 0.6
    parameters = {"neurons": width, "activation": {2: ROOT}, "second_layer": 1 / width}
    flow = TwoLayer(**parameters, step=ratio / dim, noise=noise)
    grid = np.append(0, np.geomspace(0.5, 20, 80))
    ds = simulate(f"{ROOT}*h2(z1)", flow, dim=dim, runs=24, time=grid)
    both = compared(ds)
    growth = 4 - 2 * ratio / width * (2 + noise**2 + 2 / width + 8 / width**2)
    squares = (ds.initial.values[0, :, 0] ** 2).sum(axis=-1)
    formula = width * np.log(0.01 * (width + 1) / (2 * squares)) / (2 * growth)
    # Samples scatter the overlaps while they are small, which the formula leaves out.
    assert (both.escape_time_theory.values[0] < formula).all()
    assert both.ratio.mean().item() == pytest.approx(1.0, abs=0.08)
    assert both.escape_time.mean() > 1.1 * (formula * growth / 4).mean()  # than without steps


def test_a_neuron_finds_the_axis_that_has_the_degree_it_sees():
    flow = TwoLayer(neurons=2, activation="h4", loss="correlation")
    found = mids.theory(mids.simulate("h1(z1) + h4(z2)", dim=200, runs=4, flow=flow))
    assert (found.learned == 1).all()
