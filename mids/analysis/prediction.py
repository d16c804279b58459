"""What a theory predicts for a batch of runs, and the start it predicts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..schema import LEVELS
from .stay import predicted_level, stays

__all__ = ["Prediction", "odds"]

Array = NDArray[np.float64]


def _unknown(rows: NDArray[np.int64], time: Array) -> Array:
    return np.full(len(rows), np.nan)


@dataclass(frozen=True)
class Prediction:
    """The saddles of each run in the order in which they are left; rows padded with NaN.

    Shapes: rank (n, saddle); exponent (n, saddle); saddle_loss (n, saddle); enter_time,
    leave_time (n, saddle); escape_time (n, saddle).
    """

    rank: Array
    exponent: Array
    saddle_loss: Array
    enter_time: Array
    leave_time: Array
    escape_time: Array
    curve: Callable[[NDArray[np.int64], Array], Array] = _unknown

    @classmethod
    def empty(cls, n: int, saddles: int) -> Prediction:
        """Start from NaN everywhere."""
        fields = (np.full((n, saddles), np.nan) for _ in range(6))
        return cls(*fields)  # type: ignore[arg-type]

    def visited(self, overlaps: Array) -> NDArray[np.bool_]:
        """Tell which of the saddles a run stays at, by the rule of `stays`.

        Shapes: overlaps (n, direction); returns (n, saddle).
        """
        known = ~np.isnan(self.rank)
        following = np.where(known, self.rank, 0).astype(np.int64)
        beyond = np.take_along_axis(overlaps >= min(LEVELS), following, axis=1)
        return known & stays(self.enter_time, np.where(beyond, 0.0, self.leave_time))

    def loss(self, time: Array | None, crossing: Array | None = None) -> Array:
        """Level of each stay; that of the saddle where a later one is never left.

        Shapes: crossing (n, direction, level); returns (n, saddle).
        """
        result = self.saddle_loss.copy()
        for j in range(result.shape[1]):
            enter, leave = self.enter_time[:, j], self.leave_time[:, j]
            known = (enter == 0) | ((enter < leave) & np.isfinite(self.escape_time[:, j]))
            rows = np.flatnonzero(known)
            if not len(rows):
                continue
            measured = None
            if crossing is not None:
                k = self.rank[rows, j].astype(np.int64)
                inner = (k > 0) & (k < crossing.shape[1])
                k = np.where(inner, k, 1 % crossing.shape[1])
                ends = crossing[rows, k - 1, -1], crossing[rows, k, 0]
                measured = np.where(inner, ends[0], np.nan), np.where(inner, ends[1], np.nan)

            def curve(index: NDArray[np.int64], at: Array, rows: NDArray[np.intp] = rows) -> Array:
                return self.curve(rows[index], at)

            found = predicted_level(curve, time, enter[rows], leave[rows], measured)
            result[rows, j] = np.where(np.isnan(found), result[rows, j], found)
        return result


def odds(gram: Array) -> Array:
    """Return ``X = G (I - G)^{-1}``, the odds of the overlaps, for G of shape (n, rank, rank).

    Overlaps that rounding has pushed out of [0, 1] are moved to its ends; those within 1e-16 of 1
    count as that close.
    """
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    scaled = values / np.maximum(1.0 - values, 1e-16)
    return np.asarray((vectors * scaled[:, None, :]) @ vectors.swapaxes(1, 2))
