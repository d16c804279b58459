"""Gradient descent on the empirical loss of a fixed set of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import _validate
from .._validate import FloatArray, IntArray
from ..errors import InputError
from ..schema import LEVELS
from ..targets import Target
from .base import Problem
from .observables import CENSORED, TRAPPED
from .sampled import SampledFlow, Trajectory, start

__all__ = ["Empirical"]

MAX_BYTES = 4e9
"""Largest set of samples."""


@dataclass(frozen=True, kw_only=True)
class Empirical(SampledFlow):
    r"""Gradient flow of the empirical loss on n samples, the link at its ridge regressor.

    .. math:: L_n(W) = \min_f \frac{1}{2n} \sum_i (f(W^T x_i) - y_i)^2 + \frac{\mu}{2} \|f\|^2

    The loss depends on the span of W alone (with Hermite features or a kernel), so that its
    gradient is orthogonal to W; the flow is followed by gradient steps with QR retraction until it
    is over or the gradient vanishes. The paper's heuristic (section 5): it learns what the
    population flow learns once n is large against d^s, s the information exponent.

    The dataset's ``loss`` is the empirical objective, its ``risk`` the population's. The samples
    of a run with larger n begin with those of smaller n.

    Parameters
    ----------
    n : int
        Samples.
    tolerance : float
        A run is over when the norm of the gradient falls below this. If it has not learned all
        directions by then its status is "trapped".
    step, readout, noise, ridge, degree, kernel, features, width
        As for `OnlineSGD`; the default step is 0.1.

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
    n: int
    step: float = 0.1
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self._set(
            n=_validate.integer(self.n, "n", at_least=1),
            tolerance=_validate.number(self.tolerance, "tolerance", at_least=0.0),
        )

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError if the samples are too many or the link cannot be fitted.

        Parameters
        ----------
        target : Target
        dims : (n,) int array
        student_rank : int
        """
        super().check(target, dims, student_rank)
        if 4.0 * self.n * int(dims.max()) > MAX_BYTES:
            raise InputError(
                f"n samples of length dim must fit in {MAX_BYTES / 1e9:g} GB, got n={self.n} of "
                f"dim {dims.max()}, {4e-9 * self.n * int(dims.max()):.3g} GB; lower one of them"
            )

    def _check_samples(self, count: int) -> None:
        """Raise InputError if a link of so many features cannot be fitted."""
        if self.ridge == 0 and self.n < count:
            raise InputError(
                f"without ridge there must be at least as many samples as the link has features, "
                f"{count}, got n={self.n}; pass a larger n or ridge=1e-4"
            )

    def run_seconds(self, target: Target, dim: int, student_rank: int, time: FloatArray) -> float:
        """Rough work of one run in seconds.

        Parameters
        ----------
        target : Target
        dim : int
        student_rank : int
        time : (n,) float array

        Returns
        -------
        float
        """
        count = self.link.count(target, student_rank)
        sample = 1e-9 * (dim * (0.3 + 0.4 * student_rank) + 60 * count + 0.5 * count**2)
        return float(self.n * (2e-9 * dim + sample * self.steps(time)[-1]))

    def integrate(self, problem: Problem) -> dict[str, Any]:
        """Trajectories of a block of runs.

        Parameters
        ----------
        problem : Problem

        Returns
        -------
        dict of str to array
            The schema's variables without the axis ``dim``.
        """
        runs, losses, over = [], [], []
        for run, initial in zip(problem.runs, problem.initial, strict=True):
            trajectory, loss, stationary = self._run(problem, int(run), initial)
            runs.append(trajectory)
            losses.append(loss)
            over.append(stationary)
        out = self.observe(problem, runs, np.array(losses))
        out["status"][np.array(over) & (out["status"] == CENSORED)] = TRAPPED
        return out

    def _run(
        self, problem: Problem, run: int, initial: FloatArray
    ) -> tuple[Trajectory, FloatArray, bool]:
        from ._features import Link
        from ._offline import descend, draw_samples, objective, refit
        from ._sampled import State, watch

        target, dim, times = problem.target, problem.dim, len(problem.time)
        rank, size = initial.shape
        levels = np.array(LEVELS)
        features, key, rng = self.streams(problem, run)
        arrays = start(features, initial, dim, self.noise, rng)
        arrays["gradient"] = arrays["gradient"].astype(np.float64)
        state = State(**arrays)
        x = np.zeros((self.n, state.gradient.shape[1]), dtype=np.float32)
        labels, z = np.zeros(self.n), np.zeros((self.n, size))
        wide = np.zeros_like(state.gradient)
        link = Link(target.modes, target.coefficients, self.noise)
        draw_samples(link, key, dim, x, labels)
        refit(features, self.ridge, x, labels, wide, z, state)
        watch(0.0, 0.0, levels, state)

        links = np.full((times, len(features.penalty)), np.nan)
        correlations = np.full((times, rank, size), np.nan)
        loss = np.full(times, np.nan)
        stationary = False
        for index, stop in enumerate(self.steps(problem.time)):
            if not stationary:
                stationary = descend(
                    features,
                    self.ridge,
                    self.step,
                    self.tolerance,
                    levels,
                    x,
                    labels,
                    wide,
                    z,
                    state,
                    stop,
                )
            if state.used[1]:
                break
            links[index] = state.link
            correlations[index] = state.frame[:, :rank].T
            loss[index] = objective(features, self.ridge, labels, z, state.link)
        trajectory = Trajectory(features, links, correlations, state.crossing, int(state.used[0]))
        return trajectory, loss, stationary
