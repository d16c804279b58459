"""Simulations: arguments become recipes, recipes a dask graph, and that a lazy Dataset."""

from .joining import combine_attrs, concat
from .phase_diagram import phase_diagram
from .progress import progress
from .replay import differences, flow_of, replay, target_of
from .simulate import from_spec, read_spec, simulate

__all__ = [
    "combine_attrs",
    "concat",
    "differences",
    "flow_of",
    "from_spec",
    "phase_diagram",
    "progress",
    "read_spec",
    "replay",
    "simulate",
    "target_of",
]
