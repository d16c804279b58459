"""The table of saddles measured against theory, and the picture of the loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["picture", "report"]

COLUMNS = {
    "dim": "d",
    "saddle": "learned",
    "escape_time": "escape (measured)",
    "escape_time_theory": "escape (theory)",
}


def report(ds: xr.Dataset, save: Callable[[xr.Dataset, xr.Dataset], None] | None) -> None:
    """Print the saddles measured against theory, and draw them."""
    from ..analysis.compare import compare, summary

    comparison = compare(ds).compute()
    frame = summary(comparison).rename(columns=COLUMNS)
    click.echo(
        frame.to_string(
            index=False,
            float_format=lambda x: f"{x:.4g}",
            formatters={"ratio": lambda x: f"{x:.4f}"},
            na_rep="-",
        )
    )
    if save is not None:
        save(ds, comparison)


def picture(path: Path) -> Callable[[xr.Dataset, xr.Dataset], None]:
    """Return a function that draws a dataset into a file, once it is clear that it can."""
    from .. import io, plot

    plot.check_format(path)

    def save(ds: xr.Dataset, comparison: xr.Dataset) -> None:
        axes = plot.loss(ds, comparison)
        with io.replacing(path) as temporary:
            axes.flat[0].figure.savefig(temporary, format=path.suffix[1:], dpi=150)

    return save
