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

from ..validation import FloatArray as Array
from .coupled import Race

SEED = 2**31 - 1
POINTS = 2**14
"""Starts at each dimension for one direction."""


def escape_time_quantiles(
    model: Race, student_rank: int, dims: Sequence[int], quantiles: Sequence[float], samples: int
) -> Array:
    """Quantiles of the escape times over initial conditions, shape (dims, saddle, quantiles)."""
    result = np.full((len(dims), model.rank, len(quantiles)), np.nan)
    for row, dim in zip(result, dims, strict=True):
        if model.rank == 1:
            gram0 = _one(student_rank, dim)
        else:
            gram0 = _starts(model.rank, student_rank, dim, samples)
        times = model.predict(gram0).escape_time
        for saddle, column in enumerate(times.T):
            visited = column[~np.isnan(column)]
            if len(visited):
                row[saddle] = np.quantile(visited, quantiles, method="inverted_cdf")
    return result


def _one(q: int, dim: int) -> Array:
    """As `_starts`, for one direction, from the distribution function of its odds."""
    from scipy.special import fdtri

    below = dim - q
    odds = fdtri(q, below, (np.arange(POINTS) + 0.5) / POINTS) * q / below
    return np.asarray(odds / (1 + odds))[:, None, None]


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
