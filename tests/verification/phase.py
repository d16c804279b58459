"""Whether success depends on n / d^s; ``python -m tests.verification.phase``.

For each target the threshold is the number of samples at which half of the runs succeed. If
n / d^s decides, its slope in log d is s. The interval is that of a bootstrap over runs.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import xarray as xr

import mids
from mids.simulation.recipe import described

__all__ = ["document", "slopes", "thresholds"]

DIMS = [8, 12, 20, 32]
SIZES = np.round(np.geomspace(16, 1024, 10)).astype(int).tolist()
CASES = [("h2(z1)", {"noise": 1.0}), ("h1(z1)", {"noise": 1.0})]
"""Targets and parameters of the flow."""
RATIOS = [0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32]
RESAMPLED = 1000


def thresholds(successes: xr.DataArray) -> np.ndarray:
    """Numbers of samples from which on half of the runs succeed, by interpolation in log n.

    Parameters
    ----------
    successes : DataArray
        With dims dim, n, run.

    Returns
    -------
    (dims,) float array
        NaN where no or all numbers of samples are enough.
    """
    return _half(successes.mean("run").transpose("dim", "n").values, successes["n"].values)


def _half(fractions: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    found = np.full(len(fractions), np.nan)
    for row, fraction in enumerate(fractions):
        below = np.flatnonzero(fraction < 0.5)
        if len(below) and below[-1] + 1 < len(sizes):
            k = below[-1]
            part = (0.5 - fraction[k]) / (fraction[k + 1] - fraction[k])
            found[row] = np.exp(np.log(sizes[k]) + part * np.log(sizes[k + 1] / sizes[k]))
    return found


def slopes(successes: xr.DataArray, seed: int = 0) -> tuple[float, float, float]:
    """Slope of the log threshold in log d, with the 95 % interval of a bootstrap over runs.

    Parameters
    ----------
    successes : DataArray
    seed : int

    Returns
    -------
    tuple of float
        Slope, lower and upper end; NaN if there are fewer than three thresholds.
    """
    values = successes.transpose("dim", "n", "run").values
    dims, sizes = successes["dim"].values, successes["n"].values
    rng = np.random.default_rng(seed)

    def slope(runs: np.ndarray) -> float:
        # Each dimension has its own runs, which all its sample sizes share.
        picked = np.take_along_axis(values, runs[:, None, :], axis=2)
        half = _half(picked.mean(axis=2), sizes)
        known = np.isfinite(half)
        if known.sum() < 3:
            return float("nan")
        return float(np.polyfit(np.log(dims[known]), np.log(half[known]), 1)[0])

    count = values.shape[2]
    every = np.tile(np.arange(count), (len(dims), 1))
    found = [slope(rng.integers(count, size=(len(dims), count))) for _ in range(RESAMPLED)]
    if np.isnan(found).all():
        return float("nan"), float("nan"), float("nan")
    low, high = np.nanquantile(found, [0.025, 0.975])
    return slope(every), float(low), float(high)


def shares_at_ratios(ds: xr.Dataset) -> list[str]:
    """Fractions of runs that succeed at given n / d^s, as rows of a table.

    Parameters
    ----------
    ds : xarray.Dataset
        Of `mids.phase_diagram`.

    Returns
    -------
    list of str
    """
    rows = []
    fractions = ds["success"].mean("run").transpose("dim", "n").values
    sizes = np.log(ds["n"].values)
    for ratio in RATIOS:
        at = np.log(ratio * ds["dim"].values.astype(float) ** ds["ratio"].attrs["exponent"])
        shown = [
            f"{np.interp(x, sizes, row):.2f}" if sizes[0] <= x <= sizes[-1] else "-"
            for x, row in zip(at, fractions, strict=True)
        ]
        if any(text != "-" for text in shown):
            rows.append(f"| `{_target(ds)}` | {ratio:g} | {' | '.join(shown)} |")
    return rows


def _target(ds: xr.Dataset) -> str:
    return str(described(ds, ())[0].target).replace("1.0*", "")


def document(diagrams: Sequence[xr.Dataset], runs: int, pictures: Sequence[str]) -> str:
    """Return the report in Markdown.

    Parameters
    ----------
    diagrams : sequence of xarray.Dataset
        Of `mids.phase_diagram`, in memory.
    runs : int
    pictures : sequence of str
        File names.

    Returns
    -------
    str
    """
    lines = [
        "# Success of the empirical flow against the number of samples",
        "",
        f"Made by `python -m tests.verification.phase --runs {runs}` on {datetime.date.today()} "
        f"with mids {mids.__version__}.",
        "",
        "The threshold is the number n of samples at which half of the runs end with an overlap of",
        "1/2, s the exponent of the target. If success depended on n / d^s alone the thresholds",
        "would grow with the slope s in log d. Intervals: 95 %, bootstrap over runs.",
        "",
        f"| target | noise | s | {' | '.join(f'n at d = {dim}' for dim in DIMS)} | slope |",
        f"|---|---|---|{'---|' * len(DIMS)}---|",
    ]
    shares = []
    for ds in diagrams:
        (flow,) = {replace(recipe.flow, n=1) for recipe in described(ds, ("flow",))}
        half = " | ".join("-" if np.isnan(n) else f"{n:.3g}" for n in thresholds(ds["success"]))
        slope, low, high = slopes(ds["success"])
        shares.append(shares_at_ratios(ds))
        lines.append(
            f"| `{_target(ds)}` | "
            f"{flow.noise:g} | {ds['ratio'].attrs['exponent']} | {half} | "
            f"{slope:.2f} ({low:.2f} to {high:.2f}) |"
        )
    lines += [
        "",
        "Fractions of runs that succeed at the same n / d^s, interpolated in log n:",
        "",
        f"| target | n / d^s | {' | '.join(f'd = {dim}' for dim in DIMS)} |",
        f"|---|---|{'---|' * len(DIMS)}",
        *(row for rows in shares for row in rows),
    ]
    lines += ["", "Bands in the pictures: Wilson's intervals of these fractions at 68 %.", ""]
    return "\n".join([*lines, *(f"![success]({picture})" for picture in pictures), ""])


@click.command()
@click.option("--runs", default=32, help="Runs of each dimension and number of samples.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(__file__).with_name("PHASE.md"),
    help="File for the report.",
)
def main(runs: int, output: Path) -> None:
    """Measure how the samples that are needed grow with the dimension."""
    diagrams, pictures = [], []
    for target, parameters in CASES:
        ds = mids.phase_diagram(target, dim=DIMS, n=SIZES, runs=runs, **parameters).compute()
        diagrams.append(ds)
        click.echo(ds.success.mean("run").to_pandas().round(2).to_string(), err=True)
        click.echo(f"{target} {thresholds(ds.success)} {slopes(ds.success)}", err=True)
        pictures.append(f"{output.stem}-{len(pictures) + 1}.png")
        axes = mids.plot.success(ds)
        axes.flat[0].set_title(f"{target}, noise {parameters['noise']:g}")
        axes.flat[0].figure.savefig(output.with_name(pictures[-1]), dpi=110)
    output.write_text(document(diagrams, runs, pictures), encoding="utf-8")


if __name__ == "__main__":
    main()
