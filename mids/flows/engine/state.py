"""What the compiled functions of the integrator work on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import typeof, types

from ...targets.target import Target
from .compile import value_at
from .tableaux import STAGES
from .tables import Tables, tables

SATURATED = 37.0  # 1 - overlap is below rounding

OVERLAP, ODDS, REST = range(3)  # rows of Scratch.diagonal
# Matrices in Scratch.square.
HESSIAN, GENERATOR, STEP, LOWER, TILT, INVERSE, METRIC, CHANGE, COLUMNS = range(9)
# Rows of Step.state.
START, SLOPE, POINT, RIGHT, END, SCALE, PACE_GRADIENT = range(7)
KEPT_END, DENSE_0, DENSE_1, DENSE_2 = range(7, 11)
FACTOR = -1  # instead of a row: the matrix LOWER


class Active(NamedTuple):
    """What a state vector holds: directions ``saturated, ..., learnable - 1`` and their tilts."""

    saturated: int
    learnable: int
    size: int


class Scratch(NamedTuple):
    """Work arrays of one run."""

    square: np.ndarray
    monomial: np.ndarray
    power: np.ndarray
    gradient: np.ndarray
    diagonal: np.ndarray
    buffer: np.ndarray
    frame: np.ndarray
    log_odds: np.ndarray
    base: np.ndarray
    hessian: np.ndarray
    rest: np.ndarray
    overlap: np.ndarray


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
        np.zeros((3, rank, rank)),
        np.zeros((3, rank)),
        np.zeros((3, table.weight.size)),
        np.zeros((rank, rank)),
        np.zeros(rank),
        np.zeros(rank),
    )


class Step(NamedTuple):
    """One step."""

    state: np.ndarray
    jacobian: np.ndarray
    matrix: np.ndarray
    pivot: np.ndarray
    stages: np.ndarray
    time: np.ndarray
    time_dense: np.ndarray


def stepping(rank: int) -> Step:
    """Work arrays of the steps of one thread."""
    size = rank * (rank + 1) // 2
    return Step(
        np.zeros((11, size)),
        np.zeros((size, size)),
        np.zeros((size, size)),
        np.zeros(size, dtype=np.int64),
        np.zeros((STAGES, size)),
        np.zeros(STAGES),
        np.zeros(5),
    )


class Machine(NamedTuple):
    """What functions find at an address: the target, work arrays, and the functions' addresses."""

    table: Tables
    work: Scratch
    step: Step
    functions: np.ndarray


def machine(table: Tables, functions: np.ndarray) -> Machine:
    """Work arrays for one target, of one thread."""
    rank = table.derivative.gradient_factor.shape[0]
    return Machine(table, scratch(table), stepping(rank), functions)


# The same for every target.
MACHINE = typeof(machine(tables(Target({(1,): 1.0})), np.zeros(1, dtype=np.uintp)))
machine_at = value_at(MACHINE)
ACTIVE = typeof(Active(0, 1, 1))
ARRAY, MATRIX, CUBE = (types.Array(types.float64, n, "C") for n in (1, 2, 3))
# Rows of Machine.functions.
BEGIN, LINEARISE, ADVANCE, DIAGONALISE, RECORD, CROSS, RUN = range(7)
