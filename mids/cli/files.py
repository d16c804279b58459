"""Commands that look at files and targets."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .reports import report

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["flows", "info", "opened", "saddles", "targets"]


def opened(path: Path) -> xr.Dataset:
    """Open a file or store lazily, in blocks of a few thousand runs."""
    from .. import io, store

    return io.open_dataset(path, chunks=None if store.is_store(path) else {"dim": 1, "run": 2048})


@click.command(epilog="Example: mids saddles ladder.nc")
@click.argument("file", type=click.Path(path_type=Path))
def saddles(file: Path) -> None:
    """Print the saddles of FILE, measured against theory where there is one."""
    with opened(file) as ds:
        report(ds, None)


@click.command(epilog="Example: mids info ladder.nc")
@click.argument("file", type=click.Path(path_type=Path))
def info(file: Path) -> None:
    """Print what FILE holds and where it comes from."""
    from .. import io
    from ..accessor import describe

    with io.open_dataset(file) as ds:
        click.echo(describe(ds.load() if ds.nbytes < 1e8 else ds))
        for name in (
            "title",
            "summary",
            "failures",
            "source",
            "date_created",
            "license",
            "references",
        ):
            if name in ds.attrs:
                click.echo(f"  {name:<12}  {ds.attrs[name]}")


@click.command(epilog="Example: mids flows")
def flows() -> None:
    """List the flows and their parameters, for --flow and --flow-option."""
    from .. import flows as known

    for flow in known.classes():
        click.echo(f"{flow.name}: {(inspect.getdoc(flow) or flow.name).splitlines()[0]}")
        for field in dataclasses.fields(flow):
            if field.default is dataclasses.MISSING:
                click.echo(f"  {field.name} has no default")
            else:
                click.echo(f"  {field.name} = {json.dumps(field.default)}")


@click.command(epilog='Example: mids targets "leaps(1,2,3)"')
@click.argument("target", required=False)
def targets(target: str | None) -> None:
    """List the named families of targets, or describe TARGET."""
    from .. import targets as families
    from ..ladder import leaps

    examples = {"leaps": "leaps(1,2,3)"}
    listed = [target] if target else [examples.get(n, f"{n}(3)") for n in families.names()]
    for text in listed:
        parsed = families.Target.parse(text)
        click.echo(f"{text}\n  {parsed!r}\n  leaps {leaps(parsed)!r}")
