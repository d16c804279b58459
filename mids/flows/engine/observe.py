"""Takes a state; gives overlaps, their frame, energies and losses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .addresses import ADDRESS, call_at
from .compile import separate
from .kernels import load, substitute
from .linear import complete, orthogonalise
from .state import ELSEWHERE, SATURATED, active, machine_at
from .steps import fraction, interpolate

_DIAGONALISE = types.void(ADDRESS, types.int64, types.boolean)


def diagonalise(known: int) -> Any:
    """Make the function for targets of a rank, or of any (0)."""

    @separate(_DIAGONALISE, rank=known)
    def diagonalise(where: int, at: int, first: bool) -> None:
        """Log-odds of the overlaps of `point`, largest first, and the frame of eigenvectors.

        `first` is for a factor M of G in `lower` in place of a state; odds are then overlaps.

        One-sided Jacobi rotations of the graded factor ``L diag(e^(v/2))`` (Demmel and Veselic
        1992) give both to high relative accuracy.
        """
        _, work, step, _, _ = machine_at(where)
        _, learnable, _ = active(step)
        frame, log_odds, out = work.frame[0], work.log_odds[at], work.frame[at]
        factor, columns, odds, norm = work.lower, work.columns, work.odds, work.rest
        rank = known if known > 0 else norm.shape[0]
        count = rank if first else learnable
        if not first:
            load(step.point, rank, step, work)
            for i in range(learnable):
                # X = factor factor^T in the frame of the step's start, factor = L diag(e^(v/2)).
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
        # Directions without any overlap have no column of their own, and need some frame.
        complete(out, rank, learnable)

    return diagonalise


call_diagonalise = call_at(_DIAGONALISE)

_RECORD = types.void(ADDRESS, types.int64, types.int64, types.int64, types.float64)


@separate(_RECORD)
def record(where: int, run: int, row: int, stop: int, after: float) -> None:
    """Write what a run is at a time after the start of its step, 0 for the start, to some rows.

    Energies are ``alpha_beta (A_G f*)_beta`` for every mode; their sum is ``h(G)``.
    """
    table, work, step, task, functions = machine_at(where)
    _, learnable, _ = active(step)
    gram, vectors, overlap, moved = work.hessian, work.frame[ELSEWHERE], work.overlap, work.monomial
    rank = overlap.shape[0]
    interpolate(step, fraction(step, after) if after > 0.0 else 0.0)
    call_diagonalise(functions.diagonalise, where, ELSEWHERE, False)
    for i in range(rank):
        overlap[i] = work.odds[i] / (1.0 + work.odds[i]) if i < learnable else 0.0
    for i in range(rank):
        for j in range(i + 1):
            total = 0.0
            for k in range(learnable):
                total += vectors[i, k] * vectors[j, k] * overlap[k]
            gram[i, j] = total
            gram[j, i] = total
    # Coefficients of p(G z), which are those of A_G f*.
    substitute(table.substitution, gram, work.buffer, moved[1])
    for at in range(row, stop):
        energy, overlaps, grams = task.energy[run, at], task.overlap[run, at], task.gram[run, at]
        explained = 0.0
        for mode in range(table.mode_row.shape[0]):
            place, value = table.mode_row[mode], table.mode_value[mode]
            # A constant has no row in the tables: averaging leaves it as it is.
            energy[mode] = value * (value if place < 0 else moved[1, place] * table.weight[place])
            explained += energy[mode]
        task.loss[run, at] = max(0.5 * (table.norm * table.norm - explained), 0.0)
        for i in range(rank):
            overlaps[i] = overlap[i]
            for j in range(rank):
                grams[i, j] = gram[i, j]


call_record = call_at(_RECORD)
