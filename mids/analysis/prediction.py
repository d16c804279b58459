"""What a theory predicts for a batch of runs, and the start it predicts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import schema
from ..validation import FloatArray as Array
from ..validation import IntArray
from .stay import Curves, predicted_level, stays

LEVELS: Array = np.log([1 / 9, 1.0, 9.0])
"""Log-odds of the overlaps 0.1, 0.5 and 0.9."""
KNOWN, NEVER, SLOW, START = range(4)
METHODS = ("none", "quadrature", "reduced_flow", "turning_subspace", "several_directions_at_once")
"""Meanings of the values of `Prediction.method`."""
REASONS = ("known", "never_left", "too_slow_to_follow", "start_is_no_correlation_matrix")
"""Meanings of the values of `Prediction.reason`."""


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
        rank, exponent, loss, enter, leave, escape, learned, order = (
            np.full((n, saddles), np.nan) for _ in range(8)
        )
        reason, method = np.zeros((n, saddles)), np.zeros((n, saddles))
        return cls(rank, exponent, loss, enter, leave, escape, learned, order, reason, method)

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

            def curve(index: IntArray, at: Array, rows: NDArray[np.intp] = rows) -> Array:
                return self.curve(rows[index], at)

            found = predicted_level(curve, time, enter[rows], leave[rows], measured)
            result[rows, j] = np.where(np.isnan(found), result[rows, j], found)
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
        later = np.append((np.diff(nodes[:, 1]) > 0) | (np.diff(nodes[:, 0]) != 0), True)
        return Curves(*nodes[later].T)


def odds(gram: Array) -> Array:
    """Return ``X = G (I - G)^{-1}``, the odds of the overlaps, for G of shape (n, rank, rank).

    Overlaps that rounding has pushed out of [0, 1] are moved to its ends; those within 1e-16 of 1
    count as that close.
    """
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    scaled = values / np.maximum(1.0 - values, 1e-16)
    return np.asarray((vectors * scaled[:, None, :]) @ vectors.swapaxes(1, 2))


def factors(gram: Array) -> Iterator[tuple[IntArray, Array]]:
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
