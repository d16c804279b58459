r"""The levels of one trajectory: where it slows down, stays, and speeds up again.

The speed at a point is measured by how long the trajectory stays within a band around it, which
needs no differences of neighbouring values, so neither noise nor the density of the sampling
matters. The slow stretches between fast ones are candidates. One of them is left if what follows
rejects that the trajectory only slows down. If it did, it would be convex (for a fall), and for
blocks of points A < B < C in time with B between A and C

.. math:: T = \bar v_B - \alpha \bar v_A - (1 - \alpha) \bar v_C \le 0, \qquad
          \bar t_B = \alpha \bar t_A + (1 - \alpha) \bar t_C,

because the points of A and C together spread more than those of B about the same mean. The
standard error of T is known, so that noise is told from a plateau at any sampling. And there must
be a fall from B to C, which exceeds by the tolerance what the slope from A to B would make it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .noise import Noise, of_piece
from .stay import flattest

__all__ = ["Stretch", "averaged", "stretches"]

Array = NDArray[np.float64]

BINS_PER_DECADE = 96
NOISY_BINS_PER_DECADE = 24
ROUNDED = 1.0 - 1e-6
"""Share of a bin's width: a point at its end, but for rounding, is in the next."""
MEDIAN = 1.57
"""Variance of a median over that of a mean, for normal deviates."""
MOVES = 1e-3
"""Share of its values by which a curve must change for the change to be its range."""
STAY = 1.5
"""Standard errors added to the band in which a stay is timed; what noise feigns is sorted out."""
SHOWN = 0.25
"""Share of the band by which two values must differ to show a slope."""
NEAR = 3.0
"""Standard errors within which values are those of one level."""
ROUNDS = 4
FEWEST = 16
"""Points about a fall that show their noise, at least."""
UNEVEN = 4.0
"""Ratio of their noise to that of the curve from which on it is theirs that counts."""
CERTAIN = 5.0
"""Standard errors by which convexity must be violated; many blocks are tried."""


@dataclass(frozen=True)
class Stretch:
    """A plateau of one trajectory."""

    start: float
    stop: float
    level: float
    halfway: float
    left: bool
    entered: bool


def stretches(
    time: Array,
    values: Array,
    *,
    tolerance: float,
    contrast: float,
    to_zero: bool,
    ended: bool,
    trapped: bool = False,
) -> list[Stretch]:
    """Find the plateaus of one trajectory.

    Shapes: time, values (n,).
    """
    curve = _Curve.binned(time, values, tolerance)
    bounds = curve.transitions(contrast)
    evidence = [curve.evidence(*bounds[k : k + 3]) for k in range(len(bounds) - 2)]
    while evidence and min(evidence) <= 1.0:
        weakest = int(np.argmin(evidence))
        del bounds[weakest + 1], evidence[weakest]
        for k in range(max(weakest - 1, 0), min(weakest + 1, len(evidence))):
            evidence[k] = curve.evidence(*bounds[k : k + 3])
    found = []
    falling = bounds[-2] == bounds[-1]  # as the data end
    levels = [curve.level(low, high) for low, high in pairwise(bounds) if low < high]
    for k, (level, at) in enumerate(levels):
        last = k == len(levels) - 1
        if last and not falling and (ended or not (trapped or curve.is_level(to_zero))):
            break
        start, stop = curve.extent(level, at, bounds[k], bounds[k + 1])
        halfway = np.nan
        if last and not falling:
            stop = curve.time[-1]
        if not last:
            following, until = levels[k + 1]
            halfway = curve.passes(0.5 * (level + following), at, until)
        entered = start > curve.time[0] or curve.time[0] == 0
        left = falling or not last
        found.append(Stretch(start, stop, level, halfway, left, bool(entered)))
    return found


def averaged(level: float, values: Array, errors: Array) -> float:
    """Median of the values of a stay that are off a level by their standard errors at most.

    Shapes: values, errors (n,).
    """
    for _ in range(ROUNDS):
        near = np.abs(values - level) <= NEAR * errors
        if near.any():
            level = float(np.median(values[near]))
    return level


@dataclass(frozen=True)
class _Curve:
    """Medians in bins of log time, their standard errors and the band."""

    time: Array
    values: Array
    errors: Array
    band: Array
    counts: Array  # points in the bins
    squares: Array  # and their noise squared
    noise: Noise
    floor: float  # least change that counts without noise

    @classmethod
    def binned(cls, time: Array, values: Array, tolerance: float) -> _Curve:
        """Average over wider bins where the points are noisy."""
        positive = time[time > 0]
        decades = np.log10(positive[-1] / positive[0]) if len(positive) > 1 else 1.0
        noise = Noise.of(time, values)
        for width in (BINS_PER_DECADE, NOISY_BINS_PER_DECADE):
            per_decade = max(width, BINS_PER_DECADE / max(decades, 1e-9))
            moments, middle, errors, counts, squares = _bins(time, values, noise, per_decade)
            spread = np.ptp(middle)
            if np.median(errors) <= 0.1 * tolerance * spread:
                break
        floor = tolerance * max(spread, MOVES * np.abs(middle).max())
        band = floor + 3.0 * errors
        return cls(moments, middle, errors, band, counts, squares, noise, floor)

    def transitions(self, contrast: float) -> list[int]:
        """Bounds of the slow stretches: 0, the points after the fastest cells, and the end.

        The end is there twice where the data end during a transition.
        """
        from scipy.signal import find_peaks

        stay = self._stays(1)
        stay += self._stays(-1)[::-1]
        stay[[0, -1]] *= 2.0  # of which the data show one side
        wide = self.floor + STAY * self.errors
        band = np.maximum(wide[1:], wide[:-1])
        band = np.concatenate([wide[:1], band, wide[-1:]])
        speed = np.log(np.maximum(band, 1e-300)) - np.log(np.maximum(stay, 1e-300))
        # Cells longer than a stay are known to be as slow as the values at their ends show.
        change = np.maximum(np.abs(np.diff(self.values)), SHOWN * band[1:-1])
        change = np.log(np.maximum(change, 1e-300)) - np.log(2.0 * np.diff(self.time))
        speed[1:-1] = np.minimum(speed[1:-1], change)
        less, n = np.log(contrast), len(self.time)
        peaks = [int(peak) for peak in find_peaks(np.append(speed, -np.inf), prominence=less)[0]]
        if peaks and not self._slowed(peaks[-1], contrast):
            peaks[-1] = n
        return [0, *peaks, n]

    def _slowed(self, since: int, contrast: float) -> bool:
        """Whether the end is slower, for certain, than the cell before the point `since`."""
        if since == len(self.time):
            return False
        low = np.arange(since - 1, -1, -1)
        high = np.minimum(since + np.arange(since), len(self.time) - 1)
        fall, uncertain, length = self._changes(low, high)
        fastest = np.max((fall - uncertain) / length)
        late = np.arange(since, len(self.time) - 1)
        change, uncertain, length = self._changes(late, np.full_like(late, len(self.time) - 1))
        return bool((contrast * (change + uncertain) <= fastest * length).any())

    def _changes(self, low: NDArray[np.intp], high: NDArray[np.intp]) -> tuple[Array, Array, Array]:
        """Return changes between points, how much of them noise may be, and times between."""
        change = np.abs(self.values[high] - self.values[low])
        uncertain = NEAR * np.hypot(self.errors[high], self.errors[low])
        return change, uncertain, self.time[high] - self.time[low]

    def _stays(self, way: int) -> Array:
        """Time until the curve leaves the band around its ends and the middles of its cells.

        Forwards for `way` 1, backwards and in reverse order for -1. Cells are straight lines: those
        of a curve that only slows down slow down, too, however few they are.
        """
        time, values = way * self.time[::way], self.values[::way]
        band = (self.floor + STAY * self.errors)[::way]
        at = np.concatenate([time[:1], 0.5 * (time[1:] + time[:-1]), time[-1:]])
        value = np.concatenate([values[:1], 0.5 * (values[1:] + values[:-1]), values[-1:]])
        width = np.concatenate([band[:1], np.maximum(band[1:], band[:-1]), band[-1:]])
        n = len(time)
        following = np.minimum(np.arange(n + 1), n - 1)  # first point from each place on
        off = np.abs(values - value[:, None]) > width[:, None]
        off &= np.arange(n) >= following[:, None]
        leaves = off.any(axis=1)
        out = np.where(leaves, off.argmax(axis=1), n - 1)
        inside = out > following
        before = np.maximum(out - 1, 0)
        t = np.where(inside, time[before], at)
        gone = np.abs(np.where(inside, values[before], value) - value)
        beyond = np.abs(values[out] - value)
        share = np.where(leaves, (width - gone) / np.where(leaves, beyond - gone, 1.0), 1.0)
        return np.asarray(t + share * (time[out] - t) - at)

    def level(self, low: int, high: int) -> tuple[float, int]:
        """Value, and where, at the flattest of the points from `low` up to `high`."""
        if low == high:  # nothing after the end
            return float(self.values[-1]), len(self.values) - 1
        around = slice(max(low - 1, 0), high + 1)
        place = np.log(np.maximum(self.time[around], 0.5 * self.time[1]))
        points = np.arange(len(self.time))[around]
        inside = (points >= low) & (points < high)
        at = int(points[flattest(place[None], self.values[None, around], inside[None])[0]])
        level = averaged(float(self.values[at]), self.values[low:high], self.errors[low:high])
        return level, at

    def evidence(self, low: int, middle: int, high: int) -> float:
        """How clearly the curve speeds up about `middle`: above 1 that is certain."""
        (level, at), (following, _) = self.level(low, middle), self.level(middle, high)
        scatter = CERTAIN * float(np.median(self.errors[low:high]))
        if abs(level - following) <= max(2.0 * self.floor, scatter):
            return 0.0
        at = self._reach(level, at, low, -1)
        fall = np.sign(level - following)
        parts = (self.time, fall * self.values, self.squares, 1.0 / self.counts)
        sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in parts]
        # Ends of the blocks A and B, and of C.
        second = middle + np.concatenate([-_OFFSETS[::-1], [0], _OFFSETS])[:, None, None]
        first = second - _OFFSETS[:, None]
        third = second + _OFFSETS
        usable = (first > at) & (second < high) & (third <= high)
        if not usable.any():
            return 0.0
        first, second, third = (
            np.broadcast_to(end, usable.shape)[usable] for end in (first, second, third)
        )
        start = np.full_like(first, at)
        blocks = ((start, first), (first, second), (second, third))
        t, v, square, spent = (
            [(total[b] - total[a]) / (b - a) for a, b in blocks] for total in sums
        )
        counts = [(b - a) / part for (a, b), part in zip(blocks, spent, strict=True)]
        error = [self.noise.of_means(*pair) ** 2 for pair in zip(square, counts, strict=True)]
        # Noise that shrinks with the values is largest before the fall.
        begin = min(low, max(middle - FEWEST, 0))
        own = of_piece(self.values[begin : max(middle, begin + FEWEST)]) ** 2
        for k, (a, b) in enumerate(blocks[:2]):
            error[k] = np.where(own > UNEVEN**2 * error[k] * (b - a), own / (b - a), error[k])
        share = (t[2] - t[1]) / (t[2] - t[0])
        bulge = v[1] - share * v[0] - (1.0 - share) * v[2]
        apart = np.sqrt(error[1] + error[2])
        error = np.sqrt(error[1] + share**2 * error[0] + (1.0 - share) ** 2 * error[2])
        bulges = bulge / np.maximum(CERTAIN * error, (1.0 - share) * self.floor)
        falls = (v[1] - v[2]) / np.maximum(CERTAIN * apart, self.floor)
        return float(np.max(np.minimum(bulges, falls)))

    def extent(self, level: float, at: int, low: int, high: int) -> tuple[float, float]:
        """Return the times between which it stays in the band, within points `low` to `high`."""
        first, last = self._reach(level, at, low, -1), self._reach(level, at, high - 1, 1)
        return self._edge(level, first, -1), self._edge(level, last, 1)

    def _reach(self, level: float, at: int, limit: int, way: int) -> int:
        """Last point towards `limit` within the band; a single point off it is noise."""
        points = np.arange(at, limit + way, way)
        near = np.abs(self.values[points] - level) <= self.band[points]
        off = ~near
        off[:-1] &= off[1:]
        gone = np.flatnonzero(off)
        inside = np.flatnonzero(near[: gone[0]] if len(gone) else near)
        return int(points[inside[-1]]) if len(inside) else at

    def _edge(self, level: float, at: int, way: int) -> float:
        """Time at which the band is crossed beyond a point, interpolated in log time."""
        beyond = at + way
        if not 0 <= beyond < len(self.time):
            return float(self.time[at])
        inside, outside = (abs(self.values[i] - level) for i in (at, beyond))
        band = self.band[at]
        if outside <= band or inside > band or self.time[min(at, beyond)] <= 0:
            return float(self.time[at])
        share = (band - inside) / (outside - inside)
        return float(self.time[at] * (self.time[beyond] / self.time[at]) ** share)

    def passes(self, halfway: float, at: int, until: int) -> float:
        """Time of passing a value between two points; the middle of several, in log time."""
        values = self.values[at : until + 1] - halfway
        crossing = at + np.flatnonzero(np.sign(values[1:]) * np.sign(values[0]) <= 0)
        staying = at + np.flatnonzero(np.sign(values) * np.sign(values[0]) > 0)
        times = []
        for i in (crossing[0], staying[-1]) if len(crossing) else ():
            t, v = self.time[i : i + 2], self.values[i : i + 2]
            share = min(max((v[0] - halfway) / (v[0] - v[1]), 0.0), 1.0) if v[0] != v[1] else 1.0
            early = t[0] if t[0] > 0 else 1e-6 * t[1]
            times.append(early * (t[1] / early) ** share)
        return float(np.sqrt(np.prod(times))) if times else np.nan

    def is_level(self, to_zero: bool) -> bool:
        """Whether the end is shown to be level, and not at zero where that is convergence."""
        level = float(np.median(self.values[self.time >= 0.5 * self.time[-1]]))
        if to_zero and abs(level) <= self.band[-1]:
            return False
        low = self._reach(level, len(self.time) - 1, 0, -1)
        low += int(self.time[low] == 0)
        x, values = np.log10(self.time[low:]), self.values[low:]
        if len(x) < 3 or x[-1] - x[0] < np.log10(2.0):
            return False
        x = x - x.mean()
        slope = abs(x @ values) / (x @ x)
        counts = len(x) / np.mean(1.0 / self.counts[low:])
        error = self.noise.of_means(np.mean(self.squares[low:]), counts)
        slope += error * np.sqrt(len(x) / (x @ x))
        decades = np.log10(self.time[-1] / self.time[self.time > 0][0])
        allowed = 0.3 * np.ptp(self.values) / decades
        if to_zero:
            allowed = min(allowed, 0.1 * abs(level))
        if slope > max(allowed, 0.25 * self.floor / np.ptp(x)):
            return False
        middle, late = np.array_split(values, 3)[1:]
        return bool(abs(middle.mean() - late.mean()) <= 0.25 * self.band[-1])


_OFFSETS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 36, 48])


def _bins(
    time: Array, values: Array, noise: Noise, per_decade: float
) -> tuple[Array, Array, Array, Array, Array]:
    """Mean time, median, its standard error, count and mean square noise in bins of log time.

    A bin begins at the first point after the one before, so that even sampling fills all bins
    alike. Time 0 is a bin of its own.
    """
    ends = np.searchsorted(time, time * 10.0 ** (ROUNDED / per_decade))
    ends = np.maximum(ends, np.arange(1, len(time) + 1))
    starts = [0]
    while ends[starts[-1]] < len(time):
        starts.append(int(ends[starts[-1]]))
    edges = np.array(starts)
    counts = np.diff(edges, append=len(time)).astype(np.float64)
    squares = np.add.reduceat(noise.points**2, edges) / counts
    squares *= np.where(counts > 2, MEDIAN, 1.0)
    if counts.max() == 1:
        moments, middle = time, values
    else:
        middle = np.array([np.median(part) for part in np.split(values, edges[1:])])
        moments = np.add.reduceat(time, edges) / counts
    return moments, middle, noise.of_means(squares, counts), counts, squares
