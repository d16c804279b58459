"""Commands for catalogs."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from .arguments import Main

LOCATION = click.argument("location", metavar="CATALOG")
FOLDER = click.argument("folder", metavar="CATALOG", type=click.Path(path_type=Path))


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
    found = _open(location).search(**dict(map(_condition, conditions)))
    click.echo(found.to_dataframe().to_csv().rstrip("\n") if as_csv else repr(found))


@catalog.command(epilog="Example: mids catalog add catalog ladder.nc --key ladder-1-3")
@FOLDER
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--key", help="Name in the catalog (default: that of the file).")
@click.option("--overwrite", is_flag=True, help="Replace a dataset of the same key.")
def add(folder: Path, files: tuple[Path, ...], key: str | None, overwrite: bool) -> None:
    """Add FILEs to CATALOG, which is made if there is none."""
    from ..catalog import open_catalog
    from ..catalog.index import check_key
    from ..errors import InputError
    from ..schema import validate
    from ..storage import foreign
    from ..storage import netcdf as io

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
            validate(ds)
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
    from ..catalog import open_catalog

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
    found = _open(location).verify(
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
    from ..catalog import open_catalog

    source = open_catalog(other)
    added = open_catalog(folder, create=True).merge(source)
    click.echo(f"{len(added)} datasets are new in {folder}: {', '.join(added) or 'none'}")


@catalog.command(epilog="Example: mids catalog reindex catalog")
@FOLDER
def reindex(folder: Path) -> None:
    """Make the index of CATALOG again from its files data/*.nc."""
    from ..catalog import reindex

    click.echo(repr(reindex(folder)))


@catalog.command(epilog="Example: mids catalog fetch https://example.org/catalog staircase-3")
@click.argument("url", metavar="URL")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
def fetch(url: str, keys: tuple[str, ...]) -> None:
    """Bring datasets from URL into the local cache.

    Prints their files; all datasets are brought if no KEY is given. `mids catalog merge FOLDER URL`
    makes a catalog of them.
    """
    source = _open(url)
    for key in keys or source:
        click.echo(source.path(key))


@catalog.command(epilog="Example: mids catalog build catalog/build.toml")
@click.argument("spec", metavar="SPEC", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of the catalog (default: that of SPEC).",
)
@click.option("--only", metavar="KEY", multiple=True, help="Only this dataset. May be repeated.")
def build(spec: Path, output: Path | None, only: tuple[str, ...]) -> None:
    """Simulate the datasets of SPEC, a TOML file, into a catalog."""
    from ..catalog.build import build
    from ..simulation.simulate import read_spec

    folder = output or spec.parent
    for key, seconds in build(read_spec(spec), folder, only=only):
        click.echo(f"built {key} in {seconds:.1f} s")
    click.echo(repr(_open(str(folder))))


def _open(location: str) -> Any:
    from ..catalog import open_catalog

    return open_catalog(location)


def _condition(text: str) -> tuple[str, object]:
    """Read COLUMN=VALUE."""
    from ..errors import InputError

    column, equals, value = text.partition("=")
    if not equals:
        raise InputError(
            f"--where needs COLUMN=VALUE, got {text!r}; pass for example --where rank=2"
        )
    low, between, high = value.partition("..")
    if between and "*" not in value:
        return column.strip(), slice(*(_value(bound) if bound else None for bound in (low, high)))
    if "," in value:
        return column.strip(), [_value(part) for part in value.split(",")]
    return column.strip(), _value(value)


def _value(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text.strip()
