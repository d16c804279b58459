"""What every flow that follows M(t) reports: overlaps, energies, crossings, how it ended."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import FloatArray, IntArray
from ..operators import energy
from ..schema import LEVELS, STATUS
from ..targets import Target
from .base import Problem

__all__ = ["CENSORED", "CONVERGED", "FAILED", "TRAPPED", "observables", "overlaps"]

CONVERGED, CENSORED, TRAPPED, FAILED = range(len(STATUS))


def overlaps(correlation: FloatArray, rank: int) -> FloatArray:
    """Overlaps of correlation matrices: the squared singular values, descending.

    Parameters
    ----------
    correlation : (..., rank, student_rank) float array
        M.
    rank : int
        Length of the result; a student of smaller rank has zeros at the end.

    Returns
    -------
    (..., rank) float array

    Examples
    --------
    >>> overlaps(np.array([[0.1], [0.0]]), 2).round(12).tolist()
    [0.01, 0.0]
    """
    squares = np.minimum(np.linalg.svd(correlation, compute_uv=False) ** 2, 1.0)[..., :rank]
    missing = rank - squares.shape[-1]
    return np.pad(squares, [(0, 0)] * (squares.ndim - 1) + [(0, missing)])


def observables(
    problem: Problem,
    correlation: FloatArray,
    crossing_time: FloatArray,
    failed: np.ndarray,
    counts: IntArray,
    climbed: Target | None = None,
) -> dict[str, Any]:
    """Variables of the schema that depend on M(t) alone.

    Parameters
    ----------
    problem : Problem
    correlation : (runs, T, rank, student_rank) float array
        M on the time grid; NaN after a failure.
    crossing_time : (runs, rank, levels) float array
        NaN where a level is not reached.
    failed : (runs,) bool array
    counts : (runs, 2) int array
        Steps and evaluations of the right-hand side.
    climbed : Target, optional
        The target whose ``h(G)`` the energies add up to, where a ridge weighs it.

    Returns
    -------
    dict of str to array
        ``overlap``, ``energy``, ``gram0``, ``initial``, ``crossing_time``, ``status`` (converged
        where every direction the student can hold has reached the highest level), ``n_steps`` and
        ``n_rhs``.
    """
    target = climbed or problem.target
    learnable = min(correlation.shape[2:])
    shape = correlation.shape[:2]
    overlap = np.full((*shape, target.rank), np.nan)
    energies = np.full((*shape, len(target.modes)), np.nan)
    for run, path in enumerate(correlation):  # one by one: bits must not depend on the others
        done = np.isfinite(path).all(axis=(1, 2))
        overlap[run, done] = overlaps(path[done], target.rank)
        energies[run, done] = energy(target, path[done] @ path[done].swapaxes(1, 2))
    learned = np.isfinite(crossing_time[:, :learnable, len(LEVELS) - 1]).all(axis=1)
    status = np.where(learned, CONVERGED, CENSORED)
    return {
        "overlap": overlap,
        "energy": energies,
        "gram0": problem.initial @ problem.initial.swapaxes(1, 2),
        "initial": problem.initial,
        "crossing_time": crossing_time,
        "status": np.where(failed, FAILED, status).astype(np.int8),
        "n_steps": counts[:, 0].copy(),
        "n_rhs": counts[:, 1].copy(),
    }
