"""Datasets of schema 1, whose recipe was one attribute, in the current schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .. import schema
from ..errors import DatasetError, InputError
from .recipe import GIVEN, Recipe

SIMULATED = ("target", "runs", "dim", "seed", "flow", "student_rank", "initial", "time", "rtol")


def upgraded(ds: xr.Dataset) -> xr.Dataset:
    """Return a dataset of schema 1 in the current schema; others unchanged.

    No value changes: the attribute ``mids_spec`` becomes the variable ``recipe`` and the attribute
    ``mids_recipes``, initial conditions that it held become the variable ``initial``, and the
    coordinate ``label`` the index ``mode``.
    """
    if ds.attrs.get("mids_schema") != 1:
        return ds
    try:
        out = _with_recipe(ds, json.loads(ds.attrs.get("mids_spec", "{}")))
    except (
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
        InputError,
    ) as error:
        # The attribute may be anybody's text: whatever is wrong with it becomes one error.
        text = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise DatasetError(f"mids_spec does not describe the dataset ({text})") from None
    if "label" in out.coords and out["label"].dims == ("mode",):
        entry = schema.COORDINATES["mode"]
        labels = xr.Variable(entry.dims, out["label"].values.astype(str), entry.attributes)
        out = out.drop_vars("label").assign_coords(mode=labels)
    out.attrs = {name: value for name, value in out.attrs.items() if name != "mids_spec"}
    out.attrs["mids_schema"] = schema.SCHEMA_VERSION
    out.attrs.setdefault("mids_recipes", schema.recorded({}, {}))
    return out


def _with_recipe(ds: xr.Dataset, spec: Mapping[str, Any]) -> xr.Dataset:
    diagram = spec.get("phase_diagram")
    if diagram is not None:
        grid = [0.0, float(diagram["duration"])]
        flows = [{"name": "empirical", **diagram["flow"], "n": n} for n in diagram["n"]]
        common = {**diagram, "rtol": 1e-8, "initial": None}
        ds = ds.assign(success=ds["success"].assign_attrs(level=float(diagram["level"])))
        ratio = ds["ratio"].assign_attrs(exponent=int(diagram["exponent"]))
        return _recorded(ds.assign_coords(ratio=ratio), common, flows, grid, along=diagram["n"])
    if "target" not in spec:
        return ds
    if "flow" not in spec:
        recipe = Recipe.from_dict({"target": spec["target"]})
        versions = {"mids": spec["mids_version"]} if "mids_version" in spec else {}
        return _assigned(ds, [recipe], versions, {})
    missing = [name for name in SIMULATED if name not in spec]
    if missing:
        raise InputError(f"it lacks {', '.join(missing)}")
    grid = spec["time"]
    # A long grid was recorded as the name of the coordinate that holds it.
    if isinstance(grid, Mapping):
        grid = ds[grid["variable"]].values.tolist()
    initial = spec["initial"]
    if isinstance(initial, Mapping):
        initial = GIVEN
    elif initial is not None:
        array = np.asarray(initial, dtype=np.float64)
        if array.shape[:2] == (1, 1):
            initial = array[0, 0].tolist()
        else:
            initial = GIVEN
            ds = ds.assign(initial=_each_runs_own(ds, spec, array))
    return _recorded(ds, {**spec, "initial": initial}, [spec["flow"]], grid)


def _each_runs_own(ds: xr.Dataset, spec: Mapping[str, Any], array: np.ndarray) -> xr.Variable:
    """Return initial conditions (1 or n_dims, 1 or n_runs, ...) for the runs of `ds`."""
    runs = spec["runs"]
    labels = {"dim": spec["dim"], "run": list(range(runs)) if isinstance(runs, int) else runs}
    if isinstance(labels["run"], Mapping):
        labels["run"] = ds["run"].values
    whole = (len(labels["dim"]), len(labels["run"]), *array.shape[2:])
    entry = schema.VARIABLES["initial"]
    full = xr.DataArray(np.broadcast_to(array, whole), labels, entry.dims, attrs=entry.attributes)
    return full.sel({name: ds[name] for name in labels if name in ds.coords}).variable


def _recorded(
    ds: xr.Dataset,
    spec: Mapping[str, Any],
    flows: Sequence[Mapping[str, Any]],
    grid: list[float],
    along: list[int] | None = None,
) -> xr.Dataset:
    """Record the recipes of a simulation, one for each flow."""
    digest = schema.grid_digest(grid)
    parts = {name: spec[name] for name in ("target", "student_rank", "seed", "initial", "rtol")}
    recipes = [Recipe.from_dict({**parts, "flow": flow, "time": digest}) for flow in flows]
    grids = {digest: list(map(float, grid))}
    return _assigned(ds, recipes, dict(spec.get("versions", {})), grids, along)


def _assigned(
    ds: xr.Dataset,
    recipes: Sequence[Recipe],
    versions: Mapping[str, str],
    grids: Mapping[str, list[float]],
    along: Sequence[int] | None = None,
) -> xr.Dataset:
    """Give runs the one recipe, or those `along` the dim n."""
    entry = schema.VARIABLES["recipe"]
    prints = schema.fingerprint_bytes(recipe.fingerprint for recipe in recipes)
    own = xr.Variable("byte", prints[0])
    if along is not None:
        own = xr.DataArray(prints, {"n": along}, ("n", "byte")).sel(n=ds["n"].values).variable
    known = {**ds.sizes, **own.sizes}
    dims = dict.fromkeys((*(dim for dim in own.dims if dim not in entry.dims), *entry.dims))
    sizes = {dim: known[dim] for dim in dims if dim in known}
    full = xr.Variable(tuple(sizes), own.set_dims(sizes).transpose(*sizes).values, entry.attributes)
    found = {each.fingerprint: each.to_dict() | {"versions": versions} for each in recipes}
    return ds.assign(recipe=full).assign_attrs(mids_recipes=schema.recorded(found, grids))
