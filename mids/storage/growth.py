"""What a store holds, and how a sweep with more runs, dims or values continues it.

The state of a dataset, as JSON has it, is kept in ``mids.json``: two sweeps are the same where
their states are, and one continues another where it has all that the other has. Values that bring
modes, directions, columns of the student or variables change the layout of all blocks: the state
has all layouts since the first one, and the mark of a block says which one it has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import Any

import numpy as np
import xarray as xr

from .. import schema, validation
from ..errors import DatasetError, InputError
from ..simulation.graph import in_sweep, unknown
from ..simulation.plan import extents, modes_of
from ..simulation.recipe import GIVEN, Recipe, fingerprints
from .store import Location, digest

FIRST = ("date_created", "history")  # attributes that stay as the first call wrote them


def lazy_names(ds: xr.Dataset) -> list[str]:
    """Return the names of the lazy variables, which are written block by block."""
    return [str(name) for name, variable in ds.data_vars.items() if variable.chunks is not None]


def block_dims(ds: xr.Dataset) -> tuple[str, ...]:
    """Return the dims along which blocks are cut: those of any lazy variable up to ``run``."""
    all_dims = [ds[name].dims for name in lazy_names(ds) if "run" in ds[name].dims]
    dims = max(all_dims, key=lambda dims: dims.index("run"), default=())
    return tuple(map(str, dims[: dims.index("run") + 1])) if dims else ()


def state_of(ds: xr.Dataset) -> dict[str, Any]:
    """Return what tells a store from all others, in types that JSON knows."""
    along = block_dims(ds)
    sizes = {name: ds.sizes[name] for name in along}
    recipes = _recipes(ds)
    # Recipes say nothing about what is derived or comes from outside: its graph alone does.
    simulated = recipes and all("flow" in recipe for recipe in recipes.values())
    derived = {n for n in lazy_names(ds) if not simulated or n not in schema.VARIABLES}
    variables = {
        str(name): {
            "dims": list(variable.dims),
            "dtype": variable.dtype.str,
            "shape": [n for dim, n in variable.sizes.items() if dim not in along],
            "graph": variable.data.name if name in derived else None,
        }
        for name, variable in ds.data_vars.items()
    }
    state = {
        "chunk": ds.chunksizes["run"][0],
        "sizes": sizes,
        "labels": {name: ds[name].values.tolist() for name in along[:-1]},
        "recipes": recipes,
        "variables": variables,
        "attributes": {name: ds.attrs[name] for name in FIRST if name in ds.attrs},
        "layouts": [
            {
                "modes": ds["mode"].values.tolist() if "mode" in ds.coords else [],
                "shapes": {name: variables[name]["shape"] for name in lazy_names(ds)},
            }
        ],
        **_checked(ds, sizes),
    }
    # Through JSON, like the stored state, so that tuples and lists compare equal.
    plain: dict[str, Any] = json.loads(json.dumps(state))
    return plain


def _recipes(ds: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return the recipes of a dataset by fingerprint; none if those of some runs are not known."""
    try:
        masked = bool((fingerprints(ds)[0] < 0).any())
    except (DatasetError, KeyError):
        masked = True
    found = {} if masked else schema.recipes(ds)
    # Versions do not tell sweeps apart: a newer one may complete a store.
    for entry in found.values():
        entry.pop("versions", None)
    return found


def _checked(ds: xr.Dataset, sizes: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """Return digests of the coordinates, and of what has the dims of the blocks."""
    found: dict[str, dict[str, str]] = {"coordinates": {}, "growing": {}}
    names = [*ds.coords, *({"recipe"} & ds.data_vars.keys())]
    # No recipe can draw starts that were given, so they are compared themselves.
    if any(recipe.get("initial") == GIVEN for recipe in _recipes(ds).values()):
        names += {"initial"} & ds.data_vars.keys()
    for name in names:
        kind = "growing" if {*ds[name].dims} & sizes.keys() else "coordinates"
        found[kind][str(name)] = _digest(ds[name].values)
    return found


def _digest(values: np.ndarray) -> str:
    if values.dtype.kind not in "iufb":  # text, as any of NumPy's types
        return digest(json.dumps(values.astype(str).tolist()).encode())
    return digest(np.ascontiguousarray(values).tobytes())


def grown(
    location: Location, before: Mapping[str, Any], ds: xr.Dataset
) -> tuple[dict[str, Any], xr.Dataset]:
    """Return a store's state with layouts, and the dataset in its order; or say what differs."""
    here = there = state_of(ds)
    sizes = before["sizes"]
    found = _differing([*sizes], [*here["sizes"]], "dims of the blocks")
    if not found and sizes["run"] > here["sizes"]["run"]:
        found = _differing(sizes["run"], here["sizes"]["run"], "runs")
    for name, labels in {} if found else before["labels"].items():
        lacking = [label for label in labels if label not in here["labels"][name]]
        if lacking:
            found.append(f"{name} has {validation.shown(lacking)} there and not here")
        # New values come last, so that the blocks that are there keep their numbers.
        order = [*labels, *(label for label in here["labels"][name] if label not in labels)]
        if not lacking and order != here["labels"][name]:
            ds = ds.isel({name: [here["labels"][name].index(label) for label in order]})
    if not found:
        lost, new = (
            [one[name] for name in one if name not in other]
            for one, other in permutations((before["recipes"], here["recipes"]))
        )
        if lost:
            found += _differing(lost[0], new[0] if new else {}, "")
        # The part that is there already must be the same; all else is new.
        first = ds.isel({name: slice(size) for name, size in sizes.items()})
        if new and not lost:
            first = _without(first, before["recipes"].values(), new)
        there = state_of(first)
        for name in ("variables", "coordinates", "growing"):
            found += _differing(before[name], there[name], "")
    if found:
        raise InputError(
            f"{location.url} holds another sweep: {'; '.join(found[:4])}"
            + (f"; and {len(found) - 4} more" if len(found) > 4 else "")
            + "; give the same arguments to complete it, more runs, dims or values of a sweep, "
            "with the same time grid, to let it grow, or a new store"
        )
    return {"layouts": there["layouts"], **before}, ds.assign_attrs(before["attributes"])


def _without(
    ds: xr.Dataset, kept: Iterable[Mapping[str, Any]], dropped: Iterable[Mapping[str, Any]]
) -> xr.Dataset:
    """Return the runs of some recipes without what only the others of their sweep bring."""
    recipes, others = ([Recipe.from_dict(entry) for entry in each] for each in (kept, dropped))
    yielded, foreign = (
        {name for each in of for name in (each.flow.variables(each.target) if each.flow else ())}
        for of in (recipes, others)
    )
    ds = ds.drop_vars(foreign - yielded, errors="ignore")
    cut: dict[str, Any] = {dim: slice(size) for dim, size in extents(recipes).items()}
    if "mode" in ds.indexes:
        cut["mode"] = np.flatnonzero(np.isin(ds["mode"].values, [*modes_of(recipes)]))
    ds = ds.isel(cut, missing_dims="ignore")
    if "samples" in ds.coords and ds["samples"].ndim > 1:
        own = ds["samples"]
        one = own.isel(dict.fromkeys({*own.dims} - {"time"}, 0), drop=True)
        if (own == one).all():
            ds = ds.assign_coords(samples=one) if one.any() else ds.drop_vars("samples")
    used = {dim for array in ds.data_vars.values() for dim in array.dims}
    idle = [n for n, c in ds.coords.items() if n in schema.COORDINATES and not {*c.dims} <= used]
    return ds.drop_vars(idle)


def in_layout(
    arrays: Mapping[str, np.ndarray], there: Mapping[str, Any], here: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the variables (run, ...) of a block in another layout."""
    positions = {label: at for at, label in enumerate(here["modes"])}
    modes = [positions[label] for label in there["modes"]]
    count = len(next(iter(arrays.values())))
    return {
        name: in_sweep(arrays[name], name, arrays[name].shape, (count, *shape), modes)
        if name in arrays
        else unknown(name, (count, *shape))
        for name, shape in here["shapes"].items()
    }


def _differing(there: Any, here: Any, name: str) -> list[str]:
    """Return what differs between two nested structures, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            text
            for key in sorted(there.keys() | here.keys())
            for text in _differing(there.get(key), here.get(key), f"{name}.{key}".strip("."))
        ]
    if there == here:
        return []
    if name == "time":  # digests of grids
        return [
            "time differs (the default grid depends on dims, target and flow; pass the one that is "
            "there, time=xarray.open_zarr(...).time, or from the beginning time= with a last time)"
        ]
    if isinstance(there, str) and len(there) == 64:  # digests
        return [f"{name} differs"]
    return [f"{name} is {validation.shown(there)} there and {validation.shown(here)} here"]
