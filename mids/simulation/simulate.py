"""Lazy datasets of simulated trajectories, and the way back from a dataset to its simulation."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Never

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from .. import schema, validation
from ..errors import DatasetError, FileError, InputError
from ..flows import classes
from ..flows.base import Flow, FlowSweep
from ..targets.target import Target
from . import graph as _graph
from .by_recipe import by_recipe
from .joining import padded
from .phase_diagram import outcomes
from .plan import Plan, check, given_start
from .recipe import GIVEN, PARTS, Recipe, grid, one_recipe

Function = Callable[[np.ndarray], ArrayLike]
OneTarget = Target | str | Function
OneFlow = str | Flow
Chunks = int | Literal["auto"] | tuple[int, ...] | Mapping[str, Any] | None


def simulate(
    target: OneTarget | Sequence[OneTarget] | Mapping[str, OneTarget],
    *,
    dim: float | Sequence[float] | ArrayLike,
    runs: int | Sequence[int] = 64,
    seed: int | Sequence[int] = 0,
    flow: OneFlow | FlowSweep | Sequence[OneFlow] | Mapping[str, OneFlow] = "two-timescale",
    student_rank: int | Sequence[int] | None = None,
    initial: ArrayLike | xr.DataArray | None = None,
    time: ArrayLike | None = None,
    rtol: float = 1e-8,
    chunks: Chunks = "auto",
    rank: int | None = None,
    degree: int = 10,
    **unknown: Never,
) -> xr.Dataset:
    """Return a lazy dataset of gradient-flow trajectories on a Gaussian multi-index model.

    All arguments are checked at once; nothing is simulated before the dataset is computed. The
    random stream of a run depends on ``(seed, dim, run)`` only, so that its numbers do not change
    with `chunks`, the scheduler, or the other dims and runs.

    A list or mapping instead of one target, flow, student rank or seed, or a list instead of a
    parameter of a flow, makes a sweep: a dim of that name, in the outer product with all others.
    Each combination is a recipe, whose fingerprint the variable ``recipe`` holds; the attribute
    ``mids_recipes`` has the recipes.

    Parameters
    ----------
    target : Target, str or callable
        The target; text for `Target.parse`, which is not scaled to unit norm; or a function of
        points (n, `rank`), for `Target.from_function`. A list or a mapping, which names them, gives
        the dim ``target``; modes and directions that a target does not have are NaN.
    dim : number or sequence of numbers
        Ambient dimensions d, distinct, at least ``rank + student_rank`` each. 1e4 and 10000 are
        both accepted.
    runs : int or sequence of int
        How many runs, or the indices of the runs.
    seed : int
        Any non-negative integer; a list gives the dim ``seed``.
    flow : str or Flow
        Name of a flow (`mids.flows.names`) or a flow with its parameters. A parameter that is a
        list gives a dim of its name, as in ``TwoTimescale(ridge=[0, 0.1, 1])``; a list or mapping
        of flows the dim ``flow``.
    student_rank : int, optional
        Columns q of the student's frame; the target's rank, or that of `initial`, if not given. A
        list gives the dim ``student_rank``.
    initial : array_like or DataArray, optional
        Initial correlation matrices M(0) of shape (..., rank, student_rank) that broadcast over
        (dim, run). A DataArray may have the dims ``dim`` and ``run`` in any order, matched by
        label where it has coordinates. If not given, M(0) is drawn from its exact law.
    time : array_like or number, optional
        1-D grid that starts at 0 and increases; or the last time of a grid of the flow's choice. If
        not given, `Flow.default_time`, of a sweep the one that ends last.
    rtol : float
        Relative tolerance of the integrator, 1e-12 to 1e-2.
    chunks : int, tuple, mapping, "auto" or None
        Runs in one task, in the forms of `xarray.Dataset.chunk`; -1 and None put all runs of a
        recipe and a dimension into one. ``"auto"`` bounds the work and memory of a task.
    rank, degree : int
        Of a target that is a callable: its variables, and the highest degree of its expansion.
    **unknown
        Nothing else is taken; the error says which argument was probably meant.

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
    >>> from mids.flows import TwoTimescale
    >>> sweep = simulate(["h1(z1)", "h2(z1)"], dim=100, flow=TwoTimescale(ridge=[0, 0.1, 1]))
    >>> dict(sweep.loss.isel(time=-1).sizes)
    {'target': 2, 'ridge': 3, 'dim': 1, 'run': 64}
    """
    if unknown:
        _refuse(next(iter(unknown)))
    plan = check(target, dim, runs, seed, flow, student_rank, initial, time, rtol, rank, degree)
    return _graph.dataset(plan, _graph.block_sizes(plan, chunks))


def from_spec(spec: Mapping[str, Any]) -> xr.Dataset:
    """Return the lazy dataset that a mapping of `simulate`'s arguments describes."""
    validation.entries(spec, ("target", "dim"), _ARGUMENTS, "a sweep")
    return simulate(**spec)


_ARGUMENTS = tuple(n for n in simulate.__annotations__ if n not in ("unknown", "return"))


def _refuse(name: str) -> None:
    """Raise an error for an argument that `simulate` does not have."""
    owners = [
        flow.__name__ for flow in classes() if name in {f.name for f in dataclasses.fields(flow)}
    ]
    if owners:
        raise InputError(
            f"simulate has no argument {name!r}, which is a parameter of {', '.join(owners)}; "
            f"pass flow=mids.flows.{owners[0]}({name}=...)"
        )
    validation.one_of(name, _ARGUMENTS, "argument of simulate")


def read_spec(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the arguments of a sweep from a TOML file, for `from_spec`."""
    try:
        return tomllib.loads(validation.path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot read {path} ({error.strerror}); check the path") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileError(f"{path} is no TOML file ({error}); see toml.io for the format") from None


SELECTED = ("dim", "run", "time", "direction", "level")


def replay(ds: xr.Dataset) -> xr.Dataset:
    """Simulate a dataset again, each run by its recipe.

    Parameters
    ----------
    ds : xarray.Dataset
        A dataset of `simulate` or `mids.phase_diagram`, in memory, lazy or from a file, also
        joined from several with `mids.concat`. Of a selection, such as ``ds.isel(run=[3, 5])``,
        only the selected dims, runs, times, directions and levels are simulated and returned.

    Returns
    -------
    xarray.Dataset
        Lazy; on the same machine with the same versions its numbers are those of `ds` bit by bit,
        which `differences` checks.

    Raises
    ------
    InputError
        If `ds` is no dataset.
    DatasetError
        If the dataset was made by neither, or needs a variable ``initial`` it has lost.

    Examples
    --------
    >>> from mids import simulate
    >>> ds = simulate("h1(z1)", dim=100, runs=2)
    >>> replay(ds.isel(run=1)).run.item()
    1
    """
    validation.dataset(ds)
    again = by_recipe(ds, _again, of=PARTS, lazy=True)
    lacking = {name: array for name, array in ds.coords.items() if name not in again.coords}
    again = again.assign_coords(lacking)
    labels = ds.drop_vars(ds.data_vars).coords.to_dataset()
    # Axes as long as those of the dataset, which may once have had larger targets.
    own = [name for name in labels.dims if name not in ("dim", "run", "time")]
    again = padded([labels.drop_dims(set(labels.dims) - set(own)), again], "")[1]
    ordered = {name: ds[name].dims for name in again.data_vars if name in ds}
    return again.assign(
        {name: again[name].transpose(*d, ..., missing_dims="ignore") for name, d in ordered.items()}
    )


def _again(ds: xr.Dataset, recipe: Recipe) -> xr.Dataset:
    """Simulate the runs of one recipe again."""
    if recipe.flow is None or recipe.student_rank is None:
        raise DatasetError(
            "the trajectories were not simulated, so there is nothing to replay; "
            "replay needs a dataset that mids.simulate made"
        )
    for name in ("dim", "run"):
        if name not in ds.coords:
            raise DatasetError(f"replay needs the coordinate {name!r}, by which runs are drawn")
    # Each run is simulated once; `sel` below restores the dataset's order and repetitions.
    dims, runs = (np.unique(ds[name]).astype(np.int64) for name in ("dim", "run"))
    initial = None
    if recipe.initial == GIVEN:
        if "initial" not in ds:
            raise DatasetError(
                "the dataset has lost its variable 'initial', without which it cannot be "
                "replayed; start from the original file"
            )
        start = ds["initial"]
        start = start.expand_dims([name for name in ("dim", "run") if name not in start.dims])
        initial = given_start(start, dims, runs, recipe.target.rank, recipe.student_rank)
    cell = np.empty((), dtype=object)
    cell[()] = recipe
    plan = Plan(cell, {}, dims, runs, grid(ds, recipe), initial)
    again = _graph.dataset(plan, _graph.block_sizes(plan, "auto"))
    if "success" in ds:
        again = outcomes(again, plan, float(ds["success"].attrs.get("level", 0.5)), None)
    chosen = {
        name: ds[name]
        for name in SELECTED
        if name in ds.coords and name in again.coords and not ds[name].equals(again[name])
    }
    for name, labels in chosen.items():
        if not np.isin(labels, again[name]).all():
            raise DatasetError(
                f"{name} has values that were not simulated and cannot be replayed; replay the "
                "dataset as it was before they were changed"
            )
    return again.sel(chosen)


def differences(ds: xr.Dataset, other: xr.Dataset) -> list[str]:
    """Compare the schema's variables of two datasets bit by bit."""
    found: list[str] = []
    unequal: dict[str, xr.Variable] = {}
    for name in schema.VARIABLES:
        if name == "initial" or name not in ds.data_vars:  # `initial` is an argument, not a result
            continue
        if name not in other.data_vars:
            found.append(f"{name} is missing")
            continue
        one, two = ds.variables[name], other.variables[name]
        # Compact files hold rounded numbers: compare with the same rounding.
        if one.dtype == schema.VARIABLES[name].compact:
            two = two.astype(one.dtype)
        if (one.sizes, one.dtype) != (two.sizes, two.dtype):
            here, there = (f"{v.dtype} of {dict(v.sizes)}" for v in (one, two))
            found.append(f"{name} has {here} against {there}")
            continue
        bits = xr.apply_ufunc(_bits_differ, one, two, dask="parallelized", output_dtypes=[bool])
        unequal[name] = bits.any([d for d in bits.dims if d not in ("dim", "run")])
    coords = {n: ds[n] for n in ("dim", "run") if n in ds.coords}
    # All at once: a lazy run is simulated for all of its variables together.
    compared = xr.Dataset(unequal, coords).compute()
    for name in unequal:
        runs = compared[name]
        differing = np.argwhere(runs.values)
        if len(differing):
            first = runs[tuple(differing[0])]
            where = ", ".join(f"{n} {first[n].item()}" for n in coords if n in first.coords)
            found.append(
                f"{name} differs in {len(differing)} of {runs.size} runs, first at {where}"
            )
    return found


def target_of(ds: xr.Dataset) -> Target:
    """Return the target of a dataset that has one."""
    return one_recipe(ds, (), what="target").target


def flow_of(ds: xr.Dataset) -> Flow:
    """Return the flow of a dataset that has one, with its parameters."""
    flow = one_recipe(ds, ("flow",), what="target and flow").flow
    if flow is None:
        raise DatasetError("the recipe names no flow: the trajectories come from outside mids")
    return flow


def _bits_differ(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    # As bits, so that NaN equals NaN and 0.0 differs from -0.0.
    unsigned = f"u{one.dtype.itemsize}"
    unequal: np.ndarray = one.view(unsigned) != two.view(unsigned)
    return unequal
