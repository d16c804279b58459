"""The work of one task: a block of runs of one dimension."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from .. import schema
from ..errors import MidsError
from ..flows.base import Flow, Problem
from ..flows.initial import draw_runs
from ..targets.target import Target
from ..validation import FloatArray, IntArray

__all__ = ["CAUSES", "FAILED", "TOPIC", "pick", "simulate_block"]

FAILED = schema.STATUS.index("failed")

CAUSES = "causes"
"""Entry of a block besides the schema's variables: why runs failed, by their index."""

TOPIC = "mids-simulated"
"""Topic under which workers of a cluster tell that a block is done."""


def simulate_block(
    dims: IntArray,
    runs: IntArray,
    initial: FloatArray | None = None,
    *,
    target: Target,
    flow: Flow,
    seed: int,
    student_rank: int,
    time: FloatArray,
    rtol: float,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Any]:
    """Simulate a block of runs of one dimension; a run that raises fails alone."""
    dim = int(dims[0])
    if initial is None:
        matrices = draw_runs(target.rank, student_rank, dim, runs, seed)
    else:
        matrices = np.broadcast_to(initial[0], (len(runs), target.rank, student_rank)).copy()
    problem = Problem(
        target=target, dim=dim, runs=runs, seed=seed, initial=matrices, time=time, rtol=rtol
    )
    causes: dict[int, str] = {}
    block = _integrate(flow, problem, shapes, causes)
    if "status" in block:
        for run in runs[np.asarray(block["status"]) == FAILED].tolist():
            causes.setdefault(run, f"the flow {flow.name} gave up before rtol = {rtol:g} was met")
    _announce(flow, dim, runs, causes)
    return {**block, CAUSES: causes}


def _integrate(
    flow: Flow, problem: Problem, shapes: Mapping[str, tuple[int, ...]], causes: dict[int, str]
) -> dict[str, Any]:
    """Integrate a block; halve it where it raises, down to the runs that do."""
    try:
        return flow.integrate(problem)
    except (MidsError, MemoryError):  # not the fault of single runs
        raise
    except Exception as error:
        count = len(problem.runs)
        if count == 1:
            text = " ".join(str(error).split())
            causes[int(problem.runs[0])] = f"{type(error).__name__}: {text}"[:200]
            return _failed(problem, shapes)
    halves = [
        _integrate(
            flow,
            replace(problem, runs=problem.runs[half], initial=problem.initial[half]),
            shapes,
            causes,
        )
        for half in (slice(count // 2), slice(count // 2, count))
    ]
    return {name: np.concatenate([half[name] for half in halves]) for name in shapes}


def _failed(problem: Problem, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return what is known of a run that raised: its start."""
    block: dict[str, Any] = {}
    for name, shape in shapes.items():
        kind = np.dtype(schema.VARIABLES[name].dtype)
        block[name] = np.full((1, *shape), np.nan if kind.kind == "f" else 0, dtype=kind)
    if "gram0" in block:
        block["gram0"][:] = problem.initial @ problem.initial.swapaxes(1, 2)
    if "status" in block:
        block["status"][:] = FAILED
    return block


def _announce(flow: Flow, dim: int, runs: IntArray, causes: Mapping[int, str]) -> None:
    """Tell the clients of a cluster, if this is one of its workers."""
    if "distributed" in sys.modules:
        from distributed import get_worker

        with suppress(ValueError):  # not in a worker
            block = f"{flow.to_dict()} {dim} {runs[0]}"
            event = [block, len(runs), dict(Counter(causes.values()))]
            get_worker().log_event(TOPIC, event)


def pick(
    block: Mapping[str, Any], runs: IntArray, *, variable: str, shape: tuple[int, ...]
) -> np.ndarray:
    """Return one variable of a block, with the axis ``dim`` in front."""
    array = np.asarray(block[variable], dtype=schema.VARIABLES[variable].dtype)
    if array.shape != (len(runs), *shape):
        raise RuntimeError(
            f"the flow returned {variable} of shape {array.shape} instead of {(len(runs), *shape)}"
        )
    return array[np.newaxis]
