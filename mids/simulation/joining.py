"""Datasets with the recipes of their runs: which run has which, and all of them joined."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .. import schema, validation
from ..errors import DatasetError, InputError, MidsError
from .recipe import Recipe

__all__ = [
    "combine_attrs",
    "concat",
    "described",
    "fingerprints",
    "has_recipes",
    "held",
    "joined",
    "one_recipe",
    "only",
    "padded",
    "recipes_of",
    "uniform_axes_cut",
]

REMEDY = (
    "join datasets with mids.concat([...], dim=...), or pass combine_attrs=mids.combine_attrs to "
    "xarray's functions, which keep all recipes"
)
ALL = ("flow", "student_rank", "seed", "initial", "rtol", "time")
RESERVED = {*schema.VARIABLES, *schema.COORDINATES, *schema.OF_ONE_RUN, "saddle"} - {
    *("dim", "run", "n", "time")
}
"""Names that are no dim to join datasets along."""
STORED = ("uint8", "float32")
"""Types of the variable ``recipe``: xarray makes the second of the first where it masks runs."""
FILLS: Mapping[str, Any] = {"f": np.nan, "b": False, "i": 0, "u": 0, "U": "", "T": ""}


# -- joining ------------------------------------------------------------------------------------


def combine_attrs(variable_attrs: Sequence[Mapping[Any, Any]], context: Any = None) -> dict:  # type: ignore[type-arg]
    """Join attributes and keep the recipes of all datasets: for xarray's ``combine_attrs``.

    Parameters
    ----------
    variable_attrs : sequence of mapping
        Attributes of the datasets, or of one variable of each.
    context : object, optional
        What xarray passes; it is not used.

    Returns
    -------
    dict
        ``mids_recipes`` with all recipes; titles, summaries and histories of all; of the others
        those that do not differ.

    Raises
    ------
    DatasetError
        If recipes were changed, or the versions of the schema differ.

    Examples
    --------
    >>> import mids, xarray as xr
    >>> one, two = (mids.simulate(text, dim=100, runs=2) for text in ("h1(z1)", "-h1(z1)"))
    >>> names = xr.Variable("target", ["plus", "minus"])
    >>> ds = xr.concat([one, two], names, combine_attrs=combine_attrs, join="outer")
    >>> len(mids.schema.recipes(ds))
    2
    """
    if not isinstance(variable_attrs, list | tuple) or not all(
        isinstance(given, Mapping) for given in variable_attrs
    ):
        raise InputError(
            f"combine_attrs takes a list of mappings, got {validation.shown(variable_attrs)}; "
            "pass it to xarray: xr.concat(..., combine_attrs=mids.combine_attrs)"
        )
    attrs = [given for given in variable_attrs if given]
    out: dict[Any, Any] = {}
    for name in dict.fromkeys(name for given in attrs for name in given):
        values = [given[name] for given in attrs if name in given]
        if name == "mids_recipes":
            out[name] = _all_recipes(attrs)
        elif name == "recipes":
            out[name] = schema.made_by(map(str, values))
        elif name == "mids_schema" and len(set(values)) > 1:
            raise DatasetError(
                f"the datasets have the schema versions {sorted(set(values))}; open their files "
                "with mids.open_dataset, which brings old ones up to date"
            )
        elif all(np.array_equal(value, values[0]) for value in values):
            out[name] = values[0]
        elif name in ("title", "summary", "history"):
            out[name] = "\n".join(dict.fromkeys(map(str, values)))
    return out


def _all_recipes(attrs: Iterable[Mapping[Any, Any]]) -> str:
    recipes: dict[str, dict[str, Any]] = {}
    grids: dict[str, Any] = {}
    for given in attrs:
        found, times = schema.recipes_in(given)
        for key, entry in found.items():
            said = recipes.get(key, {}).get("versions", {})
            versions = {
                name: " or ".join(dict.fromkeys([*said.get(name, text).split(" or "), text]))
                for name, text in entry.get("versions", {}).items()
            }
            recipes[key] = {**entry, **({"versions": versions} if versions else {})}
        grids |= times
    return schema.recorded(recipes, grids)


def concat(
    datasets: Iterable[xr.Dataset], dim: Hashable | xr.Variable | xr.DataArray | Any
) -> xr.Dataset:
    """Join datasets of the schema along a dim, old or new, and keep the recipes of all.

    Parameters
    ----------
    datasets : iterable of Dataset
        With the same variables and time grid. Their targets may differ: modes, directions and
        columns of the student that one does not have are NaN there.
    dim : str, Variable, DataArray or Index
        As for `xarray.concat`.

    Returns
    -------
    xarray.Dataset
        Lazy where they are.

    Raises
    ------
    InputError
        If there are no datasets, or their variables or time grids differ.
    DatasetError
        If a recipe is missing or was changed.

    Examples
    --------
    >>> import mids
    >>> parts = [mids.simulate("h2(z1)", dim=100, runs=4, seed=seed) for seed in (0, 1)]
    >>> ds = concat(parts, "seed")
    >>> ds.recipe.dims, len(mids.schema.recipes(ds))
    (('seed', 'dim', 'run', 'byte'), 2)
    """
    parts = []
    one = not isinstance(datasets, Iterable) or getattr(datasets, "ndim", None) == 0
    each: Iterable[Any] = [datasets] if one else datasets
    for part in each:
        validation.dataset(part, "each of datasets")
        parts.append(part)
    name = _name(dim)
    if not isinstance(name, str):
        raise InputError(
            f"dim must be the name of a dim or a variable of its labels, got "
            f"{validation.shown(dim)}; pass for example dim='seed'"
        )
    if not parts:
        raise InputError("concat takes a list of xarray.Datasets with at least one entry")
    if name in RESERVED:
        raise InputError(
            f"{name!r} is a name of the schema, which no runs are joined along; join along a dim "
            "of another name"
        )
    for part in parts:
        fingerprints(part)
    first = parts[0]
    for part in parts[1:]:
        differing = sorted(map(str, part.data_vars.keys() ^ first.data_vars.keys()))
        if differing:
            raise InputError(
                f"the datasets do not all have the variables {', '.join(differing)}; select those "
                "that all have, such as ds[['loss', 'status', 'recipe']]"
            )
        if name != "time" and not _same(part, first, "time"):
            raise InputError(
                "the datasets have different time grids; simulate them with the same time="
            )
        if name == "time" and not part["recipe"].equals(first["recipe"]):
            raise InputError("only datasets of the same runs can be joined along time")
    return joined(parts, dim)


def _name(dim: object) -> object:
    """Name of the dim that xarray joins along; None if it is none."""
    if isinstance(dim, xr.Variable | xr.DataArray):
        return dim.dims[0] if dim.ndim == 1 else None
    return dim.name if isinstance(dim, pd.Index) else dim


def _same(one: xr.Dataset, two: xr.Dataset, name: str) -> bool:
    return (name in one.coords) == (name in two.coords) and (
        name not in one.coords or np.array_equal(one[name].values, two[name].values)
    )


def joined(parts: Sequence[xr.Dataset], dim: Any) -> xr.Dataset:
    """Join datasets along a dim, padded along the others where they are shorter."""
    name = _name(dim)
    aligned = padded(parts, str(name))
    several = name != "time" and any(name in part.dims for part in aligned)
    if several:  # a variable without the dim has a value for each dataset, not one for all
        aligned = [
            part.assign(
                {
                    key: array.expand_dims({name: part.sizes[name]})
                    for key, array in part.data_vars.items()
                    if name not in array.dims
                }
            )
            for part in aligned
        ]
    return xr.concat(
        aligned,
        dim,
        data_vars="minimal" if name == "time" else "all",
        coords="different",
        compat="equals",
        join="exact",
        combine_attrs=combine_attrs,
    )


def padded(parts: Sequence[xr.Dataset], joined_along: str) -> list[xr.Dataset]:
    """Give datasets the same labels along all dims but one; NaN, False, 0 or "" where unknown."""
    dims = {str(dim) for part in parts for dim in part.dims} - {joined_along}
    parts = list(parts)
    for dim in sorted(dims):
        here = [part for part in parts if dim in part.dims]
        if len({part.sizes[dim] for part in here}) == 1 and all(
            _same(part, here[0], dim) for part in here
        ):
            continue
        counted = not all(dim in part.indexes for part in here)
        if counted:
            parts = [
                p.assign_coords({dim: np.arange(p.sizes[dim])}) if dim in p.dims else p
                for p in parts
            ]
        indexes = [p.indexes[dim] for p in parts if dim in p.dims]
        if not all(index.is_unique for index in indexes):
            raise InputError(
                f"{dim} has the same label more than once, so that its entries cannot be matched "
                f"with those of the other datasets; give {dim} distinct labels first, for example "
                f"with .assign_coords({dim}=range(...))"
            )
        labels = _union(indexes)
        parts = [
            p.reindex({dim: labels}, fill_value=_fills(p)) if dim in p.dims else p for p in parts
        ]
        if counted:
            parts = [p.drop_vars(dim, errors="ignore") for p in parts]
    for name in ("degree", "exponents"):  # 0 above where a dataset lacks the mode or axis
        found = [part.coords[name].variable for part in parts if name in part.coords]
        of_modes = all(variable.dims == schema.COORDINATES[name].dims for variable in found)
        if found and of_modes and joined_along != "mode":
            known = found[0].copy(data=np.max([variable.values for variable in found], axis=0))
            parts = [p.assign_coords({name: known}) if name in p.coords else p for p in parts]
    return parts


def _union(indexes: Sequence[Any]) -> Any:
    """Labels of all indexes, in their order of appearance."""
    labels = indexes[0]
    for index in indexes[1:]:
        labels = labels.append(index.difference(labels, sort=False))
    return labels.to_numpy(str) if labels.inferred_type == "string" else labels


def _fills(ds: xr.Dataset) -> dict[Hashable, Any]:
    return {
        name: FILLS.get(variable.dtype.kind, np.nan)
        for name, variable in ds.variables.items()
        if name not in ds.indexes
    }


# -- which run has which ------------------------------------------------------------------------


def recipes_of(ds: xr.Dataset, of: tuple[str, ...] = ALL) -> tuple[xr.Variable, list[Recipe]]:
    """Return which recipe each run has, and the recipes, told apart by the parts that are named.

    The variable holds positions in the list, -1 for runs that were masked, and has only those
    dims along which it varies.
    """
    cells, keys = fingerprints(ds)
    recorded = schema.recipes(ds)
    recipes: list[Recipe] = []
    codes = np.full(len(keys) + 1, -1)  # the last one is that of masked runs, -1
    for at, key in enumerate(keys):
        recipe = _read(recorded[key], key).only(of)
        if recipe not in recipes:
            recipes.append(recipe)
        codes[at] = recipes.index(recipe)
    if not recipes:
        raise DatasetError("no run of the dataset has a recipe: all of them were masked")
    return uniform_axes_cut(cells.copy(data=codes[cells.values])), recipes


def fingerprints(ds: xr.Dataset) -> tuple[xr.Variable, list[str]]:
    """Return which fingerprint each run has, and those fingerprints.

    The variable holds positions in the list, -1 for runs that were masked, and has only those
    dims along which it varies.
    """
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
    if "run" not in ds.dims and "run" not in ds.coords:
        raise DatasetError(
            f"the dataset has no dimension or coordinate 'run', got the dims {list(ds.dims)}; "
            "rename the one that counts the runs, or, since what is averaged over runs has no "
            "recipe, apply this function before you average"
        )
    variable = ds["recipe"].variable
    if variable.sizes.get("byte") != schema.FINGERPRINT or variable.dtype not in STORED:
        raise _changed()
    for name, array in ds.data_vars.items():
        if len({variable.attrs.get("recipes"), array.attrs.get("recipes")} - {None}) > 1:
            raise DatasetError(
                f"{name!r} was made by other recipes than those that 'recipe' names: the dataset "
                f"was merged of several; take all variables from one of them, or {REMEDY}"
            )
    bare = {
        str(dim): name
        for name in schema.VARIABLES
        if name in ds.data_vars
        for dim in ds[name].dims
        if dim not in variable.dims and dim not in (*schema.OF_ONE_RUN, "dim", "run")
    }
    if bare:
        dim, name = next(iter(bare.items()))
        raise DatasetError(
            f"{name!r} has the dim {dim!r}, but 'recipe' does not say how the runs along it were "
            f"made; rename it back if it has another name now, or {REMEDY}"
        )
    cut = uniform_axes_cut(variable, "byte").transpose(..., "byte")
    values = cut.values
    masked = (
        np.isnan(values).all(-1) if values.dtype.kind == "f" else np.zeros(cut.shape[:-1], bool)
    )
    digits = np.where((values >= 0) & (values < 256), values, 0).astype(np.uint8)
    masked = ~digits.any(-1)  # what joining fills in
    words = np.ascontiguousarray(digits).view(np.uint64)
    known = list(schema.recipes(ds))
    all_words = schema.fingerprint_bytes(known).view(np.uint64)
    order = np.argsort(all_words[:, 0])
    at = np.zeros(masked.shape, dtype=np.int64)
    if len(known):
        place = np.searchsorted(all_words[order, 0], words[..., 0])
        at = order[np.minimum(place, len(known) - 1)]
    right = (digits == values).all(-1) & (words == all_words[at]).all(-1) if len(known) else masked
    if not (right | masked).all():
        raise _changed()
    at = np.where(masked, -1, at)
    there, codes = np.unique(at, return_inverse=True)
    codes = codes.reshape(at.shape) - int(-1 in there)
    return xr.Variable(cut.dims[:-1], codes), [known[k] for k in there.tolist() if k >= 0]


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


def described(ds: xr.Dataset, of: tuple[str, ...] = ALL) -> list[Recipe]:
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


def one_recipe(ds: xr.Dataset, of: tuple[str, ...] = ALL, *, what: str = "recipe") -> Recipe:
    """Return the recipe of a dataset whose runs agree in the parts that are named."""
    cells, recipes = recipes_of(ds, of)
    if len(recipes) > 1:
        along = " and ".join(map(str, cells.dims))
        raise DatasetError(
            f"the dataset has {len(recipes)} {what}s, which vary along {along}; select one, for "
            f"example with ds.isel({cells.dims[0]}=0)"
        )
    return recipes[0]
