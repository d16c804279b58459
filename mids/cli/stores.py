"""Commands that write stores, for sweeps larger than memory, and files from them."""

from __future__ import annotations

from pathlib import Path

import click

from .. import schema
from .cluster import cluster_options, computing_on


@click.command(epilog="Example: mids generate --spec sweep.toml sweep --workers 8")
@click.argument("store")
@click.option(
    "--spec",
    type=click.Path(path_type=Path),
    required=True,
    help="TOML file with arguments of mids.simulate.",
)
@click.option("--compact", is_flag=True, help="Round the curves to float32.")
@cluster_options
def generate(
    store: str, spec: Path, compact: bool, scheduler: str | None, workers: int | None
) -> None:
    """Simulate a sweep into STORE, block by block.

    STORE is a folder or a URL. The same command resumes what was interrupted, and simulates what is
    missing where there are more runs, dims or values of a sweep than before.
    """
    from ..analysis.describe import in_memory
    from ..simulation.simulate import read_spec
    from ..storage import generate as write
    from ..storage.store import Place

    arguments = read_spec(spec)
    Place(store).zarr()  # a package that is missing is named before workers start
    with computing_on(scheduler, workers):
        ds = write(arguments, store, compact=compact)
    runs = ds["recipe"].size // schema.FINGERPRINT
    click.echo(f"{store} is complete: {runs} runs, {in_memory(ds)} in memory")
    if "failures" in ds.attrs:
        click.echo(ds.attrs["failures"])


@click.command(epilog="Example: mids export sweep sweep.nc")
@click.argument("store")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--compact", is_flag=True, help="Round the curves to float32.")
def export(store: str, file: Path, compact: bool) -> None:
    """Write STORE to the NetCDF file FILE, block by block."""
    from ..simulation.progress import progress
    from ..storage import to_netcdf
    from ..storage.store import open_store

    with open_store(store) as ds, progress():
        to_netcdf(ds, file, compact=compact)
    click.echo(f"wrote {file}")
