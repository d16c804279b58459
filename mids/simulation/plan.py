"""The arguments of a simulation, checked: recipes over the axes of a sweep, dims, runs, times."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from .. import schema, validation
from ..errors import InputError
from ..flows import from_dict, get
from ..flows.base import Flow, FlowSweep
from ..flows.initial import check_initial
from ..flows.time_grid import logarithmic
from ..targets.basis import fitting
from ..targets.target import Target, as_target
from ..validation import FloatArray, IntArray
from .recipe import GIVEN, Recipe

LARGEST_RUNS = 10**8  # runs whose indices are held in memory
LARGEST_CELLS = 10**6  # pairs of a recipe and a dimension in one sweep, each a task at least


@dataclass(frozen=True, eq=False)
class Plan:
    """What `simulate` works from.

    ``recipes`` has an axis for each of ``axes``, the labels of the sweep by dim; ``initial``, where
    runs have their own, the shape (1 or n_dims, 1 or n_runs, rank, student_rank).
    """

    recipes: np.ndarray
    axes: Mapping[str, np.ndarray]
    dims: IntArray
    runs: IntArray
    time: FloatArray
    initial: FloatArray | None = None
    modes: dict[str, tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        """Collect the modes of all targets: multi-indices by label, in canonical order."""
        object.__setattr__(self, "modes", modes_of(self.recipes.flat))

    @property
    def counted(self) -> bool:
        """Whether the runs are 0, 1, 2, ..."""
        return np.array_equal(self.runs, np.arange(len(self.runs)))

    @property
    def variables(self) -> list[str]:
        """Variables of the schema that any of the flows yields, in the order of the schema."""
        yielded = {
            name for recipe in self.recipes.flat for name in recipe.flow.variables(recipe.target)
        }
        return [name for name in schema.VARIABLES if name in yielded]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a variable for one run."""
        sizes = extents(self.recipes.flat) | {
            "time": len(self.time),
            "mode": len(self.modes),
            "level": len(schema.LEVELS),
        }
        return tuple(sizes[dim] for dim in schema.VARIABLES[name].dims[2:])


def modes_of(recipes: Iterable[Recipe]) -> dict[str, tuple[int, ...]]:
    """Return the modes of all targets: multi-indices by label, in canonical order."""
    targets = list(dict.fromkeys(recipe.target for recipe in recipes))
    rank = max(target.rank for target in targets)
    modes = {
        label: (*beta, *(0,) * (rank - len(beta)))
        for target in targets
        for label, beta in zip(target.labels, target.modes.tolist(), strict=True)
    }
    # By degree; among equal degrees, high powers of the first variables come first.
    order = sorted(modes, key=lambda label: (sum(modes[label]), [-k for k in modes[label]]))
    return {label: modes[label] for label in order}


def extents(recipes: Iterable[Recipe]) -> dict[str, int]:
    """Return the sizes of the dims that depend on recipes, but for the modes."""
    of_all = {(recipe.target.rank, recipe.student_rank or 0) for recipe in recipes}
    rank, students = (max(sizes) for sizes in zip(*of_all, strict=True))
    return dict.fromkeys(("direction", "axis", "axis_t"), rank) | dict.fromkeys(
        ("student", "neuron", "neuron_t"), students
    )


def check(
    target: object,
    dim: float | Sequence[float] | ArrayLike,
    runs: int | Sequence[int],
    seed: object,
    flow: object,
    student_rank: object,
    initial: ArrayLike | xr.DataArray | None,
    time: ArrayLike | None,
    rtol: float,
    rank: int | None = None,
    degree: int = 10,
) -> Plan:
    """Check the arguments of `simulate` and fill in the defaults."""
    axes: dict[str, Sequence[Any]] = {}
    targets = _targets(target, axes, rank, degree)
    if student_rank is None and initial is not None:
        student_rank = _columns(initial, targets)
    ranks = _listed(student_rank, "student_rank", axes)
    seeds = [validation.integer(each, "seed", at_least=0) for each in _listed(seed, "seed", axes)]
    flows = _flows(flow, axes)
    indices = _runs(runs)
    rtol = validation.rtol(rtol)
    for name, labels in axes.items():
        _check_axis(name, labels)
    # Before targets are multiplied out: a sweep of lists may have more cells than memory holds.
    count, dims = math.prod(map(len, axes.values())), math.prod(validation.shape(dim))
    if count * dims > LARGEST_CELLS:
        raise InputError(
            f"the sweep has {count} recipes at {dims} dimensions, at most {LARGEST_CELLS} "
            "can be in one dataset; simulate parts and join them with mids.concat"
        )
    grid = validation.time_grid(time) if validation.shape(time) else None
    horizon = math.inf
    if time is not None and grid is None:
        horizon = validation.number(time, "time", above=0.0)
    parts: list[tuple[Target, int, int, Flow]] = [
        (one, validation.student_rank(by.student_rank(one) if rank is None else rank), of, by)
        for one in targets
        for rank in ranks
        for of in seeds
        for by in flows
    ]
    # Seeds change nothing of what is checked here.
    different = {json.dumps([p[0].to_dict(), p[1], p[3].to_dict()]): p for p in parts}
    matrices: dict[tuple[int, int], FloatArray] = {}
    defaults: list[FloatArray] = []
    for one, q, _, by in different.values():
        ndims = validation.dims(dim.values if isinstance(dim, xr.DataArray) else dim, one.rank, q)
        if by.tensors and not one.dense:
            raise InputError(
                f"the flow {by.name!r} needs the target's tensors, which an additive target of "
                f"rank {one.rank} and degree {one.degree} does not have; take the flow two-layer, "
                f"or {fitting(one.rank)}"
            )
        by.check(one, ndims, q)
        if initial is not None and (one.rank, q) not in matrices:
            matrices[one.rank, q] = given_start(
                initial, ndims, indices, one.rank, q, orthonormal=by.orthonormal
            )
            if by.fast_link and not matrices[one.rank, q].any(axis=(-2, -1)).all():
                raise InputError(
                    "initial has a matrix M(0) = 0: a student orthogonal to all directions of the "
                    "target never moves; leave initial out to draw frames at random, or pass "
                    "values such as 1e-3"
                )
        if grid is None:
            start = matrices.get((one.rank, q))
            defaults.append(by.default_time(one, int(ndims.max()), q, start))
    # All recipes share one grid, so the slowest decides how far it reaches.
    if grid is None:
        grid = max(defaults, key=lambda times: float(times[-1]))
        if horizon < math.inf:
            grid = _up_to(horizon, grid)
    if len(matrices) > 1:
        raise InputError(
            "initial has one shape, but the targets or students of the sweep have different ranks; "
            "simulate them apart"
        )
    given = next(iter(matrices.values()), None)
    start_of_all: Any = None if given is None else GIVEN
    # One matrix for all runs belongs to the recipe; several are a variable of the dataset.
    if given is not None and given.shape[:2] == (1, 1):
        start_of_all, given = tuple(map(tuple, given[0, 0].tolist())), None
    digest = schema.grid_digest(grid)
    recipes = np.empty([len(labels) for labels in axes.values()], dtype=object)
    for at, (one, q, of, by) in zip(np.ndindex(recipes.shape), parts, strict=True):
        recipes[at] = Recipe(one, by, q, of, start_of_all, rtol, digest)
    by_dim = {name: _labels(values) for name, values in axes.items()}
    return Plan(recipes, by_dim, ndims, indices, grid, given)


def _is_one(target: Mapping[Any, Any]) -> bool:
    """Tell a target as `Target.to_dict` returns it from a mapping of several."""
    return not all(
        callable(each) or isinstance(each, Target | str | Mapping) for each in target.values()
    )


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | range) or (
        isinstance(value, np.ndarray | xr.DataArray) and value.ndim > 0
    )


def _listed(value: Any, name: str, axes: dict[str, Sequence[Any]]) -> list[Any]:
    """Return the values of an argument; if it is a list, it becomes an axis of the sweep."""
    if not _is_list(value):
        return [value]
    values = [validation.integer(each, name, at_least=0) for each in validation.items(value, name)]
    axes[name] = values
    return values


def _targets(
    given: Any, axes: dict[str, Sequence[Any]], rank: int | None, degree: int
) -> list[Target]:
    """Return the targets of a sweep; callables are expanded by `Target.from_function`."""

    def one(target: Any) -> Target:
        if not callable(target) or isinstance(target, Target):
            return as_target(target)
        if rank is None:
            raise InputError(
                "a target that is a callable needs rank=, the number of its variables: it is "
                "called with z of shape (points, rank), such as lambda z: np.tanh(z[:, 0]) with "
                "rank=1"
            )
        return Target.from_function(target, rank, degree)

    if isinstance(given, Mapping) and not _is_one(given):
        axes["target"] = list(given)
        return [one(each) for each in given.values()]
    if not _is_list(given):
        return [one(given)]
    texts = validation.items(given, "target")
    targets = [one(each) for each in texts]
    axes["target"] = [
        each if isinstance(each, str) else own.name or f"{own:.6g}"
        for each, own in zip(texts, targets, strict=True)
    ]
    return targets


def _flows(flow: Any, axes: dict[str, Sequence[Any]]) -> list[Flow]:
    """Return the flows of a sweep, the last axis first to vary."""
    if isinstance(flow, Mapping) and "name" in flow:
        flow = from_dict(flow)
    if isinstance(flow, FlowSweep):
        axes.update(flow.axes)
        return list(flow.flows.flat)
    if isinstance(flow, Mapping) or _is_list(flow):
        each = validation.items(list(flow.values()) if isinstance(flow, Mapping) else flow, "flow")
        found = [from_dict(one) if isinstance(one, Mapping) else one for one in each]
        if any(isinstance(one, FlowSweep) for one in found):
            raise InputError(
                "a list of flows has an entry whose parameter is a list, too; list the flows "
                'one by one, for example flow={"ridge 0.1": TwoTimescale(ridge=0.1), ...}'
            )
        flows = [get(one) for one in found]
        axes["flow"] = list(flow) if isinstance(flow, Mapping) else [one.name for one in flows]
        return flows
    return [get(flow)]


def _check_axis(name: str, labels: Sequence[Any]) -> None:
    reserved = {*schema.VARIABLES, *schema.COORDINATES, *schema.DIMENSIONS} - {"n"}
    if name in reserved:
        raise InputError(
            f"a sweep over {name!r} would take the name of a variable of the schema; list the "
            'flows instead: flow={"one": ..., "other": ...}'
        )
    if not labels:
        raise InputError(f"{name} is an empty list; list at least one value")
    if name in ("target", "flow") and not all(isinstance(x, str) and x for x in labels):
        raise InputError(f"names of {name}s must be texts, got {validation.shown(list(labels))}")
    if len({str(label) for label in labels}) < len(labels):
        raise InputError(
            f"{name} has {validation.shown(list(labels))}, of which some are equal; list each once"
            + (
                f', or name them, for example {name}={{"one": ..., "other": ...}}'
                if name in ("target", "flow")
                else ""
            )
        )


def _labels(values: Sequence[Any]) -> np.ndarray:
    """Return the labels of an axis: numbers or text."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float, np.float64, np.int64}:
        numbers = np.asarray(values)
        if numbers.dtype.kind in "if":
            return numbers
    return np.array([json.dumps(v.to_dict()) if hasattr(v, "to_dict") else str(v) for v in values])


def _up_to(horizon: float, grid: FloatArray) -> FloatArray:
    """Return a grid like another one, but up to a time."""
    # The default grid has no time but 0 before such a horizon.
    if horizon <= grid[1]:
        grid = logarithmic(1e-3 * horizon, horizon)
    if horizon > grid[-1]:  # at the powers of all grids, so that dims and targets share them
        late = logarithmic(grid[1], horizon)
        grid = np.concatenate([grid, late[late > grid[-1] * (1 + 1e-9)]])
    return np.append(grid[grid < horizon * (1 - 1e-9)], horizon)


def _runs(runs: int | Sequence[int]) -> IntArray:
    if not validation.shape(runs):
        count = validation.integer(runs, "runs", at_least=1)
        if count > LARGEST_RUNS:
            raise InputError(
                f"runs must be at most {LARGEST_RUNS} in one dataset, "
                f"got {validation.shown(runs)}; split the sweep, for example by seed"
            )
        return np.arange(count)
    listed = runs.tolist() if isinstance(runs, np.ndarray) else list(runs)  # type: ignore[arg-type]
    indices = [validation.integer(run, "an index in runs", at_least=0) for run in listed]
    if not indices or len(set(indices)) < len(indices) or max(indices) >= 2**63:
        raise InputError(
            "runs must be a number of runs or distinct indices below 2**63, got "
            f"{validation.shown(runs)}; pass for example runs=64 or runs=[3, 5]"
        )
    return np.array(indices, dtype=np.int64)


def _columns(initial: ArrayLike | xr.DataArray, targets: Sequence[Target]) -> int:
    """Return the student's rank that given initial conditions imply."""
    if isinstance(initial, xr.DataArray):
        leading = [dim for dim in ("dim", "run") if dim in initial.dims]
        initial = initial.transpose(*leading, ...).values
    for target in targets:
        columns = validation.matrices(initial, "initial", target.rank, None).shape[-1]
    return int(columns)


def given_start(
    initial: ArrayLike | xr.DataArray,
    dims: IntArray,
    runs: IntArray,
    rank: int,
    student_rank: int,
    *,
    orthonormal: bool = True,
) -> FloatArray:
    """Check given initial conditions and return them as (1 or n_dims, 1 or n_runs, r, q)."""
    if isinstance(initial, xr.DataArray):
        initial = _aligned(initial, {"dim": dims, "run": runs})
    matrices = check_initial(initial, rank, student_rank, orthonormal=orthonormal)
    leading = (1,) * (4 - matrices.ndim) + matrices.shape[:-2]
    wanted = (len(dims), len(runs))
    if len(leading) > 2 or any(n not in (1, m) for n, m in zip(leading, wanted, strict=True)):
        raise InputError(
            f"initial must have shape (..., {rank}, {student_rank}) with leading axes that "
            f"broadcast over (dim, run) = {wanted}, got {matrices.shape}; "
            "give one matrix, one per run, or one per dim and run"
        )
    return matrices.reshape(*leading, rank, student_rank)


def _aligned(initial: xr.DataArray, labels: Mapping[str, IntArray]) -> FloatArray:
    """Return a DataArray's values with the axes (dim, run, rank, student_rank)."""
    matrix_dims = [name for name in initial.dims if name not in labels]
    if len(matrix_dims) != 2:
        raise InputError(
            f"initial must have two dims besides dim and run, got {initial.dims}; "
            'name them for example ("run", "axis", "student")'
        )
    for name, wanted in labels.items():
        if name in initial.indexes:
            if not initial.indexes[name].is_unique:
                raise InputError(
                    f"initial has a {name} more than once; give one matrix for each label, or drop "
                    f"the labels with .drop_vars({name!r})"
                )
            try:
                initial = initial.sel({name: wanted})
            except KeyError:
                missing = sorted(set(wanted.tolist()) - set(initial[name].values.tolist()))
                raise InputError(
                    f"initial has no {name} {validation.shown(missing)}; "
                    f"give it for every {name} that is simulated, or without the dim {name}"
                ) from None
    missing_dims = [name for name in labels if name not in initial.dims]
    expanded = initial.drop_vars(labels, errors="ignore").expand_dims(missing_dims)
    return expanded.transpose(*labels, *matrix_dims).values
