"""Stochastic gradient steps of a two-layer network on fresh samples, in compiled code.

The target's frame is the first r coordinates; weights are stored as rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .features import add, compiled, dot, entry, project
from .neurons import Network, neuron_overlap, span_overlaps, terms_of, workspace
from .normals import sample
from .sampled import spread

KINDS = ("polynomial", "erf", "relu", "tanh", "sigmoid")


class Activation(NamedTuple):
    """The activation itself, averaged over the nodes of a smoothing.

    Shapes: series (degree + 1,), of a polynomial; nodes, weights (n,).
    """

    kind: int
    series: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray
    smoothing: float


class NetworkRates(NamedTuple):
    """Parameters of the descent; `lookahead` is 0 where a batch is used once."""

    step: float
    batch: int
    noise: float
    lookahead: float
    stride: int  # steps from one look at the span to the next


class NeuronState(NamedTuple):
    """Everything a run carries on.

    Shapes: used (2,); frame (p, d), or (p, r + p) of `diffuse`; layer (p,); cosines (p,); overlaps
    (r or 0,); neuron_crossing (p, levels); crossing (r or 0, levels).
    """

    used: np.ndarray
    frame: np.ndarray
    layer: np.ndarray
    cosines: np.ndarray
    overlaps: np.ndarray
    neuron_crossing: np.ndarray
    crossing: np.ndarray


@compiled
def _hermite(x: float, values: np.ndarray) -> None:
    """Orthonormal Hermite polynomials."""
    values[0] = 1.0
    if len(values) > 1:
        values[1] = x
    for k in range(1, len(values) - 1):
        values[k + 1] = (x * values[k] - math.sqrt(k) * values[k - 1]) / math.sqrt(k + 1.0)


@compiled
def activate(act: Activation, u: float, table: np.ndarray) -> tuple[float, float]:
    """Activation and its derivative."""
    if act.kind == 1:
        return math.erf(u * math.sqrt(0.5)), math.sqrt(2.0 / math.pi) * math.exp(-0.5 * u * u)
    if act.kind == 2:
        return max(u, 0.0), 1.0 if u > 0.0 else 0.0
    if act.kind == 3:
        value = math.tanh(u)
        return value, 1.0 - value * value
    if act.kind == 4:
        # The sigmoid in a form whose exponentials never overflow.
        value = 0.5 + 0.5 * math.tanh(0.5 * u)
        return value, value * (1.0 - value)
    _hermite(u, table)
    value, derivative = act.series[0], 0.0
    for k in range(1, len(act.series)):
        value += act.series[k] * table[k]
        # h_k' = sqrt(k) h_(k-1)
        derivative += act.series[k] * math.sqrt(k) * table[k - 1]
    return value, derivative


@compiled
def label_of(net: Network, alphas: np.ndarray, term: np.ndarray, table: np.ndarray) -> float:
    """Value of the target; `table` gets the Hermite polynomials of each term."""
    for n in range(len(term)):
        _hermite(term[n], table[n])
    total = 0.0
    for n in range(len(alphas)):
        product = alphas[n]
        for i in range(net.starts[n], net.starts[n + 1]):
            product *= table[net.axes[i], net.powers[i]]
        total += product
    return total


@compiled
def watch(
    levels: np.ndarray,
    now: float,
    before: float,
    old: np.ndarray,
    new: np.ndarray,
    crossing: np.ndarray,
) -> None:
    """Note the levels reached since the last look, interpolated in time."""
    for j in range(len(crossing)):
        for k in range(len(levels)):
            if np.isnan(crossing[j, k]) and new[j] >= levels[k]:
                part = 1.0
                if new[j] > old[j]:
                    part = max((levels[k] - old[j]) / (new[j] - old[j]), 0.0)
                crossing[j, k] = before + (now - before) * part


@compiled
def look(
    net: Network,
    levels: np.ndarray,
    now: float,
    before: float,
    state: NeuronState,
    cosines: np.ndarray,
) -> None:
    """Note the levels that neurons have reached."""
    for j in range(len(cosines)):
        m = state.frame[j]
        cosines[j] = neuron_overlap(net, m, 0, 1.0 if net.scaling == 0 else dot(m, m))
    watch(levels, now, before, state.cosines, cosines, state.neuron_crossing)
    for j in range(len(cosines)):
        state.cosines[j] = cosines[j]


@compiled
def pack(state: NeuronState, rank: int, y: np.ndarray) -> None:
    """Correlations and products of the neurons, from their weights."""
    p = len(state.frame)
    for j in range(p):
        for i in range(rank):
            y[j * rank + i] = state.frame[j, i]
        for i in range(j + 1):
            product = dot(state.frame[i], state.frame[j])
            y[p * rank + i * p + j] = y[p * rank + j * p + i] = product


@entry
def descend(
    net: Network,
    alphas: np.ndarray,
    act: Activation,
    rates: NetworkRates,
    levels: np.ndarray,
    key: np.ndarray,
    state: NeuronState,
    stop: int,
) -> None:
    """Step until `stop` samples are used; those of a batch are drawn again where it is used twice.

    With a smoothing lambda the activation is the average of ``sigma((w + lambda v) . x / norm)``
    over unit v orthogonal to w: over nodes of the first coordinate of v.
    """
    p, dim = state.frame.shape
    rank, terms = net.directions.shape[1], net.directions.shape[0]
    top = 2
    for k in net.powers:
        top = max(top, k + 1)
    # Samples come in multiples of 8 numbers; one beyond dim is the noise, and weights are 0 there.
    width = (dim + (1 if rates.noise > 0.0 else 0) + 7) // 8 * 8
    # Samples and gradients are in single precision; weights, where small steps add up, are not.
    x, frame = np.zeros(width, np.float32), np.zeros((p, width), np.float32)
    words, work = np.empty(width, np.uint32), np.empty((2, width // 2), np.float32)
    star, term = np.empty(rank), np.empty(terms)
    table, row = np.empty((terms, top)), np.empty(max(len(act.series), 2))
    z, values, slopes = np.empty(p), np.empty(p), np.empty(p)
    gradient, readout = np.empty((p, width), np.float32), np.empty(p)
    length = math.sqrt(1.0 + act.smoothing**2)
    cosines = np.empty(p)
    room, y = workspace(net, p), np.empty(p * rank + p * p)
    while state.used[0] < stop and state.used[1] == 0:
        spread(state.frame, frame)
        # The first of two turns only moves the copy at which the second takes gradients.
        for turn in range(2 if rates.lookahead != 0.0 else 1):
            for j in range(p):
                readout[j] = 0.0
                for i in range(width):
                    gradient[j, i] = 0.0
            for n in range(rates.batch):
                sample(key, state.used[0] + n, words, work, x)
                for i in range(rank):
                    star[i] = x[i]
                terms_of(net, star, 0, term)
                value = label_of(net, alphas, term, table)
                if rates.noise > 0.0:
                    value += rates.noise * float(x[dim])
                project(frame, x, z)
                square = 0.0
                # Without a smoothing shift is 0 below, and lengths do not matter.
                if act.smoothing > 0.0:
                    square = float(dot(x[:dim], x[:dim]))
                fitted = 0.0
                for j in range(p):
                    # v . x = |x beyond w| times a coordinate of v, which the nodes stand for.
                    rest = math.sqrt(max(square - z[j] ** 2, 1e-300))
                    values[j], slopes[j] = 0.0, 0.0
                    for m in range(len(act.nodes)):
                        shift = act.smoothing * act.nodes[m]
                        one, two = activate(act, (z[j] + shift * rest) / length, row)
                        values[j] += act.weights[m] * one
                        # d rest / d z = - z / rest: the gradient by w is along x alone.
                        slopes[j] += act.weights[m] * two * (1.0 - shift * z[j] / rest) / length
                    fitted += state.layer[j] * values[j]
                # The gradient of the correlation loss does not know what is fitted.
                error = (fitted if net.squared else 0.0) - value
                for j in range(p):
                    readout[j] += error * values[j]
                    add(np.float32(error * state.layer[j] * slopes[j]), x, gradient[j])
            ahead = rates.lookahead != 0.0 and turn == 0
            factor = (rates.lookahead if ahead else rates.step) / rates.batch
            for j in range(p):
                # Unit weights move on the sphere: the division below is of second order.
                along = 0.0
                if net.scaling == 0:
                    for i in range(dim):
                        along += gradient[j, i] * state.frame[j, i]
                if ahead:
                    for i in range(dim):
                        move = gradient[j, i] - along * state.frame[j, i]
                        frame[j, i] = state.frame[j, i] - factor * move
                    continue
                square = 0.0
                for i in range(dim):
                    move = gradient[j, i] - along * state.frame[j, i]
                    state.frame[j, i] -= factor * move
                    square += state.frame[j, i] ** 2
                if net.scaling == 0:
                    scale = 1.0 / math.sqrt(square)
                    for i in range(dim):
                        state.frame[j, i] *= scale
                if not square < np.inf:
                    state.used[1] = 1
                state.layer[j] -= net.readout_rate * factor * readout[j]
        state.used[0] += rates.batch
        steps = state.used[0] // rates.batch
        now = rates.step * steps
        look(net, levels, now, now - rates.step, state, cosines)
        # Overlaps of the span cost p^3 operations: they are looked at once in `stride` steps.
        if len(state.crossing) > 0 and steps % rates.stride == 0:
            pack(state, rank, y)
            span_overlaps(y, rank, p, room)
            before = now - rates.step * rates.stride
            watch(levels, now, before, state.overlaps, room.overlaps, state.crossing)
            for i in range(rank):
                state.overlaps[i] = room.overlaps[i]
