"""The two-timescale flow: the link is learnt infinitely fast, the subspace follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

import numpy as np

from ..errors import InputError
from ..schema import LEVELS
from ..targets.additive import AdditiveTarget
from ..targets.basis import fitting
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Problem
from .initial import independent
from .many_directions import check_separable, grid, integrate_many
from .observables import CENSORED, CONVERGED, converged
from .ridge import RidgeFlow


@dataclass(frozen=True, kw_only=True)
class TwoTimescale(RidgeFlow):
    """Grassmannian gradient flow of ``L = ||f*||^2 / 2 - h(G) / 2`` (paper eq. 30 and 31).

    With the link at its optimum ``f = A_M f*`` the correlation matrix follows the d-free system
    ``M' = (I - G) H M``, ``G = M M^T``, ``H = grad h(G)``.  With ``ridge > 0`` the link is the
    ridge regressor in an isotropic Hermite RKHS: the same flow for the target whose component of
    degree k is scaled by ``sqrt(q_k / (q_k + ridge))`` (paper Prop. 3.3, eq. 39).

    A student of a lower rank than the target may come to rest at a saddle: the subspace it has
    learned is unstable, but no tilt is left above rounding, 1e-16, that could grow.  Its status is
    2, "trapped".

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
    >>> TwoTimescale(ridge=0.1).to_dict()
    {'name': 'two-timescale', 'ridge': 0.1, 'kernel': None}
    """

    name: ClassVar[str] = "two-timescale"
    tensors: ClassVar[bool] = False

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError if the target has neither tensors nor directions learned one by one."""
        super().check(target, dims, student_rank)
        if _is_large(target):
            check_separable(target)
            if self.ridge > 0:
                raise InputError(
                    f"the ridge is for targets with tensors, {fitting(target.rank)}; scale the "
                    "link's coefficients of degree k by sqrt(q_k / (q_k + ridge)) instead"
                )

    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Logarithmic grid past the last escape."""
        if _is_large(target):
            return grid(target, dim, student_rank, initial)
        return super().default_time(target, dim, student_rank, initial)

    def variables(self, target: Target) -> tuple[str, ...]:
        """Those of every flow, with the stages' durations; it knows of G alone, not of M."""
        usual = (*super().variables(target), "stage_duration")
        if not _is_large(target):
            usual = (*usual, "gram")
        return tuple(name for name in usual if name not in ("initial", "correlation"))

    def run_seconds(self, target: Target, dim: int, student_rank: int, time: FloatArray) -> float:
        """Rough work of one run in seconds: its steps and the points of the time grid."""
        if _is_large(target):
            return target.rank * (1e-3 + 2e-9 * target.rank**2 * student_rank)
        return target.rank**3 * (2e-5 + 6e-8 * len(time))

    def integrate(self, problem: Problem) -> dict[str, Any]:
        """Trajectories of a block of runs."""
        if _is_large(problem.target):
            return integrate_many(problem, self.integrate)
        from .engine.integrator import integrate
        from .engine.state import Task
        from .engine.tables import tables

        target = problem.target
        effective = self.effective_target(target)
        (runs, rank, students), steps = problem.initial.shape, len(problem.time)
        factor, independents = independent(problem.initial)
        out = {
            "overlap": np.full((runs, steps, rank), np.nan),
            "energy": np.full((runs, steps, len(target.modes)), np.nan),
            "loss": np.full((runs, steps), np.nan),
            "gram": np.full((runs, steps, rank, rank), np.nan),
            "crossing_time": np.full((runs, rank, len(LEVELS)), np.nan),
            "stage_duration": np.full((runs, rank), np.nan),
            "status": np.zeros(runs, dtype=np.int8),
        }
        counts = np.zeros((runs, 2), dtype=np.int64)
        levels, time = np.array(LEVELS), np.ascontiguousarray(problem.time)
        # Log-odds u, as the integrator keeps them: e^u are the eigenvalues of X = G (I - G)^(-1).
        thresholds, rtol = np.log(levels / (1.0 - levels)), np.array([problem.rtol])
        arrays = [factor, independents, time, thresholds, rtol, *out.values(), counts]
        integrate(tables(effective), Task(*arrays))
        # The integrator knows of as many directions as the target has variables.
        over = converged(effective, students, out["crossing_time"])
        out["status"][over & (out["status"] == CENSORED)] = CONVERGED
        if self.ridge > 0:
            # The integrator has (|f*_mu|^2 - h) / 2, the objective is (|f*|^2 - h) / 2.
            out["loss"] += 0.5 * (target.norm**2 - effective.norm**2)
            _, out["risk"] = self.at_best_link(target, out["energy"])
        out["gram0"] = problem.initial @ problem.initial.swapaxes(1, 2)
        out["n_steps"], out["n_rhs"] = counts.T.copy()
        return out


def _is_large(target: Target) -> TypeGuard[AdditiveTarget]:
    """Tell whether a target has no tensors."""
    return isinstance(target, AdditiveTarget) and not target.dense
