r"""Critical subspaces, and the flow reduced to what is not learned there.

At a critical subspace U of rank k, with a basis V of its complement, a run whose learned odds are
infinite has :math:`G = P_U + V D V^T`, and what is left of the flow is of the same kind with fewer
directions,

.. math:: L' = H_U(D) L, \qquad D = Y (I + Y)^{-1}, \qquad Y = L L^T, \qquad
          H_U = \nabla_D h(P_U + V D V^T).

The parts of h of a degree in D below the exponent of U vanish, and are left out, so that small D
keep their relative accuracy. Y at the beginning is the Schur complement of X with respect to U. U
is taken to stand still: what turns it is of the order of ``D^s``, the square of which counts
(`CriticalPoint.straight` where it vanishes).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..targets.averaging import gradient, loss
from ..targets.polynomial import Monomials, criticals, polynomial
from ..targets.subspaces import TOLERANCE, complete, tilt_growth
from ..targets.target import Target
from ..validation import FloatArray as Array

TRACE = 5e-5
"""Change of the logarithm of Y by a tilt that dies out, up to which the tilt is left out."""
NEAR = 1e-6
"""Tangent of the angle within which two subspaces are the same critical one."""


@dataclass(eq=False)
class CriticalPoint:
    """A critical subspace and the flow around it.

    Shapes: learned (rank, k); normal (rank, m); coefficients (n,), of the polynomial in the frame
    of both, as far as it takes part.
    """

    learned: Array
    normal: Array
    loss: float
    exponent: int | None
    coefficients: Array
    rates: Array  # of tilts, ascending
    neutral: float  # below which a rate counts as zero
    target: Target

    @classmethod
    def near(cls, target: Target, subspace: Array, *, leading: bool = False) -> CriticalPoint:
        """Analyse the critical subspace next to one that is nearly critical."""
        k = subspace.shape[1]
        U = critical(target, subspace)
        # One basis, wherever the search began: no run's numbers depend on another run.
        learned = np.linalg.eigh(np.round(U @ U.T, 12))[1][:, target.rank - k :]
        frame = complete(learned)
        rates: Array = np.linalg.eigvalsh(tilt_growth(target, learned)).astype(np.float64)
        table, coefficients = polynomial(target)
        coefficients = table.substitute(coefficients[:, None], frame[None])
        degree = table.modes[:, k:].sum(axis=1)
        exponent = _exponents(table, coefficients, k)[0]
        kept = (degree == exponent) if leading else (degree >= exponent)
        coefficients = coefficients[:, 0]
        coefficients = np.where(kept, coefficients, 0.0)
        scale = float(np.sum(target.coefficients**2 * target.modes.sum(axis=1)))
        level = float(loss(target, learned @ learned.T))
        known = int(exponent) if exponent <= degree.max() else None
        return cls(learned, frame[:, k:], level, known, coefficients, rates, 1e-7 * scale, target)

    @cached_property
    def frame(self) -> Array:
        """Basis (rank, rank) of both."""
        return np.concatenate([self.learned, self.normal], axis=1)

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

    @cached_property
    def basin(self) -> float:
        """Largest tilt that dies out without a trace; 0 if some do not, however small."""
        k, scale = self.learned.shape[1], self.neutral / 1e-7
        # What a tilt that dies out at a rate K changes meanwhile is of order theta^2 / K.
        slow = -self.rates[self.rates < -self.neutral]
        most = min(0.1, float(np.sqrt(TRACE * slow.min(initial=scale) / scale)))
        modes = np.linalg.eigh(tilt_growth(self.target, self.learned))[1]
        modes = modes[:, self.rates > -0.01 * scale].T.reshape(-1, self.normal.shape[1], k)
        if not modes.size:
            return most
        for size in (0.1, 0.03, 0.01, 0.003):  # where rates nearly vanish higher orders count
            theta = size * np.concatenate([modes, -modes])
            losses = []
            for part in (0.9, 1.0):
                U = np.linalg.qr(self.learned + part * (self.normal @ theta))[0]
                losses.append(loss(self.target, U @ U.swapaxes(1, 2)))
            if (losses[1] >= losses[0] - 1e-13 * scale).all():
                return min(size, most)
        return 0.0

    def tilts(self, subspaces: Array) -> Array:
        """Largest entry of theta for subspaces ``U + V theta``; inf for those far away."""
        onto, off = self.learned.T @ subspaces, self.normal.T @ subspaces
        far = np.abs(np.linalg.det(onto)) < 0.1
        onto = np.where(far[..., None, None], np.eye(onto.shape[-1]), onto)
        theta = np.linalg.solve(onto.swapaxes(-1, -2), off.swapaxes(-1, -2))
        return np.where(far, np.inf, np.abs(theta).max(axis=(-2, -1), initial=0.0))

    def tilt(self, subspace: Array) -> float:
        """`tilts` of one."""
        return float(self.tilts(subspace)) if subspace.shape == self.learned.shape else np.inf

    def split(self, P: Array) -> Array:
        """Schur factor L, (n, m, c - k), of P, (n, rank, c): what lies beside U."""
        k = self.learned.shape[1]
        turn = np.linalg.qr((self.learned.T @ P).swapaxes(1, 2), mode="complete")[0]
        return np.asarray((self.normal.T @ P @ turn)[:, :, k:])


def critical(target: Target, subspace: Array, iterations: int = 10) -> Array:
    """Critical subspace next to a given one, by Newton's method: it need not attract."""
    k = subspace.shape[1]
    if k in (0, target.rank):
        return subspace
    return criticals(*polynomial(target), complete(subspace)[None], k, iterations)[0, :, :k]


def critical_values(target: Target, frames: Array, k: int) -> tuple[Array, Array]:
    """Exponents, NaN if nothing is left to learn, and losses of critical subspaces next to some.

    Shapes: frames (n, rank, >= k), whose first k columns span them; returns (n,), (n,).
    """
    table, coefficients = polynomial(target)
    whole = np.linalg.qr(frames[:, :, :k], mode="complete")[0]
    if 0 < k < target.rank:
        whole = criticals(table, coefficients, whole, k, 12)
    exponents = _exponents(table, table.substitute(coefficients[:, None], whole), k)
    U = whole[:, :, :k]
    exponents = np.where(exponents <= max(table.degrees), exponents, np.nan)
    return exponents, loss(target, U @ U.swapaxes(1, 2))


def _exponents(table: Monomials, coefficients: Array, k: int) -> Array:
    """Least degrees in the variables from k on, one more than any degree if there is none.

    Shapes: coefficients (n, runs).
    """
    degree = table.modes[:, k:].sum(axis=1)
    parts = table.weight[:, None] * coefficients**2
    sizes = np.stack([parts[degree == s].sum(axis=0) for s in range(max(table.degrees) + 1)])
    floor = TOLERANCE**2 * sizes.sum(axis=0)
    seen = np.concatenate([sizes[1:] > floor, np.ones((1, sizes.shape[1]), dtype=bool)])
    return np.asarray(1.0 + seen.argmax(axis=0))
