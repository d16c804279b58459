"""Compiled integrator of the fast-link flow: Rosenbrock steps, dense output, crossings.

The method is Rodas5P (Steinebach 2023, BIT 63:27, doi 10.1007/s10543-023-00967-x): order 5(4),
stiffly accurate, with a fourth-order interpolant.  On a plateau the learned directions relax
10^24 times faster than the next one grows, and the coupling between the two is not only the
decay ``-H_11``: how ``H`` itself changes when the learned subspace tilts counts as much and can
have either sign.  An implicit method with the exact Jacobian needs to know nothing of this;
exponentials of a frozen ``H`` (Lie-group schemes) iterate it to a fixed point that may repel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ._kernels import (
    COLUMNS,
    HESSIAN,
    METRIC,
    OVERLAP,
    REST,
    ROUNDING,
    SATURATED,
    STEP,
    Scratch,
    average,
    compiled,
    complete,
    eigenframe,
    jacobian,
    orthogonalise,
    rate,
    substitute,
)
from ._tables import Derivative, Tables

__all__ = ["integrate_runs"]

CONVERGED, CENSORED, FAILED = 0, 1, 3
HALF = 1  # of the thresholds, the one that ends a stage

GAMMA = 0.21193756319429014
A = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [3.0, 0.0, 0.0, 0.0, 0.0],
        [2.849394379747939, 0.45842242204463923, 0.0, 0.0, 0.0],
        [-6.954028509809101, 2.489845061869568, -10.358996098473584, 0.0, 0.0],
        [
            2.8029986275628964,
            0.5072464736228206,
            -0.3988312541770524,
            -0.04721187230404641,
            0.0,
        ],
        [
            -7.502846399306121,
            2.561846144803919,
            -11.627539656261098,
            -0.18268767659942256,
            0.030198172008377946,
        ],
    ]
)
C = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [-14.155112264123755, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [-17.97296035885952, -2.859693295451294, 0.0, 0.0, 0.0, 0.0, 0.0],
        [147.12150275711716, -1.41221402718213, 71.68940251302358, 0.0, 0.0, 0.0, 0.0],
        [
            165.43517024871676,
            -0.4592823456491126,
            42.90938336958603,
            -5.961986721573306,
            0.0,
            0.0,
            0.0,
        ],
        [
            24.854864614690072,
            -3.0009227002832186,
            47.4931110020768,
            5.5814197821558125,
            -0.6610691825249471,
            0.0,
            0.0,
        ],
        [
            30.91273214028599,
            -3.1208243349937974,
            77.79954646070892,
            34.28646028294783,
            -19.097331116725623,
            -28.087943162872662,
            0.0,
        ],
        [
            37.80277123390563,
            -3.2571969029072276,
            112.26918849496327,
            66.9347231244047,
            -40.06618937091002,
            -54.66780262877968,
            -9.48861652309627,
        ],
    ]
)
DENSE = np.array(
    [
        [
            25.948786856663858,
            -2.5579724845846235,
            10.433815404888879,
            -2.3679251022685204,
            0.524948541321073,
            1.1241088310450404,
            0.4272876194431874,
            -0.17202221070155493,
        ],
        [
            -9.91568850695171,
            -0.9689944594115154,
            3.0438037242978453,
            -24.495224566215796,
            20.176138334709044,
            15.98066361424651,
            -6.789040303419874,
            -6.710236069923372,
        ],
        [
            11.419903575922262,
            2.8879645146136994,
            72.92137995996029,
            80.12511834622643,
            -52.072871366152654,
            -59.78993625266729,
            -0.15582684282751913,
            4.883087185713722,
        ],
    ]
)
STAGES = 8
# Coefficients below this multiple of rounding, relative to the norm, are rounding themselves.
FLUSH = 64.0
# Local errors are held this much below rtol, so that a whole run stays within it.
CAUTION = 1.0
NEARLY_SATURATED = 32.0  # 1 - overlap is 1e-14
# However little an overlap feels them, log-odds and tilts stay this accurate.
COARSE = 0.1
SAFETY, SHRINK, GROW = 0.9, 0.15, 8.0
LEARNED = 0.8
MAX_STEPS = 20_000


# Rows of Step.state.
START, SLOPE, POINT, RIGHT, END, SCALE, PACE_GRADIENT, KEPT_END, DENSE_0, DENSE_1, DENSE_2 = range(
    11
)


class Step(NamedTuple):
    """One step.

    Attributes
    ----------
    state : (11, size)
        Start and its slope, a stage's point and right-hand side, the end, scales of the unknowns,
        the gradient of the pace; the accepted end and three coefficients of the interpolant.
    jacobian, matrix : (size, size)
    pivot : (size,) int64
    stages : (8, size)
    time : (8,)
        Stages of the time.
    time_dense : (4,)
        Its interpolant, and the time the step takes.
    """

    state: np.ndarray
    jacobian: np.ndarray
    matrix: np.ndarray
    pivot: np.ndarray
    stages: np.ndarray
    time: np.ndarray
    time_dense: np.ndarray


@compiled
def _factorise(matrix: np.ndarray, pivot: np.ndarray, size: int) -> None:
    for k in range(size):
        best = k
        for i in range(k + 1, size):
            if abs(matrix[i, k]) > abs(matrix[best, k]):
                best = i
        pivot[k] = best
        if best != k:
            for j in range(size):
                matrix[k, j], matrix[best, j] = matrix[best, j], matrix[k, j]
        inverse = 1.0 / matrix[k, k]
        for i in range(k + 1, size):
            factor = matrix[i, k] * inverse
            if factor != 0.0:
                matrix[i, k] = factor
                for j in range(k + 1, size):
                    matrix[i, j] -= factor * matrix[k, j]
            else:
                matrix[i, k] = 0.0


@compiled
def _solve(matrix: np.ndarray, pivot: np.ndarray, right: np.ndarray, size: int) -> None:
    for k in range(size):
        best = pivot[k]
        if best != k:
            right[k], right[best] = right[best], right[k]
    for i in range(size):
        total = right[i]
        for j in range(i):
            total -= matrix[i, j] * right[j]
        right[i] = total
    for i in range(size - 1, -1, -1):
        total = right[i]
        for j in range(i + 1, size):
            total -= matrix[i, j] * right[j]
        right[i] = total / matrix[i, i]


@compiled
def _rosenbrock(
    table: Derivative,
    base: np.ndarray,
    size: int,
    saturated: int,
    learnable: int,
    clock: int,
    pace: float,
    h: float,
    step: Step,
    work: Scratch,
) -> float:
    """One Rodas5P step of size `h` from the start, where L = I; returns the time it takes.

    Unknowns are scaled, so that pivoting compares like with like.
    """
    state, stages, times = step.state, step.stages, step.time
    diagonal, inverse = 1.0 / (GAMMA * h), 1.0 / h
    for i in range(size):
        for j in range(size):
            step.matrix[i, j] = -step.jacobian[i, j] * (state[SCALE, j] / state[SCALE, i])
        step.matrix[i, i] += diagonal
    _factorise(step.matrix, step.pivot, size)
    for stage in range(STAGES):
        time = pace
        if stage == 0:
            for i in range(size):
                state[RIGHT, i] = state[SLOPE, i]
        else:
            for i in range(size):
                if stage < 6:
                    total = state[START, i]
                    for j in range(stage):
                        total += A[stage, j] * stages[j, i]
                    state[POINT, i] = total
                else:
                    state[POINT, i] += stages[stage - 1, i]
            time = rate(
                table, base, state[POINT], size, saturated, learnable, clock, work, state[RIGHT]
            )
        for j in range(stage):
            weight = C[stage, j] * inverse
            time += weight * times[j]
            for i in range(size):
                state[RIGHT, i] += weight * stages[j, i]
        for i in range(size):
            state[RIGHT, i] /= state[SCALE, i]
        _solve(step.matrix, step.pivot, state[RIGHT], size)
        for i in range(size):
            stages[stage, i] = state[RIGHT, i] * state[SCALE, i]
            time += state[PACE_GRADIENT, i] * stages[stage, i]
        times[stage] = time * GAMMA * h
    elapsed = times[5] + times[6] + times[7]
    for j in range(5):
        elapsed += A[5, j] * times[j]
    for i in range(size):
        state[END, i] = state[POINT, i] + stages[7, i]
    return elapsed


@compiled
def _keep_interpolant(step: Step, size: int, elapsed: float) -> None:
    for i in range(size):
        step.state[KEPT_END, i] = step.state[END, i]
    for row in range(3):
        for i in range(size):
            total = 0.0
            for j in range(STAGES):
                total += DENSE[row, j] * step.stages[j, i]
            step.state[DENSE_0 + row, i] = total
        total = 0.0
        for j in range(STAGES):
            total += DENSE[row, j] * step.time[j]
        step.time_dense[row] = total
    step.time_dense[3] = elapsed


@compiled
def _interpolate(state: np.ndarray, size: int, theta: float) -> None:
    """Put the state at a fraction of the step into POINT."""
    rest = 1.0 - theta
    for i in range(size):
        inner = state[DENSE_1, i] + theta * state[DENSE_2, i]
        inner = state[KEPT_END, i] + rest * (state[DENSE_0, i] + theta * inner)
        state[POINT, i] = rest * state[START, i] + theta * inner


@compiled
def _fraction(dense: np.ndarray, wanted: float) -> float:
    """Where in the step a time lies: regula falsi (Illinois), then bisection."""
    if wanted >= dense[3]:
        return 1.0
    low, high = 0.0, 1.0
    f_low, f_high = -wanted, dense[3] - wanted
    theta = 0.0
    for iteration in range(80):
        theta = low - f_low * (high - low) / (f_high - f_low)
        if iteration > 20 or not low < theta < high:
            theta = 0.5 * (low + high)
        inner = dense[0] + theta * (dense[1] + theta * dense[2])
        value = theta * (dense[3] + (1.0 - theta) * inner) - wanted
        if abs(value) <= 1e-13 * wanted or high - low < 1e-15:
            break
        if value < 0.0:
            low, f_low = theta, value
            f_high *= 0.5
        else:
            high, f_high = theta, value
            f_low *= 0.5
    return theta


@compiled
def _turn(frame: np.ndarray, work: Scratch, out: np.ndarray) -> None:
    """Put the frame of the eigenvectors, ``frame @ COLUMNS``, into `out`."""
    rank = frame.shape[0]
    for i in range(rank):
        for j in range(rank):
            total = 0.0
            for k in range(rank):
                total += frame[i, k] * work.square[COLUMNS, k, j]
            work.square[METRIC, i, j] = total
    for i in range(rank):
        for j in range(rank):
            out[i, j] = work.square[METRIC, i, j]
    complete(out, rank)


@compiled
def _coefficients(table: Tables, frame: np.ndarray, work: Scratch, base: np.ndarray) -> None:
    """Target in a frame, entries that are rounding set to zero.

    A learned direction known to 1e-16 would otherwise feed a spurious rate of 1e-32 to the
    direction to be learned next, whose own rate is of order d^(1 - s).
    """
    substitute(table.substitution, frame, work.buffer, base)
    floor = FLUSH * ROUNDING * table.norm
    for i in range(base.shape[0]):
        if abs(base[i]) <= floor:
            base[i] = 0.0


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
def _observe(
    table: Tables,
    x: np.ndarray,
    size: int,
    saturated: int,
    learnable: int,
    frame: np.ndarray,
    work: Scratch,
    log_odds: np.ndarray,
    overlap: np.ndarray,
    energy: np.ndarray,
) -> float:
    """Overlaps and mode energies at a state; returns the loss."""
    rank = frame.shape[0]
    eigenframe(x, size, saturated, learnable, work, log_odds)
    for i in range(rank):
        overlap[i] = 1.0 / (1.0 + np.exp(-log_odds[i])) if i < learnable else 0.0
    gram, vectors = work.square[HESSIAN], work.square[METRIC]
    for i in range(rank):
        for j in range(rank):
            total = 0.0
            for k in range(rank):
                total += frame[i, k] * work.square[COLUMNS, k, j]
            vectors[i, j] = total
    for i in range(rank):
        for j in range(i + 1):
            total = 0.0
            for k in range(learnable):
                total += vectors[i, k] * vectors[j, k] * overlap[k]
            gram[i, j] = total
            gram[j, i] = total
    explained = average(table, gram, work.buffer, work.monomial[1], energy)
    return max(0.5 * (table.norm * table.norm - explained), 0.0)


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
    saturated: int,
    learnable: int,
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
    size: int,
    saturated: int,
    learnable: int,
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
    state = step.state
    low, high, theta = 0.0, 1.0, 1.0
    eigenframe(state[KEPT_END], size, saturated, learnable, work, log_odds)
    f_high = log_odds[direction] - threshold
    f_low = state[START, direction - saturated] - threshold
    for iteration in range(50):
        theta = low - f_low * (high - low) / (f_high - f_low)
        if iteration > 20 or not low < theta < high:
            theta = 0.5 * (low + high)
        _interpolate(state, size, theta)
        eigenframe(state[POINT], size, saturated, learnable, work, log_odds)
        value = log_odds[direction] - threshold
        if abs(value) < 1e-6 or high - low < 1e-12:
            break
        if value < 0.0:
            low, f_low = theta, value
            f_high *= 0.5
        else:
            high, f_high = theta, value
            f_low *= 0.5
    for _ in range(3):
        elapsed = _rosenbrock(
            table.derivative, base, size, saturated, learnable, clock, pace, theta * h, step, work
        )
        eigenframe(state[END], size, saturated, learnable, work, log_odds)
        _turn(frame, work, other_frame)
        _coefficients(table, other_frame, work, other_base)
        for i in range(size):
            state[POINT, i] = 0.0
        for i in range(saturated, learnable):
            state[POINT, i - saturated] = log_odds[i]
        rate(
            table.derivative,
            other_base,
            state[POINT],
            size,
            saturated,
            learnable,
            -1,
            work,
            state[RIGHT],
        )
        missing = threshold - log_odds[direction]
        time = elapsed + missing / state[RIGHT, direction - saturated]
        if abs(missing) < 1e-5:
            break
        theta = _fraction(step.time_dense, time)
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
        for i in range(size):
            state[START, i] = 0.0
        for i in range(saturated, learnable):
            state[START, i - saturated] = log_odds[i]
        _coefficients(table, frame, work, base)
        rate(
            table.derivative,
            base,
            state[START],
            size,
            saturated,
            learnable,
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
                loss[row] = _observe(
                    table,
                    state[START],
                    size,
                    saturated,
                    learnable,
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
            saturated,
            learnable,
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
            elapsed = _rosenbrock(
                table.derivative, base, size, saturated, learnable, clock, pace, h, step, work
            )
            attempts += 1
            counts[1] += STAGES - 1
            error = 1e10
            if elapsed > 0.0:
                error = _error(
                    step,
                    saturated,
                    learnable,
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
        _keep_interpolant(step, size, elapsed)

        while row < time.shape[0]:
            wanted = (time[row] - now) - remainder
            if wanted > elapsed:
                break
            _interpolate(state, size, _fraction(step.time_dense, wanted))
            loss[row] = _observe(
                table,
                state[POINT],
                size,
                saturated,
                learnable,
                frame,
                work,
                other_log_odds,
                overlap[row],
                energy[row],
            )
            row += 1

        eigenframe(state[END], size, saturated, learnable, work, log_odds)
        _turn(frame, work, next_frame)
        for i in range(saturated, learnable):
            for level in range(thresholds.shape[0]):
                if np.isnan(crossing[i, level]) and log_odds[i] >= thresholds[level]:
                    after = _cross(
                        table,
                        base,
                        frame,
                        size,
                        saturated,
                        learnable,
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
