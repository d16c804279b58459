r"""How far means of a noisy curve may be off, estimated from the curve itself.

Two things are measured. The noise of single points, locally: by how much a point is off the line
through its neighbours, or off the one before it, of which the small values are taken, since a trend
can only make them larger. And how the noise averages out: the same for the means of 2, 4, 8, ...
successive points. For independent noise their variance falls as 1/n; for noise that is correlated
over :math:`\tau` points, as that of a running mean, it does so from :math:`n \gg \tau` on.

.. math:: V(n) = \max_{m \ge n} S(m), \qquad S(2m) \le 2 S(m),

is the variance of a mean of n points, S(m) being what neighbouring means of m points show. The
maximum brings in what fluctuates more slowly than n points, and the limit is reached by a random
walk. Deviations that grow much faster than it are those of a smooth curve, not of noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Noise", "of_piece"]

Array = NDArray[np.float64]

WINDOW = 101
"""Points over which the noise is taken to be constant."""
THIRD = 0.4307
"""A third of normal deviates is smaller; falls spoil this quantile less than the median."""
FEWEST = 24
"""Means of so many points are compared as there are at least so many disjoint ones of."""
FAR = 4.0
"""Standard deviations by which the outer of three means differ where there is a fall."""
SMOOTH = 1.5
"""Deviations that grow as this power of the number of points, or faster, are no noise."""
DOUBT = 9.0
"""Independent noise seems to last, by chance, at most this over the root of the number of means."""
LESS = 0.75
"""Ratio of what correlations add at one doubling to what they added at the one before."""
ALTERNATING = 6
"""Fewest second differences whose signs are looked at."""
SURE = 0.01
"""Chance at which each bound of the noise of less than a window of points is too low."""


@dataclass(frozen=True)
class Noise:
    """Noise of the points of a curve and of their means.

    Shapes: points (n,).
    """

    points: Array
    sizes: Array
    variances: Array

    @classmethod
    def of(cls, time: Array, values: Array) -> Noise:
        """Estimate the noise of a curve."""
        points = _points(time, values)
        sizes = np.exp2(np.arange(1 + int(np.log2(len(time))), dtype=np.float64))
        return cls(points, sizes, _variances(time, values, points, sizes))

    def of_means(self, square: Any, count: Any) -> Array:
        """Return the standard error of means of `count` points, given their mean squared noise."""
        variance = np.interp(np.log(count), np.log(self.sizes), np.log(self.variances))
        return np.asarray(np.sqrt(square * np.exp(variance)))


def _points(time: Array, values: Array) -> Array:
    n = len(time)
    if n < 5:
        return np.zeros(n)
    if n <= WINDOW:
        return np.full(n, min(_limit(np.abs(np.diff(values)) / 2**0.5), _limit(_off(time, values))))
    from scipy.ndimage import percentile_filter

    local = percentile_filter(_off(time, values), 100 / 3, size=WINDOW) / THIRD
    half = WINDOW // 2  # beyond it the window sticks out
    local[:half], local[-half:] = local[half], local[-half - 1]
    return np.concatenate([local[:1], local, local[-1:]])


def of_piece(values: Array) -> float:
    """Return the standard deviation of the points of a piece of a curve; 0 where it is smooth.

    Second differences of independent noise change sign from one to the next three times out of
    four, those of a smooth curve hardly ever.
    """
    bends = np.diff(values, 2)
    turns = bends[1:] * bends[:-1] < 0
    if len(turns) < ALTERNATING or np.mean(turns) < 0.5:
        return 0.0
    return _limit(np.abs(np.diff(values, 4)) / 70**0.5)


def _limit(off: Array) -> float:
    """Upper confidence limit of a standard deviation, from the small ones of few deviations.

    Whatever the trend, a deviation is below x with at most the probability that it has without
    trend; so the number of those below x bounds the noise.
    """
    from scipy.special import ndtri
    from scipy.stats import beta

    off = np.sort(off)
    # Two that are equal, exactly, are not noisy.
    few = np.arange(3 - (off[1] == 0), max(len(off) // 2, 3) + 1)
    few = few[few <= len(off)]
    if not len(few):
        return float(off[-1])
    chance = beta.ppf(SURE, few, len(off) - few + 1)
    return float(np.min(off[few - 1] / ndtri(0.5 + 0.5 * chance)))


def _off(time: Array, values: Array, apart: int = 1) -> Array:
    """Deviation of points from the line through those `apart` from them, as of their own noise."""
    before, at, after = time[: -2 * apart], time[apart:-apart], time[2 * apart :]
    weight = (at - before) / (after - before)
    line = (1.0 - weight) * values[: -2 * apart] + weight * values[2 * apart :]
    off = np.abs(values[apart:-apart] - line)
    return np.asarray(off / np.sqrt(1.0 + weight**2 + (1.0 - weight) ** 2))


def _variances(time: Array, values: Array, points: Array, sizes: Array) -> Array:
    """Variance V(n) of means, relative to that of the points."""
    if not points.any():
        return 1.0 / sizes
    sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in (time, values, points**2)]
    shown = [1.0]
    for size in sizes[1:].astype(int):
        if len(time) < FEWEST * size:
            break
        stride = max(size // 8, 1)
        apart = size // stride
        t, v, square = ((part[size:] - part[:-size])[::stride] / size for part in sums)
        off, expected = _off(t, v, apart), np.sqrt(square[apart:-apart])
        span = np.abs(v[2 * apart :] - v[: -2 * apart])
        known = (expected > 0) & (span <= FAR * np.quantile(span, 1 / 3) / THIRD)
        ratio = np.quantile(off[known] / expected[known], 1 / 3) / THIRD if known.any() else 0.0
        shown.append(ratio**2)
    doublings = len(shown) - 1
    used = sizes[: doublings + 1]
    if (used * shown <= 1.0 + DOUBT / np.sqrt(len(time) / used)).all():
        return 1.0 / sizes
    if shown[-1] > 2.0 ** (SMOOTH * doublings):
        return np.ones(len(sizes))
    for k in range(doublings):
        shown[k + 1] = min(shown[k + 1], 2.0 * shown[k])
    # Beyond, it goes on as over the last factor of four, and less and less so where it grows.
    beyond = np.arange(1, len(sizes) - doublings)
    back = min(2, doublings)
    growth = np.log2(max(shown[-1] / max(shown[-1 - back], 1e-300), 1e-300)) / back
    growth = min(max(growth, -1.0), 1.0)
    if growth > 0:
        growth *= LESS * (1.0 - LESS**beyond) / (1.0 - LESS) / beyond
    further = shown[-1] * 2.0 ** (growth * beyond)
    variances = np.maximum(np.append(shown, further), 1.0 / sizes)
    return np.asarray(np.maximum.accumulate(variances[::-1])[::-1])
