"""The joint flow: link and subspace are learned together, the link faster by a finite factor."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from .. import validation
from ..errors import InputError
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Problem, Swept
from .engine.link_polynomials import link_polynomials, link_size
from .frames import averages, degrees, follow, learned_frame
from .observables import link_on_modes, observables
from .ridge import RidgeFlow
from .time_grid import POINTS_PER_DECADE

LARGEST_EPSILON = 1e6
LARGEST_LINK = 400  # coefficients of the largest link: a step solves linear systems of that size
STARTS = ("fitted", "zero")


@dataclass(frozen=True, kw_only=True)
class Joint(RidgeFlow):
    r"""Gradient flow of ``L(f, W)`` in link and frame, the link faster by ``1 / epsilon``.

    The link is the vector of its Hermite tensors :math:`S_k`. With
    :math:`D = \partial_M \sum_k \langle S_k, (M^T)^{\otimes k} T_k \rangle`,

    .. math:: S_k' = \frac1\epsilon \big( (M^T)^{\otimes k} T_k - (1 + \mu / q_k) S_k \big),
              \qquad M' = D - M \, \mathrm{sym}(M^T D),

    the gradient on the Stiefel manifold at the current link. As :math:`\epsilon \to 0` it becomes
    the two-timescale flow, with an error of order :math:`\epsilon`.

    Where coefficients of the link start below rounding, at ``d^(s/2) > 1e14`` with a last leap of
    s >= 3, runs fail (status 3): the two-timescale flow has no such limit.

    Parameters
    ----------
    epsilon : float
        Separation of the time scales, positive, at most 1e6.
    link : {"fitted", "zero"}
        Where the link starts: at its optimum for M(0), or at 0.
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
    >>> Joint(epsilon=0.1).to_dict()
    {'name': 'joint', 'ridge': 0.0, 'kernel': None, 'epsilon': 0.1, 'link': 'fitted'}
    """

    name: ClassVar[str] = "joint"
    epsilon: float | Swept = 0.01
    link: str | Swept = "fitted"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        epsilon = validation.number(self.epsilon, "epsilon", above=0.0, at_most=LARGEST_EPSILON)
        self._set(epsilon=epsilon)
        validation.one_of(self.link, STARTS, "link of the flow 'joint'")

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError if the link has too many coefficients, a kernel too few eigenvalues."""
        super().check(target, dims, student_rank)
        size = link_size(target, min(student_rank, target.rank))
        if size > LARGEST_LINK:
            raise InputError(
                f"the link of this target has {size} Hermite coefficients, the flow 'joint' "
                f"integrates up to {LARGEST_LINK}; take a target of lower degree or rank"
            )

    def variables(self, target: Target) -> tuple[str, ...]:
        """Those of every flow with a ridge, and the link."""
        return (*super().variables(target), "link")

    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Grid of the two-timescale flow, longer where the link is slow.

        Where it is slower than the frame, what is left after a time t with the best link takes of
        the order of ``sqrt(epsilon t)``, and the link itself a few times epsilon.
        """
        grid = super().default_time(target, dim, student_rank, initial)
        last, lag = float(grid[-1]), 10 * self.epsilon
        stop = last + lag + math.sqrt(lag) * math.sqrt(last)
        longer = round(POINTS_PER_DECADE * math.log10(stop / last))
        return np.concatenate([grid, last * 10.0 ** (np.arange(1, longer + 1) / POINTS_PER_DECADE)])

    def run_seconds(self, target: Target, dim: int, student_rank: int, time: FloatArray) -> float:
        """Rough work of one run in seconds; small, as blocks of less than 100 runs take as long."""
        size = link_size(target, min(student_rank, target.rank)) + target.rank * student_rank
        return 1e-3 + 1e-7 * size**3

    def integrate(self, problem: Problem) -> dict[str, Any]:
        """Trajectories of a block of runs.

        The student's coordinates are chosen so that M(0) is lower triangular in the frame in which
        the target is learned: small coefficients of the link then stand apart from large ones.
        """
        target = problem.target
        runs, rank, students = problem.initial.shape
        frame = learned_frame(target)
        turned = target.rotate(frame.T)
        small = min(rank, students)
        start, student = np.zeros((runs, rank, small)), np.zeros((runs, students, small))
        for run, M in enumerate(problem.initial):  # one by one: bits must not depend on the others
            student[run], upper = np.linalg.qr((frame.T @ M).T)
            start[run] = upper.T
        # The link rests at kept * A_M f*, so it decays at the rate 1 / kept.
        kept = self.shrinkage(degrees(turned, small))
        link = (
            kept * averages(turned, start) if self.link == "fitted" else np.zeros((runs, len(kept)))
        )
        found = follow(
            replace(problem, target=turned, initial=start),
            rate=1.0 / self.epsilon,
            decay=1.0 / kept,
            start=link,
        )
        out = observables(
            problem,
            frame @ found.correlation,
            found.crossing_time,
            found.failed,
            found.counts,
            self.effective_target(target),
        )
        out["correlation"] = out["correlation"] @ student.swapaxes(1, 2)[:, None]
        exponents = link_polynomials(turned, small).exponents
        out["link"] = link_on_modes(target.modes, frame @ found.correlation, exponents, found.link)
        averaged = averages(turned, found.correlation)
        # |f - f*|^2 over coefficients in which both are known, and what no frame explains
        missed = 0.5 * ((found.link - averaged) ** 2).sum(axis=-1)
        rest = 0.5 * (target.norm**2 - (averaged**2).sum(axis=-1))
        risk = missed + np.maximum(rest, 0.0)
        out["loss"] = risk
        if self.ridge > 0:
            out["risk"] = risk
            out["loss"] = risk + 0.5 * (found.link**2 * (1.0 / kept - 1.0)).sum(axis=-1)
        return out
