"""Stochastic gradient steps of which only what matters is drawn, in compiled code.

A sample x enters a step through its coordinates in the span of W* and W, which decide label, link
and error, and through the batch's sum of ``a_n x_n`` beyond that span, where the factors ``a_n``
depend on those coordinates alone. Given them, the sums of the q columns are Gaussian there with
covariance ``sum_n a_n a_n^T``: one normal vector for each has the law of all samples.
"""

from __future__ import annotations

import math

import numpy as np

from ..readout import Features
from .features import Link, compiled, differentiate, dot, entry, highest, vectorised, wave
from .normals import LANES, sample
from .sampled import Rates, State, close_batch, open_batch

TOGETHER = 16 * LANES
"""Samples that are drawn in one go, all numbers of the same kind side by side."""

SMALL = 1e-7
"""Rows of W that are this close to the span of W* and of the rows before have no part beyond it."""

SUMS = 2**62
"""Index from which on the key's samples are those of the sums, not of single samples."""


@compiled
def _beyond(frame: np.ndarray, rank: int, lower: np.ndarray, basis: np.ndarray) -> None:
    """Factor what the frame's rows have beyond the first coordinates: ``lower @ basis``."""
    size, rest = basis.shape
    for i in range(size):
        for k in range(rest):
            basis[i, k] = frame[i, rank + k]
        for j in range(i):
            lower[i, j] = dot(basis[i], basis[j])
            for k in range(rest):
                basis[i, k] -= lower[i, j] * basis[j, k]
            lower[j, i] = 0.0
        length = math.sqrt(dot(basis[i], basis[i]))
        lower[i, i] = length if length > SMALL else 0.0
        for k in range(rest):
            basis[i, k] = basis[i, k] / length if length > SMALL else 0.0


@compiled
def _complete(
    basis: np.ndarray,
    rank: int,
    key: np.ndarray,
    index: int,
    normals: np.ndarray,
    words: np.ndarray,
    work: np.ndarray,
    gradient: np.ndarray,
) -> None:
    """Replace a batch's sums by its gradient in R^d."""
    size, rest = basis.shape
    sums = gradient[:, : rank + 2 * size].copy()
    covariance = sums[:, rank + size :]
    root = np.zeros((size, size))
    for i in range(size):
        for j in range(i + 1):
            total = covariance[i, j]
            for k in range(j):
                total -= root[i, k] * root[j, k]
            if i == j:
                # Singular for fewer samples than columns: rounding may leave less than 0.
                root[i, i] = math.sqrt(max(total, 0.0))
            elif root[j, j] > 0.0:
                root[i, j] = total / root[j, j]
        for k in range(rest):
            gradient[i, rank + k] = 0.0
    # sum_n a_n x_n beyond the span has the law of root times independent normal vectors.
    for j in range(size):
        sample(key, SUMS + index * size + j, words, work, normals)
        for i in range(j, size):
            factor = root[i, j]
            for k in range(rest):
                gradient[i, rank + k] += factor * normals[k]
    for i in range(size):
        row = gradient[i, rank : rank + rest]
        for j in range(size):
            # In the span of W the sums are known: they replace what was drawn there.
            factor = sums[i, rank + j] - dot(row, basis[j])
            for k in range(rest):
                row[k] += factor * basis[j, k]


@vectorised
def _powers(x: np.ndarray, powers: np.ndarray) -> None:
    """Hermite polynomials of each variable (row) of each sample (column), from degree 0 on."""
    for i in range(x.shape[0]):
        for n in range(x.shape[1]):
            powers[i, 0, n] = 1.0
            powers[i, 1, n] = x[i, n]
        for k in range(1, powers.shape[1] - 1):
            one, two = math.sqrt(1.0 / (k + 1.0)), math.sqrt(k / (k + 1.0))
            for n in range(x.shape[1]):
                powers[i, k + 1, n] = one * x[i, n] * powers[i, k, n] - two * powers[i, k - 1, n]


@vectorised
def _product(powers: np.ndarray, exponents: np.ndarray, factor: float, out: np.ndarray) -> None:
    """``factor h_beta`` of each sample."""
    for n in range(out.shape[0]):
        out[n] = factor
    for i in range(exponents.shape[0]):
        if exponents[i] > 0:
            row = powers[i, exponents[i]]
            for n in range(out.shape[0]):
                out[n] *= row[n]


@vectorised
def _combine(coefficients: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """Add rows with coefficients."""
    for j in range(coefficients.shape[0]):
        factor = coefficients[j]
        if factor != 0.0:
            for n in range(out.shape[0]):
                out[n] += factor * rows[j, n]


@compiled
def _evaluate(
    features: Features, z: np.ndarray, powers: np.ndarray, values: np.ndarray, primes: np.ndarray
) -> None:
    """Features (rows) of samples (columns), and what `differentiate` combines."""
    random = features.phases.shape[0] > 0
    if not random:
        _powers(z, powers)
    for j in range(values.shape[0]):
        if random:
            values[j] = features.phases[j]
            _combine(features.frequencies[j], z, values[j])
            wave(values[j], primes[j], math.sqrt(2.0 / features.phases.shape[0]))
        else:
            _product(powers, features.exponents[j], 1.0, values[j])
            primes[j] = values[j]


@entry
def advance_projected(
    target: Link,
    features: Features,
    rates: Rates,
    levels: np.ndarray,
    key: np.ndarray,
    state: State,
    stop: int,
) -> None:
    """Online gradient descent until `stop` samples are used, in law that of `advance`.

    It goes on to the end of what is drawn together, or of the batch, whichever comes first, so that
    sums have the same rounding wherever a run is interrupted.

    The gradient needs double precision and at least r + 2 q columns. While a batch goes on it holds
    the sums of ``a_n`` times the coordinates in the span of W* and W, and of ``a_n a_n^T``.
    """
    size, dim = state.frame.shape
    count, rank = state.link.shape[0], target.modes.shape[1]
    each = rank + size + (1 if target.noise > 0.0 else 0)
    drawn, held = np.empty(TOGETHER * each, np.float32), -1
    words, work = np.empty(drawn.size, np.uint32), np.empty((2, drawn.size // 2), np.float32)
    wide = -(-(dim - rank) // LANES) * LANES
    normals, more = np.empty(wide, np.float32), np.empty(wide, np.uint32)
    room = np.empty((2, wide // 2), np.float32)
    x = np.empty((each, TOGETHER))
    z, powers = (
        np.empty((size, TOGETHER)),
        np.empty((size, highest(features.exponents) + 1, TOGETHER)),
    )
    star_powers = np.empty((rank, highest(target.modes) + 1, TOGETHER))
    values, primes = np.empty((count, TOGETHER)), np.empty((count, TOGETHER))
    label, error, term = np.empty(TOGETHER), np.empty(TOGETHER), np.empty(TOGETHER)
    factors, slopes = np.empty((size, TOGETHER)), np.empty((size, count))
    factor, lower = np.empty((count, count)), np.zeros((size, size))
    basis = np.empty((size, dim - rank))
    _beyond(state.frame, rank, lower, basis)
    differentiate(features, state.link, slopes)
    while state.used[0] < stop and state.used[1] == 0:
        position = state.used[0] % rates.batch
        if position == 0:
            open_batch(rates, state)
        # Samples have their place in a block by their number alone, wherever a run was interrupted.
        block = state.used[0] // TOGETHER
        first = state.used[0] - block * TOGETHER
        m = min(TOGETHER - first, rates.batch - position)
        if block != held:
            sample(key, block, words, work, drawn)
            held = block
        for i in range(each):
            x[i, :m] = drawn[i * TOGETHER + first : i * TOGETHER + first + m]
        label[:m] = 0.0
        if target.noise > 0.0:
            label[:m] = target.noise * x[each - 1, :m]
        _powers(x[:rank, :m], star_powers[:, :, :m])
        for j in range(target.modes.shape[0]):
            _product(star_powers[:, :, :m], target.modes[j], target.coefficients[j], term[:m])
            label[:m] += term[:m]
        for i in range(size):
            z[i, :m] = 0.0
            # z = W^T x, from the target's coordinates and those in the basis of what W has beyond.
            _combine(state.frame[i, :rank], x[:, :m], z[i, :m])
            _combine(lower[i, : i + 1], x[rank:, :m], z[i, :m])
        _evaluate(features, z[:, :m], powers[:, :, :m], values[:, :m], primes[:, :m])
        error[:m] = -label[:m]
        _combine(state.link, values[:, :m], error[:m])
        for i in range(size):
            factors[i, :m] = 0.0
            # a_n = (f(z_n) - y_n) d_i f(z_n); then its sums with the coordinates, and with itself.
            _combine(slopes[i], primes[:, :m], factors[i, :m])
            factors[i, :m] *= error[:m]
            for j in range(rank + size):
                state.gradient[i, j] += dot(factors[i, :m], x[j, :m])
            for j in range(i + 1):
                state.gradient[i, rank + size + j] += dot(factors[i, :m], factors[j, :m])
        for j in range(count):
            state.moment[j] += dot(values[j, :m], label[:m])
            for k in range(j + 1):
                state.gram[j, k] += dot(values[j, :m], values[k, :m])
        state.weight[0] += m
        state.used[0] += m
        if position + m == rates.batch:
            index = state.used[0] // rates.batch
            _complete(basis, rank, key, index, normals, more, room, state.gradient)
            if not close_batch(features, rates, levels, factor, state):
                break
            _beyond(state.frame, rank, lower, basis)
            differentiate(features, state.link, slopes)
