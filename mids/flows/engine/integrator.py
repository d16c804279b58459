"""Compiled integrator of the fast-link flow: runs, choice of steps and their control.

Log-odds and tilts are smooth in the growth clock, so that where nothing is stiff an explicit method
needs few and cheap steps: staircases, single indices, the way to and from every plateau.  A learned
direction's tilts relax `stiffness` times faster than the clock ticks; a step that an explicit
method could not take stably is a Rosenbrock step, which costs about twice as much for the Jacobian
and the linear systems.  Both are of order 5(4) and share step control and interpolant.

Of the variants that were measured, Rosenbrock steps alone took half as long again where nothing is
stiff, and an explicit method of order 8 (Dormand and Prince) more evaluations than one of order 5
at rtol 1e-6 and 1e-8.  Steps end where overlaps reach their levels: known in advance for the
clock's direction, found in the interpolant for others, and the step is taken again.  What such a
shortened step suggests for the next one is not trusted beyond what was wanted before it.

For ranks 1 to 3 functions are compiled with the rank as a constant, which takes 20 to 40 percent
off a right-hand side; they are compiled when first needed, so the first call is no longer.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import types

from ..observables import CENSORED, CONVERGED, FAILED, TRAPPED
from .addresses import ADDRESS, address_of, call_at
from .compile import inlined, separate
from .control import activate, attracts, local_error, pick_clock, stiffness
from .kernels import begin, call_begin, call_linearise, linearise
from .observe import call_diagonalise, call_record, diagonalise, record
from .state import (
    ELSEWHERE,
    END,
    MACHINE,
    SATURATED,
    START,
    Functions,
    Machine,
    Task,
    active,
    machine,
    machine_at,
)
from .steps import EXPLICIT, IMPLICIT, advance, call_advance, interpolate, keep_interpolant
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
# Shares of `near`, in which time is linear in log-odds, by which steps pass a level.
BEYOND, CLOSE = 0.1, 0.05
ROUNDING = 1e-12  # of log-odds


@inlined
def reach(where: int, run: int, near: float) -> float:
    """Fraction of a step at which a level has just been passed, 1 if there is none."""
    _, work, step, task, functions = machine_at(where)
    saturated, learnable, _ = active(step)
    for i in range(saturated, learnable):
        for level in range(task.thresholds.shape[0]):
            threshold, begun = task.thresholds[level], work.log_odds[START, i]
            if not np.isnan(task.crossing[run, i, level]):
                continue
            if work.log_odds[END, i] < threshold + near:
                continue
            # A run that starts close to a level has a short time, to the same relative accuracy.
            close = max(near * min(1.0, threshold - begun), ROUNDING)
            aim = threshold + BEYOND * close
            low, high, theta = 0.0, 1.0, (aim - begun) / (work.log_odds[END, i] - begun)
            below, above = begun - aim, work.log_odds[END, i] - aim
            for _ in range(60):
                interpolate(step, theta)
                call_diagonalise(functions.diagonalise, where, ELSEWHERE, False)
                beyond = work.log_odds[ELSEWHERE, i] - aim
                if abs(beyond) < CLOSE * close:
                    break
                if beyond < 0.0:
                    low, below, above = theta, beyond, 0.5 * above
                else:
                    high, above, below = theta, beyond, 0.5 * below
                theta = low - below * (high - low) / (above - below)
            return theta
    return 1.0


_RUN = types.int64(ADDRESS, types.int64)


@separate(_RUN)
def run(where: int, number: int) -> int:
    """Integrate one run; returns its status."""
    _, work, step, task, functions = machine_at(where)
    crossing, thresholds, time = task.crossing[number], task.thresholds, task.time
    log_odds, hessian, rtol = work.log_odds[START], work.start_hessian, task.rtol[0]
    rank, levels, rows = log_odds.shape[0], thresholds.shape[0], time.shape[0]
    learnable = task.independent[number]
    # The start: eigenvectors of G(0) and log-odds of its eigenvalues, both from the factor M(0).
    for i in range(rank):
        for j in range(rank):
            work.lower[i, j] = task.initial[number, i, j] if j < task.initial.shape[2] else 0.0
            work.frame[START, i, j] = 1.0 if i == j else 0.0
    step.active[1] = learnable
    call_diagonalise(functions.diagonalise, where, END, True)
    for i in range(rank):
        for j in range(rank):
            work.frame[START, i, j] = work.frame[END, i, j]
    for i in range(learnable):
        first = work.odds[i]
        log_odds[i] = min(np.log(first / max(1.0 - first, np.exp(-SATURATED))), SATURATED)
        for level in range(levels):
            # What a run starts beyond it has passed at time zero.
            if log_odds[i] >= thresholds[level]:
                crossing[i, level] = 0.0
        if crossing[i, HALF] == 0.0:
            task.stage_duration[number, i] = 0.0

    # This close to a level, time is linear in log-odds, to rtol of the time that has passed.
    near = np.sqrt(0.1 * rtol)
    last, row = time[-1], 0
    now, since = 0.0, 0.0
    clock, h, attempts, waited = -1, -1.0, 0, 0
    while True:
        # Each step begins in the eigenvectors of G, where H is B and L is the identity.
        activate(learnable, rank, work, step)
        saturated, _, size = active(step)
        call_begin(functions.begin, where)
        task.counts[number, 1] += 1
        close = near if now > 0.0 else rtol  # at the start, no time has passed
        # Levels that lie so close that time is linear in log-odds up to them are passed here.
        unlearned = False  # else no stage is left whose duration could be wrong
        for i in range(learnable):
            for level in range(levels):
                missing = thresholds[level] - log_odds[i]
                if np.isnan(crossing[i, level]) and missing <= (close if i == clock else 0.0):
                    after = 0.5 * missing / hessian[i, i]
                    moment = now + after
                    if moment <= last:
                        crossing[i, level] = moment
                        if level == HALF:
                            task.stage_duration[number, i] = since + after
                            since = -after
            unlearned = unlearned or np.isnan(crossing[i, HALF])
        if row == rows:
            return CONVERGED

        # The step was suggested in the last clock; the direction that escapes first is the next.
        h_time = h if clock < 0 else 0.5 * h / hessian[clock, clock]
        clock = pick_clock(learnable, work)
        pace = 0.5 / hessian[clock, clock] if clock >= 0 else 1.0
        largest = 0.0
        for k in range(size):
            largest = max(largest, abs(step.slope[k]))
        # Nothing moves; or all is learned, and the subspace critical up to rounding: is it stable?
        still = largest == 0.0 and saturated < learnable
        resting = saturated == learnable and largest <= STILL * abs(hessian[0, 0])
        waited = waited + 1 if resting else 0
        # The first row is the start itself, once its frame and energies are known.
        if row == 0:
            call_record(functions.record, where, number, 0, 1, 0.0)
            row = 1
            continue
        # No step has been taken yet: the first one is short, and control lengthens it.
        if h < 0.0:
            h_time = 10.0 * rtol**0.2 / largest
        h = h_time / pace
        wanted = h
        # Without a clock the end of the grid or of all growth bounds the step; with one, a level.
        if clock < 0:
            h = min(h, 1.000001 * (last - now))
            end = 0.0  # beyond it nothing is left to learn
            for i in range(saturated, learnable):
                if hessian[i, i] > 0.0:
                    end = max(end, (1.01 * SATURATED - log_odds[i]) / (2.0 * hessian[i, i]))
            if end > 0.0:
                h = min(h, end)
        else:
            if log_odds[clock] + h > ESCAPING:
                h = min(h, BRIEF)
            for level in range(levels):
                missing = thresholds[level] - log_odds[clock]
                if near < missing < 2.0 * h and np.isnan(crossing[clock, level]):
                    h = missing if missing < STRETCH * h else 0.5 * missing  # no tiny last step
                    break
        # The method. An implicit step may not be so long that tilts which grow would be damped.
        stable = h * pace * stiffness(work, step) <= STABLE
        method = EXPLICIT if still or (stable and not resting) else IMPLICIT
        if method == IMPLICIT:
            call_linearise(functions.linearise, where, clock, pace)
            slow = SLOW * abs(hessian[0, 0]) if resting else 2.0 / h
            while not attracts(slow, step, work):
                if not resting:
                    h *= 0.5
                elif largest == 0.0 or waited > PATIENCE:  # no tilt is left that could grow
                    call_record(functions.record, where, number, row, rows, 0.0)
                    return TRAPPED
                resting = False
                slow = 2.0 / h
        if resting or still:
            call_record(functions.record, where, number, row, rows, 0.0)
            return CONVERGED

        # Tried again, shorter, until the error is allowed and no level lies within the step.
        rejected = 0
        while True:
            if attempts >= MAX_STEPS:
                return FAILED
            # So many rejections in a row mean stiffness that the estimate from H does not show.
            if method == EXPLICIT and rejected == 4:
                method = IMPLICIT
                call_begin(functions.begin, where)
                call_linearise(functions.linearise, where, clock, pace)
            call_advance(functions.advance, where, clock, pace, h, method)
            attempts += 1
            task.counts[number, 1] += 6 if method == EXPLICIT else 7
            elapsed, error = step.point[size], 1e10
            if elapsed > 0.0:
                passed = (since if unlearned else now) + elapsed
                error = local_error(step, work, h * pace, passed, method, rtol)
            if not error < 1e10:
                error = 1e10
            factor = SAFETY * max(error, 1e-8) ** -0.2
            if error <= 1.0:
                keep_interpolant(step, method)
                call_diagonalise(functions.diagonalise, where, END, False)
                theta = reach(where, number, near)
                if theta == 1.0:
                    break
                h *= theta
            else:
                rejected += 1
                h *= max(SHRINK, min(factor, 0.9))
        cut = h < wanted
        task.counts[number, 0] += 1
        # Rows of the grid within the step come from its interpolant.
        while row < rows and time[row] - now <= elapsed:
            call_record(functions.record, where, number, row, row + 1, time[row] - now)
            row += 1
        since += elapsed
        now += elapsed
        for i in range(rank):
            log_odds[i] = work.log_odds[END, i]
            for j in range(rank):
                work.frame[START, i, j] = work.frame[END, i, j]
        if cut and error < 1e-8:
            h = wanted  # a step cut so short says nothing
        else:
            h *= min(max(factor, SHRINK), GROW)
            if cut:
                h = min(h, wanted)


call_run = call_at(_RUN)


@separate(types.void(MACHINE), from_python=True)
def integrate_runs(machine: Machine) -> None:
    """Integrate runs one after another."""
    task, where = machine.task, address_of(machine)
    for k in range(task.initial.shape[0]):
        status = call_run(machine.functions.run, where, k)
        for i in range(min(task.initial.shape[1], task.initial.shape[2])):
            if status == CONVERGED and np.isnan(task.crossing[k, i, -1]):
                status = CENSORED
        task.status[k] = status


UNROLLED = 3  # up to this rank loops have a length known to the compiler


@lru_cache
def _functions(known: int) -> Functions:
    """Addresses of the functions for targets of a rank, or of any (0)."""
    functions = (begin, linearise, advance(known), diagonalise(known), record, run)
    return Functions(*(each.address for each in functions))


def integrate(table: Tables, task: Task) -> None:
    """Integrate a block of runs; may be called in several threads at once."""
    rank = task.initial.shape[1]
    integrate_runs(machine(table, task, _functions(rank if rank <= UNROLLED else 0)))
