"""Coefficients of a link: checked, in canonical order, of a feasible size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from .. import validation
from ..errors import InputError
from ..validation import FloatArray, IntArray
from .basis import check_size

__all__ = ["FAMILIES", "canonical", "constant"]


def constant(given: object) -> InputError:
    """Return the error of a target without a non-constant part."""
    return InputError(
        f"a target needs a non-constant part, got {validation.shown(given)}; "
        "include a variable with a coefficient other than 0"
    )


def canonical(coefficients: Mapping[tuple[int, ...], float]) -> tuple[IntArray, FloatArray]:
    """Check coefficients and return modes and values in canonical order, without zeros."""
    if not isinstance(coefficients, Mapping):
        raise InputError(
            "a target is given by a mapping of multi-indices to coefficients such as "
            f"{{(1, 0): 0.6, (1, 3): 0.8}}, got {validation.shown(coefficients)}; "
            "use Target.parse for text and Target.from_function for functions"
        )
    terms: list[tuple[tuple[int, ...], float]] = []
    for key, value in coefficients.items():
        if not isinstance(key, tuple) or not key:
            raise InputError(
                f"a multi-index must be a non-empty tuple of degrees, got {validation.shown(key)}; "
                "write (2,) for h2(z1)"
            )
        beta = tuple(validation.integer(k, "a degree in a multi-index", at_least=0) for k in key)
        terms.append((beta, validation.number(value, f"the coefficient of {beta}")))
    ranks = {len(beta) for beta, _ in terms}
    if len(ranks) > 1:
        raise InputError(
            f"all multi-indices must have the same length, the rank, got lengths {sorted(ranks)}; "
            "pad the shorter ones with zeros"
        )
    terms = [(beta, value) for beta, value in terms if value]
    if not any(sum(beta) for beta, _ in terms):
        raise constant(dict(coefficients))
    check_size(ranks.pop(), max(sum(beta) for beta, _ in terms))
    terms.sort(key=lambda term: (sum(term[0]), [-k for k in term[0]]))
    norm = math.hypot(*(value for _, value in terms))
    if not 1e-100 <= norm <= 1e100:
        raise InputError(
            f"a target's norm must be between 1e-100 and 1e100, got {norm:g}; rescale it"
        )
    modes = np.array([beta for beta, _ in terms], dtype=np.int64)
    return modes, np.array([value for _, value in terms], dtype=np.float64)


Coefficients: TypeAlias = dict[tuple[int, ...], float]


def _hermite(degree: int) -> Coefficients:
    return {(validation.integer(degree, "degree", at_least=1),): 1.0}


def _parity(rank: int) -> Coefficients:
    rank = validation.integer(rank, "rank", at_least=1)
    check_size(rank, rank)
    return {(1,) * rank: 1.0}


def _staircase(rank: int) -> Coefficients:
    rank = validation.integer(rank, "rank", at_least=1)
    check_size(rank, rank)
    return _leaps(*[1] * rank)


def _leaps(*orders: int) -> Coefficients:
    """Equal coefficients on h_{s_1}(z1) ... h_{s_j}(zj), j = 1, 2, ..., of unit norm."""
    checked = [validation.integer(s, "an order of leaps", at_least=1) for s in orders]
    rank = len(checked)
    check_size(rank, sum(checked))
    return {tuple(checked[:j] + [0] * (rank - j)): 1 / math.sqrt(rank) for j in range(1, rank + 1)}


FAMILIES: Mapping[str, Callable[..., Coefficients]] = {
    "hermite": _hermite,
    "leaps": _leaps,
    "parity": _parity,
    "staircase": _staircase,
}
"""Coefficients of the named families, by their integer arguments."""
