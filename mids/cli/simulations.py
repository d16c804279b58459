"""Commands that simulate, in threads, local workers or a cluster; also into stores."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import xarray as xr

from .. import schema, storage, validation
from ..analysis.describe import in_memory
from ..errors import ClusterError, InputError
from ..simulation import phase_diagram as diagrams
from ..simulation import simulate as simulations
from ..simulation.progress import progress
from ..storage.files import check_output
from ..storage.store import Location, open_store
from .arguments import PATH, options, output_options, sweep_arguments, sweep_options
from .files import opened, picture, print_saddles, print_table

LOGGERS = ("distributed", "distributed.client", "tornado.application", "asyncio")

cluster_options = options(
    click.option(
        "--scheduler", metavar="ADDRESS", help="Compute on a dask cluster: tcp://host:8786."
    ),
    click.option(
        "--workers", type=int, metavar="N", help="Compute in N processes with one thread each."
    ),
)
flow_options = options(
    click.option("--flow", metavar="NAME", help="Name of the flow (default two-timescale)."),
    click.option("--ridge", type=float, help="Ridge of a flow that learns the link (default 0)."),
    click.option(
        "--sweep",
        "sweeps",
        multiple=True,
        metavar="NAME=V,V,...",
        help="Values of seed, student_rank or a parameter of the flow, such as "
        "ridge=0,0.1,1; or of target or flow with ; between them. May be repeated: all "
        "combinations are simulated.",
    ),
    click.option(
        "--time", type=float, help="Last time of the grid (default: beyond the last escape)."
    ),
    click.option("--rtol", type=float, help="Relative tolerance (default 1e-8)."),
)


@contextmanager
def computing_on(scheduler: str | None, workers: int | None) -> Iterator[None]:
    """Make dask compute on the cluster that the options name, or in threads without them."""
    if scheduler is None and workers is None:
        yield
        return
    if scheduler is not None and workers is not None:
        raise InputError("--scheduler and --workers were both given; pass one of them")
    import dask

    use = "computing on a cluster needs dask.distributed"
    distributed = validation.package("distributed", use, "distributed")
    loggers = [logging.getLogger(name) for name in LOGGERS]
    with ExitStack() as stack:
        for logger in loggers:
            stack.callback(logger.setLevel, logger.level)
        if workers is not None:
            count = validation.integer(workers, "--workers", at_least=1)
            # By default distributed gives up a worker 15 s after it was lost, even if it has come
            # back by then; if it is the last one the command waits forever.
            stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "1 h"}))
            with _shielded_processes():
                cluster = distributed.LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    memory_limit=0.9 / count,  # of the machine's memory
                    dashboard_address=":0",
                    silence_logs="CRITICAL",  # errors of tasks come with their results
                )
            stack.push(_ending(cluster))
        try:
            client: Any = distributed.Client(scheduler or cluster, timeout="10s")
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ClusterError(
                f"cannot reach a dask scheduler at {scheduler} ({reason}); start one with "
                "dask scheduler and pass the address it prints, such as tcp://host:8786"
            ) from None
        stack.push(_ending(client))
        client.loop.asyncio_loop.set_exception_handler(_handle_exception)
        for logger in loggers:  # when all is done, connections are cut, which is no news
            stack.callback(logger.setLevel, logging.CRITICAL)
        yield


@contextmanager
def _shielded_processes() -> Iterator[None]:
    """Start processes that Ctrl-C in the terminal does not reach: this one ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ending(used: Any) -> Callable[..., None]:
    """Return what ends a client or cluster; one that is slow to end is no failure of a command."""

    def end(*_: Any) -> None:
        with suppress(OSError):
            used.__exit__(None, None, None)

    return end


def _handle_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what fails in an event loop, except what an interruption has cut off."""
    if not context["message"].endswith(("was never retrieved", "destroyed but it is pending!")):
        loop.default_exception_handler(context)


# -- commands --------------------------------------------------------------------------------------


@click.command(
    epilog='Example: mids simulate --target "h1(z1)+h1(z1)*h3(z2)" --dim 1e2,1e4 -o ladder.nc'
)
@sweep_options
@flow_options
@output_options
@cluster_options
def simulate(
    output: Path | None, plot: Path | None, scheduler: str | None, workers: int | None, **sweep: Any
) -> None:
    """Simulate a sweep and compare its saddles with the theory.

    Prints, for each dimension and saddle, the loss of the plateau, the directions learned, the
    median measured and predicted escape times, their ratio, and how many runs are censored.
    """
    with _outputs(output, plot, "loss") as save:
        ds = simulations.from_spec(sweep_arguments(**sweep))
        with _computed(ds, output, scheduler, workers) as ds:
            print_saddles(ds, save)


@contextmanager
def _outputs(
    output: Path | None, plot: Path | None, kind: str
) -> Iterator[Callable[..., None] | None]:
    """Give what draws a picture, once it is clear that the files can be written."""
    written = [check_output(path) for path in (output, plot) if path is not None]
    yield picture(plot, kind) if plot else None
    if written:
        click.echo(f"wrote {' and '.join(map(str, written))}")


@contextmanager
def _computed(
    ds: xr.Dataset, output: Path | None, scheduler: str | None, workers: int | None
) -> Iterator[xr.Dataset]:
    """Give a dataset in memory or, where it is written, from its file."""
    with computing_on(scheduler, workers):
        with progress():
            if output is None:
                ds = ds.compute()
            else:
                storage.to_netcdf(ds, output)
        with ds if output is None else opened(output) as ds:
            yield ds


@click.command(epilog="Example: mids replay ladder.nc --runs 4")
@click.argument("file", type=PATH)
@click.option("--runs", type=click.IntRange(min=1), help="Only the first runs of each dimension.")
def replay(file: Path, runs: int | None) -> None:
    """Simulate FILE again and compare bit by bit.

    Exit code 1 if it differs.
    """
    with opened(file) as ds:
        ds = ds.isel(run=slice(runs))
        count = ds["recipe"].size // schema.FINGERPRINT if "recipe" in ds else 0
        with progress():
            found = simulations.differences(ds, simulations.replay(ds))
    if found:
        click.echo(f"{file} differs from its replay:\n  " + "\n  ".join(found))
        sys.exit(1)
    click.echo(f"{file}: {count} runs simulated again, identical bit by bit")


@click.command(
    "phase-diagram",
    epilog='Example: mids phase-diagram --target "h2(z1)" --dim 8,16,32 --n 100,300,1000,3000 '
    "--flow-option noise=0.5 --plot success.png",
)
@sweep_options
@output_options
@click.option("--n", metavar="N,N,...", help="Numbers of samples, such as 100,300,1000.")
@click.option("--duration", type=float, help="Time at which runs are judged (default: long).")
@click.option("--level", type=float, help="Overlap that counts as learned (default 0.5).")
@click.option("--exponent", type=int, help="s of n/d^s (default: the largest leap).")
@cluster_options
def phase_diagram(
    output: Path | None, plot: Path | None, scheduler: str | None, workers: int | None, **sweep: Any
) -> None:
    """Count how often descent on n samples learns the target.

    Prints, for each dimension and number of samples, how many runs have learned all directions.
    """
    with _outputs(output, plot, "success") as save:
        ds = diagrams.from_spec(sweep_arguments(usual_flow={}, **sweep))
        with _computed(ds, output, scheduler, workers) as ds:
            print_table(_successes(ds))
            if save is not None:
                save(ds)


def _successes(ds: xr.Dataset) -> Any:
    """How many runs succeed, one row for each dimension and number of samples."""
    exponent = ds["ratio"].attrs.get("exponent", "s")
    counts = ds["success"].sum("run").rename("succeed").to_dataframe().reset_index()
    counts["runs"] = ds.sizes["run"]
    counts["fraction"] = counts["succeed"] / counts["runs"]
    ratio = "n/d" if exponent == 1 else f"n/d^{exponent}"
    counts = counts.rename(columns={"dim": "d", "ratio": ratio})
    return counts[["d", "n", ratio, "succeed", "runs", "fraction"]]


@click.command(epilog="Example: mids generate sweep --spec sweep.toml --runs 2000 --workers 8")
@click.argument("store")
@sweep_options
@flow_options
@click.option("--compact", is_flag=True, help="Round the curves to float32.")
@cluster_options
def generate(
    store: str, compact: bool, scheduler: str | None, workers: int | None, **sweep: Any
) -> None:
    """Simulate a sweep into STORE, block by block.

    STORE is a folder or a URL. The same command resumes what was interrupted, and simulates what is
    missing where there are more runs, dims or values of a sweep than before.
    """
    arguments = sweep_arguments(**sweep)
    Location(store).zarr()  # a package that is missing is named before workers start
    with computing_on(scheduler, workers):
        ds = storage.generate(arguments, store, compact=compact)
    runs = ds["recipe"].size // schema.FINGERPRINT
    click.echo(f"{store} is complete: {runs} runs, {in_memory(ds)} in memory")
    if "failures" in ds.attrs:
        click.echo(ds.attrs["failures"])


@click.command(epilog="Example: mids export sweep sweep.nc")
@click.argument("store")
@click.argument("file", type=PATH)
@click.option("--compact", is_flag=True, help="Round the curves to float32.")
def export(store: str, file: Path, compact: bool) -> None:
    """Write STORE to the NetCDF file FILE, block by block."""
    with open_store(store) as ds, progress():
        storage.to_netcdf(ds, file, compact=compact)
    click.echo(f"wrote {file}")
