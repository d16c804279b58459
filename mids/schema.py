"""The dataset schema: attributes, recipes, and validation by the registry of variables.

A dataset of the schema holds simulated or measured trajectories of a Gaussian multi-index model on
the dimensions of `DIMENSIONS`. Its variables are those of `VARIABLES`, in any combination, and
whatever else its owner adds. `validate` names everything that breaks the schema at once; `table`
prints the registry for the documentation.
"""

from __future__ import annotations

import copy
import datetime
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from . import validation
from .errors import DatasetError
from .variables import (
    COORDINATES,
    DIMENSIONS,
    LEVELS,
    OF_ONE_RUN,
    STATUS,
    VARIABLES,
    Variable,
)

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "CONVENTIONS",
    "COORDINATES",
    "DIMENSIONS",
    "LEVELS",
    "OF_ONE_RUN",
    "REFERENCES",
    "SCHEMA_VERSION",
    "STATUS",
    "VARIABLES",
    "VERSION",
    "Variable",
    "attributes",
    "dim_text",
    "fingerprint",
    "fingerprint_bytes",
    "grid_digest",
    "grids",
    "made_by",
    "recipes",
    "recipes_in",
    "recorded",
    "table",
    "validate",
]

VERSION = version("mids")
"""Version of the package."""

SCHEMA_VERSION = 2
"""Value of the attribute ``mids_schema`` that this version writes, and the newest it reads."""

FINGERPRINT = 32
"""Bytes of the fingerprint of a recipe."""

LONGEST_RECIPES = 2**26
"""Characters of the longest ``mids_recipes`` that is read."""

CONVENTIONS = "CF-1.11, ACDD-1.3"
REFERENCES = (
    "Bietti, Bruna, Pillaud-Vivien (2025), On learning Gaussian multi-index models with gradient "
    "flow part I: general properties and two-timescale learning, Communications on Pure and "
    "Applied Mathematics 78(12):2354-2435, https://doi.org/10.1002/cpa.70006"
)
CITE = (
    "Cite the article under references for the theory, and the software under source, whose "
    "file CITATION.cff says how, for the data."
)
KEYWORDS = "gradient flow, multi-index model, feature learning, saddle-to-saddle dynamics"
LICENSE = "https://creativecommons.org/licenses/by/4.0/"


def attributes(
    recipes: str, *, title: str, summary: str, source: str, command: str
) -> dict[str, Any]:
    """Return the global attributes of a new dataset (CF-1.11 and ACDD-1.3)."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "Conventions": CONVENTIONS,
        "title": title,
        "summary": summary,
        "source": source,
        "references": REFERENCES,
        "history": f"{now} {source}: {command}",
        "license": LICENSE,
        "comment": CITE,
        "keywords": KEYWORDS,
        "date_created": now,
        "mids_schema": SCHEMA_VERSION,
        "mids_recipes": recipes,
    }


def dim_text(dim: int) -> str:
    """Return an ambient dimension as people write it."""
    digits, zeros = str(dim).rstrip("0"), len(str(dim)) - len(str(dim).rstrip("0"))
    return f"{digits}e{zeros}" if len(digits) == 1 and zeros > 3 else str(dim)


def fingerprint(entry: Mapping[str, Any]) -> str:
    """Fingerprint of a recipe as JSON holds it, 64 hexadecimal digits.

    The SHA-256 of its canonical JSON: sorted keys, no spaces, without the versions of the software
    and the name of the target.
    """
    kept = {name: value for name, value in entry.items() if name != "versions"}
    if isinstance(kept.get("target"), Mapping):
        kept["target"] = {name: v for name, v in kept["target"].items() if name != "name"}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_bytes(fingerprints: Iterable[str]) -> np.ndarray:
    """Fingerprints as the variable ``recipe`` has them, shape (n, 32)."""
    joined = bytes.fromhex("".join(fingerprints))
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, FINGERPRINT)


def made_by(names: Iterable[str]) -> str:
    """Attribute ``recipes`` of variables made by recipes or joined of variables with such names."""
    different = sorted({*names})
    if len(different) == 1:
        return different[0][:16]
    return hashlib.sha256(" ".join(different).encode()).hexdigest()[:16]


def grid_digest(time: Any) -> str:
    """Digest of a time grid, by which recipes name it."""
    values = np.ascontiguousarray(time, dtype="<f8")
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def recorded(recipes: Mapping[str, Mapping[str, Any]], grids: Mapping[str, Any]) -> str:
    """Text of the attribute ``mids_recipes``: recipes by fingerprint, time grids by digest."""
    return json.dumps({"recipes": dict(recipes), "grids": grids})


def recipes(ds: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Recipes of a dataset by fingerprint, as JSON holds them, each checked for changes."""
    return copy.deepcopy(recipes_in(ds.attrs)[0])  # what is decoded is shared by all datasets


def grids(ds: xr.Dataset) -> dict[str, list[float]]:
    """Time grids of a dataset's recipes by digest."""
    return recipes_in(ds.attrs)[1]


def recipes_in(
    attrs: Mapping[Any, Any],
) -> tuple[dict[str, dict[str, Any]], dict[str, list[float]]]:
    """Recipes and time grids in the attribute ``mids_recipes``; no more than empty without it."""
    text = attrs.get("mids_recipes", '{"recipes": {}, "grids": {}}')
    if not isinstance(text, str) or len(text) > LONGEST_RECIPES:
        raise DatasetError(
            f"the attribute mids_recipes must be JSON text of at most {LONGEST_RECIPES} characters;"
            " restore it from the original file"
        )
    return _decoded(text)


@functools.lru_cache(maxsize=16)
def _decoded(text: str) -> tuple[dict[str, dict[str, Any]], dict[str, list[float]]]:
    try:
        decoded = json.loads(text)
        found, times = decoded["recipes"], decoded["grids"]
        right = len(decoded) == 2 and {*map(type, (found, times, *found.values()))} == {dict}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        right = False
    if not right:
        raise DatasetError(
            "the attribute mids_recipes is not JSON of two objects, recipes and grids, with an "
            "object for each recipe; restore it from the original file"
        )
    for key, entry in found.items():
        now = fingerprint(entry)
        if key != now:
            raise DatasetError(
                f"the recipe {key[:16]} in mids_recipes was changed: its fingerprint is {now}; "
                "restore the attribute from the original file, and simulate with other arguments "
                "instead of editing it"
            )
    return found, times


def validate(ds: xr.Dataset) -> None:
    """Check a dataset against the schema, without computing anything lazy.

    Variables and coordinates that the schema does not name are allowed.

    Parameters
    ----------
    ds : xarray.Dataset
        The dataset.

    Raises
    ------
    InputError
        If `ds` is no dataset.
    DatasetError
        With one line for each problem.

    Examples
    --------
    >>> import xarray as xr
    >>> validate(xr.Dataset({"loss": ("time", [1.0, 0.5])}))
    Traceback (most recent call last):
        ...
    mids.errors.DatasetError: the dataset breaks the schema of mids (version 2) in 4 places:
      attribute mids_schema is missing; it must be 2
      loss has dims (time), but must have (dim, run, time)
      loss lacks the attributes long_name, units
      coordinate time is missing
    """
    validation.dataset(ds)
    problems = list(_problems(ds))
    if problems:
        places = "1 place" if len(problems) == 1 else f"{len(problems)} places"
        title = f"the dataset breaks the schema of mids (version {SCHEMA_VERSION}) in {places}:"
        raise DatasetError("\n  ".join([title, *problems]))


def _problems(ds: xr.Dataset) -> Iterator[str]:
    yield from _attribute_problems(ds.attrs)
    if not any(name in ds.data_vars for name in VARIABLES if name != "recipe"):
        yield f"none of the variables of the schema is there: {', '.join(VARIABLES)}"
    for name, variable in {**VARIABLES, **COORDINATES}.items():
        if name in ds.variables:
            yield from _variable_problems(name, variable, ds.variables[name])
    for name in COORDINATES:
        if name in ds.dims and name not in ds.coords:
            yield f"coordinate {name} is missing"
    yield from _value_problems(ds)


def _attribute_problems(attrs: Mapping[Any, Any]) -> Iterator[str]:
    version = attrs.get("mids_schema")
    if version is None:
        yield f"attribute mids_schema is missing; it must be {SCHEMA_VERSION}"
    elif not isinstance(version, int | np.integer) or not 1 <= version <= SCHEMA_VERSION:
        yield f"attribute mids_schema is {version!r}, but must be {SCHEMA_VERSION}"
    try:
        recipes_in(attrs)
    except DatasetError as error:
        yield str(error)


def _variable_problems(name: str, expected: Variable, found: xr.Variable) -> Iterator[str]:
    known = [dim for dim in found.dims if dim in expected.dims or dim in OF_ONE_RUN]
    if tuple(known) != expected.dims:  # other dims are those of sweeps
        dims, wanted = (", ".join(map(str, d)) for d in (found.dims, expected.dims))
        yield f"{name} has dims ({dims}), but must have ({wanted})"
    if not expected.accepts(found.dtype):
        yield f"{name} has dtype {found.dtype}, but must have {expected.dtypes}"
    missing = [key for key in expected.required if key not in found.attrs]
    if missing:
        yield f"{name} lacks the attributes {', '.join(missing)}"
    for key in ("units", *expected.attrs):
        have, right = found.attrs.get(key), expected.required.get(key)
        if have is not None and not np.array_equal(have, np.asarray(right)):
            yield f"{name} has {key} {have!r}, but must have {right!r}"


def _value_problems(ds: xr.Dataset) -> Iterator[str]:
    """Check the values of index coordinates, which are always in memory."""
    values = {
        name: np.asarray(ds.coords[name].values)
        for name in ("dim", "run", "time", "level")
        if name in ds.coords
        and ds.coords[name].dims == (name,)
        and COORDINATES[name].accepts(ds.coords[name].dtype)
    }
    if "time" in values and not (
        np.isfinite(values["time"]).all() and (np.diff(values["time"]) > 0).all()
    ):
        yield "time must be finite and strictly increase"
    for name, lowest in (("dim", 1), ("run", 0)):
        if name in values:
            if (values[name] < lowest).any():
                yield f"{name} must be at least {lowest}"
            repeated = len(np.unique(values[name])) < len(values[name])
            if repeated and (name == "dim" or ds.attrs.get("mids_recipes", "").count("rtol") < 2):
                yield f"{name} has repeated values"
    if "level" in values and not ((values["level"] > 0) & (values["level"] < 1)).all():
        yield "level must lie between 0 and 1"
    sizes = {name: ds.sizes[name] for name in ("direction", "axis", "axis_t") if name in ds.sizes}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        yield f"direction, axis and axis_t must all have the target's rank as size, not {listed}"


def table() -> str:
    """Return the registry as a table in Markdown: variables, then coordinates."""
    lines = []
    for kind, entries in (("variable", VARIABLES), ("coordinate", COORDINATES)):
        lines += [f"| {kind} | dims | dtype | meaning |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {', '.join(v.dims)} | {v.dtypes} | {v.meaning} |"
            for name, v in entries.items()
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
