"""What neurons see of a target: sparse polynomials, strengths of its modes, nearest directions."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..targets.additive import AdditiveTarget
from ..targets.basis import LARGEST_DEGREE, multiplicities
from ..targets.target import Target
from ..validation import FloatArray, IntArray

__all__ = ["IMPLICIT", "Monomials", "duration", "monomials", "pulls", "reached"]


IMPLICIT = 512
"""Unknowns of a network up to which its steps are implicit where that pays."""
EQUAL = 2e-3
"""Relative difference of squared cosines that counts as none."""


class Monomials(NamedTuple):
    r"""Sparse polynomials ``<T_k, m^k> = sum alpha_beta sqrt(k! / beta!) m^beta`` of a target.

    Shapes: ends, degrees, weights, coefficients (the alpha; (modes,) each); axes, powers
    (factors,); directions (terms, rank), whose products with m are the axes.
    """

    ends: IntArray
    degrees: IntArray
    axes: IntArray
    powers: IntArray
    weights: FloatArray
    coefficients: FloatArray
    directions: FloatArray


@functools.lru_cache(maxsize=8)
def monomials(target: Target) -> Monomials:
    """Polynomials of a target; those of an additive one are powers along its directions."""
    if isinstance(target, AdditiveTarget) and not target.aligned:
        count = len(target.weights)
        orders = np.flatnonzero(target.series[1:]) + 1
        degrees = np.repeat(orders, count)
        axes = np.tile(np.arange(count), len(orders))
        weights = np.outer(target.series[orders], target.weights).ravel()
        ends, powers = np.arange(1, len(axes) + 1), degrees.copy()
        constant = float(target.series[0] * target.weights.sum())
        if constant:
            degrees, weights = np.append(degrees, 0), np.append(weights, constant)
            ends = np.append(ends, len(axes))
        # Writable, as numba compiles for one kind of array.
        directions = np.ascontiguousarray(target.directions.T.copy())
        return Monomials(ends, degrees, axes, powers, weights, weights.copy(), directions)
    rows, axes = np.nonzero(target.modes)
    degrees = target.modes.sum(axis=1)
    if degrees.max() > LARGEST_DEGREE:
        raise InputError(
            f"the target has degree {degrees.max()}, at most {LARGEST_DEGREE} for networks; "
            "leave out the higher modes"
        )
    weights = target.coefficients * np.sqrt(multiplicities(target.modes))
    ends = np.cumsum(np.bincount(rows, minlength=len(degrees)))
    powers, directions = target.modes[rows, axes], np.eye(target.rank)
    axes = np.ascontiguousarray(axes)  # numba compiles anew for strided arrays
    return Monomials(ends, degrees, axes, powers, weights, target.coefficients.copy(), directions)


def pulls(target: Target, series: FloatArray) -> dict[int, dict[int, float]]:
    """Strength ``|c_k alpha|`` of the modes that contain an axis, by axis and degree."""
    of = monomials(target)
    found: dict[int, dict[int, float]] = {n: {} for n in range(len(of.directions))}
    begin = 0
    for end, k, weight in zip(*(part.tolist() for part in of[:2]), of.weights, strict=True):
        if 0 < k < len(series):
            for axis in of.axes[begin:end].tolist():
                strength = float(abs(weight * series[k]))
                found[axis][k] = max(found[axis].get(k, 0.0), strength)
        begin = end
    return found


def duration(start: float, exponent: int, strength: float) -> float:
    """Time in which ``m' = s c m^(s-1)`` leaves ``m = start``, and comes to rest."""
    if exponent == 1:
        return 3.0 / strength
    if exponent == 2:
        return (math.log(1 / start) + 3.0) / (2 * strength)
    return (start ** (2 - exponent) / (exponent - 2) + 3.0) / (exponent * strength)


def reached(target: Target, cosines: FloatArray) -> tuple[IntArray, int]:
    """Nearest direction of every neuron, and how many directions have a neuron within 45 degrees.

    Directions are the axes of the link or the index vectors of an additive target; a neuron that is
    nearer than 45 degrees to none, or as near to another, as at the average of several, has -1.
    Shapes: cosines (p, rank); returns (p,).
    """
    squares = np.where(np.isfinite(cosines), cosines, 0.0) @ target.directions
    squares **= 2
    largest = squares.max(axis=1)
    alone = (squares >= (1 - EQUAL) * largest[:, None]).sum(axis=1) == 1
    nearest = np.where((largest >= 0.5) & alone, squares.argmax(axis=1), -1)
    return nearest.astype(np.int64), len(np.unique(nearest[nearest >= 0]))
