"""Commands for catalogs."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
import xarray as xr

from .. import catalog as catalogs
from .. import schema, validation
from ..catalog import open_catalog
from ..catalog.index import check_key
from ..errors import InputError
from ..simulation.simulate import from_spec, read_spec
from ..storage import foreign
from ..storage import netcdf as io
from .arguments import PATH, Main

SETTINGS = ("date", "defaults", "dataset", "points_per_decade")  # entries of the file of a build
LOCATION = click.argument("location", metavar="CATALOG")
FOLDER = click.argument("folder", metavar="CATALOG", type=PATH)


@click.group(cls=Main, epilog="Example: mids catalog ls catalog")
def catalog() -> None:
    """Datasets in a folder that can be shared.

    CATALOG is a folder, or a URL where a command only reads it.
    """


@catalog.command(epilog='Example: mids catalog ls catalog -w "information_exponent=2.." -w flow=*')
@LOCATION
@click.option(
    "-w",
    "--where",
    "conditions",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only where a column is VALUE: a number, a text with *, a range 2..4, 2.. or ..4, or "
    "alternatives 2,3. May be repeated.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print all columns as CSV.")
def ls(location: str, conditions: tuple[str, ...], as_csv: bool) -> None:
    """List the datasets of CATALOG."""
    found = open_catalog(location).search(**dict(map(_condition, conditions)))
    click.echo(found.to_dataframe().to_csv().rstrip("\n") if as_csv else repr(found))


@catalog.command(epilog="Example: mids catalog add catalog ladder.nc --key ladder-1-3")
@FOLDER
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=PATH)
@click.option("--key", help="Name in the catalog (default: that of the file).")
@click.option("--overwrite", is_flag=True, help="Replace a dataset of the same key.")
def add(folder: Path, files: tuple[Path, ...], key: str | None, overwrite: bool) -> None:
    """Add FILEs to CATALOG, which is made if there is none."""
    if key is not None and len(files) > 1:
        raise InputError("--key names one dataset; give one file, or leave --key out")
    names = [check_key(key or file.stem.lower()) for file in files]
    if len(set(names)) < len(names):
        raise InputError("several files would have the same key; add them one by one with --key")
    for file in files:
        if file.is_file():  # it may be foreign: another process reads it first
            foreign.check(file, foreign.checksum(file.resolve()))
    with ExitStack() as stack:
        opened = [stack.enter_context(io.open_dataset(file, chunks={})) for file in files]
        for ds in opened:
            schema.validate(ds)
        target = open_catalog(folder, create=True)
        taken = [] if overwrite else sorted(set(names) & set(target))
        if taken:
            raise InputError(
                f"{folder} has {', '.join(taken)} already; nothing was added; give another --key, "
                "or --overwrite to replace"
            )
        for name, ds in zip(names, opened, strict=True):
            click.echo(f"added {target.add(ds, key=name, overwrite=overwrite)} to {folder}")


@catalog.command(epilog="Example: mids catalog remove catalog ladder-1-3")
@FOLDER
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
def remove(folder: Path, keys: tuple[str, ...]) -> None:
    """Remove datasets from CATALOG."""
    open_catalog(folder).remove(*keys)
    click.echo(f"removed {', '.join(keys)} from {folder}")


@catalog.command(epilog="Example: mids catalog verify catalog --replay 3")
@LOCATION
@click.option(
    "--replay",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Runs of each dataset to simulate again.",
)
def verify(location: str, replay: int) -> None:
    """Check files and index of CATALOG, and replay some runs.

    Checks the files by their checksums, the schema and the index. Exit code 1 if something is
    wrong.
    """
    found = open_catalog(location).verify(
        replay=replay, progress=lambda key: click.echo(f"checking {key}", err=True)
    )
    click.echo(str(found))
    if not found.ok:
        sys.exit(1)


@catalog.command(epilog="Example: mids catalog merge catalog ../other/catalog")
@FOLDER
@click.argument("other", metavar="OTHER")
def merge(folder: Path, other: str) -> None:
    """Take the datasets of OTHER into CATALOG.

    OTHER is a folder or URL; CATALOG is made if there is none. Datasets of the same key must be
    equal; otherwise nothing is merged.
    """
    source = open_catalog(other)
    added = open_catalog(folder, create=True).merge(source)
    click.echo(f"{len(added)} datasets are new in {folder}: {', '.join(added) or 'none'}")


@catalog.command(epilog="Example: mids catalog reindex catalog")
@FOLDER
def reindex(folder: Path) -> None:
    """Make the index of CATALOG again from its files data/*.nc."""
    click.echo(repr(catalogs.reindex(folder)))


@catalog.command(epilog="Example: mids catalog fetch https://example.org/catalog staircase-3")
@click.argument("url", metavar="URL")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
def fetch(url: str, keys: tuple[str, ...]) -> None:
    """Bring datasets from URL into the local cache.

    Prints their files; all datasets are brought if no KEY is given. `mids catalog merge FOLDER URL`
    makes a catalog of them.
    """
    source = open_catalog(url)
    for key in keys or source:
        click.echo(source.path(key))


@catalog.command(epilog="Example: mids catalog build catalog/build.toml")
@click.argument("spec", metavar="SPEC", type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="Folder of the catalog (default: that of SPEC).",
)
@click.option("--only", metavar="KEY", multiple=True, help="Only this dataset. May be repeated.")
def build(spec: Path, output: Path | None, only: tuple[str, ...]) -> None:
    """Simulate the datasets of SPEC, a TOML file, into a catalog."""
    given = read_spec(spec)
    for name in given:
        validation.one_of(name, SETTINGS, "setting of a build")
    sweeps = given.get("dataset")
    if not isinstance(sweeps, Mapping) or not sweeps or "date" not in given:
        raise InputError("a build needs date = 2026-01-01 and a table [dataset.KEY] for each sweep")
    for key in only:
        validation.one_of(key, sweeps, "dataset of the build")
    points, usual = given.get("points_per_decade"), given.get("defaults", {})
    lazy = {check_key(key): _sweep({**usual, **sweeps[key]}, points) for key in only or sweeps}
    found = open_catalog(output or spec.parent, create=True)
    for key, ds in lazy.items():
        started = time.perf_counter()
        # In memory first: blocks written as they come would lie in the file in any order.
        found.add(_dated(ds.compute(), str(given["date"])), key=key, overwrite=True)
        click.echo(f"built {key} in {time.perf_counter() - started:.1f} s")
    click.echo(repr(found))


def _sweep(arguments: dict[str, Any], points_per_decade: object) -> xr.Dataset:
    """Return the lazy dataset of a sweep, its default time grid thinned."""
    texts = {name: arguments.pop(name) for name in ("title", "summary") if name in arguments}
    ds = from_spec(arguments)
    if "time" not in arguments and points_per_decade is not None:
        kept = validation.integer(points_per_decade, "points_per_decade", at_least=1)
        grid = ds["time"].values
        # The points are powers of one base: keep those that a coarser grid has, and the end.
        positions = np.log10(grid[1:]) * kept
        chosen = np.abs(positions - np.round(positions)) < 1e-6
        chosen[-1] = True
        ds = from_spec({**arguments, "time": [0.0, *grid[1:][chosen].tolist()]})
    return ds.assign_attrs(texts)


def _dated(ds: xr.Dataset, date: str) -> xr.Dataset:
    """Return a dataset with a fixed date, so that the same sweep gives the same file."""
    history = ds.attrs["history"].replace(ds.attrs["date_created"], date)
    return ds.assign_attrs(date_created=date, history=history)


def _condition(text: str) -> tuple[str, Any]:
    """Read COLUMN=VALUE."""
    column, equals, value = text.partition("=")
    if not equals:
        raise InputError(
            f"--where needs COLUMN=VALUE, got {text!r}; pass for example --where rank=2"
        )
    low, between, high = value.partition("..")
    if between and "*" not in value:
        return column.strip(), slice(*(_value(bound) if bound else None for bound in (low, high)))
    # Commas within parentheses belong to a name, such as leaps(1,2,3).
    values = [_value(part) for part in re.split(r",(?![^()]*\))", value)]
    return column.strip(), values if len(values) > 1 else values[0]


def _value(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text.strip()
