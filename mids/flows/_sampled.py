"""Stochastic gradient steps and passes over samples, in compiled code.

The target's frame is the first r coordinates, which loses nothing since the law of the samples does
not change under rotations. Frames are stored as rows, W^T, so that a column of W is contiguous.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from ._linear import orthogonalise
from ._normals import sample
from .readout import Features

__all__ = ["Link", "Rates", "State", "advance", "watch"]

f32 = np.float32
compiled = njit(nogil=True, cache=True, error_model="numpy")
# Sums may be split over the lanes of a vector register.
vectorised = njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"}
)


class Link(NamedTuple):
    """The target, and how labels are made from it.

    Attributes
    ----------
    modes : (n, r) int array
    coefficients : (n,) float array
    noise : float
        Standard deviation of the noise on the labels.
    """

    modes: np.ndarray
    coefficients: np.ndarray
    noise: float


class Rates(NamedTuple):
    """Parameters of the descent.

    Attributes
    ----------
    step : float
        Step of the gradient descent on W.
    batch : int
        Samples in a step.
    keep : float
        What a batch leaves of the regression's sums so far.
    ridge : float
    """

    step: float
    batch: int
    keep: float
    ridge: float


class State(NamedTuple):
    """Everything a run of online gradient descent carries from one sample to the next.

    Attributes
    ----------
    used : (2,) int array
        Samples used, and whether the run has failed.
    frame : (q, d) float array
        Orthonormal rows.
    gradient : (q, n) float32 array
        Sum over the batch so far; n >= d normals of a sample.
    link : (P,) float array
        Coefficients of the link.
    gram : (P, P) float array
        Regression's sum of products of features, lower triangle.
    moment : (P,) float array
        Regression's sum of feature times label.
    weight : (1,) float array
        Regression's sum of weights.
    previous, reference : (q, r) float array
        M^T one step ago, and where overlaps were last computed.
    margin : (1,) float array
        Distance of M from `reference` below which no level can have been reached.
    crossing : (r, levels) float array
        Crossing times, NaN where there is none yet.
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
def _highest(exponents: np.ndarray) -> int:
    """Highest exponent of one variable, at least 1."""
    highest = 1
    for i in range(exponents.shape[0]):
        for j in range(exponents.shape[1]):
            highest = max(highest, exponents[i, j])
    return highest


@compiled
def _narrowed(frame: np.ndarray, out: np.ndarray) -> None:
    """Copy a frame to single precision."""
    for i in range(frame.shape[0]):
        for k in range(frame.shape[1]):
            out[i, k] = frame[i, k]


@compiled
def _powers(z: np.ndarray, powers: np.ndarray) -> None:
    """Hermite polynomials of each variable."""
    for i in range(z.shape[0]):
        powers[i, 0] = 1.0
        powers[i, 1] = z[i]
        for k in range(1, powers.shape[1] - 1):
            powers[i, k + 1] = (z[i] * powers[i, k] - math.sqrt(k) * powers[i, k - 1]) / math.sqrt(
                k + 1.0
            )


@compiled
def _label(target: Link, z: np.ndarray, powers: np.ndarray) -> float:
    """Value of the target's link function."""
    _powers(z, powers)
    total = 0.0
    for j in range(target.modes.shape[0]):
        term = target.coefficients[j]
        for i in range(target.modes.shape[1]):
            term *= powers[i, target.modes[j, i]]
        total += term
    return total


@vectorised
def _wave(angles: np.ndarray, primes: np.ndarray, amplitude: float) -> None:
    """Replace angles by amplitude times their cosines; `primes` gets minus that of the sines.

    Cephes' polynomials on an eighth of a turn, without branches as in `_normals`.
    """
    for j in range(angles.shape[0]):
        quarters = math.floor(angles[j] * (2.0 / math.pi) + 0.5)
        t = angles[j] - quarters * (math.pi / 2.0)
        z = t * t
        sine = 1.58962301576546568060e-10 * z - 2.50507477628578072866e-8
        sine = (sine * z + 2.75573136213857245213e-6) * z - 1.98412698295895385996e-4
        sine = (sine * z + 8.33333333332211858878e-3) * z - 1.66666666666666307295e-1
        sine = sine * z * t + t
        cosine = -1.13585365213876817300e-11 * z + 2.08757008419747316778e-9
        cosine = (cosine * z - 2.75573141792967388112e-7) * z + 2.48015872888517045348e-5
        cosine = (cosine * z - 1.38888888888730564116e-3) * z + 4.16666666666665929218e-2
        cosine = cosine * z * z - 0.5 * z + 1.0
        turns = 0.25 * quarters
        turns -= math.floor(turns)  # 0, 1/4, 1/2 or 3/4
        odd = turns == 0.25 or turns == 0.75
        first, second = (sine, cosine) if odd else (cosine, sine)
        angles[j] = amplitude * (-first if turns == 0.25 or turns == 0.5 else first)
        primes[j] = -amplitude * (-second if turns >= 0.5 else second)


@compiled
def _evaluate(
    features: Features, z: np.ndarray, powers: np.ndarray, values: np.ndarray, primes: np.ndarray
) -> None:
    """Values of the features, and of what their derivatives are made from."""
    if features.phases.shape[0] > 0:
        amplitude = math.sqrt(2.0 / features.phases.shape[0])
        for j in range(values.shape[0]):
            angle = features.phases[j]
            for i in range(z.shape[0]):
                angle += features.frequencies[j, i] * z[i]
            values[j] = angle
        _wave(values, primes, amplitude)
    else:
        _powers(z, powers)
        for j in range(values.shape[0]):
            term = 1.0
            for i in range(z.shape[0]):
                term *= powers[i, features.exponents[j, i]]
            values[j] = term
            primes[j] = term


@compiled
def _differentiate(features: Features, link: np.ndarray, slopes: np.ndarray) -> None:
    """Coefficients of each partial derivative of the link in terms of `primes`."""
    for i in range(slopes.shape[0]):
        for j in range(link.shape[0]):
            slopes[i, j] = 0.0
        for j in range(link.shape[0]):
            if features.phases.shape[0] > 0:
                slopes[i, j] = link[j] * features.frequencies[j, i]
            elif features.lower[j, i] >= 0:
                root = math.sqrt(float(features.exponents[j, i]))
                slopes[i, features.lower[j, i]] += root * link[j]


@vectorised
def _dot(one: np.ndarray, two: np.ndarray) -> float:
    total = 0.0
    for j in range(one.shape[0]):
        total += one[j] * two[j]
    return total


@vectorised
def _project(frame: np.ndarray, x: np.ndarray, z: np.ndarray) -> None:
    """``z = W^T x`` in single precision."""
    for i in range(frame.shape[0]):
        row = frame[i]
        total = f32(0.0)
        for k in range(row.shape[0]):
            total += row[k] * x[k]
        z[i] = total


@vectorised
def _add(factor: np.float32, x: np.ndarray, total: np.ndarray) -> None:
    """Add a multiple of x in single precision."""
    for k in range(x.shape[0]):
        total[k] += factor * x[k]


@vectorised
def _accumulate(
    values: np.ndarray, label: float, weight: float, gram: np.ndarray, moment: np.ndarray
) -> None:
    """Add a sample to the sums of the regression."""
    for j in range(values.shape[0]):
        value = weight * values[j]
        moment[j] += value * label
        row = gram[j]
        for k in range(j + 1):
            row[k] += value * values[k]


@vectorised
def _fit(
    gram: np.ndarray,
    moment: np.ndarray,
    penalty: np.ndarray,
    ridge: float,
    factor: np.ndarray,
    link: np.ndarray,
) -> None:
    """Ridge regression from its sums, by Cholesky's factorisation."""
    size = link.shape[0]
    for i in range(size):
        for j in range(i + 1):
            total = gram[i, j]
            if i == j:
                total += ridge * penalty[i]
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            factor[i, j] = math.sqrt(total) if i == j else total / factor[j, j]
    for i in range(size):
        total = moment[i]
        for k in range(i):
            total -= factor[i, k] * link[k]
        link[i] = total / factor[i, i]
    for i in range(size - 1, -1, -1):
        total = link[i]
        for k in range(i + 1, size):
            total -= factor[k, i] * link[k]
        link[i] = total / factor[i, i]


@vectorised
def _retract(frame: np.ndarray, gradient: np.ndarray, step: float) -> None:
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
        long_step = long_step or _dot(moved[i], moved[i]) > 4.0
    for _ in range(2 if long_step else 1):
        for i in range(size):
            for j in range(i + 1):
                total = _dot(moved[i], moved[j])
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
    orthogonalise(columns, rank)
    for j in range(rank):
        total = 0.0
        for i in range(size):
            total += columns[i, j] * columns[i, j]
        place = j
        while place > 0 and out[place - 1] < total:
            out[place] = out[place - 1]
            place -= 1
        out[place] = total


@compiled
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
                    part = 1.0
                    if before[i] < levels[j]:
                        part = (levels[j] - before[i]) / (after[i] - before[i])
                    state.crossing[i, j] = time - step * (1.0 - part)
                else:
                    distance = math.sqrt(levels[j]) - math.sqrt(after[i])
                    state.margin[0] = min(state.margin[0], distance)
    for i in range(size):
        for j in range(rank):
            state.previous[i, j] = state.frame[i, j]


@vectorised
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
    z, powers = np.empty(size), np.empty((size, _highest(features.exponents) + 1))
    star, star_powers = np.empty(rank), np.empty((rank, _highest(target.modes) + 1))
    values, primes, slopes = np.empty(count), np.empty(count), np.empty((size, count))
    factor = np.empty((count, count))
    words, work = np.empty(width, np.uint32), np.empty((2, width // 2), np.float32)
    x, frame = np.zeros(width, np.float32), np.zeros((size, width), np.float32)
    _narrowed(state.frame, frame)
    _differentiate(features, state.link, slopes)
    while state.used[0] < stop and state.used[1] == 0:
        position = state.used[0] % rates.batch
        if position == 0:
            for i in range(size):
                for k in range(width):
                    state.gradient[i, k] = f32(0.0)
            for j in range(count):
                state.moment[j] *= rates.keep
                for k in range(j + 1):
                    state.gram[j, k] *= rates.keep
            state.weight[0] *= rates.keep
        sample(key, state.used[0], words, work, x)
        for i in range(rank):
            star[i] = x[i]
        label = _label(target, star, star_powers)
        if target.noise > 0.0:
            label += target.noise * float(x[dim])
        _project(frame, x, z)
        _evaluate(features, z, powers, values, primes)
        error = _dot(state.link, values) - label
        for i in range(size):
            _add(f32(error * _dot(slopes[i], primes)), x, state.gradient[i])
        _accumulate(values, label, 1.0, state.gram, state.moment)
        state.weight[0] += 1.0
        state.used[0] += 1
        if position == rates.batch - 1:
            _retract(state.frame, state.gradient, rates.step / rates.batch)
            _fit(
                state.gram,
                state.moment,
                features.penalty,
                rates.ridge * state.weight[0],
                factor,
                state.link,
            )
            finite = _dot(state.link, state.link)
            for i in range(size):
                finite += _dot(state.frame[i], state.frame[i])
            if not finite < np.inf:
                state.used[1] = 1
                break
            _narrowed(state.frame, frame)
            _differentiate(features, state.link, slopes)
            time = rates.step * (state.used[0] // rates.batch)
            watch(time, rates.step, levels, state)
