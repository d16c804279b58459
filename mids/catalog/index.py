"""The index of a catalog: a row for each dataset, and the three files that follow from the rows.

``datapackage.json`` (a Frictionless Data Package) decides what the catalog holds; its replacement
is the moment at which a change takes place. ``catalog.csv`` and ``catalog.json`` (an ESM
collection for intake-esm) say the same to other tools and are written after it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import xarray as xr

from .. import schema
from ..errors import DatasetError, FileError, InputError, printable
from ..simulation.recipe import held
from ..targets.ladder import leaps
from ..targets.target import Target
from ..validation import shown, suggestion

INDEX = "datapackage.json"
LARGEST_INDEX = 2**26  # bytes of the largest index that is read

TITLE = "Gradient flow on Gaussian multi-index models"
DESCRIPTION = (
    "Trajectories of gradient flow on Gaussian multi-index models: NetCDF files that explain "
    "themselves (CF-1.11, ACDD-1.3), one for each target and flow, and an index made from them."
)
LICENSES = {"https://creativecommons.org/licenses/by/4.0/": "CC-BY-4.0"}


LONGEST_TEXT = 2000
LARGEST = 2**53
LARGEST_FILE = 2**36
KEY = re.compile(
    r"(?!(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$))"  # names that Windows keeps for devices
    r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9_-])?"
)
SHA256 = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(rf"(?P<key>{KEY.pattern})-(?P<start>[0-9a-f]{{16}})\.nc")
"""Name of a file: its key and the start of its checksum. Catalogs of version 0.1 have the key."""
OPTIONAL = ("rank", "student_rank", "information_exponent")
LISTS = {"leaps": "-", "dims": " "}  # columns of several numbers, and what separates them
SWEPT, SEPARATOR = ("target", "flow", "mids_version"), "; "
"""Columns that name all values of a sweep, and what stands between them."""


def _column(kind: str, meaning: str) -> Any:
    return field(metadata={"column": (kind, meaning)})


@dataclass(frozen=True)
class Entry:
    """A row of the index; fields are the columns of `COLUMNS`, in their order.

    ``leaps`` and ``dims`` are tuples of integers, and what a dataset does not say is None or empty.
    A new file has a new name, so that replacing the index is the whole of a change.
    """

    key: str = _column("string", "name of the dataset in the catalog")
    title: str = _column("string", "one line that says what it is")
    target: str = _column("string", "name or formula of the target (link function)")
    flow: str = _column("string", "gradient flow; empty for trajectories from outside")
    rank: int | None = _column("integer", "rank r of the target")
    student_rank: int | None = _column("integer", "columns q of the student's frame")
    information_exponent: int | None = _column("integer", "information exponent s of the target")
    leaps: tuple[int, ...] = _column("string", "information exponents of the successive leaps")
    dims: tuple[int, ...] = _column("string", "ambient dimensions d")
    runs: int = _column("integer", "independent runs at each dimension")
    path: str = _column("string", "NetCDF file, relative to the catalog")
    sha256: str = _column("string", "checksum of the file")
    bytes: int = _column("integer", "size of the file")
    schema: int = _column("integer", "version of the dataset schema")
    mids_version: str = _column("string", "version of mids that made it")
    license: str = _column("string", "license of the data")
    created: str = _column("string", "when it was made")

    def row(self) -> dict[str, str | int | None]:
        """Return the columns as text and numbers."""
        values = asdict(self)
        for name, separator in LISTS.items():
            values[name] = separator.join(map(str, values[name]))
        return values

    @classmethod
    def from_row(cls, row: object) -> Entry:
        """Read a decoded row of an index that anyone may have written."""
        if not isinstance(row, Mapping):
            raise FileError(f"an entry is {shown(row)} instead of an object")
        key = row.get("key")
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise FileError(f"an entry has the key {shown(key)}, which is no name of a dataset")
        values = {name: _cell(key, name, row.get(name)) for name in COLUMNS}
        # Any other path of a foreign index could lead out of the catalog.
        allowed = (f"data/{key}.nc", cls.path_of(key, values["sha256"]))
        if values["path"] not in allowed:
            raise FileError(
                f"the entry {key} has the path {shown(values['path'])}, but its file can only be "
                f"{' or '.join(allowed)} in the catalog"
            )
        return cls(**values)

    @staticmethod
    def path_of(key: str, sha256: str) -> str:
        """Return the file of a new dataset, relative to the catalog."""
        return f"data/{key}-{sha256[:16]}.nc"

    @classmethod
    def of(
        cls, key: str, ds: xr.Dataset, *, sha256: str = "", size: int = 0, path: str | None = None
    ) -> Entry:
        """Return the row of a dataset by what it says about itself, or raise DatasetError."""
        schema.validate(ds)
        path = path or cls.path_of(key, sha256)
        try:
            return cls(key=key, path=path, sha256=sha256, bytes=size, **_described(ds))
        except DatasetError:
            raise
        except Exception as error:  # a recipe without sense may raise anything
            raise DatasetError(
                f"its recipe does not describe the dataset ({type(error).__name__}: {error})"
            ) from None


COLUMNS: Mapping[str, tuple[str, str]] = {
    column.name: column.metadata["column"] for column in fields(Entry)
}
"""Columns of the index: type and meaning."""

TABLES: Mapping[str, Mapping[str, Any]] = {
    "catalog.csv": {
        "name": "catalog-table",
        "profile": "tabular-data-resource",
        "title": "The datasets, one row each",
        "format": "csv",
        "mediatype": "text/csv",
        "encoding": "utf-8",
        "schema": {
            "fields": [
                {"name": name, "type": kind, "description": meaning}
                for name, (kind, meaning) in COLUMNS.items()
            ],
            "primaryKey": ["key"],
        },
    },
    "catalog.json": {
        "name": "catalog-collection",
        "profile": "data-resource",
        "type": "json",
        "title": "The same as an ESM collection, for intake-esm",
        "format": "json",
        "mediatype": "application/json",
        "encoding": "utf-8",
    },
}
"""The files that follow from the index, as it describes them."""

COLLECTION = {
    "esmcat_version": "0.1.0",
    "id": "mids-catalog",
    "title": TITLE,
    "description": DESCRIPTION,
    "catalog_file": "catalog.csv",
    "attributes": [{"column_name": name} for name in COLUMNS if name != "path"],
    "assets": {"column_name": "path", "format": "netcdf"},
    "aggregation_control": {
        "variable_column_name": "title",  # searching it would select variables
        "groupby_attrs": ["key", "schema"],
        "aggregations": [],
    },
}


def key_of_name(name: str, sha256: str) -> str:
    """Return the key of a file in the data folder."""
    match = NAME.fullmatch(name)
    return match["key"] if match and sha256.startswith(match["start"]) else name[: -len(".nc")]


def check_key(key: str) -> str:
    """Return a key that is a plain file name on every system, or say what is allowed."""
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise InputError(
            "key must be up to 100 lower-case letters, digits, '.', '_' and '-', starting with a "
            f"letter or digit and not ending with '.', got {shown(key)}; pass for example "
            "key='single-index-s3'"
        )
    return key


class UnknownKeyError(InputError, KeyError):
    """A catalog has no dataset of this key."""

    def __str__(self) -> str:
        return str(self.args[0])


def unknown_key(location: str, key: str, entries: Mapping[str, Entry]) -> UnknownKeyError:
    """Return the error of a key that a catalog does not have, with the closest of its keys."""
    remedy = suggestion(str(key), entries, "list(catalog) has all keys")
    return UnknownKeyError(f"{location} has no dataset {key!r}; {remedy}")


def suggest_key(ds: xr.Dataset) -> str:
    """Return a readable key made of the target and the flow of a dataset, or of its title."""
    described = _described(ds)
    name = " ".join([described["target"], described["flow"]]).strip() or described["title"]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:100].strip("-")
    return slug or "dataset"


def _described(ds: xr.Dataset) -> dict[str, Any]:
    """Return what a dataset says about itself."""
    recipes = held(ds)  # of flows that are not known here, too
    targets = list(dict.fromkeys(Target.from_dict(recipe["target"]) for recipe in recipes))
    names = dict.fromkeys(target.name or _formula(target) for target in targets)
    kinds = dict.fromkeys(str(recipe["flow"]["name"]) for recipe in recipes if "flow" in recipe)
    ranks = {recipe.get("student_rank") for recipe in recipes}
    student_rank = ranks.pop() if len(ranks) == 1 else None
    target = targets[0] if len(targets) == 1 else None
    # Many oblique directions have no ladder.
    steps = leaps(target).steps if target is not None and len(target.modes) else ()
    made = {str(recipe.get("versions", {}).get("mids", "")) for recipe in recipes}
    return {
        "title": _text(ds.attrs.get("title", "")),
        "target": _text(SEPARATOR.join(names)),
        "flow": _text(SEPARATOR.join(kinds)),
        "rank": None if target is None else target.rank,
        "student_rank": None if student_rank is None else int(student_rank),
        "information_exponent": None if target is None else target.information_exponent(),
        "leaps": tuple(step.exponent for step in steps),
        "dims": tuple(np.atleast_1d(ds["dim"].values).tolist()) if "dim" in ds.coords else (),
        "runs": int(ds.sizes.get("run", 1)),
        "schema": int(ds.encoding.get("mids_schema", ds.attrs["mids_schema"])),  # of the file
        "mids_version": _text(SEPARATOR.join(sorted(made))),
        "license": _text(ds.attrs.get("license", "")),
        "created": _text(ds.attrs.get("date_created", "")),
    }


def _formula(target: Target) -> str:
    """Return text that `Target.parse` reads, with coefficients cut to four digits."""
    return f"{target:.4g}".replace(")h", ")*h")


def _text(value: object) -> str:
    """Return text that fits a cell: printable, on one line, not too long."""
    return " ".join(printable(value).split())[:LONGEST_TEXT]


def _cell(key: str, name: str, value: object) -> Any:
    """Check one cell of a foreign row."""
    kind = COLUMNS[name][0]
    if kind == "integer":
        if value is None and name in OPTIONAL:
            return None
        if type(value) is int and 0 <= value <= (LARGEST if name != "bytes" else LARGEST_FILE):
            return value
    elif isinstance(value, str) and value == _text(value):
        if name in LISTS:
            parts = value.split(LISTS[name]) if value else []
            if all(re.fullmatch("[0-9]{1,16}", part) for part in parts):
                return tuple(map(int, parts))
        elif name != "sha256" or SHA256.fullmatch(value):
            return value
    raise FileError(f"the entry {key} has {name} {shown(value)}, which is no {COLUMNS[name][1]}")


# -- files -------------------------------------------------------------------------------------


def documents(entries: Iterable[Entry]) -> dict[str, bytes]:
    """Return the three files of the index, that which decides first."""
    ordered = sorted(entries, key=lambda entry: entry.key)
    derived = {"catalog.csv": _csv(ordered), "catalog.json": _json(COLLECTION)}
    return {INDEX: _json(_package(ordered, derived)), **derived}


def parse(content: bytes) -> dict[str, Entry]:
    """Read a ``datapackage.json`` that anyone may have written."""
    if len(content) > LARGEST_INDEX:
        raise FileError(f"it has more than {LARGEST_INDEX} bytes")
    try:
        package = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(f"it is not JSON ({' '.join(str(error).split())[:200]})") from None
    resources = package.get("resources") if isinstance(package, Mapping) else None
    if not isinstance(resources, list):
        raise FileError("it lists no resources")
    entries: dict[str, Entry] = {}
    for resource in resources:
        if not isinstance(resource, Mapping):
            raise FileError("one of its resources is not an object")
        if resource.get("path") in list(TABLES):  # the path may be anything
            continue
        entry = Entry.from_row(resource.get("entry"))
        described = (resource.get("path"), resource.get("hash"), resource.get("bytes"))
        if described != (entry.path, f"sha256:{entry.sha256}", entry.bytes):
            raise FileError(f"its resource {entry.key} contradicts itself about path, hash, bytes")
        if entry.key in entries:
            raise FileError(f"it has the key {entry.key} more than once")
        entries[entry.key] = entry
    return dict(sorted(entries.items()))


def _package(entries: Iterable[Entry], derived: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the description of all files; `TABLES` says what the derived ones are."""
    tables = [
        {**TABLES[name], "path": name, "bytes": len(content)}
        | {"hash": f"sha256:{hashlib.sha256(content).hexdigest()}"}
        for name, content in derived.items()
    ]
    files = [
        {
            "name": entry.key,
            "profile": "data-resource",
            "title": entry.title,
            "path": entry.path,
            "format": "nc",
            "mediatype": "application/x-netcdf",
            "bytes": entry.bytes,
            "hash": f"sha256:{entry.sha256}",
            "entry": entry.row(),
        }
        for entry in entries
    ]
    licenses = sorted({entry.license for entry in entries if entry.license.startswith("http")})
    named = [{"name": LICENSES.get(url, "other"), "path": url} for url in licenses]
    return {
        "profile": "data-package",
        "name": "mids-catalog",
        "title": TITLE,
        "description": DESCRIPTION,
        **({"licenses": named} if named else {}),
        "resources": tables + files,
    }


def _csv(entries: Iterable[Entry]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(entry.row() for entry in entries)
    return text.getvalue().encode()


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
