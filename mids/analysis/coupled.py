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

import numpy as np
from numpy.typing import NDArray

from ..targets.averaging import gradient
from ..targets.ladder import complete, leaps
from ..targets.target import Target
from .critical_points import LARGEST, NEAR, CriticalPoint, Stepper, Turning
from .decoupled import hermite, hermite_root
from .prediction import LEVELS, NEVER, SLOW, Prediction, Record, factors

__all__ = ["Coupled"]

Array = NDArray[np.float64]

MAX_STEPS = 4000
"""Steps of one stretch, between two critical subspaces."""
MAX_STRETCHES = 60
REACH = 0.05
"""Overlap up to which the learned subspace is taken to stand still."""
LEARNED, SMALL = np.log(1e4), np.log(0.02)
"""Log-odds above which a direction may count as learned, and below which others must be."""
SLOWER, TURN = 0.15, 0.02
"""Growth of others, and turning of what is learned, relative to its own growth, that are small."""
AT_ONCE = 0.02
"""Growth of others, relative to that of what is learned, which a subspace follows at once."""


class Coupled:
    """Race of one target, by the reduced flow."""

    method = "coupled"

    def __init__(self, target: Target, *, leading: bool = False) -> None:
        self.rank = target.rank
        self._target = target
        self._leading = leading

    def predict(self, gram0: Array) -> Prediction:
        """Predict the saddles of each run, shape (n, rank, rank)."""
        result = Prediction.empty(len(gram0), self.rank)
        record = Record()
        points: list[CriticalPoint] = []
        for chosen, factor in factors(gram0):
            if factor.shape[2]:
                race = _Race(self._target, factor, chosen, record, points, self._leading)
                race.run()
                self._collect(race, result, points)
        return replace(result, curve=record.curve())

    def _collect(self, race: _Race, result: Prediction, points: list[CriticalPoint]) -> None:
        """Fill the result in."""
        n, c = race.crossing.shape[:2]
        ladder = leaps(self._target)
        spans = np.concatenate([step.learned for step in ladder], axis=1)
        step_of = np.concatenate([np.full(s.learned.shape[1], i) for i, s in enumerate(ladder)])
        for i in range(n):
            row = race.names[i]
            place = 0
            for k in range(c):
                enter = race.crossing[i, k - 1, 2] if k else 0.0
                leave, escape = race.crossing[i, k, 0], race.crossing[i, k, 1]
                point = race.visited[i].get(k)
                ends = np.isnan(escape)
                if ends and not (np.isfinite(enter) and (race.never[i] or race.slow[i])):
                    continue
                if point is None and (ends or k == 0 or enter < leave):
                    point = _find(self._target, race.between[i, k][:, :k], points, self._leading)
                if point is None or point.exponent is None:
                    continue
                result.rank[row, place] = k
                result.exponent[row, place] = point.exponent
                result.saddle_loss[row, place] = point.loss
                result.enter_time[row, place] = enter
                result.leave_time[row, place] = leave
                if ends:
                    result.escape_time[row, place] = np.inf if race.never[i] else np.nan
                    result.reason[row, place] = NEVER if race.never[i] else SLOW
                else:
                    result.escape_time[row, place] = escape
                    new = race.newest[i, k]
                    result.learned[row, place] = np.abs(new).argmax()
                    parts = np.bincount(step_of, (spans.T @ new) ** 2, minlength=len(ladder))
                    result.order[row, place] = parts.argmax()
                place += 1


@dataclass
class _Waiting:
    """Runs that are to be followed around a critical subspace; None where it turns."""

    point: CriticalPoint | None
    runs: list[int]
    factors: list[Array]
    frames: list[Array] = field(default_factory=list)
    learned: int = 0


class _Race:
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
        self.visited: list[dict[int, CriticalPoint]] = [{} for _ in range(n)]
        # For each k the frame when k directions are learned and the next one is not, most clearly.
        self.between = np.zeros((n, c, rank, c))
        self._apart = np.full((n, c), -np.inf)
        self.newest = np.zeros((n, c, rank))

    def run(self) -> None:
        """Follow every run to its end."""
        n, rank, _ = self.factor.shape
        origin = _find(self._target, np.zeros((rank, 0)), self._points, self._leading)
        for run in range(n):
            self.visited[run][0] = origin
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
        index = np.array(start.runs)
        k, c = start.learned, self.crossing.shape[1]
        point: CriticalPoint | Turning
        if start.point is None:
            point = Turning(self._target, np.stack(start.frames), k)
        else:
            point = start.point
        stepper = Stepper(point, np.stack(start.factors), self.clock[index])
        frames = _frames(point, len(index))
        tried = np.full((len(index), c + 1), np.inf)
        before = stepper.log_odds()
        moves: dict[tuple[int, int], _Waiting] = {}
        limited = k > 0 and not point.straight
        self._note(point.loss, index, stepper)
        for _ in range(MAX_STEPS):
            old = stepper.clock, stepper.pace.copy()
            step, _ = stepper.advance()
            if isinstance(point, Turning):
                point.follow(stepper.factor)
                frames = point.frames
            after = stepper.log_odds()
            self._cross(index, k, step, old, stepper, before, after)
            taken = step > 0
            self._remember(frames, k, index, after[0], stepper.factor)
            going = after[0][:, -1] <= LEVELS[2]
            still = going & (stepper.pace > 1e290)
            self.never[index[still]] = True
            going &= ~still
            if limited:
                for i in np.flatnonzero(going & taken & (stepper.lengths[:, 0] ** 2 > REACH)):
                    going[i] = False
                    self._leave(moves, int(index[i]), frames[i], k, stepper.factor[i])
            self._settle(frames, k, index, stepper, after[0], going, tried, moves)
            self._note(point.loss, index, stepper, taken)
            before = after
            if not going.all():
                self.clock[index] = stepper.clock
                stepper.keep(going)
                if isinstance(point, Turning):
                    point.keep(going)
                index, tried, frames = index[going], tried[going], frames[going]
                before = before[0][going], before[1][going]
            if not len(index):
                return moves
        self.clock[index], self.slow[index] = stepper.clock, True
        return moves

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

    def _settle(
        self,
        frames: Array,
        k: int,
        index: NDArray[np.int64],
        stepper: Stepper,
        log_odds: Array,
        going: NDArray[np.bool_],
        tried: Array,
        moves: dict[tuple[int, int], _Waiting],
    ) -> None:
        """Find runs that have come to a larger critical subspace, and send them there."""
        learned = log_odds > LEARNED
        apart = learned[:, 0] & (learned | (log_odds < 0)).all(axis=1) & ~learned.all(axis=1)
        for i in np.flatnonzero(going & apart):
            j = int(learned[i].sum())
            L = stepper.factor[i]
            U, H = L[:, :j] / stepper.lengths[i, :j], stepper.H[i]
            own = float(np.linalg.eigvalsh(U.T @ H @ U)[0])
            rest = H @ U - U @ (U.T @ H @ U)
            push = float(np.linalg.norm(rest, 2))
            others = H - U @ (U.T @ H)
            others = others - (others @ U) @ U.T
            fast = float(np.linalg.eigvalsh((others + others.T) / 2)[-1])
            small = log_odds[i, j] < SMALL or fast < AT_ONCE / 2 * own
            if own <= 0 or not small or push > min(TURN * own, 0.7 * tried[i, j]):
                continue
            if fast > SLOWER * own:
                continue
            tried[i, j] = push
            whole = frames[i].copy()
            whole[:, k:] = whole[:, k:] @ complete(U)
            found = _find(self._target, whole[:, : k + j], self._points, self._leading)
            if not found.stable or found.tilt(whole[:, : k + j]) > 0.1:
                continue
            going[i] = False
            run = int(index[i])
            self.visited[run][k + j] = found
            P = np.concatenate([LARGEST * frames[i][:, :k], frames[i][:, k:] @ L], axis=1)
            if found.straight or log_odds[i, j] < np.log(REACH):
                move = moves.setdefault((id(found), k + j), _Waiting(found, [], [], [], k + j))
                move.runs.append(run)
                move.factors.append(found.split(P[None])[0])
            else:
                turn = np.linalg.qr((whole[:, : k + j].T @ P).T, mode="complete")[0]
                beside = (whole[:, k + j :].T @ P @ turn)[:, k + j :]
                self._leave(moves, run, whole, k + j, beside)

    def _note(
        self,
        level: float,
        index: NDArray[np.int64],
        stepper: Stepper,
        taken: NDArray[np.bool_] | slice = slice(None),
    ) -> None:
        """Keep the loss and its slope."""
        loss, slope = stepper.loss()
        time = stepper.clock[taken]
        self._record.note(self.names[index[taken]], time, level + loss[taken], slope[taken])

    def _cross(
        self,
        index: NDArray[np.int64],
        k: int,
        step: Array,
        old: tuple[Array, Array],
        stepper: Stepper,
        before: tuple[Array, Array],
        after: tuple[Array, Array],
    ) -> None:
        """Record the first crossings of the levels during a step."""
        for level, height in enumerate(LEVELS):
            crosses = (step[:, None] > 0) & (before[0] < height) & (after[0] >= height)
            rows, columns = np.nonzero(crosses & np.isnan(self.crossing[index, k:, level]))
            if not len(rows):
                continue
            part = hermite_root(
                before[0][rows, columns] - height,
                after[0][rows, columns] - height,
                before[1][rows, columns] * step[rows],
                after[1][rows, columns] * step[rows],
            )
            ends = old[0][rows], stepper.clock[rows]
            slopes = old[1][rows] * step[rows], stepper.pace[rows] * step[rows]
            time = np.clip(hermite(part, *ends, *slopes), *ends)
            self.crossing[index[rows], k + columns, level] = time

    def _remember(
        self, frames: Array, k: int, index: NDArray[np.int64], log_odds: Array, factor: Array
    ) -> None:
        """Keep the frames in which some directions are learned, and the next is not."""
        odds = np.concatenate([np.full((len(index), k), np.inf), log_odds], axis=1)
        frame = factor / np.linalg.norm(factor, axis=1, keepdims=True)
        frame = np.concatenate([frames[:, :, :k], frames[:, :, k:] @ frame], axis=2)
        for j in range(1, odds.shape[1]):
            apart = np.minimum(odds[:, j - 1], -odds[:, j])
            further = apart > self._apart[index, j]
            self._apart[index[further], j] = apart[further]
            self.between[index[further], j] = frame[further]
        for j in range(k, odds.shape[1]):
            rising = (odds[:, j] < LEVELS[2]) & (odds[:, j] > LEVELS[0])
            self.newest[index[rising], j] = frame[rising, :, j]


def _frames(point: CriticalPoint | Turning, n: int) -> Array:
    """Bases of U and of its complement of each run, shape (n, rank, rank)."""
    if isinstance(point, Turning):
        return point.frames
    whole = np.concatenate([point.learned, point.normal], axis=1)
    return np.repeat(whole[None], n, axis=0)


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
