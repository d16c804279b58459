"""Compiled changes of frame, and what is observed of a state."""

from __future__ import annotations

import numpy as np

from ._kernels import COLUMNS, HESSIAN, METRIC, Active, Scratch, eigenframe
from ._linear import ROUNDING, compiled, complete
from ._tables import Substitution, Tables

__all__ = ["coefficients", "observe", "turn"]

# Coefficients below this multiple of rounding, relative to the norm, are rounding themselves.
FLUSH = 64.0


@compiled
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


@compiled
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


@compiled
def turn(frame: np.ndarray, work: Scratch, out: np.ndarray) -> None:
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
def coefficients(table: Tables, frame: np.ndarray, work: Scratch, base: np.ndarray) -> None:
    """Target in a frame, entries that are rounding set to zero.

    A learned direction known to 1e-16 would otherwise feed a spurious rate of 1e-32 to the
    direction to be learned next, whose own rate is of order d^(1 - s).
    """
    _substitute(table.substitution, frame, work.buffer, base)
    floor = FLUSH * ROUNDING * table.norm
    for i in range(base.shape[0]):
        if abs(base[i]) <= floor:
            base[i] = 0.0


@compiled
def observe(
    table: Tables,
    x: np.ndarray,
    active: Active,
    frame: np.ndarray,
    work: Scratch,
    log_odds: np.ndarray,
    overlap: np.ndarray,
    energy: np.ndarray,
) -> float:
    """Overlaps and mode energies at a state; returns the loss."""
    learnable = active.learnable
    rank = frame.shape[0]
    eigenframe(x, active, work, log_odds)
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
    explained = _average(table, gram, work.buffer, work.monomial[1], energy)
    return max(0.5 * (table.norm * table.norm - explained), 0.0)
