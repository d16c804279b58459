"""Compiled integrator of the flow of frame and link: Rodas5P steps, grid, crossings.

On a plateau what is learned relaxes faster than anything else moves, and at a small separation of
time scales the link faster still: the method is implicit, with the exact Jacobian.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from .compile import compiled
from .linear import factorise, narrow, solve, trial
from .link_tables import LinkTables
from .rodas import DENSE, GAMMA, STAGES, A, C
from .stiefel import Work, jacobian, singular, slope

__all__ = ["integrate_frames"]

SAFETY, SHRINK, GROW = 0.9, 0.2, 8.0
CAUTION = 0.2
"""Local errors are held this much below rtol, so that a whole run stays within it."""
FLOOR = 1e-12
"""Rows of M below this need no relative accuracy."""
MAX_STEPS = 20_000


class Path(NamedTuple):
    """One step: its ends, stages, interpolant and matrices."""

    start: np.ndarray
    first: np.ndarray
    point: np.ndarray
    end: np.ndarray
    kept: np.ndarray
    stages: np.ndarray
    dense: np.ndarray
    jacobian: np.ndarray
    matrix: np.ndarray
    pivot: np.ndarray
    scale: np.ndarray
    columns: np.ndarray
    sizes: np.ndarray


@compiled
def _step(
    table: LinkTables,
    link: np.ndarray,
    rate: float,
    decay: np.ndarray,
    h: float,
    path: Path,
    work: Work,
) -> None:
    """One step of size `h` from the start, whose Jacobian is known."""
    size = path.start.shape[0]
    inverse = 1.0 / h
    for i in range(size):
        for j in range(size):
            path.matrix[i, j] = -path.jacobian[i, j] * (path.scale[j] / path.scale[i])
        path.matrix[i, i] += inverse / GAMMA
    factorise(path.matrix, path.pivot, path.end, size)
    for stage in range(STAGES):
        right = path.stages[stage]
        if stage == 0:
            for i in range(size):
                right[i] = path.first[i]
        else:
            for i in range(size):
                if stage < 6:
                    total = path.start[i]
                    for j in range(stage):
                        total += A[stage, j] * path.stages[j, i]
                    path.point[i] = total
                else:
                    path.point[i] += path.stages[stage - 1, i]
            slope(table, path.point, link, rate, decay, work, right)
        for j in range(stage):
            weight = C[stage, j] * inverse
            for i in range(size):
                right[i] += weight * path.stages[j, i]
        for i in range(size):
            right[i] /= path.scale[i]
        solve(path.matrix, path.pivot, right, size)
        for i in range(size):
            right[i] *= path.scale[i]
    for i in range(size):
        path.end[i] = path.point[i] + path.stages[STAGES - 1, i]


@compiled
def _keep_interpolant(path: Path) -> None:
    for i in range(path.start.shape[0]):
        path.kept[i] = path.end[i]
        for row in range(3):
            total = 0.0
            for j in range(STAGES):
                total += DENSE[row, j] * path.stages[j, i]
            path.dense[row, i] = total


@compiled
def _interpolate(path: Path, theta: float) -> None:
    """Put the state at a fraction of the step into ``point``."""
    rest = 1.0 - theta
    for i in range(path.start.shape[0]):
        inner = path.dense[1, i] + theta * path.dense[2, i]
        inner = path.kept[i] + rest * (path.dense[0, i] + theta * inner)
        path.point[i] = rest * path.start[i] + theta * inner


@compiled
def _rescale(table: LinkTables, rate: float, path: Path) -> None:
    """Set the natural size of every unknown at the start, and the overlaps there.

    Each row of M, the overlap of a direction of the target with the student, has its own size: what
    is still to be learned keeps its digits beside what is learned. A link that the frame explains
    has coefficients of order ``|T_k| prod_j |M e_j|^gamma_j``.
    """
    rank, students = table.child.shape[1], table.successor.shape[1]
    entries = rank * students
    singular(path.start, rank, students, path.columns, path.sizes)
    for i in range(rank):
        largest = FLOOR
        for j in range(students):
            largest = max(largest, abs(path.start[i * students + j]))
        for j in range(students):
            path.scale[i * students + j] = largest
    if rate == 0.0:
        return
    for gamma in range(table.root.shape[0]):
        size = table.scale[gamma]
        for j in range(students):
            power = table.exponents[gamma, j]
            if power > 0:
                largest = FLOOR
                for i in range(rank):
                    largest = max(largest, abs(path.start[i * students + j]))
                size *= min(largest, 1.0) ** power
        path.scale[entries + gamma] = max(size, 1e-100)


@compiled
def _error(path: Path, tolerance: float) -> float:
    """Largest local error, relative to the natural sizes, in units of what is allowed."""
    worst = 0.0
    for i in range(path.start.shape[0]):
        error = abs(path.stages[STAGES - 1, i]) / path.scale[i]
        if not error <= worst:  # `max` would pass over NaN
            worst = error
    return worst / tolerance


@compiled
def _settled(table: LinkTables, rate: float, path: Path) -> bool:
    """Tell whether frame and link are learned to rounding, so that nothing will move any more."""
    rank, students = table.child.shape[1], table.successor.shape[1]
    if students < rank or path.sizes[rank - 1] < 1.0 - 1e-13:
        return False
    for i in range(rank * students, path.start.shape[0]):
        if abs(path.first[i]) > 1e-13 * rate * path.scale[i]:
            return False
    return True


@compiled
def _excess(path: Path, table: LinkTables, state: np.ndarray, which: int, level: float) -> float:
    """Logarithm of an overlap over a level."""
    rank, students = table.child.shape[1], table.successor.shape[1]
    singular(state, rank, students, path.columns, path.sizes)
    return np.log(max(path.sizes[which], 1e-300) / level)


@compiled
def _cross(
    table: LinkTables,
    link: np.ndarray,
    rate: float,
    decay: np.ndarray,
    h: float,
    which: int,
    level: float,
    path: Path,
    work: Work,
) -> float:
    """Fraction of the step at which an overlap reaches a level.

    Found on the interpolant, then made as accurate as the steps: by steps that end there.
    """
    low, high = 0.0, 1.0
    f_low = _excess(path, table, path.start, which, level)
    f_high = _excess(path, table, path.kept, which, level)
    theta, value = 1.0, f_high
    for iteration in range(60):
        theta = trial(low, high, f_low, f_high, iteration)
        _interpolate(path, theta)
        value = _excess(path, table, path.point, which, level)
        if abs(value) < 1e-9 or high - low < 1e-12:
            break
        low, high, f_low, f_high = narrow(low, high, f_low, f_high, theta, value)
    beside = min(theta + 1e-4, 1.0) if theta < 0.5 else theta - 1e-4
    _interpolate(path, beside)
    pitch = (_excess(path, table, path.point, which, level) - value) / (beside - theta)
    for _ in range(4):
        _step(table, link, rate, decay, theta * h, path, work)
        missing = _excess(path, table, path.end, which, level)
        if not pitch > 0.0:
            break
        theta = min(max(theta - missing / pitch, 1e-12), 1.0)
        if abs(missing) < 1e-12:
            break
    return theta


@compiled
def _run(
    table: LinkTables,
    link: np.ndarray,
    rate: float,
    decay: np.ndarray,
    time: np.ndarray,
    levels: np.ndarray,
    rtol: float,
    path: Path,
    work: Work,
    states: np.ndarray,
    crossing: np.ndarray,
    counts: np.ndarray,
) -> bool:
    """Integrate one run from ``states[0]``; returns whether it succeeded."""
    rank, students = table.child.shape[1], table.successor.shape[1]
    size = path.start.shape[0]
    for i in range(size):
        path.start[i] = states[0, i]
    now, remainder, h, previous, row = 0.0, 0.0, -1.0, 1.0, 1
    last = time[-1]
    attempts = 0
    while True:
        _rescale(table, rate, path)
        if counts[0] == 0:
            for a in range(rank):
                for k in range(levels.shape[0]):
                    if path.sizes[a] >= levels[k]:
                        crossing[a, k] = 0.0
        slope(table, path.start, link, rate, decay, work, path.first)
        jacobian(table, path.start, link, rate, decay, work, path.jacobian)
        counts[1] += 2
        if rate > 0.0 and _settled(table, rate, path):
            while row < time.shape[0]:
                for i in range(size):
                    states[row, i] = path.start[i]
                row += 1
            return True
        if h < 0.0:
            fastest = rate
            for i in range(size):
                fastest = max(fastest, abs(path.first[i]) / path.scale[i])
                for j in range(size):
                    ratio = path.scale[j] / path.scale[i]
                    fastest = max(fastest, abs(path.jacobian[i, j]) * ratio)
            h = 0.01 / max(fastest, 1e-300)
        rejected = False
        while True:
            if attempts >= MAX_STEPS:
                return False
            attempts += 1
            h = min(h, 1.000001 * (last - now))
            _step(table, link, rate, decay, h, path, work)
            counts[1] += STAGES - 1
            error = _error(path, CAUTION * rtol)
            if not error < 1e10:
                error = 1e10
            factor = SAFETY * max(error, 1e-8) ** -0.2
            if error <= 1.0:
                break
            rejected = True
            h *= max(SHRINK, min(factor, 0.9))
        if rejected:
            factor = min(factor, 1.0)
        else:
            factor *= (max(error, 1e-8) / previous) ** -0.08  # proportional-integral control
        previous = max(error, 1e-4)
        counts[0] += 1
        _keep_interpolant(path)

        while row < time.shape[0]:
            theta = ((time[row] - now) - remainder) / h
            if theta > 1.0:
                break
            _interpolate(path, theta)
            for i in range(size):
                states[row, i] = path.point[i]
            row += 1
        singular(path.kept, rank, students, path.columns, path.sizes)
        for a in range(min(rank, students)):
            reached = path.sizes[a]
            for k in range(levels.shape[0]):
                if np.isnan(crossing[a, k]) and reached >= levels[k]:
                    theta = _cross(table, link, rate, decay, h, a, levels[k], path, work)
                    moment = now + (remainder + theta * h)
                    if moment <= last:
                        crossing[a, k] = moment
                    singular(path.kept, rank, students, path.columns, path.sizes)
        if row == time.shape[0]:
            return True
        moved = remainder + h
        total = now + moved
        remainder = moved - (total - now)
        now = total
        for i in range(size):
            path.start[i] = path.kept[i]
        h *= min(max(factor, SHRINK), GROW)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def integrate_frames(
    table: LinkTables,
    link: np.ndarray,
    rate: float,
    decay: np.ndarray,
    time: np.ndarray,
    levels: np.ndarray,
    rtol: float,
    work: Work,
    states: np.ndarray,
    crossing: np.ndarray,
    failed: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Integrate runs one after another; every output array has the run as its first axis."""
    runs, _, size = states.shape
    rank, students = table.child.shape[1], table.successor.shape[1]
    path = Path(
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros((STAGES, size)),
        np.zeros((3, size)),
        np.zeros((size, size)),
        np.zeros((size, size)),
        np.zeros(size, dtype=np.int64),
        np.ones(size),
        np.zeros((students, rank)),
        np.zeros(rank),
    )
    for run in range(runs):
        failed[run] = not _run(
            table,
            link,
            rate,
            decay,
            time,
            levels,
            rtol,
            path,
            work,
            states[run],
            crossing[run],
            counts[run],
        )
