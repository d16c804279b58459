"""Flows whose link may be regularised: ridge regression in an isotropic Hermite RKHS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .. import validation
from ..errors import InputError
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Flow
from .kernel import HermiteKernel
from .time_grid import beyond_escapes

__all__ = ["RidgeFlow"]

LEAST_KEPT = 1e-60
"""Smallest shrinkage of a degree: beyond it double precision has no room for times and losses."""


@dataclass(frozen=True, kw_only=True)
class RidgeFlow(Flow):
    """A flow with a link that carries the penalty ``ridge / 2 sum_k |f_k|^2 / q_k``.

    The best link for a frame is the averaged target, its component of degree k scaled by
    ``q_k / (q_k + ridge)`` (paper Prop. 3.3).
    """

    ridge: float = 0.0
    kernel: HermiteKernel | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "ridge", validation.number(self.ridge, "ridge", at_least=0.0))
        if isinstance(self.kernel, Mapping):
            object.__setattr__(self, "kernel", HermiteKernel.from_dict(self.kernel))
        if not isinstance(self.kernel, HermiteKernel | None):
            raise InputError(
                f"kernel must be a mids.flows.HermiteKernel, got {validation.shown(self.kernel)}; "
                "pass for example HermiteKernel(polynomial=2)"
            )

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters in types that JSON knows."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.kernel is not None:
            values["kernel"] = self.kernel.to_dict()
        return {"name": self.name, **values}

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError if the kernel does not reach the target's degree, or nothing is left."""
        kept = self.shrinkage(target.modes.sum(axis=1))
        if not kept.min() >= LEAST_KEPT:
            raise InputError(
                f"with ridge={self.ridge:g} the link keeps a fraction of {kept.min():.2g} of one "
                f"of the target's degrees, less than {LEAST_KEPT:g}; lower the ridge, or take a "
                "kernel with larger eigenvalues"
            )

    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Logarithmic grid that covers the last escape of 0.999 of the runs."""
        return beyond_escapes(self.effective_target(target), dim, student_rank, initial)

    def effective_target(self, target: Target) -> Target:
        """``f*_mu``: each degree scaled by ``sqrt(q_k / (q_k + ridge))`` (paper Prop. 3.3)."""
        if self.ridge == 0:
            return target
        weights = np.sqrt(self.shrinkage(target.modes.sum(axis=1)))
        modes = map(tuple, target.modes.tolist())
        scaled = (target.coefficients * weights).tolist()
        return Target(dict(zip(modes, scaled, strict=True)), name=target.name)

    def variables(self, target: Target) -> tuple[str, ...]:
        """Those of every flow, and with a ridge the population risk."""
        return (*super().variables(target), *(["risk"] if self.ridge > 0 else []))

    def shrinkage(self, degrees: IntArray) -> FloatArray:
        """``q_k / (q_k + ridge)`` of each degree: what the best link keeps of the averaged target.

        Shapes: degrees (n,); returns (n,).
        """
        if self.kernel is None:
            return np.full(len(degrees), 1.0 / (1.0 + self.ridge))
        values = self.kernel.of_degrees(degrees)
        return values / (values + self.ridge)

    def at_best_link(self, target: Target, energy: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Objective and population risk, both with the factor 1/2, at the best link for G.

        Shapes: energy (..., n_modes); returns (...).
        """
        kept = 1.0 - 0.5 * self.shrinkage(target.modes.sum(axis=1))
        half = 0.5 * target.norm**2
        objective, risk = half - 0.5 * energy.sum(axis=-1), half - (energy * kept).sum(axis=-1)
        return np.maximum(objective, 0.0), np.maximum(risk, 0.0)  # not below by rounding
