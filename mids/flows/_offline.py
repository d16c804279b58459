"""Gradient descent on a fixed set of samples, in compiled code."""

from __future__ import annotations

import math

import numpy as np

from ._features import (
    Link,
    accumulate,
    add,
    differentiate,
    dot,
    entry,
    evaluate,
    fit,
    highest,
    label,
    project,
)
from ._normals import sample
from ._sampled import State, retract, spread, watch
from .readout import Features

__all__ = ["descend", "draw_samples", "objective", "refit"]


@entry
def draw_samples(
    target: Link, key: np.ndarray, dim: int, x: np.ndarray, labels: np.ndarray
) -> None:
    """Draw the first samples of a key and their labels.

    Parameters
    ----------
    target : Link
    key : (2,) uint64 array
    dim : int
    x : (n, width) float32 array
        The samples, and in column `dim` the noise if there is any; the rest is of no use.
    labels : (n,) float array
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


@entry
def refit(
    features: Features,
    ridge: float,
    x: np.ndarray,
    labels: np.ndarray,
    frame: np.ndarray,
    z: np.ndarray,
    state: State,
) -> None:
    """Fit the link to all samples at the current frame.

    Parameters
    ----------
    features : Features
    ridge : float
    x : (n, width) float32 array
    labels : (n,) float array
    frame : (q, width) float array
        Gets the frame, as wide as the samples.
    z : (n, q) float array
        Gets the student's coordinates of the samples.
    state : State
    """
    size, count = z.shape[1], state.link.shape[0]
    powers = np.empty((size, highest(features.exponents) + 1))
    values, primes, factor = np.empty(count), np.empty(count), np.empty((count, count))
    spread(state.frame, frame)
    for j in range(count):
        state.moment[j] = 0.0
        for k in range(j + 1):
            state.gram[j, k] = 0.0
    for n in range(x.shape[0]):
        project(frame, x[n], z[n])
        evaluate(features, z[n], powers, values, primes)
        accumulate(values, labels[n], state.gram, state.moment)
    fit(state.gram, state.moment, features.penalty, ridge * x.shape[0], factor, state.link)


@entry
def descend(
    features: Features,
    ridge: float,
    step: float,
    tolerance: float,
    levels: np.ndarray,
    x: np.ndarray,
    labels: np.ndarray,
    frame: np.ndarray,
    z: np.ndarray,
    state: State,
    stop: int,
) -> bool:
    """Take steps until `stop` are done or the gradient vanishes; tell whether it does.

    The gradient of the profiled loss is that of the loss at the fitted link. It is orthogonal to
    the columns of W, since a rotation of them is undone by the link.
    """
    size, dim = state.frame.shape
    samples, count = x.shape[0], state.link.shape[0]
    powers = np.empty((size, highest(features.exponents) + 1))
    values, primes, slopes = np.empty(count), np.empty(count), np.empty((size, count))
    while state.used[0] < stop and state.used[1] == 0:
        for i in range(size):
            for k in range(x.shape[1]):
                state.gradient[i, k] = 0.0
        differentiate(features, state.link, slopes)
        for n in range(samples):
            evaluate(features, z[n], powers, values, primes)
            error = dot(state.link, values) - labels[n]
            for i in range(size):
                add(error * dot(slopes[i], primes), x[n], state.gradient[i])
        square = 0.0
        for i in range(size):
            for k in range(dim):
                square += state.gradient[i, k] ** 2
            for j in range(size):
                inner = 0.0
                for k in range(dim):
                    inner += state.gradient[i, k] * state.frame[j, k]
                square -= inner * inner
        if math.sqrt(max(square, 0.0)) <= tolerance * samples:
            return True
        retract(state.frame, state.gradient, step / samples)
        refit(features, ridge, x, labels, frame, z, state)
        state.used[0] += 1
        finite = dot(state.link, state.link)
        for i in range(size):
            finite += dot(state.frame[i], state.frame[i])
        if not finite < np.inf:
            state.used[1] = 1
        else:
            watch(step * state.used[0], step, levels, state)
    return False


@entry
def objective(
    features: Features, ridge: float, labels: np.ndarray, z: np.ndarray, link: np.ndarray
) -> float:
    """Empirical loss with its ridge.

    Parameters
    ----------
    features : Features
    ridge : float
    labels : (n,) float array
    z : (n, q) float array
        The student's coordinates of the samples.
    link : (P,) float array

    Returns
    -------
    float
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
