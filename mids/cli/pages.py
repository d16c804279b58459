"""Commands that write pages."""

from __future__ import annotations

from pathlib import Path

import click

from .files import opened

__all__ = ["report"]


@click.command(epilog="Example: mids report ladder.nc -o report.html")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="Page to write.",
)
def report(file: Path, output: Path) -> None:
    """Write a page about FILE that needs no other file.

    It has pictures, the saddles measured against theory, where the data come from, and the commands
    that make them again.
    """
    from .. import report as page
    from ..simulation.progress import progress
    from ..storage import netcdf as io

    io.check_output(output)
    with opened(file) as ds, progress():
        text = page.page(ds, file.name)
    with io.replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"wrote {output}")
