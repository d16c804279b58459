"""Right-hand side of the fast-link flow and its Jacobian, in compiled code.

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
then, column by column, the ``L_ji`` with ``j`` not saturated and ``i`` not without overlap, and at
last the time ``t`` since the step began.  A step begins at ``L = I``, in the frame of eigenvectors.
"""

from __future__ import annotations

import numpy as np
from numba import types

from .addresses import ADDRESS, call_at
from .compile import inlined, pair_sum, separate
from .state import SATURATED, START, Scratch, Step, active, machine_at
from .tables import Derivative, Substitution

# Coefficients below this multiple of rounding, relative to the norm, are rounding themselves.
FLUSH = 64.0 * 2.0**-52


@inlined
def load(x: np.ndarray, rank: int, step: Step, work: Scratch) -> None:
    """``e^v`` and ``L`` of a state vector."""
    saturated, learnable, _ = active(step)
    lower, odds = work.lower, work.odds
    at = learnable - saturated
    for i in range(rank):
        if i < saturated:
            odds[i] = np.exp(SATURATED)
        elif i < learnable:
            odds[i] = np.exp(min(x[i - saturated], 2.0 * SATURATED))
        else:
            odds[i] = 0.0
        for j in range(i):
            lower[j, i] = 0.0
            if j >= learnable or i < saturated:
                lower[i, j] = 0.0
        lower[i, i] = 1.0
        if i < learnable:
            for j in range(max(i + 1, saturated), rank):
                lower[j, i] = x[at]
                at += 1


@pair_sum
def _dot(gradient: np.ndarray, first: int, i: int, second: int, j: int) -> float:
    total = 0.0
    for g in range(gradient.shape[2]):
        total += gradient[first, i, g] * gradient[second, j, g]
    return total


@inlined
def _hessian(table: Derivative, rank: int, work: Scratch) -> None:
    """Compute ``Ht`` from the sheared coefficients and ``F``."""
    hessian, power, gradient = work.hessian, work.power, work.gradient
    power[0] = 1.0
    for i in range(1, power.shape[0]):
        power[i] = power[table.power[i, 0]] * work.overlap[table.power[i, 1]]
    for i in range(rank):
        for g in range(gradient.shape[2]):
            value = table.gradient_factor[i, g] * work.monomial[0, table.gradient[i, g]]
            gradient[0, i, g] = value
            gradient[1, i, g] = value * power[table.gradient[2 * rank, g]]
        for j in range(i + 1):
            total = _dot(gradient, 1, i, 0, j)
            hessian[i, j] = total
            hessian[j, i] = total


@inlined
def rate(table: Derivative, rank: int, clock: int, work: Scratch, step: Step) -> None:
    """Differentiate the state `point` with respect to tau, into `right`."""
    saturated, learnable, size = active(step)
    monomial, out = work.monomial[0], step.right
    lower, upper, tilt = work.lower, work.upper, work.tilt
    generator, product, hessian = work.generator, work.product, work.hessian
    odds, overlap = work.odds, work.overlap
    load(step.point, rank, step, work)

    # G = L S^-1 L^T with S = L^T L + e^-v = R^T F^-1 R, factorised from the least overlap upwards
    for j in range(rank - 1, -1, -1):
        overlap[j] = 0.0
        total = 1.0 / odds[j]
        for k in range(j, rank):
            total += lower[k, j] * lower[k, j]
        for k in range(j + 1, learnable):
            total -= upper[k, j] * upper[k, j] / overlap[k]
        if j < learnable:
            overlap[j] = 1.0 / total
        upper[j, j] = 1.0
        for i in range(j):
            total = 0.0
            for k in range(j, rank):
                total += lower[k, j] * lower[k, i]
            for k in range(j + 1, learnable):
                total -= upper[k, j] * upper[k, i] / overlap[k]
            upper[j, i] = total * overlap[j]

    # J = L R^-1, and z = J y in the target, one off-diagonal entry after the other
    for i in range(rank):
        for j in range(i, -1, -1):
            total = lower[i, j]
            for k in range(j + 1, i + 1):
                total -= tilt[i, k] * upper[k, j]
            tilt[i, j] = total
    for i in range(work.base.shape[0]):
        monomial[i] = work.base[i]
    pair = 0
    for b in range(rank):
        for a in range(b + 1, rank):
            if tilt[a, b] != 0.0:
                for row in range(table.shear_start[pair], table.shear_start[pair + 1]):
                    value = table.shear_factor[row] * monomial[table.shear[row, 1]]
                    for _ in range(table.shear[row, 2]):
                        value *= tilt[a, b]
                    monomial[table.shear[row, 0]] += value
            pair += 1
    _hessian(table, rank, work)

    # B = (L^T L)^-1 R^T Ht R
    for i in range(rank):
        for j in range(rank):
            total = 0.0
            for k in range(j, rank):
                total += hessian[i, k] * upper[k, j]
            product[i, j] = total
    for j in range(rank):
        for i in range(rank - 1, -1, -1):
            total = 0.0
            for k in range(i, rank):
                total += upper[k, i] * product[k, j]
            for k in range(i + 1, rank):
                total -= lower[k, i] * generator[k, j]
            generator[i, j] = total
        for i in range(rank):
            for k in range(i):
                generator[i, j] -= lower[i, k] * generator[k, j]

    pace = 0.5 / hessian[clock, clock] if clock >= 0 else 1.0
    for i in range(saturated, learnable):
        out[i - saturated] = 2.0 * pace * generator[i, i]
    at = learnable - saturated
    for i in range(learnable):
        first = max(i + 1, saturated)
        for j in range(first, rank):
            total = generator[j, i]
            if j < learnable:
                total += odds[j] / odds[i] * generator[i, j]
            work.rates[j, i] = total
            for k in range(first, j):
                total += lower[j, k] * work.rates[k, i]
            out[at] = pace * total
            at += 1
    out[size] = pace


@inlined
def substitute(table: Substitution, basis: np.ndarray, buffer: np.ndarray, out: np.ndarray) -> None:
    """Compute the coefficients of ``y -> p(basis y)``."""
    rank = basis.shape[0]
    for i in range(buffer.shape[0]):
        buffer[i] = 0.0
    for row in range(table.node.shape[0]):
        parent, variable = table.node[row, 0], table.node[row, 1]
        degree, offset = table.node[row, 2], table.node[row, 3]
        if degree == 0:
            buffer[offset] = table.value[row]
        if parent < 0:
            continue
        into = table.node[parent, 3]
        first = table.first[degree]
        for i in range(table.first[degree + 1] - first):
            value = buffer[offset + i]
            if value != 0.0:
                for j in range(rank):
                    buffer[into + table.successor[first + i, j]] += basis[variable, j] * value
    for k in range(table.root.shape[0]):
        offset, first = table.root[k, 0], table.root[k, 1]
        for i in range(table.root[k, 2]):
            out[first + i] = buffer[offset + i]


_BEGIN = types.void(ADDRESS)


@separate(_BEGIN)
def begin(where: int) -> None:
    """Start and slope of a step, with respect to t; ``Ht`` is ``B`` there.

    Coefficients that are rounding are set to zero: a learned direction known to 1e-16 would
    otherwise feed a spurious rate of 1e-32 to the direction to be learned next, whose own rate is
    of order d^(1 - s).
    """
    table, work, step, _, _ = machine_at(where)
    saturated, learnable, size = active(step)
    rank, base, log_odds = work.rest.shape[0], work.base, work.log_odds[START]
    substitute(table.substitution, work.frame[START], work.buffer, base)
    floor = FLUSH * table.norm
    for i in range(base.shape[0]):
        if abs(base[i]) * np.sqrt(table.weight[i]) <= floor:
            base[i] = 0.0
        work.monomial[0, i] = base[i]
    for i in range(rank):
        work.odds[i] = np.exp(log_odds[i]) if i < learnable else 0.0
        work.rest[i] = 1.0 / (1.0 + work.odds[i])
        work.overlap[i] = work.odds[i] * work.rest[i]
    _hessian(table.derivative, rank, work)
    for i in range(rank):
        work.start_rest[i], work.start_overlap[i] = work.rest[i], work.overlap[i]
        for j in range(rank):
            work.start_hessian[i, j] = work.hessian[i, j]
    at = learnable - saturated
    for i in range(learnable):
        if i >= saturated:
            step.start[i - saturated] = log_odds[i]
            step.slope[i - saturated] = 2.0 * work.hessian[i, i]
        for j in range(max(i + 1, saturated), rank):
            work.rates[j, i] = work.hessian[j, i]
            if j < learnable:
                work.rates[j, i] *= 1.0 + work.odds[j] / work.odds[i]
            step.start[at] = 0.0
            step.slope[at] = work.rates[j, i]
            at += 1
    step.start[size], step.slope[size] = 0.0, 1.0


call_begin = call_at(_BEGIN)

_LINEARISE = types.void(ADDRESS, types.int64, types.float64)


@separate(_LINEARISE)
def linearise(where: int, clock: int, pace: float) -> None:
    """Jacobian of `rate` where `begin` was called."""
    table, work, step, _, _ = machine_at(where)
    saturated, learnable, size = active(step)
    derivative, monomial, gradient = table.derivative, work.monomial, work.gradient
    hessian, generator, change = work.start_hessian, work.generator, work.product
    odds, rest = work.odds, work.rest
    rank = rest.shape[0]
    column, pair = learnable - saturated - 1, -1
    for b in range(learnable):
        for a in range(b, rank):
            if a > b:
                pair += 1
            if a < saturated:
                continue
            # Ht changes by `change`, B by `generator`: with v_b, or with L_ab
            if a == b:
                at = b - saturated
                for i in range(rank):
                    for g in range(gradient.shape[2]):
                        exponent = derivative.gradient[rank + b, g]
                        gradient[2, i, g] = 0.5 * rest[b] * exponent * gradient[0, i, g]
            else:
                column += 1
                at = column
                for i in range(monomial.shape[1]):
                    monomial[1, i] = 0.0
                for row in range(derivative.shear_start[pair], derivative.shear_start[pair + 1]):
                    if derivative.shear[row, 2] == 1:
                        monomial[1, derivative.shear[row, 0]] += (
                            derivative.shear_factor[row] * monomial[0, derivative.shear[row, 1]]
                        )
                for i in range(rank):
                    for g in range(gradient.shape[2]):
                        value = rest[a] * monomial[1, derivative.gradient[i, g]]
                        gradient[2, i, g] = derivative.gradient_factor[i, g] * value
            for i in range(rank):
                for j in range(i + 1):
                    total = _dot(gradient, 2, i, 1, j) + _dot(gradient, 1, i, 2, j)
                    change[i, j] = total
                    change[j, i] = total
                    generator[i, j] = total
                    generator[j, i] = total
            if a > b:
                for j in range(rank):
                    generator[b, j] -= rest[a] * hessian[a, j]
                    generator[a, j] -= hessian[b, j]
                    generator[j, b] += (1.0 - rest[a]) * hessian[j, a]
            relative = 0.0
            if clock >= 0:
                relative = -change[clock, clock] / hessian[clock, clock]
            step.jacobian[size, at] = pace * relative
            unknown = 0
            for i in range(saturated, learnable):
                total = 2.0 * generator[i, i] + step.slope[unknown] * relative
                step.jacobian[unknown, at] = pace * total
                unknown += 1
            for i in range(learnable):
                for j in range(max(i + 1, saturated), rank):
                    total = generator[j, i]
                    if j < learnable:
                        opposite = generator[i, j]
                        if a == b == j:
                            opposite += hessian[i, j]
                        elif a == b == i:
                            opposite -= hessian[i, j]
                        total += odds[j] / odds[i] * opposite
                    if a > b and a == j and b > i and b >= saturated:
                        total += work.rates[b, i]  # L' = L D: L adds rows of D
                    total += step.slope[unknown] * relative
                    step.jacobian[unknown, at] = pace * total
                    unknown += 1


call_linearise = call_at(_LINEARISE)
