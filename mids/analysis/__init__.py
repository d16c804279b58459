"""Analyses of trajectories: pure functions from datasets to datasets."""

from .compare import compare
from .plateaus import plateaus
from .saddles import saddles
from .theory import theory

__all__ = ["compare", "plateaus", "saddles", "theory"]
