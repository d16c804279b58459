"""What decides on the next step: clock, state, stiffness and the size of errors."""

from __future__ import annotations

import numpy as np

from .compile import inlined
from .state import (
    DENSE_0,
    END,
    HESSIAN,
    KEPT_END,
    OVERLAP,
    RIGHT,
    SATURATED,
    SLOPE,
    START,
    STEP,
    Active,
    Scratch,
    Step,
)
from .tableaux import DENSE, STAGES

NEARLY_SATURATED = 32.0  # 1 - overlap is 1e-14
# However little an overlap feels them, log-odds and tilts stay this accurate.
COARSE = 0.1
# Local errors of one step may be this much larger than rtol: those of a run hardly add up, as most
# are made near its few escapes.
LENIENT = 2.0
# Tilts are accurate relative to the couplings between directions, but for this factor and for
# couplings this far below the rates.
LOOSE, FAINT = 0.05, 1e-6
# The clock is a direction until its last level, at log-odds of 2.2, is behind it.
LEARNED = 0.91


@inlined
def pick_clock(learnable: int, work: Scratch) -> int:
    """Return the direction not yet learned that grows fastest, or -1."""
    clock, fastest = -1, 0.0
    for i in range(learnable):
        if work.diagonal[OVERLAP, i] < LEARNED and work.square[HESSIAN, i, i] > fastest:
            clock, fastest = i, work.square[HESSIAN, i, i]
    return clock


@inlined
def activate(learnable: int, rank: int, log_odds: np.ndarray) -> Active:
    """Take directions with overlap 1 out of the state."""
    saturated = 0
    while saturated < learnable and log_odds[saturated] >= NEARLY_SATURATED:
        log_odds[saturated] = SATURATED
        saturated += 1
    size = learnable - saturated
    for i in range(learnable):
        size += rank - max(i + 1, saturated)
    return Active(saturated, learnable, size)


@inlined
def differentiate(active: Active, pace: float, work: Scratch, state: np.ndarray) -> float:
    """Start and slope of a step, from where `begin` was called; returns the largest rate in t."""
    saturated, learnable = active.saturated, active.learnable
    rank = work.rest.shape[0]
    largest = 0.0
    at = 0
    for i in range(saturated, learnable):
        state[START, at] = work.log_odds[0, i]
        state[SLOPE, at] = 2.0 * work.hessian[i, i]
        at += 1
    for i in range(learnable):
        for j in range(max(i + 1, saturated), rank):
            state[START, at] = 0.0
            state[SLOPE, at] = work.square[STEP, j, i]
            at += 1
    for k in range(at):
        largest = max(largest, abs(state[SLOPE, k]))
        state[SLOPE, k] *= pace
    return largest


@inlined
def stiffness(active: Active, pace: float, hessian: np.ndarray) -> float:
    """How fast tilts relax in the time of the clock."""
    fastest = 0.0
    if active.size > active.learnable - active.saturated:
        for i in range(active.learnable):
            fastest = max(fastest, abs(hessian[i, i]))
    return 2.0 * pace * fastest


@inlined
def attracts(active: Active, rank: int, slow: float, step: Step, work: Scratch) -> bool:
    """Whether no tilt of a learned direction towards another grows faster than `slow`.

    An implicit step over a longer time would end at the unstable subspace instead of leaving it.
    Near there the Jacobian of these tilts is symmetric: ``slow - J`` has a Cholesky factor.
    """
    matrix, chosen, overlap = step.matrix, step.pivot, work.overlap
    size, at = 0, active.learnable - active.saturated
    for i in range(active.learnable):
        for j in range(max(i + 1, active.saturated), rank):
            if overlap[i] >= LEARNED and overlap[j] < LEARNED:
                chosen[size] = at
                size += 1
            at += 1
    for i in range(size):
        for j in range(i + 1):
            total = -step.jacobian[chosen[i], chosen[j]]
            if i == j:
                total += slow
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i > j:
                matrix[i, j] = total / matrix[j, j]
            elif total > 0.0:
                matrix[i, i] = np.sqrt(total)
            else:
                return False
    return True


@inlined
def local_error(
    step: Step,
    active: Active,
    rank: int,
    h_time: float,
    clock_time: float,
    hessian: np.ndarray,
    rest: np.ndarray,
    explicit: bool,
    tolerance: float,
) -> float:
    """Largest local error in units of what rtol allows.

    Log-odds count as long as the overlap feels them.  A tilt ``e`` of direction i towards j lasts
    for the step and changes ``v_j`` by up to ``2 h (|H_ij| e + H_ii e^2)``: that, not ``e`` alone,
    has to be small, and ever less once j is learned too.  Where nothing is stiff, tilts have to be
    accurate relative to ``H_ij``, which a critical subspace does not have, until i is learned and
    as long as they grow: what is left of them may grow again and decide when j is learned.
    """
    saturated, learnable = active.saturated, active.learnable
    worst = abs(step.time[7]) / clock_time
    least = tolerance / COARSE
    for i in range(saturated, learnable):
        weight = max(min(1.0, 10.0 * rest[i]), least)
        worst = max(worst, abs(step.stages[7, i - saturated]) * weight)
    at = learnable - saturated
    for i in range(learnable):
        for j in range(max(i + 1, saturated), rank):
            tilt = abs(step.stages[7, at])
            weight = max(rest[j], least)
            lasting = 1.0
            if j < learnable:
                lasting = 2.0 * h_time * (abs(hessian[i, j]) + hessian[i, i] * tilt)
                if explicit and (rest[i] > 1.0 - LEARNED or step.state[RIGHT, at] > 0.0):
                    coupling = abs(hessian[i, j]) / (abs(hessian[i, i]) + abs(hessian[j, j]))
                    lasting = max(lasting, LOOSE / max(coupling, FAINT))
            worst = max(worst, tilt * weight * max(1.0, lasting))
            at += 1
    return worst / (LENIENT * tolerance)


@inlined
def keep_interpolant(step: Step, size: int, elapsed: float, method: int) -> None:
    for i in range(size):
        step.state[KEPT_END, i] = step.state[END, i]
    for row in range(3):
        for i in range(size):
            total = 0.0
            for j in range(STAGES):
                total += DENSE[method, row, j] * step.stages[j, i]
            step.state[DENSE_0 + row, i] = total
        total = 0.0
        for j in range(STAGES):
            total += DENSE[method, row, j] * step.time[j]
        step.time_dense[row] = total
    step.time_dense[3] = elapsed
