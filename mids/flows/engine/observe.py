"""Takes a step; gives the target in a new frame, overlaps and losses in it, and crossings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .compile import ADDRESS, call_at, inlined, separate
from .kernels import load, rate_here
from .linear import ROUNDING, complete, orthogonalise
from .state import (
    ACTIVE,
    ADVANCE,
    ARRAY,
    BEGIN,
    COLUMNS,
    DENSE_0,
    DIAGONALISE,
    END,
    HESSIAN,
    KEPT_END,
    LOWER,
    ODDS,
    POINT,
    REST,
    SATURATED,
    START,
    Active,
    machine_at,
)
from .steps import call_advance
from .tables import Substitution, Tables

# Coefficients below this multiple of rounding, relative to the norm, are rounding themselves.
FLUSH = 64.0

_BEGIN = types.void(ADDRESS, ACTIVE, types.int64)
_DIAGONALISE = types.void(ADDRESS, ACTIVE, types.int64, types.int64)
_RECORD = types.void(ADDRESS, ACTIVE, types.float64, ARRAY, ARRAY, ARRAY, ARRAY)


@inlined
def _substitute(
    table: Substitution, basis: np.ndarray, buffer: np.ndarray, out: np.ndarray
) -> None:
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


@inlined
def _average(
    table: Tables, gram: np.ndarray, buffer: np.ndarray, moved: np.ndarray, energy: np.ndarray
) -> float:
    """Energy ``alpha_beta (A_G f*)_beta`` of every mode; returns ``h(G)``."""
    _substitute(table.substitution, gram, buffer, moved)
    total = 0.0
    for mode in range(table.mode_row.shape[0]):
        row, value = table.mode_row[mode], table.mode_value[mode]
        energy[mode] = value * (value if row < 0 else moved[row] * table.weight[row])
        total += energy[mode]
    return total


@inlined
def interpolate(state: np.ndarray, size: int, theta: float) -> None:
    """Put the state at a fraction of the step into POINT."""
    rest = 1.0 - theta
    for i in range(size):
        inner = state[DENSE_0 + 1, i] + theta * state[DENSE_0 + 2, i]
        inner = state[KEPT_END, i] + rest * (state[DENSE_0, i] + theta * inner)
        state[POINT, i] = rest * state[START, i] + theta * inner


@inlined
def fraction(dense: np.ndarray, wanted: float) -> float:
    """Find where in the step a time lies."""
    if wanted >= dense[3]:
        return 1.0
    low, high, theta = 0.0, 1.0, wanted / dense[3]
    for _ in range(60):
        inner = dense[0] + theta * (dense[1] + theta * dense[2])
        value = theta * (dense[3] + (1.0 - theta) * inner) - wanted
        if abs(value) <= 1e-13 * dense[3] or high - low < 1e-14:
            break
        if value < 0.0:
            low = theta
        else:
            high = theta
        slope = dense[3] + (1.0 - 2.0 * theta) * inner
        slope += theta * (1.0 - theta) * (dense[1] + 2.0 * theta * dense[2])
        theta -= value / slope
        if not low < theta < high:
            theta = 0.5 * (low + high)
    return theta


@separate(_BEGIN)
def begin(where: int, active: Active, at: int) -> None:
    """Put the target's coefficients in one of the frames into the base; differentiate.

    Entries that are rounding are set to zero: a learned direction known to 1e-16 would otherwise
    feed a spurious rate of 1e-32 to the direction to be learned next, whose own rate is of order
    d^(1 - s).
    """
    table, work, _, _ = machine_at(where)
    base = work.base[at]
    _substitute(table.substitution, work.frame[at], work.buffer, base)
    floor = FLUSH * ROUNDING * table.norm
    for i in range(base.shape[0]):
        if abs(base[i]) * np.sqrt(table.weight[i]) <= floor:
            base[i] = 0.0
    rate_here(table.derivative, work.rest.shape[0], base, work.log_odds[at], active, work)


call_begin = call_at(_BEGIN, lambda: begin)


def diagonalise(known: int) -> Any:
    """Make the function for targets of a rank, or of any (0)."""

    @separate(_DIAGONALISE, rank=known)
    def diagonalise(where: int, active: Active, row: int, at: int) -> None:
        """Odds and log-odds of a state's overlaps, largest first, and their eigenvectors' frame.

        The state is a row of `Step.state`, or the factor that is in LOWER if that is negative;
        results go to a row of the work arrays.

        One-sided Jacobi rotations of the graded factor ``L diag(e^(v/2))`` (Demmel and Veselic
        1992) give both to high relative accuracy.
        """
        _, work, step, _ = machine_at(where)
        learnable = active.learnable
        frame, log_odds, out = work.frame[0], work.log_odds[at], work.frame[at]
        factor, columns = work.square[LOWER], work.square[COLUMNS]
        odds, norm = work.diagonal[ODDS], work.diagonal[REST]
        rank = known if known > 0 else norm.shape[0]
        count = rank
        if row >= 0:
            count = learnable
            load(step.state[row], rank, active, work)
            for i in range(learnable):
                scale = np.sqrt(odds[i])
                for k in range(i, rank):
                    factor[k, i] *= scale
        orthogonalise(factor, rank, count)
        for i in range(count):
            norm[i] = 0.0
            for k in range(rank):
                norm[i] += factor[k, i] * factor[k, i]
        for i in range(learnable):
            best = 0
            for j in range(1, count):
                if norm[j] > norm[best]:
                    best = j
            odds[i] = norm[best]
            log_odds[i] = min(np.log(norm[best]), SATURATED)
            scale = 1.0 / np.sqrt(norm[best])
            for k in range(rank):
                columns[k, i] = factor[k, best] * scale
            norm[best] = -1.0
        for i in range(rank):
            for j in range(learnable):
                total = 0.0
                for k in range(rank):
                    total += frame[i, k] * columns[k, j]
                out[i, j] = total
        complete(out, rank, learnable)

    return diagonalise


call_diagonalise = call_at(_DIAGONALISE, lambda: diagonalise(0))


@separate(_RECORD)
def record(
    where: int,
    active: Active,
    wanted: float,
    overlap: np.ndarray,
    energy: np.ndarray,
    loss: np.ndarray,
    flat: np.ndarray,
) -> None:
    """Overlaps, mode energies, loss and G, row by row, at a time after the start of the step.

    A time that is not positive means the start itself.
    """
    table, work, step, functions = machine_at(where)
    learnable = active.learnable
    gram, vectors = work.square[HESSIAN], work.frame[2]
    rank = gram.shape[0]
    theta = fraction(step.time_dense, wanted) if wanted > 0.0 else 0.0
    interpolate(step.state, active.size, theta)
    call_diagonalise(functions[DIAGONALISE], where, active, POINT, 2)
    for i in range(rank):
        odds = work.diagonal[ODDS, i]
        overlap[i] = odds / (1.0 + odds) if i < learnable else 0.0
    for i in range(rank):
        for j in range(i + 1):
            total = 0.0
            for k in range(learnable):
                total += vectors[i, k] * vectors[j, k] * overlap[k]
            gram[i, j] = total
            gram[j, i] = total
            flat[rank * i + j] = total
            flat[rank * j + i] = total
    explained = _average(table, gram, work.buffer, work.monomial[1], energy)
    loss[0] = max(0.5 * (table.norm * table.norm - explained), 0.0)


call_record = call_at(_RECORD, lambda: record)


_CROSS = types.float64(
    ADDRESS,
    ACTIVE,
    types.int64,
    types.float64,
    types.float64,
    types.boolean,
    types.int64,
    types.float64,
    types.float64,
)


@separate(_CROSS)
def cross(
    where: int,
    active: Active,
    clock: int,
    pace: float,
    h: float,
    explicit: bool,
    direction: int,
    threshold: float,
    close: float,
) -> float:
    """Time after the start of the step at which log-odds reach a threshold.

    Newton's method by steps that end at its iterates, so that it is as accurate as they are.
    Overwrites the step, but not its interpolant.
    """
    _, work, step, functions = machine_at(where)
    log_odds = work.log_odds[2]
    before = threshold - step.state[START, direction - active.saturated]
    # A run that starts close to the threshold has a short time, to the same relative accuracy.
    enough = 10.0 * close * min(1.0, before)
    low, high, time = 0.0, 1.0, 0.0
    theta = before / (work.log_odds[1, direction] - threshold + before)
    for _ in range(50):
        elapsed = call_advance(functions[ADVANCE], where, active, clock, pace, theta * h, explicit)
        call_diagonalise(functions[DIAGONALISE], where, active, END, 2)
        call_begin(functions[BEGIN], where, active, 2)
        missing = threshold - log_odds[direction]
        time = elapsed + missing / (2.0 * work.square[HESSIAN, direction, direction])
        if abs(missing) < enough:
            break
        if missing > 0.0:
            low = theta
        else:
            high = theta
        theta = fraction(step.time_dense, time)
        if not low < theta < high:
            theta = 0.5 * (low + high)
    return time


call_cross = call_at(_CROSS, lambda: cross)
