"""Takes a target, frames M and links; gives the paths of both, for `planted` and `joint`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..schema import LEVELS
from ..targets.basis import by_mode
from ..targets.ladder import leaps
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Problem
from .engine.array_integrator import follow as integrate
from .engine.link_polynomials import LinkPolynomials, link_polynomials
from .observables import overlaps

FLOOR = 1e-12  # rows of M below this need no relative accuracy
STILL = 1e-13  # distance of learned overlaps from 1, and slope of the link, that are rounding
TOGETHER = 4096  # entries of frames whose polynomials are evaluated at a time


@dataclass(frozen=True)
class Frames:
    """Trajectories of frame and link.

    Shapes: correlation (runs, T, rank, student_rank); link (runs, T, n); crossing_time (runs,
    rank, levels); failed (runs,); counts (runs, 2).
    """

    correlation: FloatArray
    link: FloatArray
    crossing_time: FloatArray
    failed: np.ndarray
    counts: IntArray


def degrees(target: Target, student_rank: int) -> IntArray:
    """Degree of each Hermite coefficient of a link; returns (n,)."""
    total: IntArray = link_polynomials(target, student_rank).exponents.sum(axis=1)
    return total


@lru_cache(maxsize=64)
def learned_frame(target: Target) -> FloatArray:
    """Orthogonal matrix whose columns are the directions in the order of learning."""
    found: list[FloatArray] = []
    steps = [step.learned for step in leaps(target).steps]
    for column in np.concatenate([*steps, np.eye(target.rank)], axis=1).T:
        rest = column
        for _ in range(2):  # what is learned may have turned away from what was learned before
            for direction in found:
                rest = rest - (direction @ rest) * direction
        size = np.linalg.norm(rest)
        if size > 1e-3 and len(found) < target.rank:
            rest = rest / size
            found.append(np.where(np.abs(rest) < 1e-12, 0.0, rest))
    return np.column_stack(found)


def link_of(target: Target) -> FloatArray:
    """Hermite coefficients of the target as a link of a student of the same rank; returns (n,)."""
    values = by_mode(target.modes, target.coefficients)
    exponents = link_polynomials(target, target.rank).exponents.tolist()
    return np.array([values.get(tuple(gamma), 0.0) for gamma in exponents])


class FrameFlow:
    """The flow of frame and link, ``M' = D - M sym(M^T D)``, ``S' = rate (A_M f* - decay S)``.

    ``D = d<S, A_M f*>/dM``, the gradient on the Stiefel manifold at a link S. A state is M row by
    row, then S unless the link is fixed (rate 0). Shapes: link, decay (n_link,).
    """

    def __init__(
        self, polynomials: LinkPolynomials, link: FloatArray, rate: float, decay: FloatArray
    ) -> None:
        self._of, self._fixed, self._rate, self._decay = polynomials, link, rate, decay
        self._entries = polynomials.shape[0] * polynomials.shape[1]

    def _parts(self, y: FloatArray) -> tuple[FloatArray, ...]:
        """M, S, derivatives, coupling, D and ``sym(M^T D)`` of states."""
        # Unknowns first and runs last: polynomials are evaluated over contiguous runs.
        columns = np.ascontiguousarray(y.T)
        rows = self._of.evaluate(columns[: self._entries])
        link = columns[self._entries :] if self._rate else self._fixed[:, None]
        coupling = self._of.coupling(rows)
        M = y[:, : self._entries].reshape(-1, *self._of.shape)
        D = (coupling @ link.T[:, :, None]).reshape(M.shape)
        return M, link, rows, coupling, D, _symmetric(M, D[..., None])[..., 0]

    def slope(self, y: FloatArray) -> FloatArray:
        """Right-hand side."""
        M, link, rows, _, D, inner = self._parts(y)
        return self._slope(M, link, rows, D, inner)

    def _slope(
        self, M: FloatArray, link: FloatArray, rows: FloatArray, D: FloatArray, inner: FloatArray
    ) -> FloatArray:
        moved: FloatArray = (D - M @ inner).reshape(len(M), -1)
        if not self._rate:
            return moved
        pulled = self._rate * (self._of.average(rows) - self._decay[:, None] * link)
        return np.concatenate([moved, pulled.T], axis=1)

    def linearise(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Right-hand side and Jacobian."""
        M, link, rows, coupling, D, inner = self._parts(y)
        (n, r, q), entries = M.shape, self._entries
        out = np.zeros((n, y.shape[1], y.shape[1]))
        # D changes with M, then M itself in front of sym(M^T D), then M inside it.
        bend = self._of.bend(rows, link).reshape(n, r, q, entries)
        change = bend - _times(M, _symmetric(M, bend))
        change = change.reshape(n, r, q, r, q)
        axes, columns = np.arange(r), np.arange(q)
        change[:, axes, :, axes] -= inner.transpose(0, 2, 1)
        change -= 0.5 * M[:, :, None, None, :] * D.transpose(0, 2, 1)[:, None, :, :, None]
        change[:, :, columns, :, columns] -= 0.5 * (M @ D.transpose(0, 2, 1))
        out[:, :entries, :entries] = change.reshape(n, entries, entries)
        if self._rate:
            pulls = coupling.reshape(n, r, q, -1)
            pulls = pulls - _times(M, _symmetric(M, pulls))
            out[:, :entries, entries:] = pulls.reshape(n, entries, -1)
            out[:, entries:, :entries] = self._rate * coupling.transpose(0, 2, 1)
            own = np.arange(entries, y.shape[1])
            out[:, own, own] = -self._rate * self._decay
        return self._slope(M, link, rows, D, inner), out

    def sizes(self, y: FloatArray) -> FloatArray:
        """Natural sizes of the unknowns: each row of M has its own."""
        M = np.maximum(np.abs(y[:, : self._entries]), FLOOR).reshape(-1, *self._of.shape)
        # What is still to be learned keeps its digits beside what is learned.
        rows = np.repeat(M.max(axis=2), self._of.shape[1], axis=1)
        if not self._rate:
            return rows
        columns = np.minimum(M.max(axis=1), 1.0)
        # A link that the frame explains is of order |T_k| prod_j |M e_j|^gamma_j.
        link = self._of.scale * np.prod(columns[:, None, :] ** self._of.exponents, axis=2)
        return np.concatenate([rows, np.maximum(link, 1e-100)], axis=1)

    def overlaps(self, y: FloatArray) -> FloatArray:
        """Eigenvalues of ``M M^T``, descending."""
        rank, q = self._of.shape
        return overlaps(y[:, : self._entries].reshape(-1, rank, q), rank)

    def at_rest(self, y: FloatArray, slope: FloatArray, sizes: FloatArray) -> NDArray[np.bool_]:
        """Where frame and link are learned to rounding, so that nothing will move any more."""
        rank, q = self._of.shape
        # A student with fewer columns may have learned all it can and still turn.
        if not self._rate or q < rank:
            return np.zeros(len(y), dtype=bool)
        still = np.abs(slope) <= STILL * self._rate * sizes
        learned = self.overlaps(y)[:, -1] >= 1.0 - STILL
        return np.asarray(learned & still[:, self._entries :].all(axis=1))


def _symmetric(M: FloatArray, X: FloatArray) -> FloatArray:
    """``sym(M^T X)`` for columns of X; shapes: M (n, r, q); X (n, r, q, c); (n, q, q, c)."""
    n, r, q, c = X.shape
    inner = (M.transpose(0, 2, 1) @ X.reshape(n, r, q * c)).reshape(n, q, q, c)
    return np.asarray(0.5 * (inner + inner.transpose(0, 2, 1, 3)))


def _times(M: FloatArray, X: FloatArray) -> FloatArray:
    """``M X`` for columns of X; shapes: M (n, r, q); X (n, q, q, c); returns (n, r, q, c)."""
    n, r, q = M.shape
    return np.asarray((M @ X.reshape(n, q, -1)).reshape(n, r, q, -1))


def averages(target: Target, correlation: FloatArray) -> FloatArray:
    """Hermite coefficients (..., n_link) of ``A_M f*`` for M (..., rank, student_rank)."""
    *shape, rank, q = correlation.shape
    of = link_polynomials(target, q)
    states = correlation.reshape(-1, rank * q)
    parts = np.array_split(states, max(1, states.size // TOGETHER))
    found = [of.average(of.evaluate(np.ascontiguousarray(part.T))).T for part in parts]
    return np.concatenate(found).reshape(*shape, -1)


def follow(
    problem: Problem,
    *,
    fixed: FloatArray | None = None,
    rate: float = 0.0,
    decay: FloatArray | None = None,
    start: FloatArray | None = None,
) -> Frames:
    """Integrate ``M' = D - M sym(M^T D)`` and, unless the link is fixed, the link.

    Shapes: fixed (n,); decay (n,); start (runs, n).
    """
    runs, rank, q = problem.initial.shape
    of = link_polynomials(problem.target, q)
    unit = np.ones(len(of.scale))
    flow = FrameFlow(of, unit if fixed is None else fixed, rate, unit if decay is None else decay)
    states = problem.initial.reshape(runs, -1)
    if start is not None:
        states = np.concatenate([states, start], axis=1)
    with np.errstate(all="ignore"):  # runs that overflow have failed
        found = integrate(flow, states, problem.time, np.array(LEVELS), problem.rtol)
    M, links = np.split(found.states, [rank * q], axis=2)
    M = M.reshape(runs, -1, rank, q)
    return Frames(M, links, found.crossing, found.failed, found.counts)
