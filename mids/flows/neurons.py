"""Compiled flow of the overlaps of a two-layer network, one run at a time.

Takes the start (M, Q, a) of a run and the constants of its network and target; gives the state on a
time grid, losses, and the times at which neurons and directions are learned. The state is one
vector: M (terms of the target or axes, by neuron), Q (neuron by neuron) and a (neuron).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from ..validation import FloatArray, IntArray

__all__ = ["Network", "Output", "integrate", "span_overlaps"]

MAX_STEPS = 1_000_000
ITERATIONS = 60
SMALL = 32
SINGULAR = 1e-10
"""Eigenvalues of Q below this fraction of the largest are zero: neurons that coincide."""
FLOOR = 1e-14


class Network(NamedTuple):
    """Constants of a network and its target.

    Shapes: activation (degree + 3,); starts (modes + 1,); axes, powers (factors,); weights, degrees
    (modes,); directions (rank, terms). The link's polynomials are products of powers of terms
    ``directions.T @ m``; mode n has the factors ``starts[n]`` to ``starts[n + 1]``.
    """

    activation: FloatArray
    scaling: int  # 0: unit norms, 1: polynomial, 2: power law of (shift + norm^2)
    shift: float
    power: float
    starts: IntArray
    axes: IntArray
    powers: IntArray
    weights: FloatArray
    degrees: IntArray
    directions: FloatArray
    identity: bool
    squared: bool
    readout_rate: float  # 0: fixed
    target_square: float
    activation_square: float


class Output(NamedTuple):
    """What `integrate` fills for one run.

    Shapes: states (T, size); loss, risk (T,); neuron_crossing (p, levels);
    crossing (r, levels); counts (2,); ended (1,).
    """

    states: FloatArray
    loss: FloatArray
    risk: FloatArray
    neuron_crossing: FloatArray
    crossing: FloatArray
    counts: IntArray
    ended: IntArray  # 0 at the end of the time, 1 at rest, 2 given up


@njit(cache=True, error_model="numpy", nogil=True)
def _coefficients(net: Network, square: float, b: FloatArray, slope: FloatArray) -> None:
    """Hermite coefficients of ``sigma(w x)`` over ``|w|^k``, and their derivatives by |w|^2."""
    c = net.activation
    count = len(b)
    for k in range(count):
        b[k] = c[k]
        slope[k] = 0.0
    if net.scaling == 1:  # heat equation: d b_k / d|w|^2 = sqrt((k + 1)(k + 2)) b_(k + 2) / 2
        for k in range(count - 1, -1, -1):
            total, weight = 0.0, 1.0
            for j in range((count - 1 - k) // 2 + 1):
                if j > 0:
                    n = k + 2 * j
                    weight *= math.sqrt(n * (n - 1.0)) * (square - 1.0) / (2.0 * j)
                total += c[k + 2 * j] * weight
            b[k] = total
        for k in range(count - 2):
            slope[k] = 0.5 * math.sqrt((k + 1.0) * (k + 2.0)) * b[k + 2]
    elif net.scaling == 2:
        ratio = (net.shift + square) / (net.shift + 1.0)
        for k in range(count):
            exponent = 0.5 * (net.power - k)
            b[k] = c[k] * ratio**exponent
            slope[k] = exponent * b[k] / (net.shift + square)


@njit(cache=True, error_model="numpy", nogil=True)
def _correlate(
    net: Network, m: FloatArray, b: FloatArray, slope: FloatArray, pull: FloatArray
) -> tuple[float, float]:
    """E f* sigma(w x), its derivative by |w|^2, and by the terms m, which `pull` gets."""
    value, radial = 0.0, 0.0
    pull[:] = 0.0
    for n in range(len(net.weights)):
        first, last = net.starts[n], net.starts[n + 1]
        factor = net.weights[n] * b[net.degrees[n]]
        product = 1.0
        for i in range(first, last):
            product *= m[net.axes[i]] ** net.powers[i]
        value += factor * product
        radial += net.weights[n] * slope[net.degrees[n]] * product
        for i in range(first, last):
            other = factor * net.powers[i]
            for k in range(first, last):
                other *= m[net.axes[k]] ** (net.powers[k] - (1 if k == i else 0))
            pull[net.axes[i]] += other
    return value, radial


@njit(cache=True, error_model="numpy", nogil=True)
def _slope(net: Network, rank: int, p: int, y: FloatArray, out: FloatArray) -> tuple[float, float]:
    """Right-hand side of the flow; returns loss and risk at y."""
    terms = net.directions.shape[1]
    count = len(net.activation) - 2
    M = y[: rank * p].reshape(rank, p)
    Q = y[rank * p : rank * p + p * p].reshape(p, p)
    a = y[rank * p + p * p :]
    dM = out[: rank * p].reshape(rank, p)
    dQ = out[rank * p : rank * p + p * p].reshape(p, p)
    da = out[rank * p + p * p :]
    b, slope = np.empty((p, count)), np.empty((p, count))
    pull, mixing = np.empty((rank, p)), np.zeros((p, p))
    term, force = np.empty(terms), np.empty(terms)
    values = np.empty(p)
    for j in range(p):
        _coefficients(net, Q[j, j], b[j], slope[j])
        if net.identity:
            for i in range(rank):
                term[i] = M[i, j]
        else:
            for n in range(terms):
                term[n] = 0.0
                for i in range(rank):
                    term[n] += net.directions[i, n] * M[i, j]
        values[j], radial = _correlate(net, term, b[j], slope[j], force)
        for i in range(rank):
            if net.identity:
                pull[i, j] = a[j] * force[i]
            else:
                pull[i, j] = 0.0
                for n in range(terms):
                    pull[i, j] += a[j] * net.directions[i, n] * force[n]
        mixing[j, j] += 2.0 * a[j] * radial
    interaction, own, linear = 0.0, 0.0, 0.0
    fitted = np.zeros(p)
    for j in range(p):
        linear += a[j] * values[j]
        for i in range(j + 1):
            first, zeroth = 0.0, 0.0
            x = Q[i, j]
            for k in range(count - 1, 0, -1):  # Horner
                product = b[i, k] * b[j, k]
                first = first * x + k * product
                zeroth = zeroth * x + product
            zeroth = zeroth * x + b[i, 0] * b[j, 0]
            fitted[j] += a[i] * zeroth
            if i == j:
                own += a[j] * a[j] * zeroth
            else:
                fitted[i] += a[j] * zeroth
            if net.squared:
                mixing[i, j] -= a[i] * a[j] * first
                if i != j:
                    mixing[j, i] -= a[i] * a[j] * first
        if net.squared and net.scaling != 0:
            for i in range(p):
                radial = 0.0
                for k in range(count - 1, -1, -1):
                    radial = radial * Q[i, j] + b[i, k] * slope[j, k]
                mixing[j, j] -= 2.0 * a[i] * a[j] * radial
    for j in range(p):
        interaction += a[j] * fitted[j]
        da[j] = net.readout_rate * (values[j] - fitted[j])
    if net.scaling == 0:  # the norms stay
        for j in range(p):
            along = 0.0
            for i in range(rank):
                along += M[i, j] * pull[i, j]
            for i in range(p):
                along += Q[j, i] * mixing[i, j]
            mixing[j, j] -= along
    half = np.empty((p, p))
    if p <= SMALL and rank <= SMALL:  # calls of a library cost more than the sums
        for j in range(p):
            for i in range(rank):
                total = pull[i, j]
                for k in range(p):
                    total += M[i, k] * mixing[k, j]
                dM[i, j] = total
            for i in range(p):
                total = 0.0
                for k in range(rank):
                    total += M[k, i] * pull[k, j]
                for k in range(p):
                    total += Q[i, k] * mixing[k, j]
                half[i, j] = total
    else:
        dM[:] = pull + np.dot(M, mixing)
        half[:] = np.dot(np.ascontiguousarray(M.T), pull) + np.dot(Q, mixing)
    for j in range(p):
        for i in range(p):
            dQ[i, j] = half[i, j] + half[j, i]
        if net.scaling == 0:
            dQ[j, j] = 0.0
    risk = 0.5 * (net.target_square + interaction) - linear
    return (risk if net.squared else 0.5 * (net.target_square + own) - linear), risk


@njit(cache=True, error_model="numpy", nogil=True)
def span_overlaps(M: FloatArray, Q: FloatArray) -> FloatArray:
    """Eigenvalues of ``G = M Q^+ M^T``, the overlap of the neurons' span, descending.

    Shapes: M (rank, p); Q (p, p); returns (rank,).
    """
    rank = len(M)
    sizes, vectors = np.linalg.eigh(Q)
    scaled = np.zeros_like(vectors)
    for k in range(len(sizes)):
        if sizes[k] > SINGULAR * sizes[-1]:
            scaled[:, k] = vectors[:, k] / math.sqrt(sizes[k])
    basis = np.dot(M, scaled)
    out = np.zeros(rank)
    small = np.dot(basis, basis.T) if rank <= len(Q) else np.dot(basis.T, basis)
    found = np.linalg.eigvalsh(small)
    for k in range(len(found)):
        out[k] = min(max(found[len(found) - 1 - k], 0.0), 1.0)
    return out


@njit(cache=True, error_model="numpy", nogil=True)
def _neuron_overlap(net: Network, rank: int, p: int, y: FloatArray, j: int) -> float:
    """Squared cosine of a neuron with the nearest direction."""
    M = y[: rank * p].reshape(rank, p)
    square = y[rank * p + j * p + j]
    best = 0.0
    for n in range(net.directions.shape[1]):
        cosine = 0.0
        if net.identity:
            cosine = M[n, j]
        else:
            for i in range(rank):
                cosine += net.directions[i, n] * M[i, j]
        best = max(best, cosine * cosine)
    return float(best / square)


@njit(cache=True, error_model="numpy", nogil=True)
def _may_cross(rank: int, p: int, y: FloatArray, level: float) -> bool:
    """Tell whether an overlap of the span can have reached a level: a bound without eigenvalues."""
    M = y[: rank * p]
    Q = y[rank * p : rank * p + p * p].reshape(p, p)
    least = np.inf
    for i in range(p):
        row = Q[i, i]
        for j in range(p):
            if j != i:
                row -= abs(Q[i, j])
        least = min(least, row)
    return bool(least <= 0.0 or np.sum(M * M) >= level * least)


@njit(cache=True, error_model="numpy", nogil=True)
def _scales(rank: int, p: int, y: FloatArray, scale: FloatArray) -> None:
    """Size of each entry of the state, to which its error is compared.

    Overlaps are small on a plateau, and it is their relative error that counts there.
    """
    for j in range(p):
        largest = FLOOR
        for i in range(rank):
            largest = max(largest, abs(y[i * p + j]))
        for i in range(rank):
            scale[i * p + j] = largest
    start = rank * p
    for i in range(p):
        largest = FLOOR
        for j in range(p):
            if j != i:
                largest = max(largest, abs(y[start + i * p + j]))
        for j in range(p):
            scale[start + i * p + j] = max(largest, abs(y[start + i * p + j]))
    start += p * p
    largest = FLOOR
    for j in range(p):
        largest = max(largest, abs(y[start + j]))
    scale[start:] = largest


@njit(cache=True, error_model="numpy", nogil=True)
def _at_rest(
    rank: int,
    p: int,
    y: FloatArray,
    slope: FloatArray,
    scale: FloatArray,
    rtol: float,
    remaining: float,
) -> bool:
    """Tell whether nothing moves any more.

    What has been learned rests when it moves more slowly than its error; what has not could still
    grow, so that the rest of the time counts.
    """
    for j in range(p):
        square = 0.0
        for i in range(rank):
            square += y[i * p + j] ** 2
        allowed = 100.0 * rtol if square > 0.1 else 1e-7 / remaining
        for i in range(rank):
            if abs(slope[i * p + j]) > allowed * scale[i * p + j]:
                return False
    rest = rank * p
    return bool(np.all(np.abs(slope[rest:]) <= 100.0 * rtol * scale[rest:]))


@njit(cache=True, error_model="numpy", nogil=True)
def _dense(
    theta: float, step: float, old: FloatArray, stages: FloatArray, P: FloatArray, out: FloatArray
) -> None:
    """State at the fraction theta of a step, from its stages."""
    for i in range(len(out)):
        total = 0.0
        for s in range(len(stages)):
            weight = ((P[s, 3] * theta + P[s, 2]) * theta + P[s, 1]) * theta + P[s, 0]
            total += stages[s, i] * weight
        out[i] = old[i] + step * theta * total


@njit(cache=True, error_model="numpy", nogil=True)
def integrate(
    net: Network,
    rank: int,
    p: int,
    start: FloatArray,
    time: FloatArray,
    rtol: float,
    levels: FloatArray,
    follow_span: bool,
    A: FloatArray,
    B: FloatArray,
    E: FloatArray,
    P: FloatArray,
    out: Output,
) -> None:
    """Dormand and Prince's method of order 5(4) with steps relative to the size of each overlap.

    Fills `out`. The tables A, B, E, P are those of `scipy.integrate.RK45`.
    """
    size = len(start)
    y, old, trial = start.copy(), start.copy(), np.empty(size)
    scale, moment = np.empty(size), np.empty(size)
    stages = np.empty((7, size))
    scratch = np.empty(size)
    t, end, row = 0.0, time[-1], 1
    out.loss[0], out.risk[0] = _slope(net, rank, p, y, stages[0])
    out.states[0] = y
    out.counts[1] += 1
    _crossings(net, rank, p, t, 0.0, y, y, stages, P, levels, follow_span, moment, out)
    _scales(rank, p, y, scale)
    fastest = np.max(np.abs(stages[0]) / scale)
    step = min(0.01 / fastest, end) if fastest > 0.0 else end
    while row < len(time):
        if out.counts[0] + (out.counts[1] // 6) > 2 * MAX_STEPS:
            out.ended[0] = 2
            return
        step = min(step, end - t) if t + 1.01 * step < end else end - t
        for s in range(1, 6):
            for i in range(size):
                total = 0.0
                for k in range(s):
                    total += A[s, k] * stages[k, i]
                trial[i] = y[i] + step * total
            _slope(net, rank, p, trial, stages[s])
        for i in range(size):
            total = 0.0
            for k in range(6):
                total += B[k] * stages[k, i]
            trial[i] = y[i] + step * total
        _slope(net, rank, p, trial, stages[6])
        out.counts[1] += 6
        _scales(rank, p, trial, moment)
        error = 0.0
        for i in range(size):
            total = 0.0
            for k in range(7):
                total += E[k] * stages[k, i]
            error = max(error, abs(step * total) / max(scale[i], moment[i]))
        error /= rtol
        if not error <= 1.0:
            if step <= 1e-15 * t or step < 1e-300:
                out.ended[0] = 2
                return
            step *= max(0.2, 0.9 * error**-0.2) if error < np.inf else 0.1
            continue
        old[:] = y
        y[:] = trial
        if net.scaling == 0:  # rounding does not take the norms away
            for j in range(p):
                y[rank * p + j * p + j] = 1.0
        out.counts[0] += 1
        before, t = t, t + step
        while row < len(time) and (time[row] <= t or t >= end):
            _dense((time[row] - before) / step, step, old, stages, P, moment)
            out.states[row] = moment
            out.loss[row], out.risk[row] = _slope(net, rank, p, moment, scratch)
            row += 1
        _crossings(net, rank, p, before, step, old, y, stages, P, levels, follow_span, moment, out)
        stages[0] = stages[6]
        _scales(rank, p, y, scale)
        if row < len(time) and _at_rest(rank, p, y, stages[0], scale, rtol, end - t):
            for i in range(row, len(time)):
                out.states[i] = y
                out.loss[i], out.risk[i] = _slope(net, rank, p, y, scratch)
            out.ended[0] = 1
            return
        elif row == len(time) and _at_rest(rank, p, y, stages[0], scale, 1e-6, end):
            out.ended[0] = 1
        step *= min(5.0, 0.9 * max(error, 1e-10) ** -0.2)


@njit(cache=True, error_model="numpy", nogil=True)
def _overlap(net: Network, rank: int, p: int, y: FloatArray, neuron: int, direction: int) -> float:
    """Overlap of a neuron, or where that is -1 of the span with a direction."""
    if neuron >= 0:
        return _neuron_overlap(net, rank, p, y, neuron)
    M = y[: rank * p].reshape(rank, p)
    overlaps = span_overlaps(M, y[rank * p : rank * p + p * p].reshape(p, p))
    return float(overlaps[direction])


@njit(cache=True, error_model="numpy", nogil=True)
def _fraction(
    net: Network,
    rank: int,
    p: int,
    step: float,
    old: FloatArray,
    new: FloatArray,
    stages: FloatArray,
    P: FloatArray,
    level: float,
    neuron: int,
    direction: int,
    y: FloatArray,
) -> float:
    """Fraction of a step at which an overlap reaches a level: Illinois' false position."""
    if step == 0.0:
        return 0.0
    low, high = 0.0, 1.0
    below = _overlap(net, rank, p, old, neuron, direction) - level
    above = _overlap(net, rank, p, new, neuron, direction) - level
    if below >= 0.0:
        return 0.0
    side = 0
    for _ in range(ITERATIONS):
        theta = (low * above - high * below) / (above - below)
        if high - low < 1e-13 or not low < theta < high:
            break
        _dense(theta, step, old, stages, P, y)
        found = _overlap(net, rank, p, y, neuron, direction) - level
        if abs(found) < 1e-13:
            return theta
        if found > 0.0:
            high, above = theta, found
            below *= 0.5 if side == 1 else 1.0
            side = 1
        else:
            low, below = theta, found
            above *= 0.5 if side == -1 else 1.0
            side = -1
    return high


@njit(cache=True, error_model="numpy", nogil=True)
def _crossings(
    net: Network,
    rank: int,
    p: int,
    t: float,
    step: float,
    old: FloatArray,
    new: FloatArray,
    stages: FloatArray,
    P: FloatArray,
    levels: FloatArray,
    follow_span: bool,
    y: FloatArray,
    out: Output,
) -> None:
    """Find in the dense output where overlaps reached a level during a step."""
    for j in range(p):
        overlap = _neuron_overlap(net, rank, p, new, j)
        for k in range(len(levels)):
            if np.isnan(out.neuron_crossing[j, k]) and overlap >= levels[k]:
                out.neuron_crossing[j, k] = t + step * _fraction(
                    net, rank, p, step, old, new, stages, P, levels[k], j, 0, y
                )
    waiting = False
    for i in range(min(rank, p)):
        waiting |= np.isnan(out.crossing[i, len(levels) - 1])
    if not follow_span or not waiting or not _may_cross(rank, p, new, levels[0]):
        return
    overlaps = span_overlaps(
        new[: rank * p].reshape(rank, p), new[rank * p : rank * p + p * p].reshape(p, p)
    )
    for i in range(min(rank, p)):
        for k in range(len(levels)):
            if np.isnan(out.crossing[i, k]) and overlaps[i] >= levels[k]:
                out.crossing[i, k] = t + step * _fraction(
                    net, rank, p, step, old, new, stages, P, levels[k], -1, i, y
                )
