"""Paths of the neurons of a two-layer network, one run at a time, in compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..network_target import IMPLICIT
from .array_integrator import CAUTION
from .compile import compiled
from .features import entry
from .neuron_steps import at_rest, explicit_step, implicit_step, linearise, scales, unknowns
from .neurons import Network, Work, may_cross, neuron_overlap, slope, span_overlaps, workspace
from .tableaux import DENSE, STAGES

MAX_STEPS = 1_000_000
ITERATIONS = 60
PATIENCE, STABLE = 30, 3.0
"""Explicit steps without growth after which one asks why, and their longest times the rate."""


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


class Step(NamedTuple):
    """A step taken, from which the state inside it is known.

    Shapes: old, new (size,); dense (3, size).
    """

    start: float
    length: float
    old: np.ndarray
    new: np.ndarray
    dense: np.ndarray


@compiled
def _inside(theta: float, step: Step, out: np.ndarray) -> None:
    """State at the fraction theta of a step."""
    dense, rest = step.dense, theta * (1.0 - theta)
    for i in range(len(out)):
        bend = dense[0, i] + theta * (dense[1, i] + theta * dense[2, i])
        out[i] = (1.0 - theta) * step.old[i] + theta * step.new[i] + rest * bend


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
    # The end kept twice in a row counts half: false position alone would come from one side only.
    if found > 0.0:
        return low, at, below * (0.5 if side == 1 else 1.0), found, 1
    return at, high, found, above * (0.5 if side == -1 else 1.0), -1


@compiled
def _fraction(
    net: Network,
    rank: int,
    p: int,
    step: Step,
    level: float,
    neuron: int,
    direction: int,
    y: np.ndarray,
    work: Work,
) -> float:
    """Fraction of a step at which an overlap reaches a level: Illinois' false position."""
    below = _overlap(net, rank, p, step.old, neuron, direction, work) - level
    # Beyond the level already: the run started there, else an earlier step would have noted it.
    if below >= 0.0:
        return 0.0
    above = _overlap(net, rank, p, step.new, neuron, direction, work) - level
    low, high, side = 0.0, 1.0, 0
    for _ in range(ITERATIONS):
        theta = (low * above - high * below) / (above - below)
        if high - low < 1e-13 or not low < theta < high:
            break
        _inside(theta, step, y)
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
    # Overlaps of the span cost p^3 operations: only where one can have crossed.
    if not waiting or not may_cross(step.new, rank, p, levels[0]):
        directions = 0
    for j in range(p + directions):
        neuron = j if j < p else -1
        direction = 0 if j < p else j - p
        found = out.neuron_crossing if j < p else out.crossing
        row = j if j < p else direction
        # Levels increase: what has reached the highest one has reached them all.
        if not np.isnan(found[row, top]):
            continue
        overlap = _overlap(net, rank, p, step.new, neuron, direction, work)
        for k in range(top + 1):
            if np.isnan(found[row, k]) and overlap >= levels[k]:
                part = _fraction(net, rank, p, step, levels[k], neuron, direction, y, work)
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
    keep: bool,
    out: Output,
) -> np.ndarray:
    """Take steps of order 5(4) with errors relative to the size of each overlap.

    They are Tsitouras' explicit ones, and where what is learned relaxes so fast that its stability
    bounds them, of Rodas5P. Fills `out`, whose `crossing` is empty where that of the span does not
    matter. Returns the steps if they are to be kept: start, length, state before and after, and
    what bends it between, shape (steps, 2 + 5 size).
    """
    size = len(start)
    work = workspace(net, p)
    y, old, trial = start.copy(), start.copy(), start.copy()
    scale, moment = np.empty(size), np.empty(size)
    stages, dense = np.zeros((STAGES, size)), np.empty((3, size))
    before, after = np.empty(size), np.empty(size)
    kept = np.empty((256 if keep else 0, 2 + 5 * size))
    place = unknowns(net, rank, p)
    n = place.shape[1] if place.shape[1] <= IMPLICIT else 0
    jacobian, matrix, vector = np.empty((n, n)), np.empty((n, n)), np.ones(n)
    pivot, right = np.empty(n, np.int64), np.empty(n)
    implicit, known, paid, rate = False, False, False, 0.0
    waited, patience, longest = 0, PATIENCE, 0.0
    t, end, row, taken = 0.0, time[-1], 0, 0
    scales(rank, p, y, scale)
    slope(net, rank, p, y, before, work)
    # The first step: no entry moves by more than a hundredth of its size.
    fastest = 0.0
    for i in range(size):
        fastest = max(fastest, abs(before[i]) / scale[i])
    length = min(0.01 / fastest, end) if fastest > 0.0 else end
    out.counts[1] += 1
    for _ in range(2 * MAX_STEPS):
        if row == len(time) or out.ended[0] == 1:
            break
        # A step that nearly reaches the end goes there, so that no tiny one is left.
        length = min(length, end - t) if t + 1.01 * length < end else end - t
        # A Jacobian costs n slopes: explicit steps ask for one only once their length has stalled.
        if not known and n > 0 and (implicit or waited >= patience):
            rate = linearise(
                *(net, rank, p, y, before, scale, place, jacobian, vector, trial, after, work)
            )
            out.counts[1] += n
            # An implicit step costs as much as many explicit ones, and has to grow so long first.
            pays = rate * length > (0.25 * n if implicit else 0.5) * STABLE
            # Implicit steps that still grow may pay later.
            stays = pays or (implicit and length > 1.5 * longest)
            if not stays:
                # Where none of them paid, the next question comes later.
                patience = PATIENCE if paid else min(2 * patience, 8 * PATIENCE)
                length = min(length, STABLE / rate)
            paid = implicit and (paid or pays)
            implicit, known, waited, longest = stays, True, 0, length
        if implicit:
            for i in range(n):
                after[place[0, i]] = before[place[0, i]]
                for k in range(n):
                    # The matrix is factorised in place; a rejected step needs the Jacobian again.
                    matrix[i, k] = -jacobian[i, k]
            implicit_step(
                *(net, rank, p, y, length, scale, place, matrix, pivot, right),
                *(stages, trial, after, work),
            )
            out.counts[1] += STAGES
        else:
            for i in range(size):
                # The slope at the end of the last step is the first stage of this one.
                stages[0, i] = length * before[i]
            explicit_step(net, rank, p, y, length, stages, trial, after, work)
            out.counts[1] += 6
        scales(rank, p, trial, moment)
        error = 0.0
        for i in range(size):
            # A state that is not a number has an infinite error, and the step is repeated.
            total = abs(stages[STAGES - 1, i]) / max(scale[i], moment[i])
            error = max(error, total if total < np.inf else np.inf)
        error /= CAUTION * rtol
        if not error <= 1.0:
            # So short a step is lost in the rounding of time: the run is given up.
            if length <= 1e-15 * t or length < 1e-300:
                break
            length *= max(0.2, 0.9 * error**-0.2) if error < np.inf else 0.1
            continue
        for i in range(size):
            old[i], y[i] = y[i], trial[i]
            for k in range(3):
                total = 0.0
                for s in range(STAGES if implicit else 7):
                    total += DENSE[0 if implicit else 1, k, s] * stages[s, i]
                dense[k, i] = total
        if net.scaling == 0:  # rounding does not take the norms away
            for j in range(p):
                y[rank * p + j * p + j] = 1.0
        out.counts[0] += 1
        # Explicit steps that double their length have not stalled.
        if not implicit:
            waited, longest = (waited + 1, longest) if length < 2.0 * longest else (0, length)
        known = False
        step = Step(t, length, old, y, dense)
        t += length
        if keep:
            if taken == len(kept):
                more = np.empty((2 * taken, kept.shape[1]))
                more[:taken] = kept
                kept = more
            kept[taken, 0], kept[taken, 1] = step.start, length
            for i in range(size):
                kept[taken, 2 + i], kept[taken, 2 + size + i] = old[i], y[i]
                for k in range(3):
                    kept[taken, 2 + (k + 2) * size + i] = dense[k, i]
            taken += 1
        while row < len(time) and (time[row] <= t or t >= end):
            _inside((time[row] - step.start) / length, step, out.states[row])
            row += 1
        _crossings(net, rank, p, step, levels, moment, work, out)
        scales(rank, p, y, scale)
        # After the last row: would as long again change anything, to 1e-6 whatever rtol?
        last = row == len(time)
        allowed, left = (1e-6, end) if last else (rtol, end - t)
        if at_rest(rank, p, y, before, after, scale, allowed, length, left):
            for late in range(row, len(time)):
                for i in range(size):
                    out.states[late, i] = y[i]
            out.ended[0] = 1
        for i in range(size):
            before[i] = after[i]
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
    t: float,
    state: np.ndarray,
    rest: np.ndarray,
) -> None:
    """State at one time of `span_between`; room for p numbers in `rest`."""
    p, size = len(last), rank + 2
    for j in range(p):
        low, high = ends[j], ends[j + 1]
        # Each neuron has steps of its own: the one in which the time lies.
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
                # The state inside the step as in `_inside`; beyond its last step the neuron rests.
                at, m = 2 + i, 0.0
                for k in range(4, 1, -1):
                    m = m * theta + steps[low, at + k * size]
                m = theta * (steps[low, at + size] + (1.0 - theta) * m)
                m += (1.0 - theta) * steps[low, at]
            state[j * rank + i] = m
            square -= m * m
        rest[j] = np.sqrt(max(square, 0.0))
    for j in range(p):
        for i in range(j + 1):
            # Q_ij = m_i . m_j + (what i and j have beyond the target) cos(their angle there).
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
    times: np.ndarray,
    levels: np.ndarray,
    crossing: np.ndarray,
) -> None:
    """Find when the overlaps of the span of unit neurons with steps of their own reach levels.

    Neurons rest where they last were. What a neuron has beyond the target keeps its direction, so
    that Q follows from M. Crossings are looked for between two of the times, which increase.
    Shapes: steps (n, 2 + 5 (rank + 2)), those of neuron j up to ``ends[j + 1]``; last (p, rank);
    beside (p, p), the cosines beyond the target; crossing (rank, levels).
    """
    p = len(last)
    work = workspace(net, p)
    rest, state = np.empty(p), np.empty(p * rank + p * p)
    before, now = np.empty(rank), np.empty(rank)
    for n in range(len(times)):
        _between(rank, steps, ends, last, beside, times[n], state, rest)
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
                    _between(rank, steps, ends, last, beside, t, state, rest)
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
