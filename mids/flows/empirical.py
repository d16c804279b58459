"""Gradient flow of the empirical loss of a fixed set of samples."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import validation
from ..errors import InputError
from ..schema import LEVELS
from ..targets.ladder import relevant_directions
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Problem, Swept
from .observables import CENSORED, CONVERGED, TRAPPED
from .readout import Features
from .sampled import SampledFlow, Trajectory, start

if TYPE_CHECKING:
    from .engine.features import Link

__all__ = ["Empirical"]

MAX_BYTES = 4e9
"""Largest set of samples."""
LONGEST = 1e5
"""End of the longest default time grid."""
SLOPES = 10
"""Rough number of gradients in a unit of time."""
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


@dataclass(frozen=True, kw_only=True, repr=False)
class Empirical(SampledFlow):
    r"""Gradient flow of the empirical loss on n samples, the link at its ridge regressor.

    .. math:: L_n(W) = \min_f \frac{1}{2n} \sum_i (f(W^T x_i) - y_i)^2 + \frac{\mu}{2} \|f\|^2

    The loss depends on the span of W alone (with Hermite features or a kernel), so that its
    gradient is orthogonal to W. The flow is integrated by a Runge-Kutta method of order 3 with
    steps of controlled error, until its time is over or it sits at a minimum. The paper's heuristic
    (section 5): it learns what the population flow learns once n is large against d^s, s the
    information exponent.

    A run is over where the gradient vanishes and the Hessian, on the tangent space, has no negative
    eigenvalue; saddles are passed. Where the lowest eigenvalue cannot be found the run goes on, and
    is "censored" at the end of its time. If a run is over and has not learned all directions its
    status is "trapped" if there is a lower loss, to which the flow leads from the frame with
    overlaps of 1 that is nearest, and "converged" if there is none: the samples then favour what
    was found over the target.

    The dataset's ``loss`` is the empirical objective, its ``risk`` the population's. The samples
    of a run with larger n begin with those of smaller n.

    Parameters
    ----------
    n : int
        Samples.
    accuracy : float
        Largest estimated error of a step in W, relative to the length of the step.
    tolerance : float
        The gradient counts as vanishing when its norm falls below this.
    readout, noise, ridge, degree, kernel, features, width
        As for `OnlineSGD`.

    Raises
    ------
    InputError
        If a parameter is wrong.

    Examples
    --------
    >>> import mids
    >>> flow = Empirical(n=4000, noise=0.1)
    >>> ds = mids.simulate("h2(z1)", dim=8, runs=3, flow=flow, time=[0.0, 100.0]).compute()
    >>> bool((ds.status == 0).all()), bool((ds.risk[..., -1] < 1e-3).all())
    (True, True)
    """

    name: ClassVar[str] = "empirical"
    n: int | Swept
    accuracy: float | Swept = 3e-3
    tolerance: float | Swept = 1e-6

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self._set(
            n=validation.integer(self.n, "n", at_least=1),
            accuracy=validation.number(self.accuracy, "accuracy", above=0.0, at_most=0.5),
            tolerance=validation.number(self.tolerance, "tolerance", at_least=0.0),
        )

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError if the samples are too many or the link cannot be fitted."""
        super().check(target, dims, student_rank)
        if 4 * self.n * int(dims.max()) > MAX_BYTES:
            raise InputError(
                f"n samples of length dim must fit in {MAX_BYTES / 1e9:g} GB, at 4 bytes a number, "
                f"got n={validation.shown(self.n)} of dim {dims.max()}; lower one of them"
            )

    def _check_samples(self, count: int) -> None:
        """Raise InputError if a link of so many features cannot be fitted."""
        if self.ridge == 0 and self.n < count:
            raise InputError(
                f"without ridge there must be at least as many samples as the link has features, "
                f"{count}, got n={self.n}; pass a larger n or ridge=1e-4"
            )

    def run_seconds(self, target: Target, dim: int, student_rank: int, time: FloatArray) -> float:
        """Rough work of one run in seconds."""
        count = self.link.count(target, student_rank)
        sample = 1e-9 * (dim * (0.3 + 0.4 * student_rank) + 60 * count + 0.5 * count**2)
        return float(self.n * (2e-9 * dim + sample * SLOPES * time[-1]))

    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Logarithmic grid past the last escape of a typical run, up to a time of 1e5."""
        grid = super().default_time(target, dim, student_rank, initial)
        return np.unique(np.minimum(grid, LONGEST))

    def integrate(self, problem: Problem) -> dict[str, Any]:
        """Trajectories of a block of runs."""
        runs, losses, ends = [], [], []
        for run, initial in zip(problem.runs, problem.initial, strict=True):
            trajectory, loss, descent = self._run(problem, int(run), initial)
            runs.append(trajectory)
            losses.append(loss)
            ends.append(descent)
        out = self.observe(problem, runs, np.array(losses))
        for row, descent in enumerate(ends):
            if out["status"][row] == CENSORED and descent.over:
                out["status"][row] = TRAPPED if descent.is_not_global() else CONVERGED
        return out

    def _run(
        self, problem: Problem, run: int, initial: FloatArray
    ) -> tuple[Trajectory, FloatArray, Descent]:
        from .engine.features import Link

        target, dim, times = problem.target, problem.dim, len(problem.time)
        rank, size = initial.shape
        features, key, rng = self.streams(problem, run)
        link = Link(target.modes, target.coefficients, self.noise)
        arrays = start(features, initial, dim, self.noise, rng)
        learnable = min(relevant_directions(target), size)
        descent = Descent(self, features, link, key, arrays, learnable)
        links = np.full((times, len(features.penalty)), np.nan)
        correlations = np.full((times, rank, size), np.nan)
        loss = np.full(times, np.nan)
        for index, stop in enumerate(problem.time):
            descent.follow(stop)
            state = descent.state
            if state.used[1]:
                break
            links[index] = state.link
            correlations[index] = state.frame[:, :rank].T
            loss[index] = descent.loss()
        trajectory = Trajectory(features, links, correlations, state.crossing, int(state.used[0]))
        return trajectory, loss, descent


class Descent:
    """A run of the empirical flow.

    Shapes: key (2,).
    """

    def __init__(
        self,
        flow: Empirical,
        features: Features,
        link: Link,
        key: IntArray,
        arrays: Mapping[str, Any],
        learnable: int,
    ) -> None:
        from .engine.offline import Samples, draw_samples
        from .engine.sampled import State, watch

        self._flow, self._features, self._learnable = flow, features, learnable
        size, width = arrays["gradient"].shape
        self.state = State(**{**arrays, "gradient": np.zeros((size, width))})
        n, dim = flow.n, self.state.frame.shape[1]
        x, labels = np.zeros((n, width), dtype=np.float32), np.zeros(n)
        draw_samples(link, key, dim, x, labels)
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
        from .engine.offline import descent

        slope = np.zeros_like(frame)
        descent(self._features, self._flow.ridge, self._samples, self.state, frame, slope)
        return slope

    def follow(self, stop: float) -> None:
        """Follow the flow until a time, or for good where it sits at a minimum."""
        from .engine.offline import descend

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
        from .engine.offline import objective

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
        other.state = type(self.state)(*(array.copy() for array in self.state))
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
