r"""Staircases in noise: which sharp falls a curve shows, by penalised likelihood.

A noisy curve is fitted by a constant and a sum of few decreasing terms with weights above zero:
sigmoids in the chosen scale x of time (log t or t), each of which ends a plateau, and decays that
only slow down, which do not:

.. math:: f(t) = c + \sum_k a_k \frac{1}{1 + e^{(x - x_k) / w_k}}
                 + \sum_j b_j D_j(t / \tau_j), \qquad a_k, b_j \ge 0.

Sigmoids are chosen one after the other, each where it lowers the sum of squares most, exchanged
while that lowers it further, and taken out where they lower it by less than their price. The sum of
sigmoids is accepted against decays: any sum of exponentials (all completely monotone curves), with
ramps at a price, or few powers and stretched exponentials, whichever is likelier at its price. The
noise has in each fit the correlation that makes it likeliest. Where that is zero in both and the
decision is close, a staircase is also accepted if its evidence is more than that of curves drawn
anew of the decays and their noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .noise import CORRELATIONS, Whitened, noise

__all__ = ["Fit", "believed", "bins", "staircase"]

Array = NDArray[np.float64]

BINS_PER_DECADE = 24.0
MOST_BINS = 400
ROUNDED = 1.0 - 1e-6
"""Share of a bin's width: a point at its end, but for rounding, is in the next."""
WIDTHS = {"log": (1 / 4, 1 / 8, 1 / 16, 1 / 40), "linear": (1 / 25, 1 / 60, 1 / 200, 1 / 800)}
"""Widths of the sigmoids: in log time, and as shares of the range of time."""
SPACING = 0.25
"""Of the logarithms of the time constants of decays."""
RESCUED = 12.0
"""Most that other runs add to the evidence of one, or take from it."""
MOST_TERMS = 12
"""Terms of one curve."""
SWEEPS = 4
LONGEST = 0.38
"""Share of the points for which noise lasts at most."""
SCARCE = 10.0
"""Most that terms cost for there being few bins."""
POWERS, STRETCHES = (0.15, 0.3, 0.6, 1.0, 1.5, 2.0), (0.4, 0.6, 0.8)
"""Decays (1 + t / tau)^-p and exp(-(t / tau)^p)."""
TAKEN = 3.0
"""Within which of the likeliest correlation a fit takes the largest: part of the noise it fits."""
LASTS, WEAK = 4.0, 0.6
"""What decays gain by a correlation beyond the second, for staircases are feigned by noise that
lasts; they pay as much for a smaller one, for a staircase in decays looks like it."""
DOUBTFUL, DRAWS = 3.0, 12
"""Evidence that a staircase lacks at most where curves are drawn anew, and how many."""
DECAY, DECAYS, ALONE = 8.0, 12.0, 6.0
"""Prices of one decay, of a sum of any number of exponentials, and of decays without sigmoids."""


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
    off: Callable[[Array], Array]
    """Deviations of the data from a curve (bins,), whitened."""
    fall: float
    """-1 for a curve that rises."""
    price: float
    """Of a term."""

    def bends(self, low: int, high: int, sense: int) -> bool:
        """Tell whether the data in bins `low` to `high` are no curve that only slows down (1).

        Or none that only speeds up (-1): all convex or concave ones, straight from bin to bin.
        """
        from scipy.optimize import nnls

        high = min(high, n := len(self.time))
        here = slice(low, high)
        if high - low < 4:
            return False
        time = self.time[here]
        # With weights above zero ramps and a constant of either sign give all such curves.
        ramps = np.maximum(sense * (time - time[:, None]), 0.0) * sense * self.fall
        columns = np.zeros((n, high - low + 2))
        columns[here, 0], columns[here, 1], columns[here, 2:] = 1.0, -1.0, ramps
        zero = self.off(np.zeros(n))
        # The deviation is affine in the curve: its change is the column, whitened.
        columns = zero[:, None] - np.stack([self.off(column) for column in columns.T], axis=1)
        scale = np.abs(columns[here]).max(axis=0)
        scale[scale == 0] = 1.0
        rest = nnls(columns[here] / scale, zero[here], maxiter=100 * (high - low))[1]
        errors = self.off(self.stepping)
        size = max(float(np.mean(errors**2)), 1.0)
        # Even the best of them must be worse than the staircase by more than a term costs.
        return bool(rest**2 - np.sum(errors[here] ** 2) > size * self.price)


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
def _terms(key: bytes, scale: str) -> tuple[Array, ...]:
    """Return x (bins,), places and widths of sigmoids (terms, 2) and columns (bins, ...).

    These are sigmoids, exponentials, ramps, and all decays, at the times in bytes `key`.
    """
    time = np.frombuffer(key)
    first = time[time > 0][0]
    # Time 0 has no logarithm: it stands a decade before the first time.
    x = time if scale == "linear" else np.log(np.maximum(time, 0.1 * first))
    unit = time[-1] - time[0] if scale == "linear" else 1.0
    at = np.sort(np.concatenate([x[1:], 0.5 * (x[1:] + x[:-1])]))
    places = np.array([(place, width * unit) for width in WIDTHS[scale] for place in at])
    tau = np.exp(np.arange(np.log(0.5 * first), np.log(3.0 * time[-1]), SPACING))
    share = (time - time[0])[:, None] / tau
    exponentials, ramps = np.exp(-share), np.maximum(1.0 - share, 0.0)
    decays = [exponentials, ramps, *((1.0 + share) ** -power for power in POWERS)]
    decays += [np.exp(-(share**power)) for power in STRETCHES]
    return x, places, _sigmoids(x, places), exponentials, ramps, np.concatenate(decays, axis=1)


def _sigmoids(x: Array, places: Array) -> Array:
    """Sigmoids (bins, terms) at times (bins,), of places and widths (terms, 2)."""
    return np.asarray(
        1.0 / (1.0 + np.exp(np.clip((x[:, None] - places[:, 0]) / places[:, 1], -60.0, 60.0)))
    )


def _finer(places: Array) -> Array:
    """Places and widths (terms, 2) close to given ones (few, 2)."""
    shift, factor = np.meshgrid(np.linspace(-1.0, 1.0, 9), np.geomspace(0.6, 1.7, 7))
    width = places[:, 1:] * factor.ravel()
    return np.stack([places[:, :1] + places[:, 1:] * shift.ravel(), width], axis=-1).reshape(-1, 2)


class _Selection:
    """Terms chosen for one curve, each at a price, beside a base of terms that cost nothing.

    All are whitened. Shapes: base, terms (bins, ...); curve (bins,).
    """

    def __init__(self, base: Array, terms: Array, curve: Array, price: float) -> None:
        self.base, self.terms, self.curve, self.price = base, terms, curve, price
        self.squares = (terms**2).sum(axis=0)
        self.chosen: list[int] = []

    def search(self) -> None:
        """Choose terms."""
        self.weights()
        self.grow()
        self.exchange()
        self.grow()

    def gains(self, others: list[int]) -> Array:
        """By how much each term lowers the penalised sum of squares beside the others."""
        left, squares = self.curve, self.squares
        beside = np.concatenate([self.base[:, self.active], self.terms[:, others]], axis=1)
        if beside.shape[1]:
            # A new term explains only what those that are there cannot.
            q, _ = np.linalg.qr(beside)
            left = left - q @ (q.T @ left)
            squares = squares - ((q.T @ self.terms) ** 2).sum(axis=0)
        along = left @ self.terms
        # Weights are positive; what is left of a term that others nearly span is rounding.
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
        """Weights of base and chosen terms and the sum of squares; terms without weight go."""
        from scipy.optimize import nnls

        columns = np.concatenate([self.base, self.terms[:, self.chosen]], axis=1)
        if not columns.shape[1]:
            self.active = np.zeros(0, dtype=bool)
            return np.empty(0), float(self.curve @ self.curve)
        weights, norm = nnls(columns, self.curve, maxiter=100 * columns.shape[1])
        own = weights[self.base.shape[1] :] > 0
        self.active = weights[: self.base.shape[1]] > 0
        self.chosen = [term for term, there in zip(self.chosen, own, strict=True) if there]
        return np.append(weights[: self.base.shape[1]], weights[self.base.shape[1] :][own]), norm**2


@dataclass(frozen=True)
class _Fitted:
    """Curve (bins,) of chosen terms with their noise, and -2 log of its likelihood with prices."""

    cost: float
    correlation: float
    curve: Array
    chosen: list[int]


def staircase(
    time: Array,
    values: Array,
    floor: Array,
    points: Array,
    scale: str,
    confidence: float,
    draws: int = DRAWS,
) -> Fit:
    """Fit a staircase to a noisy curve; `floor` is the change that counts, at each point.

    Where the decision is close, `draws` curves of the decays are fitted as well, always the same.
    Shapes: time, values, floor, points (n,).
    """
    from scipy.special import stdtrit

    edges = bins(time, scale, BINS_PER_DECADE)
    binned = Whitened(values, points, floor, edges)
    n = len(edges)
    at = np.add.reduceat(time, edges) / binned.counts
    # Curves that rise are fitted upside down.
    sign = -1.0 if np.polyfit(np.arange(n), binned.means, 1)[0] > 0 else 1.0
    curve = sign * binned.means
    x, places, sigmoids, exponentials, ramps, decays = _terms(at.tobytes(), scale)
    none = np.empty((n, 0))
    # Noise that lasts for much of a curve cannot be told from it.
    tried = [phi for phi in CORRELATIONS if (1.0 + phi) / (1.0 - phi) <= LONGEST * len(time)]
    each, doubt = np.log(n), -2.0 * np.log(1.0 - confidence)
    # log n as in BIC, more for many bins, and what the confidence asks for
    price = each + doubt + max(each - 4.0, 0.0)

    def fit(
        base: Array, terms: Array, phi: float, given: Sequence[int], price: float, cost: float
    ) -> _Fitted:
        columns = binned(np.column_stack([np.ones(n), curve, base, terms]), phi)
        # The constant has no sign: it is projected out here, and put back below.
        unit = columns[:, 0] / np.linalg.norm(columns[:, 0])
        columns = columns[:, 1:] - np.outer(unit, unit @ columns[:, 1:])
        many = base.shape[1] + 1
        found = _Selection(columns[:, 1:many], columns[:, many:], columns[:, 0], price)
        found.chosen = list(given)
        found.search()
        weights, rest = found.weights()
        fitted = np.column_stack([base, terms[:, found.chosen]]) @ weights
        fitted += unit @ binned(curve - fitted, phi) / (unit @ binned(np.ones(n), phi))
        cost += binned.unlikeliness(rest, phi) + price * len(found.chosen)
        free = 1.0 + 2.0 * len(found.chosen)
        cost += min(2.0 * free * (free + 1.0) / max(n - free, 1.0), SCARCE)  # Hurvich, Tsai 1989
        return _Fitted(cost, phi, fitted, found.chosen)

    def decaying(phi: float) -> _Fitted:
        few = fit(none, decays, phi, (), DECAY, ALONE)
        many = fit(exponentials, ramps, phi, (), price, DECAYS + ALONE)
        return replace(
            best := min(few, many, key=_cost),
            cost=best.cost - LASTS * (phi > 0) * np.sign(phi - WEAK),
        )

    def falling(phi: float, base: Array = none) -> _Fitted:
        cost = DECAYS + ALONE if base.shape[1] else each * (phi > 0)
        found = fit(base, sigmoids, phi, (), price, cost)
        few = places[found.chosen]
        if not len(few):
            return found
        # Once more with places and widths between those of the grid
        finer = _sigmoids(x, np.concatenate([few, _finer(few)]))
        return fit(base, finer, phi, range(len(few)), price, cost)

    def settled(fit: Callable[[float], _Fitted], phi: float, taken: float = 0.0) -> _Fitted:
        """Fit with the correlation that the residuals of the fit have."""
        best = fit(phi)
        for _ in range(SWEEPS):
            left = curve - best.curve
            costs = [
                binned.unlikeliness(float((binned(left, p) ** 2).sum()), p) + each * (p > 0)
                for p in tried
            ]
            phi = tried[np.flatnonzero(costs <= np.min(costs) + taken)[-1]]
            if phi == best.correlation or (new := fit(phi)).cost >= best.cost:
                break
            best = new
        return best

    alone, steps = settled(decaying, 0.0), settled(falling, 0.0, TAKEN)
    # Each is tried with the noise of the other, so that noise alone does not decide.
    if alone.correlation != steps.correlation:
        steps = min(steps, settled(falling, alone.correlation, TAKEN), key=_cost)
        alone = min(alone, settled(decaying, steps.correlation), key=_cost)
    evidence = alone.cost - steps.cost - doubt
    if draws and -DOUBTFUL < evidence < 0 and alone.correlation == steps.correlation == 0:
        # Prices hold for the decays that come closest to a staircase; these may come less close.
        rng = np.random.default_rng(0)
        fitted, feigned = np.interp(time, at, sign * alone.curve), np.empty(draws)
        for k in range(draws):
            drawn = fitted + points * rng.standard_normal(len(time))
            again = staircase(time, drawn, floor, noise(time, drawn), scale, confidence, 0)
            feigned[k] = again.evidence
        # Student's bound for one more curve like those drawn
        wide = stdtrit(draws - 1, confidence) * np.sqrt(1.0 + 1.0 / draws)
        evidence -= min(feigned.mean() + wide * feigned.std(ddof=1), 0.0)
    best = steps
    # Where evidence is less other runs cannot make up for it.
    if steps.chosen and evidence > -RESCUED:
        # Parts of it may only slow down.
        mixed = falling(steps.correlation, exponentials)
        best = min(steps, mixed, key=_cost) if mixed.chosen else steps
    errors = binned.errors(best.correlation)[0]

    def off(fitted: Array) -> Array:
        return binned(binned.means - fitted, best.correlation)

    return Fit(at, errors, sign * alone.curve, sign * best.curve, float(evidence), off, sign, price)


def _cost(fitted: _Fitted) -> float:
    return fitted.cost


def believed(evidence: Array) -> NDArray[np.bool_]:
    """Tell which of several runs show a staircase, each with the evidence of the others (runs,)."""
    others = np.clip(evidence.sum() - evidence, -RESCUED, RESCUED)
    return np.asarray(evidence + others > 0)
