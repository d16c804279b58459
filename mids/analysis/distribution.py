r"""The law of the escape times over random initial conditions.

With :math:`W(0)` uniform, :math:`X(0) = G (I - G)^{-1} = A^T B^{-1} A` for a Gaussian q x r matrix
A and an independent Wishart matrix B with d - r degrees of freedom. Successive Schur complements
are independent,

.. math:: x_j \sim \chi^2_{q - j} / \chi^2_{d - r - q + j + 1}, \qquad j = 0, 1, \dots

directions after j learned ones, about :math:`\chi^2_{q - j} / d`. Quantiles are those of the race
from initial conditions drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..flows.initial import draw_runs
from .race import Race

__all__ = ["escape_time_quantiles"]

Array = NDArray[np.float64]

SEED = 2**31 - 1  # apart from the seeds that people give to simulations


def escape_time_quantiles(
    model: Race, student_rank: int, dims: Sequence[int], quantiles: Sequence[float], samples: int
) -> Array:
    """Quantiles of the escape times over initial conditions, shape (dims, saddle, quantiles)."""
    result = np.full((len(dims), model.rank, len(quantiles)), np.nan)
    for row, dim in zip(result, dims, strict=True):
        M = draw_runs(model.rank, student_rank, dim, range(samples), SEED)
        times = model.predict(M @ M.swapaxes(1, 2)).escape_time
        for saddle, column in enumerate(times.T):
            visited = column[~np.isnan(column)]
            if len(visited):
                row[saddle] = np.quantile(visited, quantiles, method="inverted_cdf")
    return result
