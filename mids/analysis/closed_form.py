r"""Escape times in closed form, for targets that are learned one direction at a time.

Write the target in the frame of its ladder. If no two modes of the same degree differ by moving a
single unit between variables, H is diagonal wherever G is, and

.. math:: h(G) = \sum_\beta \alpha_\beta^2 \prod_i \lambda_i^{\beta_i}.

With the odds ``x = lambda / (1 - lambda)`` of the direction that is being learned, those before it
at 1 and those after it at 0, the flow is ``x' = 2 x dh/dlambda``: its time is one integral, equal
to ``x^(1-s) / (2 s (s-1) c^2)`` or ``log(1/x) / (2 c^2)`` to leading order. The odds at the start
are the Schur complement of ``X(0) = G(0) (I - G(0))^{-1}`` with respect to what is learned before.
A later direction, of exponent s and with no other unlearned one in its leading part, grows already
while those before it are being learned: by ``x' = 2 s w x^s``, with its strength w at the overlap
reached. So ``log x`` (s = 1) or ``-x^(1-s) / (s (s-1))`` gains ``2 int w dt``, an integral along
the orbit that connects the saddles. The predicted loss is h at the overlaps that each direction,
by its own integral, has at a time before or after its escape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..targets.basis import apply_to_indices, tensor_coefficients
from ..targets.ladder import TOLERANCE, Ladder, complete, leaps
from ..targets.target import Target
from .prediction import Prediction, odds

__all__ = ["ClosedForm"]

Array = NDArray[np.float64]

# Odds from 1e-22 to 1 in steps of 0.05 in the logarithm; beyond, up to 1 - lambda = 1e-16.
_GRID = np.linspace(-50.0, 0.0, 1001)
_BEYOND = np.linspace(0.0, 36.0, 721)
_ALL = np.append(_GRID, _BEYOND[1:])
_TENTH = np.log(9.0)  # log-odds of the overlap 0.9, those of 0.1 with the opposite sign


class ClosedForm:
    """Closed-form theory of one target."""

    method = "closed-form"

    def __init__(self, target: Target) -> None:
        self.ladder = leaps(target)
        self.rank = target.rank
        decoupled = _decouple(target, self.ladder)
        if decoupled is None:
            raise ValueError("the leading parts of this target do not decouple")
        self._frame, self._modes, self._weights = decoupled
        exponents = self.ladder.exponents
        self._stages = [
            _Stage(self._modes, self._weights, exponents, j) for j in range(len(exponents))
        ]

    @staticmethod
    def applies(target: Target) -> bool:
        """Tell whether the target is learned one direction at a time along straight orbits."""
        return _decouple(target, leaps(target)) is not None

    def predict(self, gram0: Array) -> Prediction:
        """Predict the saddles of each run.

        Shapes: gram0 (n, rank, rank).
        """
        x = _schur_complements(self._frame.T @ odds(gram0) @ self._frame)
        result = self.from_schur_complements(x)
        return replace(result, curve=partial(self._loss, x, result.escape_time))

    def _loss(
        self, start: Array, escape_time: Array, rows: NDArray[np.int64], time: Array
    ) -> Array:
        """Loss of runs at some times, from the odds they start with and their escape times."""
        overlaps = np.zeros((self.rank, len(time)))
        with np.errstate(divide="ignore"):
            first = np.log(start)
        for j, stage in enumerate(self._stages):
            escape = escape_time[rows, j]
            grows = np.isfinite(escape)
            grown = stage.log_odds(time[grows] - escape[grows])
            overlaps[j, grows] = 1 / (1 + np.exp(-np.maximum(grown, first[rows[grows], j])))
        result = np.zeros(len(time))
        for mode, weight in zip(self._modes, self._weights, strict=True):
            kept = np.ones(len(time))
            for overlap, power in zip(overlaps, mode, strict=True):
                kept *= overlap ** int(power)
            result += 0.5 * weight * (1 - kept)
        return result

    def from_schur_complements(self, x: Array) -> Prediction:
        """Predict the saddles from the odds with which each direction starts.

        Shapes: x (n, rank).
        """
        steps = self.ladder.steps
        result = Prediction.empty(len(x), self.rank)
        with np.errstate(divide="ignore"):
            start = np.log(x)
        clock = np.zeros(len(x))
        for j, (step, stage) in enumerate(zip(steps, self._stages, strict=True)):
            clock = clock + stage.duration(start[:, j])
            gain = stage.gain(start[:, j])
            for p in range(j + 1, len(steps)):
                start[:, p] = _grown(start[:, p], gain[:, p], steps[p].exponent)
            reached = np.isfinite(start[:, : j + 1]).all(
                axis=1
            )  # with all learned it has converged
            result.escape_time[:, j] = np.where(reached, clock, np.nan)
            result.saddle_loss[:, j] = np.where(reached, step.loss, np.nan)
            before = clock - self._stages[j].aside(-_TENTH)
            result.leave_time[:, j] = np.where(reached, before, np.nan)
            if j == 0:
                result.enter_time[:, j] = 0.0
            else:
                after = result.escape_time[:, j - 1] + self._stages[j - 1].aside(_TENTH)
                result.enter_time[:, j] = np.where(reached, after, np.nan)
            result.rank[:, j] = np.where(reached, step.rank_before, np.nan)
            result.exponent[:, j] = np.where(reached, step.exponent, np.nan)
        return result


class _Stage:
    """The transition on which direction `j` is learned, as functions of its first log-odds."""

    def __init__(
        self, modes: NDArray[np.int64], weights: Array, exponents: tuple[int, ...], j: int
    ) -> None:
        rank = modes.shape[1]
        later = np.arange(rank) > j
        foreign = modes[:, later].sum(axis=1)
        own = modes[:, j]
        drives = (foreign == 0) & (own > 0)
        slope = _Polynomial(own[drives] - 1, weights[drives] * own[drives])
        self._s = int(own[drives].min())
        self._strength = float(weights[drives][own[drives] == self._s].sum())
        self._rank = rank
        # The exact duration against its leading order varies slowly: it is interpolated well.
        exact = -_integrate(_GRID[::-1], lambda y: 0.5 / slope(y))[::-1]
        self._aside = np.append(-exact, _integrate(_BEYOND, lambda y: 0.5 / slope(y))[1:])
        leading = self._leading(_GRID)
        self._correction = _spline(exact - leading if self._s == 1 else exact / leading)
        self._gains = {}
        for p in range(j + 1, len(exponents)):
            grows = (modes[:, p] == exponents[p]) & (foreign == exponents[p])
            if grows.any():
                rate = _Polynomial(own[grows], weights[grows])
                self._gains[p] = _gain(rate, slope)

    def _leading(self, start: Array) -> Array:
        s, strength = self._s, self._strength
        if s == 1:
            return -start / (2 * strength)
        return np.exp((1 - s) * start) / (2 * s * (s - 1) * strength)

    def duration(self, start: Array) -> Array:
        """Time from log-odds `start` to overlap 1/2; 0 for a direction learned from the start."""
        start = np.minimum(start, 0.0)
        correction = self._correction(np.maximum(start, _GRID[0]))
        leading = self._leading(start)
        return leading + correction if self._s == 1 else leading * correction

    def aside(self, log_odds: float) -> float:
        """Time from log-odds 0 to others, in absolute value."""
        return float(abs(np.interp(log_odds, _ALL, self._aside)))

    def log_odds(self, aside: Array) -> Array:
        """Log-odds at times before (negative) and after overlap 1/2."""
        return np.interp(aside, self._aside, _ALL)

    def gain(self, start: Array) -> Array:
        """Gain ``2 int w dt`` of every direction that the stage brings, shape (n, rank)."""
        result = np.zeros((len(start), self._rank))
        for p, gain in self._gains.items():
            result[:, p] = gain(np.clip(start, _GRID[0], 0.0))
        return result


def _grown(start: Array, gain: Array, exponent: int) -> Array:
    """Log-odds after a gain; at most 0, where the direction has been learned on the way."""
    if exponent == 1:
        return start + gain
    with np.errstate(divide="ignore", over="ignore"):
        left = np.exp((1 - exponent) * start) - exponent * (exponent - 1) * gain
    return np.asarray(np.log(np.maximum(left, 1.0)) / (1 - exponent))


class _Polynomial:
    """``sum_k w_k lambda^k`` as a function of the log-odds of lambda."""

    def __init__(self, powers: NDArray[np.int64], weights: Array) -> None:
        self._powers, self._weights = powers, weights

    def __call__(self, y: Array) -> Array:
        logarithm = -np.logaddexp(0.0, -y)
        return np.exp(np.multiply.outer(logarithm, self._powers)) @ self._weights


def _gain(rate: _Polynomial, slope: _Polynomial) -> Callable[[Array], Array]:
    """Gain ``2 int rate dt`` up to overlap 1/2, and beyond it what differs from its limit."""
    limit = rate(np.array([np.inf]))[0]
    after = _integrate(_BEYOND, lambda y: (rate(y) - limit) / slope(y))[-1]
    before = -_integrate(_GRID[::-1], lambda y: rate(y) / slope(y))[::-1]
    return _spline(before + after)


def _integrate(grid: Array, function: Callable[[Array], Array]) -> Array:
    """Integral of a function from the first grid point to each, by Gauss-Legendre quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(6)
    half = np.diff(grid)[:, None] / 2
    middle = (grid[1:] + grid[:-1])[:, None] / 2
    cells = (function(middle + half * nodes) * half) @ weights
    return np.concatenate([[0.0], np.cumsum(cells)])


def _spline(values: Array) -> Callable[[Array], Array]:
    from scipy.interpolate import CubicSpline

    return CubicSpline(_GRID, values)


def _schur_complements(x: Array) -> Array:
    """Successive Schur complements of the diagonal, shape (n, rank): the D of ``L D L^T``."""
    x = x.copy()
    values = np.linalg.eigvalsh(x)
    # Where the student has fewer directions than the target, rounding is all that remains.
    directions = (values > 1e-13 * values[:, -1:]).sum(axis=1)
    result = np.zeros_like(values)
    for j in range(x.shape[1]):
        result[:, j] = np.where(j < directions, np.maximum(x[:, j, j], 0.0), 0.0)
        divisor = np.where(result[:, j] > 0, result[:, j], np.inf)
        column = x[:, :, j]
        x = x - column[:, :, None] * column[:, None, :] / divisor[:, None, None]
    return result


def _decouple(target: Target, ladder: Ladder) -> tuple[Array, NDArray[np.int64], Array] | None:
    """Return frame, modes and squared coefficients in the ladder's frame if H is diagonal there."""
    for step in ladder:
        if step.learned.shape[1] > 1 or step.drift > 1e-6 or not step.stable:
            return None
    frame = complete(np.column_stack([step.learned for step in ladder]))
    tensors = [apply_to_indices(tensor, frame.T) for tensor in target.tensors]
    modes, coefficients = tensor_coefficients(tensors)
    present = np.abs(coefficients) > TOLERANCE * np.abs(coefficients).max()
    modes, weights = modes[present], coefficients[present] ** 2
    for first, second in combinations(modes, 2):
        if first.sum() == second.sum() and np.abs(first - second).sum() == 2:
            return None
    return frame, modes, weights
