"""How far descent on samples is from the population flow, in log time.

The measure is the difference in log time, ``|log t - log t'|``, of the first times at which two
curves from the same M(0) reach a level: the risk several levels, each overlap those of
``crossing_time``. A run counts with the largest of these differences.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
import xarray as xr

import mids
from mids.flows import OnlineSGD

__all__ = ["descent", "differences", "follow", "timed", "worst"]

LADDER = "h1(z1) + h1(z1)*h1(z2)"
LEVELS = np.array([0.9, 0.7, 0.52, 0.4, 0.2, 0.1, 0.05])
"""Of the risk, which falls from 1 over a saddle at 1/2 to 0."""
GRID = 0.02
GOAL = 0.02


def descent(step: float, batch: int, **parameters: Any) -> OnlineSGD:
    """Return the flow that is verified."""
    return OnlineSGD(step=step, batch=batch, memory=1, sampling="projected", **parameters)


def differences(found: xr.Dataset, exact: xr.Dataset) -> np.ndarray:
    """Differences in log time, found minus exact.

    Parameters
    ----------
    found : xarray.Dataset
        Of descent on samples, at one dimension.
    exact : xarray.Dataset
        Of the population flow, with the same runs and times.

    Returns
    -------
    (runs, levels) float array
        Levels of the risk, then those of the overlaps. NaN where descent does not reach a level, 0
        where the flow does not reach it either.
    """
    one, two = (
        np.concatenate([_levels(ds, risk), _crossings(ds)], axis=1)
        for ds, risk in ((found, "risk"), (exact, "loss"))
    )
    same = (one == two) | (np.isnan(one) & np.isnan(two))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(same, 0.0, np.log(one / two))


def _levels(ds: xr.Dataset, risk: str) -> np.ndarray:
    curves, times = ds[risk].isel(dim=0).values, ds["time"].values
    return np.array([_reached(times, curve) for curve in curves])


def _crossings(ds: xr.Dataset) -> np.ndarray:
    values = ds["crossing_time"].isel(dim=0).transpose("run", "direction", "level").values
    return values.reshape(len(values), -1)


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


def follow(flow: OnlineSGD, dim: int, runs: Sequence[int], **start: Any) -> np.ndarray:
    """Differences in log time between a flow and the population flow, run by run.

    Parameters
    ----------
    flow : OnlineSGD
    dim : int
    runs : sequence of int
    **start
        The argument ``initial`` of `mids.simulate`, if M(0) is given.

    Returns
    -------
    (runs, levels) float array
        NaN where a level is not reached 15 % after the population flow's last one.
    """
    rows = []
    for run in runs:
        arguments: dict[str, Any] = {"dim": dim, "runs": [run], **start}
        trial = mids.simulate(LADDER, **arguments).compute()
        arguments["time"] = np.arange(0.0, 1.15 * float(trial["crossing_time"].max()), GRID)
        rows.append([mids.simulate(LADDER, rtol=1e-9, **arguments)])
        rows[-1].append(mids.simulate(LADDER, flow=flow, **arguments))
    computed = dask.compute(*rows)
    return np.concatenate([differences(found, exact) for exact, found in computed])


def timed(
    step: float, batch: int, dim: int, runs: Sequence[int], **start: Any
) -> tuple[np.ndarray, float]:
    """`follow` of the flow with a step and batch, and the seconds it took."""
    started = time.perf_counter()
    away = follow(descent(step, batch), dim, runs, **start)
    return away, time.perf_counter() - started


def worst(away: np.ndarray) -> np.ndarray:
    """Largest difference of each run, infinite where a level is not reached."""
    return np.where(np.isnan(away), np.inf, np.abs(away)).max(axis=1)
