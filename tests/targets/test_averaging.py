"""The averaging operator, loss and gradient against their defining properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mids import targets
from mids.errors import InputError
from mids.targets import averaging as operators
from mids.targets.basis import gauss_hermite, multi_indices, tensor_coefficients
from mids.targets.target import Target

seeds = st.integers(0, 2**32 - 1)
ranks = st.integers(1, 3)


def dense_target(rank, seed, degree=4):
    exponents = multi_indices(rank, degree).tolist()
    values = np.random.default_rng(seed).standard_normal(len(exponents)).tolist()
    return Target(dict(zip(map(tuple, exponents), values, strict=True)))


def contraction(rows, columns, seed):
    """Return a matrix with singular values spread over [0, 1]."""
    rng = np.random.default_rng(seed)
    left, _, right = np.linalg.svd(rng.standard_normal((rows, columns)), full_matrices=False)
    return left @ np.diag(rng.uniform(0, 1, min(rows, columns))) @ right


def gram(rank, seed):
    M = contraction(rank, rank, seed)
    return M @ M.T


def orthogonal(rank, seed):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((rank, rank)))[0]


def as_target(tensors):
    exponents, coefficients = tensor_coefficients(tensors)
    modes = map(tuple, exponents.tolist())
    return Target(dict(zip(modes, coefficients.tolist(), strict=True)))


def inner(left, right):
    return sum(np.vdot(a, b) for a, b in zip(left, right, strict=True))


def assert_tensors_close(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


# -- the averaging operator ------------------------------------------------------------------------


@given(r=ranks, q=ranks, p=ranks, seed=seeds)
def test_semigroup(r, q, p, seed):
    tensors = dense_target(r, seed).tensors
    M, N = contraction(r, q, seed + 1), contraction(q, p, seed + 2)
    once = operators.average(tensors, M @ N)
    assert_tensors_close(once, operators.average(operators.average(tensors, M), N))


@given(r=ranks, q=ranks, seed=seeds)
def test_the_adjoint_averages_with_the_transpose(r, q, seed):
    f, g = dense_target(q, seed).tensors, dense_target(r, seed + 1).tensors
    M = contraction(r, q, seed + 2)
    forward = inner(f, operators.average(g, M))
    assert inner(operators.average(f, M.T), g) == pytest.approx(forward, rel=1e-10, abs=1e-11)


@given(r=ranks, q=ranks, seed=seeds)
def test_contraction(r, q, seed):
    tensors = dense_target(r, seed).tensors
    image = operators.average(tensors, contraction(r, q, seed + 1))
    assert inner(image, image) <= inner(tensors, tensors) * (1 + 1e-12)
    frame = orthogonal(r, seed)
    rotated = operators.average(tensors, frame)
    assert inner(rotated, rotated) == pytest.approx(inner(tensors, tensors), rel=1e-12)


@given(r=ranks, t=st.floats(0, 5), seed=seeds)
def test_ornstein_uhlenbeck(r, t, seed):
    target = dense_target(r, seed)
    image = operators.average(target.tensors, math.exp(-t) * np.eye(r))
    _, coefficients = tensor_coefficients(image)
    decay = np.exp(-t * target.modes.sum(axis=1))
    np.testing.assert_allclose(coefficients, decay * target.coefficients, rtol=1e-11)


@given(r=ranks, q=ranks, seed=seeds)
def test_average_is_the_expectation_that_defines_it(r, q, seed):
    target = dense_target(r, seed)
    M = contraction(r, q, seed + 1)
    values, vectors = np.linalg.eigh(np.eye(r) - M @ M.T)
    root = vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T
    nodes, weights = gauss_hermite(4)  # exact up to degree 7
    y = np.stack(np.meshgrid(*[nodes] * r, indexing="ij"), axis=-1).reshape(-1, r)
    weight = np.stack(np.meshgrid(*[weights] * r, indexing="ij"), axis=-1).reshape(-1, r)
    z = np.random.default_rng(seed + 2).standard_normal((5, q))
    shifted = (z @ M.T)[:, np.newaxis] + y @ root
    expected = target(shifted) @ weight.prod(axis=1)
    image = operators.average(target.tensors, M)
    np.testing.assert_allclose(as_target(image)(z), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("r", "q"), [(2, 2), (3, 2), (2, 3)])
def test_monte_carlo_agrees(r, q):
    # <f, A_M g> = E f(W^T x) g(W*^T x) for frames W, W* in R^d and M = W*^T W.
    d, n = 7, 400_000
    f, g = dense_target(q, 1, degree=2), dense_target(r, 2, degree=2)
    rng = np.random.default_rng(3)
    W, W_star = (np.linalg.qr(rng.standard_normal((d, k)))[0] for k in (q, r))
    x = rng.standard_normal((n, d))
    samples = f(x @ W) * g(x @ W_star)
    exact = inner(f.tensors, operators.average(g.tensors, W_star.T @ W))
    assert abs(samples.mean() - exact) < 4 * samples.std() / math.sqrt(n)


# -- loss, gradient, energy ------------------------------------------------------------------------


@given(r=ranks, seed=seeds)
def test_correlation_is_the_inner_product_with_the_average(r, seed):
    target, G = dense_target(r, seed), gram(r, seed + 1)
    h = operators.correlation(target, G)
    image = operators.average(target.tensors, G)
    assert h == pytest.approx(inner(target.tensors, image), rel=1e-12)
    assert operators.correlation(target.tensors, G) == h
    # Half of the way: h(M M^T) is the square norm of the fast link A_M f*.
    M = contraction(r, r, seed + 1)
    fast = operators.average(target.tensors, M)
    assert inner(fast, fast) == pytest.approx(h, rel=1e-11)


@given(r=ranks, seed=seeds)
def test_loss_energy_and_correlation_agree(r, seed):
    target, G = dense_target(r, seed), gram(r, seed + 1)
    h, square = operators.correlation(target, G), target.norm**2
    assert square - 2 * operators.loss(target, G) == pytest.approx(h, rel=1e-11)
    energy = operators.energy(target, G)
    assert energy.shape == (len(target.modes),)
    assert energy.sum() == pytest.approx(h, rel=1e-11)


@given(r=ranks, seed=seeds)
def test_energy_is_coefficient_times_coefficient_of_the_average(r, seed):
    target, G = dense_target(r, seed), gram(r, seed + 1)
    _, averaged = tensor_coefficients(operators.average(target.tensors, G))
    expected = target.coefficients * averaged
    np.testing.assert_allclose(operators.energy(target, G), expected, rtol=1e-10, atol=1e-12)


@given(r=ranks, seed=seeds)
def test_gradient_matches_finite_differences(r, seed):
    target, G = dense_target(r, seed), gram(r, seed + 1)
    H = operators.gradient(target, G)
    np.testing.assert_array_equal(H, H.T)
    step = np.random.default_rng(seed + 2).standard_normal((r, r))
    step = (step + step.T) / 2 * 1e-4
    ahead, behind = operators.correlation(target, np.array([G + step, G - step]))
    slope = (ahead - behind) / 2
    assert np.vdot(H, step) == pytest.approx(slope, rel=1e-6, abs=1e-6 * target.norm**2)
    assert np.linalg.eigvalsh(H).min() >= -1e-12 * target.norm**2


@given(r=ranks, seed=seeds)
def test_rotating_target_and_frames_together_changes_nothing(r, seed):
    target, M, Q = dense_target(r, seed), contraction(r, 2, seed + 1), orthogonal(r, seed + 2)
    G = M @ M.T
    rotated, turned = target.rotate(Q), Q @ G @ Q.T
    for function in (operators.correlation, operators.loss):
        assert function(rotated, turned) == pytest.approx(function(target, G), rel=1e-10)
    np.testing.assert_allclose(
        operators.gradient(rotated, turned), Q @ operators.gradient(target, G) @ Q.T, atol=1e-10
    )
    assert_tensors_close(
        operators.average(rotated.tensors, Q @ M), operators.average(target.tensors, M)
    )


@pytest.mark.parametrize("target", [Target.parse("1 + h1(z1) + 2*h1(z1)*h3(z2)")])
def test_ends_of_the_loss(target):
    # 1 + 1 + 4 = 6 is the square norm, the constant is always matched.
    none, all_ = np.zeros((2, 2)), np.eye(2)
    assert operators.loss(target, none) == 2.5
    assert operators.loss(target, all_) == 0
    assert operators.correlation(target, none) == 1
    np.testing.assert_allclose(operators.energy(target, all_), [1, 1, 4], rtol=1e-15)
    np.testing.assert_allclose(operators.gradient(target, all_), np.diag([5, 12]), atol=1e-14)
    learned = np.diag([1.0, 0.0])
    assert operators.loss(target, learned) == pytest.approx(2)


@pytest.mark.parametrize("exponent", [10, 30, 50])
def test_small_losses_keep_their_relative_accuracy(exponent):
    gap = 2.0**-exponent
    target = Target({(1, 0): 0.3, (1, 3): 0.8, (0, 2): 0.5})
    lost = [-math.expm1(k * math.log1p(-gap)) for k in (1, 4, 2)]
    expected = 0.5 * np.dot(np.square([0.3, 0.8, 0.5]), lost)
    assert operators.loss(target, (1 - gap) * np.eye(2)) == pytest.approx(expected, rel=1e-13)


def test_single_index_formulas():
    target = Target({(1,): 0.4, (3,): -0.9})
    overlap = np.linspace(0, 1, 11)
    G = overlap[:, np.newaxis, np.newaxis]
    h = 0.16 * overlap + 0.81 * overlap**3
    np.testing.assert_allclose(operators.correlation(target, G), h, rtol=1e-13)
    np.testing.assert_allclose(operators.loss(target, G), (0.97 - h) / 2, atol=1e-15)
    slope = 0.16 + 3 * 0.81 * overlap**2
    np.testing.assert_allclose(operators.gradient(target, G)[:, 0, 0], slope, rtol=1e-13)
    terms = np.stack([0.16 * overlap, 0.81 * overlap**3], axis=-1)
    np.testing.assert_allclose(operators.energy(target, G), terms, rtol=1e-13)


FUNCTIONS = [operators.correlation, operators.loss, operators.gradient, operators.energy]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("block_size", [1, operators.BLOCK_SIZE])
def test_leading_axes_are_kept(function, block_size, monkeypatch):
    monkeypatch.setattr(operators, "BLOCK_SIZE", block_size)
    target = dense_target(2, seed=0)
    G = np.array([[gram(2, 3 * i + j) for j in range(3)] for i in range(2)])
    together = function(target, G)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(together[index], function(target, G[index]), rtol=1e-13)
    assert function(target, np.empty((0, 2, 2))).shape == (0, *together.shape[2:])


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("G", "match"),
    [
        (np.eye(3), r"G must have shape \(..., 2, 2\), got \(3, 3\)"),
        ([1.0, 0.0], r"G must have shape"),
        (np.full((2, 2), np.nan), "G must be finite"),
    ],
)
def test_statistics_are_checked(function, G, match):
    with pytest.raises(InputError, match=match):
        function(targets.parity(2), G)


@pytest.mark.parametrize(
    "tensors", [[], [np.array(1.0)], [np.array(1.0), np.ones((2, 2))], [np.ones(2), np.ones(2)]]
)
def test_tensors_are_checked(tensors):
    for function in (operators.average, operators.correlation):
        with pytest.raises(InputError, match="T_k has k axes of the same size"):
            function(tensors, np.eye(2))


@pytest.mark.parametrize("M", [np.eye(3), np.ones((4, 2, 2)), np.full((2, 2), np.inf), [0.5, 0.5]])
def test_correlation_matrices_are_checked(M):
    with pytest.raises(InputError, match="M must"):
        operators.average(targets.parity(2).tensors, M)
