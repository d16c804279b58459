"""The command line: parse, call, print."""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from . import __version__
from .errors import FileError, InputError, MidsError, TargetSyntaxError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["main"]


class _UserError(click.ClickException):
    """A user's mistake: one line, exit code 2."""

    exit_code = 2


class _Main(click.Group):
    """A group of commands that reports the package's errors without traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TargetSyntaxError as error:
            raise _UserError(
                f"cannot read the target: {error.reason}, at character {error.position + 1} of "
                f"{error.text!r}"
            ) from None
        except MidsError as error:
            raise _UserError(" ".join(str(error).split())) from None


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mids")
def main() -> None:
    """Gradient flow on Gaussian multi-index models: simulate, store, compare with theory."""


@main.command(
    epilog='Example: mids simulate --target "h1(z1)+h1(z1)*h3(z2)" --dim 1e2,1e4 -o ladder.nc'
)
@click.option("--target", metavar="TEXT", help='Target, such as "h1(z1)+h1(z1)*h3(z2)".')
@click.option("--dim", metavar="D,D,...", help="Ambient dimensions, such as 1e2,1e4,1e6.")
@click.option("--runs", type=int, help="Number of runs at each dimension (default 64).")
@click.option("--seed", type=int, help="Seed of the random streams (default 0).")
@click.option("--flow", metavar="NAME", help="Name of the flow (default two-timescale).")
@click.option("--ridge", type=float, help="Ridge of the two-timescale flow (default 0).")
@click.option("--student-rank", type=int, help="Columns of the student's frame (default: rank).")
@click.option("--rtol", type=float, help="Relative tolerance (default 1e-8).")
@click.option(
    "--spec",
    type=click.Path(path_type=Path),
    help="TOML file with arguments of mids.simulate; options given here go before it.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="NetCDF file to write.")
@click.option("--plot", type=click.Path(path_type=Path), help="Picture of the loss to write.")
def simulate(
    spec: Path | None,
    output: Path | None,
    plot: Path | None,
    dim: str | None,
    ridge: float | None,
    **options: Any,
) -> None:
    """Simulate a sweep and hold its saddles against the theory.

    Prints, for each dimension and saddle, the loss of the plateau, the directions learned, the
    median measured and predicted escape times, their ratio, and how many runs are censored.
    """
    from . import io
    from .simulate import from_spec

    arguments = _read_toml(spec) if spec else {}
    arguments |= {name: value for name, value in options.items() if value is not None}
    if dim is not None:
        arguments["dim"] = _numbers(dim, "--dim")
    if ridge is not None:
        flow = arguments.get("flow", "two-timescale")
        arguments["flow"] = {**(flow if isinstance(flow, dict) else {"name": flow}), "ridge": ridge}
    written = [io.check_output(path) for path in (output, plot) if path is not None]
    save = _picture(plot) if plot else None
    ds = from_spec(arguments)
    try:
        with _progress():
            if output is None:
                ds = ds.compute()
            else:
                io.to_netcdf(ds, output)
        with ds if output is None else io.open_dataset(output, chunks={"run": "auto"}) as ds:
            _report(ds, save)
    except KeyboardInterrupt:
        click.echo("interrupted; nothing was written", err=True)
        sys.exit(130)
    if written:
        click.echo(f"wrote {' and '.join(map(str, written))}")


@main.command(epilog="Example: mids saddles ladder.nc")
@click.argument("file", type=click.Path(path_type=Path))
def saddles(file: Path) -> None:
    """Print the saddles of FILE, measured against theory."""
    from . import io

    with io.open_dataset(file, chunks={"run": "auto"}) as ds:
        _report(ds, None)


@main.command(epilog="Example: mids info ladder.nc")
@click.argument("file", type=click.Path(path_type=Path))
def info(file: Path) -> None:
    """Print what FILE holds and where it comes from."""
    from . import io
    from .accessor import describe

    with io.open_dataset(file) as ds:
        click.echo(describe(ds.load() if ds.nbytes < 1e8 else ds))
        for name in ("title", "summary", "source", "date_created", "license", "references"):
            if name in ds.attrs:
                click.echo(f"  {name:<12}  {ds.attrs[name]}")


@main.command(epilog="Example: mids replay ladder.nc --runs 4")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--runs", type=click.IntRange(min=1), help="Only the first runs of each dimension.")
def replay(file: Path, runs: int | None) -> None:
    """Simulate FILE again and compare bit by bit; exit code 1 if it differs."""
    from . import io
    from .simulate import differences
    from .simulate import replay as again

    with io.open_dataset(file, chunks={"run": "auto"}) as ds:
        ds = ds.isel(run=slice(runs))
        with _progress():
            found = differences(ds, again(ds))
        count = ds.sizes["dim"] * ds.sizes["run"]
    if found:
        click.echo(f"{file} differs from its replay:\n  " + "\n  ".join(found))
        sys.exit(1)
    click.echo(f"{file}: {count} runs simulated again, identical bit by bit")


@main.command(epilog='Example: mids targets "leaps(1,2,3)"')
@click.argument("target", required=False)
def targets(target: str | None) -> None:
    """List the named families of targets, or describe TARGET."""
    from . import targets as families
    from .ladder import leaps

    examples = {"leaps": "leaps(1,2,3)"}
    listed = [target] if target else [examples.get(n, f"{n}(3)") for n in families.names()]
    for text in listed:
        parsed = families.Target.parse(text)
        click.echo(f"{text}\n  {parsed!r}\n  leaps {leaps(parsed)!r}")


# -- input --------------------------------------------------------------------------------------


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot read {path} ({error.strerror}); check the path") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileError(f"{path} is no TOML file ({error}); see toml.io for the format") from None


def _numbers(text: str, name: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"{name} must be numbers with commas between them, got {text!r}; "
            f"pass for example {name} 1e2,1e4,1e6"
        ) from None


def _picture(path: Path) -> Callable[[xr.Dataset, xr.Dataset], None]:
    """Return a function that draws a dataset into a file, once it is clear that it can."""
    from . import io, plot

    plot.check_format(path)

    def save(ds: xr.Dataset, comparison: xr.Dataset) -> None:
        axes = plot.loss(ds, comparison)
        with io.replacing(path) as temporary:
            axes.flat[0].figure.savefig(temporary, format=path.suffix[1:], dpi=150)

    return save


# -- output -------------------------------------------------------------------------------------


COLUMNS = {
    "dim": "d",
    "saddle": "learned",
    "escape_time": "escape (measured)",
    "escape_time_theory": "escape (theory)",
}


def _report(ds: xr.Dataset, save: Callable[[xr.Dataset, xr.Dataset], None] | None) -> None:
    """Print the saddles measured against theory, and draw them."""
    from .analysis.compare import compare, summary

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


@contextmanager
def _progress(stream: IO[str] | None = None) -> Iterator[None]:
    """Show how many blocks of runs are done while dask computes in this process."""
    from dask.callbacks import Callback

    out = stream or sys.stderr
    interval = 0.2 if out.isatty() else 60.0
    started = shown = time.monotonic()
    done = total = 0

    def is_block(key: Any) -> bool:
        return isinstance(key, tuple) and str(key[0]).startswith("simulate-")

    def begin(graph: Any, state: Any) -> None:
        nonlocal total, done
        total, done = sum(map(is_block, graph)), 0

    def show(*, last: bool = False) -> None:
        elapsed = time.monotonic() - started
        left = elapsed * (total - done) / max(done, 1)
        text = f"{done} of {total} blocks simulated, {elapsed:.0f} s" + (
            f", about {left:.0f} s left" if 0 < done < total else ""
        )
        if out.isatty():
            bar = "#" * (30 * done // max(total, 1))
            out.write(f"\r[{bar:<30}] {text:<50}" + ("\n" if last else ""))
        else:
            out.write(text + "\n")
        out.flush()

    def finished(key: Any, *_: Any) -> None:
        nonlocal shown, done
        if is_block(key):
            done += 1
            if time.monotonic() - shown >= interval or done == total:
                shown = time.monotonic()
                show()

    with Callback(start_state=begin, posttask=finished):
        yield
    if out.isatty() and total:
        show(last=True)
