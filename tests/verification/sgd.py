"""Online gradient descent beside the population flow; ``python -m tests.verification.sgd``.

The measure is the difference in log time, ``|log t - log t'|``, of the first times at which two
curves from the same M(0) reach a level: the risk several levels, each overlap those of
``crossing_time``. A run counts with the largest of these differences.
"""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import xarray as xr

import mids
from mids.flows import OnlineSGD

__all__ = ["differences", "document", "escapes", "follows"]

LADDER = "h1(z1) + h1(z1)*h1(z2)"
LEVELS = np.array([0.9, 0.7, 0.52, 0.4, 0.2, 0.1, 0.05])
"""Of the risk, which falls from 1 over a saddle at 1/2 to 0."""
GRID = 0.02
GOAL = 0.02
HERMITE = tuple(
    (f"Hermite, step {step:g}, batch {batch}", OnlineSGD(step=step, batch=batch, memory=4))
    for step, batch in ((4e-3, 512), (2e-3, 1024), (1e-3, 2048))
)
RANDOM = tuple(
    (
        f"random, {count} features, step 0.002, batch 1024",
        OnlineSGD(step=2e-3, batch=1024, memory=4, readout="random-features", features=count),
    )
    for count in (16, 64)
)
ESCAPES = (("h1(z1)", 0.01), ("h2(z1)", 0.05))
"""Targets with exponents 1 and 2, and steps."""


def differences(found: xr.Dataset, exact: xr.Dataset) -> np.ndarray:
    """Differences in log time, found minus exact, NaN where a level was never reached.

    Parameters
    ----------
    found : xarray.Dataset
        Of descent on samples, at one dimension.
    exact : xarray.Dataset
        Of the population flow, with the same runs and times.

    Returns
    -------
    (runs, levels) float array
        Levels of the risk, then those of the overlaps.
    """
    times = found["time"].values
    one, two = (
        np.array([_reached(times, curve) for curve in curves.isel(dim=0).values])
        for curves in (found["risk"], exact["loss"])
    )
    risk = np.log(one / two)
    crossing = np.log(found["crossing_time"] / exact["crossing_time"]).isel(dim=0)
    crossing = crossing.transpose("run", "direction", "level").values
    return np.concatenate([risk, crossing.reshape(len(crossing), -1)], axis=1)


def _reached(times: np.ndarray, curve: np.ndarray) -> list[float]:
    """First times at which a curve is at most each level."""
    found = []
    for level in LEVELS:
        below = curve <= level
        k = int(below.argmax())
        if not below[k] or k == 0:
            found.append(np.nan)
            continue
        part = (curve[k - 1] - level) / (curve[k - 1] - curve[k])
        found.append(times[k - 1] + part * (times[k] - times[k - 1]))
    return found


def follows(flows: Sequence[tuple[str, OnlineSGD]], dim: int, runs: int) -> list[str]:
    """Hold flows against the population flow and return rows of a table.

    Parameters
    ----------
    flows : sequence of (name, OnlineSGD)
    dim : int
    runs : int

    Returns
    -------
    list of str
    """
    arguments = {"dim": dim, "runs": runs}
    trial = mids.simulate(LADDER, **arguments).compute()
    last = float(trial["crossing_time"].max())
    arguments["time"] = np.arange(0.0, 1.15 * last, GRID)
    exact = mids.simulate(LADDER, rtol=1e-9, **arguments).compute()
    rows = []
    for name, flow in flows:
        started = time.perf_counter()
        found = mids.simulate(LADDER, flow=flow, chunks=1, **arguments).compute()
        away = differences(found, exact)
        worst = np.nanmax(np.abs(away), axis=1)
        within = int(((worst <= GOAL) & ~np.isnan(away).any(axis=1)).sum())
        rows.append(
            f"| {name} | {np.nanmedian(np.abs(away)):.4f} | {np.median(worst):.4f} | "
            f"{worst.max():.4f} | {np.nanmean(away):+.4f} | {within} of {runs} | "
            f"{np.isnan(away).sum()} of {away.size} | {time.perf_counter() - started:.0f} |"
        )
        click.echo(rows[-1], err=True)
    return rows


def escapes(text: str, dims: Sequence[int], runs: int, flow: OnlineSGD) -> list[str]:
    """Count samples until the overlap is 1/2 and return rows of a table.

    Parameters
    ----------
    text : str
        A target of rank 1.
    dims : sequence of int
    runs : int
    flow : OnlineSGD

    Returns
    -------
    list of str
    """
    medians = []
    for dim in dims:
        trial = mids.simulate(text, dim=dim, runs=runs).compute()
        expected = trial["crossing_time"].sel(level=0.5).values.ravel()
        end = [0.0, 1.3 * float(expected.max())]
        found = mids.simulate(text, dim=dim, runs=runs, flow=flow, time=end, chunks=1).compute()
        taken = found["crossing_time"].sel(level=0.5).values.ravel()
        # A run that has not escaped takes longer than all that have: the median may be infinite.
        counts = np.array([np.nan_to_num(taken, nan=np.inf), expected]) / flow.step * flow.batch
        medians.append([*np.median(counts, axis=1), np.isnan(taken).sum()])
    rows = [
        f"| `{text}` | {dim} | {own:.4g} | {exact:.4g} | {own / exact:.3f} | {late:.0f} of {runs} |"
        for dim, (own, exact, late) in zip(dims, medians, strict=True)
    ]
    slopes = [np.polyfit(np.log(dims), np.log([row[k] for row in medians]), 1)[0] for k in range(2)]
    rows.append(f"| `{text}` | slope in log d | {slopes[0]:.3f} | {slopes[1]:.3f} | | |")
    for row in rows:
        click.echo(row, err=True)
    return rows


def document(curves: Sequence[str], counts: Sequence[str], dim: int, runs: int) -> str:
    """Return the report in Markdown.

    Parameters
    ----------
    curves, counts : sequence of str
        Rows of `follows` and `escapes`.
    dim, runs : int

    Returns
    -------
    str
    """
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba"))
    lines = [
        "# Online gradient descent beside the population flow",
        "",
        f"Made by `python -m tests.verification.sgd --dim {dim} --runs {runs}` on "
        f"{datetime.date.today()} with mids {mids.__version__}, "
        f"Python {platform.python_version()}, {packages}.",
        "",
        f"## The curves on `{LADDER}`, d = {dim}",
        "",
        "Every run is held against the two-timescale flow from the same M(0). Where both reach a "
        "level first, the difference in log time |log t - log t'| counts: of the population risk "
        f"at {', '.join(f'{level:g}' for level in LEVELS)}, and of both overlaps at 0.1, 0.5 and "
        "0.9. The link of random features is held against the same flow of the target itself, "
        "which is its limit for many features and a small ridge. Levels that one of the curves "
        f"never reaches are counted apart. The goal is {GOAL:g} at all levels.",
        "",
        "| link | median over runs and levels | worst level, median run | worst level, worst run "
        "| mean, signed | runs within the goal | levels not reached | seconds |",
        "|---|---|---|---|---|---|---|---|",
        *curves,
        "",
        "## Samples until the overlap is 1/2",
        "",
        "Medians over runs, at batch 512 and steps "
        f"{', '.join(f'{step:g} for `{text}`' for text, step in ESCAPES)}; expected: escape time "
        "of the two-timescale "
        "flow from the same M(0), divided by the step, times the batch. It grows like log d for "
        "h1 and like d for h2.",
        "",
        "| target | d | samples | expected | ratio | not escaped by 1.3 times the slowest |",
        "|---|---|---|---|---|---|",
        *counts,
        "",
    ]
    return "\n".join(lines)


@click.command()
@click.option("--dim", default=256, help="Ambient dimension of the curves.")
@click.option("--runs", default=8, help="Runs of each curve; half as many with random features.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(__file__).with_name("SGD.md"),
    help="File for the report.",
)
def main(dim: int, runs: int, output: Path) -> None:
    """Hold online gradient descent against the population flow."""
    curves = follows(HERMITE, dim, runs) + follows(RANDOM, dim, max(1, runs // 2))
    counts = []
    for text, step in ESCAPES:
        counts += escapes(text, [16, 32, 64, 128, 256], 2 * runs, OnlineSGD(step=step, batch=512))
    text = document(curves, counts, dim, runs)
    output.write_text(text, encoding="utf-8")
    click.echo(f"{text}\nwrote {output}")


if __name__ == "__main__":
    main()
