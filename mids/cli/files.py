"""Commands that look at files and targets; tables and pictures of datasets."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import click
import pandas as pd
import xarray as xr

from .. import flows as known
from .. import plot
from .. import report as page
from .. import targets as families
from ..analysis.compare import comparable, compare, measured, summary
from ..analysis.describe import description
from ..analysis.plateaus import Scale, plateaus
from ..analysis.probabilities import traps
from ..schema import dim_text
from ..simulation.progress import progress
from ..storage import netcdf as io
from ..storage import store
from ..storage.files import check_output, replacing
from ..targets.ladder import leaps
from .arguments import PATH

ORIGIN = ("title", "summary", "failures", "source", "date_created", "license", "references")
"""Attributes that tell where a dataset comes from."""


def opened(path: Path) -> xr.Dataset:
    """Open a file or store lazily, in blocks of a few thousand runs."""
    return io.open_dataset(path, chunks=None if store.is_store(path) else {"dim": 1, "run": 2048})


scale_option = click.option(
    "--scale", type=click.Choice(["log", "linear"]), help="Scale of time, for losses alone."
)
confidence_option = click.option(
    "--confidence", default=0.95, show_default=True, help="Of plateaus in noise."
)


@click.command(epilog="Example: mids saddles ladder.nc")
@click.argument("file", type=PATH)
@scale_option
@confidence_option
def saddles(file: Path, scale: Literal["log", "linear"] | None, confidence: float) -> None:
    """Print the saddles of FILE, against theory if there is one.

    For each dimension d and number of directions learned: medians over the runs of the loss there
    and of the measured and predicted times at which it is left, and of the ratio of the two in
    each run. Runs are unmatched where only theory or measurement has the saddle.
    """
    with opened(file) as ds:
        print_saddles(ds, scale=scale, confidence=confidence)


@click.command(epilog="Example: mids info ladder.nc")
@click.argument("file", type=PATH)
def info(file: Path) -> None:
    """Print what FILE holds and where it comes from."""
    with io.open_dataset(file) as ds:
        heading, rows = description(ds.load() if ds.nbytes < 1e8 else ds)
        rows += [(name, str(ds.attrs[name])) for name in ORIGIN if name in ds.attrs]
    click.echo(heading)
    width = max(shutil.get_terminal_size().columns, 40)
    for name, text in rows:
        start = f"  {name:<12}  "
        click.echo(textwrap.fill(text, width, initial_indent=start, subsequent_indent=16 * " "))


@click.command(epilog="Example: mids flows")
def flows() -> None:
    """List the flows and their parameters.

    They are what --flow and --flow-option take.
    """
    for flow in known.classes():
        meaning = (inspect.getdoc(flow) or flow.name).splitlines()[0].replace("``", "")
        click.echo(f"{flow.name}: {meaning}")
        for field in dataclasses.fields(flow):
            if field.default is dataclasses.MISSING:
                click.echo(f"  {field.name} has no default")
            else:
                value = "none" if field.default is None else json.dumps(field.default)
                click.echo(f"  {field.name} = {value}")


@click.command(epilog='Example: mids targets "leaps(1,2,3)"')
@click.argument("target", required=False)
def targets(target: str | None) -> None:
    """List the named families of targets, or describe TARGET."""
    examples = {"leaps": "leaps(1,2,3)"}
    listed = [target] if target else [examples.get(n, f"{n}(3)") for n in families.names()]
    for text in listed:
        parsed = families.Target.parse(text)
        click.echo(f"{text}\n  {parsed!r}\n  leaps {leaps(parsed)!r}")


@click.command(epilog="Example: mids report ladder.nc -o report.html")
@click.argument("file", type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path("report.html"),
    show_default=True,
    help="Page to write.",
)
@scale_option
@confidence_option
def report(
    file: Path, output: Path, scale: Literal["log", "linear"] | None, confidence: float
) -> None:
    """Write a page about FILE that needs no other file.

    It has pictures, the saddles measured against theory, where the data come from, and the commands
    that make them again.
    """
    check_output(output)
    with opened(file) as ds, progress():
        text = page.page(ds, file.name, scale=scale, confidence=confidence)
    with replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"wrote {output}")


COLUMNS = {
    "dim": "d",
    "saddle": "learned",
    "escape_time": "escape time",
    "escape_time_theory": "theory",
}


def print_saddles(
    ds: xr.Dataset,
    save: Callable[..., None] | None = None,
    *,
    scale: Scale | None = None,
    confidence: float = 0.95,
) -> None:
    """Print the saddles, against theory if there is one, and how many runs are trapped; draw."""
    with progress():
        comparison = found = compare(ds).compute() if comparable(ds) else None
        if found is None:
            found = measured(ds, scale=scale, confidence=confidence).compute()
        table = summary(found)
        decided = "status" in ds and "run" in ds["status"].dims
        ends = traps(ds).compute() if decided else None
    if table.empty:
        click.echo("no saddles found")
    else:
        rare = [n for n in ("trapped", "unmatched", "failed") if n in table and not table[n].any()]
        table = table.drop(columns=rare)
        if comparison is None:
            table = table.dropna(axis="columns", how="all")
        names = COLUMNS if "crossing_time" in ds else COLUMNS | {"saddle": "saddle"}
        print_table(table.rename(columns=names))
    if "n_unmatched" in found and (alone := int(found["n_unmatched"].sum())):
        click.echo(f"left out: {alone} plateau{'s' * (alone > 1)} with a level of no other run")
    if ends is not None and (comparison is None or int(ends["trapped"].sum())):
        print_table(ends.to_dataframe().reset_index().rename(columns={"dim": "d"}))
    if save is not None:
        with progress():
            save(ds, comparison, plateaus(ds, scale=scale, confidence=confidence))


def print_table(frame: pd.DataFrame) -> None:
    """Print a table without its index."""
    if "d" in frame:
        frame = frame.assign(d=frame["d"].map(dim_text, na_action="ignore"))
    click.echo(
        frame.to_string(
            index=False,
            float_format=lambda x: f"{x:.4g}",
            formatters={"ratio": lambda x: f"{x:.4f}"},
            na_rep="-",
        )
    )


def picture(path: Path, kind: str) -> Callable[..., None]:
    """Return a function that draws by `mids.plot` into a file, once it is clear that it can."""
    plot.check_format(path)

    def save(*data: xr.Dataset | None) -> None:
        axes = getattr(plot, kind)(*data)
        with replacing(path) as temporary:
            axes.flat[0].figure.savefig(temporary, format=path.suffix[1:], dpi=150)

    return save
