"""Online stochastic gradient descent: every sample is used once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

import numpy as np

from .. import validation
from ..errors import FileError, InputError
from ..schema import LEVELS, VERSION
from ..targets.target import Target
from ..validation import FloatArray
from .base import Problem, Swept
from .sampled import SampledFlow, Stepped, Trajectory, start

SAMPLINGS = ("ambient", "projected")

CHUNK_SECONDS = 1.0  # rough work between two looks at the clock
INTERVAL = 20.0  # seconds between two checkpoints of a run


def check_folder(folder: object) -> str:
    """Return the path of a folder for checkpoints, which need not exist yet."""
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise InputError(
            f"checkpoint must be the path of a folder, got {validation.shown(folder)}; "
            'pass for example checkpoint="checkpoints"'
        )
    path = validation.path(folder, "checkpoint").absolute()
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir():
        raise InputError(f"checkpoint must be a folder, but {there} is a file; give another path")
    if not os.access(there, os.W_OK):
        raise InputError(f"checkpoint {path} cannot be written, {there} is read-only; give another")
    return str(path)


class Checkpoint:
    """The file of a run's state, named by a digest of all that its numbers depend on."""

    def __init__(self, folder: str | None, name: str, identity: Mapping[str, Any]) -> None:
        text = json.dumps(identity, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.path = None if folder is None else Path(folder, f"{name}-{digest[:32]}.npz")
        self._last = monotonic()

    def load(self) -> dict[str, np.ndarray] | None:
        """Return the arrays of the last checkpoint, or None if there is none."""
        if self.path is None or not self.path.exists():
            return None
        try:
            # A pickle in a foreign checkpoint could run code.
            with self.path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise FileError(
                f"the checkpoint {self.path} is damaged ({error}); delete it to start that run over"
            ) from None

    def save(self, arrays: Mapping[str, np.ndarray], *, now: bool = False) -> None:
        """Keep arrays, if the last checkpoint is older than 20 seconds or `now` is set."""
        if self.path is None or not (now or monotonic() - self._last >= INTERVAL):
            return
        temporary = self.path.with_name(f"{self.path.stem}.{uuid.uuid4().hex}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                # The old checkpoint stays until the new one is whole on disk.
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise FileError(
                f"cannot write the checkpoint {self.path} ({error.strerror or error}); "
                "give another folder or free some space"
            ) from None
        self._last = monotonic()


@dataclass(frozen=True, kw_only=True, repr=False)
class OnlineSGD(Stepped, SampledFlow):
    r"""Projected stochastic gradient descent on fresh samples, the link refitted after each batch.

    Samples are :math:`x \sim N(0, I_d)` with labels :math:`F^*(x)` and noise. The link is the
    ridge regressor on features of :math:`W^T x` over past batches, which it forgets exponentially;
    W moves against the batch's gradient, orthogonal to its columns, and is made orthonormal by a QR
    factorisation. Time is `step` times the number of steps. As `step` goes to 0 with
    ``batch / step`` to infinity it follows the two-timescale flow.

    Parameters
    ----------
    step : float
        Step of the descent on W, at most 1.
    batch : int
        Samples in a step.
    memory : float or None
        Batches after which the regression has forgotten all but 1/e of a sample; 1 fits the latest
        batch alone, None never forgets.
    sampling : str
        ``"ambient"`` draws each sample in R^d. ``"projected"`` draws its coordinates in the span of
        W* and W, on which label and error depend, and for each batch one Gaussian vector for what
        all its samples have beyond, which has their law: the same process at a cost of a sample
        that does not grow with d.
    readout : str
        ``"hermite-ridge"``: all Hermite polynomials up to `degree`; ``"random-features"``: random
        features of a Gaussian kernel (`mids.flows.readout`).
    noise : float
        Standard deviation of the noise on the labels.
    ridge : float
        Regularisation mu of the link. It must be positive for random features, and may be 0 for
        Hermite features if a batch has at least as many samples as there are features.
    degree : int, optional
        Highest degree of the Hermite features; the target's if not given.
    kernel : HermiteKernel or mapping, optional
        Eigenvalues ``q_k`` that weigh the ridge of Hermite features; all 1 if not given.
    features : int
        Number of random features.
    width : float
        Width of the Gaussian kernel of the random features.
    checkpoint : str or path, optional
        Folder in which each run keeps its state. A run that was killed goes on from there, with the
        same numbers bit by bit; a finished one is not run again. Not recorded with the data.

    Raises
    ------
    InputError
        If a parameter is wrong.

    Examples
    --------
    >>> import mids
    >>> flow = OnlineSGD(step=0.05, batch=512)
    >>> ds = mids.simulate("h1(z1)", dim=64, runs=2, flow=flow, time=[0.0, 1.0, 6.0]).compute()
    >>> ds.samples.values.tolist(), bool((ds.risk[..., -1] < 0.05).all())
    ([0, 10240, 61440], True)
    """

    name: ClassVar[str] = "online-sgd"
    step: float | Swept = 0.01
    batch: int | Swept = 256
    memory: float | Swept | None = 8.0
    sampling: str | Swept = "ambient"
    checkpoint: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self._set(**self._checked_steps())
        validation.one_of(self.sampling, SAMPLINGS, "sampling")
        if self.memory is not None:
            self._set(memory=validation.number(self.memory, "memory", at_least=1.0))
        if self.checkpoint is not None:
            self._set(checkpoint=check_folder(self.checkpoint))

    def _check_samples(self, count: int) -> None:
        """Raise InputError if a link of `count` features cannot be fitted."""
        if self.ridge == 0 and self.batch < count:
            raise InputError(
                f"without ridge a batch needs at least as many samples as the link has features, "
                f"{count}, got batch={self.batch}; pass a larger batch or ridge=1e-4"
            )

    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Logarithmic grid of whole steps past the last escape of a typical run.

        It has at most a million steps: pass ``time`` for longer runs.
        """
        grid = super().default_time(target, dim, student_rank, initial)
        return self.whole_steps(grid)

    def delay(self, exponent: Any) -> Any:
        """``step * (exponent * memory + 1/2)`` for each e-fold; NaN where all is remembered.

        The half is that of Euler's method; the link, which goes with the power `exponent` of the
        correlation, is fitted to batches that are `memory` steps old on average.
        """
        memory = np.nan if self.memory is None else self.memory
        return self.step * (exponent * memory + 0.5)

    def run_seconds(self, target: Target, dim: int, student_rank: int, time: FloatArray) -> float:
        """Rough work of one run in seconds."""
        steps = max(float(self.steps(time)[-1]), 1.0)
        return steps * self.batch * self._sample_seconds(target, dim, student_rank)

    def _sample_seconds(self, target: Target, dim: int, student_rank: int) -> float:
        count, rank = self.link.count(target, student_rank), target.rank
        drawn = rank + student_rank if self.sampling == "projected" else dim
        sample = drawn * (1 + 0.5 * student_rank) + 30 * count + 0.5 * count**2
        step = count**3 / 3 + (8 * student_rank + 2) * student_rank * dim
        return 1e-9 * (sample + step / self.batch)

    def integrate(self, problem: Problem) -> dict[str, Any]:
        """Trajectories of a block of runs."""
        runs = [
            self._run(problem, int(run), initial)
            for run, initial in zip(problem.runs, problem.initial, strict=True)
        ]
        return self._observe(problem, runs)

    def _run(self, problem: Problem, run: int, initial: FloatArray) -> Trajectory:
        from .engine.features import Link
        from .engine.projected import advance_projected
        from .engine.sampled import Rates, State, advance, watch

        target, dim, times = problem.target, problem.dim, len(problem.time)
        rank, size = initial.shape
        levels = np.array(LEVELS)
        features, key, rng = self._streams(problem, run)
        link = Link(target.modes, target.coefficients, self.noise)
        # An exponential memory of so many batches on average.
        keep = 1.0 if self.memory is None else 1.0 - 1.0 / self.memory
        rates = Rates(self.step, self.batch, keep, self.ridge)
        # So many samples between two looks at the clock for a checkpoint.
        chunk = 1 + int(CHUNK_SECONDS / self._sample_seconds(target, dim, size))

        checkpoint = Checkpoint(
            self.checkpoint, f"{self.name}-d{dim}-run{run}", self._identity(problem, run, initial)
        )
        kept = checkpoint.load()
        resumed = kept is not None
        if kept is None:
            kept = start(features, initial, dim, self.noise, rng)
            if self.sampling == "projected":
                kept["gradient"] = np.zeros((size, max(dim, rank + 2 * size)))
            kept |= {
                "links": np.full((times, len(features.penalty)), np.nan),
                "correlations": np.full((times, rank, size), np.nan),
                "recorded": np.zeros(1, dtype=np.int64),
            }
        forward = advance_projected if self.sampling == "projected" else advance
        state = State(**{name: kept[name] for name in State._fields})
        if not resumed:
            watch(0.0, 0.0, levels, state)
        recorded = kept["recorded"]
        stops = self.steps(problem.time) * self.batch
        while recorded[0] < times and not state.used[1]:
            stop = stops[recorded[0]]
            while state.used[0] < stop and not state.used[1]:
                until = min(stop, state.used[0] + chunk)
                forward(link, features, rates, levels, key, state, until)
                # Compiled code has changed these arrays in place: `state` holds the same ones.
                checkpoint.save(kept)
            if not state.used[1]:
                kept["links"][recorded[0]] = state.link
                kept["correlations"][recorded[0]] = state.frame[:, :rank].T
                recorded[0] += 1
        checkpoint.save(kept, now=True)
        return Trajectory(
            features=features,
            links=kept["links"],
            correlations=kept["correlations"],
            crossing=state.crossing,
            steps=int(state.used[0]) // self.batch,
        )

    def _identity(self, problem: Problem, run: int, initial: FloatArray) -> dict[str, Any]:
        """All that the numbers of a run depend on."""
        return {
            "flow": self.to_dict(),
            "target": problem.target.to_dict(),
            "seed": problem.seed,
            "dim": problem.dim,
            "run": run,
            "initial": initial.tolist(),
            "time": problem.time.tolist(),
            # Other versions may round otherwise, so their checkpoints are left alone.
            "versions": {name: version(name) for name in ("numpy", "numba")} | {"mids": VERSION},
        }
