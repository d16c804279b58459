"""The limit SDE of a two-layer network's descent on samples, in compiled code."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .features import compiled, dot, entry
from .neuron_descent import Activation, NeuronState, activate, label_of, look, pack, watch
from .neurons import Network, slope, span_overlaps, terms_of, workspace
from .normals import sample

DRAWS = 32
"""Samples from which the fluctuations of a step of `diffuse` are drawn."""
RELATIVE, LONGEST = 0.01, 0.2
"""Change of an overlap in a step of `diffuse`, and of the fastest rate there can be."""


class Diffusion(NamedTuple):
    """Parameters of the limit of small steps: those of the descent, and bounds of its rates."""

    rate: float  # step / batch
    shortest: float  # the step of the descent
    noise: float
    beyond: int  # dimensions orthogonal to target and neurons
    pull: float
    mixing: float


@entry
def diffuse(
    net: Network,
    alphas: np.ndarray,
    act: Activation,
    rates: Diffusion,
    levels: np.ndarray,
    key: np.ndarray,
    state: NeuronState,
    time: np.ndarray,
    states: np.ndarray,
) -> None:
    """Take Euler-Maruyama steps of the limit SDE of `descend`, and note the states on the grid.

    The weights are held in coordinates of the target and as many more as there are neurons. Drift
    is the flow's; fluctuations are sums, with normal factors, of gradients of a few samples, whose
    covariance is that of the gradient. Gradients add ``rate * dims * E g_j g_k`` to the products
    of what lies in all other dimensions, which the division by the norm takes away from the rest.

    Shapes: time (T,); states (T, p r + p p + p).
    """
    p, width = state.frame.shape
    rank, terms = width - p, net.directions.shape[0]
    top = 2
    for k in net.powers:
        top = max(top, k + 1)
    # A draw: x in these coordinates, noise of its label, normal factor of its gradient.
    x = np.empty((width + 2 + 7) // 8 * 8, np.float32)
    words, work = np.empty(len(x), np.uint32), np.empty((2, len(x) // 2), np.float32)
    star, term = np.empty(rank), np.empty(terms)
    table, row = np.empty((terms, top)), np.empty(max(len(act.series), 2))
    u, force, values, cosines = np.empty(p), np.empty(p), np.empty(p), np.empty(p)
    drift, random, squares = np.empty((p, width)), np.empty((p, width)), np.empty((p, p))
    readout = np.empty(p)
    room, y, slopes = workspace(net, p), states[0].copy(), states[0].copy()
    # As width = rank + p, this is where M and Q end in the state.
    at_a = p * width
    now, norm, n, drawn = 0.0, -1.0, 0, 0
    while n < len(time) and state.used[1] == 0:
        pack(state, rank, y)
        for j in range(p):
            y[at_a + j] = state.layer[j]
        if time[n] <= now:
            states[n] = y
            n += 1
            continue
        slope(net, rank, p, y, slopes, room)
        fastest, largest, total = 0.0, 0.0, 0.0
        for j in range(p):
            # Correlations below the fluctuations of a unit of time need no shorter steps.
            size, speed = math.sqrt(rates.rate), 0.0
            for i in range(width):
                # w_j' = W* pull_j + sum_k mixing_jk w_k, as in `slope`.
                drift[j, i] = room.pull[j, i] if i < rank else 0.0
                for k in range(p):
                    drift[j, i] += room.mixing[j, k] * state.frame[k, i]
                random[j, i] = 0.0
            for i in range(rank):
                size, speed = max(size, abs(state.frame[j, i])), max(speed, abs(drift[j, i]))
            fastest = max(fastest, speed / size)
            largest, total = max(largest, abs(state.layer[j])), total + abs(state.layer[j])
            readout[j] = 0.0
            for k in range(p):
                squares[j, k] = 0.0
        for _ in range(DRAWS):
            sample(key, drawn, words, work, x)
            drawn += 1
            factor = float(x[width + 1])
            for i in range(rank):
                star[i] = x[i]
            terms_of(net, star, 0, term)
            error = -label_of(net, alphas, term, table) - rates.noise * float(x[width])
            for j in range(p):
                u[j] = 0.0
                for i in range(width):
                    u[j] += state.frame[j, i] * x[i]
                values[j], force[j] = activate(act, u[j], row)
                force[j] *= state.layer[j]
                if net.squared:
                    error += state.layer[j] * values[j]
            for j in range(p):
                force[j] *= error
                along = u[j] if net.scaling == 0 else 0.0
                for i in range(width):
                    move = force[j] * (x[i] - along * state.frame[j, i])
                    # The mean of the gradients is minus the drift: this sum has mean 0.
                    random[j, i] -= factor * (move + drift[j, i])
                readout[j] -= factor * (net.readout_rate * error * values[j] + slopes[at_a + j])
                for k in range(j + 1):
                    # E g_j g_k: in each dimension beyond, the gradients are g_j times one normal.
                    squares[j, k] += force[j] * force[k] / DRAWS
        own = 0.0
        for j in range(p):
            own = max(own, rates.rate * rates.beyond * squares[j, j])
        norm = own if norm < 0.0 else norm
        bound = largest * (rates.pull + rates.mixing * total) + net.readout_rate * rates.mixing * p
        h = min(LONGEST / bound, RELATIVE / max(fastest, norm, 1e-300))
        # Below a step of the descent the SDE describes nothing; only the grid makes steps shorter.
        h = min(max(h, rates.shortest), time[n] - now)
        # Only after the step is chosen: one that knew its own draws would bias them.
        norm += 0.1 * (own - norm)
        # The variance in a time h is rate h times the covariance, here a mean over the draws.
        spread_of = math.sqrt(rates.rate * h / DRAWS)
        for j in range(p):
            state.layer[j] += h * slopes[at_a + j] + spread_of * readout[j]
            for i in range(width):
                state.frame[j, i] += h * drift[j, i] + spread_of * random[j, i]
        _embed(state.frame, rank, rates.rate * h * rates.beyond, squares, net.scaling == 0)
        # The grid's own time, so that rounding leaves no tiny step before it.
        before, now = now, time[n] if h == time[n] - now else now + h
        for j in range(p):
            if not (abs(state.frame[j, 0]) < np.inf and abs(state.layer[j]) < np.inf):
                state.used[1] = 1
        state.used[0] += 1
        look(net, levels, now, before, state, cosines)
        if len(state.crossing) > 0:
            pack(state, rank, y)
            span_overlaps(y, rank, p, room)
            watch(levels, now, before, state.overlaps, room.overlaps, state.crossing)
            for i in range(rank):
                state.overlaps[i] = room.overlaps[i]


@compiled
def _embed(frame: np.ndarray, rank: int, more: float, squares: np.ndarray, unit: bool) -> None:
    """Add ``more * squares`` to the products beyond the target, triangular again, and norm 1."""
    p, width = frame.shape
    for j in range(p):
        for k in range(j + 1):
            squares[j, k] *= more
            for i in range(rank, width):
                squares[j, k] += frame[j, i] * frame[k, i]
    for j in range(p):
        # Beyond the target only products matter, so that any factor of them will do: Cholesky's.
        for k in range(j + 1):
            rest = squares[j, k]
            for i in range(k):
                rest -= frame[j, rank + i] * frame[k, rank + i]
            if k < j:
                pivot = frame[k, rank + k]
                frame[j, rank + k] = rest / pivot if pivot > 0.0 else 0.0
            else:
                frame[j, rank + j] = math.sqrt(max(rest, 0.0))
        for k in range(j + 1, p):
            frame[j, rank + k] = 0.0
    if unit:
        for j in range(p):
            scale = 1.0 / math.sqrt(dot(frame[j], frame[j]))
            for i in range(width):
                frame[j, i] *= scale
