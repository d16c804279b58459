"""The way back from a dataset: its target and flow, and the same runs simulated again."""

from __future__ import annotations

import numpy as np
import xarray as xr

from .. import schema
from ..errors import DatasetError
from ..flows import from_dict
from ..flows.base import Flow
from ..targets import Target
from . import phase_diagram as _phase_diagram
from . import sweep as _sweep
from .simulate import from_spec

__all__ = ["differences", "flow_of", "replay", "target_of"]


def replay(ds: xr.Dataset) -> xr.Dataset:
    """Simulate a dataset again from its attribute ``mids_spec``.

    Parameters
    ----------
    ds : xarray.Dataset
        A dataset of `simulate` or `mids.phase_diagram`, in memory, lazy or from a file. Of a
        selection, such as ``ds.isel(run=[3, 5])``, only the selected dims, runs, times, sample
        sizes, directions and levels are simulated and returned.

    Returns
    -------
    xarray.Dataset
        Lazy; on the same machine with the same versions its numbers are those of `ds` bit by bit,
        which `differences` checks.

    Raises
    ------
    DatasetError
        If the dataset was made by neither, or needs a variable ``initial`` it has lost.

    Examples
    --------
    >>> from mids import simulate
    >>> ds = simulate("h1(z1)", dim=100, runs=2)
    >>> replay(ds.isel(run=1)).run.item()
    1
    """
    recipe = schema.spec(ds)
    if "phase_diagram" in recipe:
        return _phase_diagram.again(ds)
    if not all(name in recipe for name in _sweep.RECORDED):
        raise DatasetError(
            "mids_spec does not describe a simulation, so there is nothing to replay; "
            "replay needs a dataset that mids.simulate made"
        )
    arguments = {name: recipe[name] for name in _sweep.RECORDED}
    arguments |= {name: _sweep.restored(ds, recipe, name) for name in ("runs", "time", "initial")}
    if "dim" in ds.coords:
        arguments["dim"] = np.unique(ds["dim"])  # a resampled dataset has labels several times
    if "run" in ds.coords:
        arguments["runs"] = np.unique(ds["run"])
    again = from_spec(arguments)
    chosen = {
        name: ds[name]
        for name in ("dim", "run", "time", "direction", "level")
        if name in ds.coords and not ds[name].equals(again[name])
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
    """Return the target of a dataset."""
    spec = schema.spec(ds)
    diagram = spec.get("phase_diagram")
    recorded = (diagram if isinstance(diagram, dict) else spec).get("target")
    if recorded is None:
        raise DatasetError("mids_spec names no target; start from a dataset of mids.simulate")
    return Target.from_dict(recorded)


def flow_of(ds: xr.Dataset) -> Flow:
    """Return the flow of a dataset, with its parameters."""
    spec = schema.spec(ds)
    if "phase_diagram" in spec:
        raise DatasetError(
            "a phase diagram has a flow for each n; make one of them with "
            "mids.flows.Empirical(n=..., ...) and the parameters that ds.mi.describe() shows"
        )
    recorded = spec.get("flow")
    if recorded is None:
        raise DatasetError("mids_spec names no flow: the trajectories come from outside mids")
    return from_dict(recorded)


def _bits_differ(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    unsigned = f"u{one.dtype.itemsize}"
    unequal: np.ndarray = one.view(unsigned) != two.view(unsigned)
    return unequal
