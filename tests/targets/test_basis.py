"""The Hermite basis against SciPy, exact values and its defining properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from mids.errors import InputError
from mids.targets import basis as hermite

POINTS = np.linspace(-4, 4, 17)


def random_expansion(rank, degree, seed):
    exponents = hermite.multi_indices(rank, degree)
    return exponents, np.random.default_rng(seed).standard_normal(len(exponents))


@pytest.mark.parametrize("k", [0, 1, 2, 3, 7, 20])
def test_values_match_scipy(k):
    expected = special.eval_hermitenorm(k, POINTS) / math.sqrt(math.factorial(k))
    np.testing.assert_allclose(hermite.hermite_values(POINTS, 20)[:, k], expected, rtol=1e-12)


def test_values_keep_leading_axes():
    z = np.arange(6.0).reshape(2, 3)
    values = hermite.hermite_values(z, 4)
    assert values.shape == (2, 3, 5)
    np.testing.assert_array_equal(values[1, 2], hermite.hermite_values(5.0, 4))


@pytest.mark.parametrize("n", [1, 2, 5, 20, 64, 100, 150])
def test_quadrature_matches_scipy(n):
    nodes, weights = hermite.gauss_hermite(n)
    expected_nodes, expected_weights = special.roots_hermitenorm(n)
    np.testing.assert_allclose(nodes, expected_nodes, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(weights, expected_weights / math.sqrt(2 * math.pi), rtol=1e-9)


@pytest.mark.parametrize("n", [3, 10, 40])
def test_quadrature_gives_exact_moments(n):
    nodes, weights = hermite.gauss_hermite(n)
    for k in range(min(n, 15)):
        assert weights @ nodes ** (2 * k) == pytest.approx(math.prod(range(1, 2 * k, 2)), rel=1e-12)
        assert weights @ nodes ** (2 * k + 1) == pytest.approx(0, abs=1e-9 * math.factorial(k))


def test_largest_quadrature_is_orthonormal_to_the_end():
    nodes, weights = hermite.gauss_hermite(hermite.MAX_NODES)
    basis = np.sqrt(weights)[:, None] * hermite.hermite_values(nodes, hermite.MAX_NODES - 1)
    np.testing.assert_allclose(basis.T @ basis, np.eye(hermite.MAX_NODES), atol=1e-12)
    assert weights.sum() == pytest.approx(1, abs=1e-15)
    np.testing.assert_array_equal(nodes, -nodes[::-1])


@pytest.mark.parametrize("n", [0, -1, 2.5, 257, "4", True])
def test_quadrature_refuses(n):
    with pytest.raises(InputError, match="n must be"):
        hermite.gauss_hermite(n)


@pytest.mark.parametrize(("rank", "degree"), [(1, 5), (2, 4), (3, 3), (5, 2)])
def test_multi_indices_are_all_and_in_order(rank, degree):
    indices = hermite.multi_indices(rank, degree).tolist()
    assert len(indices) == math.comb(rank + degree, rank)
    assert indices == sorted(indices, key=lambda beta: (sum(beta), [-k for k in beta]))
    assert len(set(map(tuple, indices))) == len(indices)


@pytest.mark.parametrize(
    ("exponents", "label"),
    [((0,), "1"), ((0, 0, 0), "1"), ((1, 3), "h1(z1)h3(z2)"), ((0, 12, 0), "h12(z2)")],
)
def test_labels(exponents, label):
    assert hermite.mode_label(exponents) == label


@pytest.mark.parametrize("power", [0, 1, 2, 3, 8, 20])
def test_monomials_expand(power):
    expanded = hermite.hermite_values(POINTS, power) @ hermite.monomial_coefficients(power)
    scale = np.abs(hermite.hermite_values(POINTS, power)) @ hermite.monomial_coefficients(power)
    np.testing.assert_allclose(expanded - POINTS**power, 0, atol=1e-13 * scale.max())


def test_fourth_power_is_exact():
    expected = [3, 0, 6 * math.sqrt(2), 0, math.sqrt(24)]
    np.testing.assert_allclose(hermite.monomial_coefficients(4), expected, rtol=1e-15)


@given(j=st.integers(0, 10), k=st.integers(0, 10))
def test_products_linearise(j, k):
    nodes, weights = hermite.gauss_hermite(24)
    values = hermite.hermite_values(nodes, 20)
    projected = values[:, : j + k + 1].T @ (weights * values[:, j] * values[:, k])
    coefficients = hermite.product_coefficients(j, k)
    np.testing.assert_allclose(coefficients, projected, atol=1e-12 * coefficients.max())


@given(rank=st.integers(1, 4), degree=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_tensors_hold_the_expansion(rank, degree, seed):
    exponents, coefficients = random_expansion(rank, degree, seed)
    tensors = hermite.symmetric_tensors(exponents, coefficients)
    assert [tensor.shape for tensor in tensors] == [(rank,) * k for k in range(degree + 1)]
    degrees = exponents.sum(axis=1)
    for k, tensor in enumerate(tensors):
        assert np.square(tensor).sum() == pytest.approx(np.square(coefficients[degrees == k]).sum())
        for axis in range(k - 1):
            np.testing.assert_array_equal(tensor, np.swapaxes(tensor, axis, axis + 1))
    again, values = hermite.tensor_coefficients(tensors)
    np.testing.assert_array_equal(again, exponents)
    np.testing.assert_allclose(values, coefficients, rtol=1e-14)


def test_tensor_entries_follow_the_content_of_the_word():
    (_, _, _, cubic) = hermite.symmetric_tensors([[2, 1]], [math.sqrt(3)])
    expected = np.zeros((2, 2, 2))
    expected[0, 0, 1] = expected[0, 1, 0] = expected[1, 0, 0] = 1
    np.testing.assert_allclose(cubic, expected, rtol=1e-15)
    np.testing.assert_array_equal(hermite.multiplicities([[2, 1], [3, 0], [1, 2]]), [3, 1, 3])


def test_matrix_acts_on_every_index():
    rng = np.random.default_rng(0)
    tensor, matrix = rng.standard_normal((3, 3, 3)), rng.standard_normal((2, 3))
    expected = np.einsum("ai,bj,ck,ijk->abc", matrix, matrix, matrix, tensor)
    np.testing.assert_allclose(hermite.apply_to_indices(tensor, matrix), expected, rtol=1e-12)
    assert hermite.apply_to_indices(np.array(2.0), matrix) == 2.0


@pytest.mark.parametrize("nodes", [None, 40])
def test_projection_of_an_exponential(nodes):
    # exp(a z) has the coefficients exp(a^2 / 2) a^k / sqrt(k!) and the square norm exp(2 a^2).
    a, b, degree = 0.6, -0.4, 5
    exponents, coefficients, missed, _, error = hermite.project(
        lambda z: np.exp(z @ [a, b]), rank=2, degree=degree, nodes=nodes
    )
    j, k = exponents.T
    mean = math.exp((a**2 + b**2) / 2)
    expected = mean * a**j * b**k / np.sqrt(special.factorial(j) * special.factorial(k))
    np.testing.assert_allclose(coefficients, expected, atol=1e-14)
    tail = math.exp(2 * (a**2 + b**2)) - np.square(expected).sum()
    assert missed == pytest.approx(math.sqrt(tail), rel=1e-9)
    assert error < 1e-9


def test_projection_of_a_polynomial_misses_nothing():
    exponents, coefficients = random_expansion(3, 4, seed=1)

    def polynomial(z):
        values = hermite.hermite_values(z, 4)
        return sum(
            c * values[:, 0, i] * values[:, 1, j] * values[:, 2, k]
            for (i, j, k), c in zip(exponents, coefficients, strict=True)
        )

    _, projected, missed, *_ = hermite.project(polynomial, rank=3, degree=4, nodes=6)
    np.testing.assert_allclose(projected, coefficients, atol=1e-13)
    assert missed < 1e-12


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda z: z, "must map points of shape"),
        (lambda z: 1.0, "must map points of shape"),
        (lambda z: 1 / (z[:, 0] * 0 + np.inf) + np.nan, "must be finite"),
        (lambda z: ["a"] * len(z), "array of real numbers"),
        (lambda z: z[:, 0] + 1j, "array of real numbers"),
    ],
)
def test_projection_refuses_bad_functions(function, match):
    with pytest.raises(InputError, match=match):
        hermite.project(function, rank=2, degree=2)


@pytest.mark.parametrize(
    ("rank", "degree", "nodes"), [(2, 5, 5), (8, 7, None), (3, 2, 200), (1, 2, 0), (1, 2, 2.5)]
)
def test_projection_refuses_bad_grids(rank, degree, nodes):
    with pytest.raises(InputError, match="nodes must be"):
        hermite.project(lambda z: z[:, 0], rank, degree, nodes)
