r"""Escape times of any target: the reduced flow between critical subspaces.

At a saddle a run follows the flow reduced to what is not learned there, with every part of H
(`critical_points`): whichever direction comes first wins. Where what it learns would turn the
learned subspace the run follows the whole equation ``P' = H P``, whose learned directions are cut
off at an overlap of 1 - 1e-8, for a time of order one, until it is at a critical subspace again
and its other directions are small. So the plateaus, which make up the time, are never integrated
with what is learned; where saddles are not apart, as those of exponent 1 and all at small d, the
whole equation takes a run through several of them. It is integrated here, by explicit steps on
arrays over runs, and shares nothing with the simulator but the target's tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..targets.averaging import gradient
from ..targets.ladder import complete, leaps
from ..targets.polynomial import polynomial
from ..targets.target import Target
from .critical_points import NEAR, CriticalPoint
from .prediction import KNOWN, LEVELS, NEVER, SLOW, Prediction, Record, factors

if TYPE_CHECKING:
    from . import reduced_flow

__all__ = ["Race"]

Array = NDArray[np.float64]

MAX_STEPS = 4000
"""Steps of one stretch, between two critical subspaces."""
MAX_STRETCHES = 60
RTOL = 3e-7
"""Local error per step, relative, of every direction that is not learned, and of the time."""
NODES = 2**16
"""Steps of all runs that are kept at a time."""
LARGEST = 1e4
"""Root of the odds of what is learned, where it is followed again."""
REACH = 0.05
"""Overlap up to which the learned subspace is taken to stand still."""
LEARNED, SMALL = np.log(1e4), np.log(0.02)
"""Log-odds above which a direction may count as learned, and below which others must be."""
SLOWER, TURN = 0.15, 0.02
"""Growth of others, and turning of what is learned, relative to its own growth, that are small."""
AT_ONCE = 0.02
"""Growth of others, relative to that of what is learned, which a subspace follows at once."""


class Race:
    """Theory of one target: who wins, and when, saddle by saddle."""

    def __init__(self, target: Target, *, leading: bool = False) -> None:
        self.rank = target.rank
        self.ladder = leaps(target)
        self._target = target
        self._leading = leading

    def predict(self, gram0: Array) -> Prediction:
        """Predict the saddles of each run, shape (n, rank, rank)."""
        result = Prediction.empty(len(gram0), self.rank)
        record = Record()
        points: list[CriticalPoint] = []
        for chosen, factor in factors(gram0):
            if factor.shape[2]:
                race = _Batch(self._target, factor, chosen, record, points, self._leading)
                race.run()
                self._collect(race, result, points)
        return replace(result, curve=record.curve())

    def _collect(self, race: _Batch, result: Prediction, points: list[CriticalPoint]) -> None:
        """Fill the result in; shapes (n, k), k the number of directions learned."""
        enter = np.concatenate([np.zeros((len(race.names), 1)), race.crossing[:, :-1, 2]], axis=1)
        leave, escape = race.crossing[:, :, 0], race.crossing[:, :, 1]
        ends = np.isnan(escape)
        known = ~ends | (np.isfinite(enter) & (race.never | race.slow)[:, None])
        first = np.arange(escape.shape[1]) == 0
        wanted = known & (race.visited < 0) & (ends | first | (enter < leave))
        for k in np.flatnonzero(wanted.any(axis=0)):
            runs = np.flatnonzero(wanted[:, k])
            race.visited[runs, k] = race.nearest(race.between[runs, k], int(k))
        passed = race.visited < 0  # on the way from one direction to the next but one
        of = np.where(passed, 0, race.visited)
        exponents = np.array([np.nan if p.exponent is None else p.exponent for p in points])[of]
        known &= passed | ~np.isnan(exponents)
        ladder = self.ladder
        spans = np.concatenate([step.learned for step in ladder], axis=1)
        step_of = np.repeat(np.arange(len(ladder)), [s.learned.shape[1] for s in ladder])
        parts = (race.newest @ spans) ** 2 @ (step_of[:, None] == np.arange(len(ladder)))
        slow = np.where(race.never[:, None], np.inf, np.nan)
        reason = np.where(race.never[:, None], NEVER, SLOW)
        columns = {
            "rank": np.broadcast_to(np.arange(escape.shape[1]), escape.shape),
            "exponent": np.where(passed, np.nan, exponents),
            "saddle_loss": np.where(passed, np.nan, np.array([p.loss for p in points])[of]),
            "enter_time": enter,
            "leave_time": leave,
            "escape_time": np.where(ends, slow, escape),
            "learned": np.where(ends, np.nan, np.abs(race.newest).argmax(axis=2)),
            "order": np.where(ends, np.nan, parts.argmax(axis=2)),
            "reason": np.where(ends, reason, KNOWN),
            "method": race.method,
        }
        rows, place = np.nonzero(known)
        at = np.cumsum(known, axis=1)[rows, place] - 1
        for name, column in columns.items():
            getattr(result, name)[race.names[rows], at] = column[rows, place]


@dataclass
class _Waiting:
    """Runs that are to be followed around a critical subspace; None where it turns."""

    point: CriticalPoint | None
    runs: list[int]
    factors: list[Array]
    frames: list[Array] = field(default_factory=list)
    learned: int = 0


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

    def run(self) -> None:
        """Follow every run to its end."""
        n, rank, _ = self.factor.shape
        origin = _find(self._target, np.zeros((rank, 0)), self._points, self._leading)
        self.visited[:, 0] = self._points.index(origin)
        waiting = {(id(origin), 0): _Waiting(origin, list(range(n)), list(self.factor))}
        for _ in range(MAX_STRETCHES):
            if not waiting:
                return
            # Runs with the fewest directions first; others come back to the origin meanwhile.
            key = min(waiting, key=lambda key: key[1])
            for place, move in self._stretch(waiting.pop(key)).items():
                there = waiting.setdefault(place, _Waiting(move.point, [], [], [], move.learned))
                there.runs += move.runs
                there.factors += move.factors
                there.frames += move.frames
        for left in waiting.values():
            self.slow[left.runs] = True

    def _stretch(self, start: _Waiting) -> dict[tuple[int, int], _Waiting]:
        """Follow runs around one critical subspace; return where they go, and their L there."""
        from . import reduced_flow as reduced

        k, index, point = start.learned, np.array(start.runs), start.point
        factor = np.stack(start.factors)
        if point is None:
            frames = np.stack(start.frames)
        else:
            whole = np.concatenate([point.learned, point.normal], axis=1)
            frames = np.repeat(whole[None], len(index), axis=0)
        n, m, c = factor.shape
        tried = np.full((n, c + 1), np.inf)
        step = np.full(n, 0.1)
        moves: dict[tuple[int, int], _Waiting] = {}
        how = np.where(np.arange(self.crossing.shape[1]) > k, 4, 3 if point is None else 2)
        link, work = self._prepared(point, k, m)
        rules = reduced.Rules(MAX_STEPS, RTOL, LEVELS, REACH, LEARNED, SMALL, SLOWER, TURN, AT_ONCE)
        while len(index):
            record = (self.clock, self.crossing, self._apart, self.between, self.newest)
            code, found = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
            runs = reduced.Runs(factor, frames, step, tried, code, found, index, *record)
            limited = k > 0 and point is not None and not point.straight
            level = self._points[0].loss if point is None else point.loss
            before = np.isnan(self.crossing[index, :, 1])
            first = 0
            while first < n:
                work.used[0] = 0
                first = reduced.follow(
                    link, rules, runs, work, first, k, point is None, limited, level
                )
                rows, *values = work.nodes[: work.used[0]].T
                self._record.note(self.names[rows.astype(np.int64)], *values)
            new = before & np.isfinite(self.crossing[index, :, 1])
            self.method[index] = np.where(new, how, self.method[index])
            self.never[index[code == reduced.NEVER]] = True
            self.slow[index[code == reduced.LEFT]] = True
            for i in np.flatnonzero(code == reduced.LEAVES):
                self._leave(moves, int(index[i]), frames[i], k, factor[i])
            again = np.zeros(n, dtype=bool)
            for i in np.flatnonzero(code == reduced.MEETS):
                again[i] = not self._meets(moves, int(index[i]), frames[i], k, factor[i], found[i])
            index, factor, frames = index[again], factor[again], frames[again]
            tried, step, n = tried[again], step[again], len(index)
        return moves

    def nearest(self, frames: Array, k: int) -> NDArray[np.int64]:
        """Numbers of the critical points next to the first k columns of some frames."""
        from . import reduced_flow as reduced

        found = np.full(len(frames), -1)
        rank = frames.shape[1]
        whole = np.linalg.qr(frames[:, :, :k], mode="complete")[0]
        if 0 < k < rank:
            link, work = self._prepared(None, k, rank - k)
            floor = 1e-13 * np.abs(self._target.coefficients).max() ** 2
            reduced.criticals(link, work, whole, k, floor)
        while (found < 0).any():
            for number, point in enumerate(self._points):
                if point.learned.shape[1] == k:
                    found[(found < 0) & (point.tilts(whole[:, :, :k]) < NEAR)] = number
            if (found < 0).any():
                new = whole[found.argmin(), :, :k]
                self._points.append(CriticalPoint.near(self._target, new, leading=self._leading))
                found[found.argmin()] = len(self._points) - 1
        return found

    def _prepared(
        self, point: CriticalPoint | None, k: int, m: int
    ) -> tuple[reduced_flow.Link, reduced_flow.Work]:
        """Polynomial at a point, or of the target itself, and space to work in."""
        from . import reduced_flow as reduced

        table, coefficients = polynomial(self._target)
        rank, top = table.rank, max(table.degrees)
        size, wide = max(rank, top, 3) + 1, max(m * k, 4)
        link = reduced.Link(
            coefficients if point is None else point.coefficients,
            *(table.weight, table.last, table.start, table.place, table.source, table.power),
            *(table.factor, table.lower, table.successor, table.root, top),
        )
        work = reduced.Work(
            np.empty(len(table.modes)),
            np.empty(len(table.lower)),
            np.zeros((32, size, size)),
            np.zeros((7, size, size)),
            np.zeros((4, wide, wide)),
            np.empty((max(NODES, MAX_STEPS + 2), 4)),
            np.zeros(1, dtype=np.int64),
        )
        return link, work

    def _leave(
        self, moves: dict[tuple[int, int], _Waiting], run: int, frame: Array, k: int, L: Array
    ) -> None:
        """Send a run whose subspace begins to turn to where that is followed."""
        U, V = frame[:, :k], frame[:, k:]
        D = L @ np.linalg.solve(np.eye(L.shape[1]) + L.T @ L, L.T)
        H = gradient(self._target, U @ U.T + V @ D @ V.T)
        own = float(np.linalg.eigvalsh(U.T @ H @ U)[0])
        fast = float(np.linalg.eigvalsh(V.T @ H @ V)[-1])
        if fast < AT_ONCE * own:
            move = moves.setdefault((0, k), _Waiting(None, [], [], [], k))
            move.frames.append(frame)
            move.factors.append(L)
        else:
            origin = self._points[0]
            move = moves.setdefault((id(origin), 0), _Waiting(origin, [], []))
            move.factors.append(np.concatenate([LARGEST * U, V @ L], axis=1))
        move.runs.append(run)

    def _meets(
        self,
        moves: dict[tuple[int, int], _Waiting],
        run: int,
        frame: Array,
        k: int,
        L: Array,
        j: int,
    ) -> bool:
        """Send a run to a critical subspace with j more directions, if one is there."""
        lengths = np.linalg.norm(L, axis=0)
        whole = frame.copy()
        whole[:, k:] = whole[:, k:] @ complete(L[:, :j] / lengths[:j])
        found = _find(self._target, whole[:, : k + j], self._points, self._leading)
        if not found.stable or found.tilt(whole[:, : k + j]) > 0.1:
            return False
        self.visited[run, k + j] = self._points.index(found)
        P = np.concatenate([LARGEST * frame[:, :k], frame[:, k:] @ L], axis=1)
        if found.straight or 2 * np.log(lengths[j]) < np.log(REACH):
            move = moves.setdefault((id(found), k + j), _Waiting(found, [], [], [], k + j))
            move.runs.append(run)
            move.factors.append(found.split(P[None])[0])
        else:
            turn = np.linalg.qr((whole[:, : k + j].T @ P).T, mode="complete")[0]
            beside = (whole[:, k + j :].T @ P @ turn)[:, k + j :]
            self._leave(moves, run, whole, k + j, beside)
        return True


def _find(
    target: Target, subspace: Array, points: list[CriticalPoint], leading: bool
) -> CriticalPoint:
    """Return the critical point next to a subspace, each one object."""
    for known in points:
        if known.isolated and known.tilt(subspace) < 0.03 and known.stable:
            push = known.normal.T @ gradient(target, subspace @ subspace.T) @ subspace
            if np.abs(push).max(initial=0.0) < 0.1 * np.abs(known.rates).min(initial=np.inf):
                return known
    point = CriticalPoint.near(target, subspace, leading=leading)
    for known in points:
        if known.tilt(point.learned) < NEAR:
            return known
    points.append(point)
    return point
