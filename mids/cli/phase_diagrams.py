"""Phase diagrams: how many samples it takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .arguments import numbers, settings
from .cluster import cluster_options, computing_on
from .reports import picture, print_table

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["phase_diagram"]


@click.command(
    "phase-diagram",
    epilog='Example: mids phase-diagram --target "h2(z1)" --dim 8,16,32 --n 100,300,1000,3000 '
    "--flow-option noise=0.5 --plot success.png",
)
@click.option("--target", metavar="TEXT", help='Target, such as "h1(z1)+h1(z1)*h3(z2)".')
@click.option("--dim", metavar="D,D,...", help="Ambient dimensions, such as 8,16,32.")
@click.option("--n", metavar="N,N,...", help="Numbers of samples, such as 100,300,1000.")
@click.option("--runs", type=int, help="Number of runs of each dim and n (default 32).")
@click.option("--seed", type=int, help="Seed of the random streams (default 0).")
@click.option("--student-rank", type=int, help="Columns of the student's frame (default: rank).")
@click.option("--duration", type=float, help="Time at which runs are judged (default: long).")
@click.option("--level", type=float, help="Overlap that counts as learned (default 0.5).")
@click.option("--exponent", type=int, help="s of n/d^s (default: the largest leap).")
@click.option(
    "--flow-option",
    "flow_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Parameter of the flow empirical, such as noise=0.5; may be repeated.",
)
@click.option(
    "--spec",
    type=click.Path(path_type=Path),
    help="TOML file with arguments of mids.phase_diagram, and parameters of the flow in a table "
    "flow; options given here go before it.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="NetCDF file to write.")
@click.option("--plot", type=click.Path(path_type=Path), help="Picture of the successes to write.")
@cluster_options
def phase_diagram(
    spec: Path | None,
    output: Path | None,
    plot: Path | None,
    dim: str | None,
    n: str | None,
    flow_options: tuple[str, ...],
    scheduler: str | None,
    workers: int | None,
    **options: Any,
) -> None:
    """Count how often descent on n samples learns the target.

    Prints, for each dimension and number of samples, how many runs have learned all directions.
    """
    from ..simulation.phase_diagram import from_spec
    from ..simulation.progress import progress
    from ..simulation.simulate import read_spec
    from ..storage import netcdf as io

    arguments = read_spec(spec) if spec else {}
    arguments |= {name: value for name, value in options.items() if value is not None}
    if dim is not None:
        arguments["dim"] = numbers(dim, "--dim")
    if n is not None:
        arguments["n"] = numbers(n, "--n")
    parameters = settings(flow_options, "--flow-option")
    if parameters:
        flow = arguments.get("flow", {})
        arguments["flow"] = {**(flow if isinstance(flow, dict) else {"name": flow}), **parameters}
    written = [io.check_output(path) for path in (output, plot) if path is not None]
    save = picture(plot, "success") if plot else None
    ds = from_spec(arguments)
    with computing_on(scheduler, workers), progress():
        if output is None:
            ds = ds.compute()
        else:
            io.to_netcdf(ds, output)
    with ds if output is None else io.open_dataset(output) as ds:
        print_table(_successes(ds))
        if save is not None:
            save(ds)
    if written:
        click.echo(f"wrote {' and '.join(map(str, written))}")


def _successes(ds: xr.Dataset) -> Any:
    """How many runs succeed, one row for each dimension and number of samples."""
    exponent = ds["ratio"].attrs.get("exponent", "s")
    counts = ds["success"].sum("run").rename("succeed").to_dataframe().reset_index()
    counts["runs"] = ds.sizes["run"]
    counts["fraction"] = counts["succeed"] / counts["runs"]
    ratio = "n/d" if exponent == 1 else f"n/d^{exponent}"
    counts = counts.rename(columns={"dim": "d", "ratio": ratio})
    return counts[["d", "n", ratio, "succeed", "runs", "fraction"]]
