"""Steps of the flow of a network: explicit or of Rosenbrock type, their errors, and rest."""

from __future__ import annotations

import numpy as np

from .compile import compiled, inlined
from .features import compiled as allocating
from .linear import factorise, solve
from .neurons import Network, Work, slope
from .tableaux import ERROR, GAMMA, STAGES, A, C

FLOOR = 1e-14
ITERATIONS = 15
DIFFERENCE = 1e-7
"""Relative step of a difference quotient."""


@compiled
def scales(rank: int, p: int, y: np.ndarray, scale: np.ndarray) -> None:
    """Size of each entry of the state, to which its error is compared.

    Overlaps are small on a plateau, and it is their relative error that counts there.
    """
    for j in range(p):
        # One size for all axes of a neuron: those it does not turn to need no digits of their own.
        largest = FLOOR
        for i in range(j * rank, (j + 1) * rank):
            largest = max(largest, abs(y[i]))
        for i in range(j * rank, (j + 1) * rank):
            scale[i] = largest
    for i in range(p):
        begin = p * rank + i * p
        largest = FLOOR  # products of neurons that have parted vanish, and are not followed there
        for j in range(i * rank, (i + 1) * rank):
            largest += y[j] * y[j]
        for j in range(p):
            if j != i:
                largest = max(largest, abs(y[begin + j]))
        for j in range(p):
            scale[begin + j] = max(largest, abs(y[begin + j]))
    begin = p * rank + p * p
    largest = FLOOR
    for j in range(begin, len(y)):
        largest = max(largest, abs(y[j]))
    for j in range(begin, len(y)):
        scale[j] = largest


@compiled
def at_rest(
    rank: int,
    p: int,
    y: np.ndarray,
    before: np.ndarray,
    slopes: np.ndarray,
    scale: np.ndarray,
    rtol: float,
    length: float,
    remaining: float,
) -> bool:
    """Tell whether nothing moves any more, from the slopes before and after a step.

    What has been learned rests when it will move by no more than its error, at the pace at which
    its slope falls from one step to the next. What has not been learned could still grow.
    """
    for j in range(p):
        square = 0.0
        for i in range(j * rank, (j + 1) * rank):
            square += y[i] ** 2
        # No geometric series here: on a plateau slopes grow from step to step.
        if square <= 0.1:
            for i in range(j * rank, (j + 1) * rank):
                if abs(slopes[i]) * remaining > 1e-7 * scale[i]:
                    return False
            continue
        for i in range(j * rank, (j + 1) * rank):
            if not _still(before[i], slopes[i], length, remaining, 100.0 * rtol * scale[i]):
                return False
    for i in range(p * rank, len(y)):
        if not _still(before[i], slopes[i], length, remaining, 100.0 * rtol * scale[i]):
            return False
    return True


@compiled
def _still(before: float, slope: float, length: float, remaining: float, small: float) -> bool:
    """Tell whether what is left of an approach is small: a geometric series of equal steps."""
    left = remaining
    # With ratio = slope / before, length (1 + ratio + ratio^2 + ...) of this slope are left.
    if slope * before < before * before:
        left = min(left, length / (1.0 - slope / before))
    return abs(slope) * max(left, 1.0) <= small


@allocating
def unknowns(net: Network, rank: int, p: int) -> np.ndarray:
    """Entries of the state that move by themselves, and those equal to them; shape (2, n)."""
    norms, layer = 1 if net.scaling != 0 else 0, p if net.readout_rate > 0.0 else 0
    place = np.empty((2, p * rank + p * (p - 1) // 2 + norms * p + layer), np.int64)
    n, at_Q = p * rank, p * rank
    for i in range(n):
        place[0, i] = place[1, i] = i
    for i in range(p):
        # Q is symmetric: its lower half, and its diagonal only where norms are free.
        for j in range(i + norms):
            place[0, n], place[1, n] = at_Q + i * p + j, at_Q + j * p + i
            n += 1
    for j in range(layer):
        place[0, n + j] = place[1, n + j] = at_Q + p * p + j
    return place


@compiled
def linearise(
    net: Network,
    rank: int,
    p: int,
    y: np.ndarray,
    before: np.ndarray,
    scale: np.ndarray,
    place: np.ndarray,
    jacobian: np.ndarray,
    vector: np.ndarray,
    trial: np.ndarray,
    slopes: np.ndarray,
    work: Work,
) -> float:
    """Jacobian in units of the scales, by difference quotients; returns its fastest rate.

    Its fastest eigenvector is sought by iteration from `vector`.
    """
    n = place.shape[1]
    for i in range(len(y)):
        trial[i] = y[i]
    for k in range(n):
        one, two = place[0, k], place[1, k]
        moved = y[one] + DIFFERENCE * scale[one]
        trial[one] = trial[two] = moved
        slope(net, rank, p, trial, slopes, work)
        for i in range(n):
            at = place[0, i]
            # Divided by the difference that is left after rounding, not by the one that was meant.
            change = (slopes[at] - before[at]) / (moved - y[one])
            jacobian[i, k] = change * scale[one] / scale[at]
        trial[one] = trial[two] = y[one]
    # Power iteration, from where the last one ended: the Jacobian has changed little since.
    rate, size = 0.0, 0.0
    for i in range(n):
        size = max(size, abs(vector[i]) * scale[place[0, i]])
    for i in range(n):
        vector[i] /= size
    for _ in range(ITERATIONS):
        rate = 0.0
        for i in range(n):
            total = 0.0
            for k in range(n):
                total += jacobian[i, k] * vector[k]
            slopes[i] = total
            rate = max(rate, abs(total) * scale[place[0, i]])
        if rate == 0.0:
            break
        for i in range(n):
            vector[i] = slopes[i] / rate
    return rate


@inlined
def _at_stage(
    y: np.ndarray, weights: np.ndarray, stages: np.ndarray, s: int, trial: np.ndarray
) -> None:
    """State ``y + sum_k A_sk u_k`` of stage s."""
    for i in range(len(y)):
        trial[i] = y[i]
    for k in range(s):
        for i in range(len(y)):
            trial[i] += weights[k] * stages[k, i]


@compiled
def explicit_step(
    net: Network,
    rank: int,
    p: int,
    y: np.ndarray,
    h: float,
    stages: np.ndarray,
    trial: np.ndarray,
    after: np.ndarray,
    work: Work,
) -> None:
    """Tsitouras' step from y to `trial`, whose first stage is known; the last is its error."""
    for s in range(1, 7):
        _at_stage(y, A[1, s], stages, s, trial)
        # The last stage lies at the end: `trial` and `after` keep the state and the slope there.
        slope(net, rank, p, trial, after, work)
        for i in range(len(y)):
            stages[s, i] = h * after[i]
    for i in range(len(y)):
        total = 0.0
        for k in range(7):
            total += ERROR[k] * stages[k, i]
        stages[7, i] = total


@compiled
def implicit_step(
    net: Network,
    rank: int,
    p: int,
    y: np.ndarray,
    h: float,
    scale: np.ndarray,
    place: np.ndarray,
    matrix: np.ndarray,
    pivot: np.ndarray,
    right: np.ndarray,
    stages: np.ndarray,
    trial: np.ndarray,
    after: np.ndarray,
    work: Work,
) -> None:
    """Step of Rodas5P from y to `trial`; `after` holds the slope before it, then that after it."""
    n = place.shape[1]
    for i in range(n):
        # (1 / (gamma h) - J) u_s = f(y + sum_k A_sk u_k) + sum_k C_sk u_k / h
        matrix[i, i] += 1.0 / (GAMMA * h)
    factorise(matrix, pivot, right, n)
    for s in range(STAGES):
        _at_stage(y, A[0, s], stages, s, trial)
        if s > 0:
            slope(net, rank, p, trial, after, work)
        for i in range(n):
            at = place[0, i]
            total = after[at]
            for k in range(s):
                total += C[s, k] * stages[k, at] / h
            right[i] = total / scale[at]
        solve(matrix, pivot, right, n)
        for i in range(len(y)):
            stages[s, i] = 0.0
        for i in range(n):
            stages[s, place[0, i]] = stages[s, place[1, i]] = right[i] * scale[place[0, i]]
    for i in range(len(y)):
        # Stiffly accurate: the last stage corrects the end of the step, and is its error estimate.
        trial[i] += stages[STAGES - 1, i]
    slope(net, rank, p, trial, after, work)
