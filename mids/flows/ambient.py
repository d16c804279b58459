"""The ambient flow: the two-timescale flow on the student's frame W in R^(d x q) itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from ..schema import LEVELS
from ..targets.averaging import gradient
from ..targets.subspaces import tilt_growth
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Problem
from .initial import frame, stream
from .observables import observables, overlaps
from .ridge import RidgeFlow
from .sampled import FRAME

LARGEST_DIM = 20_000
MAX_STEPS = 200_000
LEARNED = 1e-13  # overlaps this close to 1 move no more; an explicit integrator would not notice


@dataclass(frozen=True, kw_only=True)
class Ambient(RidgeFlow):
    r"""Gradient flow of the frame W itself with the link at its optimum (paper eq. 30 and 31).

    .. math:: W' = (I - W W^T) W^* H M, \qquad M = W^{*T} W, \quad H = \nabla h(M M^T),

    which for the correlation M is the two-timescale flow: this is the check that the reduction
    to M is right. W* is the first r columns of the identity; W(0) has the given M(0) as its first
    rows and below them a uniformly random frame from the run's own stream. An explicit
    Runge-Kutta method of order 8 (SciPy's DOP853) is followed, after each step and wherever the
    solution is read, by the projection ``W (W^T W)^(-1/2)``, so that frames are orthonormal to
    rounding.

    It is for dimensions up to 20 000, and for targets that do not spend long at a saddle once
    something is learned: there the steps stay as short as the learned directions are fast. After
    200 000 steps a run ends with status 3, "failed".

    Parameters
    ----------
    ridge : float
        Regularisation mu >= 0 of the link.
    kernel : HermiteKernel or mapping, optional
        Eigenvalues ``q_k``; all 1 if not given.

    Raises
    ------
    InputError
        If a parameter is wrong.

    Examples
    --------
    >>> Ambient().to_dict()
    {'name': 'ambient', 'ridge': 0.0, 'kernel': None}
    """

    name: ClassVar[str] = "ambient"

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError if a dimension is too large for arrays of that size."""
        super().check(target, dims, student_rank)
        if dims.max() > LARGEST_DIM:
            raise InputError(
                f"the flow 'ambient' takes dim up to {LARGEST_DIM}, got {dims.max()}; the flow "
                "'two-timescale' is the same at any dimension"
            )

    def run_seconds(self, target: Target, dim: int, student_rank: int, time: FloatArray) -> float:
        """Rough work of one run in seconds."""
        return 300 * (2e-3 + 3e-7 * dim * student_rank)

    def integrate(self, problem: Problem) -> dict[str, Any]:
        """Trajectories of a block of runs."""
        target = self.effective_target(problem.target)
        runs, rank, students = problem.initial.shape
        path = np.full((runs, len(problem.time), rank, students), np.nan)
        crossing = np.full((runs, rank, len(LEVELS)), np.nan)
        failed = np.zeros(runs, dtype=np.bool_)
        counts = np.zeros((runs, 2), dtype=np.int64)
        for k, run in enumerate(problem.runs):
            # M(0) is given; what is orthogonal to the target is drawn from a branch of its own.
            rng = stream(problem.seed, problem.dim, int(run), branch=FRAME)
            start = frame(problem.initial[k], problem.dim, rng)
            failed[k] = not _follow(
                target, start, problem.time, problem.rtol, path[k], crossing[k], counts[k]
            )
        out = observables(problem, path, crossing, failed, counts, target)
        out["loss"], risk = self.at_best_link(problem.target, out["energy"])
        if self.ridge > 0:
            out["risk"] = risk
        return out


def _orthonormal(W: FloatArray) -> FloatArray:
    """Project on the Stiefel manifold: the orthonormal factor of the polar decomposition."""
    columns = W.T
    gram = np.array([[np.sum(a * b) for b in columns] for a in columns])
    values, vectors = np.linalg.eigh(gram)
    # W (W^T W)^(-1/2).
    return np.asarray(W @ ((vectors / np.sqrt(values)) @ vectors.T))


def _attracts(target: Target, M: FloatArray, scale: float) -> bool:
    """Whether no small rotation of the learned subspace grows."""
    subspace = np.linalg.qr(M)[0]
    return bool(np.linalg.eigvalsh(tilt_growth(target, subspace)).max() <= 1e-9 * scale)


def _follow(
    target: Target,
    start: FloatArray,
    time: FloatArray,
    rtol: float,
    path: FloatArray,
    crossing: FloatArray,
    counts: IntArray,
) -> bool:
    """Integrate one run; fills its outputs, returns whether it succeeded."""
    from scipy.integrate import DOP853
    from scipy.optimize import brentq

    rank, students = path.shape[1:]
    scale = target.norm**2
    dim, learnable = len(start), min(rank, students)

    def slope(_: float, y: FloatArray) -> FloatArray:
        W = y.reshape(dim, students)
        # W* is the first r axes. With F = H M the flow is W' = W* F - W (M^T F).
        M = W[:rank]
        force = gradient(target, M @ M.T) @ M
        out = W @ -(M.T @ force)
        out[:rank] += force
        return out.ravel()

    def correlation(y: FloatArray) -> FloatArray:
        return _orthonormal(y.reshape(dim, students))[:rank]

    def excess(dense: Any, direction: int, level: float, t: float) -> float:
        return float(overlaps(correlation(dense(t)), rank)[direction]) - level

    # Entries of W are of order d^(-1/2): those that count must not drown among the others.
    accuracy = max(rtol / np.sqrt(dim), 3e-14)
    solver = DOP853(
        slope, 0.0, start.ravel(), time[-1], rtol=accuracy, atol=1e-3 * accuracy / np.sqrt(dim)
    )
    path[0] = correlation(solver.y)
    held = overlaps(path[0], rank)
    crossing[held[:, np.newaxis] >= np.array(LEVELS)] = 0.0
    row = 1
    while row < len(time):
        if counts[0] >= MAX_STEPS:
            return False
        solver.step()
        if solver.status == "failed":
            return False
        counts[0] += 1
        dense = solver.dense_output()
        while row < len(time) and time[row] <= solver.t:
            path[row] = correlation(dense(time[row]))
            row += 1
        # The step leaves the manifold by its error: project, and restart from there.
        solver.y = _orthonormal(solver.y.reshape(dim, students)).ravel()
        solver.f = slope(solver.t, solver.y)
        held = overlaps(solver.y.reshape(dim, students)[:rank], rank)
        for i in range(learnable):
            for k, level in enumerate(LEVELS):
                if np.isnan(crossing[i, k]) and held[i] >= level:
                    moment = brentq(
                        partial(excess, dense, i, level),
                        solver.t_old,
                        solver.t,
                        xtol=1e-14 * solver.t,
                        rtol=1e-14,
                    )
                    crossing[i, k] = moment
        if held[learnable - 1] > 1.0 - LEARNED:
            M = solver.y.reshape(dim, students)[:rank]
            # With fewer columns than directions the learned subspace may still turn.
            still = np.abs(solver.f).max() <= 10.0 * accuracy * scale
            if rank <= students or (still and _attracts(target, M, scale)):
                path[row:] = M
                break
    counts[1] = solver.nfev
    return True
