"""What every flow that follows M(t) reports: overlaps, energies, crossings, how it ended."""

from __future__ import annotations

from math import factorial, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schema import STATUS
from ..targets.averaging import energy
from ..targets.ladder import relevant_directions
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Problem

CONVERGED, CENSORED, TRAPPED, FAILED = range(len(STATUS))


def overlaps(correlation: FloatArray, rank: int) -> FloatArray:
    """Overlaps (..., rank) of M (..., rank, student_rank): squared singular values, descending."""
    squares = np.minimum(np.linalg.svd(correlation, compute_uv=False) ** 2, 1.0)[..., :rank]
    missing = rank - squares.shape[-1]
    return np.pad(squares, [(0, 0)] * (squares.ndim - 1) + [(0, missing)])


def converged(target: Target, student_rank: int, crossing_time: FloatArray) -> NDArray[np.bool_]:
    """Tell which runs, by crossing times (runs, rank, levels), have learned all they can."""
    learnable = min(relevant_directions(target), student_rank)
    return np.asarray(np.isfinite(crossing_time[:, :learnable, -1]).all(axis=1))


def link_on_modes(
    modes: IntArray, correlation: FloatArray, exponents: IntArray, links: FloatArray
) -> FloatArray:
    r"""Project links on modes of the target: ``sum_gamma c_gamma (A_M h_beta)_gamma``.

    As :math:`(A_M h_\beta)_\gamma = \sqrt{\gamma! / \beta!} [u^\gamma] (M u)^\beta`, products
    of linear forms are expanded.

    Shapes: modes (m, r); correlation (..., r, q); exponents (P, q); links (..., P); returns
    (..., m).
    """
    row = {tuple(gamma): j for j, gamma in enumerate(exponents.tolist())}
    out = np.zeros((*links.shape[:-1], len(modes)))
    for k, beta in enumerate(modes.tolist()):
        # (M u)^beta factor by factor, as coefficients of u^gamma.
        powers = {(0,) * exponents.shape[1]: np.ones(links.shape[:-1])}
        for axis in np.repeat(np.arange(len(beta)), beta):
            raised: dict[tuple[int, ...], FloatArray] = {}
            for gamma, value in powers.items():
                for j in range(len(gamma)):
                    up = (*gamma[:j], gamma[j] + 1, *gamma[j + 1 :])
                    raised[up] = raised.get(up, 0.0) + value * correlation[..., axis, j]
            powers = raised
        for gamma, value in powers.items():
            if gamma in row:  # else the link has no such feature
                ratio = prod(map(factorial, gamma)) / prod(map(factorial, beta))
                out[..., k] += ratio**0.5 * value * links[..., row[gamma]]
    return out


def observables(
    problem: Problem,
    correlation: FloatArray,
    crossing_time: FloatArray,
    failed: np.ndarray,
    counts: IntArray,
    climbed: Target | None = None,
) -> dict[str, Any]:
    """Variables of the schema that depend on M(t) alone.

    Shapes: correlation (runs, T, rank, student_rank); crossing_time (runs, rank, levels);
    failed (runs,); counts (runs, 2).
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
        "correlation": correlation,
        "crossing_time": crossing_time,
        "status": np.where(failed, FAILED, status).astype(np.int8),
        "n_steps": counts[:, 0].copy(),
        "n_rhs": counts[:, 1].copy(),
    }
