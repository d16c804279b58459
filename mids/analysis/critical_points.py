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
from numpy.typing import NDArray

from ..targets.averaging import gradient, loss
from ..targets.ladder import TOLERANCE, complete, tilt_growth
from ..targets.polynomial import polynomial, substitute
from ..targets.target import Target

__all__ = ["CriticalPoint", "critical"]

Array = NDArray[np.float64]

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
        learned = critical(target, subspace)
        k = learned.shape[1]
        frame = complete(learned)
        rates: Array = np.linalg.eigvalsh(tilt_growth(target, learned)).astype(np.float64)
        table, coefficients = polynomial(target)
        coefficients = substitute(table, coefficients, frame)
        degree = table.modes[:, k:].sum(axis=1)
        sizes = np.sqrt(np.bincount(degree, table.weight * coefficients**2))
        floor = TOLERANCE * float(np.sqrt(np.sum(sizes**2)))
        exponent = next((s for s in range(1, len(sizes)) if sizes[s] > floor), None)
        least = len(sizes) if exponent is None else exponent
        kept = (degree == least) if leading else (degree >= least)
        coefficients = np.where(kept, coefficients, 0.0)
        scale = float(np.sum(target.coefficients**2 * target.modes.sum(axis=1)))
        level = float(loss(target, learned @ learned.T))
        return cls(
            learned, frame[:, k:], level, exponent, coefficients, rates, 1e-7 * scale, target
        )

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
