"""The two-timescale flow: the link is learnt infinitely fast, the subspace follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import _validate
from .._validate import FloatArray, IntArray
from ..errors import InputError
from ..schema import LEVELS
from ..targets import Target
from .base import Flow, Problem
from .kernel import HermiteKernel
from .time_grid import beyond_escapes

__all__ = ["TwoTimescale"]


@dataclass(frozen=True)
class TwoTimescale(Flow):
    """Grassmannian gradient flow of ``L = ||f*||^2 / 2 - h(G) / 2`` (paper eq. 30 and 31).

    With the link at its optimum ``f = A_M f*`` the correlation matrix follows the d-free system
    ``M' = (I - G) H M``, ``G = M M^T``, ``H = grad h(G)``.  With ``ridge > 0`` the link is the
    ridge regressor in an isotropic Hermite RKHS: the same flow for the target whose component of
    degree k is scaled by ``sqrt(q_k / (q_k + ridge))`` (paper Prop. 3.3, eq. 39).

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
    ridge: float = 0.0
    kernel: HermiteKernel | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "ridge", _validate.number(self.ridge, "ridge", at_least=0.0))
        if isinstance(self.kernel, Mapping):
            object.__setattr__(self, "kernel", HermiteKernel.from_dict(self.kernel))
        if not isinstance(self.kernel, HermiteKernel | None):
            raise InputError(
                f"kernel must be a mids.flows.HermiteKernel, got {_validate.shown(self.kernel)}; "
                "pass for example HermiteKernel(polynomial=2)"
            )

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters in types that JSON knows.

        Returns
        -------
        dict
        """
        kernel = None if self.kernel is None else self.kernel.to_dict()
        return {"name": self.name, "ridge": self.ridge, "kernel": kernel}

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError if the kernel does not reach the target's degree.

        Parameters
        ----------
        target : Target
        dims : (n,) int array
        student_rank : int
        """
        self._shrinkage(target)

    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Logarithmic grid that covers the last escape of 0.999 of the runs.

        Parameters
        ----------
        target : Target
        dim : int
        student_rank : int
        initial : ndarray, shape (..., rank, student_rank), optional

        Returns
        -------
        (n,) float array
        """
        return beyond_escapes(self.effective_target(target), dim, student_rank, initial)

    def variables(self, target: Target) -> tuple[str, ...]:
        """Names of the schema's variables that `integrate` returns.

        Parameters
        ----------
        target : Target

        Returns
        -------
        tuple of str
        """
        return (
            "loss",
            *(["risk"] if self.ridge > 0 else []),
            "overlap",
            "energy",
            "gram0",
            "crossing_time",
            "stage_duration",
            "status",
            "n_steps",
            "n_rhs",
        )

    def effective_target(self, target: Target) -> Target:
        """``f*_mu``: each degree scaled by ``sqrt(q_k / (q_k + ridge))`` (paper Prop. 3.3).

        Parameters
        ----------
        target : Target

        Returns
        -------
        Target
        """
        if self.ridge == 0:
            return target
        weights = np.sqrt(self._shrinkage(target))
        modes = map(tuple, target.modes.tolist())
        scaled = (target.coefficients * weights).tolist()
        return Target(dict(zip(modes, scaled, strict=True)), name=target.name)

    def _shrinkage(self, target: Target) -> FloatArray:
        """``q_k / (q_k + ridge)`` of each mode."""
        degrees = target.modes.sum(axis=1)
        if self.kernel is None:
            return np.full(len(degrees), 1.0 / (1.0 + self.ridge))
        values = self.kernel.of_degrees(degrees)
        return values / (values + self.ridge)

    def integrate(self, problem: Problem) -> dict[str, Any]:
        """Trajectories of a block of runs.

        Parameters
        ----------
        problem : Problem

        Returns
        -------
        dict of str to array
            The schema's variables without the axis ``dim``.
        """
        from ._integrator import integrate_runs
        from ._kernels import scratch
        from ._tables import tables

        target = problem.target
        effective = self.effective_target(target)
        runs, rank, students = problem.initial.shape
        factor = problem.initial.copy(order="C")
        if students > rank:  # any factor of G(0) will do: keep the square one
            upper = np.asarray(np.linalg.qr(factor.swapaxes(1, 2), mode="r"))
            factor = np.ascontiguousarray(upper.swapaxes(1, 2))
        steps = len(problem.time)
        out = {
            "overlap": np.full((runs, steps, rank), np.nan),
            "energy": np.full((runs, steps, len(target.modes)), np.nan),
            "loss": np.full((runs, steps), np.nan),
            "crossing_time": np.full((runs, rank, len(LEVELS)), np.nan),
            "stage_duration": np.full((runs, rank), np.nan),
            "status": np.zeros(runs, dtype=np.int8),
        }
        counts = np.zeros((runs, 2), dtype=np.int64)
        levels = np.array(LEVELS)
        table = tables(effective)
        integrate_runs(
            table,
            factor,
            np.ascontiguousarray(problem.time),
            np.log(levels / (1.0 - levels)),
            problem.rtol,
            scratch(table),
            out["overlap"],
            out["energy"],
            out["loss"],
            out["crossing_time"],
            out["stage_duration"],
            out["status"],
            counts,
        )
        if self.ridge > 0:
            out["loss"] += 0.5 * (target.norm**2 - effective.norm**2)
            weights = 1.0 - 0.5 * self._shrinkage(target)
            out["risk"] = 0.5 * target.norm**2 - out["energy"] @ weights
        out["gram0"] = problem.initial @ problem.initial.swapaxes(1, 2)
        out["n_steps"], out["n_rhs"] = counts.T.copy()
        return out
