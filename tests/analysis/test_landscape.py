"""Critical points against exact cases, and against finite differences of the loss alone."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import ortho_group

import mids
from mids.errors import InputError
from mids.targets.averaging import average, correlation, planted_slope

COUPLED = "h1(z1) + 0.7*h2(z1)*h1(z2) + 0.5*h2(z2) - 0.4*h1(z1)*h1(z2)"


def turned(text, seed=1):
    target = mids.Target.parse(text)
    return target.rotate(ortho_group.rvs(target.rank, random_state=seed))


def explained(target, M):
    """``<f*, A_M f*>`` from full tensors."""
    return sum(
        np.sum(t * a) for t, a in zip(target.tensors, average(target.tensors, M), strict=True)
    )


def derivatives(function, size, at):
    """Gradient and Hessian in the angles of rotations of R^size, by differences."""
    skew = []
    for i, j in combinations(range(size), 2):
        generator = np.zeros((size, size))
        generator[i, j], generator[j, i] = 1.0, -1.0
        skew.append(generator)
    basis, h = np.array(skew), 1e-3

    def value(angles):
        return function(expm(np.tensordot(angles, basis, 1)) @ at)

    unit = h * np.eye(len(basis))
    gradient = np.array([value(e) - value(-e) for e in unit]) / (2 * h)
    hessian = [
        [value(a + b) - value(a - b) - value(b - a) + value(-a - b) for b in unit] for a in unit
    ]
    return gradient, np.array(hessian) / (4 * h * h)


# -- fast link ----------------------------------------------------------------------------------


def test_the_critical_subspaces_of_two_cubes_are_known():
    """h(P_u) = cos^6 + sin^6 + 2 cos^3 sin^3: critical at both axes and both diagonals."""
    found = mids.landscape("h3(z1) + h3(z2)")
    np.testing.assert_allclose(found.loss, [1, 1, 0.75, 0.5, 0], atol=1e-9)
    np.testing.assert_array_equal(found.learned, [0, 1, 1, 1, 2])
    np.testing.assert_array_equal(found["index"], [0, 1, 1, 0, 0])
    np.testing.assert_array_equal(found.exponent, [3, 1, 2, 3, np.nan])
    np.testing.assert_array_equal(found.copies, [1, 1, 1, 2, 1])
    np.testing.assert_array_equal(found.minimum, [False] * 4 + [True])
    np.testing.assert_allclose(found.growth, [0, 4.5, 1.5, 0, 0], atol=1e-7)


def test_tilts_that_grow_are_counted():
    """h1(z1) + h2(z1) + c h2(z2) at e1: the tilt grows at the rate 2 c - 3."""
    found = mids.landscape("h1(z1) + h2(z1) + 1.6*h2(z2)")
    at = found.isel(point=np.flatnonzero(abs(found.gram[:, 0, 0] - 1) < 1e-9)[0])
    assert at["index"] == 1 and at.growth == pytest.approx(0.2) and not at.ladder
    assert found.ladder.values.tolist() == [True, False, True, True]


def test_subspaces_that_do_not_matter_are_a_family():
    found = mids.landscape("h2(z1) + h2(z2)")
    inner = found.isel(point=found.learned.values == 1)
    assert inner.isolated.values.tolist() == [False] and inner.copies.item() == 0
    assert inner.ladder.item() is False and inner.exponent.item() == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", [turned("h3(z1) + h3(z2)"), turned(COUPLED), turned("parity(3)")]
)
def test_points_are_critical_with_their_index_by_differences(target):
    found = mids.landscape(target)
    assert found.minimum.sum() == 1  # the paper: nothing but the whole holds a run
    for point in found.point.values:
        here = found.isel(point=point)
        U = np.linalg.eigh(here.gram.values)[1][:, target.rank - int(here.learned) :]
        slope, bend = derivatives(lambda U: correlation(target, U @ U.T), target.rank, U)
        assert np.abs(slope).max(initial=0.0) < 1e-4
        assert (np.linalg.eigvalsh(bend) > 1e-3).sum() == here["index"]
        loss = 0.5 * (target.norm**2 - correlation(target, here.gram.values))
        assert here.loss == pytest.approx(loss, abs=1e-9)
        assert here.exponent.item() == (
            target.information_exponent(U) or pytest.approx(np.nan, nan_ok=True)
        )


@pytest.mark.parametrize("flow", ["two-timescale", "planted"])
def test_rotated_targets_have_the_same_points(flow):
    one, two = (mids.landscape(t, flow=flow, runs=0) for t in (COUPLED, turned(COUPLED)))
    for name in ("loss", "index", "growth"):
        every = [each[name].values for each in (one, two)]
        if flow == "planted":  # Newton's method may miss some: those that hold runs it does not
            every = [
                values[each["index"].values == 0]
                for values, each in zip(every, (one, two), strict=True)
            ]
        np.testing.assert_allclose(*every, atol=1e-5)


# -- link known ---------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [0.5, 1.0, 2.0])
def test_points_of_one_direction_are_roots(c):
    """m' = (1 + 2 c^2 m)(1 - m^2)."""
    found = mids.landscape(f"h1(z1) + {c}*h2(z1)", flow="planted", runs=0)
    roots = [m for m in (-1.0, -0.5 / c**2, 1.0) if abs(m) <= 1]
    assert sorted(found.correlation.values.ravel()) == pytest.approx(roots)
    rates = {m: 2 * c**2 * (1 - m * m) - 2 * m * (1 + 2 * c**2 * m) for m in roots}
    for m, index in zip(found.correlation.values.ravel(), found["index"].values, strict=True):
        assert index == (rates[min(roots, key=lambda root: abs(root - m))] > 0)


@pytest.mark.parametrize("target", [turned("h3(z1) + h3(z2)"), turned(COUPLED)])
def test_points_are_critical_among_all_frames_by_differences(target):
    r, d = target.rank, 2 * target.rank + 1
    found = mids.landscape(target, flow="planted", runs=0)
    assert found.sizes["point"] > 3
    for point in found.point.values:
        M = found.correlation.values[point]
        rest = np.zeros((d - r, r))
        sizes, vectors = np.linalg.eigh(np.eye(r) - M.T @ M)
        rest[:r] = np.sqrt(np.maximum(sizes, 0))[:, None] * vectors.T
        W = np.concatenate([M, rest])
        slope, bend = derivatives(lambda W: explained(target, W[:r]), d, W)
        assert np.abs(slope).max() < 1e-3
        grows = np.linalg.eigvalsh(bend)[-1] > 1e-2
        if found.neutral[point] == 0:
            assert grows == (found["index"].values[point] > 0)


def test_the_slope_is_the_gradient_projected():
    target = turned(COUPLED)
    M = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 2))
    units = 1e-5 * np.eye(4).reshape(4, 2, 2)
    D = np.array([explained(target, M + e) - explained(target, M - e) for e in units]) / 2e-5
    D = D.reshape(2, 2)
    slope, derivative = planted_slope(target, M)
    np.testing.assert_allclose(derivative, D, atol=1e-8)
    np.testing.assert_allclose(slope, D - M @ (M.T @ D + D.T @ M) / 2, atol=1e-8)


@pytest.mark.slow
def test_basins_are_the_shares_of_trapped_runs():
    """Of four entries of M that race by m' = 3 m^2 all are negative in a sixteenth of the runs."""
    target = "h3(z1) + h3(z2)"
    found = mids.landscape(target, flow="planted", dim=1e4, runs=60, seed=2)
    ends = mids.traps(mids.simulate(target, dim=1e4, runs=60, seed=2, flow="planted")).compute()
    assert found.basin.sum() == pytest.approx(1 - ends.censored.item() / 60)
    trapped = found.basin.where(found.loss > 1e-6).sum()
    assert trapped == pytest.approx(ends.trapped.item() / 60)
    nothing = found.isel(point=(found.overlap.max("direction") < 1e-3).values)
    assert abs(nothing.basin.item() - 1 / 16) < 3 * (1 / 16 * 15 / 16 / 60) ** 0.5
    assert (found["index"].where(found.basin > 0, 0) == 0).all()


def test_other_flows_are_refused():
    with pytest.raises(InputError, match="planted"):
        mids.landscape("h2(z1)", flow="two-layer")
