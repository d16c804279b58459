"""The recipe of a run: all that makes it again but its dim and index; which run has which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Self

import numpy as np
import xarray as xr

from .. import flows, schema, validation
from ..errors import DatasetError, InputError, MidsError
from ..flows.base import Flow, Problem
from ..flows.initial import check_initial
from ..targets.target import Target
from ..validation import FloatArray, IntArray

GIVEN = "variable"  # initial condition of runs that have their own, in ``initial``

PARTS = ("flow", "student_rank", "seed", "initial", "rtol", "time")
"""Entries of a recipe besides the target."""

REMEDY = (
    "join datasets with mids.concat([...], dim=...), or pass combine_attrs=mids.combine_attrs to "
    "xarray's functions, which keep all recipes"
)
STORED = ("uint8", "float32")  # of the variable ``recipe``; xarray masks with the second

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a run again but its dim and its index.

    All but the target is None for trajectories that were not simulated. `initial` is M(0) of all
    runs; "variable" where each has its own; None where it is drawn at random. `time` is the digest
    of the grid, which is recorded beside the recipes.
    """

    target: Target
    flow: Flow | None = None
    student_rank: int | None = None
    seed: int | None = None
    initial: Matrix | str | None = None
    rtol: float | None = None
    time: str | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        return schema.fingerprint(self.to_dict())

    def only(self, parts: tuple[str, ...]) -> Recipe:
        """Return the recipe without the parts that are not named."""
        dropped: dict[str, Any] = {name: None for name in PARTS if name not in parts}
        return replace(self, **dropped)

    def problem(
        self, dim: int, runs: IntArray, time: FloatArray, initial: FloatArray | None = None
    ) -> tuple[Flow, Problem]:
        """Return flow and problem of runs at a dimension; `initial` (n, r, q) if given to each."""
        assert self.flow is not None
        q, seed, rtol = int(self.student_rank or 0), int(self.seed or 0), float(self.rtol or 0)
        if initial is None and self.initial is not None:
            initial = np.asarray(self.initial, dtype=np.float64)
        if initial is None:
            initial = self.flow.draw_initial(self.target, q, dim, runs, seed)
        initial = np.broadcast_to(initial, (len(runs), self.target.rank, q)).copy()
        return self.flow, Problem(self.target, dim, runs, seed, initial, time, rtol)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe in types that JSON knows."""
        if self.flow is None:
            return {"target": self.target.to_dict()}
        initial = self.initial
        return {
            "target": self.target.to_dict(),
            "flow": self.flow.to_dict(),
            "student_rank": self.student_rank,
            "seed": self.seed,
            "initial": [list(row) for row in initial] if isinstance(initial, tuple) else initial,
            "rtol": self.rtol,
            "time": self.time,
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Self:
        """Read a recipe that anyone may have written; InputError says what is wrong with it."""
        # Trajectories from outside have a target alone; of simulated ones every part is needed.
        simulated = entry.keys() & {*PARTS}
        allowed = ("target", "versions", *PARTS)
        validation.entries(entry, ("target", *(PARTS if simulated else ())), allowed, "a recipe")
        if not isinstance(entry["target"], Mapping):
            raise InputError("the target of a recipe must be an object; simulate anew to get one")
        target = Target.from_dict(entry["target"])
        if not simulated:
            return cls(target)
        if not isinstance(entry["flow"], Mapping):
            raise InputError(
                f"the flow of a recipe must be an object, got {validation.shown(entry['flow'])}"
            )
        flow = flows.from_dict(entry["flow"])
        student_rank = validation.student_rank(entry["student_rank"])
        initial = entry["initial"]
        if isinstance(initial, list):
            matrix = validation.matrix(initial, "initial", target.rank, student_rank)
            checked = check_initial(matrix, target.rank, student_rank, orthonormal=flow.orthonormal)
            initial = tuple(map(tuple, checked.tolist()))
        elif initial not in (None, GIVEN):
            raise InputError(
                f"initial of a recipe must be a matrix, null or {GIVEN!r}, got "
                f"{validation.shown(initial)}"
            )
        time = entry["time"]
        if not isinstance(time, str) or len(time) != 16 or set(time) - set("0123456789abcdef"):
            raise InputError(f"time of a recipe must be a digest, got {validation.shown(time)}")
        return cls(
            target,
            flow,
            student_rank,
            validation.integer(entry["seed"], "seed", at_least=0),
            initial,
            validation.rtol(entry["rtol"]),
            time,
        )


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of the software on which the last bits of the numbers depend."""
    return {name: version(name) for name in ("numpy", "scipy", "numba", "mids")}


def grid(ds: Any, recipe: Recipe) -> np.ndarray:
    """Return the time grid of a recipe, shape (T,)."""
    known = schema.grids(ds).get(str(recipe.time))
    found = known if known is not None else ds["time"].values if "time" in ds.coords else []
    # The coordinate may have been cut or changed since the simulation.
    if schema.grid_digest(found) != recipe.time:
        raise DatasetError(
            "the dataset has lost the time grid of its simulation; start from the original file"
        )
    return np.asarray(found, dtype=np.float64)


# -- the recipes of a dataset, by the fingerprints in its variable ``recipe`` ---------------------


def recipes_of(ds: xr.Dataset, of: tuple[str, ...] = PARTS) -> tuple[xr.Variable, list[Recipe]]:
    """Return which recipe each run has, -1 if masked, and those that differ in the named parts."""
    cells, keys = fingerprints(ds)
    recorded = schema.recipes(ds)
    each = [_read(recorded[key], key).only(of) for key in keys]
    if not each:
        raise DatasetError("no run of the dataset has a recipe: all of them were masked")
    # Recipes that differ only in parts that nobody asks for become one.
    number = {recipe: at for at, recipe in enumerate(dict.fromkeys(each))}
    codes = np.array([*(number[recipe] for recipe in each), -1])  # the last for masked runs, -1
    return uniform_axes_cut(cells.copy(data=codes[cells.values])), list(number)


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
    # Most datasets have one recipe: without constant axes the search below has one row.
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
    # Either the bytes were computed with, or no recorded recipe has the fingerprint.
    if (digits != values).any() or len(held) + bool(masked.any()) < len(keys):
        raise _changed()
    if any("flow" in recorded[key] for key in held):
        _check_labels(ds)
    rows = np.array([held.index(key) if key in held else -1 for key in keys])
    return xr.Variable(cut.dims[:-1], rows[codes.reshape(cut.shape[:-1])]), held


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
    """Tell whether a dataset says of all its runs how they were made; refuse edited recipes."""
    schema.recipes_in(ds.attrs)
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
        # A stride of 0 is a broadcast: constant without a look at every value.
        repeated = values.strides[axis] == 0 and values.shape[axis] > 0
        if repeated or (
            first.size and np.array_equal(values, np.broadcast_to(first, values.shape))
        ):
            values = first
    kept = {d: n for d, n in zip(variable.dims, values.shape, strict=True) if n != 1 or d == but}
    return xr.Variable(tuple(kept), values.reshape(tuple(kept.values())))


def one_recipe(ds: xr.Dataset, of: tuple[str, ...], *, what: str) -> Recipe:
    """Return the recipe of a dataset whose runs agree in the parts that are named."""
    cells, recipes = recipes_of(ds, of)
    if len(recipes) > 1:
        along = " and ".join(map(str, cells.dims))
        raise DatasetError(
            f"the dataset has {len(recipes)} {what}s, which vary along {along}; select one, for "
            f"example with ds.isel({cells.dims[0]}=0)"
        )
    return recipes[0]
