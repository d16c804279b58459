"""Analyses of trajectories: pure functions from datasets to datasets."""

from .compare import compare
from .plateaus import plateaus
from .saddles import saddles
from .scaling import scaling
from .theory import theory
from .traps import traps

__all__ = ["compare", "plateaus", "saddles", "scaling", "theory", "traps"]
