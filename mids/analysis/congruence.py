"""Steps of congruence flows ``P' = H(P) P`` for many runs at once.

A congruence flow is ``X' = H X + X H`` with ``X = P P^T``. X spans many orders of magnitude, so P
is kept with orthogonal columns, longest first, and errors are counted column by column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["LARGEST", "Stepper", "graded"]

Array = NDArray[np.float64]
Flow = Callable[[Array], tuple[Array, Array]]

LARGEST = 1e4
"""Root of the odds to which a learned direction is followed (1 - overlap = 1e-8)."""
OVERSHOT = 100 * LARGEST
RTOL = 1e-7
"""Local error per step, relative, of every direction that is not learned."""


class Stepper:
    """Dormand-Prince steps, each run with its own step length.

    Errors count relative to the longer of the two columns they mix, so that small directions keep
    their own relative accuracy; those within what is learned already do not count.

    Shapes: factor (n, rank, c); factor (n, rank, c); H (n, rank, rank).
    """

    def __init__(self, flow: Flow, factor: Array) -> None:
        from scipy.integrate import RK45

        self._rows, self._weights, self._error = RK45.A[1:], RK45.B, RK45.E
        self._flow = flow
        self.factor, self._lengths, _ = graded(factor)
        self.H, self._rate = flow(self.factor)
        self._step = 0.1 / np.abs(self.H).max(axis=(1, 2))
        self._time = np.zeros(len(factor))

    def log_odds(self) -> tuple[Array, Array]:
        """Log-odds of the overlaps, longest first, and their rates, each of shape (n, c)."""
        frame = self.factor / self._lengths[:, None, :]
        rates = 2 * np.einsum("nic,nij,njc->nc", frame, self.H, frame)
        return 2 * np.log(self._lengths), rates

    def keep(self, going: NDArray[np.bool_]) -> None:
        """Go on with some of the runs only."""
        for name in ("factor", "_lengths", "H", "_rate", "_step", "_time"):
            setattr(self, name, getattr(self, name)[going])

    def advance(self, longest: float | Array = np.inf) -> tuple[Array, Array]:
        """Try one step of each run, of at most a given length.

        Shapes: returns (n,).
        """
        step = np.minimum(self._step, longest)
        h = step[:, None, None]
        slopes, rates = [self.H @ self.factor], [self._rate]
        for row in self._rows:
            # A stage of a step much too long must stay finite, for the step to be rejected.
            stage = np.clip(self.factor + h * _combine(row, slopes), -OVERSHOT, OVERSHOT)
            H, rate = self._flow(stage)
            slopes.append(H @ stage)
            rates.append(rate)
        trial = self.factor + h * _combine(self._weights, slopes)
        trial = np.clip(trial, -OVERSHOT, OVERSHOT)
        H, rate = self._flow(trial)
        error = h * _combine(self._error, [*slopes, H @ trial])
        factor, lengths, turn = graded(trial)
        directions = factor / lengths[:, None, :]
        mixed = np.abs(directions.swapaxes(1, 2) @ error @ turn)
        longer = np.maximum(lengths[:, :, None], lengths[:, None, :])
        shorter = np.minimum(lengths[:, :, None], lengths[:, None, :])
        size = (mixed / (longer * (1 + np.minimum(shorter, LARGEST) ** 2))).max(axis=(1, 2))
        elapsed = step * _combine(self._weights, rates)
        late = step * np.abs(_combine(self._error, [*rates, rate]))
        size = np.maximum(size, late / np.maximum(self._time + elapsed, 1e-300)) / RTOL
        good = size <= 1
        self._step = step * np.clip(0.9 * np.maximum(size, 1e-10) ** -0.2, 0.2, 4.0)
        capped = np.minimum(lengths, LARGEST)
        self.factor[good] = (directions * capped[:, None, :])[good]
        self._lengths[good] = capped[good]
        self.H[good], self._rate[good] = H[good], rate[good]
        elapsed = np.where(good, elapsed, 0.0)
        self._time += elapsed
        return np.where(good, step, 0.0), elapsed


def graded(factor: Array) -> tuple[Array, Array, Array]:
    """Turn the columns of P orthogonal, longest first: return ``P W``, the lengths and W."""
    left, lengths, turn = np.linalg.svd(factor, full_matrices=False)
    return left * lengths[..., None, :], lengths, turn.swapaxes(-1, -2)


def _combine(weights: Array, parts: Sequence[Array]) -> Array:
    return np.sum([w * part for w, part in zip(weights, parts, strict=False) if w], axis=0)  # type: ignore[no-any-return]
