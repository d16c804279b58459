"""Takes a stiff flow and starts of runs; gives states on a time grid and crossings of levels.

Array code over the runs of a block, each with its own time and step: what a run gives does not
depend on the runs beside it.  On a plateau what is learned relaxes faster than anything else moves,
so the method is Rodas5P, implicit, with the exact Jacobian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...validation import FloatArray, IntArray
from .tableaux import DENSE, GAMMA, STAGES, A, C

SAFETY, SHRINK, GROW = 0.9, 0.2, 8.0
CAUTION = 0.2
"""Local errors are held this much below rtol, so that a whole run stays within it."""
MAX_STEPS = 20_000


class Flow(Protocol):
    """An autonomous flow of states y, shape (n, size)."""

    def linearise(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Right-hand side (n, size) and Jacobian (n, size, size)."""

    def slope(self, y: FloatArray) -> FloatArray:
        """Right-hand side (n, size)."""

    def sizes(self, y: FloatArray) -> FloatArray:
        """Natural size of each unknown, to which errors are compared, (n, size)."""

    def overlaps(self, y: FloatArray) -> FloatArray:
        """Overlaps whose crossings are wanted, (n, k)."""

    def at_rest(self, y: FloatArray, slope: FloatArray, sizes: FloatArray) -> NDArray[np.bool_]:
        """Which states will not move any more, (n,)."""


@dataclass
class Paths:
    """Paths of runs.

    Shapes: states (n, T, size), NaN after a failure; crossing (n, k, levels); failed (n,); counts
    (n, 2), of steps and of right-hand sides.
    """

    states: FloatArray
    crossing: FloatArray
    failed: NDArray[np.bool_]
    counts: IntArray


def follow(
    flow: Flow, start: FloatArray, time: FloatArray, levels: FloatArray, rtol: float
) -> Paths:
    """Follow runs from their starts, shape (n, size), along the time grid."""
    runs, last, tolerance = len(start), time[-1], CAUTION * rtol
    states = np.full((runs, len(time), start.shape[1]), np.nan)
    states[:, 0] = start
    crossing = np.full((*flow.overlaps(start).shape, len(levels)), np.nan)
    crossing[flow.overlaps(start)[:, :, None] >= levels] = 0.0
    failed, counts = np.zeros(runs, dtype=bool), np.zeros((runs, 2), dtype=np.int64)
    y, row = start.copy(), np.ones(runs, dtype=np.int64)
    now, remainder = np.zeros(runs), np.zeros(runs)  # of a compensated sum
    h, previous = np.full(runs, np.nan), np.ones(runs)
    attempts, rejected = np.zeros(runs, dtype=np.int64), np.zeros(runs, dtype=bool)
    crossed = _Crossings(flow, levels)
    on = np.flatnonzero(row < len(time))
    while len(on):
        slope, jacobian = flow.linearise(y[on])
        sizes = flow.sizes(y[on])
        resting = flow.at_rest(y[on], slope, sizes)
        for run in on[resting]:
            states[run, row[run] :] = y[run]
        gave_up = ~resting & (attempts[on] >= MAX_STEPS)
        failed[on[gave_up]] = True
        going = ~resting & ~gave_up
        on, slope, jacobian, sizes = on[going], slope[going], jacobian[going], sizes[going]
        if not len(on):
            break
        first = np.isnan(h[on])
        if first.any():
            # Slopes may be nearly 0 where rates are not: the Jacobian bounds the first step too.
            scaled = np.abs(jacobian) * sizes[:, None, :] / sizes[:, :, None]
            fastest = np.maximum((np.abs(slope) / sizes).max(axis=1), scaled.max(axis=(1, 2)))
            h[on[first]] = 0.01 / np.maximum(fastest, 1e-300)[first]
        # A little too far, so that the last time of the grid lies within the step.
        h[on] = np.minimum(h[on], 1.000001 * (last - now[on]))
        end, error, dense = _step(flow, y[on], slope, jacobian, sizes, h[on])
        attempts[on] += 1
        counts[on, 1] += STAGES + 1
        size = np.abs(error / sizes).max(axis=1) / tolerance
        size = np.where(size < 1e10, size, 1e10)  # NaN as well
        # The error estimate is that of a method of order 4: it goes like h^5.
        factor = SAFETY * np.maximum(size, 1e-8) ** -0.2
        good = size <= 1.0
        bad = on[~good]
        h[bad] *= np.clip(factor[~good], SHRINK, 0.9)
        rejected[bad] = True
        done, factor, size, end, dense = on[good], factor[good], size[good], end[good], dense[good]
        # Proportional-integral control, but no growth after a step that had to be repeated.
        control = factor * (np.maximum(size, 1e-8) / previous[done]) ** -0.08
        factor = np.where(rejected[done], np.minimum(factor, 1.0), control)
        previous[done], rejected[done] = np.maximum(size, 1e-4), False
        counts[done, 0] += 1
        # Grid points inside the steps: pairs of a step and a row.
        upto = np.searchsorted(time, now[done] + (remainder[done] + h[done]), side="right")
        inside = np.maximum(upto - row[done], 0)
        at = np.repeat(np.arange(len(done)), inside)
        rows = row[done][at] + np.arange(len(at)) - np.repeat(np.cumsum(inside) - inside, inside)
        theta = ((time[rows] - now[done][at]) - remainder[done][at]) / h[done][at]
        states[done[at], rows] = _between(y[done][at], dense[at], theta)
        row[done] += inside
        crossed.note(crossing, done, y, end, dense, h[done], now[done], remainder[done])
        moved = remainder[done] + h[done]
        total = now[done] + moved
        remainder[done] = moved - (total - now[done])
        now[done], y[done] = total, end
        h[done] *= np.clip(factor, SHRINK, GROW)
        on = on[row[on] < len(time)]
    crossed.write(crossing, last)
    return Paths(states, crossing, failed, counts)


def _step(
    flow: Flow,
    y: FloatArray,
    slope: FloatArray,
    jacobian: FloatArray,
    sizes: FloatArray,
    h: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Take steps of sizes h (n,); returns ends and errors (n, size), interpolants (n, 4, size).

    Unknowns are scaled by their sizes and rows by their largest entry, so that pivoting compares
    like with like.
    """
    h = h[:, None]
    # (1 / (gamma h) - J) u_s = f(y + sum_j A_sj u_j) + sum_j C_sj u_j / h
    matrix = -jacobian * (sizes[:, None, :] / sizes[:, :, None])
    diagonal = np.arange(y.shape[1])
    matrix[:, diagonal, diagonal] += 1.0 / (GAMMA * h)
    largest = np.abs(matrix).max(axis=2)
    matrix /= largest[:, :, None]
    largest *= sizes
    # NumPy keeps no factors of a stack of matrices for later use; the stages share an inverse.
    inverse = _inverse(matrix)
    stages = np.empty((STAGES, *y.shape))
    point, right = y, slope
    for stage in range(STAGES):
        if stage:
            if stage < 6:
                point = y + sum(A[0, stage, j] * stages[j] for j in range(stage))
            else:  # stiffly accurate: the last stages correct the end of the step
                point = point + stages[stage - 1]
            right = flow.slope(point)
            right = right + sum(C[stage, j] * stages[j] for j in range(stage)) / h
        stages[stage] = (inverse @ (right / largest)[:, :, None])[:, :, 0] * sizes
    end = point + stages[-1]
    dense = np.stack([sum(d * s for d, s in zip(row, stages, strict=True)) for row in DENSE[0]], 1)
    return end, stages[-1], np.concatenate([dense, end[:, None]], axis=1)


def _inverse(matrices: FloatArray) -> FloatArray:
    """Inverses (n, size, size); NaN where there is none, so that the step is repeated, shorter."""
    try:
        return np.asarray(np.linalg.inv(matrices))
    except np.linalg.LinAlgError:
        if len(matrices) == 1:
            return np.full_like(matrices, np.nan)
        return np.concatenate([_inverse(matrix[None]) for matrix in matrices])


def _between(y: FloatArray, dense: FloatArray, theta: FloatArray) -> FloatArray:
    """States at fractions theta of steps from y; shapes: y (n, size); theta (n,)."""
    theta = theta[:, None]
    inner = dense[:, 0] + theta * (dense[:, 1] + theta * dense[:, 2])
    return np.asarray((1.0 - theta) * y + theta * (dense[:, 3] + (1.0 - theta) * inner))


class _Crossings:
    """Steps in which overlaps reach levels, and, for all of them at the end, when they do."""

    def __init__(self, flow: Flow, levels: FloatArray) -> None:
        self._flow, self._levels = flow, levels
        self._places: list[IntArray] = []
        self._parts: list[tuple[FloatArray, ...]] = []

    def note(
        self,
        crossing: FloatArray,
        done: IntArray,
        y: FloatArray,
        end: FloatArray,
        *parts: FloatArray,
    ) -> None:
        """Keep the steps of runs in which levels were reached for the first time."""
        reached = self._flow.overlaps(end)[:, :, None] >= self._levels
        at, a, level = np.nonzero(reached & np.isnan(crossing[done]))
        if len(at):
            crossing[done[at], a, level] = np.inf  # until it is known
            self._places.append(np.stack([done[at], a, level]))
            self._parts.append((y[done[at]], *(part[at] for part in parts)))

    def write(self, crossing: FloatArray, last: float) -> None:
        """Find the times: on the interpolant, then by steps that end there."""
        if not self._places:
            return
        run, a, level = np.concatenate(self._places, axis=1)
        y, dense, h, now, remainder = map(np.concatenate, zip(*self._parts, strict=True))
        every = np.arange(len(run))

        def excess(states: FloatArray) -> FloatArray:
            """Logarithm of the overlap over the level."""
            # In the logarithm exponential growth is a straight line.
            found = self._flow.overlaps(states)[every, a]
            return np.asarray(np.log(np.maximum(found, 1e-300) / self._levels[level]))

        theta = root(lambda theta: excess(_between(y, dense, theta)), len(run))
        # Slope of the logarithm at the crossing, by a difference on the interpolant.
        beside = np.where(theta < 0.5, np.minimum(theta + 1e-4, 1.0), theta - 1e-4)
        ends = (excess(_between(y, dense, x)) for x in (beside, theta))
        pitch = (next(ends) - next(ends)) / (beside - theta)
        slope, jacobian = self._flow.linearise(y)
        sizes, moving = self._flow.sizes(y), pitch > 0.0
        # The end of a step is more accurate than the interpolant: Newton's corrections.
        for _ in range(4):
            end, _, _ = _step(self._flow, y, slope, jacobian, sizes, theta * h)
            missing = excess(end)
            better = np.clip(theta - missing / np.where(moving, pitch, np.inf), 1e-12, 1.0)
            theta, moving = np.where(moving, better, theta), moving & ~(np.abs(missing) < 1e-12)
        # The last step ends a little beyond the grid: what is crossed there does not count.
        moment = now + (remainder + theta * h)
        crossing[run, a, level] = np.where(moment <= last, moment, np.nan)


def root(value: Callable[[FloatArray], FloatArray], count: int) -> FloatArray:
    """Where in [0, 1] increasing functions vanish: the Illinois rule, at last bisection."""
    low, high = np.zeros(count), np.ones(count)
    f_low, f_high = value(low), value(high)
    theta, found = high.copy(), np.zeros(count, dtype=bool)
    for iteration in range(60):
        point = low - f_low * (high - low) / (f_high - f_low)
        inside = (low < point) & (point < high) & (iteration <= 20)
        theta = np.where(found, theta, np.where(inside, point, 0.5 * (low + high)))
        f = value(theta)
        found |= (np.abs(f) < 1e-9) | (high - low < 1e-12)
        if found.all():
            break
        below = f < 0.0
        low, high = np.where(below, theta, low), np.where(below, high, theta)
        f_low, f_high = np.where(below, f, 0.5 * f_low), np.where(below, 0.5 * f_high, f)
    return theta
