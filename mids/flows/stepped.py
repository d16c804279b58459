"""What flows that step on fresh samples have in common: the steps done at each time of a grid."""

from __future__ import annotations

import numpy as np

from .. import validation
from ..errors import InputError
from ..validation import FloatArray, IntArray
from .base import Swept

__all__ = ["Stepped"]

MOST_STEPS = 10**6
"""Steps of the longest default time grid."""
MOST_SAMPLES = 2**62
"""Samples of a run, which have numbers below this."""


class Stepped:
    """A flow with the parameters `step` and `batch`, whose time is `step` times the steps done."""

    step: float | Swept
    batch: int | Swept

    def _checked_steps(self) -> dict[str, float | int]:
        """Check `step` and `batch`."""
        return {
            "step": validation.number(self.step, "step", above=0.0, at_most=1.0),
            "batch": validation.integer(self.batch, "batch", at_least=1),
        }

    def whole_steps(self, grid: FloatArray) -> FloatArray:
        """Round a default grid up to whole steps, at most a million.

        Shapes: grid (n,); returns (at most n,).
        """
        times: FloatArray = self.step * np.unique(np.minimum(np.ceil(grid / self.step), MOST_STEPS))
        return times

    def steps(self, time: FloatArray) -> IntArray:
        """Return the steps done by each time; a time that is a whole number of steps has them all.

        Parameters
        ----------
        time : (n,) float array

        Returns
        -------
        (n,) int array

        Raises
        ------
        InputError
            If the last time takes more samples than the generator has.
        """
        if not float(time[-1]) / self.step < MOST_SAMPLES // self.batch:
            raise InputError(
                f"time up to {time[-1]:g} takes more than {MOST_SAMPLES:.2g} samples with step="
                f"{self.step:g} and batch={validation.shown(self.batch)}; end it earlier"
            )
        return np.floor(time / self.step * (1 + 1e-12) + 1e-9).astype(np.int64)

    def coordinates(self, time: FloatArray) -> dict[str, FloatArray | IntArray]:
        """Return the samples used by each time."""
        return {"samples": self.steps(time) * self.batch}
