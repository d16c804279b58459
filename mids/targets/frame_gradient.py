r"""Gradient of h in a frame [U, V] of what is learned and what is not, and tilts of the frame.

With ``D = B diag(F) B^T`` for the overlaps D of V, and the coefficients a of ``p(B z)``
(`mids.targets.polynomial`), it is
``B^T H B = sum_gamma w_gamma F^gamma (grad a)_gamma (grad a)_gamma^T``. Runs come last in every
shape, unless they are named first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .polynomial import Monomials, powers

__all__ = [
    "criticals",
    "hessian",
    "inverse_response",
    "overlaps",
    "product",
    "response",
    "resting_tilt",
    "tilted",
    "twice",
]

Array = NDArray[np.float64]


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
    slopes = np.stack([table.slope(coefficients, i) for i in range(rank)])
    weighted = slopes[k:] * (table.root[:, None] * powers(F, table.lower[:, k:]))
    H = np.einsum("ign,jgn->ijn", weighted, slopes)
    # B^-T from the left, and B^-1 from the right on the part of V
    for o in range(m - 1, 0, -1):
        H[:o] -= B[o, :o, None] * H[o]
    for o in range(m - 1, 0, -1):
        H[:, k : k + o] -= H[:, k + o, None] * B[o, :o]
    return H[:, k:], H[:, :k]


def tilted(theta: Array) -> Array:
    """Rotation (n, rank, rank) of a frame [U, V] that takes U nearly to ``U + V theta``.

    Cayley's, which differs in the third order. Shapes: theta (m, k, n).
    """
    m, k, n = theta.shape
    half = np.zeros((n, k + m, k + m))
    half[:, k:, :k] = theta.transpose(2, 0, 1) / 2
    half[:, :k, k:] = -theta.transpose(2, 1, 0) / 2
    return np.asarray(np.linalg.solve(np.eye(k + m) - half, np.eye(k + m) + half))


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


def inverse_response(table: Monomials, coefficients: Array, D: Array) -> Array:
    """Inverse of `response`; none along which it does not change."""
    return np.asarray(np.linalg.pinv(response(table, coefficients, D), rcond=1e-6))


def resting_tilt(inverse: Array, push: Array) -> Array:
    """Tilt (m, k, n) at which the push vanishes."""
    return np.asarray(-np.einsum("nab,bn->an", inverse, push.reshape(-1, push.shape[2]))).reshape(
        push.shape
    )


def criticals(
    table: Monomials, coefficients: Array, frames: Array, k: int, floor: float, iterations: int
) -> Array:
    """Turn frames [U, V] until U is critical, by Newton's method, which needs no stability.

    Shapes: coefficients (n,); frames (runs, rank, rank).
    """
    frames, m = frames.copy(), table.rank - k
    moving = twice(np.arange(len(frames)))
    for _ in range(iterations):
        here = table.substitute(coefficients[:, None], frames[moving])
        D = np.zeros((m, m, len(moving)))
        push = hessian(table, here, D)[1]
        far = twice(np.flatnonzero(np.abs(push).max(axis=(0, 1)) >= floor))
        moving, here, D, push = moving[far], here[:, far], D[:, :, far], push[:, :, far]
        if not len(moving):
            break
        theta = resting_tilt(inverse_response(table, here, D), push)
        theta *= np.minimum(1.0, 0.1 / np.maximum(np.abs(theta).max(axis=(0, 1)), 1e-300))
        frames[moving] = frames[moving] @ tilted(theta)
    return frames
