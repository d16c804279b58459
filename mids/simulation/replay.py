"""The way back from a dataset: its target and flow, and the same runs simulated again."""

from __future__ import annotations

import numpy as np
import xarray as xr

from .. import schema, validation
from ..errors import DatasetError
from ..flows.base import Flow
from ..targets import Target
from . import graph as _graph
from . import joining
from .by_recipe import by_recipe
from .phase_diagram import outcomes
from .plan import Plan, given_start
from .recipe import GIVEN, Recipe, grid

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
    again = by_recipe(ds, _again, of=joining.ALL, lazy=True)
    lacking = {name: array for name, array in ds.coords.items() if name not in again.coords}
    again = again.assign_coords(lacking)
    labels = ds.drop_vars(ds.data_vars).coords.to_dataset()
    own = [name for name in labels.dims if name not in ("dim", "run", "time")]
    again = joining.padded([labels.drop_dims(set(labels.dims) - set(own)), again], "")[1]
    ordered = {name: ds[name].dims for name in again.data_vars if name in ds}
    return again.assign({name: again[name].transpose(*dims) for name, dims in ordered.items()})


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
    dims, runs = (np.unique(ds[name]).astype(np.int64) for name in ("dim", "run"))
    initial = None
    if recipe.initial == GIVEN:
        if "initial" not in ds:
            raise DatasetError(
                "the dataset has lost its variable 'initial', without which it cannot be "
                "replayed; start from the original file"
            )
        start = ds["initial"]
        if "dim" not in start.dims or "run" not in start.dims:
            start = start.expand_dims([name for name in ("dim", "run") if name not in start.dims])
        rank = recipe.target.rank
        initial = given_start(start, dims, runs, rank, recipe.student_rank)
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
    """Return the target of a dataset that has one."""
    return joining.one_recipe(ds, (), what="target").target


def flow_of(ds: xr.Dataset) -> Flow:
    """Return the flow of a dataset that has one, with its parameters."""
    flow = joining.one_recipe(ds, ("flow",), what="target and flow").flow
    if flow is None:
        raise DatasetError("the recipe names no flow: the trajectories come from outside mids")
    return flow


def _bits_differ(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    unsigned = f"u{one.dtype.itemsize}"
    unequal: np.ndarray = one.view(unsigned) != two.view(unsigned)
    return unequal
