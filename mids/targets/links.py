"""Links of one variable, by name or by coefficients, as Hermite series."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

from .. import validation
from ..errors import InputError
from ..validation import FloatArray
from .basis import hermite_values, piecewise

LARGEST_DEGREE = 60  # beyond it the coefficients that a quadrature gives are rounding
PRESENT = 1e-14  # coefficients of a quadrature below this are rounding
ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "erf": lambda z: np.vectorize(math.erf)(z / math.sqrt(2)),
    "quadratic": lambda z: (z**2 - 1) / 2,
    "relu": lambda z: np.maximum(z, 0.0),
    "sigmoid": lambda z: 0.5 * (1.0 + np.tanh(0.5 * z)),
    "tanh": np.tanh,
}
"""Links known by name, besides h1, h2, ..."""


def hermite_series(link: object, degree: int | None) -> tuple[FloatArray, float]:
    """Hermite coefficients (degree + 1,) of a name, mapping or list, and the L2 norm left out."""
    kept = validation.integer(
        24 if degree is None else degree, "degree", at_least=1, at_most=LARGEST_DEGREE
    )
    if isinstance(link, str):
        named = re.fullmatch(r"h([0-9]{1,4})", link.strip())
        if named:
            order = int(named[1])
            if not 1 <= order <= LARGEST_DEGREE:
                raise InputError(f"h{order} is not between h1 and h{LARGEST_DEGREE}")
            return np.eye(order + 1)[order], 0.0
        return _named(validation.one_of(link.strip(), ACTIVATIONS, "link or activation"), kept)
    if isinstance(link, Mapping):
        orders = {
            validation.integer(_whole(k), "a degree of the link", at_least=0): k for k in link
        }
        if orders and max(orders) > LARGEST_DEGREE:
            raise InputError(f"degrees of a link are at most {LARGEST_DEGREE}, got {max(orders)}")
        series = np.zeros(max(orders, default=0) + 1)
        for order, key in orders.items():
            series[order] = validation.number(link[key], f"the coefficient of h{order}")
    else:
        series = np.atleast_1d(validation.finite_array(link, "link"))
    if series.ndim != 1 or len(series) > LARGEST_DEGREE + 1 or not series[1:].any():
        raise InputError(
            "a link is a name, a mapping of degrees to coefficients or a list of at most "
            f"{LARGEST_DEGREE + 1} Hermite coefficients that is not constant, got "
            f'{validation.shown(link)}; pass for example "erf", "h3" or {{1: 0.5, 3: 0.2}}'
        )
    return np.trim_zeros(series, "b"), 0.0


def _whole(key: object) -> object:
    return int(key) if isinstance(key, str) and key.isdigit() else key


@lru_cache(maxsize=64)
def _named(name: str, degree: int) -> tuple[FloatArray, float]:
    """Coefficients of a named function, by a quadrature, and the L2 norm of the other degrees."""
    nodes, weights = piecewise(800, 20.0)  # exact for the kink of relu, an edge of panels
    values, basis = ACTIVATIONS[name](nodes), hermite_values(nodes, degree)
    series = basis.T @ (weights * values)
    missed = math.sqrt(weights @ (values - basis @ series) ** 2)
    series = np.trim_zeros(np.where(np.abs(series) < PRESENT, 0.0, series), "b")
    series.setflags(write=False)
    return series, missed if missed > PRESENT else 0.0
