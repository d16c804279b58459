r"""A target as one homogeneous polynomial per degree: its coefficients and gradient in any frame.

``p_k(z) = <T_k, z x ... x z> = sum_beta a_beta z^beta`` with
``a_beta = alpha_beta sqrt(k! / beta!)``: far fewer numbers than the ``r^k`` of a tensor. A frame B
turns p into ``y -> p(B y)``, which is done by shears ``z_a -> z_a + t z_b``, factors of B.

In a frame [U, V] of what is learned and what is not, with ``D = B diag(F) B^T`` for the overlaps D
of V, the gradient H of h is
``B^T H B = sum_gamma w_gamma F^gamma (grad a)_gamma (grad a)_gamma^T``. Runs come last in every
shape, unless they are named first.
"""

from __future__ import annotations

from copy import copy
from functools import lru_cache
from math import comb, factorial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..validation import FloatArray as Array
from ..validation import IntArray as Index
from .basis import multi_indices

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from .target import Target


class Monomials:
    """Monomials of some degrees, and how a change of variables acts on their coefficients.

    Shapes: modes (n, rank); weight (n,), of ``a^2`` in the norm; lower (g, rank), monomials of one
    degree less; successor (g, rank), rows of those times each variable; root (g,), their weights in
    ``<grad p, grad p>``.
    """

    def __init__(self, rank: int, degrees: tuple[int, ...]) -> None:
        every = multi_indices(rank, max(degrees))
        size = every.sum(axis=1)
        self.rank, self.degrees = rank, degrees
        self.modes: Index = np.concatenate([every[size == k] for k in degrees]).astype(np.int64)
        self.lower: Index = np.concatenate([every[size == k - 1] for k in degrees]).astype(np.int64)
        # Modes as numbers in base degree + 1, by which their rows are found.
        self._radix = (max(degrees) + 1) ** np.arange(rank)
        codes = self.modes @ self._radix
        self._order = np.argsort(codes)
        self._codes = codes[self._order]
        factorials = np.array([float(factorial(k)) for k in range(max(degrees) + 1)])
        self.weight: Array = factorials[self.modes].prod(1) / factorials[self.modes.sum(axis=1)]
        unit = np.eye(rank, dtype=np.int64)
        self.successor = np.stack([self.row(self.lower + unit[i]) for i in range(rank)], axis=1)
        own = self.lower.sum(axis=1)
        self.root: Array = factorials[self.lower].prod(1) / factorials[own] / (own + 1)
        self._moves: dict[tuple[range, int], csr_array] = {}
        self._powers: dict[range, tuple[Index, Index]] = {}
        self._near: dict[int, tuple[Index, Monomials]] = {}

    def row(self, modes: Index) -> Index:
        """Rows of some monomials."""
        return np.asarray(self._order[np.searchsorted(self._codes, modes @ self._radix)])

    def slope(self, coefficients: Array, i: int) -> Array:
        """Coefficients of the derivative by a variable, (g, runs)."""
        return (self.lower[:, i, None] + 1) * coefficients[self.successor[:, i]]

    def slopes(self, coefficients: Array) -> Array:
        """Coefficients of the derivatives by every variable, (rank, g, runs)."""
        return np.asarray((self.lower.T[:, :, None] + 1) * coefficients[self.successor.T])

    def near(self, k: int) -> tuple[Index, Monomials]:
        """Rows of the monomials of degree 2 at most in the variables from k on, and their table."""
        if k not in self._near:
            few = copy(self)
            few._moves, few._powers = {}, {}
            rows = np.flatnonzero(self.modes[:, k:].sum(axis=1) <= 2)
            low = self.lower[:, k:].sum(axis=1) <= 1
            row = np.full(len(self.modes), -1)
            row[rows] = np.arange(len(rows))
            few.modes, few.weight = self.modes[rows], self.weight[rows]
            few.lower, few.root = self.lower[low], self.root[low]
            few.successor = row[self.successor[low]]
            self._near[k] = rows, few
        return self._near[k]

    def move(self, coefficients: Array, moved: range, b: int, by: Array) -> Array:
        """Substitute ``z_a + by_a z_b`` for all a in `moved`, by of shape (moved, runs)."""
        if not by.any():
            return coefficients
        # With z_a = by_a y_a the move is by 1, one matrix for all runs; 0 becomes very small.
        least = 10.0 ** (-240 / max(self.degrees))
        by = np.where(np.abs(by) < least, least, by)
        distinct, which = self._distinct(moved)
        scale = powers(by, distinct)[which]
        return np.asarray(self._by_one(moved, b) @ (coefficients * scale) / scale)

    def _distinct(self, of: range) -> tuple[Index, Index]:
        """Distinct powers of some variables, and which of them each monomial has."""
        if of not in self._powers:
            distinct, which = np.unique(
                self.modes[:, of.start : of.stop], axis=0, return_inverse=True
            )
            self._powers[of] = distinct, which.ravel()
        return self._powers[of]

    def _by_one(self, moved: range, b: int) -> csr_array:
        """Matrix (n, n) that substitutes ``z_a + z_b`` for each ``z_a``."""
        if (moved, b) not in self._moves:
            from scipy.sparse import csr_array, eye_array

            n, top = len(self.modes), range(max(self.degrees) + 1)
            binomial = np.array([[float(comb(i, j)) for j in top] for i in top])
            matrix, unit = csr_array(eye_array(n)), np.eye(self.rank, dtype=np.int64)
            for a in moved:
                source, power = np.nonzero(self.modes[:, a, None] >= np.array(top))
                shift = unit[b] - unit[a]
                target = self.row(self.modes[source] + power[:, None] * shift)
                choices = binomial[self.modes[source, a], power]
                matrix = csr_array((choices, (target, source)), shape=(n, n)) @ matrix
            self._moves[moved, b] = matrix
        return self._moves[moved, b]

    def substitute(self, coefficients: Array, frames: Array, first: int = 0) -> Array:
        """Coefficients (n, runs) of ``y -> p(frame y)`` for frames (runs, m, m)."""
        matrix, (runs, m, _) = frames.copy(), frames.shape
        order = np.tile(np.arange(m), (runs, 1))
        # frame = (permutation) (unit lower) (diagonal) (unit upper), with the largest pivots first
        every = np.arange(runs)
        for j in range(m):
            pivot = j + np.abs(matrix[:, j:, j]).argmax(axis=1)
            matrix[every, pivot], matrix[:, j] = matrix[:, j], matrix[every, pivot]
            order[every, pivot], order[:, j] = order[:, j], order[every, pivot]
            matrix[:, j + 1 :, j] /= matrix[:, j, j, None]
            matrix[:, j + 1 :, j + 1 :] -= matrix[:, j + 1 :, j, None] * matrix[:, j, None, j + 1 :]
        moved = np.repeat(coefficients, runs // coefficients.shape[1], axis=1)
        for change in np.unique(order[(order != np.arange(m)).any(axis=1)], axis=0):
            modes, here = self.modes.copy(), (order == change).all(axis=1)
            modes[:, first + change] = self.modes[:, first : first + m]
            moved[:, here] = moved[:, here][self.row(modes)]
        matrix = matrix.transpose(1, 2, 0)
        diagonal = matrix[range(m), range(m)]
        for b in range(m - 1):
            after = range(first + b + 1, first + m)
            moved = self.move(moved, after, first + b, matrix[b + 1 :, b])
        moved = moved * powers(diagonal, self.modes[:, first : first + m])
        for b in range(m - 1, 0, -1):
            before = range(first, first + b)
            moved = self.move(moved, before, first + b, matrix[:b, b] / diagonal[:b])
        return moved


def powers(of: Array, modes: Index) -> Array:
    """Products ``prod_a of_a^modes_a``, (n, runs); of (m, runs); modes (n, m)."""
    table = np.ones((modes.max(initial=0) + 1, *of.shape))
    for k in range(1, len(table)):
        np.multiply(table[k - 1], of, out=table[k])
    result = table[modes[:, 0], 0] if len(of) else np.ones((len(modes), of.shape[1]))
    for a in range(1, len(of)):
        result *= table[modes[:, a], a]
    return np.asarray(result)


@lru_cache(maxsize=16)
def monomials(rank: int, degrees: tuple[int, ...]) -> Monomials:
    """`Monomials`, remembered."""
    return Monomials(rank, degrees)


def polynomial(target: Target) -> tuple[Monomials, Array]:
    """Monomials of the degrees of a target, and its coefficients; the constant is left out."""
    if not len(target.modes):
        _ = target.tensors  # says which targets have them
    degree = target.modes.sum(axis=1)
    table = monomials(target.rank, tuple(np.unique(degree[degree > 0]).tolist()))
    rows = table.row(target.modes[degree > 0].astype(np.int64))
    coefficients = np.zeros(len(table.modes))
    coefficients[rows] = target.coefficients[degree > 0] / np.sqrt(table.weight[rows])
    return table, coefficients


def twice(runs: NDArray[np.intp]) -> NDArray[np.intp]:
    """Name a run that is alone twice: sums over a last axis of length 1 are rounded otherwise."""
    return np.repeat(runs, 2) if len(runs) == 1 else runs


def product(A: Array, B: Array) -> Array:
    """Multiply matrices, shapes (i, j, n), (j, k, n)."""
    return np.asarray(np.einsum("ij...,jk...->ik...", A, B))


def _cholesky(A: Array) -> tuple[Array, Array]:
    """B, unit lower triangular, and F with ``A = B diag(F) B^T``; shapes (m, m, n), (m, n)."""
    m = len(A)
    rest, B, F = A.copy(), np.zeros(A.shape), np.empty(A.shape[1:])
    for j in range(m):
        # Without roots, so that directions of overlap 0 need no division.
        F[j], B[j, j] = np.maximum(rest[j, j], 0.0), 1.0
        B[j + 1 :, j] = rest[j + 1 :, j] / np.where(F[j] > 0, F[j], np.inf)
        rest[j + 1 :, j + 1 :] -= B[j + 1 :, j, None] * rest[None, j + 1 :, j]
    return B, F


def overlaps(L: Array) -> Array:
    """``D = L (I + L^T L)^-1 L^T``."""
    B, F = _cholesky(np.eye(L.shape[1])[:, :, None] + product(L.swapaxes(0, 1), L))
    Z = L.copy()
    for j in range(1, L.shape[1]):
        Z[:, j] -= np.einsum("pon,on->pn", Z[:, :j], B[j, :j])
    return product(Z / F, Z.swapaxes(0, 1))


def hessian(table: Monomials, coefficients: Array, D: Array) -> tuple[Array, Array]:
    """``V^T H V`` and ``V^T H U`` for the overlaps D (m, m, n) of the last m variables."""
    m, rank = len(D), table.rank
    k = rank - m
    B, F = _cholesky(D)
    for b in range(m - 1):
        after = range(k + b + 1, rank)
        coefficients = table.move(coefficients, after, k + b, B[b + 1 :, b])
    slopes = table.slopes(coefficients)
    weighted = slopes[k:] * (table.root[:, None] * powers(F, table.lower[:, k:]))
    H = np.einsum("ign,jgn->ijn", weighted, slopes)
    # B^-T from the left, and B^-1 from the right on the part of V
    for o in range(m - 1, 0, -1):
        H[:o] -= B[o, :o, None] * H[o]
    for o in range(m - 1, 0, -1):
        H[:, k : k + o] -= H[:, k + o, None] * B[o, :o]
    return H[:, k:], H[:, :k]


def tilted(theta: Array) -> Array:
    """Cayley's rotation (n, rank, rank) that takes U nearly to ``U + V theta``, theta (m, k, n)."""
    return rotation(generator(theta))


def generator(theta: Array) -> Array:
    """Skew matrices (n, rank, rank) of a frame [U, V] whose U begins to move by ``V theta``."""
    m, k, n = theta.shape
    skew = np.zeros((n, k + m, k + m))
    skew[:, k:, :k] = theta.transpose(2, 0, 1)
    skew[:, :k, k:] = -theta.transpose(2, 1, 0)
    return skew


def rotation(skew: Array) -> Array:
    """Cayley's rotations of skew matrices (n, rank, rank)."""
    unit = np.eye(skew.shape[1])
    return np.asarray(np.linalg.solve(unit - skew / 2, unit + skew / 2))


def response(table: Monomials, coefficients: Array, D: Array) -> Array:
    """Matrix (n, m k, m k) of how ``V^T H U`` changes with tilts."""
    m, n = len(D), coefficients.shape[1]
    k = table.rank - m
    parts = []
    for b, j in np.ndindex(m, k):
        change = np.zeros(coefficients.shape)
        change[table.successor[:, j]] += table.slope(coefficients, k + b)
        change[table.successor[:, k + b]] -= table.slope(coefficients, j)
        parts += [coefficients + change, coefficients - change]
    # H is quadratic in the coefficients, so that this difference is its derivative.
    push = hessian(table, np.concatenate(parts, axis=1), np.tile(D, 2 * m * k))[1]
    push = push.reshape(m * k, m * k, 2, n)
    return np.asarray((push[:, :, 0] - push[:, :, 1]).transpose(2, 0, 1) / 2)


def resting_tilt(inverse: Array, push: Array) -> Array:
    """Tilt (m, k, n) at which the push vanishes."""
    return np.asarray(-np.einsum("nab,bn->an", inverse, push.reshape(-1, push.shape[2]))).reshape(
        push.shape
    )


def criticals(
    table: Monomials, coefficients: Array, frames: Array, k: int, iterations: int
) -> Array:
    """Turn frames [U, V] until U is critical, by Newton's method: it need not attract."""
    frames, m = frames.copy(), table.rank - k
    floor = 1e-13 * float((table.weight * coefficients**2).max())
    moving = twice(np.arange(len(frames)))
    for _ in range(iterations):
        here = table.substitute(coefficients[:, None], frames[moving])
        D = np.zeros((m, m, len(moving)))
        push = hessian(table, here, D)[1]
        far = twice(np.flatnonzero(np.abs(push).max(axis=(0, 1)) >= floor))
        moving, here, D, push = moving[far], here[:, far], D[:, :, far], push[:, :, far]
        if not len(moving):
            break
        # Near a critical subspace the push is linear in the tilt: Newton, in short steps.
        inverse: Array = np.linalg.pinv(response(table, here, D), rcond=1e-6).astype(np.float64)
        theta = resting_tilt(inverse, push)
        theta *= np.minimum(1.0, 0.1 / np.maximum(np.abs(theta).max(axis=(0, 1)), 1e-300))
        frames[moving] = frames[moving] @ tilted(theta)
    return frames
