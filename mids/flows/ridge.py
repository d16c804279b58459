"""Flows whose link may be regularised: ridge regression in an isotropic Hermite RKHS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import validation
from ..errors import InputError
from ..targets.basis import by_mode
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Flow, Swept
from .time_grid import beyond_escapes

KERNELS = ("polynomial", "exponential", "eigenvalues")  # of which one is given
SMALLEST = 1e-300  # least eigenvalue of a kernel that is given by a formula
LEAST_KEPT = 1e-60  # least shrinkage: beyond it times and losses have no room in double precision


@dataclass(frozen=True)
class HermiteKernel:
    """Reproducing kernel that is diagonal in the Hermite basis and depends on the degree only.

    Exactly one of the fields is given (paper section 3.3).

    Parameters
    ----------
    polynomial : float, optional
        Exponent a > 0 of ``q_k = (1 + k)^-a``.
    exponential : float, optional
        Rate b > 0 of ``q_k = exp(-b k)``.
    eigenvalues : sequence of float, optional
        ``q_0, q_1, ...``, positive; must reach the degree of the target.

    Raises
    ------
    InputError
        If not exactly one field is given, or it is not positive.

    Examples
    --------
    >>> HermiteKernel(polynomial=2).of_degrees([0, 1, 3]).tolist()
    [1.0, 0.25, 0.0625]
    """

    polynomial: float | None = None
    exponential: float | None = None
    eigenvalues: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        given = [name for name in KERNELS if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                "kernel needs exactly one of polynomial=a, exponential=b or eigenvalues=[q_0, ...] "
                f"(positive), got {' and '.join(given) or 'none'}"
            )
        name = given[0]
        if name == "eigenvalues":
            values = np.atleast_1d(validation.finite_array(self.eigenvalues, "kernel eigenvalues"))
            if values.ndim != 1 or not values.size or not (values > 0).all():
                raise InputError(
                    "kernel eigenvalues must be a list of positive numbers, got "
                    f"{validation.shown(self.eigenvalues)}; pass one for each degree, from 0 on"
                )
            object.__setattr__(self, name, tuple(values.tolist()))
        else:
            value = validation.number(getattr(self, name), f"kernel {name}", above=0.0)
            object.__setattr__(self, name, value)

    def of_degrees(self, degrees: Sequence[int] | np.ndarray) -> FloatArray:
        """Eigenvalue of each degree.

        Parameters
        ----------
        degrees : (n,) sequence of int

        Returns
        -------
        (n,) float array

        Raises
        ------
        InputError
            If the explicit eigenvalues do not reach the largest degree, or those of the formula
            fall below the range of double precision.

        Examples
        --------
        >>> HermiteKernel(polynomial=2).of_degrees([0, 1, 3]).tolist()
        [1.0, 0.25, 0.0625]
        """
        degrees = np.asarray(degrees)
        if self.eigenvalues is None:
            powers: FloatArray = (
                np.exp(-self.exponential * degrees)
                if self.exponential is not None
                else (1.0 + degrees) ** -(self.polynomial or 0.0)
            )
            if not (powers >= SMALLEST).all():
                raise InputError(
                    f"the kernel with {self.to_dict()} has an eigenvalue below {SMALLEST:g} at "
                    f"degree {degrees.max()}; take one that decays more slowly"
                )
            return powers
        values = np.asarray(self.eigenvalues, dtype=np.float64)
        if degrees.max(initial=0) >= len(values):
            raise InputError(
                f"kernel has eigenvalues of degrees 0 to {len(values) - 1}, the target has degree "
                f"{degrees.max()}; give one eigenvalue for each degree"
            )
        return np.asarray(values[degrees])

    def to_dict(self) -> dict[str, Any]:
        """Return the field that was given.

        Returns
        -------
        dict

        Examples
        --------
        >>> HermiteKernel(polynomial=2).to_dict()
        {'polynomial': 2.0}
        """
        for name in ("polynomial", "exponential"):
            if getattr(self, name) is not None:
                return {name: getattr(self, name)}
        return {"eigenvalues": list(self.eigenvalues or ())}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> HermiteKernel:
        """Inverse of `to_dict`.

        Parameters
        ----------
        fields : mapping

        Returns
        -------
        HermiteKernel

        Raises
        ------
        InputError
            If a name or value is wrong.

        Examples
        --------
        >>> HermiteKernel.from_dict({"polynomial": 2}) == HermiteKernel(polynomial=2)
        True
        """
        for name in fields:
            validation.one_of(name, KERNELS, "kernel field")
        return cls(**fields)


def as_kernel(kernel: object) -> HermiteKernel | None:
    """Return a kernel that may be given by a mapping of its field."""
    if isinstance(kernel, Mapping):
        return HermiteKernel.from_dict(kernel)
    if not isinstance(kernel, HermiteKernel | None):
        raise InputError(
            f"kernel must be a mids.flows.HermiteKernel, got {validation.shown(kernel)}; "
            "pass for example HermiteKernel(polynomial=2)"
        )
    return kernel


@dataclass(frozen=True, kw_only=True)
class RidgeFlow(Flow):
    """A flow with a link that carries the penalty ``ridge / 2 sum_k |f_k|^2 / q_k``.

    The best link for a frame is the averaged target, its component of degree k scaled by
    ``q_k / (q_k + ridge)`` (paper Prop. 3.3).
    """

    ridge: float | Swept = 0.0
    kernel: HermiteKernel | Swept | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        self._set(
            ridge=validation.number(self.ridge, "ridge", at_least=0.0),
            kernel=as_kernel(self.kernel),
        )

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
        """``f*_mu``: each degree scaled by ``sqrt(q_k / (q_k + ridge))`` (paper Prop. 3.3).

        Examples
        --------
        >>> from mids import Target
        >>> from mids.flows import TwoTimescale
        >>> TwoTimescale(ridge=3.0).effective_target(Target.parse("h2(z1)")).norm
        0.5
        """
        if self.ridge == 0:
            return target
        weights = np.sqrt(self.shrinkage(target.modes.sum(axis=1)))
        return Target(by_mode(target.modes, target.coefficients * weights), name=target.name)

    def variables(self, target: Target) -> tuple[str, ...]:
        """Those of every flow, and with a ridge the population risk."""
        return (*super().variables(target), *(["risk"] if self.ridge > 0 else []))

    def shrinkage(self, degrees: IntArray) -> FloatArray:
        """``q_k / (q_k + ridge)`` of each degree: what the best link keeps of the averaged target.

        Shapes: degrees (n,); returns (n,).

        Examples
        --------
        >>> from mids.flows import TwoTimescale
        >>> TwoTimescale(ridge=1.0).shrinkage(np.array([1, 3]))
        array([0.5, 0.5])
        """
        if self.kernel is None:
            return np.full(len(degrees), 1.0 / (1.0 + self.ridge))
        values = self.kernel.of_degrees(degrees)
        return values / (values + self.ridge)

    def at_best_link(self, target: Target, energy: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Objective and population risk, both with the factor 1/2, at the best link for G.

        Shapes: energy (..., n_modes); returns (...).

        Examples
        --------
        >>> from mids import Target
        >>> from mids.flows import TwoTimescale
        >>> TwoTimescale(ridge=1.0).at_best_link(Target.parse("h2(z1)"), np.array([[0.5]]))
        (array([0.25]), array([0.125]))
        """
        kept = 1.0 - 0.5 * self.shrinkage(target.modes.sum(axis=1))
        half = 0.5 * target.norm**2
        objective, risk = half - 0.5 * energy.sum(axis=-1), half - (energy * kept).sum(axis=-1)
        return np.maximum(objective, 0.0), np.maximum(risk, 0.0)  # not below by rounding
