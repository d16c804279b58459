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

__all__ = ["Noise", "averaged", "is_smooth"]

Array = NDArray[np.float64]

GROWTHS = (0.0, 0.5, 1.0)
"""Powers of the local mean with which noise may grow."""
LEAST = 1e-3
"""Share of the largest value below which noise shrinks no more."""
NORMAL = 0.6745
"""Half of normal deviates is smaller."""
SHORTEST = 14
"""Fewest points whose bends are looked at."""
SELDOM = 0.25
"""Share of second differences that may change sign in curves without noise."""
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
NEAR = 3.0
"""Standard errors within which values are those of one level."""
ROUNDS = 4


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
    """Return the noise of each point (n,): a power of the local mean, chosen by likelihood."""
    from scipy.optimize import isotonic_regression

    n = len(time)
    if n < 5 or is_smooth(values[None])[0]:
        return np.zeros(n)
    rising = bool(np.polyfit(np.arange(n), values, 1)[0] > 0)
    mean = np.abs(isotonic_regression(values, increasing=rising).x)
    mean = np.maximum(mean, LEAST * mean.max())
    off = _off(time, values)
    best = (np.inf, np.zeros(n))
    for power in GROWTHS:
        unit = mean**power
        share = off / unit[1:-1]
        size = (1.0 + (8.0 / n) ** 1.5) * np.median(share) / NORMAL
        if size <= 0:
            return np.zeros(n)
        misfit = np.minimum(share / size, FAR) ** 2
        score = float(np.sum(0.5 * misfit + np.log(size * unit[1:-1]))) + 2.0 * (power > 0)
        if score < best[0]:
            best = (score, size * unit)
    return best[1]


def is_smooth(values: Array) -> NDArray[np.bool_]:
    """Tell which curves (runs, n) have no noise: monotone ones, and those that bend smoothly."""
    steps = np.diff(values, axis=1)
    little = 1e-9 * np.maximum(np.ptp(values, axis=1), 1e-3 * np.abs(values).max(axis=1))
    smooth = ~((steps.max(axis=1) > little) & (steps.min(axis=1) < -little))
    if values.shape[1] >= SHORTEST:
        bends = np.diff(values, 2, axis=1)
        bends[np.abs(bends) <= little[:, None]] = 0.0
        turns = (bends[:, 1:] * bends[:, :-1] < 0).sum(axis=1)
        seen = np.maximum((bends != 0).sum(axis=1), 8)
        smooth = turns < SELDOM * seen
    return np.asarray(smooth)


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
    if doublings < 2:  # falls at few points look like noise that lasts
        return np.asarray(1.0 / sizes)
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


def averaged(level: float, values: Array, errors: Array) -> float:
    """Median of those of the values (n,) that are off a level by their standard errors at most."""
    for _ in range(ROUNDS):
        near = np.abs(values - level) <= NEAR * errors
        if near.any():
            level = float(np.median(values[near]))
    return level
