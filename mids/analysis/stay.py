"""The level of a stay at a saddle, read in one way off measured and off predicted curves.

A curve that comes to a saddle and leaves it again passes the saddle's own value somewhere, but at
finite d it need not rest there: where a stay is as short as approach and departure are slow, its
level is above or below. It is taken where the curve is flattest in logarithmic time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "level", "predicted_level"]

Array = NDArray[np.float64]

_POINTS = 257


@dataclass(frozen=True)
class Curve:
    """A decreasing curve known at some times with its slopes there.

    Attributes
    ----------
    time, values, slopes : ndarray, shape (n,)
        Times increase; values and slopes are those at the times.
    """

    time: Array
    values: Array
    slopes: Array

    def __call__(self, time: Array) -> Array:
        """Values at given times, by cubics that keep decreasing; constant beyond the ends."""
        if len(self.time) == 1:
            return np.full(len(time), self.values[0])
        left = np.clip(np.searchsorted(self.time, time, side="right") - 1, 0, len(self.time) - 2)
        length = np.diff(self.time)[left]
        x = np.clip((time - self.time[left]) / length, 0.0, 1.0)
        low, high = self.values[left], self.values[left + 1]
        # Steeper ends than three times the secant would make a cubic overshoot.
        steepest = 3.0 * np.minimum(high - low, 0.0)
        d0, d1 = (np.clip(self.slopes[left + k] * length, steepest, 0.0) for k in (0, 1))
        start = (1 - x) ** 2 * ((1 + 2 * x) * low + x * d0)
        return np.asarray(start + x**2 * ((3 - 2 * x) * high + (x - 1) * d1))


def level(time: Array, values: Array, enter: float, stop: float) -> float:
    """Value of a curve where it changes least in logarithmic time during a stay.

    Parameters
    ----------
    time, values : ndarray, shape (n,)
        The curve; NaN where it is not known.
    enter, stop : float
        Beginning and end of the stay. The first plateau begins at time 0: nothing approaches it,
        and its level is the first value.

    Returns
    -------
    float
        The value at the time of the stay at which the slope between the two times beside it is
        least; NaN if the stay has no time.

    Examples
    --------
    >>> level(np.array([1.0, 2.0, 4.0, 8.0]), np.array([3.0, 1.1, 1.0, 0.7]), 0.5, 8.0)
    1.0
    """
    known = np.isfinite(values) & (time > 0 if enter > 0 else time >= 0)
    time, values = time[known], values[known]
    inside = np.flatnonzero((time >= enter) & (time <= stop))
    if not len(inside):
        return np.nan
    if enter == 0 or len(time) == 1:
        return float(values[inside[0]])
    before, after = np.maximum(inside - 1, 0), np.minimum(inside + 1, len(time) - 1)
    slope = np.abs(values[after] - values[before]) / np.log(time[after] / time[before])
    return float(values[inside[int(np.argmin(slope))]])


def predicted_level(
    curve: Callable[[Array], Array], grid: Array | None, enter: float, stop: float
) -> float:
    """Level of a predicted curve at the times of a dataset.

    Parameters
    ----------
    curve : callable
        Values at given times.
    grid : ndarray, optional
        Times of the dataset. Where none of them is in the stay, or they are not given, the level is
        that of the curve itself.
    enter, stop : float
        Beginning and end of the stay; NaN or inf where the first plateau is never left.

    Returns
    -------
    float
    """
    stop = np.inf if np.isnan(stop) else stop
    if grid is not None:
        first, last = np.searchsorted(grid, enter), np.searchsorted(grid, stop, side="right")
        if last > first:
            near = grid[max(first - 1, 0) : last + 1] if enter > 0 else grid[first : first + 1]
            return level(near, curve(near), enter, stop)
    own = np.unique(np.geomspace(enter, stop, _POINTS)) if enter > 0 else np.zeros(1)
    return level(own, curve(own), own[0], own[-1])
