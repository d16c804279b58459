"""The command line: parse, call, print. One file for each group of commands."""

from __future__ import annotations

import click

from ..schema import VERSION
from .arguments import Main
from .catalog import catalog
from .files import flows, info, report, saddles, targets
from .simulations import export, generate, phase_diagram, replay, simulate

__all__ = ["main"]


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="mids")
def main() -> None:
    """Gradient flow on Gaussian multi-index models: simulate, store, compare with theory.

    Begin with:

    \b
      mids simulate --target "h1(z1)+h1(z1)*h3(z2)" --dim 1e2,1e4 -o ladder.nc
      mids saddles ladder.nc
      mids report ladder.nc -o report.html
    """  # noqa: D301 - click knows a list by a backspace


for command in (
    simulate,
    generate,
    export,
    phase_diagram,
    saddles,
    info,
    replay,
    targets,
    flows,
    report,
    catalog,
):
    main.add_command(command)
