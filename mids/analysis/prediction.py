"""What a theory predicts for a batch of runs, and the start it predicts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .stay import predicted_level

__all__ = ["Prediction", "odds"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """The saddles of each run in the order in which they are left; rows padded with NaN.

    Attributes
    ----------
    rank : ndarray, shape (n, saddle)
        Number of directions learned at the saddle.
    exponent : ndarray, shape (n, saddle)
        Information exponent relative to them; NaN where there is nothing left to learn.
    saddle_loss : ndarray, shape (n, saddle)
        Loss of the saddle itself, to which that on the plateau tends for long stays.
    enter_time, leave_time : ndarray, shape (n, saddle)
        Times at which the last direction's overlap has reached 0.9 (0 at the first saddle) and the
        next one's reaches 0.1.
    escape_time : ndarray, shape (n, saddle)
        Time at which the next direction's overlap reaches 1/2; inf where it never does.
    curves : dict
        Of each run, by its row, the predicted loss as a function of time.
    """

    rank: Array
    exponent: Array
    saddle_loss: Array
    enter_time: Array
    leave_time: Array
    escape_time: Array
    curves: dict[int, Callable[[Array], Array]] = field(default_factory=dict)

    @classmethod
    def empty(cls, n: int, saddles: int) -> Prediction:
        """Start from NaN everywhere."""
        fields = (np.full((n, saddles), np.nan) for _ in range(6))
        return cls(*fields)  # type: ignore[arg-type]

    def loss(self, time: Array | None) -> Array:
        """Level of each stay; that of the saddle where a later one is never left.

        Parameters
        ----------
        time : ndarray, optional
            Times at which the level would be measured.

        Returns
        -------
        ndarray, shape (n, saddle)
        """
        result = self.saddle_loss.copy()
        for row, curve in self.curves.items():
            enter, leave = self.enter_time[row], self.leave_time[row]
            known = (enter == 0) | ((enter < leave) & np.isfinite(self.escape_time[row]))
            for j in np.flatnonzero(known):
                result[row, j] = predicted_level(curve, time, enter[j], leave[j])
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
