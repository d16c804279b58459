"""The dataset schema: what a dataset may hold, the recipes of its runs, and the check of both.

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
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

from . import validation
from .errors import DatasetError

Recipes: TypeAlias = dict[str, dict[str, Any]]
Grids: TypeAlias = dict[str, list[float]]

VERSION = version("mids")  # of the package
SCHEMA_VERSION = 2  # what this version writes in ``mids_schema``, and the newest it reads
FINGERPRINT = 32  # bytes of the fingerprint of a recipe
LONGEST_RECIPES = 2**26  # characters of the longest ``mids_recipes`` that is read

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

LEVELS = (0.1, 0.5, 0.9)  # overlaps at which crossing times are recorded
STATUS = ("converged", "censored", "trapped", "failed")  # values 0, 1, 2, 3

DIMENSIONS: Mapping[str, str] = {
    "dim": "ambient dimension d",
    "run": "independent runs",
    "time": "points of the time grid",
    "mode": "Hermite modes of the target",
    "direction": "learned directions, most learned first",
    "axis": "coordinates of the link function",
    "axis_t": "coordinates of the link function, as columns",
    "student": "columns of the student's frame",
    "level": "overlaps at which crossing times are recorded",
    "n": "numbers of samples of an empirical loss",
    "neuron": "neurons of a two-layer network",
    "neuron_t": "neurons, as columns",
    "byte": "bytes of a fingerprint",
}
OF_ONE_RUN = DIMENSIONS.keys() - {"dim", "run", "n"}
"""Dimensions that no sweep adds."""


@dataclass(frozen=True)
class Variable:
    """One entry of the schema; ``"str"`` is text of any length.

    `compact` is a narrower type for compact files where it is accurate enough: of curves that are
    drawn, fitted and compared, but not of times, or of what a replay starts from.
    """

    dims: tuple[str, ...]
    long_name: str
    meaning: str
    dtype: str = "float64"
    attrs: Mapping[str, Any] = field(default_factory=dict)
    compact: str | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the variable in a dataset; everything is dimensionless."""
        return {**self.required, "comment": self.meaning}

    @property
    def required(self) -> dict[str, Any]:
        """Those of the attributes that a dataset must have."""
        units = {} if self.dtype == "str" else {"units": "1"}
        return {"long_name": self.long_name, **units, **self.attrs}

    @property
    def dtypes(self) -> str:
        """The types it may have, for people."""
        return self.dtype if self.compact is None else f"{self.dtype} or {self.compact}"

    def accepts(self, dtype: np.dtype[Any]) -> bool:
        """Tell whether an array of this type may hold the variable."""
        if self.dtype == "str":
            return dtype.kind in "UT"
        return any(dtype == np.dtype(name) for name in (self.dtype, self.compact) if name)


def flags(*meanings: str) -> dict[str, Any]:
    """Attributes of a variable whose values 0, 1, ... have meanings."""
    values = np.arange(len(meanings), dtype=np.int8)
    return {"flag_values": values, "flag_meanings": " ".join(meanings)}


def _of_run(long_name: str, meaning: str, *dims: str, **more: Any) -> Variable:
    """Variable of each run, with further dims."""
    return Variable(("dim", "run", *dims), long_name, meaning, **more)


def _curve(long_name: str, meaning: str, *dims: str) -> Variable:
    """Variable of each run and time."""
    return _of_run(long_name, meaning, "time", *dims, compact="float32")


VARIABLES: Mapping[str, Variable] = {
    "loss": _curve("loss", "objective of the flow, with the factor 1/2 (paper eq. 31)"),
    "risk": _curve(
        "population risk",
        "population risk with the factor 1/2, where it differs from the objective",
    ),
    "overlap": _curve(
        "overlap",
        "eigenvalues of G in [0, 1], descending: squared cosines of the principal angles",
        "direction",
    ),
    "gram": _curve(
        "summary statistic G(t)",
        "G(t) = M(t) M(t)^T: the learned subspace, in the coordinates of the link function",
        "axis",
        "axis_t",
    ),
    "correlation": _curve(
        "correlation matrix M(t)", "M(t) = W*^T W(t), for flows on M", "axis", "student"
    ),
    "link": _curve(
        "coefficient of the student on the mode",
        "E f(W^T x) H_beta(W*^T x), f the student's link, for flows that learn it: the coefficient"
        " of the student on the mode beta of the target, alpha_beta where that is learned",
        "mode",
    ),
    "energy": _curve(
        "contribution of the mode to h(G)",
        "alpha_beta (A_G f*)_beta; sums over mode to h(G), which is |f*|^2 - 2 loss where the link"
        " is at its optimum without ridge",
        "mode",
    ),
    "gram0": _of_run("initial summary statistic G(0)", "G(0) = M(0) M(0)^T", "axis", "axis_t"),
    "crossing_time": _of_run(
        "time at which the overlap first reaches the level",
        "first time at which the direction's overlap reaches the level, from the dense output of "
        "the integrator and not from the grid; NaN if it never does",
        "direction",
        "level",
    ),
    "stage_duration": _of_run(
        "time from the previous direction's overlap of 1/2 to this one's",
        "difference of crossing times at level 0.5, kept apart by the integrator: exact where the "
        "times themselves, of order d^(s - 1), are too large to be subtracted",
        "direction",
    ),
    "status": _of_run(
        "how the run ended",
        "0 converged; 1 censored: still on a plateau at the last time; 2 trapped; 3 failed",
        dtype="int8",
        attrs=flags(*STATUS),
    ),
    "n_steps": _of_run("integration steps", "steps the integrator accepted", dtype="int64"),
    "n_rhs": _of_run(
        "evaluations of the right-hand side",
        "how often the integrator evaluated the flow",
        dtype="int64",
    ),
    "initial": _of_run(
        "initial correlation matrix M(0)",
        "M(0) = W*^T W(0), where the flow depends on more than G(0), or where each run was given "
        "its own",
        "axis",
        "student",
    ),
    "recipe": _of_run(
        "fingerprint of the recipe",
        "names the recipe of the run in the attribute mids_recipes: the 32 bytes of the SHA-256 of"
        " its canonical JSON, apart, so that no statistic over several recipes is one of them",
        "byte",
        dtype="uint8",
    ),
    "neuron_overlap": _curve(
        "correlation of the neuron with the axis",
        "m_j = W*^T w_j of neuron j: its cosines where weights have unit norm",
        "neuron",
        "axis",
    ),
    "neuron_gram": _curve(
        "products of the weights of two neurons", "Q = W^T W", "neuron", "neuron_t"
    ),
    "second_layer": _curve("second layer", "a_j, the weight of neuron j in the network", "neuron"),
    "neuron_crossing_time": _of_run(
        "time at which the neuron's overlap first reaches the level",
        "first time at which the neuron's squared cosine with the nearest direction (axis of the "
        "link, or index vector of an additive target) reaches the level; NaN if it never does",
        "neuron",
        "level",
    ),
    "nearest": _of_run(
        "direction nearest to the neuron at the end",
        "its number, from 0; -1 where the squared cosine is below 1/2, or as large with another "
        "one, as at their average. A permutation where every direction has one neuron",
        "neuron",
        dtype="int64",
    ),
    "coverage": _of_run(
        "directions that neurons have reached",
        "number of directions that are the nearest of some neuron at the end, squared cosine 1/2 "
        "at least",
        dtype="int64",
    ),
    "success": _of_run(
        "whether the run succeeded",
        "1 if all directions that the student can hold were learned at the end of the run, else 0",
        dtype="int8",
        attrs=flags("no", "yes"),
    ),
    "final_overlap": _of_run(
        "overlap at the end of the run", "the variable overlap at the last time", "direction"
    ),
    "final_risk": _of_run(
        "population risk at the end of the run", "the variable risk at the last time"
    ),
}
"""Data variables by name."""

COORDINATES: Mapping[str, Variable] = {
    "dim": Variable(("dim",), "ambient dimension d", "ambient dimension d", "int64"),
    "run": Variable(("run",), "run", "index of the run, part of its random stream", "int64"),
    "time": Variable(("time",), "time", "time of the flow, increasing; no physical unit"),
    "samples": Variable(
        ("time",), "samples used", "samples that a stochastic flow has drawn by this time", "int64"
    ),
    "n": Variable(("n",), "samples", "number of samples of the empirical loss", "int64"),
    "ratio": Variable(("dim", "n"), "samples in units of d^s", "n / d^s, s the largest leap"),
    "direction": Variable(
        ("direction",), "direction", "rank of the direction, 0 for the most learned", "int64"
    ),
    "neuron": Variable(("neuron",), "neuron", "number of the neuron", "int64"),
    "level": Variable(("level",), "overlap level", "overlap that is reached"),
    "degree": Variable(("mode",), "degree of the mode", "total degree |beta|", "int64"),
    "exponents": Variable(
        ("mode", "axis"), "multi-index of the mode", "the multi-index beta", "int64"
    ),
    "mode": Variable(("mode",), "mode", 'text such as "h1(z1)h3(z2)"', "str"),
}
"""Coordinates by name; those named like a dimension are required wherever that is used."""


# -- attributes and recipes ---------------------------------------------------------------------


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
        "license": "https://creativecommons.org/licenses/by/4.0/",
        "comment": CITE,
        "keywords": "gradient flow, multi-index model, feature learning, saddle-to-saddle dynamics",
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
    # The same bytes on every machine.
    values = np.ascontiguousarray(time, dtype="<f8")
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def recorded(recipes: Mapping[str, Mapping[str, Any]], grids: Mapping[str, Any]) -> str:
    """Text of the attribute ``mids_recipes``: recipes by fingerprint, time grids by digest."""
    return json.dumps({"recipes": dict(recipes), "grids": grids})


def recipes(ds: xr.Dataset) -> Recipes:
    """Recipes of a dataset by fingerprint, as JSON holds them, each checked for changes."""
    return copy.deepcopy(recipes_in(ds.attrs)[0])  # what is decoded is shared by all datasets


def grids(ds: xr.Dataset) -> Grids:
    """Time grids of a dataset's recipes by digest."""
    return recipes_in(ds.attrs)[1]


def recipes_in(attrs: Mapping[Any, Any]) -> tuple[Recipes, Grids]:
    """Recipes and time grids in the attribute ``mids_recipes``; no more than empty without it."""
    text = attrs.get("mids_recipes", '{"recipes": {}, "grids": {}}')
    if not isinstance(text, str) or len(text) > LONGEST_RECIPES:
        raise DatasetError(
            f"the attribute mids_recipes must be JSON text of at most {LONGEST_RECIPES} characters;"
            " restore it from the original file"
        )
    return _decoded(text)


@functools.lru_cache(maxsize=16)
def _decoded(text: str) -> tuple[Recipes, Grids]:
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


# -- the check ---------------------------------------------------------------------------------


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
            # Two recipes, each with one rtol, may share run indices where joined along `run`.
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
