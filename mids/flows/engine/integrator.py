"""Compiled integrator of the fast-link flow: runs, choice of steps and their control.

Log-odds and tilts are smooth in the growth clock, so that where nothing is stiff an explicit method
needs few and cheap steps: staircases, single indices, the way to and from every plateau.  A learned
direction's tilts relax `stiffness` times faster than the clock ticks; a step that an explicit
method could not take stably is a Rosenbrock step, which costs about twice as much for the Jacobian
and the linear systems.  Both are of order 5(4) and share step control and interpolant.

Of the variants that were measured, Rosenbrock steps alone took half as long again where nothing is
stiff, and an explicit method of order 8 (Dormand and Prince) more evaluations than one of order 5
at rtol 1e-6 and 1e-8.  In the clock's time the clock's direction crosses its levels at known
moments: steps end there, which replaces a search in the interpolant and a step of its own for each
crossing.  What such a shortened step suggests for the next one is not trusted beyond what was
wanted before it: a quarter of all steps used to be rejected after levels, a tenth is now.

For ranks 1 to 3 functions are compiled with the rank as a constant, which takes 20 to 40 percent
off a right-hand side; they are compiled when first needed, so the first call is no longer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import typeof, types

from ..observables import CENSORED, CONVERGED, FAILED, TRAPPED
from .compile import ADDRESS, address, address_of, call_at, separate, value_at
from .control import (
    activate,
    attracts,
    differentiate,
    keep_interpolant,
    local_error,
    pick_clock,
    stiffness,
)
from .kernels import call_linearise, linearise
from .observe import (
    begin,
    call_begin,
    call_cross,
    call_diagonalise,
    call_record,
    cross,
    diagonalise,
    record,
)
from .state import (
    ADVANCE,
    ARRAY,
    BEGIN,
    CROSS,
    CUBE,
    DIAGONALISE,
    END,
    FACTOR,
    HESSIAN,
    LINEARISE,
    LOWER,
    MACHINE,
    MATRIX,
    ODDS,
    OVERLAP,
    RECORD,
    REST,
    RUN,
    SATURATED,
    Active,
    Machine,
    machine,
    machine_at,
)
from .steps import advance, call_advance
from .tableaux import STAGES
from .tables import Tables

HALF = 1  # of the thresholds, the one that ends a stage
STILL, SLOW = 1e-13, 1e-9  # rates of tilts that are rounding, and growth that is none
SAFETY, SHRINK, GROW = 0.9, 0.15, 8.0
# Where the clock's overlap is no longer small, its growth bends within a few units of log-odds: on
# longer steps the error estimate may vanish by chance.
ESCAPING, BRIEF = -5.0, 1.2
STRETCH = 1.1  # a step may be this much longer to end at a level
STABLE = 3.0  # length of an explicit step times stiffness
PATIENCE = 100  # steps at an unstable subspace, of a time in which tilts grow threefold each
MAX_STEPS = 20_000


class Output(NamedTuple):
    """Arrays of a block of runs, filled with NaN, `status` and `counts` with 0."""

    overlap: np.ndarray
    energy: np.ndarray
    loss: np.ndarray
    gram: np.ndarray
    crossing: np.ndarray
    stage_duration: np.ndarray
    status: np.ndarray
    counts: np.ndarray


COUNTS = types.Array(types.int64, 1, "C")
_EMPTY: list[np.ndarray] = [np.zeros((1,) * n) for n in (3, 3, 2, 3, 3, 2)]
_EMPTY += [np.zeros(1, dtype=np.int8), np.zeros((1, 2), dtype=np.int64)]
OUTPUT = typeof(Output(*_EMPTY))
output_at = value_at(OUTPUT)

_RUN = types.int64(ADDRESS, ADDRESS, types.int64, MATRIX, types.int64, ARRAY, ARRAY, types.float64)


@separate(_RUN)
def run(
    where: int,
    output: int,
    number: int,
    initial: np.ndarray,
    learnable: int,
    time: np.ndarray,
    thresholds: np.ndarray,
    rtol: float,
) -> int:
    """Integrate one run from M(0), or what has the same G; returns its status."""
    _, work, step, functions = machine_at(where)
    out = output_at(output)
    overlap, energy, loss = out.overlap[number], out.energy[number], out.loss[number]
    gram = out.gram[number]
    crossing, stage_duration = out.crossing[number], out.stage_duration[number]
    counts = out.counts[number]
    frame, next_frame, log_odds = work.frame[0], work.frame[1], work.log_odds[0]
    state, square = step.state, work.square
    rank, levels = frame.shape[0], thresholds.shape[0]
    for i in range(rank):
        for j in range(rank):
            square[LOWER, i, j] = initial[i, j] if j < initial.shape[1] else 0.0
            frame[i, j] = 1.0 if i == j else 0.0
    call_diagonalise(functions[DIAGONALISE], where, Active(0, learnable, 0), FACTOR, 1)
    for i in range(rank):
        for j in range(rank):
            frame[i, j] = next_frame[i, j]
    for i in range(learnable):
        first = work.diagonal[ODDS, i]  # of M, not of X: overlaps
        log_odds[i] = min(np.log(first / max(1.0 - first, np.exp(-SATURATED))), SATURATED)
        for level in range(levels):
            if log_odds[i] >= thresholds[level]:
                crossing[i, level] = 0.0
        if crossing[i, HALF] == 0.0:
            stage_duration[i] = 0.0

    # This close to a level, time is linear in log-odds, to rtol of the time that has passed.
    near = np.sqrt(0.1 * rtol)
    last, row = time[-1], 0
    now, remainder, since = 0.0, 0.0, 0.0
    clock, h, previous, attempts, measured = -1, -1.0, 1.0, 0, 0.0
    status, waited = CONVERGED, 0
    while row < time.shape[0]:
        active = activate(learnable, rank, log_odds)
        saturated, size = active.saturated, active.size
        call_begin(functions[BEGIN], where, active, 0)
        counts[1] += 1
        for i in range(rank):
            work.rest[i] = work.diagonal[REST, i]
            work.overlap[i] = work.diagonal[OVERLAP, i]
            for j in range(rank):
                work.hessian[i, j] = square[HESSIAN, i, j]
        for i in range(saturated, learnable):
            for level in range(levels):
                missing = thresholds[level] - log_odds[i]
                close = near if now > 0.0 else rtol  # at the start, no time has passed
                if not np.isnan(crossing[i, level]) or abs(missing) > close:
                    continue
                if missing > 0.0 and i != clock:
                    continue
                after = 0.5 * missing / work.hessian[i, i]
                moment = now + (remainder + after)
                if moment <= last:
                    crossing[i, level] = moment
                    if level == HALF:
                        stage_duration[i] = since + after
                        since = -after

        h_time = h if clock < 0 else 0.5 * h / work.hessian[clock, clock]
        before, clock = clock, pick_clock(learnable, work)
        if clock != before:
            measured = 0.0
        pace = 0.5 / work.hessian[clock, clock] if clock >= 0 else 1.0
        largest = differentiate(active, pace, work, state)
        # Nothing moves; or all is learned, and the subspace critical up to rounding: is it stable?
        still = largest == 0.0 and saturated < learnable
        resting = saturated == learnable and largest <= STILL * abs(work.hessian[0, 0])
        waited = waited + 1 if resting else 0
        if row == 0:
            call_record(
                functions[RECORD], where, active, 0.0, overlap[0], energy[0], loss[:1], gram[0]
            )
            row = 1
            continue
        if h < 0.0:
            h_time = 10.0 * rtol**0.2 / largest
        h = h_time / pace
        wanted, reach = h, 0.0
        if clock < 0:
            h = min(h, 1.000001 * (last - now))
            for i in range(saturated, learnable):
                if work.hessian[i, i] > 0.0:
                    end = (1.01 * SATURATED - log_odds[i]) / (2.0 * work.hessian[i, i])
                    reach = max(reach, end)
            if reach > 0.0:  # beyond it nothing is left to learn
                h = min(h, reach)
        else:
            if log_odds[clock] + h > ESCAPING:
                h = min(h, BRIEF)
            for level in range(levels):
                missing = thresholds[level] - log_odds[clock]
                if near < missing < 2.0 * h and np.isnan(crossing[clock, level]):
                    h = missing if missing < STRETCH * h else 0.5 * missing  # no tiny last step
                    break
        explicit = h * max(stiffness(active, pace, work.hessian), measured) <= STABLE
        explicit = still or (explicit and not resting)
        if not explicit:
            call_linearise(functions[LINEARISE], where, active, clock, pace)
            slow = SLOW * abs(work.hessian[0, 0]) if resting else 2.0 / h
            while not attracts(active, rank, slow, step, work):
                if not resting:
                    h *= 0.5
                elif largest == 0.0 or waited > PATIENCE:  # no tilt is left that could grow
                    status = TRAPPED
                    break
                resting = False
                slow = 2.0 / h
        if resting or still:
            call_record(
                functions[RECORD],
                where,
                active,
                0.0,
                overlap[row],
                energy[row],
                loss[row : row + 1],
                gram[row],
            )
            break

        unlearned = False  # else no stage is left whose duration could be wrong
        for i in range(learnable):
            unlearned = unlearned or np.isnan(crossing[i, HALF])
        rejected = 0
        while True:
            if attempts >= MAX_STEPS:
                return FAILED
            if explicit and (rejected == 4 or (rejected and step.time_dense[4] > STABLE)):
                explicit = False
                call_begin(functions[BEGIN], where, active, 0)
                call_linearise(functions[LINEARISE], where, active, clock, pace)
            elapsed = call_advance(functions[ADVANCE], where, active, clock, pace, h, explicit)
            attempts += 1
            counts[1] += 6 if explicit else STAGES - 1
            error = 1e10
            if elapsed > 0.0:
                error = local_error(
                    step,
                    active,
                    rank,
                    h * pace,
                    (since if unlearned else now) + elapsed,
                    work.hessian,
                    work.rest,
                    explicit,
                    rtol,
                )
            if not error < 1e10:
                error = 1e10
            factor = SAFETY * max(error, 1e-8) ** -0.2
            if error <= 1.0:
                break
            rejected += 1
            h *= max(SHRINK, min(factor, 0.9))
        if rejected > 0:
            factor, wanted = min(factor, 1.0), 0.0
        else:
            factor *= (max(error, 1e-8) / previous) ** -0.08  # proportional-integral control
        cut = h < wanted
        previous = max(error, 1e-4)
        measured = step.time_dense[4] / h if explicit else 0.0
        counts[0] += 1
        keep_interpolant(step, size, elapsed, 1 if explicit else 0)

        while row < time.shape[0]:
            after = (time[row] - now) - remainder
            if after > elapsed:
                break
            call_record(
                functions[RECORD],
                where,
                active,
                after,
                overlap[row],
                energy[row],
                loss[row : row + 1],
                gram[row],
            )
            row += 1

        call_diagonalise(functions[DIAGONALISE], where, active, END, 1)
        for i in range(active.learnable):
            log_odds[i] = work.log_odds[1, i]
        late = near if row < time.shape[0] else 0.0
        for i in range(saturated, learnable):
            for level in range(levels):
                if np.isnan(crossing[i, level]) and log_odds[i] >= thresholds[level] + late:
                    after = call_cross(
                        functions[CROSS],
                        where,
                        active,
                        clock,
                        pace,
                        h,
                        explicit,
                        i,
                        thresholds[level],
                        0.1 * near,
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
        if cut and error < 1e-8:
            h = wanted  # a step cut so short says nothing
        else:
            h *= min(max(factor, SHRINK), GROW)
            if cut:
                h = min(h, wanted)
    for later in range(row + 1, time.shape[0]):  # at rest
        for i in range(rank):
            overlap[later, i] = overlap[row, i]
        for mode in range(energy.shape[1]):
            energy[later, mode] = energy[row, mode]
        loss[later] = loss[row]
        for i in range(rank * rank):
            gram[later, i] = gram[row, i]
    return status


call_run = call_at(_RUN, lambda: run)


@separate(types.void(MACHINE, CUBE, COUNTS, ARRAY, ARRAY, types.float64, OUTPUT), from_python=True)
def integrate_runs(
    machine: Machine,
    initial: np.ndarray,
    independent: np.ndarray,
    time: np.ndarray,
    thresholds: np.ndarray,
    rtol: float,
    out: Output,
) -> None:
    """Integrate runs one after another."""
    where, output = address_of(machine), address_of(out)
    for k in range(initial.shape[0]):
        status = call_run(
            machine.functions[RUN],
            where,
            output,
            k,
            initial[k],
            independent[k],
            time,
            thresholds,
            rtol,
        )
        out.status[k] = status
        for i in range(min(initial.shape[1], initial.shape[2])):
            if status == CONVERGED and np.isnan(out.crossing[k, i, thresholds.shape[0] - 1]):
                out.status[k] = CENSORED


UNROLLED = 3  # up to this rank loops have a length known to the compiler


@lru_cache
def _functions(known: int) -> np.ndarray:
    """Addresses of the functions for targets of a rank, or of any (0)."""
    functions = (
        begin,
        linearise,
        advance(known),
        diagonalise(known),
        record,
        cross,
        run,
    )
    return np.array([address(each) for each in functions], dtype=np.uintp)


def integrate(
    table: Tables,
    initial: np.ndarray,
    independent: np.ndarray,
    time: np.ndarray,
    thresholds: np.ndarray,
    rtol: float,
    out: Output,
) -> None:
    """Integrate a block of runs; may be called in several threads at once."""
    rank = initial.shape[1]
    functions = _functions(rank if rank <= UNROLLED else 0)
    integrate_runs(machine(table, functions), initial, independent, time, thresholds, rtol, out)
