"""The gradient flow on a fixed set of samples, in compiled code."""

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
)
from .normals import sample
from .sampled import State, retract, spread, watch

__all__ = ["Samples", "descend", "descent", "draw_samples", "objective"]

PARTS = 8
"""Parts of a step between which overlaps are interpolated linearly."""
SHORTEST = 1e-9
"""Step below which a run that is not finite has failed."""
ROUNDING = 1e-13
"""Error of a step in the frame that is always accepted."""


@entry
def draw_samples(
    target: Link, key: np.ndarray, dim: int, x: np.ndarray, labels: np.ndarray
) -> None:
    """Draw the first samples of a key and their labels.

    Shapes: key (2,); x (n, width); labels (n,).
    """
    rank, width = target.modes.shape[1], x.shape[1]
    star, powers = np.empty(rank), np.empty((rank, highest(target.modes) + 1))
    words, work = np.empty(width, np.uint32), np.empty((2, width // 2), np.float32)
    for n in range(x.shape[0]):
        sample(key, n, words, work, x[n])
        for i in range(rank):
            star[i] = x[n, i]
        labels[n] = label(target, star, powers)
        if target.noise > 0.0:
            labels[n] += target.noise * float(x[n, dim])


class Samples(NamedTuple):
    """A fixed set of samples, and what they are at the frame that was looked at last.

    Shapes: x (n, width); labels (n,); z (n, q); frame (q, width); gradient (q, width).
    """

    x: np.ndarray
    labels: np.ndarray
    z: np.ndarray
    frame: np.ndarray
    gradient: np.ndarray


@entry
def descent(
    features: Features,
    ridge: float,
    samples: Samples,
    state: State,
    frame: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fit the link at a frame and give the direction of steepest descent.

    The gradient of the profiled loss is that of the loss at the fitted link. It is orthogonal to
    the columns of W, since a rotation of them is undone by the link.

    Shapes: frame (q, d); out (q, d).
    """
    size, count, n = frame.shape[0], state.link.shape[0], samples.x.shape[0]
    powers = np.empty((size, highest(features.exponents) + 1))
    values, primes, factor = np.empty(count), np.empty(count), np.empty((count, count))
    slopes = np.empty((size, count))
    spread(frame, samples.frame)
    for j in range(count):
        state.moment[j] = 0.0
        for k in range(j + 1):
            state.gram[j, k] = 0.0
    for i in range(n):
        project(samples.frame, samples.x[i], samples.z[i])
        evaluate(features, samples.z[i], powers, values, primes)
        accumulate(values, samples.labels[i], state.gram, state.moment)
    fit(state.gram, state.moment, features.penalty, ridge * n, factor, state.link)
    differentiate(features, state.link, slopes)
    for i in range(size):
        for k in range(samples.gradient.shape[1]):
            samples.gradient[i, k] = 0.0
    for m in range(n):
        evaluate(features, samples.z[m], powers, values, primes)
        error = dot(state.link, values) - samples.labels[m]
        for i in range(size):
            add(error * dot(slopes[i], primes) / n, samples.x[m], samples.gradient[i])
    for i in range(size):
        for k in range(frame.shape[1]):
            out[i, k] = -samples.gradient[i, k]
        for j in range(size):
            inner = 0.0
            for k in range(frame.shape[1]):
                inner += samples.gradient[i, k] * frame[j, k]
            for k in range(frame.shape[1]):
                out[i, k] += inner * frame[j, k]


@compiled
def _norm(array: np.ndarray) -> float:
    return math.sqrt(dot(array.ravel(), array.ravel()))


@compiled
def _pass(
    start: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    time: float,
    step: float,
    levels: np.ndarray,
    state: State,
) -> None:
    """Note the levels reached in a step, along the cubic through its ends and slopes."""
    size, rank = state.previous.shape
    between = np.empty((size, rank))
    on_the_way = State(
        state.used,
        between,
        state.gradient,
        state.link,
        state.gram,
        state.moment,
        state.weight,
        state.previous,
        state.reference,
        state.margin,
        state.crossing,
    )
    for part in range(1, PARTS + 1):
        s = part / PARTS
        for i in range(size):
            for j in range(rank):
                chord = state.frame[i, j] - start[i, j]
                bend = (1.0 - s) * (step * first[i, j] - chord) - s * (step * last[i, j] - chord)
                between[i, j] = start[i, j] + s * chord + s * (1.0 - s) * bend
        watch(time + s * step, step / PARTS, levels, on_the_way)


@entry
def descend(
    features: Features,
    ridge: float,
    accuracy: float,
    tolerance: float,
    levels: np.ndarray,
    samples: Samples,
    state: State,
    clock: np.ndarray,
    slope: np.ndarray,
    stop: float,
) -> bool:
    """Follow the flow until the time `stop` or the gradient vanishes; tell whether it does.

    The method of Bogacki and Shampine (1989), of order 3, each step followed by a QR factorisation.
    The estimated error of a step is at most `accuracy` times its length: what is accepted does not
    depend on how fast the flow is, near a saddle and near a minimum, where steps that are long for
    the curvature would be unstable.

    Shapes: levels (L,); clock (2,); slope (q, d).
    """
    two, three, four = np.empty_like(slope), np.empty_like(slope), np.empty_like(slope)
    start, error = np.empty_like(slope), np.empty_like(slope)
    while clock[0] < stop and state.used[1] == 0:
        if _norm(slope) <= tolerance:
            return True
        step = min(clock[1], stop - clock[0])
        start[:] = state.frame
        state.frame[:] = start + (0.5 * step) * slope
        descent(features, ridge, samples, state, state.frame, two)
        state.frame[:] = start + (0.75 * step) * two
        descent(features, ridge, samples, state, state.frame, three)
        state.frame[:] = start + (step / 9.0) * (2.0 * slope + 3.0 * two + 4.0 * three)
        error[:] = 0.0
        retract(state.frame, error, step)
        descent(features, ridge, samples, state, state.frame, four)
        error[:] = (-5.0 * slope + 6.0 * two + 8.0 * three - 9.0 * four) / 72.0
        size = accuracy * max(_norm(slope), _norm(four)) + ROUNDING / step
        ratio = _norm(error) / size
        if not ratio < np.inf and step < SHORTEST:
            state.used[1] = 1
            break
        factor = min(max(0.9 / math.sqrt(max(ratio, 1e-6)), 0.2), 3.0) if ratio < np.inf else 0.2
        if not ratio <= 1.0:
            state.frame[:] = start
            clock[1] = step * factor
            continue
        _pass(start, slope, four, clock[0], step, levels, state)
        slope[:] = four
        state.used[0] += 1
        if step < clock[1]:  # cut short by `stop`
            clock[0] = stop
            clock[1] = max(clock[1], step * factor)
        else:
            clock[0] += step
            clock[1] = step * factor
    return _norm(slope) <= tolerance and state.used[1] == 0


@entry
def objective(
    features: Features, ridge: float, labels: np.ndarray, z: np.ndarray, link: np.ndarray
) -> float:
    """Empirical loss with its ridge.

    Shapes: labels (n,); z (n, q); link (P,).
    """
    powers = np.empty((z.shape[1], highest(features.exponents) + 1))
    values, primes = np.empty(link.shape[0]), np.empty(link.shape[0])
    total = 0.0
    for n in range(z.shape[0]):
        evaluate(features, z[n], powers, values, primes)
        total += (dot(link, values) - labels[n]) ** 2
    total /= z.shape[0]
    for j in range(link.shape[0]):
        total += ridge * features.penalty[j] * link[j] ** 2
    return 0.5 * total
