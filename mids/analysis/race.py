"""The race: which direction a run learns next, and when, by the theory that the target allows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..targets.ladder import leaps
from ..targets.target import Target
from .coupled import Coupled
from .decoupled import Decoupled
from .prediction import Prediction, odds

__all__ = ["Race"]

Array = NDArray[np.float64]

ALIGNED = 0.02
"""Overlap at the start beyond which the off-diagonal part of H may count."""


class Race:
    """Theory of one target: `Decoupled` where its directions are, else `Coupled`."""

    def __init__(self, target: Target) -> None:
        self.rank = target.rank
        self.ladder = leaps(target)
        self._coupled = Coupled(target)
        self._decoupled = Decoupled(target) if Decoupled.applies(target) else None

    @property
    def method(self) -> str:
        """Which theory it is."""
        return "coupled" if self._decoupled is None else "decoupled"

    def predict(self, gram0: Array) -> Prediction:
        """Predict the saddles of each run, shape (n, rank, rank)."""
        if self._decoupled is None:
            return self._coupled.predict(gram0)
        near = np.trace(odds(gram0), axis1=1, axis2=2) > ALIGNED
        if not near.any():
            return self._decoupled.predict(gram0)
        parts = [(np.flatnonzero(near), self._coupled), (np.flatnonzero(~near), self._decoupled)]
        return Prediction.joined(
            [(rows, model.predict(gram0[rows])) for rows, model in parts if len(rows)]
        )
