"""Stochastic gradient steps, in compiled code.

The target's frame is the first r coordinates, which loses nothing since the law of the samples does
not change under rotations. Frames are stored as rows, W^T, so that a column of W is contiguous.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..readout import Features
from .features import (
    Link,
    accumulate,
    add,
    compiled,
    differentiate,
    dot,
    entry,
    evaluate,
    fit,
    highest,
    label,
    project,
    vectorised,
)
from .linear import orthogonalise
from .normals import sample

f32 = np.float32


class Rates(NamedTuple):
    """Parameters of the descent."""

    step: float
    batch: int
    keep: float
    ridge: float


class State(NamedTuple):
    """Everything a run of gradient descent carries on.

    Shapes: used (2,); frame (q, d); gradient (q, n); link (P,); gram (P, P); moment (P,);
    weight (1,); previous, reference (q, r); margin (1,); crossing (r, levels).
    """

    used: np.ndarray
    frame: np.ndarray
    gradient: np.ndarray
    link: np.ndarray
    gram: np.ndarray
    moment: np.ndarray
    weight: np.ndarray
    previous: np.ndarray
    reference: np.ndarray
    margin: np.ndarray
    crossing: np.ndarray


@compiled
def spread(frame: np.ndarray, out: np.ndarray) -> None:
    """Copy a frame into the leading columns of a wider array of any precision."""
    for i in range(frame.shape[0]):
        for k in range(frame.shape[1]):
            out[i, k] = frame[i, k]


@vectorised
def retract(frame: np.ndarray, gradient: np.ndarray, step: float) -> None:
    """Move against the part of the gradient orthogonal to the frame; QR with positive diagonal.

    The factor R is that of Cholesky, twice where the step is so long that once would lose digits.
    """
    size, dim = frame.shape
    inner = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            total = 0.0
            for k in range(dim):
                total += gradient[i, k] * frame[j, k]
            inner[i, j] = total
    # W - step (I - W W^T) gradient, then its rows are made orthonormal.
    moved = np.empty((size, dim))
    for i in range(size):
        for k in range(dim):
            moved[i, k] = frame[i, k] - step * gradient[i, k]
        for j in range(size):
            factor = step * inner[i, j]
            for k in range(dim):
                moved[i, k] += factor * frame[j, k]
    long_step = False
    for i in range(size):
        long_step = long_step or dot(moved[i], moved[i]) > 4.0
    for _ in range(2 if long_step else 1):
        for i in range(size):
            for j in range(i + 1):
                # moved moved^T = inner inner^T; the rows of inner^-1 moved are orthonormal.
                total = dot(moved[i], moved[j])
                for k in range(j):
                    total -= inner[i, k] * inner[j, k]
                inner[i, j] = math.sqrt(total) if i == j else total / inner[j, j]
        for i in range(size):
            for j in range(i):
                factor = inner[i, j]
                for k in range(dim):
                    moved[i, k] -= factor * moved[j, k]
            factor = 1.0 / inner[i, i]
            for k in range(dim):
                moved[i, k] *= factor
    for i in range(size):
        for k in range(dim):
            frame[i, k] = moved[i, k]


@compiled
def _overlaps(correlation: np.ndarray, out: np.ndarray) -> None:
    """Eigenvalues of G = M M^T, descending: squared singular values of M^T of shape (q, r)."""
    size, rank = correlation.shape
    columns = np.empty((size, rank))
    for i in range(size):
        for j in range(rank):
            columns[i, j] = correlation[i, j]
    orthogonalise(columns, columns.shape[0], rank)
    for j in range(rank):
        total = 0.0
        for i in range(size):
            total += columns[i, j] * columns[i, j]
        place = j
        while place > 0 and out[place - 1] < total:
            out[place] = out[place - 1]
            place -= 1
        out[place] = total


@entry
def watch(time: float, step: float, levels: np.ndarray, state: State) -> None:
    """Note the levels that the overlaps have reached in the last step, interpolated in time.

    No singular value moves further than M does in the Frobenius norm, so that the overlaps need
    only be computed once M has moved by the distance to the next level.
    """
    size, rank = state.previous.shape
    square = 0.0
    for i in range(size):
        for j in range(rank):
            square += (state.frame[i, j] - state.reference[i, j]) ** 2
    if not math.sqrt(square) < state.margin[0]:
        before, after = np.empty(rank), np.empty(rank)
        _overlaps(state.previous, before)
        for i in range(size):
            for j in range(rank):
                state.reference[i, j] = state.frame[i, j]
        _overlaps(state.reference, after)
        state.margin[0] = np.inf
        for i in range(rank):
            for j in range(levels.shape[0]):
                if not math.isnan(state.crossing[i, j]):
                    continue
                if after[i] >= levels[j]:
                    # Interpolated in the last step: before it, M was within the margin.
                    part = 1.0
                    if before[i] < levels[j]:
                        part = (levels[j] - before[i]) / (after[i] - before[i])
                    state.crossing[i, j] = time - step * (1.0 - part)
                else:
                    # Overlaps are squares of singular values, for which the bound holds.
                    distance = math.sqrt(levels[j]) - math.sqrt(after[i])
                    state.margin[0] = min(state.margin[0], distance)
    for i in range(size):
        for j in range(rank):
            state.previous[i, j] = state.frame[i, j]


@compiled
def open_batch(rates: Rates, state: State) -> None:
    """Forget the gradient, and the part of the regression that is not kept."""
    for i in range(state.gradient.shape[0]):
        for k in range(state.gradient.shape[1]):
            state.gradient[i, k] = 0.0
    for j in range(state.moment.shape[0]):
        state.moment[j] *= rates.keep
        for k in range(j + 1):
            state.gram[j, k] *= rates.keep
    state.weight[0] *= rates.keep


@compiled
def close_batch(
    features: Features, rates: Rates, levels: np.ndarray, factor: np.ndarray, state: State
) -> bool:
    """Step down the batch's gradient and fit the link; tell whether all is finite."""
    # Gradient and regression are sums over samples: the step is divided, the ridge multiplied.
    retract(state.frame, state.gradient, rates.step / rates.batch)
    ridge = rates.ridge * state.weight[0]
    fit(state.gram, state.moment, features.penalty, ridge, factor, state.link)
    finite = dot(state.link, state.link)
    for i in range(state.frame.shape[0]):
        finite += dot(state.frame[i], state.frame[i])
    if not finite < np.inf:
        state.used[1] = 1
        return False
    watch(rates.step * (state.used[0] // rates.batch), rates.step, levels, state)
    return True


@entry
def advance(
    target: Link,
    features: Features,
    rates: Rates,
    levels: np.ndarray,
    key: np.ndarray,
    state: State,
    stop: int,
) -> None:
    """Online gradient descent until `stop` samples are used.

    The gradient is taken at the link fitted to the batches before, of which the samples are
    independent: given the state it is an unbiased estimate of the population gradient.
    """
    size, dim = state.frame.shape
    width, count = state.gradient.shape[1], state.link.shape[0]
    rank = target.modes.shape[1]
    z, powers = np.empty(size), np.empty((size, highest(features.exponents) + 1))
    star, star_powers = np.empty(rank), np.empty((rank, highest(target.modes) + 1))
    values, primes, slopes = np.empty(count), np.empty(count), np.empty((size, count))
    factor = np.empty((count, count))
    words, work = np.empty(width, np.uint32), np.empty((2, width // 2), np.float32)
    # Numbers of x beyond dim, noise among them, meet zeros of this copy of the frame.
    x, frame = np.zeros(width, np.float32), np.zeros((size, width), np.float32)
    # Frame and link stay during a batch: what is made from them is made once for it.
    spread(state.frame, frame)
    differentiate(features, state.link, slopes)
    while state.used[0] < stop and state.used[1] == 0:
        position = state.used[0] % rates.batch
        if position == 0:
            open_batch(rates, state)
        sample(key, state.used[0], words, work, x)
        for i in range(rank):
            star[i] = x[i]
        value = label(target, star, star_powers)
        if target.noise > 0.0:
            value += target.noise * float(x[dim])
        project(frame, x, z)
        evaluate(features, z, powers, values, primes)
        error = dot(state.link, values) - value
        for i in range(size):
            add(f32(error * dot(slopes[i], primes)), x, state.gradient[i])
        accumulate(values, value, state.gram, state.moment)
        state.weight[0] += 1.0
        state.used[0] += 1
        if position == rates.batch - 1:
            if not close_batch(features, rates, levels, factor, state):
                break
            spread(state.frame, frame)
            differentiate(features, state.link, slopes)
