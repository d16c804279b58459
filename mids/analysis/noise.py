r"""Noise of a curve, estimated from the curve itself.

The noise of single points is taken locally: by how much a point is off the line through its
neighbours, of which the small values count, since a trend can only make them larger. Its variance
is that of additive and of multiplicative noise, :math:`a^2 + (b f)^2`, at the ratio a / b that is
the likeliest. It may last: neighbouring points have the correlation :math:`\phi`, points k apart
:math:`\phi^k`. Curves are read as means over bins, of n points each, whose variance is

.. math:: V(n) = \frac{\sigma^2}{n^2} \Big( n \frac{1 + \phi}{1 - \phi}
          - 2 \phi \frac{1 - \phi^n}{(1 - \phi)^2} \Big).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CORRELATIONS", "Whitened", "averaged", "is_smooth", "noise"]

Array = NDArray[np.float64]

CORRELATIONS = (0.0, 0.3, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Of neighbouring points, that are tried."""
RATIOS = (np.inf, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""Of additive to multiplicative noise, at the largest value."""
LEAST = 1e-3
"""Share of the largest value below which values do not tell the size of the noise."""
NORMAL = 0.6745
"""Half of normal deviates is smaller."""
SHORTEST = 14
"""Fewest points whose bends are looked at."""
SELDOM = 0.25
"""Share of second differences that may change sign in curves without noise."""
FAR = 4.0
"""Standard deviations from which on a deviation is that of a fall."""
MANY = 8
"""Points of a bin in which a trend is looked at."""
NEAR = 3.0
"""Standard errors within which values are those of one level."""
ROUNDS = 4
KNOWN = 8.0
"""Points that the size of the noise, as known from neighbours, counts for."""


def noise(time: Array, values: Array) -> Array:
    """Return the noise of each point (n,) of a curve (n,), by the likeliest ratio."""
    from scipy.optimize import isotonic_regression

    n = len(time)
    if n < 5 or is_smooth(values[None])[0]:
        return np.zeros(n)
    rising = bool(np.polyfit(np.arange(n), values, 1)[0] > 0)
    # Multiplicative noise goes with the curve behind it, here the best monotone one.
    mean = np.abs(isotonic_regression(values, increasing=rising).x)
    weight = np.diff(time[:-1]) / (time[2:] - time[:-2])
    off = np.abs(values[1:-1] - (1.0 - weight) * values[:-2] - weight * values[2:])
    # Deviations from that line have 1 + w^2 + (1 - w)^2 times the variance of a point.
    off /= np.sqrt(1.0 + weight**2 + (1.0 - weight) ** 2)
    inner = mean[1:-1]
    seen = inner > LEAST * mean.max()
    seen |= seen.sum() < 5
    best = (np.inf, np.zeros(n))
    for ratio in RATIOS:
        unit = np.ones(n) if np.isinf(ratio) else np.hypot(ratio, mean / mean.max())
        share = off / unit[1:-1]
        # A median, which falls and outliers hardly change; the factor is for few points.
        size = (1.0 + (8.0 / n) ** 1.5) * np.median(share[seen]) / NORMAL
        if size <= 0:
            return np.zeros(n)
        # Beyond FAR as of a density that can be normalised: no noise is too small for nothing.
        misfit = 0.5 * np.minimum(share / size, FAR) ** 2
        misfit += 2.0 * np.log(np.maximum(share / size, FAR) / FAR)
        score = float(np.sum(misfit + np.log(size * unit[1:-1])))
        # Two kinds of noise have one parameter more, which has its price.
        score += 2.0 * np.isfinite(ratio)
        if score < best[0]:
            best = (score, size * unit)
    return best[1]


class Whitened:
    """Means of a curve in bins, and what makes their noise independent, of unit size.

    Shapes: values, points, floor (n,), edges (bins,).
    """

    def __init__(self, values: Array, points: Array, floor: Array, edges: NDArray[np.intp]) -> None:
        n = len(values)
        self.counts = np.diff(edges, append=n).astype(np.float64)
        self.means = np.add.reduceat(values, edges) / self.counts
        self.squares = np.add.reduceat(points**2, edges) / self.counts
        # However many points a bin has, its mean counts as no more exact than that.
        self.floor = 0.25 * floor[edges]
        which = np.repeat(np.arange(len(edges)), self.counts.astype(int))
        # In bins of many points the trend is taken out; where it is steeper they are left out.
        many = self.counts >= MANY
        line = np.interp(np.arange(n), edges + 0.5 * (self.counts - 1.0), self.means)
        off = values - np.where(many[which], line, self.means[which])
        off /= np.where(points > 0, points, 1.0)
        square = np.add.reduceat(off**2, edges) / self.counts
        steep = many & (square > FAR * np.median(square[many])) if many.any() else many
        seen = (points > self.floor[which]) & ~steep[which]
        size = np.abs(self.means)
        seen &= (size > LEAST * size.max())[which]
        first = np.zeros(n, dtype=bool)
        first[edges] = self.counts > 1
        pair = (which[1:] == which[:-1]) & seen[1:] & seen[:-1]
        before, after, first = off[:-1][pair], off[1:][pair], off[first & seen]
        self.pairs = len(before)
        self.several = self.counts[(self.counts > 1) & seen[edges]]
        # Of these sums the likelihood of an AR(1) process is made for every correlation.
        self.products = after @ after, before @ after, before @ before, first @ first

    def __call__(self, columns: Array, correlation: float) -> Array:
        """Whiten columns (bins, ...)."""
        errors, share = self.errors(correlation)
        shape = (-1,) + (1,) * (columns.ndim - 1)
        out = columns / errors.reshape(shape)
        if correlation:
            share = share.reshape(shape)
            # What the bin before does not tell has the variance 1 - share^2.
            out[1:] = (out[1:] - share * out[:-1]) / np.sqrt(1.0 - share**2)
        return out

    def errors(self, correlation: float) -> tuple[Array, Array]:
        """Return standard errors (bins,) and correlations of neighbouring bins (bins - 1,)."""
        n, phi = self.counts, correlation
        # Points are off their neighbours by less than by their noise where it lasts.
        square = self.squares / shrunk(phi)
        # n^2 V(n) / sigma^2, with V of the head of the module
        inside = n * (1.0 + phi) / (1.0 - phi) - 2.0 * phi * (1.0 - phi**n) / (1.0 - phi) ** 2
        variance = square * inside / n**2 + self.floor**2
        ends = (1.0 - phi**n) / (1.0 - phi)
        # Covariance of neighbouring means: phi^distance summed over pairs of their points.
        between = phi * ends[1:] * ends[:-1] / (n[1:] * n[:-1])
        between *= np.sqrt(square[1:] * square[:-1])
        return np.sqrt(variance), between / np.sqrt(variance[1:] * variance[:-1])

    def unlikeliness(self, rest: float, correlation: float) -> float:
        """-2 log of the likelihood at the best size of the noise, for a sum of squares of bins."""
        errors, share = self.errors(correlation)
        after, product, before, first = self.products
        phi, n = correlation, self.several
        within = (after - 2.0 * phi * product + phi**2 * before) / (1.0 - phi**2) + first
        known = KNOWN + self.pairs + len(errors)
        squares = KNOWN + within * shrunk(phi) + rest
        spread = 2.0 * np.log(errors).sum() + np.log1p(-(share**2)).sum()
        spread += self.pairs * np.log((1.0 - phi**2) / shrunk(phi))
        # Restricted likelihood: the mean of each bin was fitted, at the price of 1^T R^-1 1.
        spread += np.log((n - (n - 2.0) * phi) / (1.0 + phi)).sum()
        return float(known * np.log(squares / known) + spread)


def shrunk(correlation: float) -> float:
    """Variance of the deviation of points from their neighbours over that of independent ones."""
    return (1.5 - 2.0 * correlation + 0.5 * correlation**2) / 1.5


def is_smooth(values: Array) -> NDArray[np.bool_]:
    """Tell which curves (runs, n) have no noise: monotone ones, and those that bend smoothly."""
    steps = np.diff(values, axis=1)
    little = 1e-9 * np.maximum(np.ptp(values, axis=1), 1e-3 * np.abs(values).max(axis=1))
    smooth = ~((steps.max(axis=1) > little) & (steps.min(axis=1) < -little))
    if values.shape[1] >= SHORTEST:
        # Second differences of noise change sign most of the time, of smooth curves seldom.
        bends = np.diff(values, 2, axis=1)
        bends[np.abs(bends) <= little[:, None]] = 0.0
        turns = (bends[:, 1:] * bends[:, :-1] < 0).sum(axis=1)
        seen = np.maximum((bends != 0).sum(axis=1), 8)
        smooth = turns < SELDOM * seen
    return np.asarray(smooth)


def averaged(level: float, values: Array, errors: Array) -> float:
    """Median of those of the values (n,) that are off a level by their standard errors at most."""
    for _ in range(ROUNDS):
        near = np.abs(values - level) <= NEAR * errors
        if near.any():
            level = float(np.median(values[near]))
    return level
