"""The command line: parse, call, print. One file for each group of commands."""

from __future__ import annotations

import click

from ..schema import VERSION
from .arguments import Main
from .catalog import catalog
from .files import flows, info, saddles, targets
from .pages import report
from .phase_diagrams import phase_diagram
from .simulations import replay, simulate
from .stores import export, generate

__all__ = ["main"]


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="mids")
def main() -> None:
    """Gradient flow on Gaussian multi-index models: simulate, store, compare with theory."""


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
