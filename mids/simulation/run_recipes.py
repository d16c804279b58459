"""Which run of a dataset has which recipe, by the fingerprints in its variable ``recipe``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from .. import schema
from ..errors import DatasetError, MidsError
from .recipe import PARTS, Recipe

REMEDY = (
    "join datasets with mids.concat([...], dim=...), or pass combine_attrs=mids.combine_attrs to "
    "xarray's functions, which keep all recipes"
)
STORED = ("uint8", "float32")
"""Types of the variable ``recipe``: xarray makes the second of the first where it masks runs."""


def recipes_of(ds: xr.Dataset, of: tuple[str, ...] = PARTS) -> tuple[xr.Variable, list[Recipe]]:
    """Return which recipe each run has, and the recipes, told apart by the parts that are named.

    The variable holds positions in the list, -1 for runs that were masked, and has only those
    dims along which it varies.
    """
    cells, keys = fingerprints(ds)
    recorded = schema.recipes(ds)
    each = [_read(recorded[key], key).only(of) for key in keys]
    if not each:
        raise DatasetError("no run of the dataset has a recipe: all of them were masked")
    place = {recipe: at for at, recipe in enumerate(dict.fromkeys(each))}
    codes = np.array([*(place[recipe] for recipe in each), -1])  # the last for masked runs, -1
    return uniform_axes_cut(cells.copy(data=codes[cells.values])), list(place)


def fingerprints(ds: xr.Dataset) -> tuple[xr.Variable, list[str]]:
    """Return which fingerprint each run has, and those fingerprints, as `recipes_of` does."""
    if "recipe" not in ds.variables:
        old = "mids_spec" in ds.attrs
        raise DatasetError(
            "the dataset has no variable 'recipe', which says how its runs were made; "
            + (
                "open its file with mids.open_dataset, which adds it"
                if old
                else "take it along when you select variables, start from a dataset of "
                "mids.simulate or mids.open_dataset, or pass target= to mids.from_trajectories"
            )
        )
    variable = ds["recipe"].variable
    if variable.sizes.get("byte") != schema.FINGERPRINT or variable.dtype not in STORED:
        raise _changed()
    _check_structure(ds, variable)
    recorded = schema.recipes(ds)
    cut = uniform_axes_cut(variable, "byte").transpose(..., "byte")
    for dim in {*cut.dims} & {*schema.OF_ONE_RUN} - {"byte", "time"}:
        raise DatasetError(
            f"'recipe' varies along {dim!r}, but a run has one recipe: runs were masked in part or "
            "mixed; compute with single variables, such as ds.loss, not with whole datasets"
        )
    values = np.where(np.isnan(cut.values), 0, cut.values)
    digits = np.where((values >= 0) & (values < 256), values, 0).astype(np.uint8)
    masked = ~values.any(-1)  # where joining has filled in NaN or 0
    kinds, codes = np.unique(
        np.ascontiguousarray(digits).view(f"V{schema.FINGERPRINT}"), return_inverse=True
    )
    keys = [kind.tobytes().hex() for kind in kinds]
    held = [key for key in recorded if key in keys]
    if (digits != values).any() or len(held) + bool(masked.any()) < len(keys):
        raise _changed()
    if any("flow" in recorded[key] for key in held):
        _check_labels(ds)
    place = np.array([held.index(key) if key in held else -1 for key in keys])
    return xr.Variable(cut.dims[:-1], place[codes.reshape(cut.shape[:-1])]), held


def _check_structure(ds: xr.Dataset, variable: xr.Variable) -> None:
    """Raise DatasetError if variables or dims are not those that ``recipe`` speaks of."""
    if "run" not in ds.dims and "run" not in ds.coords:
        raise DatasetError(
            f"the dataset has no dimension or coordinate 'run', got the dims {list(ds.dims)}; "
            "rename the one that counts the runs, or, since what is averaged over runs has no "
            "recipe, apply this function before you average"
        )
    for dim in variable.dims:
        if dim in ds.coords and ds[dim].ndim > 1:
            raise DatasetError(
                f"the coordinate {dim!r} of the dim {dim!r} has the dims {ds[dim].dims}; give it "
                f"another name: ds.rename_vars({dim}='...')"
            )
    for name, array in ds.data_vars.items():
        if len({variable.attrs.get("recipes"), array.attrs.get("recipes")} - {None}) > 1:
            raise DatasetError(
                f"{name!r} was made by other recipes than those that 'recipe' names: the dataset "
                f"was merged of several; take all variables from one of them, or {REMEDY}"
            )
        for dim in array.dims if name in schema.VARIABLES else ():
            if dim not in (*variable.dims, *schema.OF_ONE_RUN, "dim", "run"):
                raise DatasetError(
                    f"{name!r} has the dim {dim!r}, but 'recipe' does not say how the runs along "
                    f"it were made; rename it back if it has another name now, or {REMEDY}"
                )


def _check_labels(ds: xr.Dataset) -> None:
    """Raise DatasetError where runs were reduced: their recipe is then that of none of them."""
    for name in ("dim", "run"):
        if name not in ds.dims and name not in ds.coords:
            raise DatasetError(
                f"the dataset has lost {name!r}: what is computed over it, such as a largest "
                "value, was not simulated; apply this function before, or select with "
                f"ds.isel({name}=0), which keeps the coordinate"
            )
        if name in ds.coords and ds[name].dtype.kind not in "iu":
            raise DatasetError(
                f"the coordinate {name!r} has {ds[name].dtype}, not integers, as where runs were "
                f"averaged; if it has the labels of runs, give them back with "
                f"ds.assign_coords({name}=ds[{name!r}].astype(int))"
            )


def _changed() -> DatasetError:
    return DatasetError(
        "the recipes of some runs are not in the attribute mids_recipes: the dataset was joined "
        f"without them, or its variable 'recipe' was computed with; {REMEDY}, and compute with "
        "single variables, such as ds.loss.max('seed'), not with whole datasets"
    )


def held(ds: xr.Dataset) -> list[dict[str, Any]]:
    """Return the recipes that runs have, as JSON holds them; all that are recorded if unknown."""
    recorded = schema.recipes(ds)
    return [recorded[key] for key in (fingerprints(ds)[1] if "recipe" in ds else recorded)]


def described(ds: xr.Dataset, of: tuple[str, ...] = PARTS) -> list[Recipe]:
    """Return the recipes of a dataset without computing which run has which, if that is lazy."""
    if "recipe" in ds.variables and ds["recipe"].chunks is None:
        return recipes_of(ds, of)[1]
    found = (_read(entry, key).only(of) for key, entry in schema.recipes(ds).items())
    return list(dict.fromkeys(found)) if "recipe" in ds.variables else []


def only(ds: xr.Dataset, *names: str) -> xr.Dataset:
    """Return a dataset with those of the named variables that it has, and the recipes."""
    return ds.drop_vars([name for name in ds.data_vars if name not in (*names, "recipe")])


def has_recipes(ds: xr.Dataset) -> bool:
    """Tell whether a dataset says of all its runs how they were made."""
    try:
        recipes_of(ds, ())
    except DatasetError:
        return False
    return True


def _read(entry: Mapping[str, Any], key: str) -> Recipe:
    try:
        return Recipe.from_dict(entry)
    except MidsError as error:
        raise DatasetError(
            f"the recipe {key[:16]} in mids_recipes makes no sense: {error}"
        ) from None


def uniform_axes_cut(variable: xr.Variable, but: str = "") -> xr.Variable:
    """Return a variable, in memory, without the axes along which it is constant, but for one."""
    values = variable.values
    for axis in reversed(range(values.ndim)):
        if variable.dims[axis] == but:
            continue
        first = values.take([0], axis) if values.shape[axis] else values
        repeated = values.strides[axis] == 0 and values.shape[axis] > 0
        if repeated or (
            first.size and np.array_equal(values, np.broadcast_to(first, values.shape))
        ):
            values = first
    kept = {d: n for d, n in zip(variable.dims, values.shape, strict=True) if n != 1 or d == but}
    return xr.Variable(tuple(kept), values.reshape(tuple(kept.values())))


def one_recipe(ds: xr.Dataset, of: tuple[str, ...] = PARTS, *, what: str = "recipe") -> Recipe:
    """Return the recipe of a dataset whose runs agree in the parts that are named."""
    cells, recipes = recipes_of(ds, of)
    if len(recipes) > 1:
        along = " and ".join(map(str, cells.dims))
        raise DatasetError(
            f"the dataset has {len(recipes)} {what}s, which vary along {along}; select one, for "
            f"example with ds.isel({cells.dims[0]}=0)"
        )
    return recipes[0]
