"""Analyses of trajectories: pure functions from datasets to datasets."""

from .compare import compare
from .describe import describe
from .plateaus import plateaus
from .race import race
from .saddles import saddles
from .scaling import scaling
from .subspace import subspace
from .theory import theory
from .trajectories import from_trajectories
from .traps import traps

__all__ = [
    "compare",
    "describe",
    "from_trajectories",
    "plateaus",
    "race",
    "saddles",
    "scaling",
    "subspace",
    "theory",
    "traps",
]
