"""Critical points of the planted flow: which of them hold a run for good."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ..targets.averaging import gradient
from ..targets.target import Target
from ..validation import FloatArray
from .engine.link_polynomials import link_polynomials
from .frames import FrameFlow, averages, link_of

__all__ = ["Landscape", "symmetries"]

CLOSE = 1e-3
"""Distance at which the limit of a slow approach is taken as reached."""
REACH = 0.3
"""Largest distance from a state to the critical point that is said to hold it."""
ROUNDING = 1e-12
"""Eigenvalues of the Jacobian above minus this, relative to the largest, count as not negative."""
FLAT = 1e-9
"""A rotation that changes the link by less than this, relative to the largest, is a symmetry."""


def symmetries(target: Target) -> FloatArray:
    """Return the rotations that leave a link unchanged, as a basis of their Lie algebra.

    Shapes: returns (n, rank, rank).
    """
    rank = target.rank
    skew = []
    for i, j in combinations(range(rank), 2):
        generator = np.zeros((rank, rank))
        generator[i, j], generator[j, i] = 1.0, -1.0
        skew.append(generator)
    if not skew:
        return np.zeros((0, rank, rank))
    step = 1e-3  # A_M f* is a polynomial in M: differences of its rotations are as good as exact
    basis = np.array(skew)
    change = averages(target, _rotations(step * basis)) - averages(
        target, _rotations(-step * basis)
    )
    _, sizes, right = np.linalg.svd(change.T / (2 * step))
    sizes = np.concatenate([sizes, np.zeros(len(skew) - len(sizes))])
    kept = right[sizes <= max(sizes.max() * FLAT, 1e-6 * target.norm)]
    return np.asarray(np.einsum("ng,gij->nij", kept, basis))


def _rotations(generators: FloatArray) -> FloatArray:
    from scipy.linalg import expm

    return np.array([expm(generator) for generator in generators])


class Landscape:
    r"""The planted flow of a target around a state, and where it leads."""

    def __init__(self, target: Target) -> None:
        link = link_of(target)
        self.flow = FrameFlow(link_polynomials(target, target.rank), link, 0.0, link)
        self._generators = symmetries(target)
        sizes, vectors = np.linalg.eigh(gradient(target, np.eye(target.rank)))
        unused = vectors[:, sizes <= FLAT * sizes.max()].T
        self._unused = np.einsum("na,jb->njab", unused, np.eye(target.rank))

    def linearise(self, correlation: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``M'`` and its Jacobian.

        Shapes: correlation (..., rank, rank); returns (..., rank**2), (..., rank**2, rank**2).
        """
        *shape, rank, _ = correlation.shape
        slope, jacobian = self.flow.linearise(correlation.reshape(-1, rank**2))
        return slope.reshape(*shape, -1), jacobian.reshape(*shape, rank**2, rank**2)

    def attractor(
        self, correlation: FloatArray, start: tuple[FloatArray, FloatArray] | None = None
    ) -> FloatArray | None:
        r"""Return the local maximum of :math:`\Phi = \langle f^*, A_M f^* \rangle` that holds M.

        Newton's method on the flow, started at the state. As long as every eigenvalue of the
        Jacobian (they have the signs of the Hessian on the tangent space) is negative, nothing
        leads away; where that holds all the way to a critical point near by, the flow ends there.
        Directions along which nothing changes, because a rotation leaves the link as it is, do not
        count. A degenerate maximum, such as :math:`m \to 0^-` where :math:`m' = s m^{s-1}` with
        odd s, is approached slowly also by Newton's method, but by a constant factor in each step.

        Shapes: correlation (rank, rank); start, of `linearise` if known; returns (rank, rank).
        """
        state = np.array(correlation, dtype=np.float64)
        ratio, before = 0.0, 0.0
        for iteration in range(60):
            slope, jacobian = (not iteration and start) or self.linearise(state)
            across = self._across(state)
            inner = across.T @ jacobian @ across
            values = np.linalg.eigvals(inner).real
            if not values.max() < -ROUNDING * np.abs(values).max():
                return None
            step = (-across @ np.linalg.solve(inner, across.T @ slope)).reshape(state.shape)
            length = float(np.abs(step).max())
            if not length < REACH:
                return None
            state = state + step
            if not np.abs(state - correlation).max() < REACH:
                return None
            if length < 1e-10:
                return state
            if iteration > 2 and ratio > 0.3 and length < before:
                ratio = length / before
                rest = ratio / (1 - ratio)  # of a geometric series
                if length * rest < CLOSE:
                    return state + rest * step
            ratio = length / before if before else 0.0
            before = length
        return None

    def _across(self, state: FloatArray) -> FloatArray:
        """Orthonormal basis of what decides the fate of M, as columns.

        It leaves out the orbits of the symmetries, and the overlaps with directions on which the
        link does not depend: those move nothing else.
        """
        orbits = np.concatenate([self._generators @ state, state @ self._generators])
        moves = np.concatenate(
            [orbits.reshape(-1, state.size), self._unused.reshape(-1, state.size)]
        )
        if not len(moves):
            return np.eye(state.size)
        left, sizes, _ = np.linalg.svd(moves.T)
        return np.asarray(left[:, int((sizes > FLAT).sum()) :])
