r"""The two-timescale flow of additive targets with hundreds of orthonormal directions.

In the frame of the directions :math:`H_{ij} = a_i a_j \sum_k k c_k^2 G_{ij}^{k-1}` follows from G
entry by entry. Directions whose rows of M(0) are orthogonal to all others' never meet, and are
integrated by themselves; the others together, as ``M' = (I - G) H M``. A direction that has been
learned to the tolerance leaves with its row and the student's column along it, so that what is left
moves on one scale of time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..schema import LEVELS
from ..targets.additive import AdditiveTarget, additive
from ..targets.basis import fitting
from ..targets.ladder import ladder
from ..validation import FloatArray, IntArray
from .base import Problem
from .initial import least_overlap
from .observables import CENSORED, CONVERGED, FAILED
from .time_grid import chi_squared_quantile, fast_link_duration, logarithmic

__all__ = ["check_separable", "grid", "integrate_many"]

Integrate = Callable[[Problem], dict[str, Any]]

LATE = 0.1
"""Fraction of runs that a default grid may leave before the last direction is learned."""
MEET = 1e-14
"""Cosine of two rows of M(0) below which their directions do not meet."""
MAX_STEPS = 100_000


def check_separable(target: AdditiveTarget) -> None:
    """Raise InputError unless learned directions are those of the target."""
    if target.separable is None:
        raise InputError(
            f"the flow 'two-timescale' of an additive target of rank {target.rank} needs "
            "orthonormal directions and a link without h1, so that the directions are learned one "
            f"by one; take the flow two-layer, or {fitting(target.rank)}"
        )


class Path(NamedTuple):
    """What is known of directions on the grid.

    Shapes: overlap (T, n); energy (T, degree + 1, n); crossing (n, levels); counts (2,).
    """

    overlap: FloatArray
    energy: FloatArray
    crossing: FloatArray
    counts: IntArray


def grid(
    target: AdditiveTarget, dim: int, student_rank: int, initial: FloatArray | None
) -> FloatArray:
    """Grid that covers all but the latest escape of most runs, all clocks running side by side."""
    step = ladder(target)[0]
    # With all others learned, what is left for the last direction is chi^2_{q-n+1} / d.
    freedom = max(student_rank - len(target.weights) + 1, 1)
    delta = chi_squared_quantile(LATE, freedom) / dim if initial is None else least_overlap(initial)
    last = fast_link_duration(delta, step.exponent, step.weakest) + 10 / step.weakest
    return logarithmic(10.0 ** np.floor(np.log10(0.01 / step.strength)), 2 * last)


def integrate_many(problem: Problem, alone: Integrate) -> dict[str, Any]:
    """Trajectories of a block of runs, those of `alone` for single directions, without gram."""
    target = problem.target
    assert isinstance(target, AdditiveTarget)
    runs, rank, q = problem.initial.shape
    times, levels = len(problem.time), len(LEVELS)
    orders = np.flatnonzero(target.series)
    out: dict[str, Any] = {
        "overlap": np.full((runs, times, rank), np.nan),
        "energy": np.full((runs, times, len(target.modes)), np.nan),
        "loss": np.full((runs, times), np.nan),
        "crossing_time": np.full((runs, rank, levels), np.nan),
        "status": np.zeros(runs, dtype=np.int8),
        "gram0": problem.initial @ problem.initial.swapaxes(1, 2),
    }
    counts = np.zeros((runs, 2), dtype=np.int64)
    count = len(target.weights)
    for row, M0 in enumerate(problem.initial):
        frame = target.directions.T @ M0  # beyond the directions nothing is ever learned
        overlaps, energies = [], np.zeros((times, len(orders), count))
        crossings = []
        for of in components(frame):
            found = path(target.weights[of], target.series, frame[of], problem, alone)
            overlaps.append(found.overlap)
            crossings.append(found.crossing)
            energies[:, :, of] = found.energy[:, orders]
            counts[row] += found.counts
        crossing = np.sort(np.concatenate(crossings), axis=0)  # NaN last
        out["crossing_time"][row, :count] = crossing
        overlap = np.sort(np.concatenate(overlaps, axis=1), axis=1)[:, ::-1]
        out["overlap"][row] = np.pad(overlap, [(0, 0), (0, rank - count)])
        if target.aligned:
            out["energy"][row] = _in_order(target, energies, orders)
        # L = (|f*|^2 - h(G)) / 2.
        out["loss"][row] = 0.5 * (target.norm**2 - energies.sum(axis=(1, 2)))
        learned = np.isfinite(crossing[: min(count, q), -1]).all()
        out["status"][row] = CONVERGED if learned else CENSORED
        if np.isnan(out["loss"][row]).any():
            out["status"][row] = FAILED
    half = out["crossing_time"][:, :, LEVELS.index(0.5)]
    out["stage_duration"] = np.diff(half, prepend=0.0, axis=1)
    out["n_steps"], out["n_rhs"] = counts.T.copy()
    return out


def _in_order(target: AdditiveTarget, energies: FloatArray, orders: IntArray) -> FloatArray:
    """Energies by mode; the constant is one mode. Shapes: energies (T, orders, n)."""
    parts = [
        energies[:, n].sum(axis=1, keepdims=True) if k == 0 else energies[:, n]
        for n, k in enumerate(orders)
    ]
    if orders[0] == 0 and len(target.modes) < sum(part.shape[1] for part in parts):
        parts = parts[1:]  # weights that sum to zero leave no constant
    return np.concatenate(parts, axis=1)


def components(rows: FloatArray) -> list[IntArray]:
    """Return groups of directions whose rows are not orthogonal to each other.

    Shapes: rows (n, q).
    """
    from scipy.sparse.csgraph import connected_components

    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norms > 0, norms, 1.0)
    _, label = connected_components(np.abs(unit @ unit.T) > MEET, directed=False)
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def path(
    weights: FloatArray,
    series: FloatArray,
    rows: FloatArray,
    problem: Problem,
    alone: Integrate,
) -> Path:
    """Path of directions that meet, or of one alone.

    Shapes: weights (n,); series (degree + 1,); rows (n, q).
    """
    if len(weights) > 1:
        return _together(weights, series, rows, problem)
    # The flow of one direction is that of weight 1, at another pace.
    pace = float(weights[0]) ** 2
    start = np.array([[[np.linalg.norm(rows)]]])
    one = replace(
        problem,
        target=additive([1.0], series.tolist()),
        initial=start,
        runs=problem.runs[:1],
        time=problem.time * pace,
    )
    found = alone(one)
    overlap = found["overlap"][0]
    energy = pace * series**2 * overlap ** np.arange(len(series))
    counts = np.array([found["n_steps"][0], found["n_rhs"][0]])
    return Path(overlap, energy[:, :, None], found["crossing_time"][0] / pace, counts)


def _together(weights: FloatArray, series: FloatArray, rows: FloatArray, problem: Problem) -> Path:
    """Take steps of `scipy.integrate.DOP853`, with errors relative to each row of M."""
    from scipy.integrate import DOP853
    from scipy.optimize import brentq

    time, levels = problem.time, np.array(LEVELS)
    n, times = len(weights), len(time)
    squares = series**2
    kept, M = np.arange(n), rows.copy()
    overlap, energy = np.full((times, n), np.nan), np.full((times, len(series), n), np.nan)
    crossing = np.full((n, len(levels)), np.nan)
    counts = np.zeros(2, dtype=np.int64)
    # The method's error is a mean over the rows; it could all be in one of them.
    rtol = max(problem.rtol / np.sqrt(n), 3e-14)

    def slope(_: float, y: FloatArray) -> FloatArray:
        M = y.reshape(len(kept), -1)
        turned = weights[kept][:, None] * M
        if len(squares) == 3:  # H = 2 c_2^2 a a^T G, so that H M = 2 c_2^2 a M (M^T a M)
            inner = M.T @ turned
            return np.asarray((turned - M @ inner) @ (2.0 * squares[2] * inner)).ravel()
        # Horner's rule, entry by entry: H = sum_k k c_k^2 G^(k-1).
        G = M @ M.T
        H = np.zeros_like(G)
        for k in range(len(squares) - 1, 0, -1):
            H = H * G + k * squares[k]
        K = weights[kept][:, None] * (H @ turned)
        return np.asarray(K - M @ (M.T @ K)).ravel()

    def eigenvalues(M: FloatArray) -> FloatArray:
        values = np.linalg.eigvalsh(M @ M.T if len(M) <= len(M.T) else M.T @ M)[::-1]
        values = np.clip(np.pad(values, (0, len(M) - len(values))), 0.0, 1.0)
        # Directions that were learned have left the system, with an overlap of 1.
        return np.concatenate([np.ones(n - len(M)), values])

    def note(row: int, M: FloatArray) -> None:
        overlap[row] = eigenvalues(M)
        G = M @ M.T
        power = np.ones_like(G)
        for k, square in enumerate(squares):
            energy[row, k] = square * weights**2
            energy[row, k, kept] = square * weights[kept] * (power @ weights[kept])
            power = power * G
        if series[0]:  # the constant is learned at once, with all pairs
            energy[row, 0] = squares[0] * weights * weights.sum()

    crossing[eigenvalues(M)[:, None] >= levels] = 0.0
    solver: Any = None
    t, row = 0.0, 0
    while row < times and counts[0] < MAX_STEPS:
        if solver is None:
            solver = DOP853(slope, t, M.ravel(), time[-1], rtol=rtol)
        solver.atol = (rtol * _row_sizes(M)).repeat(M.shape[1])
        evaluations, old, q = solver.nfev, M, M.shape[1]
        solver.step()
        if solver.status == "failed":
            break
        t, M = solver.t, solver.y.reshape(M.shape)
        now = eigenvalues(M)
        reached = np.argwhere((now[:, None] >= levels) & np.isnan(crossing))
        if len(reached) or time[row] <= t:
            dense = solver.dense_output()
        while row < times and time[row] <= t:
            note(row, dense(time[row]).reshape(M.shape))
            row += 1
        if len(reached):
            below = eigenvalues(old)
        for i, k in reached:

            def excess(at: float, i: int = i, k: int = k, read: Any = dense, q: int = q) -> float:
                return float(eigenvalues(read(at).reshape(-1, q))[i] - levels[k])

            # Brent's method needs a change of sign, which rounding at an end of the step may hide.
            outside = below[i] >= levels[k] or excess(t) <= 0.0
            crossing[i, k] = t if outside else brentq(excess, solver.t_old, t, rtol=1e-12)
        counts += 1, solver.nfev - evaluations
        for i in _learned(M, problem.rtol)[::-1]:
            direction = M[i] / np.linalg.norm(M[i])
            turned = np.linalg.qr(np.column_stack([direction, np.eye(M.shape[1])]))[0][:, 1:]
            M, kept, solver = np.delete(M, i, axis=0) @ turned, np.delete(kept, i), None
        if not M.size:
            for late in range(row, times):
                note(late, M)
            break
    return Path(overlap, energy, crossing, counts)


def _learned(M: FloatArray, rtol: float) -> IntArray:
    """Directions whose row is the student's up to the tolerance, and is orthogonal to the others.

    Shapes: M (n, q).
    """
    squares = (M * M).sum(axis=1)
    full = np.flatnonzero(squares > 1.0 - 10.0 * rtol)
    if len(full) == M.shape[1]:  # the student has no direction left for the others
        return full
    along = (M @ M[full].T) ** 2
    along[full, np.arange(len(full))] = 0.0
    return np.asarray(full[(along <= rtol * squares[:, None]).all(axis=0)])


def _row_sizes(M: FloatArray) -> FloatArray:
    """Largest entry of each row, or what is none."""
    return np.asarray(np.maximum(np.abs(M).max(axis=1, initial=0.0), 1e-150))
