"""Isotropic Hermite kernels: the eigenvalue of each degree, by which a ridge weighs the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import validation
from ..errors import InputError
from ..validation import FloatArray

__all__ = ["HermiteKernel"]

SMALLEST = 1e-300
"""Least eigenvalue of a kernel that is given by a formula."""


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
        names = ("polynomial", "exponential", "eigenvalues")
        given = [name for name in names if getattr(self, name) is not None]
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
        """
        for name in fields:
            validation.one_of(name, ("polynomial", "exponential", "eigenvalues"), "kernel field")
        return cls(**fields)
