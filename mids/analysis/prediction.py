"""What a theory predicts for a batch of runs, and the start it predicts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from .. import schema
from .stay import Curve, predicted_level, stays

__all__ = [
    "KNOWN",
    "LEVELS",
    "NEVER",
    "REASONS",
    "SLOW",
    "START",
    "Prediction",
    "Record",
    "factors",
    "odds",
]

Array = NDArray[np.float64]

LEVELS: Array = np.log([1 / 9, 1.0, 9.0])
"""Log-odds of the overlaps 0.1, 0.5 and 0.9."""
KNOWN, NEVER, SLOW, START = range(4)
REASONS = ("known", "never_left", "too_slow_to_follow", "start_is_no_correlation_matrix")
"""Meanings of the values of `Prediction.reason`."""


def _unknown(rows: NDArray[np.int64], time: Array) -> Array:
    return np.full(len(rows), np.nan)


@dataclass(frozen=True)
class Prediction:
    """The saddles of each run in the order in which they are left; rows padded with NaN.

    Shapes: all (n, saddle). `learned` is the axis along which the direction that is learned next
    mainly points, `order` the step of the ladder to which it belongs, `reason` one of `REASONS`.
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
    curve: Callable[[NDArray[np.int64], Array], Array] = _unknown

    @classmethod
    def empty(cls, n: int, saddles: int) -> Prediction:
        """Start from NaN everywhere, for no reason."""
        rank, exponent, loss, enter, leave, escape, learned, order = (
            np.full((n, saddles), np.nan) for _ in range(8)
        )
        reason = np.zeros((n, saddles))
        return cls(rank, exponent, loss, enter, leave, escape, learned, order, reason)

    @classmethod
    def joined(cls, parts: Sequence[tuple[NDArray[np.int64], Prediction]]) -> Prediction:
        """Put predictions for some rows each together."""
        n = sum(len(rows) for rows, _ in parts)
        result = cls.empty(n, parts[0][1].rank.shape[1])
        part_of, place = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        for k, (rows, part) in enumerate(parts):
            part_of[rows], place[rows] = k, np.arange(len(rows))
            for field in fields(cls):
                if field.name != "curve":
                    getattr(result, field.name)[rows] = getattr(part, field.name)

        def curve(rows: NDArray[np.int64], time: Array) -> Array:
            values = np.full(len(rows), np.nan)
            for k, (_, part) in enumerate(parts):
                here = part_of[rows] == k
                values[here] = part.curve(place[rows[here]], time[here])
            return values

        return replace(result, curve=curve)

    def visited(self, overlaps: Array) -> NDArray[np.bool_]:
        """Tell which of the saddles a run stays at, by the rule of `stays`.

        Shapes: overlaps (n, direction); returns (n, saddle).
        """
        known = ~np.isnan(self.rank)
        following = np.where(known, self.rank, 0).astype(np.int64)
        beyond = np.take_along_axis(overlaps >= min(schema.LEVELS), following, axis=1)
        return known & stays(self.enter_time, np.where(beyond, 0.0, self.leave_time))

    def loss(self, time: Array | None, crossing: Array | None = None) -> Array:
        """Level of each stay; that of the saddle where a later one is never left.

        Shapes: crossing (n, direction, level); returns (n, saddle).
        """
        result = self.saddle_loss.copy()
        for j in range(result.shape[1]):
            enter, leave = self.enter_time[:, j], self.leave_time[:, j]
            known = (enter == 0) | ((enter < leave) & np.isfinite(self.escape_time[:, j]))
            rows = np.flatnonzero(known)
            if not len(rows):
                continue
            measured = None
            if crossing is not None:
                k = self.rank[rows, j].astype(np.int64)
                inner = (k > 0) & (k < crossing.shape[1])
                k = np.where(inner, k, 1 % crossing.shape[1])
                ends = crossing[rows, k - 1, -1], crossing[rows, k, 0]
                measured = np.where(inner, ends[0], np.nan), np.where(inner, ends[1], np.nan)

            def curve(index: NDArray[np.int64], at: Array, rows: NDArray[np.intp] = rows) -> Array:
                return self.curve(rows[index], at)

            found = predicted_level(curve, time, enter[rows], leave[rows], measured)
            result[rows, j] = np.where(np.isnan(found), result[rows, j], found)
        return result


class Record:
    """Losses and their slopes at the steps of each run."""

    def __init__(self) -> None:
        self._nodes: list[tuple[NDArray[np.int64], Array, Array, Array]] = []

    def note(self, runs: NDArray[np.int64], time: Array, loss: Array, slope: Array) -> None:
        """Keep one value for each of some runs, shape (n,) each."""
        self._nodes.append((runs, time, loss, slope))

    def curve(self) -> Callable[[NDArray[np.int64], Array], Array]:
        """Return the loss as a function of rows, that come one after the other, and times."""
        curves: dict[int, Curve] = {}
        if self._nodes:
            run, time, loss, slope = map(np.concatenate, zip(*self._nodes, strict=True))
            order = np.argsort(run, kind="stable")
            run, time, loss, slope = (part[order] for part in (run, time, loss, slope))
            later = np.append((np.diff(time) > 0) | (np.diff(run) != 0), True)
            run, time, loss, slope = (part[later] for part in (run, time, loss, slope))
            names, starts = np.unique(run, return_index=True)
            ends = [*starts[1:], len(run)]
            for name, begin, end in zip(names.tolist(), starts.tolist(), ends, strict=True):
                at = slice(begin, end)
                curves[name] = Curve(time[at], loss[at], slope[at])

        def values(rows: NDArray[np.int64], time: Array) -> Array:
            result = np.full(len(rows), np.nan)
            ends = np.append(np.flatnonzero(np.diff(rows)) + 1, len(rows))
            begin = 0
            for end in ends if len(rows) else ():
                if (known := curves.get(int(rows[begin]))) is not None:
                    result[begin:end] = known(time[begin:end])
                begin = end
            return result

        return values


def odds(gram: Array) -> Array:
    """Return ``X = G (I - G)^{-1}``, the odds of the overlaps, for G of shape (n, rank, rank).

    Overlaps that rounding has pushed out of [0, 1] are moved to its ends; those within 1e-16 of 1
    count as that close.
    """
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    scaled = values / np.maximum(1.0 - values, 1e-16)
    return np.asarray((vectors * scaled[:, None, :]) @ vectors.swapaxes(1, 2))


def factors(gram: Array) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Yield runs and their P, shape (n, rank, c), with ``P P^T = X``, by the number c of columns.

    A student of lower rank than the target leaves zeros, up to rounding. Columns are orthogonal,
    longest first.
    """
    values, vectors = np.linalg.eigh(odds(gram))
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    directions = (values > 1e-13 * np.maximum(values[:, :1], 1e-300)).sum(axis=1)
    for c in np.unique(directions):
        chosen = np.flatnonzero(directions == c)
        yield chosen, vectors[chosen, :, :c] * np.sqrt(values[chosen, None, :c])
