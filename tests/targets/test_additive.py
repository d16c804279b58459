"""Sums of one link along many directions."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.special import erf

import mids
from mids.errors import InputError, TargetSyntaxError
from mids.targets import Target, additive
from mids.targets.additive import AdditiveTarget
from mids.targets.averaging import gradient, loss
from mids.targets.basis import hermite_series

LINK = [0.2, 0.0, 0.7, -0.4]


def directions(rank, count, seed=0):
    frame = np.random.default_rng(seed).standard_normal((rank, count))
    return frame / np.linalg.norm(frame, axis=0)


@pytest.mark.parametrize("frame", [None, directions(3, 3), directions(3, 2)])
def test_correlation_and_gradient_are_those_of_the_tensors(frame):
    weights = [1.0, -0.6, 0.3][: 3 if frame is None else frame.shape[1]]
    target = additive(weights, LINK, frame)
    plain = Target(dict(zip(map(tuple, target.modes.tolist()), target.coefficients, strict=True)))
    factor = np.random.default_rng(1).standard_normal((target.rank, target.rank)) / 3
    G = factor @ factor.T / np.linalg.norm(factor @ factor.T, 2)
    h, H = target.correlation(G)
    assert 0.5 * (plain.norm**2 - h) == pytest.approx(float(loss(plain, G)), abs=1e-13)
    np.testing.assert_allclose(H, gradient(plain, G), atol=1e-13)
    assert target.norm == pytest.approx(plain.norm)
    z = np.random.default_rng(2).standard_normal((5, target.rank))
    np.testing.assert_allclose(target(z), plain(z), rtol=1e-12)


def test_gradient_of_hundreds_of_directions_is_that_of_finite_differences():
    target = additive(np.arange(1, 201) ** -0.8, {2: 0.5, 3: 1.0})
    rng = np.random.default_rng(3)
    factor, move = rng.standard_normal((2, 200, 200)) / 40
    G, move = factor @ factor.T, move + move.T
    slope = (target.correlation(G + 1e-6 * move)[0] - target.correlation(G - 1e-6 * move)[0]) / 2e-6
    assert slope == pytest.approx(float((target.correlation(G)[1] * move).sum()), rel=1e-7)


def test_series_of_named_functions():
    z = np.linspace(-2, 2, 9)
    from mids.targets.basis import hermite_values

    series, left_out = hermite_series("erf", 60)
    values = hermite_values(z, len(series) - 1) @ series
    np.testing.assert_allclose(values, erf(z / np.sqrt(2)), atol=1e-7)
    assert left_out < 1e-7
    for name, squares in (("relu", 0.5), ("tanh", 0.39429449), ("sigmoid", 0.29337904)):
        series, left_out = hermite_series(name, 40)
        assert series @ series + left_out**2 == pytest.approx(squares, rel=1e-6), name
    # Coefficients by formula against a quadrature on each side of the kink.
    x, w = np.polynomial.legendre.leggauss(200)
    x, w = 6 * (x + 1), 6 * w * np.exp(-18 * (x + 1) ** 2) / np.sqrt(2 * np.pi)
    by_quadrature = hermite_values(x, 10).T @ (w * x)
    np.testing.assert_allclose(hermite_series("relu", 10)[0], by_quadrature, atol=1e-12)


@pytest.mark.parametrize(
    "target",
    [
        additive([1, 2], "h3"),
        additive([1.0, 0.5], "erf"),
        additive([1.0, 0.5], LINK, directions(3, 2), name="two"),
    ],
)
def test_json_and_pickle_restore_it(target):
    for again in (Target.from_json(target.to_json()), pickle.loads(pickle.dumps(target))):
        assert isinstance(again, AdditiveTarget)
        assert again == target and again.missed_norm == target.missed_norm
        assert again.name == target.name and hash(again) == hash(target)


def test_text_names_a_power_law():
    target = Target.parse("additive(256, 0.75, h3)")
    assert target == additive(np.arange(1, 257) ** -0.75, "h3")
    assert target.name == "additive(256,0.75,h3)"
    with pytest.raises(TargetSyntaxError, match=r"additive\(rank, decay, link\)"):
        Target.parse("additive(256)")
    with pytest.raises(InputError, match="at most 4096"):
        Target.parse("additive(5000, 1, h3)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], "h2"), "other than 0"),
        (([1, 0], "h2"), "other than 0"),
        (([1], "h0"), "between h1"),
        (([1], "cosine"), "unknown link or activation"),
        (([1], [1.0]), "not constant"),
        (([1], {2: np.nan}), "coefficient of h2"),
        (([1, 1], "h2", [[1, 2], [0, 0]]), "column 1 has norm 2"),
        (([1, 1], "h2", [[1, 1], [0, 0]]), "span 1 dimensions"),
        (([1, 1], "h2", [[1, 1]]), "span 1 dimensions"),
        (([1, 1], "h2", np.eye(3)), "shape"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        additive(*arguments)


def test_what_needs_tensors_says_so():
    with pytest.raises(InputError, match="the flow two-layer"):
        _ = additive(np.ones(9), "h2").tensors
    oblique = np.eye(9) + np.diag(np.full(8, 0.5), 1)
    target = additive(np.ones(9), "h2", oblique / np.linalg.norm(oblique, axis=0))
    with pytest.raises(InputError, match="the flow two-layer"):
        mids.ladder(target)
    flow = mids.flows.TwoLayer(neurons=9, activation="h2")
    ds = mids.simulate(target, dim=100, runs=1, flow=flow, time=[0.0, 0.1])
    assert "leaps" not in ds.mi.describe()
    with pytest.raises(InputError, match="'planted' needs the target's tensors"):
        mids.simulate(additive(np.ones(9), "h2"), dim=100, time=[0.0, 1.0], flow="planted")
