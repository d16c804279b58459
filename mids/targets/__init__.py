"""Targets: what is learned.

Takes Hermite coefficients, text or functions; gives `Target` with its averaging operator, loss and
gradient, and its ladder of leaps with their exponents.
"""

from .additive import AdditiveTarget, additive
from .families import hermite, leaps, names, parity, staircase
from .target import Target

__all__ = [
    "AdditiveTarget",
    "Target",
    "additive",
    "hermite",
    "leaps",
    "names",
    "parity",
    "staircase",
]
