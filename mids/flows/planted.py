"""The planted flow: the link is known, only the subspace is learned; what traps its runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from ..targets.averaging import gradient
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Flow, Problem
from .engine.link_polynomials import link_polynomials
from .frames import FrameFlow, averages, follow, learned_frame, link_of
from .observables import CENSORED, CONVERGED, FAILED, TRAPPED, observables
from .time_grid import POINTS_PER_DECADE, beyond_escapes

FINER = 4  # times as many points a decade as other flows' grids: plateaus are shorter
GLOBAL = 1e-9  # loss, relative to ``|f*|^2``, of a critical point that counts as the global minimum
CLOSE = 1e-3  # distance at which the limit of a slow approach is taken as reached
REACH = 0.3  # largest distance from a state to the critical point that is said to hold it
ROUNDING = 1e-12  # eigenvalues of the Jacobian, relative to the largest, that are not negative
FLAT = 1e-9  # relative change of the link by a rotation that is a symmetry


@dataclass(frozen=True)
class Planted(Flow):
    r"""Gradient flow on the Stiefel manifold with the link known, ``f = f*`` and q = r.

    With :math:`\Phi(M) = \langle f^*, A_M f^* \rangle` the loss is
    :math:`L = \|f^*\|^2 - \Phi(M)`, and with :math:`D = \partial \Phi / \partial M` the
    correlation matrix follows the d-free system

    .. math:: M' = D - M \, \mathrm{sym}(M^T D).

    For one direction :math:`m' = \sum_s s \alpha_s^2 m^{s-1} (1 - m^2)`: the saddle at 0 is left
    after a time of order :math:`d^{s/2-1}` (log d for s = 2, O(1) for s = 1), half the exponent of
    the fast link (paper section 5). Unlike with the fast link the flow can end in a local minimum:
    status 2, "trapped".

    Examples
    --------
    >>> Planted().to_dict()
    {'name': 'planted'}
    """

    name: ClassVar[str] = "planted"
    fast_link: ClassVar[bool] = False

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError unless the student has the rank of the target, whose link it uses."""
        if student_rank != target.rank:
            raise InputError(
                f"the flow 'planted' needs student_rank = {target.rank}, the target's rank, got "
                f"{student_rank}; leave student_rank out, or learn the link with two-timescale"
            )

    def planted_target(self, target: Target) -> Target:
        """Return the target."""
        return target

    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Logarithmic grid that covers the last escape of 0.999 of the runs that escape."""
        return beyond_escapes(
            target, dim, student_rank, initial, duration=duration, freedom=1, finer=FINER
        )

    def run_seconds(self, target: Target, dim: int, student_rank: int, time: FloatArray) -> float:
        """Rough work of one run in seconds; small, as blocks of less than 100 runs take as long."""
        return 4e-4 * target.rank

    def integrate(self, problem: Problem) -> dict[str, Any]:
        """Trajectories of a block of runs."""
        target = problem.target
        frame = _frame(target)
        turned = target.rotate(frame.T)
        link = link_of(turned)
        # The link is the target's own, so the student's coordinates turn with it.
        found = follow(
            replace(problem, target=turned, initial=frame.T @ problem.initial @ frame),
            fixed=link,
        )
        path, crossing, failed = found.correlation, found.crossing_time, found.failed
        trapped = np.zeros(len(path), dtype=np.bool_)
        converged = np.zeros(len(path), dtype=np.bool_)
        landscape = Landscape(turned)
        for run in range(len(path)):
            limit = _hold(landscape, path[run], crossing[run], problem.time)
            if limit is not None:
                missed = target.norm**2 - float(averages(turned, limit) @ link)
                converged[run] = missed <= GLOBAL * target.norm**2
                trapped[run] = not converged[run]
                failed[run] = False
        out = observables(
            problem, frame @ path @ frame.T, found.crossing_time, found.failed, found.counts
        )
        out["loss"] = np.maximum(target.norm**2 - _inner(averages(turned, path), link), 0.0)
        undecided = np.where(failed, FAILED, CENSORED)
        status = np.where(trapped, TRAPPED, np.where(converged, CONVERGED, undecided))
        out["status"] = status.astype(np.int8)
        return out


def duration(delta: float, exponent: int, strength: float) -> float:
    """Time in which ``m' = s c^2 m^(s-1) (1 - m^2)`` leaves ``m = sqrt(delta)``."""
    if exponent == 1:
        return 1.0 / strength
    if exponent == 2:
        return max(math.log(1 / delta), 0.0) / (4 * strength)
    return float(delta ** (1 - exponent / 2)) / (exponent * (exponent - 2) * strength)


def _inner(averaged: FloatArray, link: FloatArray) -> FloatArray:
    total = np.zeros(averaged.shape[:-1])
    for k, value in enumerate(link):  # in this order for every shape: bits must not depend on it
        total += value * averaged[..., k]
    return total


def _frame(target: Target) -> FloatArray:
    """Frame in which the target is learned row by row, unless it has more modes there."""
    frame = learned_frame(target)
    # Zeros of the target are then exact, and rounding feeds no direction that stands still.
    more = len(target.rotate(frame.T).modes) > len(target.modes)
    return np.eye(target.rank) if more else frame


def _hold(
    landscape: Landscape, path: FloatArray, crossing: FloatArray, time: FloatArray
) -> FloatArray | None:
    """Find the critical point that holds a run, and keep it there against rounding."""
    done = int(np.isfinite(path[:, 0, 0]).sum())
    rows = [*range(1, done, POINTS_PER_DECADE), done - 1]
    slopes, jacobians = landscape.linearise(path[rows])
    for row, slope, jacobian in zip(rows, slopes, jacobians, strict=True):
        limit = landscape.attractor(path[row], (slope, jacobian))
        if limit is None:
            continue
        # A run that has come this close may not move away again.
        distance = np.abs(path[row:] - limit).max(axis=(1, 2))
        gone = ~(distance <= 2 * distance[0] + 1e-8)
        # Over times of 1e16 rounding alone leads away: such a run is put back.
        if gone.any():
            first = row + int(np.argmax(gone))
            path[first:] = limit
            # What rounding made the run cross after that did not happen.
            crossing[crossing > time[first - 1]] = np.nan
        return limit
    return None


# -- critical points that hold runs -------------------------------------------------------------


def symmetries(target: Target) -> FloatArray:
    """Rotations that leave a link unchanged: a basis of their Lie algebra, (n, rank, rank)."""
    rank = target.rank
    skew = []
    for i, j in combinations(range(rank), 2):
        # One plane rotation for each pair of axes spans all rotations.
        generator = np.zeros((rank, rank))
        generator[i, j], generator[j, i] = 1.0, -1.0
        skew.append(generator)
    if not skew:
        return np.zeros((0, rank, rank))
    step = 1e-3  # A_M f* is a polynomial in M: differences of its rotations are as good as exact
    basis = np.array(skew)
    change = averages(target, _rotations(step * basis)) - averages(
        target, _rotations(-step * basis)
    )
    _, sizes, right = np.linalg.svd(change.T / (2 * step))
    sizes = np.concatenate([sizes, np.zeros(len(skew) - len(sizes))])
    kept = right[sizes <= max(sizes.max() * FLAT, 1e-6 * target.norm)]
    return np.asarray(np.einsum("ng,gij->nij", kept, basis))


def _rotations(generators: FloatArray) -> FloatArray:
    from scipy.linalg import expm

    return np.array([expm(generator) for generator in generators])


class Landscape:
    r"""The planted flow of a target around a state, and where it leads."""

    def __init__(self, target: Target) -> None:
        link = link_of(target)
        self.flow = FrameFlow(link_polynomials(target, target.rank), link, 0.0, link)
        self._generators = symmetries(target)
        sizes, vectors = np.linalg.eigh(gradient(target, np.eye(target.rank)))
        # Where the gradient of h at I vanishes the link does not depend on the direction.
        unused = vectors[:, sizes <= FLAT * sizes.max()].T
        self._unused = np.einsum("na,jb->njab", unused, np.eye(target.rank))

    def linearise(self, correlation: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``M'``, (..., rank**2), and its Jacobian, (..., rank**2, rank**2)."""
        *shape, rank, _ = correlation.shape
        slope, jacobian = self.flow.linearise(correlation.reshape(-1, rank**2))
        return slope.reshape(*shape, -1), jacobian.reshape(*shape, rank**2, rank**2)

    def attractor(
        self, correlation: FloatArray, start: tuple[FloatArray, FloatArray] | None = None
    ) -> FloatArray | None:
        r"""Return the local maximum of :math:`\Phi = \langle f^*, A_M f^* \rangle` that holds M.

        Newton's method on the flow, started at the state. As long as every eigenvalue of the
        Jacobian (they have the signs of the Hessian on the tangent space) is negative, nothing
        leads away; where that holds all the way to a critical point near by, the flow ends there.
        Directions along which nothing changes, because a rotation leaves the link as it is, do not
        count. A degenerate maximum, such as :math:`m \to 0^-` where :math:`m' = s m^{s-1}` with
        odd s, is approached slowly also by Newton's method, but by a constant factor in each step.

        Shapes: correlation (rank, rank); start, of `linearise` if known; returns (rank, rank).
        """
        state = np.array(correlation, dtype=np.float64)
        ratio, before = 0.0, 0.0
        for iteration in range(60):
            slope, jacobian = (not iteration and start) or self.linearise(state)
            across = self._across(state)
            inner = across.T @ jacobian @ across
            values = np.linalg.eigvals(inner).real
            if not values.max() < -ROUNDING * np.abs(values).max():
                return None
            step = (-across @ np.linalg.solve(inner, across.T @ slope)).reshape(state.shape)
            length = float(np.abs(step).max())
            if not length < REACH:
                return None
            state = state + step
            if not np.abs(state - correlation).max() < REACH:
                return None
            if length < 1e-10:
                return state
            # At a degenerate maximum Newton's steps shrink by a constant ratio: sum the rest.
            if iteration > 2 and ratio > 0.3 and length < before:
                ratio = length / before
                rest = ratio / (1 - ratio)  # of a geometric series
                if length * rest < CLOSE:
                    return state + rest * step
            ratio = length / before if before else 0.0
            before = length
        return None

    def _across(self, state: FloatArray) -> FloatArray:
        """Orthonormal basis, as columns, of the changes of M that decide its fate."""
        # Neither symmetries nor overlaps with directions that the link lacks move anything else.
        orbits = np.concatenate([self._generators @ state, state @ self._generators])
        moves = np.concatenate(
            [orbits.reshape(-1, state.size), self._unused.reshape(-1, state.size)]
        )
        if not len(moves):
            return np.eye(state.size)
        left, sizes, _ = np.linalg.svd(moves.T)
        return np.asarray(left[:, int((sizes > FLAT).sum()) :])
