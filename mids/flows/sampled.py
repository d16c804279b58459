"""What flows on samples have in common: how the link is fitted, and what is observed of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _validate
from .._validate import FloatArray, IntArray
from ..errors import InputError
from ..operators import energy
from ..schema import LEVELS
from ..targets import Target
from .base import Flow
from .kernel import HermiteKernel
from .readout import Features, Readout
from .time_grid import beyond_escapes

__all__ = ["DATA", "FEATURES", "FRAME", "SampledFlow", "Trajectory"]

FRAME, DATA, FEATURES = 1, 2, 3
"""Branches of a run's random stream for what W(0) has besides M(0), samples, random features."""

MAX_DIM = 10**6
"""Samples and frames have this many entries."""
MOST_STEPS = 10**6
"""Steps of the longest default time grid."""


@dataclass(frozen=True)
class Trajectory:
    """What is kept of a run, at each time of the grid; NaN after a failure.

    Attributes
    ----------
    features : Features
        Those of the run's links.
    links : (T, P) float array
        Coefficients of the link.
    correlations : (T, r, q) float array
        Correlation matrices M.
    crossing : (r, levels) float array
        Crossing times.
    steps : int
        Steps done.
    """

    features: Features
    links: FloatArray
    correlations: FloatArray
    crossing: FloatArray
    steps: int


@dataclass(frozen=True, kw_only=True)
class SampledFlow(Flow):
    """Descent on samples ``x ~ N(0, I_d)`` with labels ``F*(x) + noise`` and a fitted link.

    Subclasses say which samples. `mids.flows.readout` has the links.

    Parameters
    ----------
    step : float
        Step of the descent on W, at most 1.
    readout : str
        ``"hermite-ridge"`` or ``"random-features"``.
    noise : float
        Standard deviation of the noise on the labels.
    ridge : float
        Regularisation mu of the link.
    degree : int, optional
        Highest degree of the Hermite features; the target's if not given.
    kernel : HermiteKernel or mapping, optional
        Eigenvalues ``q_k`` that weigh the ridge of Hermite features; all 1 if not given.
    features : int
        Number of random features.
    width : float
        Width of the Gaussian kernel of the random features.
    """

    step: float = 0.01
    readout: str = "hermite-ridge"
    noise: float = 0.0
    ridge: float = 1e-4
    degree: int | None = None
    kernel: HermiteKernel | None = None
    features: int = 128
    width: float = 1.5

    def __post_init__(self) -> None:
        """Check the parameters."""
        kernel = self.kernel
        if isinstance(kernel, Mapping):
            kernel = HermiteKernel.from_dict(kernel)
        self._set(
            step=_validate.number(self.step, "step", above=0.0, at_most=1.0),
            noise=_validate.number(self.noise, "noise", at_least=0.0),
            ridge=_validate.number(self.ridge, "ridge", at_least=0.0),
            degree=None
            if self.degree is None
            else _validate.integer(self.degree, "degree", at_least=1),
            kernel=kernel,
            features=_validate.integer(self.features, "features", at_least=1),
            width=_validate.number(self.width, "width", above=0.0),
        )
        self.link  # noqa: B018 (checks them together)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def link(self) -> Readout:
        """How the link is fitted."""
        names = [field.name for field in dataclasses.fields(Readout)]
        return Readout(**{name: getattr(self, name) for name in names})

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters in types that JSON knows.

        Returns
        -------
        dict
        """
        kernel = None if self.kernel is None else self.kernel.to_dict()
        return {**super().to_dict(), "kernel": kernel}

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError if samples are too long or the link cannot be fitted.

        Parameters
        ----------
        target : Target
        dims : (n,) int array
        student_rank : int
        """
        if dims.max() > MAX_DIM:
            raise InputError(
                f"the flow {self.name!r} draws samples of length dim, which must be at most "
                f"{MAX_DIM}, got {dims.max()}; the flow 'two-timescale' has no such limit"
            )
        self.effective_target(target)
        self._check_samples(self.link.count(target, student_rank))

    def _check_samples(self, count: int) -> None:
        """Raise InputError if a link of so many features cannot be fitted."""
        raise NotImplementedError

    def effective_target(self, target: Target) -> Target:
        """Target whose correlation the population flow climbs (`Readout.effective_target`).

        Parameters
        ----------
        target : Target

        Returns
        -------
        Target
        """
        return self.link.effective_target(target)

    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Logarithmic grid of whole steps past the last escape of a typical run.

        It has at most a million steps: pass ``time`` for longer runs.

        Parameters
        ----------
        target : Target
        dim : int
        student_rank : int
        initial : ndarray, shape (..., rank, student_rank), optional

        Returns
        -------
        (n,) float array
        """
        climbed = self.effective_target(target)
        grid = beyond_escapes(climbed, dim, student_rank, initial, late=0.5)
        steps = np.unique(np.minimum(np.ceil(grid / self.step), MOST_STEPS))
        return steps * self.step

    def steps(self, time: FloatArray) -> IntArray:
        """Return the steps done by each time; a time that is a whole number of steps has them all.

        Parameters
        ----------
        time : (n,) float array

        Returns
        -------
        (n,) int array
        """
        return np.floor(time / self.step * (1 + 1e-12) + 1e-9).astype(np.int64)

    def variables(self, target: Target) -> tuple[str, ...]:
        """Names of the schema's variables that `integrate` returns.

        Parameters
        ----------
        target : Target

        Returns
        -------
        tuple of str
        """
        return (
            "loss",
            "risk",
            "overlap",
            "energy",
            "gram0",
            "crossing_time",
            "stage_duration",
            "status",
            "n_steps",
        )

    def observe(self, target: Target, run: Trajectory) -> dict[str, Any]:
        """Return the schema's variables of one run.

        Parameters
        ----------
        target : Target
        run : Trajectory

        Returns
        -------
        dict of str to array
            Without the axes ``dim`` and ``run``.
        """
        M, climbed = run.correlations, self.effective_target(target)
        times, rank, size = M.shape
        known = np.isfinite(M).all(axis=(1, 2))
        out = {
            "loss": np.full(times, np.nan),
            "risk": np.full(times, np.nan),
            "overlap": np.full((times, rank), np.nan),
            "energy": np.full((times, len(target.modes)), np.nan),
        }
        links, M = run.links[known], M[known]
        gram = M @ M.swapaxes(1, 2)
        out["risk"][known] = self.link.risk(target, run.features, links, M)
        out["loss"][known] = self.link.objective(run.features, links, out["risk"][known])
        out["overlap"][known] = 0.0
        singular = np.linalg.svd(M, compute_uv=False)
        out["overlap"][known, : min(rank, size)] = np.minimum(singular, 1.0) ** 2
        modes = {tuple(beta): j for j, beta in enumerate(target.modes.tolist())}
        columns = [modes[tuple(beta)] for beta in climbed.modes.tolist()]
        energies = np.zeros((len(M), len(modes)))
        energies[:, columns] = energy(climbed, gram)
        out["energy"][known] = energies
        half = run.crossing[:, LEVELS.index(0.5)]
        learned = bool(np.isfinite(half[: min(rank, size)]).all())
        return {
            **out,
            "gram0": run.correlations[0] @ run.correlations[0].T,
            "crossing_time": run.crossing,
            "stage_duration": np.diff(half, prepend=0.0),
            "status": np.int8(3 if not known.all() else 0 if learned else 1),
            "n_steps": run.steps,
        }
