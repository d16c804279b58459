"""Integrating frame and link: the compiled flow of `planted` and `joint`, from Python."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..schema import LEVELS
from ..targets.ladder import leaps
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Problem

__all__ = ["Frames", "averages", "degrees", "follow", "learned_frame", "link_of"]


@dataclass(frozen=True)
class Frames:
    """Trajectories of frame and link.

    Shapes: correlation (runs, T, rank, student_rank); link (runs, T, n); crossing_time (runs,
    rank, levels); failed (runs,); counts (runs, 2).
    """

    correlation: FloatArray
    link: FloatArray
    crossing_time: FloatArray
    failed: np.ndarray
    counts: IntArray


def degrees(target: Target, student_rank: int) -> IntArray:
    """Degree of each Hermite coefficient of a link.

    Shapes: returns (n,).
    """
    from .engine.link_tables import link_tables

    total: IntArray = link_tables(target, student_rank).exponents.sum(axis=1)
    return total


@lru_cache(maxsize=64)
def learned_frame(target: Target) -> FloatArray:
    """Orthogonal matrix whose columns are the directions in the order in which they are learned.

    Shapes: returns (rank, rank).
    """
    found: list[FloatArray] = []
    steps = [step.learned for step in leaps(target).steps]
    for column in np.concatenate([*steps, np.eye(target.rank)], axis=1).T:
        rest = column
        for _ in range(2):  # what is learned may have turned away from what was learned before
            for direction in found:
                rest = rest - (direction @ rest) * direction
        size = np.linalg.norm(rest)
        if size > 1e-3 and len(found) < target.rank:
            rest = rest / size
            found.append(np.where(np.abs(rest) < 1e-12, 0.0, rest))
    return np.column_stack(found)


def link_of(target: Target) -> FloatArray:
    """Hermite coefficients of the target as a link of a student of the same rank.

    Shapes: returns (n,).
    """
    from .engine.link_tables import link_tables

    values = dict(zip(map(tuple, target.modes.tolist()), target.coefficients, strict=True))
    exponents = link_tables(target, target.rank).exponents.tolist()
    return np.array([values.get(tuple(gamma), 0.0) for gamma in exponents])


def averages(target: Target, correlation: FloatArray) -> FloatArray:
    """Hermite coefficients of ``A_M f*``.

    Shapes: correlation (..., rank, student_rank); returns (..., n_link).
    """
    from .engine.link_tables import link_tables
    from .engine.stiefel import averaged_links, work_for

    *shape, rank, students = correlation.shape
    table = link_tables(target, students)
    states = np.ascontiguousarray(correlation).reshape(-1, rank * students)
    out = np.zeros((len(states), len(table.root)))
    averaged_links(table, states, work_for(table), out)
    return out.reshape(*shape, -1)


def follow(
    problem: Problem,
    *,
    fixed: FloatArray | None = None,
    rate: float = 0.0,
    decay: FloatArray | None = None,
    start: FloatArray | None = None,
) -> Frames:
    """Integrate ``M' = D - M sym(M^T D)`` and, unless the link is fixed, the link.

    Shapes: fixed (n,); decay (n,); start (runs, n).
    """
    from .engine.link_tables import link_tables
    from .engine.stiefel import work_for
    from .engine.stiefel_integrator import integrate_frames

    runs, rank, students = problem.initial.shape
    table = link_tables(problem.target, students)
    count, entries, steps = len(table.root), rank * students, len(problem.time)
    moving = 0 if start is None else count
    states = np.full((runs, steps, entries + moving), np.nan)
    states[:, 0, :entries] = problem.initial.reshape(runs, -1)
    if start is not None:
        states[:, 0, entries:] = start
    crossing = np.full((runs, rank, len(LEVELS)), np.nan)
    failed = np.zeros(runs, dtype=np.bool_)
    counts = np.zeros((runs, 2), dtype=np.int64)
    work = work_for(table)
    integrate_frames(
        table,
        np.zeros(count) if fixed is None else fixed,
        rate,
        np.ones(count) if decay is None else decay,
        np.ascontiguousarray(problem.time),
        np.array(LEVELS),
        problem.rtol,
        work,
        states,
        crossing,
        failed,
        counts,
    )
    return Frames(
        states[..., :entries].reshape(runs, steps, rank, students),
        states[..., entries:],
        crossing,
        failed,
        counts,
    )
