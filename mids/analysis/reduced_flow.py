"""The flow reduced to what is not learned, in array code over runs, which come last in every shape.

A congruence flow ``X' = H X + X H`` with ``X = L L^T`` spans many orders of magnitude, so L is kept
with orthogonal columns, longest first, which are the axes in which the polynomial of the target is
written anew after each step: L begins each step as a diagonal matrix. Errors count relative to the
longer of the two columns they mix, so that small directions keep their own relative accuracy; those
within what is learned already do not count. Steps, of Dormand and Prince, are taken in units of
the inverse norm of H, in which a column that grows alone grows exponentially.

H is that of `mids.targets.polynomial`. Where the learned subspace U turns, by ``U' = V V^T H U``,
the frame [U, V] turns with it: along tilts that come to rest far faster than others are learned it
is where ``V^T H U = 0``, along all others it takes steps (Cayley's rotation of a sum of stages).
Nothing is shared with the simulator.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..targets.polynomial import (
    Monomials,
    generator,
    hessian,
    overlaps,
    powers,
    product,
    response,
    resting_tilt,
    rotation,
    tilted,
    twice,
)
from .landscape import TRACE
from .prediction import LEVELS, Record, cubic, cubic_root

__all__ = ["LARGEST", "LEAVES", "LEFT", "MEETS", "NEVER", "Rules", "Runs", "Stretch"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

LARGEST = 1e4
"""Root of the odds to which a learned direction is followed (1 - overlap = 1e-8)."""
BRIEF = 0.5
"""Longest step where an overlap passes a level."""
LEARNED, NEVER, LEAVES, MEETS, LEFT = range(5)
"""All learned; stands still; U begins to turn; may be at a larger one; takes too many steps."""


@lru_cache
def _pair() -> tuple[Array, Array]:
    """Stages (7, 6) and error (7,) of Dormand and Prince's pair, which ends with its last stage."""
    from scipy.integrate import RK45

    stages = np.zeros((7, 6))
    stages[:6, :5], stages[6] = RK45.A, RK45.B
    return stages, RK45.E


@dataclass(frozen=True)
class Rules:
    """When a run is sent elsewhere; see `mids.analysis.coupled`."""

    steps: int
    rtol: float
    reach: float
    learned: float
    small: float
    slower: float
    turn: float
    at_once: float


@dataclass
class Runs:
    """What is known of runs; shapes as in `mids.analysis.coupled`, with the runs first."""

    names: Index
    clock: Array
    crossing: Array
    apart: Array
    between: Array
    newest: Array


@lru_cache
def _pairings(c: int) -> list[tuple[list[int], list[int]]]:
    """Every pair of c columns once, in rounds of pairs that have none in common."""
    # The circle method of round-robin tournaments; whoever meets -1 sits out.
    rounds, wheel = [], [*range(c)] + [-1] * (c % 2)
    half = len(wheel) // 2
    for _ in range(len(wheel) - 1):
        pairs = zip(wheel[:half], reversed(wheel[half:]), strict=True)
        met = sorted((min(pair), max(pair)) for pair in pairs if -1 not in pair)
        if met:
            rounds.append(([p for p, _ in met], [q for _, q in met]))
        wheel = [wheel[0], wheel[-1], *wheel[1:-1]]
    return rounds


def _graded(L: Array, error: Array) -> tuple[Array, Array, Array]:
    """Turn the columns of L orthogonal, longest first, and those of `error` with them.

    Jacobi's one-sided rotations. Returns both, shapes (m, c, n), and the lengths (c, n).
    """
    both, (m, c, _) = np.concatenate([L, error]), L.shape
    for _ in range(40):
        done = True
        for p, q in _pairings(c):
            P, Q = both[:, p], both[:, q]
            pp, qq, pq = (np.sum(x[:m] * y[:m], axis=0) for x, y in ((P, P), (Q, Q), (P, Q)))
            # Relative to both lengths: columns many decades apart become orthogonal, too.
            turn = np.abs(pq) > 4e-16 * np.sqrt(pp * qq)
            if not turn.any():
                continue
            done = False
            # The smaller root of t^2 + 2 zeta t = 1 is the tangent that makes both orthogonal.
            zeta = (qq - pp) / np.where(turn, 2 * pq, np.inf)
            t = np.copysign(turn / (np.abs(zeta) + np.sqrt(1 + zeta**2)), zeta)
            cos = 1 / np.sqrt(1 + t**2)
            both[:, p], both[:, q] = cos * (P - t * Q), cos * (t * P + Q)
        if done:
            break
    lengths = np.maximum(np.sqrt(np.einsum("ian,ian->an", both[:m], both[:m])), 1e-150)
    if (np.diff(lengths, axis=0) > 0).any():
        order = np.argsort(-lengths, axis=0, kind="stable")
        both = np.take_along_axis(both, order[None], axis=1)
        lengths = np.take_along_axis(lengths, order, axis=0)
    return both[:m], both[m:], lengths


def _axes(columns: Array) -> Array:
    """Orthonormal bases (n, m, m) whose first vectors are the columns (m, c, n)."""
    m, c, n = columns.shape
    basis = columns.transpose(2, 0, 1)
    if c == m:
        return basis
    rest = np.broadcast_to(np.eye(m)[:, c:], (n, m, m - c))
    Q, R = np.linalg.qr(np.concatenate([basis, rest], axis=2))
    signs = np.where(np.diagonal(R, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return np.concatenate([basis, (Q * signs[:, None, :])[:, :, c:]], axis=2)


def _arrived(rules: Rules, lengths: Array, H: Array, tried: Array) -> Index:
    """How many directions a subspace has at which each run has arrived, or 0."""
    c, n = lengths.shape
    log_odds = 2 * np.log(lengths)
    many = (log_odds > rules.learned).sum(axis=0)
    next_ = lengths[np.minimum(many, c - 1), np.arange(n)]
    found = np.zeros(n, dtype=np.int64)
    possible = np.flatnonzero((many > 0) & (many < c) & (next_ < 1))
    for j in np.unique(many[possible]):
        runs = possible[many[possible] == j]
        there = H[:, :, runs].transpose(2, 0, 1)
        # Slowest growth of what is learned, what turns it, and fastest growth of the rest.
        own = np.linalg.eigvalsh(there[:, :j, :j])[:, 0]
        push = np.sqrt(np.linalg.eigvalsh(there[:, :j, j:] @ there[:, j:, :j])[:, -1].clip(min=0.0))
        fast = np.linalg.eigvalsh(there[:, j:, j:])[:, -1].clip(min=0.0)
        small = (log_odds[j, runs] < rules.small) | (fast < 0.5 * rules.at_once * own)
        # Where a try has found no critical point the next one waits until the push is smaller.
        still = push <= np.minimum(rules.turn * own, 0.7 * tried[runs, j])
        runs, push = (
            x[small & still & (own > 0) & (fast <= rules.slower * own)] for x in (runs, push)
        )
        tried[runs, j], found[runs] = push, j
    return found


class _Steps:
    """State of the runs that go on, in axes in which L is diagonal."""

    def __init__(
        self,
        table: Monomials,
        coefficients: Array,
        frames: Array,
        L: Array,
        turning: bool,
        at_once: float,
    ) -> None:
        self.table, self.turning, self._at_once = table, turning, at_once
        self.frames, self.coefficients = frames, coefficients
        self.m = len(L)
        self.k = table.rank - self.m
        columns, _, self.lengths = _graded(L, np.zeros(L.shape))
        self._turn(np.arange(L.shape[2]), _axes(columns / self.lengths))
        n = L.shape[2]
        if turning:
            degree = table.modes.sum(axis=1)
            self._scale = (table.weight * degree) @ self.coefficients**2
            size = self.m * self.k
            self.inverse, self.free = np.zeros((2, n, size, size))
            # First with U as it is: the rates there say which tilts come to rest at once.
            self.H, self.pace, _ = self.flow(self.diagonal())
            self.follow_turning(np.arange(n))
        self.H, self.pace, self.push = self.flow(self.diagonal())

    def diagonal(self) -> Array:
        """L (m, c, n)."""
        L = np.zeros((self.m, *self.lengths.shape))
        c = len(self.lengths)
        L[range(c), range(c)] = self.lengths
        return L

    def _turn(self, runs: Index, axes: Array) -> None:
        """Change to other axes beside U."""
        old = self.coefficients[:, runs]
        self.coefficients[:, runs] = self.table.substitute(old, axes, self.k)
        self.frames[runs, :, self.k :] = self.frames[runs, :, self.k :] @ axes

    def flow(self, L: Array, skew: Array | None = None) -> tuple[Array, Array, Array]:
        """H and V^T H U over the norm of H, and the inverse of that norm.

        With the frame turned by Cayley's rotation of a skew matrix (n, rank, rank).
        """
        D, here = overlaps(L), self.coefficients
        if skew is not None:
            here = self.table.substitute(here, rotation(skew))
        if self.turning:
            theta = resting_tilt(self.inverse, hessian(self.table, here, D)[1])
            here = self.table.substitute(here, tilted(theta))
        H, push = hessian(self.table, here, D)
        # Where H vanishes the pace is 1e300, by which runs that stand still are known.
        norm = np.sqrt(np.einsum("ijn,ijn->n", H, H)) + 1e-300
        return H / norm, 1 / norm, push / norm

    def spin(self, push: Array, skew: Array | None) -> Array:
        """Slope (n, rank, rank) of the skew matrix whose rotation turns the frame."""
        free = np.einsum("nab,bn->an", self.free, push.reshape(-1, push.shape[2]))
        body = generator(free.reshape(push.shape))
        if skew is None:
            return body
        # Q' = Q B for Cayley's Q of a skew S means S' = (I + S/2) B (I - S/2).
        half, unit = skew / 2, np.eye(skew.shape[1])
        return np.asarray((unit + half) @ body @ (unit - half))

    def follow_turning(self, runs: Index) -> None:
        """Turn U to where it stands still, along tilts that do so at once."""
        here, L = self.coefficients[:, runs], self.diagonal()[:, :, runs]
        D = overlaps(L)
        growth = response(self.table, here, D)
        # (I - D) times it is the second derivative of h, which is symmetric where U rests.
        weight = np.sqrt(1 - np.diagonal(D)).repeat(self.k, axis=1)
        alike = weight[:, :, None] * growth / weight[:, None, :]
        rates, modes = np.linalg.eigh((alike + alike.swapaxes(1, 2)) / 2)
        # H is kept over its norm, the inverse of the pace.
        own = self.H[range(self.m), range(self.m)][:, runs].max(axis=0) / self.pace[runs]
        push = hessian(self.table, here, D)[1]
        left = np.einsum("nab,na,an->nb", modes, weight, push.reshape(-1, len(runs)))
        fast = own[:, None] < -self._at_once * rates
        # What a tilt left behind changes while it dies out is of order tilt^2 / rate.
        fast &= left**2 * self._scale[runs, None] < TRACE * np.abs(rates) ** 3
        chosen = modes * fast[:, None, :]
        onto = chosen @ chosen.swapaxes(1, 2) * weight[:, None, :] / weight[:, :, None]
        self.free[runs] = unit = np.eye(onto.shape[1]) - onto
        self.inverse[runs] = np.linalg.solve(onto @ growth @ onto + unit, onto)
        self._rotate(runs, tilted(resting_tilt(self.inverse[runs], push)))

    def _rotate(self, runs: Index, turn: Array) -> None:
        self.coefficients[:, runs] = self.table.substitute(self.coefficients[:, runs], turn)
        self.frames[runs] = self.frames[runs] @ turn

    def accept(self, runs: Index, trial: _Trial) -> None:
        """Go on from the end of a step, for the given runs."""
        if self.turning:
            self._rotate(runs, rotation(trial.skew[runs]))
        axes = _axes(trial.L[:, :, runs] / trial.lengths[:, runs])
        self._turn(runs, axes)
        self.lengths[:, runs] = np.minimum(trial.lengths[:, runs], LARGEST)
        turn = axes.transpose(1, 2, 0)
        back = turn.swapaxes(0, 1)
        self.H[:, :, runs] = product(back, product(trial.H[:, :, runs], turn))
        # The last stage of a step is the first one of the next.
        self.pace[runs] = trial.paces[6, runs]
        if self.turning:
            self.push[:, :, runs] = product(back, trial.push[:, :, runs])
            self.follow_turning(runs)

    def keep(self, on: Index) -> None:
        """Leave the other runs out."""
        self.frames, self.coefficients = self.frames[on], self.coefficients[:, on]
        self.lengths, self.pace, self.H = self.lengths[:, on], self.pace[on], self.H[:, :, on]
        if self.turning:
            self.inverse, self.free = self.inverse[on], self.free[on]
            self._scale = self._scale[on]
            self.push = self.push[:, :, on]

    def loss(self, level: Array) -> tuple[Array, Array]:
        """Loss, and its slope in time."""
        F = np.zeros((self.m, len(self.pace)))
        F[: len(self.lengths)] = self.lengths**2 / (1 + self.lengths**2)
        modes = self.table.modes[:, self.k :]
        parts = self.table.weight[:, None] * powers(F, modes) * self.coefficients**2
        if not self.turning:  # what is learned counts as the level
            parts = parts[modes.any(axis=1)]
        value = np.sum(parts, axis=0)
        # dL/dt = -sum_ij H_ij^2 F_i (1 - F_j), with H over its norm.
        slope = -np.einsum("ijn,in,jn->n", self.H**2, F, 1 - F) / self.pace / self.pace
        return level - 0.5 * value, slope


@dataclass
class Stretch:
    """Runs around critical subspaces with k directions, or subspaces that turn.

    Shapes, with the runs first: frames (n, rank, rank), whose first columns are learned; L
    (n, m, c); tried (n, c + 1); the others (n,). `found` counts directions learned besides where
    the code is MEETS; `level` is the loss of what is reduced from; `limited` where U turns when
    others are learned; `point` the number of the critical point.
    """

    names: Index
    frames: Array
    L: Array
    step: Array
    tried: Array
    code: Index
    found: Index
    level: Array
    limited: NDArray[np.bool_]
    turning: bool
    point: Index

    def follow(
        self, table: Monomials, coefficients: Array, rules: Rules, runs: Runs, record: Record
    ) -> None:
        """Follow the runs until each has a code, from coefficients (n, runs) in its frame."""
        # A run alone goes twice, to be rounded as it would be among others.
        at = twice(np.arange(len(self.names)))
        L = np.moveaxis(self.L[at], 0, 2)
        here = coefficients[:, at]
        now = _Steps(table, here, self.frames[at], L, self.turning, rules.at_once)
        k, c = now.k, len(now.lengths)
        stages, errors = _pair()
        self.code[:] = LEFT
        _note(record, runs, self.names[at], now, self.level[at])
        passed = _Crossings()
        for _ in range(rules.steps):
            if not len(at):
                break
            step, names = self.step[at], self.names[at]
            # No step leaps over a level, and at one they are so short that the cubics find it.
            logs = np.log(now.lengths)
            longest = np.where(logs < 1.5, np.clip(-1.5 - logs, BRIEF, 10.0), np.inf).min(axis=0)
            self.step[at] = step = np.minimum(step, longest)
            trial = _trial(now, step)
            paces = trial.paces
            # Time is integrated beside the run, as dt = pace times the step.
            then = runs.clock[names] + step * np.sum(stages[6][:, None] * paces[:6], axis=0)
            late = np.abs(step * np.sum(errors[:, None] * paces, axis=0))
            size = np.maximum(trial.size, late / np.maximum(then, 1e-300))
            size = np.where(np.isfinite(size), size / rules.rtol, np.inf)
            good = twice(np.flatnonzero((size <= 1) & (then >= runs.clock[names])))
            self.step[at] *= np.clip(0.9 * np.maximum(size, 1e-10) ** -0.2, 0.2, 4.0)
            if not len(good):
                continue
            before, rates = now.lengths[:, good], now.H[range(c), range(c)][:, good]
            now.accept(good, trial)
            after, later = now.lengths[:, good], now.H[range(c), range(c)][:, good]
            names, there = names[good], at[good]
            log_odds = 2 * np.log(np.stack([before, after]))
            # u' = 2 H_aa for the log-odds u of a column
            slopes = 2 * step[good] * np.stack([rates, later])
            times = np.stack([runs.clock[names], then[good]])
            passed.note(names, log_odds, slopes, times, step[good] * paces[::6, good])
            runs.clock[names] = then[good]
            _remember(runs, names, now.frames[good], after, k)
            _note(record, runs, names, now, self.level[at], good)
            code = np.full(len(good), LEFT)
            # Columns are in descending order: once the last is at 0.9 nothing is left to follow.
            code[log_odds[1, -1] > LEVELS[2]] = LEARNED
            code[(code == LEFT) & (paces[6, good] > 1e290)] = NEVER
            code[(code == LEFT) & self.limited[there] & (after[0] ** 2 > rules.reach)] = LEAVES
            open_ = np.flatnonzero(code == LEFT)
            tried = self.tried[there[open_]]
            j = _arrived(rules, after[:, open_], now.H[:, :, good[open_]], tried)
            self.tried[there[open_]], self.found[there[open_]] = tried, j
            code[open_[j > 0]] = MEETS
            self.code[there] = code
            stops = np.zeros(len(at), dtype=bool)
            stops[good] = code != LEFT
            if stops.any():
                self._put(now, at, stops)
                left = twice(np.flatnonzero(~stops))
                now.keep(left)
                at = at[left]
        self._put(now, at, np.ones(len(at), dtype=bool))
        passed.write(runs.crossing, k)

    def keep(self, on: NDArray[np.bool_]) -> None:
        """Leave the other runs out."""
        for part in fields(self):
            if part.name != "turning":  # the same for all
                setattr(self, part.name, getattr(self, part.name)[on])

    def _put(self, now: _Steps, at: Index, chosen: NDArray[np.bool_]) -> None:
        self.frames[at[chosen]] = now.frames[chosen]
        self.L[at[chosen]] = np.moveaxis(now.diagonal()[:, :, chosen], 2, 0)


@dataclass
class _Trial:
    """End of a step: L and its lengths, H and the push there, what turned, paces, relative error.

    Shapes: L (m, c, n); lengths (c, n); H (m, m, n); push (m, k, n); skew (n, rank, rank); paces
    (7, n); size (n,).
    """

    L: Array
    lengths: Array
    H: Array
    push: Array
    skew: Array
    paces: Array
    size: Array


def _trial(now: _Steps, step: Array) -> _Trial:
    """Take a step of each run."""
    start, (stages, errors) = now.diagonal(), _pair()
    nodes = stages.sum(axis=1)
    slopes = np.empty((7, *start.shape))
    paces = np.empty((7, len(step)))
    c = len(now.lengths)
    # Columns grow at rates that hardly change: steps are for the rest alone (Lawson 1967).
    rates = now.H[range(c), range(c)]
    slopes[0], paces[0] = now.H[:, :c] * now.lengths - rates * start, now.pace
    H, push, stage, skew = now.H, now.push, start, None
    spins = np.zeros((7, *now.frames.shape)) if now.turning else np.zeros((7, 0, 0, 0))
    wide = step[:, None, None]
    for s in range(1, 7):
        grown = np.exp(np.clip(nodes[s] * step * rates, -20.0, 20.0))
        moved = grown * (
            start + step * np.sum(stages[s, :s, None, None, None] * slopes[:s], axis=0)
        )
        # A stage of a step much too long must stay finite, to be rejected.
        stage = np.clip(moved, -100 * LARGEST, 100 * LARGEST)
        if now.turning:
            spins[s - 1] = now.spin(push, skew)
            turned = wide * np.sum(stages[s, :s, None, None, None] * spins[:s], axis=0)
            skew = np.clip(turned, -10.0, 10.0)
        H, paces[s], push = now.flow(stage, skew)
        # Slopes of L with its exponential growth divided out
        slopes[s] = (product(H, stage) - rates * stage) / grown
    error = grown * step * np.sum(errors[:, None, None, None] * slopes, axis=0)
    L, error, lengths = _graded(stage, error)
    size = _size(L, error, lengths)
    if skew is not None:
        spins[6] = now.spin(push, skew)
        off = np.abs(wide * np.sum(errors[:, None, None, None] * spins, axis=0)).max(axis=(1, 2))
        far = np.abs(skew).max(axis=(1, 2)) + np.minimum(lengths[0], 1.0)
        size = np.maximum(size, off / far)
    return _Trial(L, lengths, H, push, spins[0] if skew is None else skew, paces, size)


def _size(trial: Array, error: Array, lengths: Array) -> Array:
    """Largest error of a column relative to the longer of it and what it is mixed with."""
    mixed = np.abs(product(trial.swapaxes(0, 1), error)) / lengths[:, None]
    most = np.maximum(lengths[:, None], lengths[None])
    least = np.minimum(np.minimum(lengths[:, None], lengths[None]), LARGEST)
    return np.asarray((mixed / (most * (1 + least**2))).max(axis=(0, 1)))


class _Crossings:
    """When overlaps pass the levels, from values and slopes at both ends of the steps."""

    def __init__(self) -> None:
        self._places: list[Index] = []
        self._parts: list[Array] = []

    def note(
        self, names: Index, log_odds: Array, slopes: Array, times: Array, paces: Array
    ) -> None:
        """Keep the steps that pass a level; shapes (2, c, n), (2, n) of both ends."""
        levels = LEVELS[:, None, None]
        o, a, i = np.nonzero((log_odds[0] < levels) & (log_odds[1] >= levels))
        if len(o):
            self._places.append(np.stack([names[i], a, o]))
            ends = [log_odds[:, a, i] - LEVELS[o], slopes[:, a, i], times[:, i], paces[:, i]]
            self._parts.append(np.concatenate(ends))

    def write(self, crossing: Array, k: int) -> None:
        """Write those that were not known; the first one counts."""
        if self._places:
            # From the end, so that of several crossings the first is written last, and stays.
            places = np.concatenate(self._places, axis=1)[:, ::-1]
            parts = np.concatenate(self._parts, axis=1)[:, ::-1]
            place = (places[0], k + places[1], places[2])
            new = np.isnan(crossing[place])
            place, parts = tuple(x[new] for x in place), parts[:, new]
            # One cubic says where in the step, another one when, for time runs unevenly in it.
            time = cubic(cubic_root(*parts[:4]), *parts[4:])
            crossing[place] = np.clip(time, parts[4], parts[5])


def _remember(runs: Runs, names: Index, frames: Array, lengths: Array, k: int) -> None:
    """Keep the frames in which some directions are learned, and the next is not."""
    c = len(lengths)
    log_odds = 2 * np.log(lengths)
    for j in range(max(k, 1), k + c):
        apart = -log_odds[j - k]
        if j > k:
            apart = np.minimum(apart, log_odds[j - k - 1])
        more = apart > runs.apart[names, j]
        runs.apart[names[more], j] = apart[more]
        runs.between[names[more], j, :, : k + c] = frames[more, :, : k + c]
    new = (log_odds < LEVELS[2]) | ~runs.newest[names, k : k + c].any(axis=2).T  # or a long step
    a, i = np.nonzero((log_odds > LEVELS[0]) & new)
    runs.newest[names[i], k + a] = frames[i, :, k + a]


def _note(
    record: Record,
    runs: Runs,
    names: Index,
    now: _Steps,
    level: Array,
    of: Index | slice = slice(None),
) -> None:
    """Keep loss and slope."""
    loss, slope = now.loss(level)
    record.note(runs.names[names], runs.clock[names], loss[of], slope[of])
