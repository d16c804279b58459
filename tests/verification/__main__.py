"""Command line of the verification."""

from __future__ import annotations

from pathlib import Path

import click

from .page import document
from .report import verify
from .zoo import zoo


@click.command()
@click.option("--dims", default="1e2,1e3,1e4,1e5,1e6,1e7,1e8", help="Ambient dimensions.")
@click.option("--runs", default=200, help="Runs at each dimension.")
@click.option("--seed", default=0, help="Seed of the first case; the next has the next seed.")
@click.option("--only", default="", help="Only cases whose names contain this text.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(__file__).with_name("MEDIANS.md"),
    help="File for the report.",
)
def main(dims: str, runs: int, seed: int, only: str, output: Path) -> None:
    """Hold the theory against simulations of the whole zoo."""
    results = []
    for k, case in enumerate(zoo()):
        if only in case.name:
            results.append(verify(case, [float(d) for d in dims.split(",")], runs, seed + k))
            click.echo(f"{case.name}: {results[-1].seconds:.0f} s", err=True)
    if not results:
        raise click.UsageError(f"no case has {only!r} in its name")
    output.write_text(document(results, runs, seed), encoding="utf-8")
    click.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
