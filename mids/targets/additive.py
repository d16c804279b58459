r"""Targets that are sums of one link along many directions, without tensors.

Takes coefficients, a link of one variable and directions; gives `AdditiveTarget`,

.. math:: f^*(z) = \sum_i a_i \, g(v_i \cdot z), \qquad g = \sum_k c_k h_k,

whose correlation and gradient are sums over pairs of directions (Ren, Nichani, Wu, Lee 2025),

.. math:: h(G) = \sum_{ij} a_i a_j \sum_k c_k^2 (v_i^T G v_j)^k .
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import validation
from ..errors import InputError, TargetSyntaxError
from ..validation import FloatArray, IntArray
from .basis import (
    MAX_DEGREE,
    MAX_RANK,
    MAX_TENSOR_SIZE,
    PRESENT,
    fitting,
    hermite_series,
    hermite_values,
    symmetric_tensors,
    tensor_coefficients,
)
from .target import UNIT, Target

LARGEST_RANK = 4096


def additive(
    coefficients: ArrayLike,
    link: str | Mapping[int, float] | Sequence[float],
    directions: ArrayLike | None = None,
    *,
    name: str | None = None,
) -> AdditiveTarget:
    r"""Return ``sum_i a_i g(<v_i, z>)``, a sum of one link along up to thousands of directions.

    Parameters
    ----------
    coefficients : (n,) array_like
        The ``a_i``, none of them 0.
    link : str, mapping or sequence
        The link g: ``"h3"``, a name such as ``"erf"``, ``{degree: coefficient}`` or a list of
        Hermite coefficients, from degree 0 on.
    directions : (rank, n) array_like, optional
        Unit vectors ``v_i`` as columns, linearly independent; the axes ``z1, z2, ...`` if not
        given.
    name : str, optional
        A label.

    Returns
    -------
    AdditiveTarget
        For the flow ``TwoLayer``; also for ``TwoTimescale`` and `ladder` where the directions are
        orthonormal and the link has no h1. Up to rank 8 it is a target like any other.

    Raises
    ------
    InputError
        If a direction is not a unit vector, directions depend on each other, or a coefficient is 0.

    Examples
    --------
    >>> target = additive([i**-0.75 for i in range(1, 257)], "h3")
    >>> target
    <AdditiveTarget of rank 256, degree 3, norm 1.57718: 256 directions, link h3>
    """
    weights = np.atleast_1d(validation.finite_array(coefficients, "coefficients"))
    if weights.ndim != 1 or not weights.size or not weights.all():
        raise InputError(
            "coefficients must be a list of numbers other than 0, one for each direction, got "
            f"{validation.shown(coefficients)}"
        )
    series, missed = hermite_series(link, MAX_DEGREE if isinstance(link, str) else None)
    if directions is None:
        frame = np.eye(len(weights))
    else:
        frame = validation.matrix(directions, "directions", None, len(weights)).copy()
        norms = np.linalg.norm(frame, axis=0)
        if np.abs(norms - 1.0).max() > UNIT:
            raise InputError(
                f"directions must be unit vectors as columns, but column "
                f"{int(np.abs(norms - 1.0).argmax())} has norm "
                f"{norms[np.abs(norms - 1.0).argmax()]:.6g}; divide them by their norms"
            )
        sizes = np.linalg.svd(frame, compute_uv=False)
        if len(weights) > len(frame) or sizes[-1] < 1e-8:
            raise InputError(
                f"directions must be linearly independent, but {len(weights)} of them span "
                f"{int((sizes > 1e-8).sum())} dimensions; leave out what depends on the others"
            )
    if len(frame) > LARGEST_RANK:
        raise InputError(
            f"an additive target has at most {LARGEST_RANK} directions, got {len(frame)}; use fewer"
        )
    return AdditiveTarget(weights, series, frame, name=name, link_norm_missed=missed)


class AdditiveTarget(Target):
    """A sum of one link along many directions; made by `additive`.

    Attributes
    ----------
    weights : (n,) float array
        The coefficients ``a_i``.
    series : (degree + 1,) float array
        Hermite coefficients of the link.
    directions : (rank, n) float array
        The unit vectors ``v_i``.
    aligned : bool
        Whether they are the axes.

    Examples
    --------
    >>> target = additive([1.0, 0.5], "h2")
    >>> target.correlation([[1.0, 0.0], [0.0, 0.5]])
    (1.0625, array([[2.  , 0.  ],
           [0.  , 0.25]]))
    """

    weights: FloatArray
    series: FloatArray
    aligned: bool

    def __init__(
        self,
        weights: FloatArray,
        series: FloatArray,
        directions: FloatArray,
        *,
        name: str | None = None,
        link_norm_missed: float = 0.0,
    ) -> None:
        for array in (weights, series, directions):
            array.setflags(write=False)
        self._with(
            weights=weights,
            series=series,
            directions=directions,
            rank=len(directions),
            degree=len(series) - 1,
            name=name,
            estimate=None,
            missed_norm=link_norm_missed * float(np.linalg.norm(weights)),
        )
        aligned = np.array_equal(directions, np.eye(len(directions)))
        modes, values = np.zeros((0, self.rank), dtype=np.int64), np.zeros(0)
        if aligned:
            modes, values = _aligned_modes(weights, series)
        elif self.dense:
            modes, values = tensor_coefficients(_tensors(weights, series, directions))
            kept = np.abs(values) > PRESENT * np.abs(values).max()
            modes, values = modes[kept], values[kept]
        self._with(aligned=aligned, modes=modes, coefficients=values)

    @property
    def dense(self) -> bool:
        """Whether the target is small enough for tensors, and so for every flow."""
        return self.rank <= MAX_RANK and self.rank**self.degree <= MAX_TENSOR_SIZE

    @property
    def norm(self) -> float:
        r"""The norm :math:`\|f^*\|`, constant included.

        Examples
        --------
        >>> additive([3.0, 4.0], "h3").norm
        5.0
        """
        return math.sqrt(self.correlation(np.eye(self.rank))[0])

    @property
    def tensors(self) -> tuple[FloatArray, ...]:
        """Symmetric tensors, up to rank 8; an error beyond.

        Examples
        --------
        >>> [tensor.ndim for tensor in additive([1.0, 1.0], "h3").tensors]
        [0, 1, 2, 3]
        """
        if not self.dense:
            raise InputError(
                f"an additive target of rank {self.rank} and degree {self.degree} has no tensors, "
                f"which this needs; take the flow two-layer, or {fitting(self.rank)} (the "
                "ladder and the two-timescale flow take orthonormal directions and no h1)"
            )
        return symmetric_tensors(self.modes, self.coefficients)

    @property
    def separable(self) -> tuple[int, FloatArray, FloatArray] | None:
        """Exponent, strengths and directions where these are many and learned one by one."""
        if self.dense or self.series[1] or not self.orthonormal:
            return None
        exponent = int(np.flatnonzero(self.series[1:])[0]) + 1
        strengths = (self.weights * self.series[exponent]) ** 2
        return exponent, strengths, self.directions.copy()

    @property
    def degrees(self) -> IntArray:
        """Total degrees that the target has, increasing."""
        return np.flatnonzero(self.series)

    def along(self, degree: int) -> FloatArray | None:
        """Coefficients ``a_i c_k`` of the part of degree k, one for each direction."""
        return self.weights * (self.series[degree] if degree < len(self.series) else 0.0)

    def correlation(self, G: ArrayLike) -> tuple[float, FloatArray]:
        """``h(G)`` and its gradient H, shape (rank, rank), without tensors.

        Parameters
        ----------
        G : (rank, rank) array_like

        Returns
        -------
        float
            ``sum_ij a_i a_j sum_k c_k^2 (v_i^T G v_j)^k``.
        (rank, rank) float array
            Its gradient.

        Examples
        --------
        >>> import numpy as np
        >>> from mids.targets import additive
        >>> target = additive(np.ones(100), "h2").normalize()
        >>> value, gradient = target.correlation(0.5 * np.eye(100))
        >>> round(value, 6), gradient.shape
        (0.25, (100, 100))
        """
        frame, squares = self.directions, self.series**2
        inner = frame.T @ np.asarray(G, dtype=np.float64) @ frame
        # Horner's rule for sum_k c_k^2 u^k and its derivative, at u = v_i^T G v_j.
        value, slope = np.zeros_like(inner), np.zeros_like(inner)
        for square in squares[::-1]:
            slope = slope * inner + value
            value = value * inner + square
        pairs = np.outer(self.weights, self.weights)
        return float((pairs * value).sum()), frame @ (pairs * slope) @ frame.T

    def __call__(self, z: ArrayLike) -> FloatArray:
        """Evaluate the link function; z (..., rank); returns (...)."""
        values = hermite_values(self._points(z) @ self.directions, self.degree) @ self.series
        return np.asarray(values @ self.weights)

    def information_exponent(self, subspace: ArrayLike | None = None) -> int | None:
        """Return the information exponent; relative to a subspace up to rank 8 only."""
        if subspace is not None and self.dense:
            return super().information_exponent(subspace)
        if subspace is not None:
            return len(self.tensors)  # raises
        for k in range(1, len(self.series)):
            # |T_k|^2 = c_k^2 sum_ij a_i a_j (v_i . v_j)^k: directions that are oblique may cancel.
            gram = (self.directions.T @ self.directions) ** k
            if self.series[k] and self.weights @ gram @ self.weights > PRESENT:
                return k
        return None

    def normalize(self) -> AdditiveTarget:
        """Return the target scaled to unit norm."""
        return AdditiveTarget(
            self.weights / self.norm, self.series.copy(), self.directions.copy(), name=self.name
        )

    def rotate(self, rotation: ArrayLike) -> AdditiveTarget:
        """Return the target ``z -> f*(Q^T z)``: its directions rotated."""
        directions = self._rotation(rotation) @ self.directions
        return AdditiveTarget(self.weights.copy(), self.series.copy(), directions)

    def _content(self) -> dict[str, Any]:
        directions = {} if self.aligned else {"directions": self.directions.tolist()}
        return {"additive": self.weights.tolist(), "link": self.series.tolist(), **directions}

    def __eq__(self, other: object) -> bool:
        """Compare weights, link and directions exactly; a target of modes is another one."""
        if not isinstance(other, AdditiveTarget):
            return NotImplemented if not isinstance(other, Target) else False
        return all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("weights", "series", "directions")
        )

    def __hash__(self) -> int:
        """Return a hash of weights, link and directions."""
        return hash((self.weights.tobytes(), self.series.tobytes(), self.directions.tobytes()))

    def __str__(self) -> str:
        """Return the expansion, which `Target.parse` reads up to rank 8, or a short description."""
        if self.dense:
            return super().__str__()
        return f"additive target, {self._described}"

    def __format__(self, spec: str) -> str:
        """Return the expansion with the coefficients in a format such as ``.6g``."""
        return super().__format__(spec) if self.dense else str(self)

    @property
    def _described(self) -> str:
        terms = [f"{c:.4g} h{k}" if c != 1 else f"h{k}" for k, c in enumerate(self.series) if c]
        link = " + ".join(terms[:4]) + (" + ..." if len(terms) > 4 else "")
        return f"{len(self.weights)} directions, link {link}"


def _aligned_modes(
    weights: FloatArray, series: FloatArray
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], FloatArray]:
    """Modes and coefficients of a sum along the axes, in the order of `multi_indices`."""
    unit, orders = np.eye(len(weights), dtype=np.int64), np.flatnonzero(series[1:]) + 1
    modes = np.concatenate([0 * unit[:1], *(k * unit for k in orders)])
    values = np.append(series[0] * weights.sum(), np.outer(series[orders], weights))
    first = int(values[0] == 0.0)
    return modes[first:], values[first:]


def _tensors(weights: FloatArray, series: FloatArray, directions: FloatArray) -> list[FloatArray]:
    """Symmetric tensors ``c_k sum_i a_i v_i x ... x v_i`` of degrees 0, 1, ..."""
    powers = weights.copy()[np.newaxis]  # (rank^k, n)
    tensors = []
    for k, c in enumerate(series):
        tensors.append((c * powers.sum(axis=1)).reshape((len(directions),) * k))
        powers = (powers[:, np.newaxis] * directions).reshape(-1, len(weights))
    return tensors


def _from_dict(data: Mapping[str, Any]) -> AdditiveTarget:
    """Inverse of `AdditiveTarget.to_dict`."""
    allowed = {"additive", "link", "directions", "name", "missed_norm"}
    if not {"additive", "link"} <= set(data) <= allowed or isinstance(data["link"], str):
        raise InputError(
            "a stored additive target is a mapping with additive, link and optionally directions, "
            f"name and missed_norm, got {validation.shown(data)}; write it with Target.to_dict"
        )
    target = additive(data["additive"], data["link"], data.get("directions"), name=data.get("name"))
    missed = validation.number(data.get("missed_norm", 0.0), "missed_norm", at_least=0)
    return target._with(missed_norm=missed)


_CALL = re.compile(
    r"\s*additive\(\s*(?P<rank>[0-9]{1,5})\s*,"
    r"\s*(?P<decay>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*,"
    r"\s*(?P<link>[A-Za-z0-9]+)\s*\)\s*"
)


def _parse(text: str) -> AdditiveTarget:
    """Read ``additive(256, 0.75, h3)``: rank, decay beta of a_i = i^-beta, and link."""
    call = _CALL.fullmatch(text)
    if call is None or not math.isfinite(decay := float(call["decay"])):
        raise TargetSyntaxError(
            "an additive target is written additive(rank, decay, link), such as "
            "additive(256, 0.75, h3) for the sum of i**-0.75 h3(zi); others are made by "
            "mids.targets.additive",
            text,
            0,
        )
    rank = validation.integer(
        int(call["rank"]), "the rank of an additive target", at_least=1, at_most=LARGEST_RANK
    )
    weights = np.arange(1, rank + 1, dtype=np.float64) ** -decay
    name = f"additive({rank},{decay:g},{call['link']})"
    return additive(weights, call["link"], name=name)


Target.kinds["additive"] = (_from_dict, _parse)
