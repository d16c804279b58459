r"""Escape times of hundreds of orthonormal directions, each run from its own start.

With :math:`f^* = \sum_i a_i g(v_i \cdot z)`, in the frame of the directions,
:math:`H_{ij} = a_i a_j \sum_k k c_k^2 G_{ij}^{k-1}` and :math:`X = G (I - G)^{-1} = P P^T` with
:math:`P' = H P`. Directions that do not meet (G diagonal) have clocks of their own: times are
quadratures over log-odds, and what is seen are their order statistics. Others compete for the
student's columns: the equation is followed with a tolerance that suits a prediction. Where odds
have passed `LEARNED`, the student's direction leaves with what all rows of P have along it, the
Schur complement of X, and with it the row of the direction learned, once that has come to rest:
h2 lets it turn to stronger directions, and turn away from weaker ones only slowly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..targets.ladder import leaps
from ..targets.target import Target
from .prediction import KNOWN, LEVELS, METHODS, SLOW, Prediction, Record, odds

__all__ = ["ManyDirections"]

Array = NDArray[np.float64]

LEARNED, LARGEST = 1e6, 1e10
"""Odds beyond which a direction may leave, and those that are not left to grow."""
TOO_LARGE = 1e14
TURNED = 1e-11
"""Squared tilt of what is learned, relative to another direction's overlap, that is none."""
RTOL = 1e-5
MEET = 1e-13
"""Cosines of two rows of P below which no directions meet."""
MAX_STEPS = 100_000


class ManyDirections:
    """Theory of a target whose directions are learned one by one."""

    def __init__(self, target: Target) -> None:
        assert target.separable is not None
        self.exponent, _, self._frame = target.separable
        self.rank, self.ladder = target.rank, leaps(target)
        parts = np.array([target.along(k) for k in range(target.degree + 1)])
        # One link g of unit norm for all directions, its c_k^2, and strengths a_i with a sign.
        self._weights = np.linalg.norm(parts, axis=0) * np.sign(parts[self.exponent])
        self._squares = (parts[:, 0] / self._weights[0]) ** 2
        self._gains = float(self._squares[1:].sum()) * self._weights**2

    def predict(self, gram0: Array) -> Prediction:
        """Predict the saddles of each run, shape (n, rank, rank)."""
        result = Prediction.empty(len(gram0), self.rank)
        record = Record()
        for run, X in enumerate(odds(gram0)):
            values, vectors = np.linalg.eigh(self._frame.T @ X @ self._frame)
            kept = values > 1e-13 * max(values[-1], 1e-300)
            if not kept.any():
                continue
            P = vectors[:, kept] * np.sqrt(values[kept])
            sizes = np.linalg.norm(P, axis=1)
            unit = P / np.where(sizes > 0, sizes, 1.0)[:, None]
            # Orthogonal rows: G is diagonal, H with it, and both stay so.
            apart = np.abs(unit @ unit.T - np.diag((unit**2).sum(axis=1))).max() < MEET
            follow = self._alone if apart else self._together
            times, order = follow(sizes if apart else P, run, record)
            n = len(order)
            # On a plateau the loss is half the squares of what is not learned yet.
            left = 0.5 * (self._gains.sum() - np.append(0.0, np.cumsum(self._gains[order])))
            columns = {
                "rank": np.arange(n),
                "exponent": float(self.exponent),
                "saddle_loss": left[:n],
                "enter_time": np.append(0.0, times[: n - 1, 2]),
                "leave_time": times[:n, 0],
                "escape_time": times[:n, 1],
                "learned": np.abs(self._frame[:, order[:n]]).argmax(axis=0),
                "order": 0.0,
                "reason": np.where(np.isfinite(times[:n, 1]), KNOWN, SLOW),
                "method": METHODS.index("quadrature" if apart else "reduced_flow"),
            }
            for name, column in columns.items():
                getattr(result, name)[run, :n] = column
        return replace(result, curve=record.curve())

    def _polynomials(self, overlap: Array) -> tuple[Array, Array]:
        """``sum_k c_k^2 x^k`` without its constant, and its derivative."""
        value, slope = np.zeros_like(overlap), np.zeros_like(overlap)
        for square in np.append(0.0, self._squares[1:])[::-1]:
            slope = slope * overlap + value
            value = value * overlap + square
        return value, slope

    def _alone(self, sizes: Array, run: int, record: Record) -> tuple[Array, NDArray[np.intp]]:
        """Return times of three levels, in the order of escapes, and what is learned in it.

        Shapes: sizes (n,), the roots of the odds; returns (m, 3), (m,).
        """
        from scipy.integrate import cumulative_simpson
        from scipy.special import expit

        of = np.flatnonzero(sizes)
        start, paces = 2 * np.log(sizes[of]), self._weights[of] ** 2
        # u' = 2 a_i^2 sum_k k c_k^2 lambda^(k-1): one clock for all, up to 1 - lambda = 2e-16.
        u = np.arange(start.min(), 36.0, 0.01)
        clock = cumulative_simpson(0.5 / self._polynomials(expit(u))[1], x=u, initial=0.0)
        begin = np.interp(start, u, clock)
        at = np.interp(LEVELS, u, clock)
        times = np.maximum(at - begin[:, None], 0.0) / paces[:, None]
        nodes = np.geomspace(times[:, 0].min() / 100 + 1e-300, times.max(), 200)
        for t in np.union1d(nodes, times):
            here = expit(np.interp(t * paces + begin, clock, u))
            value, slope = self._polynomials(here)
            loss = 0.5 * (self._gains.sum() - value @ paces)
            # dL/dt = -sum_i H_ii^2 lambda_i (1 - lambda_i)
            fall = -float((paces * slope) ** 2 @ (here * (1.0 - here)))
            record.note(*(np.array([x]) for x in (run, t, loss, fall)))
        return np.sort(times, axis=0), of[np.argsort(times[:, 1])]

    def _together(self, P: Array, run: int, record: Record) -> tuple[Array, NDArray[np.intp]]:
        """Follow directions that meet; as `_alone`, from P of shape (n, q)."""
        from scipy.integrate import DOP853
        from scipy.optimize import brentq

        kept, before = np.arange(len(P)), 0
        learned: list[int] = []
        times = np.full((min(P.shape), 3), np.nan)
        times[_log_odds(P)[:, None] >= LEVELS] = 0.0

        def slope(_: float, y: Array) -> Array:
            P, a = y.reshape(len(kept), -1), self._weights[kept][:, None]
            products = P.T @ P
            if not products.max() < TOO_LARGE:  # the step is refused
                return np.full_like(y, np.nan)
            inner = np.linalg.inv(np.eye(len(products)) + products)
            if not self._squares[3:].any():  # H need not be formed
                return np.asarray(
                    2 * self._squares[2] * a * (P @ (inner @ (P.T @ (a * P))))
                ).ravel()
            H = self._polynomials(P @ inner @ P.T)[1]
            return np.asarray(a * (H @ (a * P))).ravel()

        t, length = 0.0, np.nan
        for _ in range(MAX_STEPS):
            solver: Any = DOP853(
                slope, t, P.ravel(), np.inf, rtol=RTOL, first_step=length if length > 0 else None
            )
            while np.isnan(times[before:]).any() and (P**2).sum(axis=0).max() < LARGEST:
                sizes = np.abs(P).max(axis=1, initial=0.0)
                solver.atol = np.repeat(RTOL * sizes + 1e-300, P.shape[1])
                solver.step()
                if solver.status == "failed":
                    return times, kept[: len(times)]
                t, length, P = solver.t, solver.h_abs, solver.y.reshape(P.shape)
                self._note(P, kept, run, t, record)
                now = _log_odds(P)
                dense: Any = None
                for i, k in np.argwhere((now[:, None] >= LEVELS) & np.isnan(times[before:])):
                    dense = dense or solver.dense_output()

                    def excess(at: float, at_level: tuple[Any, ...] = (i, k, dense, P)) -> float:
                        i, k, read, like = at_level
                        return float(_log_odds(read(at).reshape(like.shape))[i] - LEVELS[k])

                    ends = solver.t_old, t
                    inside = excess(ends[0]) < 0.0 < excess(ends[1])
                    times[before + i, k] = brentq(excess, *ends, rtol=1e-6) if inside else t
            if not np.isnan(times[before:]).any():
                break
            # Learned directions are columns of their own, from the largest odds on.
            P = P @ np.linalg.svd(P, full_matrices=False)[2].T
            k = 0
            while k < P.shape[1] and (P[:, k] ** 2).sum() > LEARNED:
                u = P[:, k] / np.linalg.norm(P[:, k])
                i, rest = int(np.abs(u).argmax()), (P[:, k + 1 :] ** 2).sum(axis=1)
                # At rest: its squared tilts are far below the odds of the directions it tilts to.
                still = np.delete(u**2 <= TURNED * rest, i).all()
                if still or P.shape[1] == 1:
                    learned.append(int(kept[i]))
                    P, kept = np.delete(np.delete(P, i, axis=0), k, axis=1), np.delete(kept, i)
                    before += 1
                else:
                    # It still turns: it stays, with its odds held.
                    P[:, k] = u * np.sqrt(LEARNED)
                    k += 1
        return times, np.append(learned, kept[np.argsort(-(P**2).sum(axis=1))])[: len(times)]

    def _note(self, P: Array, kept: NDArray[np.intp], run: int, t: float, record: Record) -> None:
        """Keep loss and slope of a step."""
        G = P @ np.linalg.solve(np.eye(P.shape[1]) + P.T @ P, P.T)
        value, H = self._polynomials(G)
        pairs = np.outer(self._weights[kept], self._weights[kept])
        H = pairs * H
        push = H @ G
        loss = 0.5 * (self._gains[kept].sum() - (pairs * value).sum())
        # dL/dt = -tr H (I - G) H G
        fall = -float((H * (push - G @ push)).sum())
        record.note(*(np.array([x]) for x in (run, t, loss, fall)))


def _log_odds(P: Array) -> Array:
    """Log-odds of the overlaps, descending; shape (min(n, q),)."""
    # Both products have the same eigenvalues but for zeros: the smaller one.
    small = P.T @ P if P.shape[0] >= P.shape[1] else P @ P.T
    return np.asarray(np.log(np.maximum(np.linalg.eigvalsh(small)[::-1], 1e-300)))
