"""Takes the starts of a batch of runs; gives what theory predicts, with the levels of plateaus.

A curve passes the loss of the saddle itself, but at finite d need not be flat there: a short
plateau lies above or below. Its level is taken where the curve is flattest in logarithmic time, in
the same way for measured and for predicted curves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import schema
from ..targets.ladder import Ladder
from ..validation import FloatArray as Array
from ..validation import IntArray

LEVELS: Array = np.log([1 / 9, 1.0, 9.0])  # log-odds of the overlaps 0.1, 0.5 and 0.9
KNOWN, NEVER, SLOW, START, BETWEEN, ABSENT = range(6)
METHODS = ("none", "quadrature", "reduced_flow", "turning_subspace", "several_directions_at_once")
"""Meanings of the values of `Prediction.method`."""
REASONS = (
    "known",
    "never_left",
    "too_slow_to_follow",
    "start_is_no_correlation_matrix",
    "direction_of_no_single_step",
    "not_visited",
)
"""Meanings of the values of `Prediction.reason`."""
_POINTS = 257


CLEAR = 0.75  # share, squared, of a direction in the step of the ladder to which it belongs


def steps_of(directions: Array, ladder: Ladder) -> Array:
    """Find the step of each direction (n, saddle, rank), the expected one first; or NaN."""
    if not len(ladder):
        return np.full(directions.shape[:2], np.nan)
    # Where subspaces turn, what several steps learn may be alike.
    shares = np.stack([np.sum((directions @ s.learned) ** 2, axis=2) for s in ladder], axis=2)
    expected = expected_steps(ladder, directions.shape[1])
    own = np.take_along_axis(shares, expected[None, :, None], axis=2)[:, :, 0]
    found = np.where(own > CLEAR, expected, shares.argmax(axis=2))
    return np.where(shares.max(axis=2) > CLEAR, found, np.nan)


def expected_steps(ladder: Ladder, saddles: int) -> IntArray:
    """Step that learns the next direction at each saddle in the ladder's order, (saddle,)."""
    after = np.cumsum([step.learned.shape[1] for step in ladder])
    return np.minimum(np.searchsorted(after, np.arange(saddles), side="right"), len(ladder) - 1)


def _unknown(rows: IntArray, time: Array) -> Array:
    return np.full(len(rows), np.nan)


@dataclass(frozen=True)
class Prediction:
    """The saddles of each run in the order in which they are left; rows padded with NaN.

    Shapes: all (n, saddle). `learned` is the axis along which the direction that is learned next
    mainly points, `order` the step of the ladder to which it belongs, `reason` one of `REASONS`,
    `method` one of `METHODS`.
    """

    rank: Array
    exponent: Array
    saddle_loss: Array
    enter_time: Array
    leave_time: Array
    escape_time: Array
    learned: Array
    order: Array
    reason: Array
    method: Array
    curve: Callable[[IntArray, Array], Array] = _unknown

    @classmethod
    def empty(cls, n: int, saddles: int) -> Prediction:
        """Start from NaN everywhere, for no reason."""
        return cls(*np.full((8, n, saddles), np.nan), *np.zeros((2, n, saddles)))

    def visited(self, overlaps: Array) -> NDArray[np.bool_]:
        """Tell which saddles runs visit, by `visits`, for overlaps (n, direction) at the start."""
        known = ~np.isnan(self.rank)
        following = np.where(known, self.rank, 0).astype(np.int64)
        beyond = np.take_along_axis(overlaps >= min(schema.LEVELS), following, axis=1)
        return known & visits(self.enter_time, np.where(beyond, 0.0, self.leave_time))

    def loss(self, time: Array | None, crossing: Array | None = None) -> Array:
        """Level of each plateau, (n, saddle); the saddle's own where a later one is never left."""
        result, enter, leave = self.saddle_loss.copy(), self.enter_time, self.leave_time
        at = np.nonzero((enter == 0) | ((enter < leave) & np.isfinite(self.escape_time)))
        measured = None
        if crossing is not None:
            run, k = at[0], self.rank[at].astype(np.int64)
            inner = (k > 0) & (k < crossing.shape[1])
            k = np.where(inner, k, 1 % crossing.shape[1])
            ends = crossing[run, k - 1, -1], crossing[run, k, 0]
            measured = np.where(inner, ends[0], np.nan), np.where(inner, ends[1], np.nan)
        found = predicted_level(
            lambda rows, times: self.curve(at[0][rows], times), time, enter[at], leave[at], measured
        )
        result[at] = np.where(np.isnan(found), result[at], found)
        return result


class Record:
    """Losses and their slopes at the steps of each run."""

    def __init__(self) -> None:
        self._nodes: list[Array] = []

    def note(self, runs: IntArray, time: Array, loss: Array, slope: Array) -> None:
        """Keep one value for each of some runs, shape (n,) each."""
        self._nodes.append(np.stack([runs, time, loss, slope], axis=1))

    def curve(self) -> Callable[[IntArray, Array], Array]:
        """Return the loss as a function of rows and times, all of shape (n,)."""
        if not self._nodes:
            return _unknown
        nodes = np.concatenate(self._nodes)
        nodes = nodes[np.argsort(nodes[:, 0], kind="stable")]
        # A new stretch begins where the last one ended: of two nodes at a time the later counts.
        later = np.append((np.diff(nodes[:, 1]) > 0) | (np.diff(nodes[:, 0]) != 0), True)
        return Curves(*nodes[later].T)


def odds(gram: Array) -> Array:
    """Return ``X = G (I - G)^{-1}``, the odds of the overlaps, for G of shape (n, rank, rank)."""
    values, vectors = np.linalg.eigh(gram)
    # A Gram matrix has no negative eigenvalues but by rounding.
    values = np.maximum(values, 0.0)
    # An overlap that is 1 but for rounding has large odds, not infinite ones.
    scaled = values / np.maximum(1.0 - values, 1e-16)
    return np.asarray((vectors * scaled[:, None, :]) @ vectors.swapaxes(1, 2))


def factors(gram: Array) -> Iterator[tuple[IntArray, Array]]:
    """Yield runs and P (n, rank, c), ``P P^T = X``, with orthogonal columns, by their number c."""
    values, vectors = np.linalg.eigh(odds(gram))
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    # A student of lower rank than the target leaves zeros, up to rounding.
    directions = (values > 1e-13 * np.maximum(values[:, :1], 1e-300)).sum(axis=1)
    for c in np.unique(directions):
        chosen = np.flatnonzero(directions == c)
        yield chosen, vectors[chosen, :, :c] * np.sqrt(values[chosen, None, :c])


def cubic(x: Array, u0: Array, u1: Array, d0: Array, d1: Array) -> Array:
    """Cubic on [0, 1] with values u0, u1 and slopes d0, d1 at the ends."""
    start = (1 - x) ** 2 * ((1 + 2 * x) * u0 + x * d0)
    return np.asarray(start + x**2 * ((3 - 2 * x) * u1 + (x - 1) * d1))


def cubic_root(*ends: Array) -> Array:
    """Root in [0, 1] of the `cubic` of u0 < 0 <= u1, d0 and d1."""
    low, high = np.zeros(ends[0].shape), np.ones(ends[0].shape)
    for _ in range(40):
        middle = (low + high) / 2
        before = cubic(middle, *ends) < 0
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    return (low + high) / 2


class Curves:
    """Decreasing curves, one for each row, known at times with their slopes there; all (n,)."""

    def __init__(self, row: Array, time: Array, values: Array, slopes: Array) -> None:
        self._row, self._time, self._values, self._slopes = row, time, values, slopes
        self._nodes = _pairs(row, time)

    def __call__(self, rows: IntArray, time: Array) -> Array:
        """Values of rows at times, by cubics that keep decreasing; constant beyond the ends."""
        first = np.searchsorted(self._row, rows)
        end = np.searchsorted(self._row, rows, side="right")
        known = end > first
        before = np.searchsorted(self._nodes, _pairs(rows, time), side="right") - 1
        left = np.clip(before, first, np.maximum(end - 2, first))
        right = np.minimum(left + 1, np.maximum(end - 1, 0))
        left = np.minimum(left, right)
        length = self._time[right] - self._time[left]
        x = np.clip((time - self._time[left]) / np.where(length > 0, length, 1.0), 0.0, 1.0)
        start, stop = self._values[left], self._values[right]
        # Steeper ends than three times the secant would make a cubic overshoot.
        steepest = 3.0 * np.minimum(stop - start, 0.0)
        d0, d1 = (np.clip(self._slopes[k] * length, steepest, 0.0) for k in (left, right))
        return np.where(known, cubic(x, start, stop, d0, d1), np.nan)


def _pairs(row: Array | IntArray, time: Array) -> NDArray[np.complex128]:
    """Rows and times as numbers that NumPy orders by row first."""
    pairs = np.empty(len(row), dtype=np.complex128)
    pairs.real, pairs.imag = row, time
    return pairs


def visits(enter: Array, leave: Array) -> NDArray[np.bool_]:
    """Tell whether a run reaches 0.9 in the last overlap before 0.1 in the next one."""
    return np.asarray(enter < np.where(np.isnan(leave), np.inf, leave))


def level(time: Array, values: Array, enter: Array, stop: Array) -> Array:
    """Values of curves (runs, n) where they change least in log time on a plateau, (runs,)."""
    time = np.broadcast_to(time, values.shape)
    enter, stop = enter[:, None], stop[:, None]
    known = np.isfinite(values) & np.where(enter > 0, time > 0, time >= 0)
    if (known[:, 1:] > known[:, :-1]).any():  # the known ones to the front, as neighbours
        order = np.argsort(~known, axis=1, kind="stable")
        time, values = (np.take_along_axis(part, order, axis=1) for part in (time, values))
        known = np.take_along_axis(known, order, axis=1)
    inside = known & (time >= enter) & (time <= stop)
    chosen = inside.argmax(axis=1)
    # In log time every curve is flat at its start: the first plateau has its first value.
    later = np.flatnonzero((enter[:, 0] > 0) & inside.any(axis=1))
    if len(later):
        last = known[later].sum(axis=1, keepdims=True) - 1
        at = np.minimum(np.arange(values.shape[1]), last)
        log_time = np.log(time[later[:, None], at])
        chosen[later] = flattest(log_time, values[later[:, None], at], inside[later])
    reached = values[np.arange(len(values)), chosen]
    return np.where(inside.any(axis=1), reached, np.nan)


def flattest(log_time: Array, values: Array, inside: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Index of the point at which each curve, (curves, n), changes least between its neighbours."""
    at = np.arange(values.shape[1])
    before, after = np.maximum(at - 1, 0), np.minimum(at + 1, len(at) - 1)
    apart = log_time[:, after] - log_time[:, before]
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
    """Levels (runs,) of predicted curves at the times of a dataset."""
    stop = np.where(np.isnan(stop), np.inf, stop)
    result = np.full(len(enter), np.nan)
    on_grid = np.zeros(len(enter), dtype=bool)
    if grid is not None:
        seen, left = enter, stop
        if measured is not None:
            # Read the predicted curve at the same part of its plateau as the measured one.
            both = (enter > 0) & np.isfinite(stop) & (measured[1] > measured[0])
            seen, left = (
                np.where(both, m, own) for m, own in zip(measured, (enter, stop), strict=True)
            )
        first, last = np.searchsorted(grid, seen), np.searchsorted(grid, left, side="right")
        on_grid = last > first
        rows = np.flatnonzero(on_grid)
        if len(rows):
            early = enter[rows] > 0
            # One point more on either side, as changes are taken between neighbours.
            begin = np.where(early, np.maximum(first[rows] - 1, 0), first[rows])
            end = np.where(early, np.minimum(last[rows] + 1, len(grid)), first[rows] + 1)
            at = begin[:, None] + np.arange((end - begin).max())
            run, column = np.nonzero(at < end[:, None])
            time = grid[np.minimum(at, len(grid) - 1)]
            of = rows[run]
            moment = time[run, column]
            if measured is not None:
                stretch = np.ones(len(enter))
                stretch[both] = (stop - enter)[both] / (left - seen)[both]
                moment = enter[of] + (moment - seen[of]) * stretch[of]
            values = np.full(time.shape, np.nan)
            values[run, column] = curve(of, moment)
            result[rows] = level(time, values, seen[rows], left[rows])
    rows = np.flatnonzero(~on_grid & (enter == 0))
    result[rows] = curve(rows, np.zeros(len(rows)))
    rows = np.flatnonzero(~on_grid & (enter > 0))
    if len(rows):
        # No time of the grid falls into the plateau: times even in the logarithm instead.
        # log1p and expm1, as a plateau may be short compared with its time.
        relative = np.log1p((stop - enter)[rows] / enter[rows])[:, None]
        time = enter[rows, None] * (1 + np.expm1(relative * np.linspace(0.0, 1.0, _POINTS)))
        time = np.sort(time, axis=1)
        run = np.repeat(rows, _POINTS)
        values = curve(run, time.ravel()).reshape(time.shape)
        values[:, 1:][np.diff(time, axis=1) == 0] = np.nan
        result[rows] = level(time, values, time[:, 0], time[:, -1])
    return result
