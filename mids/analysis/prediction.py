"""What a theory predicts for a batch of runs, and the start it predicts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    loss : ndarray, shape (n, saddle)
        Loss on the plateau.
    escape_time : ndarray, shape (n, saddle)
        Time at which the next direction's overlap reaches 1/2; inf where it never does.
    """

    rank: Array
    exponent: Array
    loss: Array
    escape_time: Array

    @classmethod
    def empty(cls, n: int, saddles: int) -> Prediction:
        """Start from NaN everywhere."""
        return cls(*(np.full((n, saddles), np.nan) for _ in range(4)))


def odds(gram: Array) -> Array:
    """Return ``X = G (I - G)^{-1}``, the odds of the overlaps, for G of shape (n, rank, rank).

    Overlaps that rounding has pushed out of [0, 1] are moved to its ends; those within 1e-16 of 1
    count as that close.
    """
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    scaled = values / np.maximum(1.0 - values, 1e-16)
    return np.asarray((vectors * scaled[:, None, :]) @ vectors.swapaxes(1, 2))
