r"""Escape times of any target: the reduced flow between critical subspaces.

At a saddle a run follows the flow reduced to what is not learned there, with every part of H
(`CriticalPoint`): whichever direction comes first wins. Where what it learns would turn the
learned subspace the run follows the whole equation ``P' = H P``, whose learned directions are cut
off at an overlap of 1 - 1e-8, for a time of order one, until it is at a critical subspace again
and its other directions are small. So the plateaus, which make up the time, are never integrated
with what is learned; where saddles are not apart, as those of exponent 1 and all at small d, the
whole equation takes a run through several of them. Tilts of the learned subspace that fade about as
slowly as others are learned, or not at all, are followed beside these (`reduced_flow`), with the
odds of what is learned infinite. All is integrated here, by explicit steps on arrays over runs, and
shares nothing with the simulator but the target's tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..targets.averaging import gradient
from ..targets.ladder import leaps
from ..targets.polynomial import polynomial
from ..targets.target import Target
from . import reduced_flow as reduced
from .landscape import NEAR, CriticalPoint, critical_values
from .prediction import BETWEEN, KNOWN, LEVELS, NEVER, SLOW, Prediction, Record, factors, steps_of

__all__ = ["Race"]

Array = NDArray[np.float64]

MAX_STEPS = 4000
"""Steps of one stretch, between two critical subspaces."""
MAX_STRETCHES = 60
RTOL = 3e-7
"""Local error per step, relative, of every direction that is not learned, and of the time."""
LARGEST = 1e4
"""Root of the odds of what is learned, where it is followed again."""
REACH = 0.05
"""Overlap up to which the learned subspace is taken to stand still."""
LEARNED, SMALL = np.log(1e4), np.log(0.02)
"""Log-odds above which a direction may count as learned, and below which others must be."""
SLOW_TILTS = 0.3
"""Rate of tilts, relative to the growth of what is learned, up to which they take steps."""
SLOWER, TURN = 0.15, 0.004
"""Growth of others, and turning of what is learned, relative to its own growth, that are small."""
REMEMBERED = 4096
"""Runs up to which a prediction is kept, some 4 kB for each."""
AT_ONCE = 0.02
"""Growth of others, relative to that of what is learned, which a subspace follows at once."""


class Race:
    """Theory of one target: who wins, and when, saddle by saddle."""

    def __init__(self, target: Target, *, leading: bool = False) -> None:
        self.rank = target.rank
        self.ladder = leaps(target)
        self._target = target
        self._leading = leading
        self._last: tuple[Array, Prediction] | None = None

    def __reduce__(self) -> tuple[Callable[..., Race], tuple[Target, bool]]:
        """Travel between processes without what was predicted."""
        return race_of, (self._target, self._leading)

    def predict(self, gram0: Array) -> Prediction:
        """Predict the saddles of each run, shape (n, rank, rank); the last few are remembered."""
        last = self._last
        if last is None or not np.array_equal(last[0], gram0):
            last = gram0.copy(), self._predict(gram0)
            if len(gram0) <= REMEMBERED:
                self._last = last
        return last[1]

    def _predict(self, gram0: Array) -> Prediction:
        result = Prediction.empty(len(gram0), self.rank)
        record = Record()
        points: list[CriticalPoint] = []
        # Students of lower rank have fewer columns of P: runs with as many make one batch.
        for chosen, factor in factors(gram0):
            if factor.shape[2]:
                race = _Batch(self._target, factor, chosen, record, points, self._leading)
                race.run()
                self._collect(race, result, points)
        return replace(result, curve=record.curve())

    def _collect(self, race: _Batch, result: Prediction, points: list[CriticalPoint]) -> None:
        """Fill the result in; shapes (n, k), k the number of directions learned."""
        # A saddle is entered at 0.9 of the overlap before, and left at 0.1 of the next one.
        enter = np.concatenate([np.zeros((len(race.names), 1)), race.crossing[:, :-1, 2]], axis=1)
        leave, escape = race.crossing[:, :, 0], race.crossing[:, :, 1]
        ends = np.isnan(escape)
        # A saddle without an escape counts if the run is held there, or too slow to be followed.
        known = ~ends | (np.isfinite(enter) & (race.never | race.slow)[:, None])
        first = np.arange(escape.shape[1]) == 0
        # Not at rest at a known critical point: loss and exponent are those of the one nearby.
        wanted = known & (race.visited < 0) & (ends | first | (enter < leave))
        exponents, losses = np.full((2, *known.shape), np.nan)
        for k in np.flatnonzero(wanted.any(axis=0)):
            runs = np.flatnonzero(wanted[:, k])
            exponents[runs, k], losses[runs, k] = critical_values(
                self._target, race.between[runs, k], int(k)
            )
        for number, point in enumerate(points):
            here = race.visited == number
            losses[here] = point.loss
            exponents[here] = np.nan if point.exponent is None else point.exponent
        passed = (race.visited < 0) & ~wanted  # on the way from one direction to the next but one
        # Without an exponent nothing is left to learn: that is the end of the run, not a saddle.
        known &= passed | ~np.isnan(exponents)
        order = np.where(ends, np.nan, steps_of(race.newest, self.ladder))
        slow = np.where(race.never[:, None], np.inf, np.nan)
        reason = np.where(race.never[:, None], NEVER, SLOW)
        columns = {
            "rank": np.broadcast_to(np.arange(escape.shape[1]), escape.shape),
            "exponent": exponents,
            "saddle_loss": losses,
            "enter_time": enter,
            "leave_time": leave,
            "escape_time": np.where(ends, slow, escape),
            "learned": np.where(ends, np.nan, np.abs(race.newest).argmax(axis=2)),
            "order": order,
            "reason": np.where(ends, reason, np.where(np.isnan(order), BETWEEN, KNOWN)),
            "method": race.method,
        }
        rows, place = np.nonzero(known)
        at = np.cumsum(known, axis=1)[rows, place] - 1
        for name, column in columns.items():
            getattr(result, name)[race.names[rows], at] = column[rows, place]


@lru_cache(maxsize=8)
def race_of(target: Target, leading: bool = False) -> Race:
    """`Race`, remembered, since `theory`, `compare` and the pictures ask for the same runs."""
    return Race(target, leading=leading)


@dataclass
class _Waiting:
    """Runs that are to be followed with as many directions learned, in parts of shapes (n, ...).

    The number of their critical points; their L (m, c); the frames (rank, rank) of both.
    """

    points: list[NDArray[np.int64]] = field(default_factory=list)
    runs: list[NDArray[np.int64]] = field(default_factory=list)
    factors: list[Array] = field(default_factory=list)
    frames: list[Array] = field(default_factory=list)


class _Batch:
    """State and record of runs whose students have the same number of directions.

    Shapes: crossing (n, c, level); between (n, c, rank, c); newest (n, c, rank).
    """

    def __init__(
        self,
        target: Target,
        factor: Array,
        names: NDArray[np.int64],
        record: Record,
        points: list[CriticalPoint],
        leading: bool,
    ) -> None:
        n, rank, c = factor.shape
        self._target, self._leading = target, leading
        self._points, self._record = points, record
        self.names = names
        self.factor = factor
        self.clock = np.zeros(n)
        self.never, self.slow = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        odds = np.sum(factor**2, axis=1)  # the columns are orthogonal at the start
        self.crossing = np.where(odds[:, :, None] >= np.exp(LEVELS), 0.0, np.nan)
        self.method = np.full((n, c), 2.0)
        self.visited = np.full((n, c), -1)  # numbers of the critical points
        # For each k the frame when k directions are learned and the next one is not, most clearly.
        self.between = np.zeros((n, c, rank, c))
        self._apart = np.full((n, c), -np.inf)
        self.newest = np.zeros((n, c, rank))
        self._waiting: dict[tuple[int, bool], _Waiting] = {}  # by k, and whether U turns

    def run(self) -> None:
        """Follow every run to its end."""
        n, rank, _ = self.factor.shape
        if not self._points:
            # Number 0, from which all runs set out: nothing is learned, and U is empty.
            origin = np.zeros((rank, 0))
            self._points.append(CriticalPoint.near(self._target, origin, leading=self._leading))
        self.visited[:, 0] = 0
        self._send(0, 0, np.arange(n), self.factor)
        for _ in range(MAX_STRETCHES):
            if not self._waiting:
                return
            # Runs with the fewest directions first; others come back to the origin meanwhile.
            k, turning = min(self._waiting)
            self._stretch(self._waiting.pop((k, turning)), k, turning)
        # Still on the way after so many stretches: given up as too slow.
        for left in self._waiting.values():
            self.slow[np.concatenate(left.runs)] = True

    def _send(
        self,
        number: int,
        k: int,
        runs: NDArray[np.int64],
        factors: Array,
        frames: Array | None = None,
    ) -> None:
        """Let runs wait to be followed around a critical point, or with frames that turn."""
        if not len(runs):
            return
        turning = frames is not None
        if frames is None:
            frames = np.repeat(self._points[number].frame[None], len(runs), axis=0)
        move = self._waiting.setdefault((k, turning), _Waiting())
        move.points.append(np.full(len(runs), number))
        move.runs.append(runs)
        move.factors.append(factors)
        move.frames.append(frames)

    def _stretch(self, start: _Waiting, k: int, turning: bool) -> None:
        """Follow runs with k directions learned, and send them where they go."""
        index, number = np.concatenate(start.runs), np.concatenate(start.points)
        frames, factor = np.concatenate(start.frames), np.concatenate(start.factors)
        n, _, c = factor.shape
        runs = reduced.Stretch(
            names=index,
            frames=frames,
            L=factor,
            step=np.full(n, 0.1),
            tried=np.full((n, c + 1), np.inf),
            code=np.zeros(n, dtype=np.int64),
            found=np.zeros(n, dtype=np.int64),
            level=np.array([point.loss for point in self._points])[number],
            # Where U would turn once others are learned the reduced flow is left in time.
            limited=np.array([k > 0 and not point.straight for point in self._points])[number],
            turning=turning,
            point=number,
        )
        # Method 4: what is learned in the same stretch as direction k is learned together with it.
        how = np.where(np.arange(self.crossing.shape[1]) > k, 4, 3 if turning else 2)
        rules = reduced.Rules(MAX_STEPS, RTOL, REACH, LEARNED, SMALL, SLOWER, TURN, AT_ONCE)
        state = reduced.Runs(
            self.names, self.clock, self.crossing, self._apart, self.between, self.newest
        )
        table, coefficients = polynomial(self._target)
        while len(runs.names):
            index = runs.names
            before = np.isnan(self.crossing[index, :, 1])
            if turning:
                here = table.substitute(coefficients[:, None], runs.frames)
            else:
                # These are zero below the exponent, where the target's would leave rounding.
                known = [(point.coefficients, point.frame) for point in self._points]
                own, fixed = (np.stack(part)[runs.point] for part in zip(*known, strict=True))
                here = table.substitute(own.T, fixed.swapaxes(1, 2) @ runs.frames)
            runs.follow(table, here, rules, state, self._record)
            new = before & np.isfinite(self.crossing[index, :, 1])
            self.method[index] = np.where(new, how, self.method[index])
            self.never[index[runs.code == reduced.NEVER]] = True
            self.slow[index[runs.code == reduced.LEFT]] = True
            leaves, meets = runs.code == reduced.LEAVES, runs.code == reduced.MEETS
            self._leave(index[leaves], runs.frames[leaves], k, runs.L[leaves])
            again = meets.copy()
            for j in np.unique(runs.found[meets]):
                these = np.flatnonzero(meets & (runs.found == j))
                gone = self._meet(index[these], runs.frames[these], k, runs.L[these], int(j))
                again[these[gone]] = False
            runs.keep(again)

    def _leave(self, runs: NDArray[np.int64], frames: Array, k: int, L: Array) -> None:
        """Send runs whose subspace begins to turn to where that is followed."""
        if not len(runs):
            return
        U, V = frames[:, :, :k], frames[:, :, k:]
        across = L.swapaxes(1, 2)
        # Overlaps beside U, D = L (I + L^T L)^-1 L^T, so that G = P_U + V D V^T.
        D = L @ np.linalg.solve(np.eye(L.shape[2]) + across @ L, across)
        H = gradient(self._target, U @ U.swapaxes(1, 2) + V @ D @ V.swapaxes(1, 2))
        own = np.linalg.eigvalsh(U.swapaxes(1, 2) @ H @ U)[:, 0]
        # Where others grow far more slowly than what is learned its odds may stay infinite.
        slow = np.linalg.eigvalsh(V.swapaxes(1, 2) @ H @ V)[:, -1] < AT_ONCE * own
        self._send(0, k, runs[slow], L[slow], frames[slow])
        # Otherwise the whole equation P' = H P, from finite odds of what is learned.
        P = np.concatenate([LARGEST * U, V @ L], axis=2)
        self._send(0, 0, runs[~slow], P[~slow])

    def _meet(
        self, runs: NDArray[np.int64], frames: Array, k: int, L: Array, j: int
    ) -> NDArray[np.intp]:
        """Send runs to critical subspaces with j more directions; return which have found one."""
        U = frames[:, :, : k + j]
        P = np.concatenate([LARGEST * frames[:, :, :k], frames[:, :, k:] @ L], axis=2)
        # A point at which U will turn may be used only while the next odds are small.
        small = 2 * np.log(L[:, j, j]) < np.log(REACH)
        H = gradient(self._target, U @ U.swapaxes(1, 2))
        gone = []
        for number, here in _find(self._target, U, H, self._points, self._leading):
            point = self._points[number]
            own = np.linalg.eigvalsh(U[here].swapaxes(1, 2) @ H[here] @ U[here])[:, 0]
            # Tilts that change this slowly last while others are learned: they have to take steps.
            slow = np.abs(point.rates).min(initial=np.inf) < SLOW_TILTS * own
            slow &= point.rates.max(initial=-np.inf) < SLOW_TILTS * own
            rests = point.stable & (point.tilts(U[here]) <= point.basin)
            straight = rests & (point.straight | ~slow & small[here])
            turns = slow & ~straight
            rests |= turns
            self.visited[runs[here[rests]], k + j] = number
            gone.append(here[rests])
            still, moved, turns = here[straight], here[rests & ~straight & ~turns], here[turns]
            # From here on the learned odds are infinite: the start is the Schur factor of P.
            self._send(number, k + j, runs[still], point.split(P[still]))
            self._leave(runs[moved], frames[moved], k + j, L[moved, j:, j:])
            self._send(0, k + j, runs[turns], L[turns, j:, j:], frames[turns])
        return np.concatenate([np.zeros(0, dtype=np.intp), *gone])


def _find(
    target: Target, subspaces: Array, H: Array, points: list[CriticalPoint], leading: bool
) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Numbers of the critical points next to subspaces (n, rank, k), and which are next to each.

    Shapes: H (n, rank, rank), there.
    """
    k, number, left = subspaces.shape[2], 0, np.arange(len(subspaces))
    while len(left):
        if number == len(points):
            # No known point is near: Newton's method from one run, which may lead to a known one.
            new = CriticalPoint.near(target, subspaces[left[0]], leading=leading)
            alike = next((n for n, p in enumerate(points) if p.tilt(new.learned) < NEAR), None)
            if alike is None:
                points.append(new)
            yield number if alike is None else alike, left[:1]
            left = left[1:]
            continue
        point = points[number]
        if point.learned.shape[1] == k and point.stable and (point.isolated or not point.basin):
            near = point.tilts(subspaces[left]) < 0.03
            if point.isolated:
                # Push over rate is how far the point is along its softest tilt: a tenth at most.
                push = point.normal.T @ H[left] @ subspaces[left]
                near &= np.abs(push).max(axis=(1, 2)) < 0.1 * np.abs(point.rates).min()
            yield number, left[near]
            left = left[~near]
        number += 1
