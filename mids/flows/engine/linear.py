"""Linear algebra of matrices of a few rows, in compiled code."""

from __future__ import annotations

import numpy as np

from .compile import inlined

ROUNDING = 2.0**-52


@inlined
def orthogonalise(columns: np.ndarray, size: int, count: int) -> None:
    """Rotate the first `count` columns of `size` until they are orthogonal to working accuracy."""
    for _ in range(40):
        done = True
        for p in range(count):
            for q in range(p + 1, count):
                pp = qq = pq = 0.0
                for k in range(size):
                    pp += columns[k, p] * columns[k, p]
                    qq += columns[k, q] * columns[k, q]
                    pq += columns[k, p] * columns[k, q]
                # Relative to both columns, so that small ones keep their digits beside large ones.
                if abs(pq) <= ROUNDING * np.sqrt(pp * qq):
                    continue
                done = False
                # Of two angles that do it the one up to 45 degrees: sweeps then converge.
                zeta = (qq - pp) / (2.0 * pq)
                t = 1.0 / (abs(zeta) + np.sqrt(1.0 + zeta * zeta))
                if zeta < 0.0:
                    t = -t
                c = 1.0 / np.sqrt(1.0 + t * t)
                s = c * t
                for k in range(size):
                    left, right = columns[k, p], columns[k, q]
                    columns[k, p] = c * left - s * right
                    columns[k, q] = s * left + c * right
        if done:
            return


@inlined
def complete(frame: np.ndarray, size: int, known: int) -> None:
    """Fill columns ``known, known + 1, ...`` to an orthonormal basis; re-orthonormalise all."""
    for i in range(size):
        if i >= known:
            # the coordinate axis furthest from the span of the columns so far
            best, least = 0, np.inf
            for k in range(size):
                total = 0.0
                for j in range(i):
                    total += frame[k, j] * frame[k, j]
                if total < least:
                    best, least = k, total
            for k in range(size):
                frame[k, i] = 0.0
            frame[best, i] = 1.0
        # Known columns are orthogonal up to rounding: one pass of Gram-Schmidt restores them.
        for _ in range(2 if i >= known else 1):
            for j in range(i):
                total = 0.0
                for k in range(size):
                    total += frame[k, i] * frame[k, j]
                for k in range(size):
                    frame[k, i] -= total * frame[k, j]
        total = 0.0
        for k in range(size):
            total += frame[k, i] * frame[k, i]
        total = 1.0 / np.sqrt(total)
        for k in range(size):
            frame[k, i] *= total


@inlined
def factorise(matrix: np.ndarray, pivot: np.ndarray, largest: np.ndarray, size: int) -> None:
    """Factorise the leading `size` rows and columns by Gauss elimination with scaled row pivoting.

    Rows may differ by 10^70: a row of large numbers must not become the pivot of a column in which
    it has a small one. `largest` is overwritten.
    """
    for i in range(size):
        largest[i] = 0.0
        for j in range(size):
            largest[i] = max(largest[i], abs(matrix[i, j]))
        largest[i] = 1.0 / largest[i]
    for k in range(size):
        best = k
        for i in range(k + 1, size):
            if abs(matrix[i, k]) * largest[i] > abs(matrix[best, k]) * largest[best]:
                best = i
        pivot[k] = best
        if best != k:
            # Whole rows, with their factors: `solve` then swaps all entries before it begins.
            largest[k], largest[best] = largest[best], largest[k]
            for j in range(size):
                matrix[k, j], matrix[best, j] = matrix[best, j], matrix[k, j]
        inverse = 1.0 / matrix[k, k]
        for i in range(k + 1, size):
            factor = matrix[i, k] * inverse
            if factor != 0.0:
                matrix[i, k] = factor
                for j in range(k + 1, size):
                    matrix[i, j] -= factor * matrix[k, j]
            else:
                matrix[i, k] = 0.0


@inlined
def solve(matrix: np.ndarray, pivot: np.ndarray, right: np.ndarray, size: int) -> None:
    """Solve for one right-hand side, in place."""
    for k in range(size):
        best = pivot[k]
        if best != k:
            right[k], right[best] = right[best], right[k]
    for i in range(size):
        total = right[i]
        for j in range(i):
            total -= matrix[i, j] * right[j]
        right[i] = total
    for i in range(size - 1, -1, -1):
        total = right[i]
        for j in range(i + 1, size):
            total -= matrix[i, j] * right[j]
        right[i] = total / matrix[i, i]
