"""What is computed side by side: target, dimension, and its gradient written out by hand.

The peers integrate ``M' = (I - G) H M`` with the H given here, which is as cheap as it can be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mids import Target
from mids.flows import TwoTimescale
from mids.flows.initial import draw_runs


@dataclass(frozen=True)
class Workload:
    text: str
    dim: int
    runs: int
    gradient: Callable[[Any], list[list[Any]]]

    @property
    def target(self) -> Target:
        return Target.parse(self.text).normalize()

    @property
    def initial(self) -> np.ndarray:
        rank = self.target.rank
        return draw_runs(rank, rank, self.dim, np.arange(self.runs), 0)

    @property
    def time(self) -> np.ndarray:
        return TwoTimescale().default_time(self.target, self.dim, self.target.rank)


def _smooth(g: Any) -> list[list[Any]]:
    return [
        [0.5 * (1 + g[..., 1, 1]), 0.5 * g[..., 0, 1]],
        [0.5 * g[..., 0, 1], 0.5 * g[..., 0, 0]],
    ]


def _stiff(g: Any) -> list[list[Any]]:
    a, b, c = g[..., 0, 0], g[..., 1, 1], g[..., 0, 1]
    mixed = 1.5 * c * b**2
    return [[0.5 * (1 + b**3), mixed], [mixed, 1.5 * a * b**2 + 3 * c**2 * b]]


def _ladder(g: Any) -> list[list[Any]]:
    a, b, c = g[..., 0, 0], g[..., 1, 1], g[..., 2, 2]
    ab, bc = g[..., 0, 1], g[..., 1, 2]
    first = 2 * ab * b / 3
    second = 2 * b * bc * c**2 + 2 * bc**3 * c
    middle = (2 * a * b + 2 * ab**2 + 2 * b * c**3 + 6 * bc**2 * c**2) / 3
    return [
        [(1 + b**2) / 3, first, 0 * a],
        [first, middle, second],
        [0 * a, second, b**2 * c**2 + 4 * b * bc**2 * c + bc**4],
    ]


WORKLOADS = (
    Workload("h1(z1) + h1(z1)*h1(z2)", 10**4, 64, _smooth),
    Workload("h1(z1) + h1(z1)*h3(z2)", 10**4, 64, _stiff),
    Workload("h1(z1) + h1(z1)*h2(z2) + h2(z2)*h3(z3)", 10**2, 16, _ladder),
)
SMOKE = (Workload("h1(z1) + h1(z1)*h1(z2)", 100, 2, _smooth),)
