"""The table of saddles measured against theory, other tables, and pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..schema import dim_text

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from ..analysis.plateaus import Scale

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
    from ..analysis import compare, plateaus, traps
    from ..analysis.compare import comparable, measured, summary
    from ..simulation.progress import progress

    with progress():
        comparison = compare(ds).compute() if comparable(ds) else None
        table = summary(
            measured(ds, scale=scale, confidence=confidence).compute()
            if comparison is None
            else comparison
        )
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
    if ends is not None and (comparison is None or int(ends["trapped"].sum())):
        print_table(ends.to_dataframe().reset_index().rename(columns={"dim": "d"}))
    if save is not None:
        with progress():
            save(ds, comparison, plateaus(ds))


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
    from .. import plot
    from ..storage import netcdf as io

    plot.check_format(path)

    def save(*data: xr.Dataset | None) -> None:
        axes = getattr(plot, kind)(*data)
        with io.replacing(path) as temporary:
            axes.flat[0].figure.savefig(temporary, format=path.suffix[1:], dpi=150)

    return save
