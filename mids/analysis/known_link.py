r"""Exact escape times of the planted flow, for targets of one direction.

With the link known ``m' = F(m) = sum_s s alpha_s^2 m^(s-1) (1 - m^2)``: a run moves from m(0) until
a root of F stops it, and the time to overlap 1/2 is one integral,

.. math:: t = \int_{m(0)}^{\pm 1/\sqrt 2} \frac{dm}{F(m)} \sim
          \frac{m(0)^{2-s}}{s (s-2) \alpha_s^2}

with the information exponent s (``log(1/m) / (2 alpha_2^2)`` for s = 2, of order one for s = 1). It
grows like :math:`d^{s/2-1}`, where the fast link takes :math:`d^{s-1}`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import exp

import numpy as np

from ..targets.target import Target
from ..validation import FloatArray as Array
from .prediction import Prediction

_HALF = 0.5**0.5


def order(exponent: int) -> tuple[float, str]:
    """Power of d that the time at a saddle grows with, and its name."""
    power = max(exponent / 2 - 1, 0.0)
    return power, {1: "O(1)", 2: "log d", 4: "d"}.get(exponent, f"d^{power:g}")


class KnownLink:
    """Theory of the planted flow for one target."""

    def __init__(self, target: Target) -> None:
        degrees = target.modes[:, 0]
        self._target = target
        slope = np.zeros(target.degree)
        for s, alpha in zip(degrees, target.coefficients, strict=True):
            if s > 0:
                slope[s - 1] += s * alpha**2
        self._slope = np.polynomial.Polynomial(slope)  # F(m) / (1 - m^2)
        self._exponent = int(degrees[degrees > 0].min())
        self._plateau = target.norm**2 - float(np.sum(target.coefficients[degrees == 0] ** 2))

    @property
    def ladder(self) -> str:
        """The exponent and the order in d of its time."""
        return f"{self._exponent}: {order(self._exponent)[1]}"

    def predict(self, start: Array) -> Prediction:
        """Predict the saddle of each run.

        Shapes: start (n, 1, 1).
        """
        result = Prediction.empty(len(start), 1)
        result.rank[:, 0], result.method[:, 0] = 0.0, 1.0
        result.exponent[:, 0] = self._exponent
        result.saddle_loss[:, 0] = self._plateau
        result.escape_time[:, 0] = [self.escape_time(float(m)) for m in start[:, 0, 0]]
        result.enter_time[:, 0], result.leave_time[:, 0] = 0.0, result.escape_time[:, 0]
        # The first plateau has the level at which it begins.
        first = self._plateau - self._slope.integ()(start[:, 0, 0])
        return replace(result, curve=lambda rows, time: first[rows])

    def escape_time(self, start: float) -> float:
        """Time from m(0) to an overlap of 1/2."""
        if abs(start) >= _HALF:
            return 0.0
        slope = float(self._slope(start))
        if slope == 0.0:
            return np.inf
        end = float(np.copysign(_HALF, slope))
        roots = self._slope.roots()
        real = roots[np.abs(roots.imag) < 1e-9 * (1 + np.abs(roots.real))].real
        low, high = min(start, end), max(start, end)
        if np.any((real > low) & (real < high)):
            return np.inf
        if start * end > 0:  # over many decades: integrate in log m
            return self._integral(np.log(abs(start)), np.log(_HALF), np.sign(start))
        return self._integral(start, end, 0.0)

    def _integral(self, low: float, high: float, sign: float) -> float:
        """Integrate ``dm / F``; in ``log |m|`` where a sign of m is given."""
        from scipy.integrate import quad

        coefficients = self._slope.coef[::-1].tolist()

        def integrand(x: float) -> float:
            m = sign * exp(x) if sign else x
            total = 0.0
            for coefficient in coefficients:
                total = total * m + coefficient
            return (m if sign else 1.0) / (total * (1.0 - m * m))

        # Per unit of log |m|: what matters may be a small part of many decades.
        edges = np.linspace(low, high, 2 + int(abs(high - low) / 2.0))
        return sum(quad(integrand, a, b, epsabs=0, epsrel=1e-9)[0] for a, b in pairwise(edges))
