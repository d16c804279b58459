"""What decides on the next step: clock, state, stiffness and the size of errors."""

from __future__ import annotations

import numpy as np

from .compile import inlined
from .state import SATURATED, START, Scratch, Step, active
from .steps import EXPLICIT
from .tableaux import STAGES

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
        if work.start_overlap[i] < LEARNED and work.start_hessian[i, i] > fastest:
            clock, fastest = i, work.start_hessian[i, i]
    return clock


@inlined
def activate(learnable: int, rank: int, work: Scratch, step: Step) -> None:
    """Take directions with overlap 1 out of the state."""
    saturated = 0
    while saturated < learnable and work.log_odds[START, saturated] >= NEARLY_SATURATED:
        work.log_odds[START, saturated] = SATURATED
        saturated += 1
    size = learnable - saturated
    for i in range(learnable):
        size += rank - max(i + 1, saturated)
    step.active[0], step.active[1], step.active[2] = saturated, learnable, size


@inlined
def stiffness(work: Scratch, step: Step) -> float:
    """How fast tilts relax in t."""
    saturated, learnable, size = active(step)
    fastest = 0.0
    if size > learnable - saturated:
        for i in range(learnable):
            fastest = max(fastest, 2.0 * abs(work.start_hessian[i, i]))
    return fastest


@inlined
def attracts(slow: float, step: Step, work: Scratch) -> bool:
    """Whether no tilt of a learned direction towards another grows faster than `slow`.

    An implicit step over a longer time would end at the unstable subspace instead of leaving it.
    Near there the Jacobian of these tilts is symmetric: ``slow - J`` has a Cholesky factor.
    """
    saturated, learnable, _ = active(step)
    matrix, chosen, overlap = step.matrix, step.pivot, work.start_overlap
    size, at = 0, learnable - saturated
    for i in range(learnable):
        for j in range(max(i + 1, saturated), overlap.shape[0]):
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
    step: Step, work: Scratch, h_time: float, passed: float, method: int, tolerance: float
) -> float:
    """Largest local error in units of what rtol allows; `passed` is the time that counts.

    Log-odds count as long as the overlap feels them.  A tilt ``e`` of direction i towards j lasts
    for the step and changes ``v_j`` by up to ``2 h (|H_ij| e + H_ii e^2)``: that, not ``e`` alone,
    has to be small, and ever less once j is learned too.  Where nothing is stiff, tilts have to be
    accurate relative to ``H_ij``, which a critical subspace does not have, until i is learned and
    as long as they grow: what is left of them may grow again and decide when j is learned.
    """
    saturated, learnable, size = active(step)
    hessian, rest, error = work.start_hessian, work.start_rest, step.stages[STAGES - 1]
    worst = abs(error[size]) / passed
    least = tolerance / COARSE
    at = learnable - saturated
    for i in range(learnable):
        if i >= saturated:
            weight = max(min(1.0, 10.0 * rest[i]), least)
            worst = max(worst, abs(error[i - saturated]) * weight)
        for j in range(max(i + 1, saturated), rest.shape[0]):
            tilt = abs(error[at])
            lasting = 1.0
            if j < learnable:
                lasting = 2.0 * h_time * (abs(hessian[i, j]) + hessian[i, i] * tilt)
                if method == EXPLICIT and (rest[i] > 1.0 - LEARNED or step.right[at] > 0.0):
                    coupling = abs(hessian[i, j]) / (abs(hessian[i, i]) + abs(hessian[j, j]))
                    lasting = max(lasting, LOOSE / max(coupling, FAINT))
            worst = max(worst, tilt * max(rest[j], least) * max(1.0, lasting))
            at += 1
    return worst / (LENIENT * tolerance)
