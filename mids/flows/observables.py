"""What every flow that follows M(t) reports: overlaps, energies, crossings, how it ended."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schema import STATUS
from ..targets.averaging import energy
from ..targets.ladder import relevant_directions
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Problem

__all__ = ["CENSORED", "CONVERGED", "FAILED", "TRAPPED", "converged", "observables", "overlaps"]

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


def converged(target: Target, student_rank: int, crossing_time: FloatArray) -> NDArray[np.bool_]:
    """Tell which runs have learned all they can.

    Parameters
    ----------
    target : Target
    student_rank : int
    crossing_time : (runs, rank, levels) float array
        NaN where a level is not reached.

    Returns
    -------
    (runs,) bool array
        Whether as many directions have reached the highest level as the target depends on, or the
        student has.
    """
    learnable = min(relevant_directions(target), student_rank)
    return np.asarray(np.isfinite(crossing_time[:, :learnable, -1]).all(axis=1))


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
        ``overlap``, ``energy``, ``gram0``, ``initial``, ``crossing_time``, ``status`` (see
        `converged`), ``n_steps`` and ``n_rhs``.
    """
    target = climbed or problem.target
    shape = correlation.shape[:2]
    overlap = np.full((*shape, target.rank), np.nan)
    energies = np.full((*shape, len(target.modes)), np.nan)
    for run, path in enumerate(correlation):  # one by one: bits must not depend on the others
        done = np.isfinite(path).all(axis=(1, 2))
        overlap[run, done] = overlaps(path[done], target.rank)
        energies[run, done] = energy(target, path[done] @ path[done].swapaxes(1, 2))
    learned = converged(target, correlation.shape[-1], crossing_time)
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
