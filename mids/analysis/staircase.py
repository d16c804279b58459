r"""Staircases in noise: which sharp falls a curve shows, by penalised likelihood.

A noisy curve is fitted by a constant and a sum of few decreasing terms with weights above zero:
sigmoids in the chosen scale x of time (log t or t), each of which ends a plateau, and decays that
only slow down (exponentials, powers), which do not:

.. math:: f(t) = c + \sum_k a_k \frac{1}{1 + e^{(x - x_k) / w_k}}
                 + \sum_j b_j D_j(t / \tau_j), \qquad a_k, b_j \ge 0.

Terms are chosen one after the other, each where it lowers the sum of squares most, exchanged while
that lowers it further, and taken out where they lower it by less than the penalty. The sum of
sigmoids is accepted against the best sum of decays by their penalised likelihoods.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .noise import Noise

__all__ = ["Fit", "believed", "bins", "staircase"]

Array = NDArray[np.float64]

BINS_PER_DECADE = 24.0
MOST_BINS = 400
ROUNDED = 1.0 - 1e-6
"""Share of a bin's width: a point at its end, but for rounding, is in the next."""
WIDTHS = {"log": (1 / 4, 1 / 8, 1 / 16, 1 / 40), "linear": (1 / 25, 1 / 60, 1 / 200, 1 / 800)}
"""Widths of the sigmoids: in log time, and as shares of the range of time."""
ROOT, RAMP = -1.0, -2.0
POWERS = (0.1, 0.25, 0.5, 1.0, 2.0, np.inf, ROOT, RAMP)
"""Decays (1 + t / tau)^-p; inf is exp(-t / tau), then exp(-(t / tau)^(1/2)) and 1 - t / tau."""
SPACING = 0.25
"""Of the logarithms of the time constants of decays."""
RESCUED = 12.0
"""Most that other runs add to the evidence of one, or take from it."""
MOST_TERMS = 12
"""Terms of one curve."""
SWEEPS = 4
MEDIAN = 1.57
"""Variance of a median over that of a mean, for normal deviates."""


@dataclass(frozen=True)
class Fit:
    """A noisy curve in bins: the decays that fit it best, and the staircase.

    Shapes: time, errors, decaying, stepping (bins,).
    """

    time: Array
    errors: Array
    decaying: Array
    stepping: Array
    evidence: float
    """Penalised log-likelihood of the staircase over that of decays, times two."""


def bins(time: Array, scale: str, per_decade: float) -> NDArray[np.intp]:
    """First points (bins,) of bins of equal width; time 0 is a bin of its own in log time."""
    if scale == "linear":
        step = (time[-1] - time[0]) / MOST_BINS
        ends = np.searchsorted(time, time + step * ROUNDED)
    else:
        ends = np.searchsorted(time, time * 10.0 ** (ROUNDED / per_decade))
    ends = np.maximum(ends, np.arange(1, len(time) + 1))
    if (ends == np.arange(1, len(time) + 1)).all():
        return np.arange(len(time))
    starts = [0]
    while ends[starts[-1]] < len(time):
        starts.append(int(ends[starts[-1]]))
    return np.array(starts)


@lru_cache(maxsize=4)
def _terms(key: bytes, scale: str) -> tuple[Array, Array, Array]:
    """Sigmoids, decays (bins, terms) and their shapes (terms, 2) at the times in bytes `key`."""
    time = np.frombuffer(key)
    first = time[time > 0][0]
    x = time if scale == "linear" else np.log(np.maximum(time, 0.1 * first))
    unit = time[-1] - time[0] if scale == "linear" else 1.0
    at = np.sort(np.concatenate([x[1:], 0.5 * (x[1:] + x[:-1])]))
    sigmoids = [
        1.0 / (1.0 + np.exp(np.clip((x[:, None] - at) / (width * unit), -60.0, 60.0)))
        for width in WIDTHS[scale]
    ]
    tau = np.exp(np.arange(np.log(0.5 * first), np.log(3.0 * time[-1]), SPACING))
    shapes = np.array([(power, constant) for power in POWERS for constant in tau])
    return np.concatenate(sigmoids, axis=1), _decays(time, shapes), shapes


def _decays(time: Array, shapes: Array) -> Array:
    """Decays (bins, terms) of given powers and time constants (terms, 2)."""
    power, tau = shapes.T
    share = (time - time[0])[:, None] / tau
    out = np.exp(-np.where(np.isinf(power), share, 0.0))
    rooted = power == ROOT
    out[:, rooted] = np.exp(-np.sqrt(share[:, rooted]))
    out[:, power == RAMP] = np.maximum(1.0 - share[:, power == RAMP], 0.0)
    own = np.isfinite(power) & (power > 0)
    out[:, own] = (1.0 + share[:, own]) ** -power[own]
    return np.asarray(out)


def _finer(shapes: Array) -> Array:
    """Decays (terms, 2) close to given ones (few, 2)."""
    steps = np.linspace(-SPACING, SPACING, 17)
    near = []
    for power, tau in shapes:
        factors = (0.8, 0.9, 1.0, 1.1, 1.25) if np.isfinite(power) and power > 0 else (1.0,)
        near += [(power * factor, tau * np.exp(step)) for factor in factors for step in steps]
    return np.array(near).reshape(-1, 2)


class _Selection:
    """Terms chosen for one curve, each at a price; all are weighted and without mean.

    Shapes: terms (bins, n); curve (bins,).
    """

    def __init__(self, terms: Array, curve: Array, price: float) -> None:
        self.terms, self.curve, self.price = terms, curve, price
        self.squares = (terms**2).sum(axis=0)
        self.chosen: list[int] = []

    def search(self) -> None:
        """Choose terms."""
        if not self.terms.shape[1]:
            return
        self.grow()
        self.exchange()
        self.grow()

    def score(self) -> float:
        """Sum of squares with the price of the terms."""
        return self.weights()[1] + self.price * len(self.chosen)

    def gains(self, others: list[int]) -> Array:
        """By how much each term lowers the penalised sum of squares beside the others."""
        left, squares = self.curve, self.squares
        if others:
            q, _ = np.linalg.qr(self.terms[:, others])
            left = left - q @ (q.T @ left)
            squares = squares - ((q.T @ self.terms) ** 2).sum(axis=0)
        along = left @ self.terms
        usable = (along > 0) & (squares > 1e-6 * self.squares)
        return np.asarray(
            np.where(usable, along**2 / np.where(usable, squares, 1.0), 0.0) - self.price
        )

    def grow(self) -> None:
        """Add terms while one pays for itself."""
        while len(self.chosen) < MOST_TERMS:
            gains = self.gains(self.chosen)
            best = int(gains.argmax())
            if gains[best] <= 0 or best in self.chosen:
                return
            self.chosen.append(best)
            self.weights()

    def exchange(self) -> None:
        """Replace terms by better ones, and take out those that do not pay."""
        for _ in range(SWEEPS):
            before = list(self.chosen)
            for k in range(len(self.chosen) - 1, -1, -1):
                others = self.chosen[:k] + self.chosen[k + 1 :]
                gains = self.gains(others)
                best = int(gains.argmax())
                if gains[best] <= 0:
                    self.chosen = others
                elif gains[best] > gains[self.chosen[k]] + 1e-9 and best not in others:
                    self.chosen[k] = best
            if self.chosen == before:
                return

    def weights(self) -> tuple[Array, float]:
        """Weights of the chosen terms and the sum of squares; terms without weight go."""
        from scipy.optimize import nnls

        if not self.chosen:
            return np.empty(0), float(self.curve @ self.curve)
        weights, norm = nnls(self.terms[:, self.chosen], self.curve)
        self.chosen = [
            term for term, weight in zip(self.chosen, weights, strict=True) if weight > 0
        ]
        return weights[weights > 0], float(norm**2)


def staircase(
    time: Array, values: Array, floor: Array, noise: Noise, scale: str, confidence: float
) -> Fit:
    """Fit a staircase to a noisy curve; `floor` is the change that counts, at each point.

    Shapes: time, values, floor (n,).
    """
    edges = bins(time, scale, BINS_PER_DECADE)
    counts = np.diff(edges, append=len(time)).astype(np.float64)
    middle = values
    if counts.max() > 1:
        middle = np.array([np.median(part) for part in np.split(values, edges[1:])])
    at = np.add.reduceat(time, edges) / counts
    squares = np.add.reduceat(noise.points**2, edges) / counts
    squares *= np.where(counts > 2, MEDIAN, 1.0)
    long = max(len(time) / 6.0, 1.0)
    lasting = noise.of_means(1.0, np.array([long])) ** 2 * long
    errors = np.sqrt(squares * lasting / counts + (0.25 * floor[edges]) ** 2)
    sign = -1.0 if np.polyfit(np.arange(len(middle)), middle, 1)[0] > 0 else 1.0

    weight = 1.0 / errors
    unit = weight / np.linalg.norm(weight)
    sigmoids, decays, shapes = _terms(at.tobytes(), scale)

    def centred(columns: Array) -> Array:
        weighted = columns * (weight[:, None] if columns.ndim > 1 else weight)
        return np.asarray(
            weighted - np.multiply.outer(unit, unit @ weighted).reshape(weighted.shape)
        )

    curve = centred(sign * middle)
    n = len(at)
    doubt = -2.0 * np.log(1.0 - confidence)
    each = np.log(n)
    price = 2.0 * each + doubt - 2.0
    cheap = each + 2.0
    steps = _Selection(centred(sigmoids), curve, price)
    steps.search()
    alone = _Selection(centred(decays), curve, cheap)
    alone.search()
    finer = _finer(shapes[alone.chosen])
    decays = np.concatenate([_decays(at, finer), decays[:, alone.chosen]], axis=1)
    alone = _Selection(centred(decays), curve, cheap)
    alone.search()
    (_, slack), (_, rest) = alone.weights(), steps.weights()
    spread = max(0.6, rest / max(n - 3 * len(steps.chosen) - 1, 1))
    evidence = (slack - rest) / spread - each * (len(steps.chosen) - len(alone.chosen))
    evidence -= doubt + 5.0
    best, terms = steps, sigmoids
    if steps.chosen and evidence > -RESCUED:
        # Parts of it may only slow down; such a sum has to be better by one term.
        both = np.concatenate([sigmoids, decays], axis=1)
        mixed = _Selection(centred(both), curve, price)
        mixed.chosen = list(steps.chosen)
        mixed.search()
        if mixed.score() < steps.score() - price * spread:
            best, terms = mixed, both

    def shape(selection: _Selection, columns: Array) -> Array:
        fitted = columns[:, selection.chosen] @ selection.weights()[0]
        return np.asarray(
            sign * (fitted + unit @ (weight * (sign * middle - fitted)) / (unit @ weight))
        )

    return Fit(at, errors, shape(alone, decays), shape(best, terms), float(evidence))


def believed(evidence: Array) -> NDArray[np.bool_]:
    """Tell which of several runs show a staircase, each with the evidence of the others (runs,)."""
    others = np.clip(evidence.sum() - evidence, -RESCUED, RESCUED)
    return np.asarray(evidence + others > 0)
