r"""The limit flow: saddle times for any target, from leading parts and connecting orbits.

Near a saddle a run is governed by the leading parts of the flow alone, which know no d
(`critical_points`). When its overlaps stop being small it leaves, and in a time of order one,
however long the plateaus are, it moves along the orbit that connects the saddle to the next one;
what stays small is carried along. So the plateaus, which make up the time, are never integrated
with the target's full gradient; only the orbits between them are. Where saddles are not apart, as
those of exponent 1 at small d, an orbit passes several of them. The loss at the saddles and
between them is kept as a curve, off which the levels of plateaus are read.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from ..targets.averaging import correlation, gradient
from ..targets.ladder import critical_subspace
from ..targets.target import Target
from .congruence import Stepper
from .critical_points import SMALL, CriticalPoint
from .prediction import Prediction, odds
from .stay import Curve, stays

__all__ = ["LimitFlow"]

Array = NDArray[np.float64]

MAX_STEPS = 5000
APART = 0.3
"""Tangent of the angle within which a subspace is held against an isolated critical one."""
SLOW, CLOSER = 0.02, 0.7
"""Turning of a learned subspace, relative to H, near a saddle; ratio that is worth a new look."""
_LEVELS = np.log([1 / 9, 1.0, 9.0])  # log-odds of the overlaps 0.1, 0.5 and 0.9


class LimitFlow:
    """Theory of one target by limit flows and connecting orbits."""

    method = "limit-flow"

    def __init__(self, target: Target) -> None:
        self.rank = target.rank
        self._target = target

    def predict(self, gram0: Array) -> Prediction:
        """Predict the saddles of each run.

        Shapes: gram0 (n, rank, rank).
        """
        result = Prediction.empty(len(gram0), self.rank)
        values, vectors = np.linalg.eigh(odds(gram0))
        values, vectors = values[:, ::-1], vectors[:, :, ::-1]
        # A student of lower rank than the target leaves zeros, up to rounding.
        directions = (values > 1e-13 * values[:, :1]).sum(axis=1)
        curves: dict[int, Curve] = {}
        for c in np.unique(directions):
            chosen = np.flatnonzero(directions == c)
            runs = _Runs(vectors[chosen, :, :c] * np.sqrt(values[chosen, None, :c]))
            self._integrate(runs)
            curves |= self._collect(runs, result, chosen)
        return replace(result, curve=partial(_values, curves))

    def _integrate(self, runs: _Runs) -> None:
        places: dict[int, CriticalPoint] = {}
        origin = self._point(np.zeros((self.rank, 0)), runs)
        if origin is not None:
            places = dict.fromkeys(range(len(runs.factor)), origin)
        while places:
            leaving: list[int] = []
            for point in dict.fromkeys(places.values()):
                here = [run for run, place in places.items() if place is point]
                leaving += self._leave(point, here, runs)
            places = self._connect(leaving, runs)

    def _point(self, subspace: Array, runs: _Runs) -> CriticalPoint | None:
        """Return the critical point at a subspace, each one object; None if there is none."""
        for known in runs.points:
            if known.learned.shape[1] != subspace.shape[1]:
                continue
            tilt = known.tilt(subspace)
            if known.contains(tilt):
                return known
            near = known.isolated and np.abs(tilt).max(initial=0.0) < APART
            # Unless another one is in between, it turns as the linear flow around this one.
            if near and known.turns(self._target, tilt):
                return None
        point = CriticalPoint.near(self._target, subspace)
        if any(known.contains(known.tilt(point.learned)) for known in runs.points):
            return None
        runs.points.append(point)
        return point if point.contains(point.tilt(subspace)) else None

    def _nearest(self, subspace: Array, runs: _Runs) -> CriticalPoint:
        """Return the critical point next to a subspace."""
        point = CriticalPoint.near(self._target, subspace)
        if np.abs(point.tilt(subspace)).max(initial=0.0) > 1:  # Newton's method has gone astray
            point = CriticalPoint.near(self._target, critical_subspace(self._target, subspace))
        for known in runs.points:
            if known.contains(known.tilt(point.learned)):
                return known
        runs.points.append(point)
        return point

    def _flow(self, factor: Array) -> tuple[Array, Array]:
        """H on a connecting orbit, where ``G = P (I + P^T P)^{-1} P^T``; time runs at rate 1."""
        gram = np.eye(factor.shape[2]) + factor.swapaxes(1, 2) @ factor
        root = np.linalg.solve(np.linalg.cholesky(gram), factor.swapaxes(1, 2))
        return gradient(self._target, root.swapaxes(1, 2) @ root), np.ones(len(factor))

    def _loss(self, factor: Array, H: Array | None = None) -> tuple[Array, Array]:
        """Loss and its slope in time at each P, shape (n, rank, c), and H where it is known."""
        gram = np.eye(factor.shape[2]) + factor.swapaxes(1, 2) @ factor
        G = factor @ np.linalg.solve(gram, factor.swapaxes(1, 2))
        H = gradient(self._target, G) if H is None else H
        pushed = H @ G
        slope = -np.einsum("nij,nji->n", H - pushed, pushed)
        return 0.5 * (self._target.norm**2 - correlation(self._target, G)), slope

    def _leave(self, point: CriticalPoint, here: list[int], runs: _Runs) -> list[int]:
        """Follow the leading parts away from a critical point; return the runs that leave it."""
        index = np.array(here)
        parts = [point.split(runs.factor[run]) for run in here]
        size, tilt, unlearned = (np.stack(part) for part in zip(*parts, strict=True))
        time, grown = point.escape(tilt, unlearned)
        leaves = np.isfinite(time)
        runs.stays[index] = np.isinf(time)
        for i, run in enumerate(here):
            runs.visited[run].append((time[i], point))
            if leaves[i]:
                at, factors = point.stay(size[i], tilt[i], unlearned[i], time[i], grown[i])
                runs.note(np.full(len(at), run), runs.clock[run] + at, *self._loss(factors))
                runs.factor[run] = factors[-1]
            else:
                runs.note(index[i : i + 1], runs.clock[[run]], *self._loss(runs.factor[[run]]))
        runs.clock[index[leaves]] += time[leaves]
        return index[leaves].tolist()  # type: ignore[no-any-return]

    def _connect(self, leaving: list[int], runs: _Runs) -> dict[int, CriticalPoint]:
        """Follow runs along connecting orbits; return where each one arrives."""
        arrived: dict[int, CriticalPoint] = {}
        if not leaving:
            return arrived
        index = np.array(leaving)
        stepper = Stepper(self._flow, runs.factor[index])
        before = stepper.log_odds()
        for _ in range(MAX_STEPS):
            step, _ = stepper.advance()
            after = stepper.log_odds()
            runs.record(index, step, before, after)
            taken = step > 0
            moved = index[taken]
            runs.note(
                moved, runs.clock[moved], *self._loss(stepper.factor[taken], stepper.H[taken])
            )
            runs.remember(index, after[0], stepper.factor)
            going = after[0][:, -1] <= _LEVELS[2]  # until all that the student can is learned
            push = _stays(after[0], stepper)
            for i in np.flatnonzero(taken & going & (push < SLOW)):
                k = int(np.sum(after[0][i] > -np.log(SMALL)))
                factor, run = stepper.factor[i], index[i]
                if push[i] > CLOSER * runs.tried[run, k]:
                    continue
                runs.tried[run, k] = push[i]
                point = self._point(_directions(factor)[:, :k], runs)
                if point is not None and point.holds(*point.split(factor)[1:]):
                    going[i] = False
                    runs.factor[index[i]] = factor
                    arrived[int(index[i])] = point
            before = after
            if not going.all():
                stepper.keep(going)
                index, before = index[going], (after[0][going], after[1][going])
            if not len(index):
                break
        for run, log_odds, factor in zip(index, before[0], stepper.factor, strict=True):
            # Too slow to be followed to its end: a saddle whose time is not known.
            learned = _directions(factor)[:, : int(np.sum(log_odds > -np.log(SMALL)))]
            point = self._point(learned, runs) or CriticalPoint.near(self._target, learned)
            runs.visited[run].append((np.inf, point))
        return arrived

    def _collect(
        self, runs: _Runs, result: Prediction, chosen: NDArray[np.int64]
    ) -> dict[int, Curve]:
        """Fill in the result; return the curves by its rows."""
        c = runs.factor.shape[2]
        for run, row in enumerate(chosen):
            points: dict[int, CriticalPoint] = {}
            # Of several saddles with the same number of directions that where it stays longest.
            for _, point in sorted(runs.visited[run], key=itemgetter(0)):
                points[point.learned.shape[1]] = point
            crossing = runs.crossing[run]
            for k in range(1, c):
                # Escapes that overlap still have a plateau between them, if only a short one, when
                # the first is over before the second begins.
                apart = ~np.isnan(crossing[k, 0]) & stays(crossing[k - 1, 2], crossing[k, 0])
                if k not in points and apart and runs.between[run, k].any():
                    points[k] = self._nearest(runs.between[run, k][:, :k], runs)
            # With all the student's directions learned a run has converged.
            left = [(k, p) for k, p in sorted(points.items()) if p.exponent is not None and k < c]
            for i, (k, point) in enumerate(left):
                result.rank[row, i] = k
                result.exponent[row, i] = point.exponent
                result.saddle_loss[row, i] = point.loss
                result.enter_time[row, i] = crossing[k - 1, 2] if k else 0.0
                result.leave_time[row, i] = crossing[k, 0]
                escape = crossing[k, 1]
                never = np.isnan(escape) and runs.stays[run]
                result.escape_time[row, i] = np.inf if never else escape
        return {int(chosen[run]): curve for run, curve in runs.curves().items()}


class _Runs:
    """State and record of runs whose students have the same number of directions."""

    def __init__(self, factor: Array) -> None:
        n, _, c = factor.shape
        self.factor = factor  # P with X = P P^T
        self.points: list[CriticalPoint] = []  # found so far
        self.clock = np.zeros(n)
        self.stays = np.zeros(n, dtype=bool)
        # For each k how fast the subspace was turned when a saddle was last looked for near it.
        self.tried = np.full((n, c + 1), np.inf)
        odds = np.sum(factor**2, axis=1)  # the columns are orthogonal at the start
        self.crossing = np.where(odds[:, :, None] >= np.exp(_LEVELS), 0.0, np.nan)
        self.visited: list[list[tuple[float, CriticalPoint]]] = [[] for _ in range(n)]
        # For each k the frame when k directions are learned and the next one is not, most clearly.
        self.between = np.zeros((n, c, *factor.shape[1:]))
        self._apart = np.full((n, c), -np.inf)
        self._nodes: list[tuple[NDArray[np.int64], Array, Array, Array]] = []

    def note(self, index: NDArray[np.int64], time: Array, loss: Array, slope: Array) -> None:
        """Keep losses and their slopes."""
        self._nodes.append((index, time, loss, slope))

    def curves(self) -> dict[int, Curve]:
        """Losses as a function of time, of each run that has left a saddle."""
        result: dict[int, Curve] = {}
        if not self._nodes:
            return result
        index, time, loss, slope = map(np.concatenate, zip(*self._nodes, strict=True))
        order = np.argsort(index, kind="stable")
        runs, starts = np.unique(index[order], return_index=True)
        for run, at in zip(runs, np.split(order, starts[1:]), strict=True):
            later = np.append(np.diff(time[at]) > 0, True)  # of several at one time the last
            at = at[later]
            result[int(run)] = Curve(time[at], loss[at], slope[at])
        return result

    def record(
        self,
        index: NDArray[np.int64],
        step: Array,
        before: tuple[Array, Array],
        after: tuple[Array, Array],
    ) -> None:
        """Record the first crossings of the levels during a step."""
        for level, height in enumerate(_LEVELS):
            crosses = (step[:, None] > 0) & (before[0] < height) & (after[0] >= height)
            rows, columns = np.nonzero(crosses & np.isnan(self.crossing[index, :, level]))
            if not len(rows):
                continue
            fraction = _hermite_root(
                before[0][rows, columns] - height,
                after[0][rows, columns] - height,
                before[1][rows, columns] * step[rows],
                after[1][rows, columns] * step[rows],
            )
            self.crossing[index[rows], columns, level] = (
                self.clock[index[rows]] + fraction * step[rows]
            )
        self.clock[index] += step

    def remember(self, index: NDArray[np.int64], log_odds: Array, factor: Array) -> None:
        """Keep the frame in which some directions are learned, and the next not, most clearly."""
        for k in range(1, log_odds.shape[1]):
            apart = np.minimum(log_odds[:, k - 1], -log_odds[:, k])
            further = apart > self._apart[index, k]
            self._apart[index[further], k] = apart[further]
            self.between[index[further], k] = _directions(factor[further])


def _values(curves: dict[int, Curve], rows: NDArray[np.int64], time: Array) -> Array:
    """Values of the curves of rows that come one after the other; NaN where there is none."""
    result = np.full(len(rows), np.nan)
    ends = np.append(np.flatnonzero(np.diff(rows)) + 1, len(rows))
    begin = 0
    for end in ends if len(rows) else ():
        if (curve := curves.get(int(rows[begin]))) is not None:
            result[begin:end] = curve(time[begin:end])
        begin = end
    return result


def _directions(factor: Array) -> Array:
    """Return unit vectors along the columns of P."""
    return np.asarray(factor / np.linalg.norm(factor, axis=-2, keepdims=True))


def _push(stepper: Stepper, learned: NDArray[np.int64]) -> Array:
    """How fast H turns the span of the first `learned` columns, relative to H, shape (n,)."""
    frame = _directions(stepper.factor)
    frame = frame * (np.arange(frame.shape[2]) < learned[:, None])[:, None, :]
    push = stepper.H @ frame
    push -= frame @ (frame.swapaxes(1, 2) @ push)
    return np.abs(push).max(axis=(1, 2)) / np.abs(stepper.H).max(axis=(1, 2))  # type: ignore[no-any-return]


def _stays(log_odds: Array, stepper: Stepper) -> Array:
    """How fast H turns what each run has learned, relative to H; inf where some is halfway."""
    learned = log_odds > -np.log(SMALL)
    settled = learned[:, 0] & (learned | (log_odds < 0)).all(axis=1)
    if not settled.any():
        return np.full(len(settled), np.inf)
    return np.where(settled, _push(stepper, learned.sum(axis=1)), np.inf)


def _hermite_root(u0: Array, u1: Array, d0: Array, d1: Array) -> Array:
    """Root in [0, 1] of the cubic with values u0 < 0 <= u1 and slopes d0, d1 at the ends."""
    low, high = np.zeros_like(u0), np.ones_like(u0)
    for _ in range(40):
        x = (low + high) / 2
        value = (1 - x) ** 2 * ((1 + 2 * x) * u0 + x * d0)
        value += x**2 * ((3 - 2 * x) * u1 + (x - 1) * d1)
        low, high = np.where(value < 0, x, low), np.where(value < 0, high, x)
    return (low + high) / 2
