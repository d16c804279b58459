"""Reading arguments; errors of the package as one line and exit code 2, interruptions 130."""

from __future__ import annotations

import errno
import json
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from ..errors import InputError, MidsError, TargetSyntaxError
from ..simulation.simulate import read_spec


class UserError(click.ClickException):
    """A user's mistake: one line, exit code 2."""

    exit_code = 2


class Main(click.Group):
    """A group of commands that reports the package's errors without traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a user's mistake or interruption ends with one line."""
        try:
            return super().invoke(ctx)
        except TargetSyntaxError as error:
            raise UserError(
                f"cannot read the target: {error.reason}, at character {error.position + 1} of "
                f"{error.text!r}"
            ) from None
        except MidsError as error:
            raise UserError(" ".join(str(error).split())) from None
        except UnicodeEncodeError as error:
            raise UserError(f"cannot use text that is not Unicode ({error.reason})") from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(f"cannot write ({error.strerror}); free some space") from None
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(130)


def options(*each: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make one decorator of the options of several commands, in the order of their help."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(each):
            command = option(command)
        return command

    return add


OF_THE_SWEEP = ("target", "flow", "seed", "student_rank")  # for --sweep, besides parameters
PATH = click.Path(path_type=Path)
output_options = options(
    click.option("-o", "--output", type=PATH, help="NetCDF file to write."),
    click.option("--plot", type=PATH, help="Picture to write."),
)
sweep_options = options(
    click.option("--target", metavar="TEXT", help='Target, such as "h1(z1)+h1(z1)*h3(z2)".'),
    click.option("--dim", metavar="D,D,...", help="Ambient dimensions, such as 1e2,1e4,1e6."),
    click.option("--runs", type=int, help="Runs at each dimension (default 64; 32 of diagrams)."),
    click.option("--seed", type=int, help="Seed of the random streams (default 0)."),
    click.option(
        "--flow-option",
        "flow_options",
        multiple=True,
        metavar="NAME=VALUE",
        help="Parameter of the flow, such as epsilon=1e-3, noise=0.5 or kernel.polynomial=2; "
        "may be repeated. `mids flows` lists them.",
    ),
    click.option(
        "--student-rank", type=int, help="Columns of the student's frame (default: rank)."
    ),
    click.option(
        "--spec",
        type=PATH,
        help="TOML file with these arguments, under their names in Python; options given here "
        "go before it.",
    ),
)


def sweep_arguments(
    spec: Path | None,
    flow_options: Iterable[str],
    usual_flow: Any = "two-timescale",
    ridge: float | None = None,
    sweeps: Iterable[str] = (),
    **options: Any,
) -> dict[str, Any]:
    """Return the arguments of a sweep by their names in Python; options go before a file."""
    arguments = read_spec(spec) if spec else {}
    arguments |= {name: value for name, value in options.items() if value is not None}
    for name in ("dim", "n"):
        if options.get(name) is not None:
            arguments[name] = numbers(options[name], f"--{name}")
    parameters = settings(flow_options, "--flow-option")
    if ridge is not None:
        parameters["ridge"] = ridge
    for name, values in swept(sweeps).items():
        (arguments if name in OF_THE_SWEEP else parameters)[name] = values
    if parameters:
        flow = arguments.get("flow", usual_flow)  # a table, or a name
        arguments["flow"] = (flow if isinstance(flow, dict) else {"name": flow}) | parameters
    return arguments


def numbers(text: str, name: str) -> list[float]:
    """Read numbers with commas between them; `name` is the option that gave them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"{name} must be numbers with commas between them, got {text!r}; "
            f"pass for example {name} 1e2,1e4,1e6"
        ) from None


def settings(texts: Iterable[str], name: str) -> dict[str, Any]:
    """Read settings such as ``epsilon=1e-3`` or ``kernel.polynomial=2``, values as in TOML.

    A value that is none in TOML is a text, so that quotes can be left out.
    """
    lines = []
    for text in texts:
        key, separator, value = (part.strip() for part in text.partition("="))
        if not separator or not key or not value:
            raise InputError(
                f"{name} must be NAME=VALUE, got {text!r}; pass for example {name} epsilon=1e-3"
            )
        try:
            tomllib.loads(f"value = {value}")
        except tomllib.TOMLDecodeError:
            value = json.dumps(value)
        lines.append(f"{key} = {value}")
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"{name} cannot be read ({error}); give each NAME=VALUE once, without spaces in NAME"
        ) from None


def swept(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Read sweeps such as ``ridge=0,0.1,1`` or ``target=h1(z1);h2(z1)``."""
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, separator, values = (part.strip() for part in text.partition("="))
        if not separator or not name or not values or name in found:
            raise InputError(
                f"--sweep must be NAME=V,V,... with each NAME once, got {text!r}; "
                "pass for example --sweep ridge=0,0.1,1"
            )
        parts = values.split(";" if name in ("target", "flow") else ",")
        found[name] = [settings([f"value={part}"], "--sweep")["value"] for part in parts]
    return found
