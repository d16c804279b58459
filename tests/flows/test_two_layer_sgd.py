"""Descent of a two-layer network on samples: its flow, its noise, reuse and smoothing."""

from __future__ import annotations

import numpy as np
import pytest

import mids
from mids.errors import InputError
from mids.flows import TwoLayer, TwoLayerSGD
from mids.flows.two_layer_sgd import sphere_nodes
from tests.verification.networks import displacement, distance

CORRELATION = {"activation": "h2", "loss": "correlation"}


def simulate(target, flow, **arguments):
    return mids.simulate(target, flow=flow, **{"dim": 32, "runs": 2, **arguments}).compute()


def test_it_starts_where_the_flow_starts_and_tends_to_it():
    far, near = distance([0.04, 0.004], 32, 4)
    assert near < 0.5 * far and near < 0.1


def test_several_neurons_and_a_trained_readout_follow_the_flow():
    kind = {"neurons": 2, "activation": "erf", "readout": "trained", "second_layer": 0.5}
    flows = TwoLayer(**kind), TwoLayerSGD(step=0.01, batch=200, **kind)
    exact, found = (
        simulate("h1(z1) + 0.5*h3(z1)", flow, runs=2, time=[0, 1, 2, 4]) for flow in flows
    )
    np.testing.assert_allclose(exact.neuron_gram[..., 0, :, :], found.neuron_gram[..., 0, :, :])
    for name in ("neuron_overlap", "second_layer", "loss"):
        np.testing.assert_allclose(found[name], exact[name], atol=0.08)
    assert found.samples.values.tolist() == [0, 20000, 40000, 80000]


@pytest.mark.parametrize(
    "kind", [CORRELATION, {"activation": "h2", "noise": 0.7, "second_layer": 0.5}]
)
def test_drift_norm_and_fluctuations_are_those_of_the_sde(kind):
    large, small = (TwoLayerSGD(step=0.002, batch=batch, **kind) for batch in (1, 64))
    found = displacement(large, "h2(z1)", 256, 400, 8, np.array([[0.5]]))
    with_norm = (found["measured"] - found["flow"] - found["norm"]) / found["error"]
    without = (found["measured"] - found["flow"]) / found["error"]
    assert abs(with_norm) < 4 < abs(without)
    found = displacement(small, "h2(z1)", 64, 400, 4, np.array([[0.5]]))
    assert found["variance"] == pytest.approx(1.0, abs=0.3)


@pytest.mark.slow
def test_the_sde_has_the_mean_and_variance_of_descent():
    """Means within 4 standard errors, where the flow's are beyond; variances within sampling."""
    kind = {"neurons": 2, "activation": "erf"}
    samples = {"step": 0.02, "batch": 2, "noise": 0.3}
    start, runs = [[0.4, 0.1], [0.2, 0.3]], 200
    ends = []
    for flow in (TwoLayerSGD(**kind, **samples), TwoLayer(**kind, **samples), TwoLayer(**kind)):
        ds = simulate(
            "additive(2, 0.3, erf)", flow, dim=64, runs=runs, initial=start, time=[0, 6.0]
        )
        last = ds.isel(dim=0, time=-1)
        products = last.neuron_gram.values[:, 0, 1]
        ends.append(np.column_stack([last.neuron_overlap.values.reshape(runs, 4), products]))
    mean, variance = (np.array([f(end, axis=0) for end in ends]) for f in (np.mean, np.var))
    error = np.sqrt((variance[0] + variance[1]) / runs)
    assert (np.abs(mean[1] - mean[0]) < 4 * error).all()
    assert (np.abs(mean[2] - mean[0]) > 4 * error).any()
    np.testing.assert_allclose(variance[1] / variance[0], 1.0, atol=4 * np.sqrt(4 / runs))
    far = simulate("h2(z1)", TwoLayer(**CORRELATION, step=1e-14), dim=10**12, time=[0.0, 1.0])
    assert np.isfinite(far.loss).all() and mids.replay(far).equals(far)


def test_numbers_depend_on_seed_dim_and_run_alone():
    flow = TwoLayerSGD(step=0.01, batch=8, noise=0.1, reuse=2, **CORRELATION)
    one = mids.simulate("h2(z1)", dim=[16, 32], runs=4, flow=flow, chunks=1, time=[0, 0.5])
    two = mids.simulate("h2(z1)", dim=32, runs=[3, 1], flow=flow, time=[0, 0.25, 0.5])
    np.testing.assert_array_equal(
        one.neuron_overlap.sel(dim=[32], run=[3, 1]).isel(time=1), two.neuron_overlap.isel(time=2)
    )
    assert mids.replay(one).equals(one.compute())
    mids.validate(one.compute())


def test_a_second_look_at_each_batch_sees_what_one_look_does_not():
    """Arnaboldi et al. 2024: of h3 the second look sees its square, linear in m."""
    dim, m = 128, 0.2
    series = np.array([0.0, 0.6, 0.6, 0.5])
    flow = {"activation": tuple(series), "loss": "correlation", "step": 5e-4, "batch": 8}
    start, ahead = np.array([[m]]), 0.03
    once, twice = (
        displacement(TwoLayerSGD(**flow, **more), "h3(z1)", dim, 300, 64, start)
        for more in ({}, {"reuse": 2, "lookahead": 8 * ahead / dim})
    )
    first, second, third = 0.6 * 2**0.5, 0.5 * 6**0.5, 0.5 * 6**0.5
    rate = 6 * (first**2 + second**2 + series[1] * third)  # E y^2 (z^2 - 1) E (s' s'')'
    more, error = (twice["measured"] - once["measured"]).item(), once["error"].item()
    assert more > 4 * error
    assert more == pytest.approx(rate * ahead * m, rel=0.5)


def test_smoothing_averages_over_a_sphere():
    """One large batch steps along the gradient of the averaged loss, from its closed form."""
    dim, m, radius = 24, 0.4, 1.5
    flow = TwoLayerSGD(
        activation="h3", loss="correlation", smoothing=radius, step=0.01, batch=200_000
    )
    ds = simulate("h3(z1)", flow, dim=dim, runs=1, initial=[[m]], time=[0.0, 0.01])
    nodes, weights = sphere_nodes(dim, 4)

    def loss(m):
        inner = (m + radius * nodes * np.sqrt(1 - m * m)) / np.sqrt(1 + radius**2)
        return -weights @ inner**3

    slope = -(loss(m + 1e-5) - loss(m - 1e-5)) / 2e-5 * (1 - m * m)
    moved = float(ds.neuron_overlap[0, 0, 1, 0, 0] - m) / 0.01
    assert moved == pytest.approx(slope, rel=0.05)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"step": 0.0}, "step must be"),
        ({"batch": 0}, "batch must be"),
        ({"reuse": 3}, "1 or 2"),
        ({"lookahead": 0.1}, "reuse=2"),
        ({"smoothing": 1.0, "loss": "squared"}, "smoothing is of the correlation loss"),
        ({"noise": -1.0}, "noise must be"),
        ({"second_layer": 0.0}, "never moves"),
        ({"neurons": 0}, "at least 1"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(InputError, match=message):
        TwoLayerSGD(**{**CORRELATION, **parameters})
    with pytest.raises(InputError, match="pass step= with them"):
        TwoLayer(**CORRELATION, noise=0.1)


def test_fluctuations_between_two_times_are_no_trap():
    """Neurons that fall at the last two times, by chance, may still find a direction."""
    flow = TwoLayerSGD(activation="h3", loss="correlation", step=0.01, batch=4)
    ds = simulate("h3(z1)", flow, dim=64, runs=16, time=[0.0, 0.02, 0.04])
    cosines = abs(ds.neuron_overlap[..., 0, 0])
    assert (cosines.isel(time=-1) < cosines.isel(time=-2)).any()
    assert (ds.status == 1).all()


def test_samples_that_are_too_long_are_refused():
    with pytest.raises(InputError, match="must be at most 1000000"):
        mids.simulate("h2(z1)", dim=1e9, flow=TwoLayerSGD(**CORRELATION))
