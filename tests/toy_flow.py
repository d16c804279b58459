"""A flow with a closed-form solution, which the package knows nothing about.

Direction k follows ``lambda' = rate_k lambda (1 - lambda)`` on its own, with ``rate_k = 1 / 10^k``,
so that every quantity of the schema is a formula. It counts how often each run is simulated.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit, logit

from mids import schema
from mids.flows.base import Flow, Problem
from mids.flows.time_grid import logarithmic

SIMULATED: Counter[tuple[int, int]] = Counter()
_LOCK = threading.Lock()


@dataclass(frozen=True)
class ToyFlow(Flow):
    """Logistic growth of each overlap; ``slow`` stretches time."""

    name: ClassVar[str] = "toy"
    slow: float = 1.0

    def default_time(self, target, dim, student_rank, initial=None):
        """Cover the logistic growth of the slowest direction."""
        return logarithmic(0.01, 10.0**target.rank * self.slow * np.log(dim))

    def variables(self, target):
        """All variables but the risk."""
        return (
            "loss",
            "overlap",
            "energy",
            "gram0",
            "crossing_time",
            "status",
            "n_steps",
            "n_rhs",
        )

    def integrate(self, problem: Problem):
        """Evaluate the solution."""
        with _LOCK:
            SIMULATED.update((problem.dim, int(run)) for run in problem.runs)
        gram = problem.initial @ problem.initial.swapaxes(-1, -2)
        start = np.clip(np.linalg.eigvalsh(gram)[:, ::-1], 1e-300, 1 - 1e-16)
        rate = 10.0 ** -np.arange(problem.target.rank) / self.slow
        overlap = expit(logit(start)[:, None] + rate * problem.time[:, None])
        crossing = (logit(np.array(schema.LEVELS)) - logit(start)[..., None]) / rate[:, None]
        crossing[(crossing < 0) | (crossing > problem.time[-1])] = np.nan
        n, modes = len(problem.runs), len(problem.target.modes)
        learned = overlap.mean(axis=-1)
        return {
            "loss": 0.5 * (1 - learned),
            "overlap": overlap,
            "energy": np.repeat(learned[..., None], modes, axis=-1) / modes,
            "gram0": gram,
            "crossing_time": crossing,
            "status": np.isnan(crossing[:, -1, -1]).astype(np.int8),
            "n_steps": np.full(n, 1),
            "n_rhs": np.full(n, 4),
        }

    def to_dict(self):
        """Name and parameters."""
        return {"name": self.name, "slow": self.slow}
