r"""The orthonormal Hermite basis of :math:`L^2(\gamma_r)`, its quadrature and its tensors.

:math:`h_k` is the probabilists' Hermite polynomial :math:`He_k` divided by :math:`\sqrt{k!}`, and
:math:`h_\beta(z) = \prod_i h_{\beta_i}(z_i)` for a multi-index :math:`\beta` (paper section 2).
The degree-:math:`k` part of a function is also held as the symmetric tensor :math:`T_k` whose
entry at an index word of content :math:`\beta` is :math:`\alpha_\beta / \sqrt{k! / \beta!}`, so
that :math:`\|T_k\|_F^2 = \sum_{|\beta| = k} \alpha_\beta^2` and a rotation of the variables acts
on every index of :math:`T_k`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from .. import validation
from ..errors import InputError
from ..validation import FloatArray, IntArray

__all__ = [
    "apply_to_indices",
    "gauss_hermite",
    "hermite_values",
    "mode_label",
    "monomial_coefficients",
    "multi_indices",
    "multiplicities",
    "product_coefficients",
    "project",
    "symmetric_tensors",
    "tensor_coefficients",
]

MAX_NODES = 256
"""Largest quadrature: beyond it the outermost weights underflow double precision."""
MAX_POINTS = 5_000_000
"""Points of the largest quadrature grid."""


def hermite_values(z: ArrayLike, degree: int) -> FloatArray:
    r"""Evaluate :math:`h_0, \dots, h_p` by their three-term recurrence.

    Parameters
    ----------
    z : array_like of float, shape (...)
        Points.
    degree : int
        Highest degree :math:`p`.

    Returns
    -------
    numpy.ndarray, shape (..., degree + 1)
        ``result[..., k]`` is :math:`h_k(z)`.

    Examples
    --------
    >>> hermite_values(2.0, 3).round(6).tolist()  # 1, z, (z^2 - 1)/sqrt(2), (z^3 - 3z)/sqrt(6)
    [1.0, 2.0, 2.12132, 0.816497]
    """
    points = np.asarray(z, dtype=np.float64)
    values = np.ones((*points.shape, degree + 1))
    if degree >= 1:
        values[..., 1] = points
    for k in range(1, degree):
        values[..., k + 1] = (
            points * values[..., k] - math.sqrt(k) * values[..., k - 1]
        ) / math.sqrt(k + 1)
    return values


def gauss_hermite(n: int) -> tuple[FloatArray, FloatArray]:
    """Return the Gauss quadrature of the standard normal law.

    Parameters
    ----------
    n : int
        Number of nodes, 1 to 256. Polynomials of degree up to ``2 n - 1`` are integrated exactly.

    Returns
    -------
    nodes, weights : numpy.ndarray, shape (n,)
        Increasing nodes, symmetric about 0, and weights that sum to 1.

    Raises
    ------
    InputError
        If `n` is not an integer from 1 to 256.

    Examples
    --------
    >>> nodes, weights = gauss_hermite(3)
    >>> nodes.round(6).tolist(), weights.round(6).tolist()
    ([-1.732051, 0.0, 1.732051], [0.166667, 0.666667, 0.166667])
    """
    n = validation.integer(n, "n", at_least=1)
    if n > MAX_NODES:
        raise InputError(f"n must be at most {MAX_NODES} quadrature nodes, got {n}; use fewer")
    off_diagonal = np.sqrt(np.arange(1, n))
    nodes = np.linalg.eigvalsh(np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1))
    nodes = (nodes - nodes[::-1]) / 2
    # Christoffel numbers: accurate for each weight, where eigenvectors lose the small ones.
    return nodes, 1 / np.square(hermite_values(nodes, n - 1)).sum(axis=1)


def _compositions(rank: int, degree: int) -> Iterator[tuple[int, ...]]:
    if rank == 1:
        yield (degree,)
        return
    for first in range(degree, -1, -1):
        for rest in _compositions(rank - 1, degree - first):
            yield (first, *rest)


def multi_indices(rank: int, degree: int) -> IntArray:
    """List all multi-indices up to a degree in the canonical order of modes.

    Parameters
    ----------
    rank : int
        Number of variables.
    degree : int
        Highest total degree.

    Returns
    -------
    numpy.ndarray of int64, shape (n, rank)
        By total degree, then lexicographically descending.

    Examples
    --------
    >>> multi_indices(2, 2).tolist()
    [[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]]
    """
    return np.array(
        [beta for k in range(degree + 1) for beta in _compositions(rank, k)], dtype=np.int64
    )


def mode_label(exponents: Sequence[int]) -> str:
    """Return the readable name of a mode.

    Parameters
    ----------
    exponents : sequence of int
        The multi-index of the mode.

    Returns
    -------
    str
        The product of its one-variable polynomials, ``"1"`` for the constant.

    Examples
    --------
    >>> mode_label((1, 0, 3)), mode_label((0, 0))
    ('h1(z1)h3(z3)', '1')
    """
    return "".join(f"h{k}(z{i})" for i, k in enumerate(exponents, start=1) if k) or "1"


def monomial_coefficients(power: int) -> FloatArray:
    r"""Expand a power of one variable in the Hermite basis.

    .. math:: z^n = \sum_m \frac{n!}{2^m m! \sqrt{(n - 2m)!}} h_{n - 2m}(z)

    Parameters
    ----------
    power : int
        The exponent :math:`n`.

    Returns
    -------
    numpy.ndarray, shape (power + 1,)
        Coefficients of :math:`h_0, \dots, h_n`.

    Examples
    --------
    >>> monomial_coefficients(2).round(6).tolist()  # z^2 = 1 + sqrt(2) h2
    [1.0, 0.0, 1.414214]
    """
    result = np.zeros(power + 1)
    for m in range(power // 2 + 1):
        degree = power - 2 * m
        # He coefficients are integers: all rounding is in the last square root.
        integer = math.factorial(power) // (2**m * math.factorial(m) * math.factorial(degree))
        result[degree] = integer * math.sqrt(math.factorial(degree))
    return result


def product_coefficients(j: int, k: int) -> FloatArray:
    r"""Expand the product of two Hermite polynomials of the same variable.

    .. math:: h_j h_k = \sum_m m! \binom{j}{m} \binom{k}{m}
              \sqrt{\frac{(j + k - 2m)!}{j! \, k!}} \, h_{j + k - 2m}

    Parameters
    ----------
    j, k : int
        The degrees of the factors.

    Returns
    -------
    numpy.ndarray, shape (j + k + 1,)
        Coefficients of :math:`h_0, \dots, h_{j + k}`.

    Examples
    --------
    >>> product_coefficients(1, 1).round(6).tolist()  # z * z = 1 + sqrt(2) h2
    [1.0, 0.0, 1.414214]
    """
    result = np.zeros(j + k + 1)
    for m in range(min(j, k) + 1):
        degree = j + k - 2 * m
        integer = math.factorial(m) * math.comb(j, m) * math.comb(k, m)
        ratio = math.factorial(degree) / (math.factorial(j) * math.factorial(k))
        result[degree] = integer * math.sqrt(ratio)
    return result


def multiplicities(exponents: ArrayLike) -> FloatArray:
    r"""Return the number :math:`k! / \beta!` of index words of content :math:`\beta`.

    Parameters
    ----------
    exponents : array_like of int, shape (n, rank)
        Multi-indices.

    Returns
    -------
    numpy.ndarray, shape (n,)
        How many entries of the tensor belong to each mode.

    Examples
    --------
    >>> multiplicities([[2, 0], [1, 1]]).tolist()
    [1.0, 2.0]
    """
    return np.array(
        [
            math.factorial(sum(beta)) / math.prod(map(math.factorial, beta))
            for beta in np.asarray(exponents).tolist()
        ]
    )


def symmetric_tensors(exponents: ArrayLike, coefficients: ArrayLike) -> tuple[FloatArray, ...]:
    r"""Return the symmetric tensors :math:`T_0, \dots, T_p` of a Hermite expansion.

    Parameters
    ----------
    exponents : array_like of int, shape (n, rank)
        Distinct multi-indices.
    coefficients : array_like of float, shape (n,)
        Their Hermite coefficients :math:`\alpha_\beta`.

    Returns
    -------
    tuple of numpy.ndarray
        ``result[k]`` has `k` axes of size `rank`; :math:`p` is the highest degree present.

    Examples
    --------
    >>> constant, linear, quadratic = symmetric_tensors([[1, 1]], [1.0])  # h1(z1) h1(z2)
    >>> quadratic.round(6).tolist()
    [[0.0, 0.707107], [0.707107, 0.0]]
    """
    betas = np.asarray(exponents, dtype=np.int64)
    alphas = np.asarray(coefficients, dtype=np.float64)
    rank = betas.shape[1]
    degrees = betas.sum(axis=1)
    entries = alphas / np.sqrt(multiplicities(betas))
    tensors = []
    for k in range(int(degrees.max(initial=0)) + 1):
        chosen = degrees == k
        if not chosen.any():
            tensors.append(np.zeros((rank,) * k))
            continue
        # The content of an index word is the sum of its letters' keys, in base k + 1.
        letters = (k + 1) ** np.arange(rank, dtype=np.int64)
        words = np.zeros((), dtype=np.int64)
        for _ in range(k):
            words = words[..., np.newaxis] + letters
        keys = betas[chosen] @ letters
        order = np.argsort(keys)
        keys, values = keys[order], entries[chosen][order]
        place = np.minimum(np.searchsorted(keys, words), keys.size - 1)
        tensors.append(np.where(keys[place] == words, values[place], 0.0))
    return tuple(tensors)


def tensor_coefficients(tensors: Sequence[FloatArray]) -> tuple[IntArray, FloatArray]:
    r"""Return the Hermite expansion of symmetric tensors; the inverse of `symmetric_tensors`.

    Parameters
    ----------
    tensors : sequence of numpy.ndarray
        :math:`T_0, \dots, T_p` with :math:`p \ge 1`; ``tensors[k]`` has `k` axes of size rank.

    Returns
    -------
    exponents : numpy.ndarray of int64, shape (n, rank)
        All of ``multi_indices(rank, p)``.
    coefficients : numpy.ndarray, shape (n,)
        Their coefficients, zeros included.

    Examples
    --------
    >>> exponents, coefficients = tensor_coefficients(symmetric_tensors([[1, 1]], [1.0]))
    >>> exponents[4].tolist(), float(coefficients[4].round(12))
    ([1, 1], 1.0)
    """
    rank = tensors[1].shape[0]
    exponents = multi_indices(rank, len(tensors) - 1)
    degrees = exponents.sum(axis=1)
    values = [
        tensors[k][tuple(np.repeat(np.arange(rank), beta))]
        for k, beta in zip(degrees.tolist(), exponents, strict=True)
    ]
    return exponents, np.array(values) * np.sqrt(multiplicities(exponents))


def apply_to_indices(tensor: FloatArray, matrix: FloatArray) -> FloatArray:
    """Apply a matrix to every index of a tensor.

    Parameters
    ----------
    tensor : numpy.ndarray, shape (r, ..., r)
        With any number of axes.
    matrix : numpy.ndarray, shape (q, r)
        The matrix.

    Returns
    -------
    numpy.ndarray, shape (q, ..., q)
        The contraction of `matrix` with each axis of `tensor`.

    Examples
    --------
    >>> apply_to_indices(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[2.0, 3.0]])).tolist()
    [[12.0]]
    """
    for _ in range(tensor.ndim):  # each pass consumes the first axis and appends its image
        tensor = np.tensordot(tensor, matrix, axes=(0, 1))
    return tensor


def project(
    function: Callable[[FloatArray], ArrayLike], rank: int, degree: int, nodes: int | None = None
) -> tuple[IntArray, FloatArray, float]:
    r"""Project a function on the Hermite polynomials up to a degree by quadrature.

    Parameters
    ----------
    function : callable
        Takes points of shape (n, rank) and returns values of shape (n,).
    rank : int
        Number of variables.
    degree : int
        Highest total degree kept.
    nodes : int, optional
        Quadrature nodes per variable, more than `degree`; by default as many as fit in five
        million points, at most 100.

    Returns
    -------
    exponents : numpy.ndarray of int64, shape (n, rank)
        All of ``multi_indices(rank, degree)``.
    coefficients : numpy.ndarray, shape (n,)
        :math:`E[f(z) h_\beta(z)]`.
    missed_norm : float
        :math:`L^2` norm of the function less its projection.

    Raises
    ------
    InputError
        If the function returns another shape or values that are not finite, or if the grid would
        be too small for the degree or too large.

    Examples
    --------
    >>> exponents, coefficients, missed_norm = project(lambda z: z[:, 0] ** 2, rank=1, degree=2)
    >>> coefficients[[0, 2]].round(6).tolist(), missed_norm < 1e-12
    ([1.0, 1.414214], True)
    """
    most = max(n for n in range(1, MAX_NODES + 1) if n**rank <= MAX_POINTS)
    n = min(most, 100) if nodes is None else validation.integer(nodes, "nodes", at_least=1)
    if not degree < n <= most:
        raise InputError(
            f"nodes must be above degree = {degree} and, for rank {rank}, at most {most} "
            f"({MAX_POINTS:,} points in all), got {n}; pass nodes in between or a lower degree"
        )
    x, weights = gauss_hermite(n)
    grid = np.stack(np.meshgrid(*[x] * rank, indexing="ij"), axis=-1).reshape(-1, rank)
    values = validation.finite_array(function(grid), "the function's result")
    if values.shape != grid.shape[:1]:
        raise InputError(
            f"the function must map points of shape {grid.shape} to values of shape "
            f"{grid.shape[:1]}, got {values.shape}; use its variables as z[..., 0], z[..., 1]"
        )
    # With the roots of the weights absorbed, the basis is orthonormal on the grid itself.
    roots = np.sqrt(weights)
    basis = roots[:, np.newaxis] * hermite_values(x, degree)
    values = values.reshape((n,) * rank) * functools.reduce(np.multiply.outer, [roots] * rank)
    exponents = multi_indices(rank, degree)
    kept = tuple(exponents.T)
    projection = np.zeros((degree + 1,) * rank)
    projection[kept] = apply_to_indices(values, basis.T)[kept]
    missed = np.linalg.norm(values - apply_to_indices(projection, basis))
    return exponents, projection[kept], float(missed)
