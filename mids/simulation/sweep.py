"""The checked arguments of a simulation: what `simulate` works from and ``mids_spec`` records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from .. import schema, validation
from ..errors import DatasetError, InputError
from ..flows import get
from ..flows.base import Flow
from ..flows.initial import check_initial
from ..targets.target import Target
from ..validation import FloatArray, IntArray

__all__ = ["RECORDED", "Sweep", "check", "restored"]

INLINE = 4096
"""Arrays of up to this many numbers are written into ``mids_spec``."""

LARGEST_RUNS = 10**8
"""Runs whose indices are held in memory."""

RECORDED = ("target", "dim", "runs", "seed", "flow", "student_rank", "initial", "time", "rtol")
"""Arguments of `simulate` that ``mids_spec`` holds."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """The checked arguments of `simulate`.

    ``initial`` has shape (1 or n_dims, 1 or n_runs, rank, student_rank).
    """

    target: Target
    dims: IntArray
    runs: IntArray
    seed: int
    flow: Flow
    student_rank: int
    initial: FloatArray | None
    time: FloatArray
    rtol: float

    @property
    def counted(self) -> bool:
        """Whether the runs are 0, 1, 2, ..."""
        return np.array_equal(self.runs, np.arange(len(self.runs)))

    @property
    def spec(self) -> dict[str, Any]:
        """Everything needed to simulate the sweep again, JSON-able."""
        return {
            "target": self.target.to_dict(),
            "dim": self.dims.tolist(),
            "runs": len(self.runs) if self.counted else _inline(self.runs, "run"),
            "seed": self.seed,
            "flow": self.flow.to_dict(),
            "student_rank": self.student_rank,
            "initial": None if self.initial is None else _inline(self.initial, "initial"),
            "time": _inline(self.time, "time"),
            "rtol": self.rtol,
            "versions": {name: version(name) for name in ("numpy", "scipy", "numba")}
            | {"mids": schema.VERSION},
        }

    @property
    def initial_is_large(self) -> bool:
        """Whether the initial conditions are a variable of the dataset, not part of its spec."""
        return self.initial is not None and self.initial.size > INLINE

    @property
    def variables(self) -> list[str]:
        """Variables of the schema that the flow yields, in the order of the schema."""
        yielded = self.flow.variables(self.target)
        return [name for name in schema.VARIABLES if name in yielded]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a variable for one run."""
        rank = self.target.rank
        sizes = {
            "time": len(self.time),
            "mode": len(self.target.modes),
            "direction": rank,
            "axis": rank,
            "axis_t": rank,
            "student": self.student_rank,
            "level": len(schema.LEVELS),
        }
        return tuple(sizes[dim] for dim in schema.VARIABLES[name].dims[2:])


def check(
    target: Target | str,
    dim: float | Sequence[float] | ArrayLike,
    runs: int | Sequence[int],
    seed: int,
    flow: str | Flow,
    student_rank: int | None,
    initial: ArrayLike | xr.DataArray | None,
    time: ArrayLike | None,
    rtol: float,
) -> Sweep:
    """Check the arguments of `simulate` and fill in the defaults."""
    if isinstance(target, str):
        target = Target.parse(target)
    if not isinstance(target, Target):
        raise InputError(
            f"target must be a Target or its text, got {validation.shown(target)}; "
            'pass for example "h1(z1) + h1(z1)*h3(z2)"'
        )
    if student_rank is None:
        student_rank = target.rank if initial is None else _columns(initial, target.rank)
    student_rank = validation.integer(student_rank, "student_rank", at_least=1)
    dims = validation.dims(
        dim.values if isinstance(dim, xr.DataArray) else dim, target.rank, student_rank
    )
    indices = _runs(runs)
    chosen = get(flow)
    chosen.check(target, dims, student_rank)
    matrices = None
    if initial is not None:
        matrices = _initial(initial, dims, indices, target.rank, student_rank)
    if time is None:
        grid = chosen.default_time(target, int(dims.max()), student_rank, matrices)
    else:
        grid = validation.time_grid(time)
    return Sweep(
        target,
        dims,
        indices,
        validation.integer(seed, "seed", at_least=0),
        chosen,
        student_rank,
        matrices,
        grid,
        validation.rtol(rtol),
    )


def _runs(runs: int | Sequence[int]) -> IntArray:
    try:
        given = np.asarray(runs)
    except ValueError:  # lists of different lengths
        given = np.empty(0)
    if given.ndim == 0:
        count = validation.integer(runs, "runs", at_least=1)
        if count > LARGEST_RUNS:
            raise InputError(
                f"runs must be at most {LARGEST_RUNS} in one dataset, "
                f"got {validation.shown(runs)}; split the sweep, for example by seed"
            )
        return np.arange(count)
    indices = [validation.integer(run, "an index in runs", at_least=0) for run in given.tolist()]
    if not indices or len(set(indices)) < len(indices) or max(indices) >= 2**63:
        raise InputError(
            "runs must be a number of runs or distinct indices below 2**63, got "
            f"{validation.shown(runs)}; "
            "pass for example runs=64 or runs=[3, 5]"
        )
    return np.array(indices, dtype=np.int64)


def _columns(initial: ArrayLike | xr.DataArray, rank: int) -> int:
    """Return the student's rank that given initial conditions imply."""
    if isinstance(initial, xr.DataArray):
        leading = [dim for dim in ("dim", "run") if dim in initial.dims]
        initial = initial.transpose(*leading, ...).values
    return int(validation.matrices(initial, "initial", rank, None).shape[-1])


def _initial(
    initial: ArrayLike | xr.DataArray,
    dims: IntArray,
    runs: IntArray,
    rank: int,
    student_rank: int,
) -> FloatArray:
    """Check given initial conditions and return them as (1 or n_dims, 1 or n_runs, r, q)."""
    if isinstance(initial, xr.DataArray):
        initial = _aligned(initial, {"dim": dims, "run": runs})
    matrices = check_initial(initial, rank, student_rank)
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


def _inline(array: FloatArray | IntArray, variable: str) -> Any:
    """Return an array for ``mids_spec``, or which variable holds it if it is large."""
    return array.tolist() if array.size <= INLINE else {"variable": variable}


def restored(ds: xr.Dataset, recipe: Mapping[str, Any], name: str) -> Any:
    """Return the argument ``runs``, ``time`` or ``initial`` of a recorded sweep."""
    value = recipe[name]
    if isinstance(value, Mapping):
        if value["variable"] not in ds.variables:
            raise DatasetError(
                f"the dataset has lost its variable {value['variable']}, without which it cannot "
                "be replayed; start from the original file"
            )
        return ds[value["variable"]]
    if name == "initial" and value is not None:
        labels = {"dim": recipe["dim"], "run": recipe["runs"]}
        if isinstance(labels["run"], int):
            labels["run"] = list(range(labels["run"]))
        array = xr.DataArray(value, dims=("dim", "run", "axis", "student"))
        single = [dim for dim in labels if array.sizes[dim] == 1]
        kept = {dim: values for dim, values in labels.items() if dim not in single}
        return array.isel(dict.fromkeys(single, 0)).assign_coords(kept)
    return value
