r"""The law of the escape times over random initial conditions.

With :math:`W(0)` uniform, :math:`X(0) = G (I - G)^{-1} = A^T B^{-1} A` for a Gaussian q x r matrix
A and an independent Wishart matrix B with d - r degrees of freedom. Successive Schur complements
are independent,

.. math:: x_j \sim \chi^2_{q - j} / \chi^2_{d - r - q + j + 1}, \qquad j = 0, 1, \dots

directions after j learned ones, about :math:`\chi^2_{q - j} / d`. Quantiles are those of the race
from starts spread evenly by a low-discrepancy sequence in the distribution functions of A and B.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .race import Race

__all__ = ["escape_time_quantiles"]

Array = NDArray[np.float64]

SEED = 2**31 - 1
POINTS = 2**14
"""Starts at each dimension where the directions decouple, fewer of those of many directions."""


def escape_time_quantiles(
    model: Race, student_rank: int, dims: Sequence[int], quantiles: Sequence[float], samples: int
) -> Array:
    """Quantiles of the escape times over initial conditions, shape (dims, saddle, quantiles)."""
    result = np.full((len(dims), model.rank, len(quantiles)), np.nan)
    for row, dim in zip(result, dims, strict=True):
        if model.method == "decoupled":
            gram0 = _successive(model.rank, student_rank, dim)
        else:
            gram0 = _starts(model.rank, student_rank, dim, samples)
        times = model.predict(gram0).escape_time
        for saddle, column in enumerate(times.T):
            visited = column[~np.isnan(column)]
            if len(visited):
                row[saddle] = np.quantile(visited, quantiles, method="inverted_cdf")
    return result


def _successive(r: int, q: int, dim: int) -> Array:
    """As `_starts`, spread most evenly in the Schur complements, that decide there."""
    from scipy.special import fdtri, ndtri
    from scipy.stats import qmc

    upper = np.triu_indices(r, 1)
    uniform = qmc.Sobol(r + len(upper[0]), rng=SEED).random(POINTS if r == 1 else POINTS // 4)
    T = np.zeros((len(uniform), r, r))
    T[:, upper[0], upper[1]] = ndtri(uniform[:, r:]) / np.sqrt(dim)
    for j in range(r):
        above, below = q - j, dim - r - q + j + 1
        odds = fdtri(above, below, uniform[:, j]) * above / below if above > 0 else 0.0
        T[:, j, j] = np.sqrt(odds)
    T[:, min(r, q) :] = 0.0
    gram = np.eye(r) + T @ T.swapaxes(1, 2)
    return np.asarray(T.swapaxes(1, 2) @ np.linalg.solve(gram, T))


def _starts(r: int, q: int, dim: int, points: int) -> Array:
    """Evenly spread draws of G(0), shape (points, r, r)."""
    from scipy.special import chdtri, ndtri
    from scipy.stats import qmc

    triangle = np.tril_indices(q, -1)
    sobol = qmc.Sobol(q * r + q + len(triangle[0]), rng=SEED)
    uniform = sobol.random_base2((points - 1).bit_length())[:points]
    A = ndtri(uniform[:, : q * r]).reshape(points, q, r)
    L = np.zeros((points, q, q))  # Bartlett's factor of B
    L[:, range(q), range(q)] = np.sqrt(
        chdtri(dim - r - np.arange(q), 1 - uniform[:, q * r : q * r + q])
    )
    L[:, triangle[0], triangle[1]] = ndtri(uniform[:, q * r + q :])
    scaled = np.linalg.solve(L, A)
    gram = np.eye(q) + scaled @ scaled.swapaxes(1, 2)
    return np.asarray(scaled.swapaxes(1, 2) @ np.linalg.solve(gram, scaled))
