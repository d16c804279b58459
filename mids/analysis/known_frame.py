r"""Escape times of the planted flow, run by run.

For targets of one direction ``m' = F(m) = sum_s s alpha_s^2 m^(s-1) (1 - m^2)``: a run moves from
m(0) until a root of F stops it, and the time to overlap 1/2 is one integral,

.. math:: t = \int_{m(0)}^{\pm 1/\sqrt 2} \frac{dm}{F(m)} \sim
          \frac{m(0)^{2-s}}{s (s-2) \alpha_s^2}

with the information exponent s (``log(1/m) / (2 alpha_2^2)`` for s = 2, of order one for s = 1). It
grows like :math:`d^{s/2-1}`, where the fast link takes :math:`d^{s-1}`.

Where k directions are learned, :math:`M = U V^T + U_\perp N V_\perp^T`, and what is left of
:math:`M' = D - M \mathrm{sym}(M^T D)` is a flow of the same kind for N alone, with the components
of the target along U summed: which direction comes first, and whether any does, the start decides.
So plateaus are not integrated with what is learned, whose rates would make them stiff. Components
that vanish at U are left out, so that small N keep their relative accuracy. Where N would turn U
the whole equation is followed from an overlap of `REACH` on. It is integrated by explicit steps on
arrays over runs, and shares nothing with the simulator but the target's tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import comb, exp

import numpy as np

from ..targets.averaging import average, correlation, planted_slope
from ..targets.ladder import leaps
from ..targets.subspaces import TOLERANCE, complete
from ..targets.target import Target
from ..validation import FloatArray as Array
from ..validation import IntArray
from .landscape import linearised
from .prediction import BETWEEN, KNOWN, NEVER, SLOW, Prediction, Record, cubic_root, steps_of

LEVELS = (0.1, 0.5, 0.9)
_HALF = 0.5**0.5
RTOL, MAX_STEPS = 1e-7, 4000
LEARNED, SMALL, REACH = 1 - 1e-6, 0.02, 0.05
"""Overlaps: what counts as learned, what the others are then below, up to which U stands still."""
STILL, GONE = 1e-10, 1e-3  # relative slope and size below which a run never leaves


def order(exponent: int) -> tuple[float, str]:
    """Power of d that the time at a saddle grows with, and its name."""
    power = max(exponent / 2 - 1, 0.0)
    return power, {1: "O(1)", 2: "log d", 4: "d"}.get(exponent, f"d^{power:g}")


class KnownLink:
    """Theory of the planted flow for one target of one direction."""

    def __init__(self, target: Target) -> None:
        degrees = target.modes[:, 0]
        self._target = target
        slope = np.zeros(target.degree)
        for s, alpha in zip(degrees, target.coefficients, strict=True):
            if s > 0:
                slope[s - 1] += s * alpha**2
        self._slope = np.polynomial.Polynomial(slope)  # F(m) / (1 - m^2)
        self._exponent = int(degrees[degrees > 0].min())
        # With the link known L = |f*|^2 - sum_s alpha_s^2 m^s, of which s = 0 stays at m = 0.
        self._plateau = target.norm**2 - float(np.sum(target.coefficients[degrees == 0] ** 2))

    @property
    def ladder(self) -> str:
        """The exponent and the order in d of its time."""
        return f"{self._exponent}: {order(self._exponent)[1]}"

    def predict(self, start: Array) -> Prediction:
        """Predict the saddle of each run; start (n, 1, 1)."""
        result = Prediction.empty(len(start), 1)
        result.rank[:, 0], result.method[:, 0] = 0.0, 1.0
        result.exponent[:, 0] = self._exponent
        result.saddle_loss[:, 0] = self._plateau
        result.escape_time[:, 0] = [self.escape_time(float(m)) for m in start[:, 0, 0]]
        result.enter_time[:, 0], result.leave_time[:, 0] = 0.0, result.escape_time[:, 0]
        # The first plateau has the level at which it begins.
        first = self._plateau - self._slope.integ()(start[:, 0, 0])
        return replace(result, curve=lambda rows, time: first[rows])

    def escape_time(self, start: float) -> float:
        """Time from m(0) to an overlap of 1/2."""
        if abs(start) >= _HALF:
            return 0.0
        slope = float(self._slope(start))
        if slope == 0.0:
            return np.inf
        end = float(np.copysign(_HALF, slope))
        roots = self._slope.roots()
        real = roots[np.abs(roots.imag) < 1e-9 * (1 + np.abs(roots.real))].real
        low, high = min(start, end), max(start, end)
        if np.any((real > low) & (real < high)):
            return np.inf
        if start * end > 0:  # over many decades: integrate in log m
            return self._integral(np.log(abs(start)), np.log(_HALF), np.sign(start))
        return self._integral(start, end, 0.0)

    def _integral(self, low: float, high: float, sign: float) -> float:
        """Integrate ``dm / F``; in ``log |m|`` where a sign of m is given."""
        from scipy.integrate import quad

        coefficients = self._slope.coef[::-1].tolist()

        def integrand(x: float) -> float:
            m = sign * exp(x) if sign else x
            total = 0.0
            for coefficient in coefficients:
                total = total * m + coefficient
            return (m if sign else 1.0) / (total * (1.0 - m * m))

        # Per unit of log |m|: what matters may be a small part of many decades.
        edges = np.linspace(low, high, 2 + int(abs(high - low) / 2.0))
        return sum(quad(integrand, a, b, epsabs=0, epsrel=1e-9)[0] for a, b in pairwise(edges))


@dataclass(eq=False)
class _Point:
    """A saddle: frames of the target and the student, learned columns first, and what is left."""

    target: Target
    left: Array
    right: Array
    k: int

    def __post_init__(self) -> None:
        one, other = (average(self.target.tensors, f) for f in (self.left, self.right))
        m, floor = len(self.left) - self.k, TOLERANCE * self.target.norm
        self.parts: list[tuple[int, Array, Array]] = []
        # Degree s beside U: entries with s indices there, in comb(n, s) places, the others in U.
        for s in range(1, len(one) if m else 1):
            pair = []
            for tensors in (one, other):
                blocks = [
                    comb(n, s) ** 0.5
                    * tensors[n][(slice(self.k),) * (n - s) + (slice(self.k, None),) * s].reshape(
                        -1, m**s
                    )
                    for n in range(s, len(tensors))
                ]
                pair.append(np.concatenate(blocks).reshape(-1, *(m,) * s))
            # The correlation of degree s is a product of both sides: if one vanishes so does it.
            if min(np.linalg.norm(part) for part in pair) > floor:
                self.parts.append((s, pair[0], pair[1]))
        self.exponent = self.parts[0][0] if self.parts else None
        self.M = self.left[:, : self.k] @ self.right[:, : self.k].T
        self.loss = self.target.norm**2 - float(correlation(self.target, self.M))
        draws = np.random.default_rng(0).uniform(-0.3, 0.3, (3, m, m))
        push = self.left.T @ planted_slope(self.target, self.whole(draws))[0] @ self.right
        # U turns if anything acts on its rows or columns: a polynomial in N, so random N tell.
        push[:, self.k :, self.k :] = 0.0
        self.straight = bool(np.abs(push).max() < 1e-7 * self.target.norm**2)

    def whole(self, N: Array) -> Array:
        """M for N, shape (n, m, m)."""
        return self.M + self.left[:, self.k :] @ N @ self.right[:, self.k :].T

    def slope(self, N: Array) -> tuple[Array, Array, Array]:
        """N', its part D, and the loss."""
        D, value = np.zeros(N.shape), np.zeros(len(N))
        for s, one, other in self.parts:
            own = _pulled(other, one, N).swapaxes(1, 2)
            D += own
            # Euler: a part homogeneous of degree s is <N, its gradient> / s.
            value += np.einsum("nij,nij->n", own, N) / s
        inner = N.swapaxes(1, 2) @ D
        return D - N @ (inner + inner.swapaxes(1, 2)) / 2, D, self.loss - value


class KnownFrame(KnownLink):
    """Theory of the planted flow for one target of several directions."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._ladder = leaps(target)
        r = target.rank
        self._points = [_Point(target, np.eye(r), np.eye(r), 0)]

    @property
    def ladder(self) -> str:
        """The exponents and the orders in d of their times."""
        rates = ", ".join(order(s)[1] for s in self._ladder.exponents)
        return f"{' -> '.join(map(str, self._ladder.exponents))}: {rates}"

    def predict(self, start: Array) -> Prediction:
        """Predict the saddles of each run, shape (n, rank, rank)."""
        n, r, _ = start.shape
        self._crossing = np.full((n, r, 3), np.nan)
        odds = np.linalg.svd(start, compute_uv=False) ** 2
        self._crossing[odds[:, :, None] >= LEVELS] = 0.0
        self._visited: list[dict[int, _Point]] = [{0: self._points[0]} for _ in range(n)]
        self._between = np.zeros((n, r, r, r))
        self._apart = np.full((n, r), -np.inf)
        self._newest = np.zeros((n, r, r))
        self._end = np.zeros(n)
        clock, record = np.zeros(n), Record()
        waiting = {id(self._points[0]): (self._points[0], list(range(n)), list(start))}
        for _ in range(40 * r):
            if not waiting:
                break
            # Fewest directions first, so that runs which reach a saddle are followed together.
            key = min(waiting, key=lambda key: waiting[key][0].k)
            for point, run, N in self._stretch(*waiting.pop(key), clock, record):
                there = waiting.setdefault(id(point), (point, [], []))
                there[1].append(run)
                there[2].append(N)
        for _, runs, _ in waiting.values():
            self._end[runs] = SLOW
        return replace(self._collect(n, r), curve=record.curve())

    def _stretch(
        self, point: _Point, runs: list[int], starts: list[Array], clock: Array, record: Record
    ) -> list[tuple[_Point, int, Array]]:
        """Follow runs around a saddle; return where they go, and their N there."""
        from scipy.integrate import RK45

        index, N, moves = np.array(runs), np.stack(starts), []
        slope, D, loss = point.slope(N)
        first, turned = np.linalg.norm(N, axis=(1, 2)), 1e-3 * self._target.norm**2
        h = 0.01 * first / (np.linalg.norm(slope, axis=(1, 2)) + 1e-300)
        # dL/dt = -<N', D>, since D is minus the gradient of the loss.
        record.note(index, clock[index], loss, -np.einsum("nij,nij->n", slope, D))
        for _ in range(MAX_STEPS):
            stages = [slope]
            for row in RK45.A[1:]:
                stages.append(point.slope(N + _combine(row, stages, h))[0])
            trial = N + _combine(RK45.B, stages, h)
            new, new_D, new_loss = point.slope(trial)
            # Each direction has its own size: errors count relative to its row and column.
            error = _combine(RK45.E, [*stages, new], h)
            left, sizes, right = np.linalg.svd(trial)
            mixed = np.abs(left.swapaxes(1, 2) @ error @ right.swapaxes(1, 2))
            longer = np.maximum(sizes[:, :, None], sizes[:, None, :]) + 1e-150
            worst = np.nan_to_num((mixed / longer).max(axis=(1, 2)) / RTOL, nan=np.inf)
            good = worst <= 1
            before = np.linalg.svd(N)
            self._cross(
                index[good],
                point,
                clock,
                h[good],
                [p[good] for p in before],
                slope[good],
                [p[good] for p in (left, sizes, right)],
                new[good],
            )
            N, slope = (np.where(good[:, None, None], a, b) for a, b in ((trial, N), (new, slope)))
            D, loss = np.where(good[:, None, None], new_D, D), np.where(good, new_loss, loss)
            clock[index[good]] += h[good]
            record.note(
                index[good],
                clock[index[good]],
                loss[good],
                -np.einsum("nij,nij->n", slope, D)[good],
            )
            # The error that the pair of Dormand and Prince estimates goes as h^5.
            h = h * np.clip(0.9 * np.maximum(worst, 1e-10) ** -0.2, 0.2, 4.0)
            squares = np.where(good[:, None], sizes, before[1]) ** 2
            # Runs end where they stand still or die out, and where all is learned.
            still = np.linalg.norm(slope, axis=(1, 2)) <= STILL * np.linalg.norm(D, axis=(1, 2))
            still |= np.linalg.norm(N, axis=(1, 2)) < GONE * first
            done = squares[:, -1] > LEVELS[2]
            self._end[index[still & ~done]] = NEVER
            going = ~still & ~done
            for i in np.flatnonzero(going & good):
                j = int((squares[i] > LEARNED).sum())
                move = None
                # Once what is learned turns no more, the rest goes on alone at the next saddle.
                turning = left[i].T @ slope[i] @ right[i].T
                turning[j:, j:] = 0.0
                if j and squares[i, j] < SMALL and np.abs(turning).max() < turned:
                    move = self._at_saddle(point.whole(N[i][None])[0], point.k + j)
                elif point.k and not point.straight and squares[i, 0] > REACH:
                    move = self._points[0], point.whole(N[i][None])[0]
                if move is not None:
                    going[i] = False
                    moves.append((move[0], int(index[i]), move[1]))
                    self._visited[index[i]].setdefault(move[0].k, move[0])
            N, slope, D, loss, h, index, first = (
                part[going] for part in (N, slope, D, loss, h, index, first)
            )
            if not len(index):
                return moves
        self._end[index] = SLOW
        return moves

    def _at_saddle(self, M: Array, k: int) -> tuple[_Point, Array] | None:
        """Saddle next to M with k directions learned, and N there; None if M is still turning."""
        point = self._near(M, k)
        whole = point.left.T @ M @ point.right
        inner, off = whole[:k, :k], np.abs(whole[:k, k:]).max() + np.abs(whole[k:, :k]).max()
        if np.abs(inner - np.eye(k)).max() + off > 0.01:
            return None
        # Schur complement: what is left of M once the learned block is taken out.
        return point, whole[k:, k:] - whole[k:, :k] @ np.linalg.solve(inner, whole[:k, k:])

    def _near(self, M: Array, k: int) -> _Point:
        """Saddle next to a matrix, by Newton's method from its k largest directions."""
        left, _, right = np.linalg.svd(M)
        found = (left[:, :k] @ right[:k])[None]
        for known in self._points:
            if known.k == k and np.abs(known.M - found).max() < 1e-3:
                return known
        for _ in range(12):
            slope, jacobian = linearised(self._target, found)
            step = np.linalg.pinv(jacobian[0], rcond=1e-6) @ slope.ravel()
            # So long a step may lead to another saddle.
            if np.abs(step).max() > 0.3:
                break
            found = found - step.reshape(found.shape)
            # Back to k singular values of 1 after each step, and none beside them.
            left, _, right = np.linalg.svd(found[0])
            found = (left[:, :k] @ right[:k])[None]
        for known in self._points:
            if known.k == k and np.abs(known.M - found).max() < 1e-6:
                return known
        frames = complete(left[:, :k]), complete(right[:k].T)
        self._points.append(_Point(self._target, *frames, k))
        return self._points[-1]

    def _cross(
        self,
        index: IntArray,
        point: _Point,
        clock: Array,
        h: Array,
        old: list[Array],
        slope: Array,
        new: list[Array],
        new_slope: Array,
    ) -> None:
        """Record crossings of the levels in a step, and where the directions stand."""
        squares, rates = [], []
        for (left, sizes, right), rate in ((old, slope), (new, new_slope)):
            squares.append(sizes**2)
            along = np.einsum("nik,nij,nkj->nk", left, rate, right)
            # d(sigma^2)/dt = 2 sigma u^T N' v, over a step.
            rates.append(2 * sizes * along * h[:, None])
        for level, height in enumerate(LEVELS):
            rows, columns = np.nonzero((squares[0] < height) & (squares[1] >= height))
            if not len(rows):
                continue
            part = cubic_root(
                *(s[rows, columns] - height for s in squares),
                *(rate[rows, columns] for rate in rates),
            )
            time = clock[index[rows]] + part * h[rows]
            before = self._crossing[index[rows], point.k + columns, level]
            self._crossing[index[rows], point.k + columns, level] = np.where(
                np.isnan(before), time, before
            )
        left, _, right = new
        overlap = np.concatenate([np.ones((len(index), point.k)), squares[1]], axis=1)
        U = point.left[:, point.k :] @ left
        for j in range(point.k, overlap.shape[1]):
            rising = (LEVELS[0] < overlap[:, j]) & (overlap[:, j] < LEVELS[2])
            self._newest[index[rising], j] = U[rising, :, j - point.k]
            if not j:
                continue
            # When j directions stand out most: the last of them near 1 and the next one near 0.
            apart = np.minimum(overlap[:, j - 1], 1 - overlap[:, j])
            further = apart > self._apart[index, j]
            self._apart[index[further], j] = apart[further]
            N = (left[further] * new[1][further][:, None, :]) @ right[further]
            self._between[index[further], j] = point.whole(N)

    def _collect(self, n: int, r: int) -> Prediction:
        """Fill the result in."""
        result = Prediction.empty(n, r)
        order = steps_of(self._newest, self._ladder)
        for i in range(n):
            visit = 0
            for k in range(r):
                enter = self._crossing[i, k - 1, 2] if k else 0.0
                leave, escape = self._crossing[i, k, :2]
                if np.isnan(enter) or (np.isnan(escape) and not self._end[i]):
                    continue
                # Passed without a rest: the saddle next to where k directions stood out most.
                point = self._visited[i].get(k) or self._near(self._between[i, k], k)
                if point.exponent is None:
                    continue
                result.rank[i, visit], result.exponent[i, visit] = k, point.exponent
                result.saddle_loss[i, visit], result.method[i, visit] = point.loss, 2
                result.enter_time[i, visit], result.leave_time[i, visit] = enter, leave
                result.escape_time[i, visit] = escape
                if np.isnan(escape):
                    result.reason[i, visit] = self._end[i]
                    if self._end[i] == NEVER:
                        result.escape_time[i, visit] = np.inf
                else:
                    result.learned[i, visit] = np.abs(self._newest[i, k]).argmax()
                    result.order[i, visit] = order[i, k]
                    result.reason[i, visit] = BETWEEN if np.isnan(order[i, k]) else KNOWN
                visit += 1
        return result


def _combine(weights: Array, parts: list[Array], h: Array) -> Array:
    total = sum(w * part for w, part in zip(weights, parts, strict=False))
    return np.asarray(h[:, None, None] * total)


def _pulled(one: Array, other: Array, D: Array) -> Array:
    """Contract two components through D (n, m, m) on all but one index of each, times s."""
    s, m = one.ndim - 1, D.shape[1]
    flat, part = (np.moveaxis(each, 0, -1).reshape(1, m, -1) for each in (other, one))
    for _ in range(s - 1):  # the features come round to the last axis
        part = (D @ part).swapaxes(1, 2).reshape(len(D), m, -1)
        flat = flat.swapaxes(1, 2).reshape(1, m, -1)
    return np.asarray(s * part @ flat.swapaxes(1, 2))
