"""The level of a stay at a saddle, read in one way off measured and off predicted curves.

A curve that comes to a saddle and leaves it again passes the saddle's own value somewhere, but at
finite d it need not rest there: where a stay is as short as approach and departure are slow, its
level is above or below. It is taken where the curve is flattest in logarithmic time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..validation import FloatArray as Array
from ..validation import IntArray

_POINTS = 257


class Curves:
    """Decreasing curves known at some times with their slopes there, one for each row.

    Shapes: row (increasing), time (increasing in each row), values, slopes (n,).
    """

    def __init__(self, row: Array, time: Array, values: Array, slopes: Array) -> None:
        self._row, self._time, self._values, self._slopes = row, time, values, slopes

    def __call__(self, rows: IntArray, time: Array) -> Array:
        """Values of rows at times, by cubics that keep decreasing; constant beyond the ends."""
        first = np.searchsorted(self._row, rows)
        end = np.searchsorted(self._row, rows, side="right")
        known = end > first
        low, high = first, np.maximum(end, 1)
        for _ in range(int(np.max(end - first, initial=1)).bit_length()):
            middle = (low + high) // 2
            here = self._time[middle] <= time
            low, high = np.where(here, middle, low), np.where(here, high, middle)
        left = np.clip(low, first, np.maximum(end - 2, first))
        right = np.minimum(left + 1, np.maximum(end - 1, 0))
        left = np.minimum(left, right)
        length = self._time[right] - self._time[left]
        x = np.clip((time - self._time[left]) / np.where(length > 0, length, 1.0), 0.0, 1.0)
        start, stop = self._values[left], self._values[right]
        # Steeper ends than three times the secant would make a cubic overshoot.
        steepest = 3.0 * np.minimum(stop - start, 0.0)
        d0, d1 = (np.clip(self._slopes[k] * length, steepest, 0.0) for k in (left, right))
        before = (1 - x) ** 2 * ((1 + 2 * x) * start + x * d0)
        return np.where(known, before + x**2 * ((3 - 2 * x) * stop + (x - 1) * d1), np.nan)


def stays(enter: Array, leave: Array) -> NDArray[np.bool_]:
    """Tell whether a run stays at a saddle, on either side of the comparison.

    It does so if it has come there, the last overlap having reached 0.9, before it begins to leave,
    the next one reaching 0.1. One that starts beyond 0.1 has begun to leave at time 0.
    """
    return np.asarray(enter < np.where(np.isnan(leave), np.inf, leave))


def level(time: Array, values: Array, enter: Array, stop: Array) -> Array:
    """Values of curves where they change least in logarithmic time during a stay.

    Shapes: time (n,); values (runs, n); enter, stop (runs,); returns (runs,).
    """
    time = np.broadcast_to(time, values.shape)
    enter, stop = enter[:, None], stop[:, None]
    known = np.isfinite(values) & np.where(enter > 0, time > 0, time >= 0)
    if (known[:, 1:] > known[:, :-1]).any():  # the known ones to the front, as neighbours
        order = np.argsort(~known, axis=1, kind="stable")
        time, values = (np.take_along_axis(part, order, axis=1) for part in (time, values))
        known = np.take_along_axis(known, order, axis=1)
    inside = known & (time >= enter) & (time <= stop)
    chosen = inside.argmax(axis=1)
    later = np.flatnonzero((enter[:, 0] > 0) & inside.any(axis=1))
    if len(later):
        last = known[later].sum(axis=1, keepdims=True) - 1
        at = np.minimum(np.arange(values.shape[1]), last)
        place = np.log(time[later[:, None], at])
        chosen[later] = flattest(place, values[later[:, None], at], inside[later])
    reached = values[np.arange(len(values)), chosen]
    return np.where(inside.any(axis=1), reached, np.nan)


def flattest(place: Array, values: Array, inside: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Index of the point at which a curve changes least, between those on either side of it.

    Shapes: place (curves, n); values (curves, n); inside (curves, n); returns (curves,).
    """
    at = np.arange(values.shape[1])
    before, after = np.maximum(at - 1, 0), np.minimum(at + 1, len(at) - 1)
    apart = place[:, after] - place[:, before]
    within = inside & (apart > 0)
    change = np.abs(values[:, after] - values[:, before])
    slope = np.where(within, change, np.inf) / np.where(within, apart, 1.0)
    chosen = np.where(within.any(axis=1), slope.argmin(axis=1), inside.argmax(axis=1))
    return np.asarray(chosen, dtype=np.intp)


def predicted_level(
    curve: Callable[[IntArray, Array], Array],
    grid: Array | None,
    enter: Array,
    stop: Array,
    measured: tuple[Array, Array] | None = None,
) -> Array:
    """Levels of predicted curves at the times of a dataset.

    Shapes: enter, stop (runs,); measured (ndarray, ndarray); returns (runs,).
    """
    stop = np.where(np.isnan(stop), np.inf, stop)
    result = np.full(len(enter), np.nan)
    on_grid = np.zeros(len(enter), dtype=bool)
    if grid is not None:
        seen, left = enter, stop
        if measured is not None:
            both = (enter > 0) & np.isfinite(stop) & (measured[1] > measured[0])
            seen, left = (
                np.where(both, m, own) for m, own in zip(measured, (enter, stop), strict=True)
            )
        first, last = np.searchsorted(grid, seen), np.searchsorted(grid, left, side="right")
        on_grid = last > first
        rows = np.flatnonzero(on_grid)
        if len(rows):
            early = enter[rows] > 0
            begin = np.where(early, np.maximum(first[rows] - 1, 0), first[rows])
            end = np.where(early, np.minimum(last[rows] + 1, len(grid)), first[rows] + 1)
            at = begin[:, None] + np.arange((end - begin).max())
            run, column = np.nonzero(at < end[:, None])
            time = grid[np.minimum(at, len(grid) - 1)]
            of = rows[run]
            place = time[run, column]
            if measured is not None:
                stretch = np.ones(len(enter))
                stretch[both] = (stop - enter)[both] / (left - seen)[both]
                place = enter[of] + (place - seen[of]) * stretch[of]
            values = np.full(time.shape, np.nan)
            values[run, column] = curve(of, place)
            result[rows] = level(time, values, seen[rows], left[rows])
    rows = np.flatnonzero(~on_grid & (enter == 0))
    result[rows] = curve(rows, np.zeros(len(rows)))
    rows = np.flatnonzero(~on_grid & (enter > 0))
    if len(rows):
        relative = np.log1p((stop - enter)[rows] / enter[rows])[:, None]
        time = enter[rows, None] * (1 + np.expm1(relative * np.linspace(0.0, 1.0, _POINTS)))
        time = np.sort(time, axis=1)
        run = np.repeat(rows, _POINTS)
        values = curve(run, time.ravel()).reshape(time.shape)
        values[:, 1:][np.diff(time, axis=1) == 0] = np.nan
        result[rows] = level(time, values, time[:, 0], time[:, -1])
    return result
