"""Slow stretches of curves without noise: where they slow down and speed up again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "Stretches", "read", "stretches"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

COLUMNS = ("start", "stop", "level", "halfway", "left", "entered")
MOST = 64
"""Slow stretches of one curve that are looked at."""


@dataclass
class Stretches:
    """Slow stretches of curves, in the order of time.

    Shapes: low, high (runs, stretch), points from and up to; count (runs,); open (runs,), whether
    the last one is not left; falling (runs,), whether the data end before the next level.
    """

    low: Index
    high: Index
    count: Index
    open: NDArray[np.bool_]
    falling: NDArray[np.bool_]

    def without(self, run: int, k: int, ends: tuple[int, int]) -> None:
        """Take out a stretch; the one before ends, and the next one begins, at the points `ends`.

        The end of the data, if it was a level, then belongs to the fall before it.
        """
        last = k == self.count[run] - 1
        self.count[run] -= 1
        if last:
            self.open[run], self.falling[run] = False, True
            return
        self.low[run, k + 1] = ends[1]
        if k:
            self.high[run, k - 1] = ends[0]
        for bounds in (self.low[run], self.high[run]):
            bounds[k:-1] = bounds[k + 1 :]


def stretches(time: Array, values: Array, floor: Array, contrast: float) -> Stretches:
    """Find slow stretches between fast ones, at least `contrast` times faster than both.

    Speeds are in time itself, whatever the scale: a curve that only slows down has one stretch.
    Levels that differ by less than twice `floor` are one.

    Shapes: time (n,); values, floor (runs, n).
    """
    runs, n = values.shape
    change = np.abs(np.diff(values, axis=1))
    # Differences that are rounding are no speed.
    change[change <= 1e-14 * np.abs(values).max(axis=1, keepdims=True)] = 0.0
    # Time comes first in memory: the loop is over times, for all runs at once.
    speeds = (change / np.diff(time)).T.copy()
    middles = (0.5 * (values[:, 1:] + values[:, :-1])).T.copy()
    floors = floor.T
    every = np.arange(runs)
    slowest, fastest = speeds[0].copy(), speeds[0].copy()
    slow_at, fast_at = np.zeros(runs, dtype=np.intp), np.zeros(runs, dtype=np.intp)
    rising, known = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
    peaks = np.zeros((MOST, runs), dtype=np.intp)
    n_peaks = np.zeros(runs, dtype=np.intp)
    first = np.ones(runs, dtype=bool)  # whether a slow stretch comes before the first peak
    level = np.full(runs, np.nan)
    # A run slows down or speeds up, and turns once its speed has changed by the contrast.
    for cell in range(1, n - 1):
        speed = speeds[cell]
        up = speed > contrast * slowest
        down = contrast * speed < fastest
        leaves = up & ~rising
        settles = down & (rising | ~known) & ~leaves
        if leaves.any():
            here = middles[slow_at, every]
            same = leaves & (np.abs(here - level) <= 2.0 * floors[slow_at, every])
            n_peaks[same] -= 1  # it was no transition
            level = np.where(leaves & ~same, here, level)
            rising |= leaves
            fastest = np.where(leaves, speed, fastest)
            fast_at[leaves] = cell
        if settles.any():
            first &= ~(settles & ~known)
            rows = np.flatnonzero(settles)
            peaks[np.minimum(n_peaks[rows], MOST - 1), rows] = fast_at[rows]
            n_peaks[rows] += 1
            rising &= ~settles
            slowest = np.where(settles, speed, slowest)
            slow_at[settles] = cell
        known |= leaves | settles
        faster = (speed > fastest) & (rising | ~known)
        fastest = np.where(faster, speed, fastest)
        fast_at[faster] = cell
        slower = (speed <= slowest) & ~rising
        slowest = np.where(slower, speed, slowest)
        slow_at[slower] = cell
    n_peaks = np.minimum(n_peaks, MOST - 1)
    # The end: on the way down, or at a level, which may be the one before.
    ends = values[:, -1]
    moved = np.abs(ends - level) > 2.0 * floors[-1]
    falling = rising & moved
    here = middles[slow_at, every]
    back = ~rising & known & (n_peaks > 0) & (np.abs(here - level) <= 2.0 * floors[slow_at, every])
    n_peaks = n_peaks - back
    most = int(n_peaks.max(initial=0)) + 1
    k = np.arange(most)
    bounds = np.concatenate([np.zeros((1, runs), dtype=np.intp), peaks[:most] + 1]).T
    bounds = np.where(np.arange(most + 1) > n_peaks[:, None], n, bounds)
    low, high = bounds[:, :-1], bounds[:, 1:]
    skipped = (~first & (n_peaks > 0)).astype(np.intp)  # the data begin with a fall
    at = np.minimum(k + skipped[:, None], most - 1)
    low, high = (np.take_along_axis(part, at, axis=1) for part in (low, high))
    return Stretches(low, high, n_peaks + 1 - skipped, ~falling, falling)


def read(
    time: Array, values: Array, floor: Array, found: Stretches, scale: str, contrast: float
) -> Array:
    """Columns (runs, 6, stretch) of slow stretches; a level is where they are flattest in `scale`.

    Shapes: time (n,); values, floor (runs, n).
    """
    runs, n = values.shape
    most = found.low.shape[1]
    # Time 0 has no logarithm: half the next time stands for it.
    x = time if scale == "linear" else np.log(np.maximum(time, 0.5 * time[1]))
    points = np.arange(n)
    before, after = np.maximum(points - 1, 0), np.minimum(points + 1, n - 1)
    apart = x[after] - x[before]
    slopes = np.abs(values[:, after] - values[:, before]) / np.where(apart > 0, apart, 1.0)
    slopes[:, apart <= 0] = np.inf
    # Shortly after time 0 even a fall is flat in log time: only what is slow is a level.
    span = time[after] - time[before]
    speeds = np.abs(values[:, after] - values[:, before]) / span
    out = np.full((runs, len(COLUMNS), most), np.nan)
    flattest = np.zeros((runs, most), dtype=np.intp)
    every = np.arange(runs)
    for k in range(most):
        known = k < found.count
        low = np.where(known, found.low[:, k], 0)[:, None]
        high = np.where(known, found.high[:, k], n)[:, None]
        inside = (points >= low) & (points < high)
        slowest = np.where(inside, speeds, np.inf).min(axis=1, keepdims=True)
        slow = inside & (speeds <= contrast * slowest)
        at = np.where(slow, slopes, np.inf).argmin(axis=1)
        at = np.clip(at, low[:, 0], np.maximum(high[:, 0] - 1, low[:, 0]))
        at = np.minimum(at, n - 1)
        flattest[:, k] = at
        level = values[every, at]
        band = floor[every, at]
        off = np.abs(values - level[:, None]) > band[:, None]
        off |= ~inside
        left = np.where(off & (points <= at[:, None]), points, -1).max(axis=1)
        right = np.where(off & (points >= at[:, None]), points, n).min(axis=1)
        out[:, 0, k] = _edge(x, time, values, level, band, left + 1, left)
        out[:, 1, k] = _edge(x, time, values, level, band, right - 1, right)
        out[:, 2, k] = level
    last = np.arange(most) == found.count[:, None] - 1
    out[:, 4] = ~last | found.falling[:, None]
    out[:, 1] = np.where(last & ~found.falling[:, None], time[-1], out[:, 1])
    out[:, 5] = (out[:, 0] > time[0]) | (time[0] == 0)
    for k in range(most - 1):
        halfway = 0.5 * (out[:, 2, k] + out[:, 2, k + 1])
        out[:, 3, k] = np.where(
            last[:, k], np.nan, _passes(x, time, values, halfway, flattest[:, k : k + 2])
        )
    return np.where(np.arange(most) < found.count[:, None, None], out, np.nan)


def _edge(
    x: Array, time: Array, values: Array, level: Array, band: Array, inner: Index, outer: Index
) -> Array:
    """Return times (runs,) at which curves leave the band between two neighbouring points."""
    every, n = np.arange(len(values)), len(time)
    beyond = np.clip(outer, 0, n - 1)
    here, there = (np.abs(values[every, at] - level) for at in (inner, beyond))
    crosses = (outer >= 0) & (outer < n) & (there > band) & (here <= band)
    share = (band - here) / np.where(crosses, there - here, 1.0)
    return _between(x, time, inner, beyond, np.where(crosses, share, 0.0))


def _between(x: Array, time: Array, low: Index, high: Index, share: Array) -> Array:
    """Return times (runs,) at a share of the way between points, in the scale of `x`."""
    first, last = time[low], time[high]
    ratio = np.where((first > 0) & (last > 0), last / np.where(first > 0, first, 1.0), 1.0)
    if x is time:
        return np.asarray(first + share * (last - first))
    return np.asarray(np.where((first > 0) & (last > 0), first * ratio**share, first))


def _passes(x: Array, time: Array, values: Array, halfway: Array, ends: Index) -> Array:
    """Return times (runs,) of passing a value between two points, the middle of several."""
    points = np.arange(len(time))
    inside = (points >= ends[:, :1]) & (points <= ends[:, 1:])
    every = np.arange(len(values))
    side = (
        np.sign(values - halfway[:, None]) * np.sign(values[every, ends[:, 0]] - halfway)[:, None]
    )
    beyond = inside & (side <= 0)
    first = np.where(beyond, points, len(time)).min(axis=1)
    last = np.where(inside & (side > 0), points, 0).max(axis=1)
    crossed = (first < len(time)) & (last < len(time) - 1)
    times = []
    for low in (first - 1, last):
        low = np.clip(low, 0, len(time) - 2)
        a, b = values[every, low] - halfway, values[every, low + 1] - halfway
        share = np.clip(a / np.where(a != b, a - b, 1.0), 0.0, 1.0)
        if x is time:
            times.append(time[low] + share * (time[low + 1] - time[low]))
        else:
            # From time 0 there is no geometric mean: a millionth of the next time stands for it.
            early = np.where(time[low] > 0, time[low], 1e-6 * time[low + 1])
            times.append(early * (time[low + 1] / early) ** share)
    middle = 0.5 * (times[0] + times[1]) if x is time else np.sqrt(times[0] * times[1])
    return np.where(crossed, middle, np.nan)
