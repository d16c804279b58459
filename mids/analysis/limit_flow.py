r"""The limit flow: saddle times for any target, from leading parts and connecting orbits.

Near a saddle a run is governed by the leading parts of the flow alone, which know no d
(`critical_points`). When its overlaps stop being small it leaves, and in a time of order one,
however long the plateaus are, it moves along the orbit that connects the saddle to the next one;
what stays small is carried along. So the plateaus, which make up the time, are never integrated
with the target's full gradient; only the orbits between them are. Where saddles are not apart, as
those of exponent 1 at small d, an orbit passes several of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..operators import gradient
from ..targets import Target
from .congruence import LARGEST, Stepper
from .critical_points import SMALL, CriticalPoint
from .prediction import Prediction, odds

__all__ = ["LimitFlow"]

Array = NDArray[np.float64]

MAX_STEPS = 5000
_LEVELS = np.log([1 / 9, 1.0, 9.0])  # log-odds of the overlaps 0.1, 0.5 and 0.9


class LimitFlow:
    """Theory of one target by limit flows and connecting orbits.

    Parameters
    ----------
    target : Target
        Any target.
    """

    method = "limit-flow"

    def __init__(self, target: Target) -> None:
        self.rank = target.rank
        self._target = target
        self._points: list[CriticalPoint] = []

    def predict(self, gram0: Array) -> Prediction:
        """Predict the saddles of each run.

        Parameters
        ----------
        gram0 : ndarray, shape (n, rank, rank)
            G(0) of each run.

        Returns
        -------
        Prediction
        """
        result = Prediction.empty(len(gram0), self.rank)
        values, vectors = np.linalg.eigh(odds(gram0))
        values, vectors = values[:, ::-1], vectors[:, :, ::-1]
        # A student of lower rank than the target leaves zeros, up to rounding.
        directions = (values > 1e-13 * values[:, :1]).sum(axis=1)
        for c in np.unique(directions):
            chosen = np.flatnonzero(directions == c)
            runs = _Runs(vectors[chosen, :, :c] * np.sqrt(values[chosen, None, :c]))
            self._integrate(runs)
            self._collect(runs, result, chosen)
        return result

    def _integrate(self, runs: _Runs) -> None:
        places: dict[int, CriticalPoint] = {}
        origin = self._point(np.zeros((self.rank, 0)))
        if origin is not None:
            places = dict.fromkeys(range(len(runs.factor)), origin)
        while places:
            leaving: list[int] = []
            for point in dict.fromkeys(places.values()):
                here = [run for run, place in places.items() if place is point]
                leaving += _leave(point, here, runs)
            places = self._connect(leaving, runs)

    def _point(self, subspace: Array) -> CriticalPoint | None:
        """Return the critical point at a subspace that is nearly critical, each one object."""
        for known in self._points:
            if known.contains(subspace):
                return known
        point = CriticalPoint.near(self._target, subspace)
        if not point.contains(subspace):
            return None
        self._points.append(point)
        return point

    def _flow(self, factor: Array) -> tuple[Array, Array]:
        """H on a connecting orbit, where ``G = P (I + P^T P)^{-1} P^T``; time runs at rate 1."""
        gram = np.eye(factor.shape[2]) + factor.swapaxes(1, 2) @ factor
        root = np.linalg.solve(np.linalg.cholesky(gram), factor.swapaxes(1, 2))
        return gradient(self._target, root.swapaxes(1, 2) @ root), np.ones(len(factor))

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
            runs.remember(index, after[0], stepper.factor, stepper.H)
            going = np.ones(len(index), dtype=bool)
            for i in np.flatnonzero(step):
                point = self._arrival(stepper.factor[i], stepper.H[i], after[0][i])
                if point is not None:
                    going[i] = False
                    runs.factor[index[i]] = stepper.factor[i]
                    arrived[int(index[i])] = point
            before = after
            if not going.all():
                stepper.keep(going)
                index, before = index[going], (after[0][going], after[1][going])
            if not len(index):
                break
        return arrived

    def _arrival(self, factor: Array, H: Array, log_odds: Array) -> CriticalPoint | None:
        """Return the critical point that a run has come to, if it is about to stay there."""
        k = int((log_odds > -np.log(SMALL)).sum())
        if k == 0 or (k < len(log_odds) and log_odds[k] > 0):
            return None
        subspace, push = _push(factor[:, :k], H)
        if push > 0.1:
            return None
        point = self._point(subspace)
        return point if point is not None and point.holds(*point.split(factor)) else None

    def _collect(self, runs: _Runs, result: Prediction, chosen: NDArray[np.int64]) -> None:
        c = runs.factor.shape[2]
        for run, row in enumerate(chosen):
            points = {point.learned.shape[1]: point for point in runs.visited[run]}
            crossing = runs.crossing[run]
            for k, (subspace, _) in runs.between[run].items():
                # Escapes that overlap still have a plateau between them, if only a short one, when
                # the first is over before the second begins.
                if k not in points and crossing[k - 1, 2] < crossing[k, 0]:
                    points[k] = CriticalPoint.near(self._target, subspace)
            left = [(k, p) for k, p in sorted(points.items()) if p.exponent is not None]
            for i, (k, point) in enumerate(left):
                result.rank[row, i] = k
                result.exponent[row, i] = point.exponent
                result.loss[row, i] = point.loss
                never = k == c or runs.stays[run]
                escape = crossing[k, 1] if k < c else np.nan
                result.escape_time[row, i] = np.inf if np.isnan(escape) and never else escape


def _leave(point: CriticalPoint, here: list[int], runs: _Runs) -> list[int]:
    """Follow the leading parts away from a critical point; return the runs that leave it."""
    k = point.learned.shape[1]
    index = np.array(here)
    parts = [point.split(runs.factor[run]) for run in here]
    time, tilt, unlearned = point.escape(*(np.stack(part) for part in zip(*parts, strict=True)))
    runs.factor[index, :, :k] = LARGEST * (point.learned + point.normal @ tilt)
    runs.factor[index, :, k:] = point.normal @ unlearned
    leaves = np.isfinite(time)
    runs.clock[index[leaves]] += time[leaves]
    runs.stays[index] = np.isinf(time)
    for run in here:
        runs.visited[run].append(point)
    return index[leaves].tolist()  # type: ignore[no-any-return]


class _Runs:
    """State and record of runs whose students have the same number of directions."""

    def __init__(self, factor: Array) -> None:
        n, _, c = factor.shape
        self.factor = factor  # P with X = P P^T
        self.clock = np.zeros(n)
        self.stays = np.zeros(n, dtype=bool)
        self.crossing = np.full((n, c, 3), np.nan)
        self.visited: list[list[CriticalPoint]] = [[] for _ in range(n)]
        self.between: list[dict[int, tuple[Array, float]]] = [{} for _ in range(n)]

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

    def remember(self, index: NDArray[np.int64], log_odds: Array, factor: Array, H: Array) -> None:
        """Keep, of the subspaces learned on an orbit, those that come closest to being critical."""
        gap = (log_odds[:, :-1] > _LEVELS[2]) & (log_odds[:, 1:] < _LEVELS[0])
        for row, column in zip(*np.nonzero(gap), strict=True):
            subspace, push = _push(factor[row, :, : column + 1], H[row])
            known = self.between[index[row]].get(int(column) + 1)
            if known is None or push < known[1]:
                self.between[index[row]][int(column) + 1] = subspace, push


def _push(columns: Array, H: Array) -> tuple[Array, float]:
    """Orthonormal basis of orthogonal columns, and how fast H turns their span, relative to H."""
    subspace = columns / np.linalg.norm(columns, axis=0)
    push = H @ subspace
    push -= subspace @ (subspace.T @ push)
    return subspace, float(np.abs(push).max() / np.abs(H).max())


def _hermite_root(u0: Array, u1: Array, d0: Array, d1: Array) -> Array:
    """Root in [0, 1] of the cubic with values u0 < 0 <= u1 and slopes d0, d1 at the ends."""
    low, high = np.zeros_like(u0), np.ones_like(u0)
    for _ in range(40):
        x = (low + high) / 2
        value = (1 - x) ** 2 * ((1 + 2 * x) * u0 + x * d0)
        value += x**2 * ((3 - 2 * x) * u1 + (x - 1) * d1)
        low, high = np.where(value < 0, x, low), np.where(value < 0, high, x)
    return (low + high) / 2
