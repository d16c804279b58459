"""Links of one variable, by name or by coefficients, as Hermite series."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from .. import validation
from ..errors import InputError
from ..validation import FloatArray
from .basis import gauss_hermite, hermite_values

LARGEST_DEGREE = 60  # beyond it the coefficients that a quadrature gives are rounding
PRESENT = 1e-14  # coefficients of a quadrature below this are rounding
ACTIVATIONS = ("erf", "quadratic", "relu", "sigmoid", "tanh")
"""Links known by name, besides h1, h2, ...; erf is erf(z / sqrt 2), quadratic (z^2 - 1) / 2."""


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


def _named(name: str, degree: int) -> tuple[FloatArray, float]:
    """Coefficients of a named function, by formulas or a quadrature of 256 nodes, and its tail."""
    if name == "quadratic":
        return np.array([0.0, 0.0, math.sqrt(0.5)]), 0.0
    series = np.zeros(degree + 1)
    if name in ("erf", "relu"):
        # erf: sqrt(2/pi) (-1)^m (2m - 1)!! 2^(-k/2) / sqrt(k!), k = 2m + 1; relu: its integral.
        squares = 1.0 / 3.0 if name == "erf" else 0.5
        for k in range(degree + 1):
            if name == "erf" and k % 2:
                size = math.lgamma(k) - math.lgamma((k + 1) / 2) - (k - 1) / 2 * math.log(2)
                size -= 0.5 * (math.lgamma(k + 1) + k * math.log(2))
                series[k] = math.sqrt(2 / math.pi) * (-1) ** ((k - 1) // 2) * math.exp(size)
            elif name == "relu" and k >= 2 and k % 2 == 0:
                size = math.lgamma(k - 1) - math.lgamma(k / 2) - (k - 2) / 2 * math.log(2)
                size -= 0.5 * math.lgamma(k + 1)
                series[k] = (-1) ** (k // 2 - 1) * math.exp(size) / math.sqrt(2 * math.pi)
        if name == "relu":
            series[:2] = 1 / math.sqrt(2 * math.pi), 0.5
    else:
        # tanh and the sigmoid have no closed form.
        nodes, weights = gauss_hermite(256)
        values = np.tanh(nodes) if name == "tanh" else 0.5 * (1.0 + np.tanh(0.5 * nodes))
        series = hermite_values(nodes, degree).T @ (weights * values)
        series[np.abs(series) < PRESENT] = 0.0
        squares = float(weights @ values**2)
    missed = math.sqrt(max(squares - float(series @ series), 0.0))
    return np.trim_zeros(series, "b"), missed
