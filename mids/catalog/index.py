"""The index of a catalog: three files that follow from its entries.

``datapackage.json`` (a Frictionless Data Package) decides what the catalog holds; its replacement
is the moment at which a change takes place. ``catalog.csv`` and ``catalog.json`` (an ESM
collection for intake-esm) say the same to other tools and are written after it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import FileError
from .entry import COLUMNS, Entry

__all__ = ["DERIVED", "INDEX", "LARGEST_INDEX", "documents", "parse"]

INDEX = "datapackage.json"
DERIVED = ("catalog.csv", "catalog.json")
LARGEST_INDEX = 2**26
"""Bytes of the largest index that is read."""

TITLE = "Gradient flow on Gaussian multi-index models"
DESCRIPTION = (
    "Trajectories of gradient flow on Gaussian multi-index models: NetCDF files that explain "
    "themselves (CF-1.11, ACDD-1.3), one for each target and flow, and an index made from them."
)
LICENSES = {"https://creativecommons.org/licenses/by/4.0/": "CC-BY-4.0"}


def documents(entries: Iterable[Entry]) -> dict[str, bytes]:
    """Return the three files of the index."""
    ordered = sorted(entries, key=lambda entry: entry.key)
    table, collection = _csv(ordered), _json(_collection())
    derived = dict(zip(DERIVED, (table, collection), strict=True))
    return derived | {INDEX: _json(_package(ordered, derived))}


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
        if resource.get("path") in DERIVED:
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
    kinds: dict[str, dict[str, Any]] = dict(
        zip(
            DERIVED,
            (
                {
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
                {
                    "name": "catalog-collection",
                    "profile": "data-resource",
                    "type": "json",
                    "title": "The same as an ESM collection, for intake-esm",
                    "format": "json",
                    "mediatype": "application/json",
                    "encoding": "utf-8",
                },
            ),
            strict=True,
        )
    )
    tables = [kinds[name] | {"path": name} | _checksum(derived[name]) for name in DERIVED]
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
    package: dict[str, Any] = {
        "profile": "data-package",
        "name": "mids-catalog",
        "title": TITLE,
        "description": DESCRIPTION,
        "licenses": [{"name": LICENSES.get(url, "other"), "path": url} for url in licenses],
        "resources": tables + files,
    }
    if not licenses:
        del package["licenses"]
    return package


def _checksum(content: bytes) -> dict[str, Any]:
    return {
        "bytes": len(content),
        "hash": f"sha256:{hashlib.sha256(content).hexdigest()}",
    }


def _collection() -> dict[str, Any]:
    return {
        "esmcat_version": "0.1.0",
        "id": "mids-catalog",
        "title": TITLE,
        "description": DESCRIPTION,
        "catalog_file": DERIVED[0],
        "attributes": [{"column_name": name} for name in COLUMNS if name != "path"],
        "assets": {"column_name": "path", "format": "netcdf"},
        "aggregation_control": {
            "variable_column_name": "title",  # searching it would select variables
            "groupby_attrs": ["key", "schema"],
            "aggregations": [],
        },
    }


def _csv(entries: Iterable[Entry]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(entry.row() for entry in entries)
    return text.getvalue().encode()


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
