"""Compiled integrator of the fast-link flow: runs, step control, observables, crossings."""

from __future__ import annotations

import numpy as np
from numba import njit

from ._kernels import (
    HESSIAN,
    OVERLAP,
    REST,
    SATURATED,
    STEP,
    Active,
    Scratch,
    eigenframe,
    jacobian,
    rate,
)
from ._linear import ROUNDING, compiled, complete, narrow, orthogonalise, trial
from ._observe import coefficients, observe, turn
from ._rodas import (
    END,
    KEPT_END,
    PACE_GRADIENT,
    POINT,
    RIGHT,
    SCALE,
    SLOPE,
    STAGES,
    START,
    Step,
    fraction,
    interpolate,
    keep_interpolant,
    rosenbrock,
)
from ._tables import Tables

__all__ = ["integrate_runs"]

CONVERGED, CENSORED, FAILED = 0, 1, 3
HALF = 1  # of the thresholds, the one that ends a stage
# Local errors are held this much below rtol, so that a whole run stays within it.
CAUTION = 1.0
NEARLY_SATURATED = 32.0  # 1 - overlap is 1e-14
# However little an overlap feels them, log-odds and tilts stay this accurate.
COARSE = 0.1
SAFETY, SHRINK, GROW = 0.9, 0.15, 8.0
LEARNED = 0.8
MAX_STEPS = 20_000


@compiled
def _start(initial: np.ndarray, frame: np.ndarray, log_odds: np.ndarray, size: np.ndarray) -> int:
    """Find eigenframe and log-odds of ``M0 M0^T``; returns how many overlaps are not zero."""
    rank, students = initial.shape
    orthogonalise(initial, students)
    largest = 0.0
    for i in range(students):
        size[i] = 0.0
        for k in range(rank):
            size[i] += initial[k, i] * initial[k, i]
        largest = max(largest, size[i])
    learnable = 0
    for i in range(min(rank, students)):
        best = 0
        for j in range(1, students):
            if size[j] > size[best]:
                best = j
        if size[best] <= (rank * ROUNDING) ** 2 * largest:
            break
        rest = max(1.0 - size[best], np.exp(-SATURATED))
        log_odds[i] = min(np.log(size[best] / rest), SATURATED)
        scale = 1.0 / np.sqrt(size[best])
        for k in range(rank):
            frame[k, i] = initial[k, best] * scale
        size[best] = -1.0
        learnable += 1
    complete(frame, learnable)
    return learnable


@compiled
def _pick_clock(learnable: int, work: Scratch) -> int:
    """Return the direction not yet learned that grows fastest, or -1."""
    clock, fastest = -1, 0.0
    for i in range(learnable):
        if work.diagonal[OVERLAP, i] < LEARNED and work.square[HESSIAN, i, i] > fastest:
            clock, fastest = i, work.square[HESSIAN, i, i]
    return clock


@compiled
def _error(
    step: Step,
    active: Active,
    rank: int,
    h_time: float,
    clock_time: float,
    hessian: np.ndarray,
    rest: np.ndarray,
    tolerance: float,
) -> float:
    """Largest local error in units of what rtol allows.

    Log-odds count as long as the overlap feels them.  A tilt ``e`` of direction i towards j lasts
    for the step and changes ``v_j`` by up to ``2 h (|H_ij| e + H_ii e^2)``: that, not ``e`` alone,
    has to be small, and ever less once j is learned too.
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
            lasting = 2.0 * h_time * (abs(hessian[i, j]) + hessian[i, i] * tilt)
            worst = max(worst, tilt * weight * max(1.0, lasting))
            at += 1
    return worst / tolerance


@compiled
def _cross(
    table: Tables,
    base: np.ndarray,
    frame: np.ndarray,
    active: Active,
    clock: int,
    pace: float,
    h: float,
    direction: int,
    threshold: float,
    step: Step,
    work: Scratch,
    log_odds: np.ndarray,
    other_base: np.ndarray,
    other_frame: np.ndarray,
) -> float:
    """Time within the step at which log-odds reach a threshold.

    Found on the interpolant, then made as accurate as the steps: a step that ends there, and
    Newton's correction with the slope there.  Overwrites the step, but not its interpolant.
    """
    saturated, learnable, size = active
    state = step.state
    low, high, theta = 0.0, 1.0, 1.0
    eigenframe(state[KEPT_END], active, work, log_odds)
    f_high = log_odds[direction] - threshold
    f_low = state[START, direction - saturated] - threshold
    for iteration in range(50):
        theta = trial(low, high, f_low, f_high, iteration)
        interpolate(state, size, theta)
        eigenframe(state[POINT], active, work, log_odds)
        value = log_odds[direction] - threshold
        if abs(value) < 1e-6 or high - low < 1e-12:
            break
        low, high, f_low, f_high = narrow(low, high, f_low, f_high, theta, value)
    for _ in range(3):
        elapsed = rosenbrock(table.derivative, base, active, clock, pace, theta * h, step, work)
        eigenframe(state[END], active, work, log_odds)
        turn(frame, work, other_frame)
        coefficients(table, other_frame, work, other_base)
        for i in range(size):
            state[POINT, i] = 0.0
        for i in range(saturated, learnable):
            state[POINT, i - saturated] = log_odds[i]
        rate(
            table.derivative,
            other_base,
            state[POINT],
            active,
            -1,
            work,
            state[RIGHT],
        )
        missing = threshold - log_odds[direction]
        time = elapsed + missing / state[RIGHT, direction - saturated]
        if abs(missing) < 1e-5:
            break
        theta = fraction(step.time_dense, time)
    return time


@compiled
def _run(
    table: Tables,
    time: np.ndarray,
    thresholds: np.ndarray,
    rtol: float,
    learnable: int,
    frames: np.ndarray,
    vectors: np.ndarray,
    bases: np.ndarray,
    step: Step,
    work: Scratch,
    overlap: np.ndarray,
    energy: np.ndarray,
    loss: np.ndarray,
    crossing: np.ndarray,
    stage_duration: np.ndarray,
    counts: np.ndarray,
) -> bool:
    """Integrate one run from ``frames[0]`` and ``vectors[0]``; returns whether it succeeded."""
    frame, next_frame, other_frame, hessian = frames[0], frames[1], frames[2], frames[3]
    log_odds, other_log_odds, rest = vectors[0], vectors[1], vectors[2]
    base, other_base = bases[0], bases[1]
    state, square = step.state, work.square
    rank = frame.shape[0]
    for i in range(learnable):
        for level in range(thresholds.shape[0]):
            if log_odds[i] >= thresholds[level]:
                crossing[i, level] = 0.0
        if crossing[i, HALF] == 0.0:
            stage_duration[i] = 0.0

    last, row = time[-1], 0
    now, remainder, since = 0.0, 0.0, 0.0
    clock, h, previous, attempts = -1, -1.0, 1.0, 0
    while row < time.shape[0]:
        saturated = 0
        while saturated < learnable and log_odds[saturated] >= NEARLY_SATURATED:
            log_odds[saturated] = SATURATED
            saturated += 1
        size = learnable - saturated
        for i in range(learnable):
            size += rank - max(i + 1, saturated)
        active = Active(saturated, learnable, size)
        for i in range(size):
            state[START, i] = 0.0
        for i in range(saturated, learnable):
            state[START, i - saturated] = log_odds[i]
        coefficients(table, frame, work, base)
        rate(
            table.derivative,
            base,
            state[START],
            active,
            -1,
            work,
            state[SLOPE],
        )
        for i in range(rank):
            rest[i] = work.diagonal[REST, i]
            for j in range(rank):
                hessian[i, j] = square[HESSIAN, i, j]
        h_time = h if clock < 0 else 0.5 * h / hessian[clock, clock]
        clock = _pick_clock(learnable, work)
        pace = 0.5 / hessian[clock, clock] if clock >= 0 else 1.0
        largest = 0.0
        for i in range(size):
            largest = max(largest, abs(state[SLOPE, i]))
            state[SLOPE, i] *= pace
        if row == 0 or largest == 0.0:
            while row < time.shape[0] and (row == 0 or largest == 0.0):
                loss[row] = observe(
                    table,
                    state[START],
                    active,
                    frame,
                    work,
                    other_log_odds,
                    overlap[row],
                    energy[row],
                )
                row += 1
            continue
        for i in range(rank):
            for j in range(i):
                square[STEP, i, j] *= pace
        jacobian(
            table.derivative,
            active,
            clock,
            pace,
            state[SLOPE],
            work,
            step.jacobian,
            state[PACE_GRADIENT],
        )
        counts[1] += 1
        at = learnable - saturated
        for i in range(at):
            state[SCALE, i] = 1.0
        for i in range(learnable):
            for j in range(max(i + 1, saturated), rank):
                state[SCALE, at] = 1.0
                if 0.0 < hessian[j, j] < hessian[i, i]:
                    state[SCALE, at] = np.sqrt(hessian[j, j] / hessian[i, i])
                at += 1
        if h < 0.0:
            h_time = 0.05 / largest
        h = h_time / pace
        if clock < 0:
            h = min(h, 1.000001 * (last - now))

        rejected = False
        while True:
            if attempts >= MAX_STEPS:
                return False
            elapsed = rosenbrock(table.derivative, base, active, clock, pace, h, step, work)
            attempts += 1
            counts[1] += STAGES - 1
            error = 1e10
            if elapsed > 0.0:
                error = _error(
                    step,
                    active,
                    rank,
                    h * pace,
                    since + elapsed,
                    hessian,
                    rest,
                    CAUTION * rtol,
                )
            if not error < 1e10:
                error = 1e10
            factor = SAFETY * max(error, 1e-8) ** -0.2
            if error <= 1.0:
                break
            rejected = True
            h *= max(SHRINK, min(factor, 0.9))
        if rejected:
            factor = min(factor, 1.0)
        else:
            factor *= (max(error, 1e-8) / previous) ** -0.08  # proportional-integral control
        previous = max(error, 1e-4)
        counts[0] += 1
        keep_interpolant(step, size, elapsed)

        while row < time.shape[0]:
            wanted = (time[row] - now) - remainder
            if wanted > elapsed:
                break
            interpolate(state, size, fraction(step.time_dense, wanted))
            loss[row] = observe(
                table,
                state[POINT],
                active,
                frame,
                work,
                other_log_odds,
                overlap[row],
                energy[row],
            )
            row += 1

        eigenframe(state[END], active, work, log_odds)
        turn(frame, work, next_frame)
        for i in range(saturated, learnable):
            for level in range(thresholds.shape[0]):
                if np.isnan(crossing[i, level]) and log_odds[i] >= thresholds[level]:
                    after = _cross(
                        table,
                        base,
                        frame,
                        active,
                        clock,
                        pace,
                        h,
                        i,
                        thresholds[level],
                        step,
                        work,
                        other_log_odds,
                        other_base,
                        other_frame,
                    )
                    moment = now + (remainder + after)
                    if moment <= last:
                        crossing[i, level] = moment
                        if level == HALF:
                            stage_duration[i] = since + after
                            since = -after
        since += elapsed
        moved = remainder + elapsed
        total = now + moved
        remainder = moved - (total - now)
        now = total
        for i in range(rank):
            for j in range(rank):
                frame[i, j] = next_frame[i, j]
        h *= min(max(factor, SHRINK), GROW)
    return True


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def integrate_runs(
    table: Tables,
    initial: np.ndarray,
    time: np.ndarray,
    thresholds: np.ndarray,
    rtol: float,
    work: Scratch,
    overlap: np.ndarray,
    energy: np.ndarray,
    loss: np.ndarray,
    crossing: np.ndarray,
    stage_duration: np.ndarray,
    status: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Integrate runs one after another; every output array has the run as its first axis.

    Parameters
    ----------
    table : Tables
        Of the target the flow climbs.
    initial : (runs, rank, columns) float64
        ``M0``, or any ``N`` with ``N N^T = M0 M0^T``.  Overwritten.
    time : (n,) float64
        Increasing, from 0.
    thresholds : (3,) float64
        Log-odds of the overlaps whose crossing times are wanted; the second one ends a stage.
    rtol : float
    work : Scratch
    overlap, energy, loss, crossing, stage_duration, status, counts
        Outputs, filled with NaN by the caller; `counts` (steps, right-hand sides) with 0.
    """
    runs, rank, students = initial.shape
    frames = np.zeros((4, rank, rank))
    vectors = np.zeros((3, max(rank, students)))
    bases = np.zeros((2, table.weight.shape[0]))
    size = rank * (rank + 1) // 2
    step = Step(
        np.zeros((11, size)),
        np.zeros((size, size)),
        np.zeros((size, size)),
        np.zeros(size, dtype=np.int64),
        np.zeros((STAGES, size)),
        np.zeros(STAGES),
        np.zeros(4),
    )
    for run in range(runs):
        learnable = _start(initial[run], frames[0], vectors[0], vectors[1])
        done = _run(
            table,
            time,
            thresholds,
            rtol,
            learnable,
            frames,
            vectors,
            bases,
            step,
            work,
            overlap[run],
            energy[run],
            loss[run],
            crossing[run],
            stage_duration[run],
            counts[run],
        )
        status[run] = CONVERGED if done else FAILED
        for i in range(min(rank, students)):
            if done and np.isnan(crossing[run, i, thresholds.shape[0] - 1]):
                status[run] = CENSORED
