"""Commands that simulate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .arguments import numbers, settings, swept
from .cluster import cluster_options, computing_on
from .files import opened
from .reports import picture, report

__all__ = ["replay", "simulate"]

OF_THE_SWEEP = ("target", "flow", "seed", "student_rank")
"""What `--sweep` takes besides the parameters of the flow."""


@click.command(
    epilog='Example: mids simulate --target "h1(z1)+h1(z1)*h3(z2)" --dim 1e2,1e4 -o ladder.nc'
)
@click.option("--target", metavar="TEXT", help='Target, such as "h1(z1)+h1(z1)*h3(z2)".')
@click.option("--dim", metavar="D,D,...", help="Ambient dimensions, such as 1e2,1e4,1e6.")
@click.option("--runs", type=int, help="Number of runs at each dimension (default 64).")
@click.option("--seed", type=int, help="Seed of the random streams (default 0).")
@click.option("--flow", metavar="NAME", help="Name of the flow (default two-timescale).")
@click.option("--ridge", type=float, help="Ridge of a flow that learns the link (default 0).")
@click.option(
    "--flow-option",
    "flow_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Parameter of the flow, such as epsilon=1e-3 or kernel.polynomial=2; may be repeated. "
    "`mids flows` lists them.",
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="NAME=V,V,...",
    help="Values of seed, student_rank or a parameter of the flow, such as ridge=0,0.1,1; or of "
    "target or flow with ; between them. May be repeated: all combinations are simulated.",
)
@click.option("--student-rank", type=int, help="Columns of the student's frame (default: rank).")
@click.option("--time", type=float, help="Last time of the grid (default: beyond the last escape).")
@click.option("--rtol", type=float, help="Relative tolerance (default 1e-8).")
@click.option(
    "--spec",
    type=click.Path(path_type=Path),
    help="TOML file with arguments of mids.simulate; options given here go before it.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="NetCDF file to write.")
@click.option("--plot", type=click.Path(path_type=Path), help="Picture of the loss to write.")
@cluster_options
def simulate(
    spec: Path | None,
    output: Path | None,
    plot: Path | None,
    dim: str | None,
    ridge: float | None,
    flow_options: tuple[str, ...],
    sweeps: tuple[str, ...],
    scheduler: str | None,
    workers: int | None,
    **options: Any,
) -> None:
    """Simulate a sweep and hold its saddles against the theory.

    Prints, for each dimension and saddle, the loss of the plateau, the directions learned, the
    median measured and predicted escape times, their ratio, and how many runs are censored.
    """
    from ..simulation.progress import progress
    from ..simulation.simulate import from_spec, read_spec
    from ..storage import netcdf as io

    arguments = read_spec(spec) if spec else {}
    arguments |= {name: value for name, value in options.items() if value is not None}
    if dim is not None:
        arguments["dim"] = numbers(dim, "--dim")
    parameters = settings(flow_options, "--flow-option")
    if ridge is not None:
        parameters["ridge"] = ridge
    for name, values in swept(sweeps).items():
        (arguments if name in OF_THE_SWEEP else parameters)[name] = values
    if parameters:
        flow = arguments.get("flow", "two-timescale")
        named = flow if isinstance(flow, dict) else {"name": flow}
        arguments["flow"] = {**named, **parameters}
    written = [io.check_output(path) for path in (output, plot) if path is not None]
    save = picture(plot, "loss") if plot else None
    ds = from_spec(arguments)
    with computing_on(scheduler, workers):
        with progress():
            if output is None:
                ds = ds.compute()
            else:
                io.to_netcdf(ds, output)
        with ds if output is None else opened(output) as ds:
            report(ds, save)
    if written:
        click.echo(f"wrote {' and '.join(map(str, written))}")


@click.command(epilog="Example: mids replay ladder.nc --runs 4")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--runs", type=click.IntRange(min=1), help="Only the first runs of each dimension.")
def replay(file: Path, runs: int | None) -> None:
    """Simulate FILE again and compare bit by bit.

    Exit code 1 if it differs.
    """
    from ..simulation.progress import progress
    from ..simulation.replay import differences
    from ..simulation.replay import replay as again

    with opened(file) as ds:
        ds = ds.isel(run=slice(runs))
        count = ds["recipe"].size if "recipe" in ds else ds.sizes["dim"] * ds.sizes["run"]
        with progress():
            found = differences(ds, again(ds))
    if found:
        click.echo(f"{file} differs from its replay:\n  " + "\n  ".join(found))
        sys.exit(1)
    click.echo(f"{file}: {count} runs simulated again, identical bit by bit")
