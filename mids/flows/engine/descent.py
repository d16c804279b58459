"""A run on a fixed set of samples: where it is, and at what kind of critical point it ends."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ...schema import LEVELS
from ...validation import FloatArray, IntArray
from ..readout import Features
from .features import Link
from .offline import Samples, descend, descent, draw_samples, objective
from .sampled import State, watch

if TYPE_CHECKING:
    from ..empirical import Empirical

__all__ = ["Descent"]

FIRST_STEP = 0.1
"""Step that is tried first."""
FLAT = 1e-4
"""Eigenvalues of the Hessian above minus this count as not negative."""
VECTORS = (20, 120)
"""Of Lanczos' method, and of its second trial."""
LARGEST = 2000
"""Entries of the frame up to which the whole Hessian is taken where Lanczos' method fails."""
SHIFT = 1e-4
"""Length of the differences that give the Hessian."""
NORMAL = 10.0
"""What the Hessian is given, besides 1, on directions that change nothing but the frame's basis."""
LOWER = 1e-9
"""A loss counts as lower where it is so by this, relatively."""
PATIENCE = 10
"""The search for a lower loss ends after a time of 2 to this."""


class Descent:
    """A run of the empirical flow.

    Shapes: key (2,).
    """

    def __init__(
        self,
        flow: Empirical,
        features: Features,
        target: Link,
        key: IntArray,
        arrays: Mapping[str, Any],
        learnable: int,
    ) -> None:
        self._flow, self._features, self._learnable = flow, features, learnable
        size, width = arrays["gradient"].shape
        self.state = State(**{**arrays, "gradient": np.zeros((size, width))})
        n, dim = flow.n, self.state.frame.shape[1]
        x, labels = np.zeros((n, width), dtype=np.float32), np.zeros(n)
        draw_samples(target, key, dim, x, labels)
        room = np.zeros((2, size, width))
        self._samples = Samples(x, labels, np.zeros((n, size)), room[0], room[1])
        self._begin()
        watch(0.0, 0.0, np.array(LEVELS), self.state)

    def _begin(self) -> None:
        self._clock = np.array([0.0, FIRST_STEP])
        self._tolerance = self._flow.tolerance
        self._slope = self._descent(self.state.frame)
        self.over = False

    def _descent(self, frame: FloatArray) -> FloatArray:
        slope = np.zeros_like(frame)
        descent(self._features, self._flow.ridge, self._samples, self.state, frame, slope)
        return slope

    def follow(self, stop: float) -> None:
        """Follow the flow until a time, or for good where it sits at a minimum."""
        while not self.over and descend(
            self._features,
            self._flow.ridge,
            self._flow.accuracy,
            self._tolerance,
            np.array(LEVELS),
            self._samples,
            self.state,
            self._clock,
            self._slope,
            float(stop),
        ):
            # An eigenvalue that is not found (NaN) does not make a minimum: the run goes on.
            self.over = self.has_learned() or self.lowest_curvature() >= -FLAT
            self._tolerance = 0.1 * float(np.linalg.norm(self._slope))
            if self._tolerance == 0.0:  # exactly on a saddle
                return

    def has_learned(self) -> bool:
        """Tell whether all directions that can be learned have reached the highest level."""
        return bool(np.isfinite(self.state.crossing[: self._learnable, -1]).all())

    def loss(self) -> float:
        """Return the empirical loss with its ridge."""
        samples, link = self._samples, self.state.link
        return float(objective(self._features, self._flow.ridge, samples.labels, samples.z, link))

    def lowest_curvature(self) -> float:
        """Lowest eigenvalue of the Hessian on the tangent space.

        It is found by Lanczos' method, and where that does not converge from the whole Hessian,
        unless it is large.
        """
        from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

        frame = self.state.frame
        size = frame.size

        def tangent(vector: FloatArray) -> FloatArray:
            rows = vector.reshape(frame.shape)
            return np.asarray(rows - (rows @ frame.T) @ frame)

        def shifted(vector: FloatArray) -> FloatArray:
            move = SHIFT * tangent(vector)
            change = self._descent(frame - move) - self._descent(frame + move)
            along = tangent(vector).ravel()
            return (tangent(change) / (2 * SHIFT)).ravel() + along + NORMAL * (vector - along)

        operator = LinearOperator((size, size), matvec=shifted, dtype=np.float64)
        first = tangent(np.cos(np.arange(size, dtype=np.float64))).ravel()
        settings: dict[str, Any] = {"k": 1, "which": "SA", "v0": first, "tol": FLAT}
        try:
            for vectors in VECTORS:
                with suppress(ArpackNoConvergence):
                    found, _ = eigsh(operator, ncv=min(vectors, size), **settings)
                    return float(found[0]) - 1.0
            if size > LARGEST:
                return np.nan
            hessian = np.array([shifted(row) for row in np.eye(size)])
            return float(np.linalg.eigvalsh(0.5 * (hessian + hessian.T))[0]) - 1.0
        finally:
            self._slope = self._descent(frame)

    def is_not_global(self) -> bool:
        """Tell whether the flow finds a lower loss from the nearest frame with overlaps of 1."""
        here = self.loss()
        rank = self.state.previous.shape[1]
        left, _, right = np.linalg.svd(self.state.frame[:, :rank].T, full_matrices=False)
        other = copy(self)
        other.state = State(*(array.copy() for array in self.state))
        frame = self.state.frame - right.T @ (right @ self.state.frame)
        frame[:, :rank] += right.T @ left.T
        other.state.frame[:] = frame
        other.state.used[:] = 0
        other._begin()
        for power in range(PATIENCE + 1):
            if other.loss() < (1 - LOWER) * here:
                return True
            other.follow(2.0**power)
            if other.over or other.state.used[1]:
                break
        return bool(other.loss() < (1 - LOWER) * here)
