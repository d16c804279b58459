"""The dask graph of a plan, and the work of its tasks.

It has one task for each block of runs of one recipe and one dimension, whose result is a dictionary
of arrays, and one small task for each variable and block that picks its array from it. Computing
any set of variables together therefore simulates each run once.
"""

from __future__ import annotations

import logging
import math
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from .. import schema, validation
from ..errors import InputError, MidsError
from ..flows.base import Flow, Problem
from ..validation import FloatArray, IntArray
from .plan import Plan, extents
from .recipe import Recipe, versions

FAILED = schema.STATUS.index("failed")
BLOCK_BYTES = 64e6  # largest output of a block of runs, unless there are too many blocks
BLOCK_SECONDS = 4.0  # longest work of one block of runs, likewise
BLOCKS = 32  # into which a sweep is cut if each has `SMALL_SECONDS` of work at least
SMALL_SECONDS = 0.25
TASKS = 40_000  # tasks of a graph above which blocks grow, up to `LARGEST_BYTES`
LARGEST_BYTES = 512e6
INLINE = 4096  # time grids of up to this many points are recorded beside the recipes
AXES = "abcefgh"  # letters of the axes of sweeps in dask's notation


def block_sizes(plan: Plan, chunks: Any) -> tuple[int, ...]:
    """Return the lengths of the blocks of runs that `chunks`, in the forms of xarray, asks for."""
    runs = len(plan.runs)
    if isinstance(chunks, Mapping):
        for name in chunks:
            validation.one_of(name, ("dim", "run", *plan.axes), "dim in chunks")
        chunks = chunks.get("run", "auto")
    lengths = chunks if isinstance(chunks, tuple) else ()
    if all(isinstance(n, int | np.integer) and n > 0 for n in lengths) and sum(lengths) == runs:
        return lengths
    if chunks is None or (isinstance(chunks, int | float | np.number) and chunks == -1):
        size = runs
    elif isinstance(chunks, str) and chunks == "auto":
        size = _automatic(plan)
    elif isinstance(chunks, str):
        raise InputError(
            f'chunks must be "auto", a number of runs, -1 or a mapping such as {{"run": 1000}}, '
            f'got {chunks!r}; pass for example chunks="auto"'
        )
    else:
        size = validation.integer(chunks, "chunks", at_least=1)
    size = min(size, runs)
    rest = runs % size
    return (size,) * (runs // size) + ((rest,) if rest else ())


def _automatic(plan: Plan) -> int:
    """Return a power of two, which files can chunk, that bounds work and memory of a block."""
    run_seconds = max(
        recipe.flow.run_seconds(recipe.target, int(plan.dims.max()), recipe.student_rank, plan.time)
        for recipe in plan.recipes.flat
    )
    run_bytes = sum(
        math.prod(plan.shape(name)) * np.dtype(schema.VARIABLES[name].dtype).itemsize
        for name in plan.variables
    )
    total = len(plan.runs) * len(plan.dims) * plan.recipes.size
    seconds = min(max(run_seconds * total / BLOCKS, SMALL_SECONDS), BLOCK_SECONDS)
    # log2 of the runs in a block: as many as time allows, or memory if that is less.
    power = round(math.log2(min(seconds / run_seconds, BLOCK_BYTES / run_bytes)))
    # A block has a task for each variable and about two more; fewer runs would make too many tasks.
    fewest = math.ceil(math.log2(total * (len(plan.variables) + 2) / TASKS))
    largest = math.floor(math.log2(LARGEST_BYTES / run_bytes))
    return int(2 ** max(power, min(fewest, largest), 0))


# -- the graph ----------------------------------------------------------------------------------


def dataset(plan: Plan, blocks: tuple[int, ...]) -> xr.Dataset:
    """Return the lazy dataset of a plan in blocks of so many runs."""
    import dask.array as da
    from dask.base import annotate, tokenize

    prints = schema.fingerprint_bytes(recipe.fingerprint for recipe in plan.recipes.flat)
    # Fingerprints stand for the recipes, so the same sweep has the same keys in every process.
    token = tokenize(prints, plan.dims, plan.runs, plan.initial, blocks)
    axes = AXES[: len(plan.axes)]
    nothing = np.empty((0,) * plan.recipes.ndim, dtype=object)
    recipes = da.from_array(plan.recipes, chunks=1, name=f"recipe-{token}", meta=nothing)
    dims = da.from_array(plan.dims, chunks=1, name=f"dim-{token}")
    if plan.counted:  # runs that only count do not fill the graph
        runs = da.arange(len(plan.runs), chunks=(blocks,), dtype=np.int64)
    else:
        runs = da.from_array(plan.runs, chunks=(blocks,), name=f"run-{token}")
    given: list[Any] = []
    if plan.initial is not None:
        # An axis of length 1 is broadcast: one M(0) for all dims, or for all runs.
        chunks = (1, blocks if plan.initial.shape[1] > 1 else (1,), -1, -1)
        given = [da.from_array(plan.initial, chunks=chunks, name=f"initial-{token}"), "zrxq"]
    shapes = {name: plan.shape(name) for name in plan.variables}
    # Two things keep the simulations out of reach of dask's fusion, which would repeat them for
    # variables that are computed apart and change the tasks of a key (dask#9888): the annotation,
    # and the second argument of `_pick`.
    with annotate(mids="simulation"):
        cells = da.blockwise(
            _simulate_block,
            f"{axes}zr",
            *(recipes, axes, dims, "z", runs, "r", *given),
            name=f"simulate-{token}",
            dtype=object,
            meta=np.empty((0,) * (len(axes) + 2), dtype=object),
            concatenate=True,
            align_arrays=False,  # they are; dask warns of the many blocks of a sweep
            time=plan.time,
            shapes=shapes,
            modes=tuple(plan.modes),
        )
    variables = {}
    for name, shape in shapes.items():
        entry = schema.VARIABLES[name]
        own = dict(zip("uvw", shape, strict=False))
        data = da.blockwise(
            _pick,
            (*axes, "z", "r", *own),
            *(cells, f"{axes}zr", runs, "r"),
            new_axes=own,
            name=f"{name}-{token}",
            dtype=entry.dtype,
            meta=np.empty((0,) * (len(axes) + len(entry.dims)), dtype=entry.dtype),
            variable=name,
            shape=shape,
            before=len(axes) + 1,
        )
        variables[name] = xr.Variable((*plan.axes, *entry.dims), data, entry.attributes)
    sizes = (*plan.recipes.shape, len(plan.dims), len(plan.runs))
    if given:
        entry, initial = schema.VARIABLES["initial"], given[0]
        chunks = (dims.chunks[0], runs.chunks[0], *initial.chunks[2:])
        data = da.broadcast_to(initial, (*sizes[-2:], *initial.shape[2:]), chunks=chunks)
        variables["initial"] = xr.Variable(entry.dims, data, entry.attributes)
    entry = schema.VARIABLES["recipe"]
    # A broadcast view: memory for one fingerprint a recipe, however many runs there are.
    same = np.broadcast_to(
        prints.reshape(*plan.recipes.shape, 1, 1, schema.FINGERPRINT), (*sizes, schema.FINGERPRINT)
    )
    variables["recipe"] = xr.Variable((*plan.axes, *entry.dims), same, entry.attributes)
    made = schema.made_by(recipe.fingerprint for recipe in plan.recipes.flat)
    for variable in variables.values():
        variable.attrs["recipes"] = made  # tells variables of other recipes apart after a merge
    return xr.Dataset(variables, _coordinates(plan), _attributes(plan))


def _coordinates(plan: Plan) -> dict[str, xr.Variable]:
    columns = -1 if plan.modes else 0  # many oblique directions have no modes
    exponents = np.array([*plan.modes.values()], dtype=np.int64).reshape(len(plan.modes), columns)
    values: dict[str, Any] = {
        "dim": plan.dims,
        "run": plan.runs,
        "time": plan.time,
        "direction": np.arange(plan.shape("gram0")[0]),
        "neuron": np.arange(plan.shape("neuron_crossing_time")[0]),
        "level": np.array(schema.LEVELS),
        "mode": np.array(list(plan.modes)),
        "degree": exponents.sum(axis=1),
        "exponents": exponents,
    }
    used = {dim for name in plan.variables for dim in schema.VARIABLES[name].dims}
    coords = {
        name: xr.Variable(entry.dims, values[name], entry.attributes)
        for name, entry in schema.COORDINATES.items()
        if name in values and used.issuperset(entry.dims)
    }
    own = [recipe.flow.coordinates(plan.time) for recipe in plan.recipes.flat]
    for name in dict.fromkeys(name for each in own for name in each):
        entry = schema.COORDINATES[name]
        each = [found.get(name, np.zeros(len(plan.time), dtype=np.int64)) for found in own]
        if all(np.array_equal(one, each[0]) for one in each):
            coords[name] = xr.Variable(entry.dims, each[0], entry.attributes)
        else:
            stacked = np.reshape(each, (*plan.recipes.shape, *np.shape(each[0])))
            coords[name] = xr.Variable((*plan.axes, *entry.dims), stacked, entry.attributes)
    for name, labels in plan.axes.items():
        known = schema.COORDINATES.get(name)
        attrs = known.attributes if known else {"long_name": name.replace("_", " ")}
        coords[name] = xr.Variable((name,), labels, attrs)
    return coords


def _attributes(plan: Plan) -> dict[str, Any]:
    recipes = list(plan.recipes.flat)
    named = dict.fromkeys(r.target.name or f"{r.target:.6g}" for r in recipes)
    target = textwrap.shorten("; ".join(named), 80, placeholder=" ...")
    flow = ", ".join(dict.fromkeys(recipe.flow.name for recipe in recipes))
    dims = ", ".join(map(schema.dim_text, plan.dims.tolist()))
    given = recipes[0].initial is not None
    swept = ", ".join(plan.axes)
    notes = dict.fromkeys(recipe.flow.note for recipe in recipes if recipe.flow.note)
    found = {recipe.fingerprint: recipe.to_dict() | {"versions": versions()} for recipe in recipes}
    # Longer grids are in the coordinate `time` alone, known by the digest in the recipe.
    small = len(plan.time) <= INLINE
    return schema.attributes(
        schema.recorded(found, {str(recipes[0].time): plan.time.tolist()} if small else {}),
        title=f"Gradient flow ({flow}) on the Gaussian multi-index target {target}",
        summary=(
            f"Trajectories of {len(plan.runs)} independent runs at each ambient dimension "
            f"d = {dims}{f' and value of {swept}' if swept else ''}, from initial conditions "
            f"{'that were given' if given else 'uniform on the Stiefel manifold'}: "
            "loss, overlaps with the target's directions, exact times at which they are learned."
            + "".join(f" {note[0].upper()}{note[1:]}." for note in notes)
        ),
        source=f"mids {schema.VERSION}",
        command=f"simulate({target}, dim=[{dims}], runs={len(plan.runs)}, "
        f"seed={', '.join(dict.fromkeys(str(recipe.seed) for recipe in recipes))}, flow={flow})",
    )


# -- the work of one task -----------------------------------------------------------------------


def _simulate_block(
    recipes: np.ndarray,
    dims: IntArray,
    runs: IntArray,
    initial: FloatArray | None = None,
    *,
    time: FloatArray,
    shapes: Mapping[str, tuple[int, ...]],
    modes: tuple[str, ...],
) -> dict[str, Any]:
    """Simulate a block of runs of one recipe and dimension; a run that raises fails alone."""
    recipe: Recipe = np.asarray(recipes, dtype=object).reshape(-1)[0]
    flow, problem = recipe.problem(
        int(dims[0]), runs, time, None if initial is None else initial[0]
    )
    # Shapes of this recipe's variables, without the padding of a sweep.
    sizes = extents([recipe]) | {"mode": len(recipe.target.modes)}
    dims_of = {name: schema.VARIABLES[name].dims[2:] for name in flow.variables(recipe.target)}
    own = {
        name: tuple(sizes.get(dim, size) for dim, size in zip(dims_of[name], shape, strict=True))
        for name, shape in shapes.items()
        if name in dims_of
    }
    causes: dict[int, str] = {}
    block = _integrate(flow, problem, own, causes)
    if missing := own.keys() - block.keys():
        raise RuntimeError(
            f"the flow {flow.name} returned no {', '.join(sorted(missing))}; return it from "
            "`integrate`, or name the variables that it has in `variables`"
        )
    if "status" in block:
        for run in runs[np.asarray(block["status"]) == FAILED].tolist():
            # Runs that raised have their cause already.
            gave_up = f"the flow {flow.name} gave up before rtol = {problem.rtol:g} was met"
            causes.setdefault(run, gave_up)
    if causes:
        listed = "; ".join(f"{n} with {why}" for why, n in Counter(causes.values()).most_common(3))
        message = "%d of %d runs failed at d = %d, from run %d on: %s"
        logger = logging.getLogger("mids")
        logger.warning(message, len(causes), len(runs), problem.dim, min(causes), listed)
    # A target has only some of the modes of the sweep, perhaps in another order.
    at = [modes.index(label) for label in problem.target.labels]
    return {
        name: in_sweep(block[name], name, (len(runs), *own[name]), (len(runs), *shape), at)
        if name in own
        else unknown(name, (len(runs), *shape))
        for name, shape in shapes.items()
    }


def in_sweep(
    found: Any, name: str, own: tuple[int, ...], wanted: tuple[int, ...], modes: list[int]
) -> np.ndarray:
    """Return a variable (run, ...) in the shape of a sweep, its modes at their positions there."""
    array: np.ndarray = np.asarray(found, dtype=schema.VARIABLES[name].dtype)
    if array.shape != own:
        raise RuntimeError(f"the flow returned {name} of shape {array.shape} instead of {own}")
    if own == wanted and ("mode" not in schema.VARIABLES[name].dims or modes == sorted(modes)):
        return array
    out = unknown(name, wanted)
    index: list[Any] = [slice(size) for size in own]
    if "mode" in schema.VARIABLES[name].dims:
        index[schema.VARIABLES[name].dims.index("mode") - 1] = modes
    out[tuple(index)] = array
    return out


def unknown(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return what a variable is for runs whose recipe does not yield it."""
    kind = np.dtype(schema.VARIABLES[name].dtype)
    return np.full(shape, np.nan if kind.kind == "f" else 0, dtype=kind)


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
    # Runs of a block share nothing but their call, so that the others are not lost.
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
    block = {name: unknown(name, (1, *shape)) for name, shape in shapes.items()}
    if "gram0" in block:
        block["gram0"][:] = problem.initial @ problem.initial.swapaxes(1, 2)
    if "status" in block:
        block["status"][:] = FAILED
    return block


def _pick(
    block: Any, runs: IntArray, *, variable: str, shape: tuple[int, ...], before: int
) -> np.ndarray:
    """Return one variable of a block, with the axes before ``run`` in front."""
    array: np.ndarray = block[variable].reshape((1,) * before + (len(runs), *shape))
    return array
