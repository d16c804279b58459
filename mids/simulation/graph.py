"""The dask graph of a sweep.

It has one task for each block of runs of one dimension, whose result is a dictionary of arrays,
and one small task for each variable and block that picks its array from it. Computing any set of
variables together therefore simulates each run once.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .. import schema, validation
from ..errors import InputError
from ..targets.basis import mode_label
from .block import pick, simulate_block
from .sweep import Sweep

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["block_size", "dataset"]

BLOCK_BYTES = 64e6
"""Output of one block of runs that is not exceeded unless there are too many blocks."""
BLOCK_SECONDS = 4.0
"""Longest work of one block of runs, likewise."""
BLOCKS = 32
"""Blocks that a sweep is cut into where that leaves each of them `SMALL_SECONDS` of work."""
SMALL_SECONDS = 0.1
TASKS = 40_000
"""Tasks of a graph above which blocks grow, up to `LARGEST_BYTES`."""
LARGEST_BYTES = 512e6


def block_size(sweep: Sweep, chunks: object) -> int:
    """Return the number of runs in a block; "auto" gives a power of two, which files can chunk."""
    if not isinstance(chunks, str):
        return min(validation.integer(chunks, "chunks", at_least=1), len(sweep.runs))
    if chunks != "auto":
        raise InputError(
            f'chunks must be "auto" or the number of runs in a task, got {chunks!r}; '
            'pass for example chunks="auto"'
        )
    run_seconds = sweep.flow.run_seconds(
        sweep.target, int(sweep.dims.max()), sweep.student_rank, sweep.time
    )
    run_bytes = sum(
        math.prod(sweep.shape(name)) * np.dtype(schema.VARIABLES[name].dtype).itemsize
        for name in sweep.variables
    )
    total = len(sweep.runs) * len(sweep.dims)
    seconds = min(max(run_seconds * total / BLOCKS, SMALL_SECONDS), BLOCK_SECONDS)
    power = round(math.log2(min(seconds / run_seconds, BLOCK_BYTES / run_bytes)))
    fewest = math.ceil(math.log2(total * (len(sweep.variables) + 2) / TASKS))
    largest = math.floor(math.log2(LARGEST_BYTES / run_bytes))
    return int(2 ** max(power, min(fewest, largest), 0))


def dataset(sweep: Sweep, block_size: int) -> xr.Dataset:
    """Return the lazy dataset of a sweep in blocks of so many runs."""
    import dask.array as da
    from dask.base import annotate, tokenize

    spec = sweep.spec
    token = tokenize(json.dumps(spec), sweep.initial, sweep.time, block_size)
    dims = da.from_array(sweep.dims, chunks=1, name=f"dim-{token}")
    runs = _runs(sweep, block_size, token)
    initial = _initial(sweep, block_size, token)
    # Two things keep the simulations out of reach of dask's fusion, which would repeat them for
    # variables that are computed apart and change the tasks of a key (dask#9888): the annotation,
    # and the second argument of `pick`.
    with annotate(mids="simulation"):
        cells = da.blockwise(
            simulate_block,
            "dr",
            dims,
            "d",
            runs,
            "r",
            *(() if initial is None else (initial, "drxq")),
            name=f"simulate-{token}",
            dtype=object,
            meta=np.empty((0, 0), dtype=object),
            concatenate=True,
            target=sweep.target,
            flow=sweep.flow,
            seed=sweep.seed,
            student_rank=sweep.student_rank,
            time=sweep.time,
            rtol=sweep.rtol,
            shapes={name: sweep.shape(name) for name in sweep.variables},
        )
    variables = {}
    for name in sweep.variables:
        entry = schema.VARIABLES[name]
        axes = dict(zip("xyz", sweep.shape(name), strict=False))
        data = da.blockwise(
            pick,
            ("d", "r", *axes),
            cells,
            "dr",
            runs,
            "r",
            new_axes=axes,
            name=f"{name}-{token}",
            dtype=entry.dtype,
            meta=np.empty((0,) * len(entry.dims), dtype=entry.dtype),
            variable=name,
            shape=tuple(axes.values()),
        )
        variables[name] = xr.Variable(entry.dims, data, entry.attributes)
    if initial is not None and sweep.initial_is_large:
        entry = schema.VARIABLES["initial"]
        shape = (len(dims), len(runs), *initial.shape[2:])
        chunks = (dims.chunks[0], runs.chunks[0], *initial.chunks[2:])
        data = da.broadcast_to(initial, shape, chunks=chunks)
        variables["initial"] = xr.Variable(entry.dims, data, entry.attributes)
    return xr.Dataset(variables, _coordinates(sweep), _attributes(sweep, spec))


def _runs(sweep: Sweep, block_size: int, token: str) -> da.Array:
    """Return the indices of the runs in blocks; those that only count do not fill the graph."""
    import dask.array as da

    if sweep.counted:
        counted: da.Array = da.arange(len(sweep.runs), chunks=block_size, dtype=np.int64)
        return counted
    listed: da.Array = da.from_array(sweep.runs, chunks=block_size, name=f"run-{token}")
    return listed


def _initial(sweep: Sweep, block_size: int, token: str) -> da.Array | None:
    """Return the given initial conditions in the blocks of the runs."""
    import dask.array as da

    if sweep.initial is None:
        return None
    chunks = (1, min(block_size, sweep.initial.shape[1]), -1, -1)
    array: da.Array = da.from_array(sweep.initial, chunks=chunks, name=f"initial-{token}")
    return array


def _coordinates(sweep: Sweep) -> dict[str, xr.Variable]:
    modes = sweep.target.modes
    values = {
        "dim": sweep.dims,
        "run": sweep.runs,
        "time": sweep.time,
        "direction": np.arange(sweep.target.rank),
        "level": np.array(schema.LEVELS),
        "degree": modes.sum(axis=1),
        "exponents": modes,
        "label": np.array([mode_label(exponents) for exponents in modes]),
        "coefficient": sweep.target.coefficients,
        **sweep.flow.coordinates(sweep.time),
    }
    used = {dim for name in sweep.variables for dim in schema.VARIABLES[name].dims}
    return {
        name: xr.Variable(entry.dims, values[name], entry.attributes)
        for name, entry in schema.COORDINATES.items()
        if name in values and used.issuperset(entry.dims)
    }


def _attributes(sweep: Sweep, spec: Mapping[str, Any]) -> dict[str, Any]:
    target = sweep.target.name or textwrap.shorten(f"{sweep.target:.6g}", 80, placeholder=" ...")
    dims = ", ".join(map(schema.dim_text, sweep.dims.tolist()))
    flow = sweep.flow.name
    return schema.attributes(
        spec,
        title=f"Gradient flow ({flow}) on the Gaussian multi-index target {target}",
        summary=(
            f"Trajectories of {len(sweep.runs)} independent runs at each ambient dimension "
            f"d = {dims}, from initial conditions "
            f"{'uniform on the Stiefel manifold' if sweep.initial is None else 'that were given'}: "
            "loss, overlaps with the target's directions, exact times at which they are learned."
        ),
        source=f"mids {schema.VERSION}",
        command=f"simulate({target}, dim=[{dims}], runs={len(sweep.runs)}, seed={sweep.seed}, "
        f"flow={flow})",
    )
