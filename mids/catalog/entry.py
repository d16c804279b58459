"""One dataset of a catalog: what its row of the index says, all of it read off the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import xarray as xr

from .. import schema
from ..errors import DatasetError, FileError, InputError, MidsError
from ..simulation.joining import recipes_of
from ..targets.ladder import leaps
from ..targets.target import Target
from ..validation import shown

__all__ = ["COLUMNS", "Entry", "check_key", "suggest_key"]

COLUMNS: Mapping[str, tuple[str, str]] = {
    "key": ("string", "name of the dataset in the catalog"),
    "title": ("string", "one line that says what it is"),
    "target": ("string", "name or formula of the target (link function)"),
    "flow": ("string", "gradient flow; empty for trajectories from outside"),
    "rank": ("integer", "rank r of the target"),
    "student_rank": ("integer", "columns q of the student's frame"),
    "information_exponent": ("integer", "information exponent s of the target"),
    "leaps": ("string", "information exponents of the successive leaps"),
    "dims": ("string", "ambient dimensions d"),
    "runs": ("integer", "independent runs at each dimension"),
    "path": ("string", "NetCDF file, relative to the catalog"),
    "sha256": ("string", "checksum of the file"),
    "bytes": ("integer", "size of the file"),
    "schema": ("integer", "version of the dataset schema"),
    "mids_version": ("string", "version of mids that made it"),
    "license": ("string", "license of the data"),
    "created": ("string", "when it was made"),
}
"""Columns of the index: type and meaning."""

LONGEST_TEXT = 2000
LARGEST = 2**53
KEY = re.compile(
    r"(?!(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$))"  # names that Windows keeps for devices
    r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9_-])?"
)
SHA256 = re.compile(r"[0-9a-f]{64}")
OPTIONAL = ("rank", "student_rank", "information_exponent")
LISTS = {"leaps": "-", "dims": " "}
"""Columns that hold several numbers, and what stands between them."""


@dataclass(frozen=True)
class Entry:
    """A row of the index; fields are the columns of `COLUMNS`, in their order.

    ``leaps`` and ``dims`` are tuples of integers, and what a dataset does not say is None or empty.
    """

    key: str
    title: str
    target: str
    flow: str
    rank: int | None
    student_rank: int | None
    information_exponent: int | None
    leaps: tuple[int, ...]
    dims: tuple[int, ...]
    runs: int
    sha256: str
    bytes: int
    schema: int
    mids_version: str
    license: str
    created: str

    @property
    def path(self) -> str:
        """The file, relative to the catalog; it follows from the key alone."""
        return f"data/{self.key}.nc"

    def row(self) -> dict[str, str | int | None]:
        """Return the columns as text and numbers."""
        values = asdict(self) | {"path": self.path}
        for name, separator in LISTS.items():
            values[name] = separator.join(map(str, values[name]))
        return {name: values[name] for name in COLUMNS}

    @classmethod
    def from_row(cls, row: object) -> Entry:
        """Read a row of an index that anyone may have written.

        Parameters
        ----------
        row : object
            What `row` returns, decoded from JSON.

        Returns
        -------
        Entry

        Raises
        ------
        FileError
            If it is not a row; the message says why and does not name the index.
        """
        if not isinstance(row, Mapping):
            raise FileError(f"an entry is {shown(row)} instead of an object")
        key = row.get("key")
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise FileError(f"an entry has the key {shown(key)}, which is no name of a dataset")
        values: dict[str, Any] = {}
        for name in COLUMNS:
            values[name] = _cell(key, name, row.get(name))
        if values["path"] != f"data/{key}.nc":
            raise FileError(
                f"the entry {key} has the path {shown(values['path'])}, but its file can only be "
                f"data/{key}.nc in the catalog"
            )
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @classmethod
    def of(cls, key: str, ds: xr.Dataset, *, sha256: str, size: int) -> Entry:
        """Derive the row of a dataset from what it says about itself.

        Parameters
        ----------
        key : str
        ds : xarray.Dataset
            As read from its file.
        sha256 : str
        size : int
            Of the file, in bytes.

        Returns
        -------
        Entry

        Raises
        ------
        DatasetError
            If it breaks the schema or its ``mids_recipes`` makes no sense.
        """
        schema.validate(ds)
        try:
            return cls(key=key, sha256=sha256, bytes=size, **_described(ds))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            if isinstance(error, MidsError):
                raise DatasetError(str(error)) from None
            raise DatasetError(
                f"mids_recipes does not describe the dataset ({type(error).__name__}: {error})"
            ) from None


def check_key(key: str) -> str:
    """Return a key that is a plain file name on every system, or say what is allowed."""
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise InputError(
            "key must be up to 100 lower-case letters, digits, '.', '_' and '-', starting with a "
            f"letter or digit and not ending with '.', got {shown(key)}; pass for example "
            "key='single-index-s3'"
        )
    return key


def suggest_key(ds: xr.Dataset) -> str:
    """Return a readable key made of the target and the flow of a dataset, or of its title."""
    described = _described(ds)
    name = " ".join([described["target"], described["flow"]]).strip() or described["title"]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:100].strip("-")
    return slug or "dataset"


def _described(ds: xr.Dataset) -> dict[str, Any]:
    """Return what a dataset says about itself."""
    recipes = recipes_of(ds)[1] if "recipe" in ds else []
    targets = list(dict.fromkeys(recipe.target for recipe in recipes))
    names = dict.fromkeys(target.name or _formula(target) for target in targets)
    kinds = dict.fromkeys(recipe.flow.name for recipe in recipes if recipe.flow is not None)
    ranks = {recipe.student_rank for recipe in recipes}
    target = targets[0] if len(targets) == 1 else None
    made = {
        str(recipe.get("versions", {}).get("mids", "")) for recipe in schema.recipes(ds).values()
    }
    return {
        "title": _text(ds.attrs.get("title", "")),
        "target": _text("; ".join(names)),
        "flow": _text("; ".join(kinds)),
        "rank": None if target is None else target.rank,
        "student_rank": ranks.pop() if len(ranks) == 1 else None,
        "information_exponent": None if target is None else target.information_exponent(),
        "leaps": () if target is None else tuple(step.exponent for step in leaps(target).steps),
        "dims": tuple(np.atleast_1d(ds["dim"].values).tolist()) if "dim" in ds.coords else (),
        "runs": int(ds.sizes.get("run", 1)),
        "schema": int(ds.attrs["mids_schema"]),
        "mids_version": _text("; ".join(sorted(made))),
        "license": _text(ds.attrs.get("license", "")),
        "created": _text(ds.attrs.get("date_created", "")),
    }


def _formula(target: Target) -> str:
    """Return text that `Target.parse` reads, with coefficients cut to four digits."""
    return f"{target:.4g}".replace(")h", ")*h")


def _text(value: object) -> str:
    """Return text that fits a cell: printable, on one line, not too long."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return " ".join(text.split())[:LONGEST_TEXT]


def _cell(key: str, name: str, value: object) -> Any:
    """Check one cell of a foreign row."""
    kind = COLUMNS[name][0]
    if kind == "integer":
        if value is None and name in OPTIONAL:
            return None
        if type(value) is int and 0 <= value <= LARGEST:
            return value
    elif isinstance(value, str) and value == _text(value):
        if name in LISTS:
            parts = value.split(LISTS[name]) if value else []
            if all(re.fullmatch("[0-9]{1,16}", part) for part in parts):
                return tuple(map(int, parts))
        elif name != "sha256" or SHA256.fullmatch(value):
            return value
    raise FileError(f"the entry {key} has {name} {shown(value)}, which is no {COLUMNS[name][1]}")
