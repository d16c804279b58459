"""Paths of the neurons of a two-layer network, one run at a time, in compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .compile import compiled
from .features import entry
from .neurons import Network, Work, may_cross, neuron_overlap, slope, span_overlaps, workspace

MAX_STEPS = 1_000_000
ITERATIONS = 60
FLOOR = 1e-14


class Output(NamedTuple):
    """What `integrate` fills for one run.

    Shapes: states (T, size); neuron_crossing (p, levels); crossing (r or 0, levels); counts (2,);
    ended (1,).
    """

    states: np.ndarray
    neuron_crossing: np.ndarray
    crossing: np.ndarray
    counts: np.ndarray
    ended: np.ndarray  # 0 at the end of the time, 1 at rest, 2 given up


class Tableau(NamedTuple):
    """Coefficients of `scipy.integrate.RK45`."""

    A: np.ndarray
    B: np.ndarray
    E: np.ndarray
    P: np.ndarray


class Step(NamedTuple):
    """A step taken, from which the state inside it is known.

    Shapes: old, new (size,); stages (7, size).
    """

    start: float
    length: float
    old: np.ndarray
    new: np.ndarray
    stages: np.ndarray


@compiled
def _scales(rank: int, p: int, y: np.ndarray, scale: np.ndarray) -> None:
    """Size of each entry of the state, to which its error is compared.

    Overlaps are small on a plateau, and it is their relative error that counts there.
    """
    for j in range(p):
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
def _at_rest(
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
    if slope * before < before * before:
        left = min(left, length / (1.0 - slope / before))
    return abs(slope) * max(left, 1.0) <= small


@compiled
def _inside(
    theta: float, length: float, old: np.ndarray, stages: np.ndarray, P: np.ndarray, out: np.ndarray
) -> None:
    """State at the fraction theta of a step, from its stages."""
    for i in range(out.shape[0]):
        out[i] = old[i]
    for s in range(len(stages)):
        weight = ((P[s, 3] * theta + P[s, 2]) * theta + P[s, 1]) * theta + P[s, 0]
        weight *= length * theta
        for i in range(len(out)):
            out[i] += weight * stages[s, i]


@compiled
def _overlap(
    net: Network, rank: int, p: int, y: np.ndarray, neuron: int, direction: int, work: Work
) -> float:
    """Overlap of a neuron, or where that is -1 of the span with a direction."""
    if neuron >= 0:
        return neuron_overlap(net, y, neuron * rank, y[p * rank + neuron * p + neuron])
    span_overlaps(y, rank, p, work)
    return work.overlaps[direction]


@compiled
def _narrowed(
    low: float, high: float, below: float, above: float, side: int, at: float, found: float
) -> tuple[float, float, float, float, int]:
    """Return the ends of a bracket, values there and the end kept, after a step of Illinois."""
    if found > 0.0:
        return low, at, below * (0.5 if side == 1 else 1.0), found, 1
    return at, high, found, above * (0.5 if side == -1 else 1.0), -1


@compiled
def _fraction(
    net: Network,
    rank: int,
    p: int,
    step: Step,
    P: np.ndarray,
    level: float,
    neuron: int,
    direction: int,
    y: np.ndarray,
    work: Work,
) -> float:
    """Fraction of a step at which an overlap reaches a level: Illinois' false position."""
    below = _overlap(net, rank, p, step.old, neuron, direction, work) - level
    if below >= 0.0:
        return 0.0
    above = _overlap(net, rank, p, step.new, neuron, direction, work) - level
    low, high, side = 0.0, 1.0, 0
    for _ in range(ITERATIONS):
        theta = (low * above - high * below) / (above - below)
        if high - low < 1e-13 or not low < theta < high:
            break
        _inside(theta, step.length, step.old, step.stages, P, y)
        found = _overlap(net, rank, p, y, neuron, direction, work) - level
        if abs(found) < 1e-13:
            return theta
        low, high, below, above, side = _narrowed(low, high, below, above, side, theta, found)
    return high


@compiled
def _crossings(
    net: Network,
    rank: int,
    p: int,
    step: Step,
    P: np.ndarray,
    levels: np.ndarray,
    y: np.ndarray,
    work: Work,
    out: Output,
) -> None:
    """Find in the dense output where overlaps reached a level during a step.

    Neurons come first, then, where they are followed, the directions of the span.
    """
    top = levels.shape[0] - 1
    directions = min(out.crossing.shape[0], p)
    waiting = False
    for i in range(directions):
        waiting = waiting or np.isnan(out.crossing[i, top])
    if not waiting or not may_cross(step.new, rank, p, levels[0]):
        directions = 0
    for j in range(p + directions):
        neuron = j if j < p else -1
        direction = 0 if j < p else j - p
        found = out.neuron_crossing if j < p else out.crossing
        row = j if j < p else direction
        if not np.isnan(found[row, top]):
            continue
        overlap = _overlap(net, rank, p, step.new, neuron, direction, work)
        for k in range(top + 1):
            if np.isnan(found[row, k]) and overlap >= levels[k]:
                part = _fraction(net, rank, p, step, P, levels[k], neuron, direction, y, work)
                found[row, k] = step.start + step.length * part


@entry
def integrate(
    net: Network,
    rank: int,
    p: int,
    start: np.ndarray,
    time: np.ndarray,
    rtol: float,
    levels: np.ndarray,
    tableau: Tableau,
    keep: bool,
    out: Output,
) -> np.ndarray:
    """Dormand and Prince's method of order 5(4) with steps relative to the size of each overlap.

    Fills `out`, whose `crossing` is empty where that of the span does not matter. Returns the steps
    if they are to be kept: start, length, state and stages, shape (steps, 2 + 8 size).
    """
    size = len(start)
    A, B, E, P = tableau.A, tableau.B, tableau.E, tableau.P
    work = workspace(net, p)
    y, old, trial = start.copy(), start.copy(), start.copy()
    scale, moment = np.empty(size), np.empty(size)
    stages = np.zeros((7, size))
    kept = np.empty((256 if keep else 0, 2 + 8 * size))
    t, length, end, row, taken, first = 0.0, 0.0, time[-1], 0, 0, 0
    _scales(rank, p, y, scale)
    for _ in range(2 * MAX_STEPS):
        if row == len(time) or out.ended[0] == 1:
            break
        if t > 0.0:
            length = min(length, end - t) if t + 1.01 * length < end else end - t
        for s in range(first, 7):
            for i in range(size):
                trial[i] = y[i]
            for k in range(s):
                weight = length * (A[s, k] if s < 6 else B[k])
                if weight != 0.0:
                    for i in range(size):
                        trial[i] += weight * stages[k, i]
            slope(net, rank, p, trial, stages[s], work)
            if s == 0:
                fastest = 0.0
                for i in range(size):
                    fastest = max(fastest, abs(stages[0, i]) / scale[i])
                length = min(0.01 / fastest, end) if fastest > 0.0 else end
        out.counts[1] += 7 - first
        first = 1
        _scales(rank, p, trial, moment)
        error = 0.0
        for i in range(size):
            total = 0.0
            for k in range(7):
                total += E[k] * stages[k, i]
            total = abs(length * total) / max(scale[i], moment[i])
            error = max(error, total if total < np.inf else np.inf)
        error /= rtol
        if not error <= 1.0:
            if length <= 1e-15 * t or length < 1e-300:
                break
            length *= max(0.2, 0.9 * error**-0.2) if error < np.inf else 0.1
            continue
        for i in range(size):
            old[i], y[i] = y[i], trial[i]
        if net.scaling == 0:  # rounding does not take the norms away
            for j in range(p):
                y[rank * p + j * p + j] = 1.0
        out.counts[0] += 1
        step = Step(t, length, old, y, stages)
        t += length
        if keep:
            if taken == len(kept):
                more = np.empty((2 * taken, kept.shape[1]))
                more[:taken] = kept
                kept = more
            kept[taken, 0], kept[taken, 1] = step.start, length
            for i in range(size):
                kept[taken, 2 + i] = old[i]
                for k in range(7):
                    kept[taken, 2 + (k + 1) * size + i] = stages[k, i]
            taken += 1
        while row < len(time) and (time[row] <= t or t >= end):
            _inside((time[row] - step.start) / length, length, old, stages, P, out.states[row])
            row += 1
        _crossings(net, rank, p, step, P, levels, moment, work, out)
        _scales(rank, p, y, scale)
        last = row == len(time)
        allowed, left = (1e-6, end) if last else (rtol, end - t)
        if _at_rest(rank, p, y, stages[0], stages[6], scale, allowed, length, left):
            for n in range(row, len(time)):
                for i in range(size):
                    out.states[n, i] = y[i]
            out.ended[0] = 1
        for i in range(size):
            stages[0, i] = stages[6, i]
        length *= min(5.0, 0.9 * max(error, 1e-10) ** -0.2)
    if row < len(time) and out.ended[0] == 0:
        out.ended[0] = 2
    return kept[:taken]


@compiled
def _between(
    rank: int,
    steps: np.ndarray,
    ends: np.ndarray,
    last: np.ndarray,
    beside: np.ndarray,
    P: np.ndarray,
    t: float,
    state: np.ndarray,
    rest: np.ndarray,
) -> None:
    """State at one time of `states_between`; room for p numbers in `rest`."""
    p, size = len(last), rank + 2
    for j in range(p):
        low, high = ends[j], ends[j + 1]
        while high - low > 1:
            middle = (low + high) // 2
            if steps[middle, 0] <= t:
                low = middle
            else:
                high = middle
        length = steps[low, 1]
        theta = (t - steps[low, 0]) / length
        square = 1.0
        for i in range(rank):
            m = last[j, i]
            if theta <= 1.0:
                m = steps[low, 2 + i]
                for k in range(7):
                    weight = ((P[k, 3] * theta + P[k, 2]) * theta + P[k, 1]) * theta + P[k, 0]
                    m += length * theta * weight * steps[low, 2 + (k + 1) * size + i]
            state[j * rank + i] = m
            square -= m * m
        rest[j] = np.sqrt(max(square, 0.0))
    for j in range(p):
        for i in range(j + 1):
            product = rest[i] * rest[j] * beside[i, j]
            for k in range(rank):
                product += state[i * rank + k] * state[j * rank + k]
            product = 1.0 if i == j else product
            state[p * rank + i * p + j] = product
            state[p * rank + j * p + i] = product


@entry
def span_between(
    net: Network,
    rank: int,
    steps: np.ndarray,
    ends: np.ndarray,
    last: np.ndarray,
    beside: np.ndarray,
    P: np.ndarray,
    times: np.ndarray,
    levels: np.ndarray,
    crossing: np.ndarray,
) -> None:
    """Find when the overlaps of the span of unit neurons with steps of their own reach levels.

    Neurons rest where they last were. What a neuron has beyond the target keeps its direction, so
    that Q follows from M. Crossings are looked for between two of the times, which increase.
    Shapes: steps (n, 2 + 8 (rank + 2)), those of neuron j up to ``ends[j + 1]``; last (p, rank);
    beside (p, p), the cosines beyond the target; crossing (rank, levels).
    """
    p = len(last)
    work = workspace(net, p)
    rest, state = np.empty(p), np.empty(p * rank + p * p)
    before, now = np.empty(rank), np.empty(rank)
    for n in range(len(times)):
        _between(rank, steps, ends, last, beside, P, times[n], state, rest)
        span_overlaps(state, rank, p, work)
        for i in range(rank):
            before[i], now[i] = now[i], work.overlaps[i]
        for i in range(rank):
            for k in range(len(levels)):
                if not np.isnan(crossing[i, k]) or now[i] < levels[k]:
                    continue
                if n == 0:
                    crossing[i, k] = times[0]
                    continue
                low, high = times[n - 1], times[n]
                below, above, side = before[i] - levels[k], now[i] - levels[k], 0
                for _ in range(ITERATIONS):
                    t = (low * above - high * below) / (above - below)
                    if high - low < 1e-13 * high or not low < t < high:
                        break
                    _between(rank, steps, ends, last, beside, P, t, state, rest)
                    span_overlaps(state, rank, p, work)
                    found = work.overlaps[i] - levels[k]
                    if abs(found) < 1e-14:
                        high = t
                        break
                    low, high, below, above, side = _narrowed(
                        low, high, below, above, side, t, found
                    )
                crossing[i, k] = high


@entry
def risks(
    net: Network,
    rank: int,
    p: int,
    states: np.ndarray,
    slopes: np.ndarray,
    loss: np.ndarray,
    risk: np.ndarray,
) -> None:
    """Right-hand sides, objective and population risk along a path.

    Shapes: states, slopes (T, size); loss, risk (T,).
    """
    work = workspace(net, p)
    for t in range(len(states)):
        loss[t], risk[t] = slope(net, rank, p, states[t], slopes[t], work)


@entry
def overlaps_of(net: Network, rank: int, p: int, states: np.ndarray, out: np.ndarray) -> None:
    """Overlaps of the span along a path.

    Shapes: states (T, size); out (T, rank).
    """
    work = workspace(net, p)
    for t in range(len(states)):
        span_overlaps(states[t], rank, p, work)
        for i in range(rank):
            out[t, i] = work.overlaps[i]
