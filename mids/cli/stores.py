"""Commands that write stores: sweeps larger than memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .cluster import cluster_options, computing_on

__all__ = ["generate"]


@click.command(epilog="Example: mids generate --spec sweep.toml sweep --workers 8")
@click.argument("store")
@click.option(
    "--spec",
    type=click.Path(path_type=Path),
    required=True,
    help="TOML file with arguments of mids.simulate.",
)
@click.option(
    "--format",
    type=click.Choice(["netcdf", "zarr"]),
    help="One NetCDF file for each block, or Zarr (default: Zarr for URLs).",
)
@click.option("--compact", is_flag=True, help="Round the curves to float32.")
@cluster_options
def generate(
    store: str, spec: Path, scheduler: str | None, workers: int | None, **options: Any
) -> None:
    """Simulate a sweep into STORE, block by block.

    STORE is a folder or a URL. The same command resumes what was interrupted: blocks whose
    checksums hold are kept.
    """
    from ..analysis.describe import in_memory
    from ..simulation.simulate import read_spec
    from ..storage.generation import generate as write
    from ..storage.named_files import NamedFiles
    from ..storage.store import is_store

    arguments = read_spec(spec)
    try:
        with computing_on(scheduler, workers):
            ds = write(arguments, store, **options)
    except KeyboardInterrupt:
        if workers is not None and is_store(store):  # they may have ended while they wrote
            NamedFiles(store).remove_unfinished()
        raise
    runs = ds.sizes["dim"] * ds.sizes["run"]
    click.echo(f"{store} is complete: {runs} runs, {in_memory(ds)} in memory")
    if "failures" in ds.attrs:
        click.echo(ds.attrs["failures"])
