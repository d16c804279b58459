"""Gradient flow of the empirical loss of a fixed set of samples."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import validation
from ..errors import InputError
from ..schema import LEVELS
from ..targets.ladder import relevant_directions
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Problem, Swept
from .initial import frame
from .observables import CENSORED, CONVERGED, TRAPPED, overlaps
from .readout import Features
from .sampled import SampledFlow, Trajectory

MAX_BYTES = 4e9  # largest set of samples
LONGEST = 1e5  # end of the longest default time grid
SLOPES = 10  # rough number of gradients in a unit of time
FIRST_STEP = 0.1  # step that is tried first
FLAT = 1e-4  # eigenvalues of the Hessian above minus this count as not negative
VECTORS = (20, 120)  # of Lanczos' method, and of its second trial
LARGEST = 2000
"""Entries of the frame up to which the whole Hessian is taken where Lanczos' method fails."""
SHIFT = 1e-4  # length of the differences that give the Hessian
NORMAL = 10.0  # added to the Hessian on directions that only rotate the frame's basis
LOWER = 1e-9  # relative difference from which on a loss counts as lower
TOGETHER = 4096  # samples whose features are held at a time
PARTS = 8  # parts of a step between which overlaps are interpolated linearly
SHORTEST = 1e-9  # step below which a run that is not finite has failed
ROUNDING = 1e-13  # error of a step in the frame that is always accepted
PATIENCE = 10  # the search for a lower loss ends after a time of 2 to this


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
        """Raise InputError if a link of `count` features cannot be fitted."""
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
        out = self._observe(problem, runs, np.array(losses))
        for row, descent in enumerate(ends):
            if out["status"][row] == CENSORED and descent.over:
                out["status"][row] = TRAPPED if descent.is_not_global() else CONVERGED
        return out

    def _run(
        self, problem: Problem, run: int, initial: FloatArray
    ) -> tuple[Trajectory, FloatArray, Descent]:
        times, (rank, size) = len(problem.time), initial.shape
        features, key, rng = self._streams(problem, run)
        rows = frame(initial, problem.dim, rng).T
        descent = Descent(self, features, problem.target, key, rows)
        links = np.full((times, len(features.penalty)), np.nan)
        correlations = np.full((times, rank, size), np.nan)
        loss = np.full(times, np.nan)
        for index, stop in enumerate(problem.time):
            descent.follow(stop)
            if descent.failed:
                break
            links[index] = descent.link
            correlations[index] = descent.frame[:, :rank].T
            loss[index] = descent.loss()
        trajectory = Trajectory(features, links, correlations, descent.crossing, descent.steps)
        return trajectory, loss, descent


class Descent:
    """A run of the empirical flow, from a frame (q, d), the target's directions first."""

    def __init__(
        self,
        flow: Empirical,
        features: Features,
        target: Target,
        key: IntArray,
        frame: FloatArray,
    ) -> None:
        from .engine.normals import samples

        self._flow, self._features, self._rank = flow, features, target.rank
        self._learnable = min(relevant_directions(target), len(frame))
        dim = frame.shape[1]
        self.x, noise = samples(key, flow.n, dim, flow.noise > 0)
        self.labels = target(self.x[:, : target.rank].astype(np.float64)) + flow.noise * noise
        self._z = np.zeros((flow.n, len(frame)))
        self._parts = [slice(n, n + TOGETHER) for n in range(0, flow.n, TOGETHER)]
        self._start(frame)
        self.crossing = np.full((target.rank, len(LEVELS)), np.nan)
        self.crossing[self._overlaps(frame)[:, None] >= np.array(LEVELS)] = 0.0

    def _start(self, frame: FloatArray) -> None:
        self.frame, self.time, self._step = frame, 0.0, FIRST_STEP
        self._tolerance = self._flow.tolerance
        self.steps, self.failed, self.over = 0, False, False
        self._slope = self._descent(frame)

    def _overlaps(self, frames: FloatArray) -> FloatArray:
        return overlaps(frames[..., : self._rank], self._rank)

    def _descent(self, frame: FloatArray) -> FloatArray:
        """Fit the link at a frame, and return the direction of steepest descent."""
        of, n = self._features, self._flow.n
        # Normal equations of the ridge regression: (Z^T Z + n mu P) c = Z^T y.
        gram, moment = np.diag(self._flow.ridge * n * of.penalty), np.zeros(len(of.penalty))
        for part in self._parts:
            self._z[part] = self.x[part] @ frame.T
            values, _ = of.evaluate(self._z[part])
            gram += values.T @ values
            moment += values.T @ self.labels[part]
        try:
            self.link = np.asarray(np.linalg.solve(gram, moment), dtype=np.float64)
        except np.linalg.LinAlgError:
            self.link = np.full(len(moment), np.nan)
        # The link is at its optimum, so its own change with W does not enter the gradient.
        slopes, gradient = of.slopes(self.link), np.zeros(frame.shape)
        for part in self._parts:
            values, primes = of.evaluate(self._z[part])
            error = (values @ self.link - self.labels[part]) / n
            gradient += (error[:, None] * (primes @ slopes)).T @ self.x[part]
        return np.asarray((gradient @ frame.T) @ frame - gradient)

    def follow(self, stop: float) -> None:
        """Follow the flow until a time, or for good where it sits at a minimum."""
        while not self.over and self._descend(stop):
            # An eigenvalue that is not found (NaN) does not make a minimum: the run goes on.
            self.over = self.has_learned() or self.lowest_curvature() >= -FLAT
            # Not a minimum: go on until the slope is a tenth of what it is here.
            self._tolerance = 0.1 * float(np.linalg.norm(self._slope))
            if self._tolerance == 0.0:  # exactly on a saddle
                return

    def _descend(self, stop: float) -> bool:
        """Follow the flow until a time or until the gradient vanishes; tell whether it does."""
        while self.time < stop and not self.failed:
            one, start, length = self._slope, self.frame, float(np.linalg.norm(self._slope))
            if length <= self._tolerance:
                return True
            step = min(self._step, stop - self.time)
            # Bogacki and Shampine 1989, of order 3, each step followed by a QR factorisation.
            two = self._descent(start + (0.5 * step) * one)
            three = self._descent(start + (0.75 * step) * two)
            moved = start + (step / 9.0) * (2.0 * one + 3.0 * two + 4.0 * three)
            end = _orthonormal(moved) if np.isfinite(moved).all() else moved
            four = self._descent(end)
            # Difference to the embedded solution of order 2.
            error = float(np.linalg.norm(-5.0 * one + 6.0 * two + 8.0 * three - 9.0 * four)) / 72.0
            # Relative to the length of the step, however slow the flow is near a saddle.
            allowed = self._flow.accuracy * max(length, float(np.linalg.norm(four)))
            ratio = error / (allowed + ROUNDING / step)
            if not ratio < np.inf and step < SHORTEST:
                self.failed = True
                break
            # This error lacks the factor of the step, so it falls with the square of the step.
            factor = min(max(0.9 * max(ratio, 1e-6) ** -0.5, 0.2), 3.0) if ratio < np.inf else 0.2
            if not ratio <= 1.0:
                self._step = step * factor
                continue
            self.frame, self._slope = end, four
            self._watch(start, one, step)
            self.steps += 1
            if step < self._step:  # cut short by `stop`
                self.time, self._step = stop, max(self._step, step * factor)
            else:
                self.time, self._step = self.time + step, step * factor
        return not self.failed and float(np.linalg.norm(self._slope)) <= self._tolerance

    def _watch(self, start: FloatArray, slope: FloatArray, step: float) -> None:
        """Note the levels reached in a step, along the cubic through its ends and slopes."""
        # Hermite interpolation of the frame over the step.
        s = (np.arange(PARTS + 1) / PARTS)[:, None, None]
        chord = self.frame - start
        bend = (1.0 - s) * (step * slope - chord) - s * (step * self._slope - chord)
        found = self._overlaps(start + s * chord + s * (1.0 - s) * bend)
        new = np.isnan(self.crossing) & (found[1:, :, None] >= LEVELS).any(axis=0)
        for i, k in np.argwhere(new):
            part = 1 + int((found[1:, i] >= LEVELS[k]).argmax())
            before, after = found[part - 1 : part + 1, i]
            fraction = (LEVELS[k] - before) / (after - before) if before < LEVELS[k] else 1.0
            self.crossing[i, k] = self.time + step * (part - 1 + fraction) / PARTS

    def has_learned(self) -> bool:
        """Tell whether all directions that can be learned have reached the highest level."""
        return bool(np.isfinite(self.crossing[: self._learnable, -1]).all())

    def loss(self) -> float:
        """Return the empirical loss with its ridge."""
        of, total = self._features, 0.0
        for part in self._parts:
            values, _ = of.evaluate(self._z[part])
            total += float(((values @ self.link - self.labels[part]) ** 2).sum())
        return 0.5 * (total / self._flow.n + self._flow.ridge * float(of.penalty @ self.link**2))

    def lowest_curvature(self) -> float:
        """Lowest eigenvalue of the Hessian on the tangent space; NaN if it is not found."""
        from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

        frame, size = self.frame, self.frame.size

        def tangent(vector: FloatArray) -> FloatArray:
            rows = vector.reshape(frame.shape)
            return np.asarray(rows - (rows @ frame.T) @ frame)

        def shifted(vector: FloatArray) -> FloatArray:
            # A difference of gradients is the Hessian times the vector, which is never formed.
            move = SHIFT * tangent(vector)
            change = self._descent(frame - move) - self._descent(frame + move)
            along = tangent(vector).ravel()
            # The shift by 1 makes ARPACK's relative tolerance an absolute one near 0.
            return (tangent(change) / (2 * SHIFT)).ravel() + along + NORMAL * (vector - along)

        operator = LinearOperator((size, size), matvec=shifted, dtype=np.float64)
        first = tangent(np.cos(np.arange(size, dtype=np.float64))).ravel()
        settings: dict[str, Any] = {"k": 1, "which": "SA", "v0": first, "tol": FLAT}
        try:
            # Lanczos' method; where it does not converge the whole Hessian, unless it is large.
            for vectors in VECTORS:
                with suppress(ArpackNoConvergence):
                    found, _ = eigsh(operator, ncv=min(vectors, size), **settings)
                    return float(found[0]) - 1.0
            if size > LARGEST:
                return np.nan
            hessian = np.array([shifted(row) for row in np.eye(size)])
            return float(np.linalg.eigvalsh(0.5 * (hessian + hessian.T))[0]) - 1.0
        finally:
            # The differences have overwritten the link and the samples' coordinates of this frame.
            self._slope = self._descent(frame)

    def is_not_global(self) -> bool:
        """Tell whether the flow finds a lower loss from the nearest frame with overlaps of 1."""
        here, rank = self.loss(), self._rank
        # The SVD of M pairs directions of the student with the target's, which replace them.
        left, _, right = np.linalg.svd(self.frame[:, :rank].T, full_matrices=False)
        nearest = self.frame - right.T @ (right @ self.frame)
        nearest[:, :rank] += right.T @ left.T
        other = copy(self)
        # The samples are shared, but not what a descent overwrites.
        other._z, other.crossing = self._z.copy(), self.crossing.copy()
        other._start(nearest)
        for power in range(PATIENCE + 1):
            if other.loss() < (1 - LOWER) * here:
                return True
            other.follow(2.0**power)
            if other.over or other.failed:
                break
        return bool(other.loss() < (1 - LOWER) * here)


def _orthonormal(rows: FloatArray) -> FloatArray:
    """QR factorisation of the frame with these rows, with a positive diagonal."""
    Q, R = np.linalg.qr(rows.T)
    return np.asarray((Q * np.where(np.diagonal(R) < 0, -1.0, 1.0)).T)
