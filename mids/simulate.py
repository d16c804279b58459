"""Lazy datasets of simulated trajectories: the one place that builds dask graphs.

The graph has one task for each block of runs of one dimension, whose result is a dictionary of
arrays, and one small task for each variable and block that picks its array from it. Computing any
set of variables together therefore simulates each run once.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from . import __version__, _sweep, _validate, schema
from ._sweep import Sweep
from ._validate import FloatArray, IntArray
from .errors import DatasetError, InputError
from .flows import from_dict
from .flows.base import Flow, Problem
from .hermite import mode_label
from .initial import draw_runs
from .targets import Target

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["differences", "flow_of", "from_spec", "replay", "simulate", "target_of"]

BLOCK_BYTES = 64e6
"""Largest output of one block of runs."""
BLOCK_SECONDS = 4.0
"""Longest work of one block of runs."""
BLOCKS = 32
"""Blocks that a sweep is cut into where that leaves each of them `SMALL_SECONDS` of work."""
SMALL_SECONDS = 0.1


def simulate(
    target: Target | str,
    *,
    dim: float | Sequence[float] | ArrayLike,
    runs: int | Sequence[int] = 64,
    seed: int = 0,
    flow: str | Flow = "two-timescale",
    student_rank: int | None = None,
    initial: ArrayLike | xr.DataArray | None = None,
    time: ArrayLike | None = None,
    rtol: float = 1e-8,
    chunks: int | Literal["auto"] = "auto",
) -> xr.Dataset:
    """Return a lazy dataset of gradient-flow trajectories on a Gaussian multi-index model.

    All arguments are checked at once; nothing is simulated before the dataset is computed. The
    random stream of a run depends on ``(seed, dim, run)`` only, so that its numbers do not change
    with `chunks`, the scheduler, or the other dims and runs.

    Parameters
    ----------
    target : Target or str
        The target, or text for `Target.parse`, which is not scaled to unit norm.
    dim : number or sequence of numbers
        Ambient dimensions d, distinct, at least ``rank + student_rank`` each. 1e4 and 10000 are
        both accepted.
    runs : int or sequence of int
        How many runs, or the indices of the runs.
    seed : int
        Any non-negative integer.
    flow : str or Flow
        Name of a flow (`mids.flows.names`) or a flow with its parameters.
    student_rank : int, optional
        Columns q of the student's frame; the target's rank, or that of `initial`, if not given.
    initial : array_like or DataArray, optional
        Initial correlation matrices M(0) of shape (..., rank, student_rank) that broadcast over
        (dim, run). A DataArray may have the dims ``dim`` and ``run`` in any order, matched by
        label where it has coordinates. If not given, M(0) is drawn from its exact law.
    time : array_like, optional
        1-D grid that starts at 0 and increases. If not given, `Flow.default_time`.
    rtol : float
        Relative tolerance of the integrator, 1e-12 to 1e-2.
    chunks : int or "auto"
        Runs in one task. ``"auto"`` bounds the work and memory of a task.

    Returns
    -------
    xarray.Dataset
        With the variables of `mids.schema` that the flow yields, as dask arrays.

    Raises
    ------
    InputError
        If an argument is wrong; the message says what is allowed.

    Examples
    --------
    >>> ds = simulate("h1(z1) + h1(z1)*h3(z2)", dim=[1e2, 1e4], runs=3)
    >>> dict(ds.sizes)["run"], ds.loss.chunks is not None
    (3, True)
    >>> ds.crossing_time.dims
    ('dim', 'run', 'direction', 'level')
    """
    sweep = _sweep.check(target, dim, runs, seed, flow, student_rank, initial, time, rtol)
    return _dataset(sweep, _block_size(sweep, chunks))


def from_spec(spec: Mapping[str, Any]) -> xr.Dataset:
    """Return the lazy dataset that a mapping of `simulate`'s arguments describes.

    Parameters
    ----------
    spec : mapping
        Arguments of `simulate` by name, in types that JSON and TOML know: the target as text or as
        the dictionary of `Target.to_dict`, the flow as its name or as a dictionary with ``name``
        and its parameters.

    Returns
    -------
    xarray.Dataset
        What `simulate` returns.

    Raises
    ------
    InputError
        If a name is unknown, ``target`` or ``dim`` is missing, or a value is wrong.

    Examples
    --------
    >>> ds = from_spec({"target": "staircase(2)", "dim": [100], "runs": 2})
    >>> ds.loss.sizes["run"]
    2
    """
    for name in spec:
        _validate.one_of(name, _ARGUMENTS, "argument of a sweep")
    missing = [name for name in ("target", "dim") if name not in spec]
    if missing:
        raise InputError(
            f"a sweep needs {' and '.join(missing)}; got {_validate.shown(list(spec))}"
        )
    arguments = dict(spec)
    if isinstance(arguments["target"], Mapping):
        arguments["target"] = Target.from_dict(arguments["target"])
    if isinstance(arguments.get("flow"), Mapping):
        arguments["flow"] = from_dict(arguments["flow"])
    return simulate(**arguments)


_ARGUMENTS = tuple(name for name in simulate.__annotations__ if name != "return")


def replay(ds: xr.Dataset) -> xr.Dataset:
    """Simulate a dataset again from its attribute ``mids_spec``.

    Parameters
    ----------
    ds : xarray.Dataset
        A dataset of `simulate`, in memory, lazy or from a file. Of a selection, such as
        ``ds.isel(run=[3, 5])``, only the selected dims, runs, times, directions and levels are
        simulated and returned.

    Returns
    -------
    xarray.Dataset
        Lazy; on the same machine with the same versions its numbers are those of `ds` bit by bit,
        which `differences` checks.

    Raises
    ------
    DatasetError
        If the dataset was not made by `simulate`, or needs a variable ``initial`` it has lost.

    Examples
    --------
    >>> ds = simulate("h1(z1)", dim=100, runs=2)
    >>> replay(ds.isel(run=1)).run.item()
    1
    """
    recipe = schema.spec(ds)
    if not all(name in recipe for name in _sweep.RECORDED):
        raise DatasetError(
            "mids_spec does not describe a simulation, so there is nothing to replay; "
            "replay needs a dataset that mids.simulate made"
        )
    arguments = {name: recipe[name] for name in _sweep.RECORDED}
    arguments |= {name: _sweep.restored(ds, recipe, name) for name in ("runs", "time", "initial")}
    if "dim" in ds.coords:
        arguments["dim"] = np.atleast_1d(ds["dim"].values)
    if "run" in ds.coords:
        arguments["runs"] = np.atleast_1d(ds["run"].values)
    again = from_spec(arguments)
    return again.sel(
        {
            name: ds[name]
            for name in ("dim", "run", "time", "direction", "level")
            if name in ds.coords and not ds[name].equals(again[name])
        }
    )


def differences(ds: xr.Dataset, other: xr.Dataset) -> list[str]:
    """Compare the schema's variables of two datasets bit by bit.

    Parameters
    ----------
    ds, other : xarray.Dataset
        For example a dataset and its `replay`. Lazy ones are computed, once. Where `ds` comes from
        a compact file, `other` is rounded in the same way.

    Returns
    -------
    list of str
        One sentence for each variable of `ds` that is missing from `other` or differs, and where;
        empty if there is none.

    Examples
    --------
    >>> ds = simulate("h1(z1)", dim=100, runs=2)
    >>> differences(ds, replay(ds))
    []
    """
    found: list[str] = []
    unequal: dict[str, xr.Variable] = {}
    for name in schema.VARIABLES:
        if name == "initial" or name not in ds.data_vars:  # `initial` is an argument, not a result
            continue
        if name not in other.data_vars:
            found.append(f"{name} is missing")
            continue
        one, two = ds.variables[name], other.variables[name]
        if one.dtype == schema.VARIABLES[name].compact:
            two = two.astype(one.dtype)
        if one.sizes != two.sizes or one.dtype != two.dtype:
            found.append(
                f"{name} has {one.dtype} of {dict(one.sizes)} against {two.dtype} of "
                f"{dict(two.sizes)}"
            )
            continue
        bits = xr.apply_ufunc(_bits_differ, one, two, dask="parallelized", output_dtypes=[bool])
        unequal[name] = bits.any([d for d in bits.dims if d not in ("dim", "run")])
    compared = xr.Dataset(unequal, {n: ds[n] for n in ("dim", "run") if n in ds.coords}).compute()
    for name in unequal:
        runs = compared[name]
        differing = np.argwhere(runs.values)
        if len(differing):
            first = runs[tuple(differing[0])]
            where = ", ".join(f"{n} {first[n].item()}" for n in ("dim", "run") if n in first.coords)
            found.append(
                f"{name} differs in {len(differing)} of {runs.size} runs, first at {where}"
            )
    return found


def target_of(ds: xr.Dataset) -> Target:
    """Return the target of a dataset.

    Parameters
    ----------
    ds : xarray.Dataset
        A dataset with ``mids_spec``.

    Returns
    -------
    Target

    Raises
    ------
    DatasetError
        If the dataset does not say which target it has.

    Examples
    --------
    >>> target_of(simulate("h2(z1)", dim=100))
    <Target of rank 1, degree 2, norm 1: 1 h2(z1)>
    """
    recorded = schema.spec(ds).get("target")
    if recorded is None:
        raise DatasetError("mids_spec names no target; start from a dataset of mids.simulate")
    return Target.from_dict(recorded)


def flow_of(ds: xr.Dataset) -> Flow:
    """Return the flow of a dataset, with its parameters.

    Parameters
    ----------
    ds : xarray.Dataset
        A dataset of `simulate`.

    Returns
    -------
    Flow

    Raises
    ------
    DatasetError
        If the dataset does not say which flow made it.

    Examples
    --------
    >>> flow_of(simulate("h2(z1)", dim=100)).name
    'two-timescale'
    """
    recorded = schema.spec(ds).get("flow")
    if recorded is None:
        raise DatasetError("mids_spec names no flow: the trajectories come from outside mids")
    return from_dict(recorded)


def _block_size(sweep: Sweep, chunks: object) -> int:
    """Return the number of runs in a block; "auto" gives a power of two, which files can chunk."""
    if not isinstance(chunks, str):
        return _validate.integer(chunks, "chunks", at_least=1)
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
    total = run_seconds * len(sweep.runs) * len(sweep.dims)
    seconds = min(max(total / BLOCKS, SMALL_SECONDS), BLOCK_SECONDS)
    runs = min(seconds / run_seconds, BLOCK_BYTES / run_bytes)
    return int(2 ** max(round(math.log2(runs)), 0))


def _dataset(sweep: Sweep, block_size: int) -> xr.Dataset:
    import dask.array as da
    from dask.base import annotate, tokenize

    spec = sweep.spec
    token = tokenize(json.dumps(spec), sweep.initial, sweep.time, block_size)
    dims = da.from_array(sweep.dims, chunks=1, name=f"dim-{token}")
    runs = da.from_array(sweep.runs, chunks=block_size, name=f"run-{token}")
    initial = _initial(sweep, block_size, token)
    # Two things keep the simulations out of reach of dask's fusion, which would repeat them for
    # variables that are computed apart and change the tasks of a key (dask#9888): the annotation,
    # and the second argument of `_pick`.
    with annotate(mids="simulation"):
        cells = da.blockwise(
            _simulate_block,
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
        )
    variables = {}
    for name in sweep.variables:
        entry = schema.VARIABLES[name]
        axes = dict(zip("xyz", sweep.shape(name), strict=False))
        data = da.blockwise(
            _pick,
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


def _initial(sweep: Sweep, block_size: int, token: str) -> da.Array | None:
    """Return the given initial conditions in the blocks of the runs."""
    import dask.array as da

    if sweep.initial is None:
        return None
    chunks = (1, min(block_size, sweep.initial.shape[1]), -1, -1)
    array: da.Array = da.from_array(sweep.initial, chunks=chunks, name=f"initial-{token}")
    return array


def _simulate_block(
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
) -> dict[str, np.ndarray]:
    """Simulate a block of runs of one dimension."""
    dim = int(dims[0])
    if initial is None:
        matrices = draw_runs(target.rank, student_rank, dim, runs, seed)
    else:
        matrices = np.broadcast_to(initial[0], (len(runs), target.rank, student_rank)).copy()
    return flow.integrate(
        Problem(
            target=target,
            dim=dim,
            runs=runs,
            seed=seed,
            initial=matrices,
            time=time,
            rtol=rtol,
        )
    )


def _bits_differ(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    unsigned = f"u{one.dtype.itemsize}"
    unequal: np.ndarray = one.view(unsigned) != two.view(unsigned)
    return unequal


def _pick(
    cell: dict[str, np.ndarray], runs: IntArray, *, variable: str, shape: tuple[int, ...]
) -> np.ndarray:
    """Return one variable of a block, with the axis ``dim`` in front."""
    array = np.asarray(cell[variable], dtype=schema.VARIABLES[variable].dtype)
    if array.shape != (len(runs), *shape):
        raise RuntimeError(
            f"the flow returned {variable} of shape {array.shape} instead of {(len(runs), *shape)}"
        )
    return array[np.newaxis]


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
    target = sweep.target.name or textwrap.shorten(str(sweep.target), 80, placeholder=" ...")
    dims = ", ".join(f"{dim:g}" for dim in sweep.dims)
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
        source=f"mids {__version__}",
        command=f"simulate({target}, dim=[{dims}], runs={len(sweep.runs)}, seed={sweep.seed}, "
        f"flow={flow})",
    )
