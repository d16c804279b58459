"""Analyses of trajectories: pure functions from datasets to datasets."""

from .compare import compare
from .describe import describe
from .exponents import exponents
from .landscape import landscape
from .plateaus import plateaus
from .race import race
from .recorder import Recorder, overlaps
from .saddles import saddles
from .scaling import scaling, scaling_law
from .subspace import subspace
from .theory import theory
from .trajectories import from_trajectories
from .traps import traps

__all__ = [
    "Recorder",
    "compare",
    "describe",
    "exponents",
    "from_trajectories",
    "landscape",
    "overlaps",
    "plateaus",
    "race",
    "saddles",
    "scaling",
    "scaling_law",
    "subspace",
    "theory",
    "traps",
]
