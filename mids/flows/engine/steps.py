"""One step of the fast-link flow, explicit or of Rosenbrock type.

On a plateau the learned directions relax 10^24 times faster than the next one grows, and the
coupling between the two is not only the decay ``-H_11``: how ``H`` itself changes when the learned
subspace tilts counts as much and can have either sign.  An implicit method with the exact Jacobian
needs to know nothing of this; exponentials of a frozen ``H`` (Lie-group schemes) iterate it to a
fixed point that may repel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .compile import ADDRESS, call_at, separate
from .kernels import rate
from .linear import factorise, solve
from .state import (
    ACTIVE,
    END,
    PACE_GRADIENT,
    POINT,
    RIGHT,
    SCALE,
    SLOPE,
    START,
    Active,
    machine_at,
)
from .tableaux import ERROR, GAMMA, A, C

_SIGNATURE = types.float64(
    ADDRESS, ACTIVE, types.int64, types.float64, types.float64, types.boolean
)


def advance(known: int) -> Any:
    """Make the function for targets of a rank, or of any (0)."""

    @separate(_SIGNATURE, rank=known)
    def advance(
        where: int, active: Active, clock: int, pace: float, h: float, explicit: bool
    ) -> float:
        """Take a step of size `h` from the start, where L = I; returns the time it takes.

        The last row of stages and times receives the error estimates.  An explicit step also
        measures how fast tilts relax (Hairer and Wanner, Solving ordinary differential equations
        II, IV.2), from the two stages at its end; where they grow RIGHT is positive.  Unknowns of
        linear systems are scaled, so that pivoting compares like with like.
        """
        table, work, step, _ = machine_at(where)
        rank = known if known > 0 else work.rest.shape[0]
        size, base = active.size, work.base[0]
        state, stages, times = step.state, step.stages, step.time
        method = 1 if explicit else 0
        inverse = 1.0 / h
        if not explicit:
            for i in range(size):
                for j in range(size):
                    step.matrix[i, j] = -step.jacobian[i, j] * (state[SCALE, j] / state[SCALE, i])
                step.matrix[i, i] += inverse / GAMMA
            factorise(step.matrix, step.pivot, state[RIGHT], size)
        for stage in range(7 if explicit else 8):
            time = pace
            if stage == 0:
                for i in range(size):
                    state[RIGHT, i] = state[SLOPE, i]
            else:
                for i in range(size):
                    total = state[START, i]
                    for j in range(stage):
                        total += A[method, stage, j] * stages[j, i]
                    state[POINT, i] = total
                time = rate(
                    table.derivative, rank, base, state[POINT], active, clock, work, state[RIGHT]
                )
            if explicit:
                times[stage] = time * h
                for i in range(size):
                    stages[stage, i] = state[RIGHT, i] * h
                continue
            for j in range(stage):
                weight = C[stage, j] * inverse
                time += weight * times[j]
                for i in range(size):
                    state[RIGHT, i] += weight * stages[j, i]
            for i in range(size):
                state[RIGHT, i] /= state[SCALE, i]
            solve(step.matrix, step.pivot, state[RIGHT], size)
            for i in range(size):
                stages[stage, i] = state[RIGHT, i] * state[SCALE, i]
                time += state[PACE_GRADIENT, i] * stages[stage, i]
            times[stage] = time * GAMMA * h

        elapsed = 0.0
        last = 6 if explicit else 7
        for j in range(last):
            elapsed += A[method, last, j] * times[j]
        for i in range(size):
            state[END, i] = state[POINT, i]
        if explicit:
            times[7] = 0.0
            for j in range(7):
                times[7] += ERROR[j] * times[j]
            slopes = ends = 0.0
            for i in range(size):
                stages[7, i] = change = 0.0
                for j in range(7):
                    stages[7, i] += ERROR[j] * stages[j, i]
                    change += (A[1, 6, j] - A[1, 5, j]) * stages[j, i]
                state[RIGHT, i] = (stages[6, i] - stages[5, i]) * change
                if i >= active.learnable - active.saturated:
                    slopes += (stages[6, i] - stages[5, i]) ** 2
                    ends += change * change
            step.time_dense[4] = np.sqrt(slopes / ends) if ends > 1e-24 else 0.0
        else:
            elapsed += times[7]
            for i in range(size):
                state[END, i] += stages[7, i]
        return elapsed

    return advance


call_advance = call_at(_SIGNATURE, lambda: advance(0))
