"""One step of the fast-link flow, explicit or of Rosenbrock type.

On a plateau the learned directions relax 10^24 times faster than the next one grows, and the
coupling between the two is not only the decay ``-H_11``: how ``H`` itself changes when the learned
subspace tilts counts as much and can have either sign.  An implicit method with the exact Jacobian
needs to know nothing of this; exponentials of a frozen ``H`` (Lie-group schemes) iterate it to a
fixed point that may repel.
"""

from __future__ import annotations

from typing import Any

from numba import types

from .addresses import ADDRESS, call_at
from .compile import inlined, separate
from .kernels import rate
from .linear import factorise, solve
from .state import Step, active, machine_at
from .tableaux import DENSE, ERROR, GAMMA, STAGES, A, C

_ADVANCE = types.void(ADDRESS, types.int64, types.float64, types.float64, types.int64)
IMPLICIT, EXPLICIT = range(2)  # the methods of `tableaux`


def advance(known: int) -> Any:
    """Make the function for targets of a rank, or of any (0)."""

    @separate(_ADVANCE, rank=known)
    def advance(where: int, clock: int, pace: float, h: float, method: int) -> None:
        """Take a step of size `h` in tau to `point`.

        After an explicit one `right` is positive for unknowns that grow between its last stages,
        which are both at its end.
        """
        table, work, step, _, _ = machine_at(where)
        _, _, size = active(step)
        rank = known if known > 0 else work.rest.shape[0]
        stages, point, right = step.stages, step.point, step.right
        last = 6 if method == EXPLICIT else 7
        if method == IMPLICIT:
            for i in range(size):
                for j in range(size):
                    step.matrix[i, j] = -step.jacobian[i, j]
                step.matrix[i, i] += 1.0 / (GAMMA * h)
            # Time acts on no unknown: its stage follows from the others, outside the matrix.
            factorise(step.matrix, step.pivot, right, size)
        for stage in range(last + 1):
            for i in range(size + 1):
                # The slope at the start is one by t; pace = dt / dtau there.
                right[i] = pace * step.slope[i]
                total = step.start[i]
                for j in range(stage):
                    total += A[method, stage, j] * stages[j, i]
                point[i] = total
            if stage > 0:
                rate(table.derivative, rank, clock, work, step)
            if method == EXPLICIT:
                for i in range(size + 1):
                    stages[stage, i] = right[i] * h
                continue
            for j in range(stage):
                weight = C[stage, j] / h
                for i in range(size + 1):
                    right[i] += weight * stages[j, i]
            solve(step.matrix, step.pivot, right, size)
            for i in range(size):
                stages[stage, i] = right[i]
                right[size] += step.jacobian[size, i] * stages[stage, i]
            stages[stage, size] = right[size] * (GAMMA * h)
        if method == IMPLICIT:
            for i in range(size + 1):
                point[i] += stages[last, i]
            return
        for i in range(size + 1):
            stages[last + 1, i] = change = 0.0
            for j in range(last + 1):
                stages[last + 1, i] += ERROR[j] * stages[j, i]
                change += (A[1, 6, j] - A[1, 5, j]) * stages[j, i]
            # Both are at the end of the step: it is positive where the slope grows with the state.
            right[i] = (stages[6, i] - stages[5, i]) * change

    return advance


call_advance = call_at(_ADVANCE)


@inlined
def keep_interpolant(step: Step, method: int) -> None:
    for i in range(step.active[2] + 1):
        for row in range(3):
            total = 0.0
            for j in range(STAGES):
                total += DENSE[method, row, j] * step.stages[j, i]
            step.dense[row, i] = total
        step.dense[3, i] = step.point[i]


@inlined
def interpolate(step: Step, theta: float) -> None:
    """Put the state at a fraction of the step into `point`."""
    dense, rest = step.dense, 1.0 - theta
    for i in range(step.active[2] + 1):
        inner = dense[0, i] + theta * (dense[1, i] + theta * dense[2, i])
        step.point[i] = rest * step.start[i] + theta * (dense[3, i] + rest * inner)


@inlined
def fraction(step: Step, wanted: float) -> float:
    """Find where in the step a time lies."""
    dense, time = step.dense, step.active[2]
    first, second, third, end = dense[0, time], dense[1, time], dense[2, time], dense[3, time]
    # Newton's method on the interpolant of time, which begins at 0, kept inside by bisection.
    if wanted >= end:
        return 1.0
    low, high, theta = 0.0, 1.0, wanted / end
    for _ in range(60):
        inner = first + theta * (second + theta * third)
        value = theta * (end + (1.0 - theta) * inner) - wanted
        if abs(value) <= 1e-13 * end or high - low < 1e-14:
            break
        if value < 0.0:
            low = theta
        else:
            high = theta
        slope = end + (1.0 - 2.0 * theta) * inner
        theta -= value / (slope + theta * (1.0 - theta) * (second + 2.0 * theta * third))
        if not low < theta < high:
            theta = 0.5 * (low + high)
    return theta
