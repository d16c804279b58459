r"""A target as one homogeneous polynomial per degree, and its coefficients in other frames.

``p_k(z) = <T_k, z x ... x z> = sum_beta a_beta z^beta`` with
``a_beta = alpha_beta sqrt(k! / beta!)``: far fewer numbers than the ``r^k`` of a tensor. A frame B
turns p into ``y -> p(B y)``, which is done by shears ``z_a -> z_a + t z_b``, factors of B.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb, factorial

import numpy as np
from numpy.typing import NDArray

from .basis import multi_indices
from .target import Target

__all__ = ["Monomials", "monomials", "polynomial", "substitute"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class Monomials:
    """Monomials of some degrees, and which of them shears and derivatives connect.

    Shapes: modes (n, rank); weight (n,), of ``a^2`` in the norm; the shear with the number
    ``a * rank + b`` adds ``factor * t**power`` times ``source`` to ``place``, from one entry of
    `start` to the next, in an order in which it can be done in place; lower (g, rank), monomials of
    one degree less; successor (g, rank), those times each variable.
    """

    def __init__(self, rank: int, degrees: tuple[int, ...]) -> None:
        every = multi_indices(rank, max(degrees))
        size = every.sum(axis=1)
        self.rank, self.degrees = rank, degrees
        self.modes: Index = np.concatenate([every[size == k] for k in degrees]).astype(np.int64)
        self.lower: Index = np.concatenate([every[size == k - 1] for k in degrees]).astype(np.int64)
        self._radix = (max(degrees) + 1) ** np.arange(rank)
        codes = self.modes @ self._radix
        self._order = np.argsort(codes)
        self._codes = codes[self._order]
        factorials = np.array([float(factorial(k)) for k in range(max(degrees) + 1)])
        self.weight: Array = factorials[self.modes].prod(1) / factorials[self.modes.sum(axis=1)]
        unit = np.eye(rank, dtype=np.int64)
        self.successor = np.stack([self.row(self.lower + unit[i]) for i in range(rank)], axis=1)
        # w_gamma, and for each monomial one of a degree less and the last variable, which it lacks.
        own = self.lower.sum(axis=1)
        self.root: Array = factorials[self.lower].prod(1) / factorials[own] / (own + 1)
        self.last = np.zeros((len(self.modes), 2), dtype=np.int64)
        for i in range(rank):
            self.last[self.successor[:, i], 0] = np.arange(len(self.lower))
            self.last[self.successor[:, i], 1] = i
        top = 2 * max(degrees) + 1
        binomial = np.array([[float(comb(n, k)) for k in range(top)] for n in range(top)])
        start, parts = [0], []
        for a in range(rank):
            for b in range(rank):
                power = np.arange(1, max(degrees) + 1)
                place, step = np.nonzero(self.modes[:, b, None] >= power) if a != b else ([], [])
                place, step = np.asarray(place, dtype=np.int64), np.asarray(step, dtype=np.int64)
                order = np.argsort(self.modes[place, a], kind="stable")
                place, step = place[order], power[step[order]]
                source = self.row(self.modes[place] + step[:, None] * (unit[a] - unit[b]))
                factor = binomial[self.modes[place, a] + step, step]
                parts.append((place, source, step, factor))
                start.append(start[-1] + len(place))
        self.start = np.array(start)
        self.place, self.source, self.power, self.factor = map(
            np.concatenate, zip(*parts, strict=True)
        )

    def row(self, modes: Index) -> Index:
        """Rows of some monomials."""
        return np.asarray(self._order[np.searchsorted(self._codes, modes @ self._radix)])

    def shear(self, coefficients: Array, a: int, b: int, t: float) -> Array:
        """Coefficients of p with ``z_a + t z_b`` in the place of ``z_a``."""
        at = slice(*self.start[a * self.rank + b : a * self.rank + b + 2])
        added = self.factor[at] * t ** self.power[at] * coefficients[self.source[at]]
        return coefficients + np.bincount(self.place[at], added, len(coefficients))


@lru_cache(maxsize=16)
def monomials(rank: int, degrees: tuple[int, ...]) -> Monomials:
    """`Monomials`, remembered."""
    return Monomials(rank, degrees)


def polynomial(target: Target) -> tuple[Monomials, Array]:
    """Monomials of the degrees of a target, and its coefficients; the constant is left out."""
    degree = target.modes.sum(axis=1)
    table = monomials(target.rank, tuple(sorted({int(k) for k in degree} - {0})))
    rows = table.row(target.modes[degree > 0].astype(np.int64))
    coefficients = np.zeros(len(table.modes))
    coefficients[rows] = target.coefficients[degree > 0] / np.sqrt(table.weight[rows])
    return table, coefficients


def substitute(table: Monomials, coefficients: Array, frame: Array) -> Array:
    """Coefficients of ``y -> p(frame y)``.

    Shapes: frame (rank, rank), not singular.
    """
    rank = table.rank
    matrix = frame.copy()
    order = list(range(rank))
    # frame = (permutation) (unit lower) (diagonal) (unit upper), with the largest pivots first
    for j in range(rank):
        pivot = j + int(np.abs(matrix[j:, j]).argmax())
        matrix[[j, pivot]], (order[j], order[pivot]) = matrix[[pivot, j]], (order[pivot], order[j])
        matrix[j + 1 :, j] /= matrix[j, j]
        matrix[j + 1 :, j + 1 :] -= np.outer(matrix[j + 1 :, j], matrix[j, j + 1 :])
    modes = np.empty_like(table.modes)
    modes[:, :] = table.modes[:, order]
    moved = np.zeros_like(coefficients)
    moved[table.row(modes)] = coefficients
    for b in range(rank):
        for a in range(b + 1, rank):
            if matrix[a, b]:
                moved = table.shear(moved, a, b, matrix[a, b])
    moved = moved * np.prod(np.diag(matrix) ** table.modes, axis=1)
    for b in range(rank - 1, -1, -1):
        for a in range(b):
            if matrix[a, b]:
                moved = table.shear(moved, a, b, matrix[a, b] / matrix[a, a])
    return moved
