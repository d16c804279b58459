"""What the compiled functions of the integrator work on: they get its address, and numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import typeof

from ...targets.target import Target
from .addresses import value_at
from .compile import inlined
from .tableaux import STAGES
from .tables import Tables, tables

SATURATED = 37.0  # log-odds of an overlap whose distance from 1 is below rounding
# Rows of frames and log-odds: at the start of the step, at its end, anywhere else.
START, END, ELSEWHERE = range(3)


class Scratch(NamedTuple):
    """Matrices and what belongs to a frame, in the notation of `kernels`; rank r.

    Shapes: those of H to columns (r, r); odds, overlap, rest (r,), rest is what overlaps miss;
    those at the start of the step (r, r), (r,), (r,); frame (3, r, r); log_odds (3, r);
    base (n,), the target's coefficients in the frame; monomial (2, n); power (n,); gradient
    (3, r, n).
    """

    hessian: np.ndarray
    generator: np.ndarray
    rates: np.ndarray
    lower: np.ndarray
    tilt: np.ndarray
    upper: np.ndarray
    product: np.ndarray
    columns: np.ndarray
    odds: np.ndarray
    overlap: np.ndarray
    rest: np.ndarray
    start_hessian: np.ndarray
    start_overlap: np.ndarray
    start_rest: np.ndarray
    frame: np.ndarray
    log_odds: np.ndarray
    base: np.ndarray
    monomial: np.ndarray
    power: np.ndarray
    gradient: np.ndarray
    buffer: np.ndarray


class Step(NamedTuple):
    """One step of a state of n unknowns, of which the last is the time since its start.

    Shapes: active (3,), how many directions are saturated, how many can be learned, and unknowns
    but time; pivot (n - 1,); start to right (n,); dense (4, n), of the interpolant, the last row is
    the end of the step; stages (8, n), the last row is the error estimate; jacobian (n, n - 1);
    matrix (n - 1, n - 1).
    """

    active: np.ndarray
    pivot: np.ndarray
    start: np.ndarray
    slope: np.ndarray
    point: np.ndarray
    right: np.ndarray
    dense: np.ndarray
    stages: np.ndarray
    jacobian: np.ndarray
    matrix: np.ndarray


class Task(NamedTuple):
    """A block of runs and what is wanted of it: arrays filled with NaN, status and counts with 0.

    Shapes: initial (runs, r, m), M(0) or what has the same G; independent (runs,), the rank of
    each; time (T,); thresholds (levels,) of log-odds; rtol (1,); overlap (runs, T, r); energy
    (runs, T, modes); loss (runs, T); gram (runs, T, r, r); crossing (runs, r, levels);
    stage_duration (runs, r); status (runs,); counts (runs, 2), of steps and right-hand sides.
    """

    initial: np.ndarray
    independent: np.ndarray
    time: np.ndarray
    thresholds: np.ndarray
    rtol: np.ndarray
    overlap: np.ndarray
    energy: np.ndarray
    loss: np.ndarray
    gram: np.ndarray
    crossing: np.ndarray
    stage_duration: np.ndarray
    status: np.ndarray
    counts: np.ndarray


class Functions(NamedTuple):
    """Addresses."""

    begin: int
    linearise: int
    advance: int
    diagonalise: int
    record: int
    run: int


class Machine(NamedTuple):
    """What a thread works with."""

    table: Tables
    work: Scratch
    step: Step
    task: Task
    functions: Functions


def machine(table: Tables, task: Task, functions: Functions) -> Machine:
    """Work arrays for one target, of one thread."""
    rank, gradients = table.derivative.gradient_factor.shape
    size, n = rank * (rank + 1) // 2, table.weight.size
    square, row = (rank, rank), (rank,)
    shapes: list[tuple[int, ...]] = [*8 * [square], *3 * [row], square, row, row]
    shapes += [(3, rank, rank), (3, rank), (n,), (2, n), table.derivative.power.shape[:1]]
    work = Scratch(*map(np.zeros, [*shapes, (3, rank, gradients), (table.buffer,)]))
    shapes = [*4 * [(size + 1,)], (4, size + 1), (STAGES, size + 1), (size + 1, size), (size, size)]
    step = Step(*(np.zeros(count, dtype=np.int64) for count in (3, size)), *map(np.zeros, shapes))
    return Machine(table, work, step, task, functions)


@inlined
def active(step: Step) -> tuple[int, int, int]:
    """Directions ``saturated, ..., learnable - 1`` are in the state, which has `size` unknowns."""
    return step.active[0], step.active[1], step.active[2]


# The same for every target.
_DIMENSIONS = (3, 1, 1, 1, 1, 3, 3, 2, 4, 3, 2, 1, 2)
_KINDS: list[type] = [float, np.int64, *9 * [float], np.int8, np.int64]
_TASK = Task(*(np.zeros((1,) * n, kind) for n, kind in zip(_DIMENSIONS, _KINDS, strict=True)))
MACHINE = typeof(machine(tables(Target({(1,): 1.0})), _TASK, Functions(*range(6))))
machine_at = value_at(MACHINE)
