r"""Critical subspaces, and the flow reduced to what is not learned there.

At a critical subspace U of rank k, with a basis V of its complement, a run whose learned odds are
infinite has :math:`G = P_U + V D V^T`, and what is left of the flow is of the same kind with fewer
directions,

.. math:: L' = H_U(D) L, \qquad D = Y (I + Y)^{-1}, \qquad Y = L L^T, \qquad
          H_U = \nabla_D \sum_s \langle A_s, D^{\otimes s} A_s \rangle,

where A_s collects the entries of the target's tensors with s indices along V and the others along
U, those of degree n with the weight ``sqrt(comb(n, s))``. The components below the exponent of U
vanish, and are left out, so that small D keep their relative accuracy. Y at the beginning is the
Schur complement of X with respect to U. U is taken to stand still: what turns it is of the order
of ``D^s``, the square of which counts (`CriticalPoint.straight` where it vanishes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb

import numpy as np
from numpy.typing import NDArray

from ..targets.averaging import correlation, gradient, loss
from ..targets.ladder import TOLERANCE, complete, rotate, tilt_growth
from ..targets.target import Target

__all__ = ["LARGEST", "CriticalPoint", "Stepper", "Turning", "critical", "pulled", "relative"]

Array = NDArray[np.float64]
Flow = Callable[[Array], tuple[Array, Array]]

LARGEST = 1e4
"""Root of the odds to which a learned direction is followed (1 - overlap = 1e-8)."""
OVERSHOT = 100 * LARGEST
RTOL = 3e-7
"""Local error per step, relative, of every direction that is not learned, and of the time."""
NEAR = 1e-6
"""Tangent of the angle within which two subspaces are the same critical one."""


@dataclass(eq=False)
class CriticalPoint:
    """A critical subspace and the flow around it.

    Shapes: learned (rank, k); normal (rank, m); components[s - 1] (features, m, ..., m).
    """

    learned: Array
    normal: Array
    loss: float
    exponent: int | None
    components: list[Array]
    rates: Array  # of tilts, ascending
    neutral: float  # below which a rate counts as zero
    target: Target

    @classmethod
    def near(cls, target: Target, subspace: Array, *, leading: bool = False) -> CriticalPoint:
        """Analyse the critical subspace next to one that is nearly critical."""
        learned = critical(target, subspace)
        k = learned.shape[1]
        frame = complete(learned)
        rates: Array = np.linalg.eigvalsh(tilt_growth(target, learned)).astype(np.float64)
        tensors = rotate(target.tensors, frame)
        floor = TOLERANCE * float(np.sqrt(sum(np.sum(t**2) for t in tensors[1:])))
        components: list[Array] = []
        exponent = None
        for s in range(1, len(tensors) if k < target.rank else 1):
            component = _component(tensors, k, s)
            if exponent is None and np.linalg.norm(component) > floor:
                exponent = s
            if exponent is None or (leading and s > exponent):
                component = np.zeros((0, *component.shape[1:]))
            components.append(component)
        scale = float(np.sum(target.coefficients**2 * target.modes.sum(axis=1)))
        level = float(loss(target, learned @ learned.T))
        return cls(learned, frame[:, k:], level, exponent, components, rates, 1e-7 * scale, target)

    @property
    def stable(self) -> bool:
        """Whether no tilt grows."""
        return bool(self.rates.max(initial=-1.0) <= self.neutral)

    @property
    def isolated(self) -> bool:
        """Whether no tilt leads to another critical subspace."""
        return bool((np.abs(self.rates) > self.neutral).all())

    @cached_property
    def straight(self) -> bool:
        """Whether U stands still, however far the directions beside it are learned."""
        k, m = self.learned.shape[1], self.normal.shape[1]
        if not k or not m:
            return True
        draws = np.random.default_rng(0).standard_normal((3, m, m))
        D = draws @ draws.swapaxes(1, 2)
        D /= np.linalg.norm(D, axis=(1, 2))[:, None, None]
        G = self.learned @ self.learned.T + self.normal @ D @ self.normal.T
        push = self.normal.T @ gradient(self.target, G) @ self.learned
        return bool(np.abs(push).max() < self.neutral)

    def tilt(self, subspace: Array) -> float:
        """Largest entry of theta for a subspace ``U + V theta``; inf for one far away."""
        onto, off = self.learned.T @ subspace, self.normal.T @ subspace
        if subspace.shape[1] != self.learned.shape[1] or abs(np.linalg.det(onto)) < 0.1:
            return np.inf
        return float(np.abs(np.linalg.solve(onto.T, off.T)).max(initial=0.0))

    def flow(self, L: Array) -> tuple[Array, Array, Array]:
        """H over its norm, the inverse of that norm, and h, for L of shape (n, m, c)."""
        D = _overlaps(L)
        H, value = np.zeros(D.shape), np.zeros(len(D))
        for s, component in enumerate(self.components, start=1):
            if not len(component):
                continue
            own = pulled(component, component, D)
            own = (own + own.swapaxes(1, 2)) / 2
            H += own
            value += np.einsum("nij,nij->n", own, D) / s
        norm = np.sqrt(np.einsum("nij,nij->n", H, H)) + 1e-300
        return H / norm[:, None, None], 1 / norm, value

    def split(self, P: Array) -> Array:
        """Schur factor L, (n, m, c - k), of P, (n, rank, c): what lies beside U."""
        k = self.learned.shape[1]
        turn = np.linalg.qr((self.learned.T @ P).swapaxes(1, 2), mode="complete")[0]
        return np.asarray((self.normal.T @ P @ turn)[:, :, k:])


class Turning:
    """The reduced flow where what is learned next turns the learned subspace, at once.

    For directions that grow much more slowly than the learned ones: U is kept where
    ``V^T H(G) U = 0`` for the present D, by one step of Newton's method at each evaluation, and
    moved there after each step.

    Shapes: frames (n, rank, rank), the first k columns are U.
    """

    straight = True

    def __init__(self, target: Target, frames: Array, k: int) -> None:
        self.target, self.frames, self.k = target, frames, k
        self.loss = 0.5 * target.norm**2
        self._inverse: Array | None = None

    def _push(self, D: Array, theta: Array) -> tuple[Array, Array, Array, Array]:
        """``V^T H U``, ``V^T H V``, G and the frames, with U tilted by theta, (n, m, k)."""
        k = self.k
        U, V = self.frames[:, :, :k], self.frames[:, :, k:]
        swapped = theta.swapaxes(1, 2)
        tilted = np.concatenate(
            [
                (U + V @ theta) @ _root(swapped @ theta),
                (V - U @ swapped) @ _root(theta @ swapped),
            ],
            axis=2,
        )
        U, V = tilted[:, :, :k], tilted[:, :, k:]
        G = U @ U.swapaxes(1, 2) + V @ D @ V.swapaxes(1, 2)
        H = gradient(self.target, G)
        return V.swapaxes(1, 2) @ H @ U, V.swapaxes(1, 2) @ H @ V, G, tilted

    def _theta(self, D: Array) -> Array:
        n, m, k = len(D), D.shape[1], self.k
        push = self._push(D, np.zeros((n, m, k)))[0].reshape(n, m * k, 1)
        if self._inverse is None:
            columns = []
            for entry in range(m * k):
                theta = np.zeros((n, m * k))
                theta[:, entry] = 1e-6
                moved = self._push(D, theta.reshape(n, m, k))[0].reshape(n, m * k)
                columns.append((moved - push[:, :, 0]) / 1e-6)
            self._inverse = np.linalg.pinv(np.stack(columns, axis=2), rcond=1e-6)
        return -np.asarray(self._inverse @ push).reshape(n, m, k)

    def follow(self, L: Array) -> None:
        """Move the frames to where U stands still for L, shape (n, m, c)."""
        D = _overlaps(L)
        self._inverse = None
        self.frames = self._push(D, self._theta(D))[3]

    def keep(self, going: NDArray[np.bool_]) -> None:
        """Go on with some of the runs only."""
        self.frames = self.frames[going]
        self._inverse = None if self._inverse is None else self._inverse[going]

    def flow(self, L: Array) -> tuple[Array, Array, Array]:
        """As `CriticalPoint.flow`."""
        D = _overlaps(L)
        _, H, G, _ = self._push(D, self._theta(D))
        norm = np.sqrt(np.einsum("nij,nij->n", H, H)) + 1e-300
        return H / norm[:, None, None], 1 / norm, correlation(self.target, G)


def _root(gram: Array) -> Array:
    """``(I + gram)^(-1/2)``, shape (n, k, k)."""
    values, vectors = np.linalg.eigh(gram)
    return np.asarray((vectors / np.sqrt(1 + values)[:, None, :]) @ vectors.swapaxes(1, 2))


def _overlaps(L: Array) -> Array:
    gram = np.eye(L.shape[2]) + L.swapaxes(1, 2) @ L
    return np.asarray(L @ np.linalg.solve(gram, L.swapaxes(1, 2)))


def pulled(one: Array, other: Array, D: Array) -> Array:
    """Contract two components, (features, m, ..., m), through D but on one index of each, times s.

    Shapes: D (n, m, m), from indices of `one` to those of `other`; returns (n, m, m).
    """
    s, m = one.ndim - 1, D.shape[1]
    flat, part = (np.moveaxis(each, 0, -1).reshape(1, m, -1) for each in (other, one))
    for _ in range(s - 1):
        part = (D @ part).swapaxes(1, 2).reshape(len(D), m, -1)
    # After s - 1 passes the features have come round to the last place.
    return np.asarray(s * part @ _turned(flat, s - 1, m).swapaxes(1, 2))


def _turned(flat: Array, passes: int, m: int) -> Array:
    """Put the axes of a component into the order that they have after some passes."""
    for _ in range(passes):
        flat = flat.swapaxes(1, 2).reshape(1, m, -1)
    return flat


def _component(tensors: Sequence[Array], k: int, s: int) -> Array:
    """A_s, shape (features, m, ..., m), with no more features than its Gram matrix needs."""
    m = len(tensors[1]) - k
    parts = [
        np.sqrt(comb(n, s))
        * tensors[n][(slice(None, k),) * (n - s) + (slice(k, None),) * s].reshape(-1, m**s)
        for n in range(s, len(tensors))
    ]
    flat = np.concatenate(parts)
    flat = flat[np.abs(flat).max(axis=1) > 0] if flat.size else flat[:0]
    if len(flat) > flat.shape[1]:
        flat = np.linalg.qr(flat)[1]
    return flat.reshape(-1, *(m,) * s)


def critical(target: Target, subspace: Array, iterations: int = 10) -> Array:
    """Critical subspace next to a given one, by Newton's method: it need not attract."""
    k = subspace.shape[1]
    if k in (0, target.rank):
        return subspace
    for _ in range(iterations):
        normal = complete(subspace)[:, k:]
        push = normal.T @ gradient(target, subspace @ subspace.T) @ subspace
        if np.abs(push).max() < 1e-13 * np.abs(target.coefficients).max() ** 2:
            break
        # Along a family of critical subspaces K is singular: the shortest way is taken.
        tilt = np.linalg.lstsq(-tilt_growth(target, subspace), push.ravel(), rcond=1e-6)[0]
        size = np.abs(tilt).max()
        tilt *= min(1.0, 0.1 / size) if size > 0 else 1.0
        subspace = np.linalg.qr(subspace + normal @ tilt.reshape(-1, k))[0]
    return subspace


class Stepper:
    """Dormand-Prince steps of congruence flows ``L' = H(L) L``, each run with its own step length.

    A congruence flow is ``X' = H X + X H`` with ``X = L L^T``. X spans many orders of magnitude, so
    L is kept with orthogonal columns, longest first. Errors count relative to the longer of the
    two columns they mix, so that small directions keep their own relative accuracy; those within
    what is learned already do not count. Steps are taken in units of the inverse norm of H.

    Shapes: factor (n, m, c); clock (n,); H (n, m, m).
    """

    def __init__(self, point: CriticalPoint | Turning, factor: Array, clock: Array) -> None:
        from scipy.integrate import RK45

        self._rows, self._weights, self._error = RK45.A[1:], RK45.B, RK45.E
        self._flow = point.flow
        self.factor, self.lengths, _ = graded(factor)
        self.clock = clock
        self.H, self.pace, self.h = self._flow(self.factor)
        self._step = np.full(len(factor), 0.1)

    def loss(self) -> tuple[Array, Array]:
        """Loss but for that of the point, and its slope in time, shape (n,)."""
        D = _overlaps(self.factor)
        H = self.H / self.pace[:, None, None]
        return -0.5 * self.h, -np.einsum("nij,nji->n", H - H @ D, H @ D)

    def log_odds(self) -> tuple[Array, Array]:
        """Log-odds of the overlaps, longest first, and their rates, each of shape (n, c)."""
        frame = self.factor / self.lengths[:, None, :]
        rates = 2 * np.einsum("nic,nij,njc->nc", frame, self.H, frame)
        return 2 * np.log(self.lengths), rates

    def keep(self, going: NDArray[np.bool_]) -> None:
        """Go on with some of the runs only."""
        for name in ("factor", "lengths", "H", "pace", "h", "_step", "clock"):
            setattr(self, name, getattr(self, name)[going])

    def advance(self) -> tuple[Array, Array]:
        """Try one step of each run; return its length, 0 where it is to be repeated, and time."""
        step = self._step
        h = step[:, None, None]
        slopes, paces = [self.H @ self.factor], [self.pace]
        for row in self._rows:
            # A stage of a step much too long must stay finite, for the step to be rejected.
            stage = np.clip(self.factor + h * _combine(row, slopes), -OVERSHOT, OVERSHOT)
            H, pace, _ = self._flow(stage)
            slopes.append(H @ stage)
            paces.append(pace)
        trial = self.factor + h * _combine(self._weights, slopes)
        trial = np.clip(trial, -OVERSHOT, OVERSHOT)
        H, pace, value = self._flow(trial)
        error = h * _combine(self._error, [*slopes, H @ trial])
        factor, lengths, turn = graded(trial)
        lengths = np.maximum(lengths, 1e-150)
        directions = factor / lengths[:, None, :]
        mixed = np.abs(directions.swapaxes(1, 2) @ error @ turn)
        longer = np.maximum(lengths[:, :, None], lengths[:, None, :])
        shorter = np.minimum(lengths[:, :, None], lengths[:, None, :])
        size = (mixed / (longer * (1 + np.minimum(shorter, LARGEST) ** 2))).max(axis=(1, 2))
        elapsed = step * _combine(self._weights, paces)
        late = step * np.abs(_combine(self._error, [*paces, pace]))
        late = relative(late, self.clock + elapsed)
        size = np.maximum(size, late) / RTOL
        good = size <= 1
        self._step = step * np.clip(0.9 * np.maximum(size, 1e-10) ** -0.2, 0.2, 4.0)
        capped = np.minimum(lengths, LARGEST)
        self.factor[good] = (directions * capped[:, None, :])[good]
        self.lengths[good] = capped[good]
        self.H[good], self.pace[good], self.h[good] = H[good], pace[good], value[good]
        elapsed = np.where(good, elapsed, 0.0)
        self.clock = self.clock + elapsed
        return np.where(good, step, 0.0), elapsed


def graded(factor: Array) -> tuple[Array, Array, Array]:
    """Turn the columns of P orthogonal, longest first: return ``P W``, the lengths and W."""
    left, lengths, turn = np.linalg.svd(factor, full_matrices=False)
    return left * lengths[..., None, :], lengths, turn.swapaxes(-1, -2)


def relative(error: Array, value: Array) -> Array:
    """Error over value, of times that may be near the largest of all numbers."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        ratio = np.where(value > 0, error / value, np.inf)  # rejected where time runs back
    return np.nan_to_num(ratio, nan=np.inf, posinf=np.inf)


def _combine(weights: Array, parts: Sequence[Array]) -> Array:
    return np.sum([w * part for w, part in zip(weights, parts, strict=False) if w], axis=0)  # type: ignore[no-any-return]
