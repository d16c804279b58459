"""What a store is a store of, and how a sweep with more runs, dims or values continues it.

The state of a dataset, as JSON has it, is kept in ``mids.json``: two sweeps are the same where
their states are, and one continues another where it has all that the other has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import permutations
from typing import Any

import numpy as np
import xarray as xr

from .. import schema, validation
from ..errors import DatasetError, InputError
from ..simulation.recipe import GIVEN
from ..simulation.run_recipes import fingerprints
from .store import Place, digest

FIRST = ("date_created", "history")
"""Attributes that stay as the first call wrote them."""


def lazy_names(ds: xr.Dataset) -> list[str]:
    """Return the names of the lazy variables, which are written block by block."""
    return [str(name) for name, variable in ds.data_vars.items() if variable.chunks is not None]


def block_dims(ds: xr.Dataset) -> tuple[str, ...]:
    """Return the dims along which blocks are cut: those of any lazy variable up to ``run``."""
    all_dims = [ds[name].dims for name in lazy_names(ds) if "run" in ds[name].dims]
    dims = max(all_dims, key=lambda dims: dims.index("run"), default=())
    return tuple(map(str, dims[: dims.index("run") + 1])) if dims else ()


def state_of(ds: xr.Dataset) -> dict[str, Any]:
    """Return what makes a store this store and no other, as JSON has it."""
    along = block_dims(ds)
    sizes = {name: ds.sizes[name] for name in along}
    recipes = _recipes(ds)
    # Recipes say nothing about what is derived, which its graph alone tells apart.
    derived = {n for n in lazy_names(ds) if not recipes or n not in schema.VARIABLES}
    state = {
        "chunk": ds.chunksizes["run"][0],
        "sizes": sizes,
        "labels": {name: ds[name].values.tolist() for name in along[:-1]},
        "growing": _growing(ds, sizes),
        "recipes": recipes,
        "variables": {
            str(name): {
                "dims": list(variable.dims),
                "dtype": variable.dtype.str,
                "shape": [n for dim, n in variable.sizes.items() if dim not in along],
                "graph": variable.data.name if name in derived else None,
            }
            for name, variable in ds.data_vars.items()
        },
        "coordinates": {
            str(name): _digest(array.values)
            for name, array in ds.coords.items()
            if not {*array.dims} & {*along}
        },
        "attributes": {name: ds.attrs[name] for name in FIRST if name in ds.attrs},
    }
    plain: dict[str, Any] = json.loads(json.dumps(state))
    return plain


def _recipes(ds: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return the recipes of a dataset by fingerprint; none if those of some runs are not known."""
    try:
        masked = bool((fingerprints(ds)[0] < 0).any())
    except (DatasetError, KeyError):
        masked = True
    if masked:
        return {}
    found = schema.recipes(ds)
    return {
        key: {name: value for name, value in entry.items() if name != "versions"}
        for key, entry in found.items()
    }


def _growing(ds: xr.Dataset, sizes: Mapping[str, int]) -> dict[str, str]:
    """Return digests of what has the dims of the blocks, of its first entries only."""
    names = {str(name) for name, array in ds.coords.items() if {*array.dims} & sizes.keys()}
    names |= {"recipe"} & ds.data_vars.keys()
    if any(recipe.get("initial") == GIVEN for recipe in _recipes(ds).values()):
        names |= {"initial"} & ds.data_vars.keys()
    first = ds.isel({name: slice(size) for name, size in sizes.items()})
    return {name: _digest(first[name].values) for name in sorted(names)}


def _digest(values: np.ndarray) -> str:
    if values.dtype.kind not in "iufb":  # text, as any of NumPy's types
        return digest(json.dumps(values.astype(str).tolist()).encode())
    return digest(np.ascontiguousarray(values).tobytes())


def grown(place: Place, before: Mapping[str, Any], ds: xr.Dataset) -> xr.Dataset:
    """Return the dataset in the order of the store, or say that the store holds another sweep."""
    here = state_of(ds)
    sizes = before["sizes"]
    found = _differing([*sizes], [*here["sizes"]], "dims of the blocks")
    if not found and sizes["run"] > here["sizes"]["run"]:
        found = _differing(sizes["run"], here["sizes"]["run"], "runs")
    for name, labels in {} if found else before["labels"].items():
        lacking = [label for label in labels if label not in here["labels"][name]]
        if lacking:
            found.append(f"{name} has {validation.shown(lacking)} there and not here")
        order = [*labels, *(label for label in here["labels"][name] if label not in labels)]
        if not lacking and order != here["labels"][name]:
            ds = ds.isel({name: [here["labels"][name].index(label) for label in order]})
    if not found:
        here["growing"] = _growing(ds, sizes)
        lost, new = (
            [one[name] for name in one if name not in other]
            for one, other in permutations((before["recipes"], here["recipes"]))
        )
        if lost:
            found += _differing(lost[0], new[0] if new else {}, "")
        elif new and any(
            here["variables"].get(name, about)["shape"] != about["shape"]
            for name, about in before["variables"].items()
        ):
            raise InputError(
                f"{place.url} has no room for modes, directions or columns of the student that the "
                "new values bring; generate these into a store of their own and join both with "
                "mids.concat, or all values into a new store"
            )
        for name in ("variables", "coordinates", "growing"):
            found += _differing(before[name], here[name], "")
    if found:
        raise InputError(
            f"{place.url} holds another sweep: {'; '.join(found[:4])}"
            + (f"; and {len(found) - 4} more" if len(found) > 4 else "")
            + "; give the same arguments to complete it, more runs, dims or values of a sweep, "
            "with the same time grid, to let it grow, or a new store"
        )
    return ds.assign_attrs(before["attributes"])


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
    if name == "time" or (isinstance(there, str) and len(there) == 64):  # digests
        return [f"{name} differs"]
    return [f"{name} is {validation.shown(there)} there and {validation.shown(here)} here"]
