"""Compiled pieces of the fast-link flow: right-hand side, Jacobian, eigenframe.

Coordinates.  ``X = G (I - G)^-1`` obeys ``X' = H X + X H``, which no plateau makes stiff in the
learned overlaps: their log-odds just keep growing.  Around an orthonormal frame ``V`` the state is
``X = V L diag(e^v) L^T V^T`` with ``L`` unit lower triangular and log-odds ``v`` sorted downwards,

    v_i' = 2 B_ii,      L' = L D,   D_ji = B_ji + (e^v_j / e^v_i) B_ij  (j > i),
    B = L^-1 V^T H V L.

Every entry is a sum of products of graded quantities, so an overlap of 1e-12 beside one of 1 keeps
its own relative accuracy, whatever the rotation of the target.  ``H`` comes from a factorisation
``V^T G V = J diag(F) J^T`` as graded as that of ``X``.  The coordinates are smooth and free: an
ordinary stiff solver applies, with an exact Jacobian.

A direction whose log-odds reach `SATURATED` has overlap 1 to working precision; it leaves the
state, and only the tilts of the saturated subspace towards the others remain.

Time.  The independent variable is the growth of one direction ``k`` still to be learned,
``d tau = 2 Ht_kk dt`` with ``Ht = J^T V^T H V J``; an escape, which is a blow-up in ``t``, is an
even walk in ``tau``.  ``k = -1`` means that ``t`` itself is used.

A state vector holds ``v_i`` of the directions that are neither saturated nor without any overlap,
then, column by column, the ``L_ji`` with ``j`` not saturated and ``i`` not without overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ._linear import compiled, complete, orthogonalise
from ._tables import Derivative, Tables

__all__ = [
    "COLUMNS",
    "HESSIAN",
    "METRIC",
    "OVERLAP",
    "REST",
    "SATURATED",
    "STEP",
    "Active",
    "Scratch",
    "eigenframe",
    "jacobian",
    "rate",
    "scratch",
]

SATURATED = 37.0  # 1 - overlap is below rounding

OVERLAP, ODDS, REST = range(3)  # rows of Scratch.diagonal
# Places in Scratch.square.
HESSIAN, GENERATOR, STEP, LOWER, TILT, INVERSE, METRIC, CHANGE, COLUMNS = range(9)


class Active(NamedTuple):
    """What a state vector holds: directions ``saturated, ..., learnable - 1`` and their tilts."""

    saturated: int
    learnable: int
    size: int


class Scratch(NamedTuple):
    """Work arrays of one run.

    Attributes
    ----------
    square : (9, rank, rank)
        Small matrices, by the names above; ``HESSIAN`` is ``Ht``, ``GENERATOR`` is ``B``, ``STEP``
        is ``D`` times the pace, ``LOWER`` is ``L``, ``TILT`` is ``J``; ``COLUMNS`` holds
        eigenvectors.
    monomial : (2, n_monomials)
        Sheared coefficients and their change.
    power : (n_powers,)
        ``F^gamma``.
    gradient : (3, rank, n_gradients)
        Factors that ``Ht`` is made of, the same times ``F^gamma``, and their change.
    diagonal : (3, rank)
        ``F``, ``e^v`` and ``1 - F`` (where ``L = I``).
    buffer : (n_buffer,)
        Of the substitution.
    """

    square: np.ndarray
    monomial: np.ndarray
    power: np.ndarray
    gradient: np.ndarray
    diagonal: np.ndarray
    buffer: np.ndarray


def scratch(table: Tables) -> Scratch:
    """Work arrays for one target, of one thread."""
    rank, gradients = table.derivative.gradient_factor.shape
    return Scratch(
        np.zeros((9, rank, rank)),
        np.zeros((2, table.weight.size)),
        np.zeros(table.derivative.power.shape[0]),
        np.zeros((3, rank, gradients)),
        np.zeros((3, rank)),
        np.zeros(table.buffer),
    )


@compiled
def _load(x: np.ndarray, active: Active, work: Scratch) -> bool:
    """``e^v`` and ``L`` of a state vector; returns whether ``L = I``."""
    saturated, learnable = active.saturated, active.learnable
    square, diagonal = work.square, work.diagonal
    rank = square.shape[1]
    identity = True
    at = learnable - saturated
    for i in range(rank):
        if i < saturated:
            diagonal[ODDS, i] = np.exp(SATURATED)
        elif i < learnable:
            diagonal[ODDS, i] = np.exp(min(x[i - saturated], 2.0 * SATURATED))
        else:
            diagonal[ODDS, i] = 0.0
        for j in range(rank):
            square[LOWER, i, j] = 0.0
        square[LOWER, i, i] = 1.0
    for i in range(learnable):
        for j in range(max(i + 1, saturated), rank):
            square[LOWER, j, i] = x[at]
            if x[at] != 0.0:
                identity = False
            at += 1
    return identity


@compiled
def rate(
    table: Derivative,
    base: np.ndarray,
    x: np.ndarray,
    active: Active,
    clock: int,
    work: Scratch,
    out: np.ndarray,
) -> float:
    """Differentiate the state with respect to tau; returns ``dt / dtau``.

    `base` holds the target's coefficients in the frame the state refers to.
    """
    saturated, learnable = active.saturated, active.learnable
    square, monomial, diagonal = work.square, work.monomial, work.diagonal
    rank = diagonal.shape[1]
    identity = _load(x, active, work)
    for i in range(base.shape[0]):
        monomial[0, i] = base[i]
    if identity:
        for i in range(rank):
            diagonal[REST, i] = 1.0 / (1.0 + diagonal[ODDS, i])
            diagonal[OVERLAP, i] = diagonal[ODDS, i] * diagonal[REST, i]
    else:
        _factor_gram(learnable, work)
        _shear(table, square, monomial)

    _hessian(table, work)
    if identity:
        for i in range(rank):
            for j in range(rank):
                square[GENERATOR, i, j] = square[HESSIAN, i, j]
    else:
        _generator(square)

    pace = 0.5 / square[HESSIAN, clock, clock] if clock >= 0 else 1.0
    for i in range(saturated, learnable):
        out[i - saturated] = 2.0 * pace * square[GENERATOR, i, i]
    at = learnable - saturated
    for i in range(learnable):
        first = max(i + 1, saturated)
        for j in range(first, rank):
            total = square[GENERATOR, j, i]
            if j < learnable:
                total += diagonal[ODDS, j] / diagonal[ODDS, i] * square[GENERATOR, i, j]
            total *= pace
            square[STEP, j, i] = total
            if not identity:
                for k in range(first, j):
                    total += square[LOWER, j, k] * square[STEP, k, i]
            out[at] = total
            at += 1
    return pace


@compiled
def _hessian(table: Derivative, work: Scratch) -> None:
    """Compute ``Ht`` from the sheared coefficients and ``F``."""
    square, power, gradient = work.square, work.power, work.gradient
    rank = square.shape[1]
    power[0] = 1.0
    for i in range(1, power.shape[0]):
        power[i] = power[table.power[i, 0]] * work.diagonal[OVERLAP, table.power[i, 1]]
    for i in range(rank):
        for g in range(gradient.shape[2]):
            value = table.gradient_factor[i, g] * work.monomial[0, table.gradient[i, g]]
            gradient[0, i, g] = value
            gradient[1, i, g] = value * power[table.gradient[2 * rank, g]]
    for i in range(rank):
        for j in range(i + 1):
            total = _dot(gradient, 1, i, 0, j)
            square[HESSIAN, i, j] = total
            square[HESSIAN, j, i] = total


@njit(
    nogil=True,
    error_model="numpy",
    fastmath={"contract", "reassoc"},
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    _nrt=False,
)
def _dot(gradient: np.ndarray, first: int, i: int, second: int, j: int) -> float:
    total = 0.0
    for g in range(gradient.shape[2]):
        total += gradient[first, i, g] * gradient[second, j, g]
    return total


@compiled
def _factor_gram(learnable: int, work: Scratch) -> None:
    """``F`` and ``J`` with ``G = J F J^T``, from ``X = L diag(e^v) L^T``.

    ``G = L S^-1 L^T`` with ``S = L^T L + e^-v = R^T F^-1 R``, factorised from the least overlap
    upwards; ``J = L R^-1``.  ``R`` stays in ``INVERSE``.
    """
    square, diagonal = work.square, work.diagonal
    rank = diagonal.shape[1]
    for i in range(rank):
        for j in range(i + 1):
            total = 0.0
            for k in range(i, rank):
                total += square[LOWER, k, i] * square[LOWER, k, j]
            square[METRIC, i, j] = total
            square[METRIC, j, i] = total
    for j in range(rank - 1, -1, -1):
        diagonal[OVERLAP, j] = 0.0
        if j < learnable:
            total = square[METRIC, j, j] + 1.0 / diagonal[ODDS, j]
            for k in range(j + 1, learnable):
                total -= square[INVERSE, k, j] ** 2 / diagonal[OVERLAP, k]
            diagonal[OVERLAP, j] = 1.0 / total
        square[INVERSE, j, j] = 1.0
        for i in range(j):
            total = square[METRIC, j, i]
            for k in range(j + 1, learnable):
                total -= square[INVERSE, k, j] * square[INVERSE, k, i] / diagonal[OVERLAP, k]
            square[INVERSE, j, i] = total * diagonal[OVERLAP, j]
    for i in range(rank):
        for j in range(i, -1, -1):
            total = square[LOWER, i, j]
            for k in range(j + 1, i + 1):
                total -= square[TILT, i, k] * square[INVERSE, k, j]
            square[TILT, i, j] = total


@compiled
def _shear(table: Derivative, square: np.ndarray, monomial: np.ndarray) -> None:
    """Substitute ``z = J y``, one off-diagonal entry after the other."""
    rank = square.shape[1]
    pair = 0
    for b in range(rank):
        for a in range(b + 1, rank):
            amount = square[TILT, a, b]
            if amount != 0.0:
                for row in range(table.shear_start[pair], table.shear_start[pair + 1]):
                    value = table.shear_factor[row] * monomial[0, table.shear[row, 1]]
                    for _ in range(table.shear[row, 2]):
                        value *= amount
                    monomial[0, table.shear[row, 0]] += value
            pair += 1


@compiled
def _generator(square: np.ndarray) -> None:
    """``B = (L^T L)^-1 R^T Ht R``, with ``R`` in ``INVERSE``."""
    rank = square.shape[1]
    for i in range(rank):
        for j in range(rank):
            total = 0.0
            for k in range(j, rank):
                total += square[HESSIAN, i, k] * square[INVERSE, k, j]
            square[CHANGE, i, j] = total
    for i in range(rank):
        for j in range(rank):
            total = 0.0
            for k in range(i, rank):
                total += square[INVERSE, k, i] * square[CHANGE, k, j]
            square[GENERATOR, i, j] = total
    for j in range(rank):
        for i in range(rank - 1, -1, -1):
            for k in range(i + 1, rank):
                square[GENERATOR, i, j] -= square[LOWER, k, i] * square[GENERATOR, k, j]
        for i in range(rank):
            for k in range(i):
                square[GENERATOR, i, j] -= square[LOWER, i, k] * square[GENERATOR, k, j]


@compiled
def jacobian(
    table: Derivative,
    active: Active,
    clock: int,
    pace: float,
    slope: np.ndarray,
    work: Scratch,
    out: np.ndarray,
    pace_gradient: np.ndarray,
) -> None:
    """Jacobian of `rate` at ``L = I``, right after `rate` gave `slope` and `pace` there.

    `pace_gradient` receives the gradient of ``dt / dtau``.
    """
    saturated, learnable = active.saturated, active.learnable
    square, monomial, diagonal = work.square, work.monomial, work.diagonal
    rank = diagonal.shape[1]
    for b in range(saturated, learnable):
        _hessian_change_overlap(table, b, diagonal[REST, b], work)
        for i in range(rank):
            for j in range(rank):
                square[METRIC, i, j] = square[CHANGE, i, j]
        _column(b - saturated, b, -1, active, clock, pace, slope, work, out, pace_gradient)

    column, pair = learnable - saturated, 0
    for b in range(learnable):
        for a in range(b + 1, rank):
            if a >= saturated:
                for i in range(monomial.shape[1]):
                    monomial[1, i] = 0.0
                for row in range(table.shear_start[pair], table.shear_start[pair + 1]):
                    if table.shear[row, 2] == 1:
                        monomial[1, table.shear[row, 0]] += (
                            table.shear_factor[row] * monomial[0, table.shear[row, 1]]
                        )
                rest = diagonal[REST, a]
                _hessian_change_tilt(table, rest, work)
                for i in range(rank):
                    for j in range(rank):
                        square[METRIC, i, j] = square[CHANGE, i, j]
                for j in range(rank):
                    square[METRIC, b, j] -= rest * square[HESSIAN, a, j]
                    square[METRIC, a, j] -= square[HESSIAN, b, j]
                    square[METRIC, j, b] += (1.0 - rest) * square[HESSIAN, j, a]
                _column(column, b, a, active, clock, pace, slope, work, out, pace_gradient)
                column += 1
            pair += 1


@compiled
def _hessian_change_overlap(table: Derivative, b: int, scale: float, work: Scratch) -> None:
    """Differentiate ``Ht`` in ``log F_b``, times `scale`, into ``CHANGE``."""
    square, gradient = work.square, work.gradient
    rank = square.shape[1]
    for i in range(rank):
        for g in range(gradient.shape[2]):
            gradient[2, i, g] = scale * table.gradient[rank + b, g] * gradient[1, i, g]
    for i in range(rank):
        for j in range(i + 1):
            total = _dot(gradient, 2, i, 0, j)
            square[CHANGE, i, j] = total
            square[CHANGE, j, i] = total


@compiled
def _hessian_change_tilt(table: Derivative, scale: float, work: Scratch) -> None:
    """Differentiate ``Ht`` along work.monomial[1], times `scale`, into ``CHANGE``."""
    square, gradient = work.square, work.gradient
    rank = square.shape[1]
    for i in range(rank):
        for g in range(gradient.shape[2]):
            gradient[2, i, g] = (
                scale * table.gradient_factor[i, g] * work.monomial[1, table.gradient[i, g]]
            )
    for i in range(rank):
        for j in range(i + 1):
            total = _dot(gradient, 2, i, 1, j) + _dot(gradient, 1, i, 2, j)
            square[CHANGE, i, j] = total
            square[CHANGE, j, i] = total


@compiled
def _column(
    column: int,
    b: int,
    a: int,
    active: Active,
    clock: int,
    pace: float,
    slope: np.ndarray,
    work: Scratch,
    out: np.ndarray,
    pace_gradient: np.ndarray,
) -> None:
    """Fill one column of the Jacobian: in ``v_b`` if ``a < 0``, else in ``L_ab``.

    ``Ht`` changes by ``CHANGE`` and ``B`` by ``METRIC``.
    """
    saturated, learnable = active.saturated, active.learnable
    square, odds = work.square, work.diagonal[ODDS]
    rank = odds.shape[0]
    relative = 0.0
    if clock >= 0:
        relative = -square[CHANGE, clock, clock] / square[HESSIAN, clock, clock]
    pace_gradient[column] = pace * relative
    for i in range(saturated, learnable):
        at = i - saturated
        out[at, column] = 2.0 * pace * square[METRIC, i, i] + slope[at] * relative
    at = learnable - saturated
    for i in range(learnable):
        for j in range(max(i + 1, saturated), rank):
            total = square[METRIC, j, i]
            if j < learnable:
                change = square[METRIC, i, j]
                if a < 0 and b == j:
                    change += square[GENERATOR, i, j]
                elif a < 0 and b == i:
                    change -= square[GENERATOR, i, j]
                total += odds[j] / odds[i] * change
            total *= pace
            if a == j and b > i and b >= saturated:
                total += square[STEP, b, i]  # L' = L D: a change of L adds a row of D to another
            out[at, column] = total + slope[at] * relative
            at += 1


@compiled
def eigenframe(x: np.ndarray, active: Active, work: Scratch, log_odds: np.ndarray) -> None:
    """Eigenpairs of ``L diag(e^v) L^T`` to high relative accuracy, largest first.

    One-sided Jacobi rotations of the graded factor ``L diag(e^(v/2))`` (Demmel and Veselic 1992).
    Logarithms of the eigenvalues go to `log_odds`, eigenvectors, completed to an orthonormal
    basis, to ``COLUMNS``.
    """
    learnable = active.learnable
    square, norm = work.square, work.diagonal[REST]
    rank = square.shape[1]
    factor, columns = square[LOWER], square[COLUMNS]
    _load(x, active, work)
    for i in range(learnable):
        scale = np.sqrt(work.diagonal[ODDS, i])
        for k in range(i, rank):
            factor[k, i] *= scale
    orthogonalise(factor, learnable)
    for i in range(learnable):
        norm[i] = 0.0
        for k in range(rank):
            norm[i] += factor[k, i] * factor[k, i]
    for i in range(learnable):
        best = 0
        for j in range(1, learnable):
            if norm[j] > norm[best]:
                best = j
        log_odds[i] = min(np.log(norm[best]), SATURATED)
        scale = 1.0 / np.sqrt(norm[best])
        for k in range(rank):
            columns[k, i] = factor[k, best] * scale
        norm[best] = -1.0
    complete(columns, learnable)
