"""Compiled integrator of the fast-link flow: Rosenbrock steps, dense output, crossings.

The method is Rodas5P (Steinebach 2023, BIT 63:27, doi 10.1007/s10543-023-00967-x): order 5(4),
stiffly accurate, with a fourth-order interpolant.  On a plateau the learned directions relax
10^24 times faster than the next one grows, and the coupling between the two is not only the
decay ``-H_11``: how ``H`` itself changes when the learned subspace tilts counts as much and can
have either sign.  An implicit method with the exact Jacobian needs to know nothing of this;
exponentials of a frozen ``H`` (Lie-group schemes) iterate it to a fixed point that may repel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._kernels import Active, Scratch, rate
from ._linear import compiled, factorise, narrow, solve, trial
from ._tables import Derivative

__all__ = ["STAGES", "Step", "fraction", "interpolate", "keep_interpolant", "rosenbrock"]

STAGES = 8
GAMMA = 0.21193756319429014
A = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [3.0, 0.0, 0.0, 0.0, 0.0],
        [2.849394379747939, 0.45842242204463923, 0.0, 0.0, 0.0],
        [-6.954028509809101, 2.489845061869568, -10.358996098473584, 0.0, 0.0],
        [
            2.8029986275628964,
            0.5072464736228206,
            -0.3988312541770524,
            -0.04721187230404641,
            0.0,
        ],
        [
            -7.502846399306121,
            2.561846144803919,
            -11.627539656261098,
            -0.18268767659942256,
            0.030198172008377946,
        ],
    ]
)
C = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [-14.155112264123755, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [-17.97296035885952, -2.859693295451294, 0.0, 0.0, 0.0, 0.0, 0.0],
        [147.12150275711716, -1.41221402718213, 71.68940251302358, 0.0, 0.0, 0.0, 0.0],
        [
            165.43517024871676,
            -0.4592823456491126,
            42.90938336958603,
            -5.961986721573306,
            0.0,
            0.0,
            0.0,
        ],
        [
            24.854864614690072,
            -3.0009227002832186,
            47.4931110020768,
            5.5814197821558125,
            -0.6610691825249471,
            0.0,
            0.0,
        ],
        [
            30.91273214028599,
            -3.1208243349937974,
            77.79954646070892,
            34.28646028294783,
            -19.097331116725623,
            -28.087943162872662,
            0.0,
        ],
        [
            37.80277123390563,
            -3.2571969029072276,
            112.26918849496327,
            66.9347231244047,
            -40.06618937091002,
            -54.66780262877968,
            -9.48861652309627,
        ],
    ]
)
DENSE = np.array(
    [
        [
            25.948786856663858,
            -2.5579724845846235,
            10.433815404888879,
            -2.3679251022685204,
            0.524948541321073,
            1.1241088310450404,
            0.4272876194431874,
            -0.17202221070155493,
        ],
        [
            -9.91568850695171,
            -0.9689944594115154,
            3.0438037242978453,
            -24.495224566215796,
            20.176138334709044,
            15.98066361424651,
            -6.789040303419874,
            -6.710236069923372,
        ],
        [
            11.419903575922262,
            2.8879645146136994,
            72.92137995996029,
            80.12511834622643,
            -52.072871366152654,
            -59.78993625266729,
            -0.15582684282751913,
            4.883087185713722,
        ],
    ]
)
# Rows of Step.state.
START, SLOPE, POINT, RIGHT, END, SCALE, PACE_GRADIENT = range(7)
KEPT_END, DENSE_0, DENSE_1, DENSE_2 = range(7, 11)


class Step(NamedTuple):
    """One step.

    Attributes
    ----------
    state : (11, size)
        Start and its slope, a stage's point and right-hand side, the end, scales of the unknowns,
        the gradient of the pace; the accepted end and three coefficients of the interpolant.
    jacobian, matrix : (size, size)
    pivot : (size,) int64
    stages : (8, size)
    time : (8,)
        Stages of the time.
    time_dense : (4,)
        Its interpolant, and the time the step takes.
    """

    state: np.ndarray
    jacobian: np.ndarray
    matrix: np.ndarray
    pivot: np.ndarray
    stages: np.ndarray
    time: np.ndarray
    time_dense: np.ndarray


@compiled
def rosenbrock(
    table: Derivative,
    base: np.ndarray,
    active: Active,
    clock: int,
    pace: float,
    h: float,
    step: Step,
    work: Scratch,
) -> float:
    """One Rodas5P step of size `h` from the start, where L = I; returns the time it takes.

    Unknowns are scaled, so that pivoting compares like with like.
    """
    size = active.size
    state, stages, times = step.state, step.stages, step.time
    diagonal, inverse = 1.0 / (GAMMA * h), 1.0 / h
    for i in range(size):
        for j in range(size):
            step.matrix[i, j] = -step.jacobian[i, j] * (state[SCALE, j] / state[SCALE, i])
        step.matrix[i, i] += diagonal
    factorise(step.matrix, step.pivot, size)
    for stage in range(STAGES):
        time = pace
        if stage == 0:
            for i in range(size):
                state[RIGHT, i] = state[SLOPE, i]
        else:
            for i in range(size):
                if stage < 6:
                    total = state[START, i]
                    for j in range(stage):
                        total += A[stage, j] * stages[j, i]
                    state[POINT, i] = total
                else:
                    state[POINT, i] += stages[stage - 1, i]
            time = rate(table, base, state[POINT], active, clock, work, state[RIGHT])
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
    elapsed = times[5] + times[6] + times[7]
    for j in range(5):
        elapsed += A[5, j] * times[j]
    for i in range(size):
        state[END, i] = state[POINT, i] + stages[7, i]
    return elapsed


@compiled
def keep_interpolant(step: Step, size: int, elapsed: float) -> None:
    for i in range(size):
        step.state[KEPT_END, i] = step.state[END, i]
    for row in range(3):
        for i in range(size):
            total = 0.0
            for j in range(STAGES):
                total += DENSE[row, j] * step.stages[j, i]
            step.state[DENSE_0 + row, i] = total
        total = 0.0
        for j in range(STAGES):
            total += DENSE[row, j] * step.time[j]
        step.time_dense[row] = total
    step.time_dense[3] = elapsed


@compiled
def interpolate(state: np.ndarray, size: int, theta: float) -> None:
    """Put the state at a fraction of the step into POINT."""
    rest = 1.0 - theta
    for i in range(size):
        inner = state[DENSE_1, i] + theta * state[DENSE_2, i]
        inner = state[KEPT_END, i] + rest * (state[DENSE_0, i] + theta * inner)
        state[POINT, i] = rest * state[START, i] + theta * inner


@compiled
def fraction(dense: np.ndarray, wanted: float) -> float:
    """Find where in the step a time lies."""
    if wanted >= dense[3]:
        return 1.0
    low, high = 0.0, 1.0
    f_low, f_high = -wanted, dense[3] - wanted
    theta = 0.0
    for iteration in range(80):
        theta = trial(low, high, f_low, f_high, iteration)
        inner = dense[0] + theta * (dense[1] + theta * dense[2])
        value = theta * (dense[3] + (1.0 - theta) * inner) - wanted
        if abs(value) <= 1e-13 * wanted or high - low < 1e-15:
            break
        low, high, f_low, f_high = narrow(low, high, f_low, f_high, theta, value)
    return theta
