"""What flows on samples have in common: how links are fitted, what is observed, steps and times."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import validation
from ..errors import InputError
from ..schema import LEVELS
from ..targets.basis import by_mode
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Flow, Problem, Swept
from .initial import frame, stream
from .observables import observables
from .readout import Features, Readout
from .ridge import HermiteKernel, as_kernel
from .time_grid import beyond_escapes

FRAME, DATA, FEATURES = 1, 2, 3  # branches of the streams: W(0) beside M(0), samples, features
MAX_DIM = 10**6  # samples and frames have this many entries
MOST_STEPS = 10**6  # steps of the longest default time grid
MOST_SAMPLES = 2**62  # samples of a run, which have numbers below this


@dataclass(frozen=True)
class Trajectory:
    """What is kept of a run: links (T, P), correlations (T, r, q); NaN after a failure."""

    features: Features
    links: FloatArray
    correlations: FloatArray
    crossing: FloatArray
    steps: int


def start(
    features: Features, initial: FloatArray, dim: int, noise: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Arrays of `mids.flows.engine.sampled.State` before the first sample; initial (r, q)."""
    from .engine.normals import padded

    rank, size = initial.shape
    rows = np.ascontiguousarray(frame(initial, dim, rng).T)
    count = len(features.penalty)
    return {
        "used": np.zeros(2, dtype=np.int64),
        "frame": rows,
        "gradient": np.zeros((size, padded(dim + (noise > 0))), dtype=np.float32),
        "link": np.zeros(count),
        "gram": np.zeros((count, count)),
        "moment": np.zeros(count),
        "weight": np.zeros(1),
        "previous": rows[:, :rank].copy(),
        "reference": rows[:, :rank].copy(),
        "margin": np.zeros(1),
        "crossing": np.full((rank, len(LEVELS)), np.nan),
    }


@dataclass(frozen=True, kw_only=True, repr=False)
class SampledFlow(Flow):
    """Descent on samples ``x ~ N(0, I_d)`` with labels ``F*(x) + noise`` and a fitted link.

    Subclasses say which samples. `mids.flows.readout` has the links.
    """

    readout: str | Swept = "hermite-ridge"
    noise: float | Swept = 0.0
    ridge: float | Swept = 1e-4
    degree: int | Swept | None = None
    kernel: HermiteKernel | Swept | None = None
    features: int | Swept = 128
    width: float | Swept = 1.5

    def __post_init__(self) -> None:
        """Check the parameters."""
        self._set(
            noise=validation.number(self.noise, "noise", at_least=0.0),
            ridge=validation.number(self.ridge, "ridge", at_least=0.0),
            degree=None
            if self.degree is None
            else validation.integer(self.degree, "degree", at_least=1),
            kernel=as_kernel(self.kernel),
            features=validation.integer(self.features, "features", at_least=1),
            width=validation.number(self.width, "width", above=0.0),
        )
        unused = self.link.unused  # the link checks its parameters together
        for f in dataclasses.fields(self):
            if f.name in unused and getattr(self, f.name) != f.default:
                raise InputError(
                    f"{f.name}={getattr(self, f.name)!r} has no meaning for the readout "
                    f"{self.readout!r}; leave it out, or pass readout='random-features'"
                )

    @property
    def link(self) -> Readout:
        """How the link is fitted.

        Examples
        --------
        >>> from mids.flows import OnlineSGD
        >>> OnlineSGD(ridge=0.1).link.ridge
        0.1
        """
        names = [field.name for field in dataclasses.fields(Readout)]
        return Readout(**{name: getattr(self, name) for name in names})

    def __repr__(self) -> str:
        """Show the parameters, of the link's only those that its readout has."""
        names = [field.name for field in dataclasses.fields(self)]
        unused = self.link.unused
        shown = [f"{name}={getattr(self, name)!r}" for name in names if name not in unused]
        return f"{type(self).__name__}({', '.join(shown)})"

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters in types that JSON knows, of the link's those of its readout."""
        unused = self.link.unused
        return {name: v for name, v in super().to_dict().items() if name not in unused}

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError if samples are too long or the link cannot be fitted."""
        if dims.max() > MAX_DIM:
            raise InputError(
                f"the flow {self.name!r} draws samples of length dim, which must be at most "
                f"{MAX_DIM}, got {dims.max()}; the flow 'two-timescale' has no such limit"
            )
        self.effective_target(target)
        self._check_samples(self.link.count(target, student_rank))

    @abstractmethod
    def _check_samples(self, count: int) -> None:
        """Raise InputError if a link of `count` features cannot be fitted."""

    def effective_target(self, target: Target) -> Target:
        """Target whose correlation the population flow climbs (`Readout.effective_target`).

        Examples
        --------
        >>> from mids import Target
        >>> from mids.flows import OnlineSGD
        >>> OnlineSGD(ridge=0.0).effective_target(Target.parse("h2(z1)")).labels
        ('h2(z1)',)
        """
        return self.link.effective_target(target)

    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Logarithmic grid past the last escape of a typical run."""
        climbed = self.effective_target(target)
        return beyond_escapes(climbed, dim, student_rank, initial, late=0.5)

    def _streams(
        self, problem: Problem, run: int
    ) -> tuple[Features, IntArray, np.random.Generator]:
        """Return the features of a run, the key of its samples and the stream of its frame."""
        frame, data, features = (
            stream(problem.seed, problem.dim, run, branch) for branch in (FRAME, DATA, FEATURES)
        )
        built = self.link.build(problem.target, problem.initial.shape[2], features)
        return built, data.integers(2**32, size=2, dtype=np.uint64), frame

    def variables(self, target: Target) -> tuple[str, ...]:
        """Those of every flow without M(0) and evaluations; also risk, link and stage durations."""
        usual = (*super().variables(target), "risk", "link", "stage_duration")
        return tuple(name for name in usual if name not in ("initial", "n_rhs"))

    def _observe(
        self, problem: Problem, runs: Sequence[Trajectory], loss: FloatArray | None = None
    ) -> dict[str, Any]:
        """Return the schema's variables of a block of runs; loss (runs, T)."""
        target, climbed = problem.target, self.effective_target(problem.target)
        risk = np.full((len(runs), len(problem.time)), np.nan)
        objective = np.full_like(risk, np.nan)
        link = np.full((*risk.shape, len(target.modes)), np.nan)
        for row, run in enumerate(runs):
            done = np.isfinite(run.correlations).all(axis=(1, 2))
            links = run.links[done]
            risk[row, done] = self.link.risk(target, run.features, links, run.correlations[done])
            link[row, done] = self.link.on_modes(
                target, run.features, links, run.correlations[done]
            )
            objective[row, done] = self.link.objective(run.features, links, risk[row, done])
        crossing = np.array([run.crossing for run in runs])
        failed = np.isnan(risk).any(axis=1)
        counts = np.array([[run.steps, 0] for run in runs])
        out = observables(
            problem, np.array([run.correlations for run in runs]), crossing, failed, counts
        )
        # h(G) of the target that is climbed: each mode of the target weighted, or absent.
        kept = by_mode(climbed.modes, climbed.coefficients)
        weighted = [kept.get(tuple(beta), 0.0) for beta in target.modes.tolist()]
        out["energy"] *= (np.array(weighted) / target.coefficients) ** 2
        half = crossing[:, :, LEVELS.index(0.5)]
        return {
            **{name: out[name] for name in self.variables(target) if name in out},
            "loss": objective if loss is None else loss,
            "risk": risk,
            "link": link,
            "stage_duration": np.diff(half, prepend=0.0, axis=1),
        }


class Stepped:
    """A flow with the parameters `step` and `batch`, whose time is `step` times the steps done."""

    step: float | Swept
    batch: int | Swept

    def _checked_steps(self) -> dict[str, float | int]:
        """Check `step` and `batch`."""
        return {
            "step": validation.number(self.step, "step", above=0.0, at_most=1.0),
            "batch": validation.integer(self.batch, "batch", at_least=1),
        }

    def whole_steps(self, grid: FloatArray) -> FloatArray:
        """Round a default grid up to whole steps, at most a million.

        Shapes: grid (n,); returns (at most n,).

        Examples
        --------
        >>> from mids.flows import OnlineSGD
        >>> OnlineSGD(step=0.5).whole_steps(np.array([0.0, 0.1, 0.9]))
        array([0. , 0.5, 1. ])
        """
        times: FloatArray = self.step * np.unique(np.minimum(np.ceil(grid / self.step), MOST_STEPS))
        return times

    def steps(self, time: FloatArray) -> IntArray:
        """Return the steps done by each time; a time that is a whole number of steps has them all.

        Parameters
        ----------
        time : (n,) float array

        Returns
        -------
        (n,) int array

        Raises
        ------
        InputError
            If the last time takes more samples than the generator has.

        Examples
        --------
        >>> from mids.flows import OnlineSGD
        >>> OnlineSGD(step=0.5).steps(np.array([0.0, 0.9, 1.0]))
        array([0, 1, 2])
        """
        if not float(time[-1]) / self.step < MOST_SAMPLES // self.batch:
            raise InputError(
                f"time up to {time[-1]:g} takes more than {MOST_SAMPLES:.2g} samples with step="
                f"{self.step:g} and batch={validation.shown(self.batch)}; end it earlier"
            )
        return np.floor(time / self.step * (1 + 1e-12) + 1e-9).astype(np.int64)

    def coordinates(self, time: FloatArray) -> dict[str, FloatArray | IntArray]:
        """Return the samples used by each time."""
        return {"samples": self.steps(time) * self.batch}
