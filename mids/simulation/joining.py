"""Datasets joined: along a dim, with the recipes of all, padded where targets differ."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .. import schema, validation
from ..errors import DatasetError, InputError
from .recipe import fingerprints

RESERVED = {*schema.VARIABLES, *schema.COORDINATES, *schema.OF_ONE_RUN, "saddle"} - {
    *("dim", "run", "n", "time")
}
"""Names that are no dim to join datasets along."""
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
            # Schema 1 has no variable `recipe`: its runs would be joined without one.
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
            # One recipe simulated by two versions keeps both: the last bits may differ.
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
        columns of the student that one does not have are NaN there. Measured curves that
        have no target, and so no recipe, are joined among themselves.
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
    measured = not any(map(_has_recipes, parts))  # as by from_trajectories without a target
    for part in parts:
        if not measured:
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
            remedy = "simulate them with the same time="
            if measured:
                remedy = (
                    "pass the runs together, mids.from_trajectories(loss=[a, b], time=[t, u]), "
                    "which fills gaps with NaN, or interpolate them to one grid"
                )
            raise InputError(f"the datasets have different time grids; {remedy}")
        if name == "time" and not measured and not part["recipe"].equals(first["recipe"]):
            raise InputError("only datasets of the same runs can be joined along time")
    return joined(parts, dim)


def _has_recipes(ds: xr.Dataset) -> bool:
    """Whether runs have, or once had, a recipe."""
    return "recipe" in ds.variables or "mids_spec" in ds.attrs or bool(schema.recipes(ds))


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
        # All options are given, because xarray is changing their defaults.
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
        # A dim without labels is matched by position, with numbers for as long as that takes.
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
