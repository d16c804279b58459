r"""Escape times of targets whose H stays diagonal: the race of the directions, one clock each.

Write the target in the frame of its ladder. If no two modes of the same degree differ by moving a
single unit between variables, H is diagonal wherever G is, and

.. math:: h(G) = \sum_\beta \alpha_\beta^2 \prod_i \lambda_i^{\beta_i}.

Then every direction has its own clock: with :math:`X(0) = C C^T` (eq. for X in `race`)

.. math:: X = E X(0) E, \qquad E = \mathrm{diag}(e^{w_p}), \qquad
          w_p' = \partial h / \partial \lambda_p,

where :math:`\lambda_p` are the diagonal entries of :math:`X (I + X)^{-1}`. Once the directions of U
are learned their entry is the Schur complement of X with respect to U: what was drawn along U no
longer counts. Nothing decays in these r variables, so long plateaus take few explicit steps; all
orders of :math:`\lambda_p` take part, and whichever direction comes first wins.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..targets.basis import apply_to_indices, tensor_coefficients
from ..targets.ladder import TOLERANCE, Ladder, complete, leaps
from ..targets.target import Target
from .critical_points import relative
from .prediction import LEVELS, NEVER, SLOW, Prediction, Record, factors

__all__ = ["Decoupled"]

Array = NDArray[np.float64]

TOL = 1e-5
"""Local error of each w, and relative one of the time, that is admitted in a step."""
MAX_STEPS = 20_000
LARGEST = 1e8
"""Odds up to which a learned direction is followed."""


class Decoupled:
    """Race of one target whose directions decouple."""

    method = "decoupled"

    def __init__(self, target: Target) -> None:
        self.ladder = leaps(target)
        self.rank = target.rank
        decoupled = _decouple(target, self.ladder)
        if decoupled is None:
            raise ValueError("the directions of this target do not decouple")
        self._frame, self._modes, self._weights = decoupled
        powers, weights = [], []
        for p in range(self.rank):
            of = self._modes[:, p] > 0
            powers.append(self._modes[of] - np.eye(self.rank, dtype=np.int64)[p])
            weights.append(self._weights[of] * self._modes[of, p])
        self._powers = np.concatenate(powers).T.astype(np.float64)
        self._slopes = np.zeros((self._powers.shape[1], self.rank))
        begin = 0
        for p, part in enumerate(weights):
            self._slopes[begin : begin + len(part), p] = part
            begin += len(part)

    @staticmethod
    def applies(target: Target) -> bool:
        """Tell whether the target is learned one direction at a time along straight orbits."""
        return _decouple(target, leaps(target)) is not None

    def predict(self, gram0: Array) -> Prediction:
        """Predict the saddles of each run, shape (n, rank, rank)."""
        n, rank = len(gram0), self.rank
        crossing = np.full((n, rank, len(LEVELS)), np.nan)
        never = np.zeros(n, dtype=bool)
        slow = np.zeros(n, dtype=bool)
        record = Record()
        for chosen, factor in factors(gram0):
            turned = self._frame.T @ factor
            found = self._race(turned, chosen, record)
            crossing[chosen], never[chosen], slow[chosen] = found
        return self._collect(crossing, never, slow, record)

    def _race(
        self, factor: Array, runs: NDArray[np.int64], record: Record
    ) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
        """Crossings, (n, rank, level), who never goes on and who is too slow."""
        from scipy.integrate import RK45

        n, rank, c = factor.shape
        learnable = min(c, sum(step.learned.shape[1] for step in self.ladder))
        size = np.sqrt(np.sum(factor**2, axis=2))
        with np.errstate(divide="ignore"):
            top = np.log(np.sqrt(LARGEST)) - np.log(np.where(size > 0, size, 1.0))
        crossing = np.full((n, rank, len(LEVELS)), np.nan)
        never, slow = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        index = np.arange(n)
        w = np.zeros((n, rank))
        clock = np.zeros(n)
        done = np.zeros((n, rank), dtype=bool)
        overlap, rate = self._rates(w, factor, top, done)
        place = _log_odds(overlap)
        crossing[place[:, :, None] >= LEVELS] = 0.0
        pace = _pace(overlap, rate)
        step = np.full(n, 0.5)
        self._note(record, runs, clock, overlap, rate)
        for _ in range(MAX_STEPS):
            going = np.sum(place > LEVELS[-1], axis=1) < learnable
            still = going & ((rate * (place < LEVELS[-1])).max(axis=1) * 1e290 < 1.0)
            never[index[still]] = True
            going &= ~still
            if not going.all():
                state = index, w, clock, rate, pace, place, step, factor, top, done
                index, w, clock, rate, pace, place, step, factor, top, done = (
                    part[going] for part in state
                )
            if not len(index):
                return crossing, never, slow
            slopes, paces = [rate / pace[:, None]], [1 / pace]
            for row in RK45.A[1:]:
                moved = _sum(row, slopes)
                overlap, new = self._rates(w + step[:, None] * moved, factor, top, done)
                own = _pace(overlap, new)
                slopes.append(new / own[:, None])
                paces.append(1 / own)
            trial = w + step[:, None] * _sum(RK45.B, slopes)
            overlap, new = self._rates(trial, factor, top, done)
            own = _pace(overlap, new)
            error = step[:, None] * _sum(RK45.E, [*slopes, new / own[:, None]])
            later = clock + step * _sum(RK45.B, paces)
            late = step * np.abs(_sum(RK45.E, [*paces, 1 / own]))
            after = _log_odds(overlap)
            error = np.abs(error) * (1.0 - overlap)  # the overlap counts, not its odds
            late = relative(late, later)
            size = np.maximum(error.max(axis=1), late) / TOL
            good = size <= 1
            span = (clock, step, pace, own, later)
            self._cross(crossing, index, span, place, after, rate, new, good)
            clock = np.where(good, later, clock)
            step = step * np.clip(0.9 * np.maximum(size, 1e-10) ** -0.2, 0.2, 5.0)
            taken = good[:, None]
            w = np.where(taken, np.minimum(trial, top), w)
            rate, place = np.where(taken, new, rate), np.where(taken, after, place)
            # From here on it stands still, and time is counted by what is left to learn.
            ends = taken & ~done & (after > np.log(LARGEST) - 2)
            done |= ends
            rate[done] = 0.0
            pace = np.where(good, np.where(ends.any(axis=1), _pace(overlap, rate), own), pace)
            step = np.where(ends.any(axis=1), 0.3, step)
            self._note(record, runs[index[good]], clock[good], overlap[good], new[good])
        slow[index] = True
        return crossing, never, slow

    def _rates(
        self, w: Array, factor: Array, top: Array, done: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """Overlaps, shape (n, rank), and rates w', 0 for what has been learned for long."""
        Q = np.exp(np.minimum(w, top + 1.0))[:, :, None] * factor
        gram = np.eye(factor.shape[2]) + Q.swapaxes(1, 2) @ Q
        overlap = np.einsum("npc,ncp->np", Q, np.linalg.solve(gram, Q.swapaxes(1, 2)))
        overlap = np.clip(overlap, 1e-300, 1.0)
        rate = np.exp(np.log(overlap) @ self._powers) @ self._slopes
        return overlap, np.where(done, 0.0, rate)

    @staticmethod
    def _cross(
        crossing: Array,
        index: NDArray[np.int64],
        span: tuple[Array, ...],
        before: Array,
        after: Array,
        rate: Array,
        new: Array,
        good: NDArray[np.bool_],
    ) -> None:
        """Write the times at which overlaps pass the levels during a step."""
        for level, height in enumerate(LEVELS):
            passes = good[:, None] & (before < height) & (after >= height)
            rows, p = np.nonzero(passes & np.isnan(crossing[index, :, level]))
            if len(rows):
                start, step, pace, own, end = (part[rows] for part in span)
                part = hermite_root(
                    before[rows, p] - height,
                    after[rows, p] - height,
                    2 * rate[rows, p] / pace * step,
                    2 * new[rows, p] / own * step,
                )
                time = hermite(part, start, end, step / pace, step / own)
                crossing[index[rows], p, level] = np.clip(time, start, end)

    def _note(
        self, record: Record, runs: NDArray[np.int64], time: Array, overlap: Array, rate: Array
    ) -> None:
        """Keep the loss and its slope."""
        kept = np.exp(np.log(overlap) @ self._modes.T.astype(np.float64))
        loss = 0.5 * ((1.0 - kept) @ self._weights)
        record.note(runs, time, loss, -np.sum(overlap * (1 - overlap) * rate**2, axis=1))

    def _collect(
        self, crossing: Array, never: NDArray[np.bool_], slow: NDArray[np.bool_], record: Record
    ) -> Prediction:
        """Put the crossings into the order of the visits."""
        n, rank, _ = crossing.shape
        result = Prediction.empty(n, rank)
        first = np.argsort(np.where(np.isnan(crossing[:, :, 1]), np.inf, crossing[:, :, 1]), axis=1)
        times = np.sort(crossing, axis=1)  # NaN last
        learned = np.zeros((n, rank), dtype=bool)
        for k in range(rank):
            chosen = first[:, k]
            reached = np.isfinite(times[:, k, 1])
            ends = ~reached & (never | slow)
            if k:
                ends &= np.isfinite(times[:, k - 1, 1])
            for pattern in np.unique(learned[reached | ends], axis=0):
                here = (reached | ends) & (learned == pattern).all(axis=1)
                exponent, loss = self._saddle(pattern)
                if exponent is None:
                    continue
                result.rank[here, k] = k
                result.exponent[here, k] = exponent
                result.saddle_loss[here, k] = loss
                result.enter_time[here, k] = times[here, k - 1, 2] if k else 0.0
                result.leave_time[here, k] = times[here, k, 0]
                result.escape_time[here, k] = np.where(reached, times[:, k, 1], np.inf)[here]
                result.escape_time[here & ends & slow, k] = np.nan
                result.learned[here & reached, k] = self._axes[chosen[here & reached]]
                result.order[here & reached, k] = self._order[chosen[here & reached]]
                result.reason[here & ends & never, k] = NEVER
                result.reason[here & ends & slow, k] = SLOW
            learned[np.arange(n)[reached], chosen[reached]] = True
        return replace(result, curve=record.curve())

    @property
    def _axes(self) -> NDArray[np.int64]:
        """Axis along which each direction mainly points."""
        return np.asarray(np.abs(self._frame).argmax(axis=0))

    @property
    def _order(self) -> NDArray[np.int64]:
        """Place of each direction in the ladder."""
        return np.arange(self.rank)

    def _saddle(self, learned: NDArray[np.bool_]) -> tuple[int | None, float]:
        """Exponent relative to what is learned, None if nothing is left, and the loss there."""
        foreign = self._modes[:, ~learned].sum(axis=1)
        loss = 0.5 * float(self._weights[foreign > 0].sum())
        return (int(foreign[foreign > 0].min()) if foreign.any() else None), loss


def hermite_root(u0: Array, u1: Array, d0: Array, d1: Array) -> Array:
    """Root in [0, 1] of the cubic with values u0 < 0 <= u1 and slopes d0, d1 at the ends."""
    low, high = np.zeros_like(u0), np.ones_like(u0)
    for _ in range(40):
        x = (low + high) / 2
        value = hermite(x, u0, u1, d0, d1)
        low, high = np.where(value < 0, x, low), np.where(value < 0, high, x)
    return (low + high) / 2


def hermite(x: Array, u0: Array, u1: Array, d0: Array, d1: Array) -> Array:
    """Cubic on [0, 1] with values u0, u1 and slopes d0, d1 at the ends."""
    start = (1 - x) ** 2 * ((1 + 2 * x) * u0 + x * d0)
    return np.asarray(start + x**2 * ((3 - 2 * x) * u1 + (x - 1) * d1))


def _pace(overlap: Array, rate: Array) -> Array:
    """How fast what is not learned grows, shape (n,): steps are taken in units of its inverse."""
    return np.asarray(np.sum((1.0 - overlap) * rate, axis=1) + 1e-300)


def _sum(weights: Array, parts: list[Array]) -> Array:
    return np.sum([w * part for w, part in zip(weights, parts, strict=False) if w], axis=0)  # type: ignore[no-any-return]


def _log_odds(overlap: Array) -> Array:
    return np.log(overlap) - np.log(np.maximum(1.0 - overlap, 1e-16))


def _decouple(target: Target, ladder: Ladder) -> tuple[Array, NDArray[np.int64], Array] | None:
    """Return frame, modes and squared coefficients in the ladder's frame if H is diagonal there."""
    for step in ladder:
        if step.learned.shape[1] > 1 or step.drift > 1e-6 or not step.stable:
            return None
    frame = complete(np.column_stack([step.learned for step in ladder]))
    tensors = [apply_to_indices(tensor, frame.T) for tensor in target.tensors]
    modes, coefficients = tensor_coefficients(tensors)
    present = np.abs(coefficients) > TOLERANCE * np.abs(coefficients).max()
    modes, weights = modes[present], coefficients[present] ** 2
    for first, second in combinations(modes, 2):
        if first.sum() != second.sum():
            continue
        if np.abs(first - second).sum() == 2:
            return None
        # In h3(z1) + h3(z2) the correlation of the two starts drives as much as their sizes do.
        pure = np.count_nonzero(first) == 1 and np.count_nonzero(second) == 1
        if pure and first.argmax() != second.argmax():
            return None
    return frame, modes, weights
