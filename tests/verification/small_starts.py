"""What the noise of fitted links does to starts with a small second direction."""

from __future__ import annotations

import click
import numpy as np
from scipy.special import ndtri

import mids
from mids.flows.initial import draw_runs
from mids.schema import LEVELS as LEVELS_OF_OVERLAPS
from tests.verification.log_time import GOAL, LADDER, LEVELS, timed, worst

__all__ = ["shifts", "small_starts"]

SMALL = [(0.004, 4096), (0.004, 16384)]
"""Steps and batches."""
QUANTILES = 10_000


def small_starts(dim: int, runs: int, drawn: int) -> list[str]:
    """Hold what the link's noise does to small second directions against its law.

    Parameters
    ----------
    dim : int
    runs : int
        Streams of samples from each start.
    drawn : int
        Starts that are drawn; half of them, those with the smallest second direction, are taken.

    Returns
    -------
    list of str
        Rows of a table.
    """
    starts = draw_runs(2, 2, dim, range(drawn), seed=0)
    smallest = np.linalg.svd(starts, compute_uv=False)[:, 1]
    rows = []
    for run in np.argsort(smallest)[: max(1, drawn // 2)][::-1]:
        exact = mids.simulate(LADDER, dim=dim, runs=1, initial=starts[run])["crossing_time"]
        last = float(exact.sel(level=0.1, direction=1).values.item())
        for step, batch in SMALL:
            noise = (step / batch) ** 0.5 / smallest[run]
            law = np.abs(shifts(noise, last))
            away, _ = timed(step, batch, dim, range(runs), initial=starts[run])
            found = np.abs(away[:, len(LEVELS) + len(LEVELS_OF_OVERLAPS)])
            inside = (worst(away) <= GOAL).sum()
            rows.append(
                f"| {run} | {smallest[run]:.3g} | {step:g} | {batch} | {noise:.3g} | "
                f"{np.median(law):.3f} | {np.nanmedian(found):.3f} | "
                f"{runs * (law <= GOAL).mean():.1f} | {inside} of {runs} | "
                f"{(GOAL * last * smallest[run] / 2) ** 2:.2g} |"
            )
            click.echo(rows[-1], err=True)
    return rows


def shifts(noise: float, last: float) -> np.ndarray:
    """Differences in log time that a kick makes, at equally likely values of it.

    Parameters
    ----------
    noise : float
        Standard deviation of the kick, in units of the second direction.
    last : float
        Time at which that direction reaches an overlap of 0.1 without it.

    Returns
    -------
    (n,) float array
        ``log(1 - 2 log|1 + noise g| / last)``, g standard normal: the direction grows by half its
        size in a unit of time.
    """
    normals = ndtri((np.arange(QUANTILES) + 0.5) / QUANTILES)
    earlier = 2 * np.log(np.abs(1 + noise * normals)) / last
    return np.log1p(-np.minimum(earlier, 1 - GOAL))
