"""Simulations: arguments become a recipe, a recipe a dask graph, and that a lazy Dataset."""

from .against import against
from .phase_diagram import phase_diagram
from .replay import differences, flow_of, replay, target_of
from .simulate import from_spec, read_spec, simulate

__all__ = [
    "against",
    "differences",
    "flow_of",
    "from_spec",
    "phase_diagram",
    "read_spec",
    "replay",
    "simulate",
    "target_of",
]
