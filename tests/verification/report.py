"""Runs of the zoo against the theory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

import mids
from mids.flows.initial import draw_runs
from mids.schema import LEVELS

from .zoo import Case

__all__ = ["Result", "verify"]

KEPT = ("loss", "crossing_time", "gram0", "status", "recipe")
_HALF = LEVELS.index(0.5)
SETTLED = 10_000
"""Smallest dimension in the fits of exponents."""
PURE = 1_000_000
"""Smallest dimension at which all saddles must be found and exponents have come to their limit."""
RESOLVED, POINTS = 20, 33
"""Runs at each dimension that are simulated again, with so many times in each of their stays."""


@dataclass(frozen=True)
class Result:
    """What one case has shown.

    Attributes
    ----------
    case : Case
    ladder : str
        Of the theory.
    saddles : pandas.DataFrame
        One row for each dimension and saddle.
    runs : pandas.DataFrame
        One row for each dimension.
    fits : pandas.DataFrame
        One row for each saddle.
    seconds : float
    """

    case: Case
    ladder: str
    saddles: pd.DataFrame
    runs: pd.DataFrame
    fits: pd.DataFrame
    seconds: float


def verify(case: Case, dims: Sequence[float], runs: int, seed: int) -> Result:
    """Simulate a case and compare every run with the theory.

    Parameters
    ----------
    case : Case
    dims : sequence of float
    runs : int
        At each dimension.
    seed : int

    Returns
    -------
    Result
    """
    began = time.perf_counter()
    ds = mids.simulate(
        case.target,
        dim=dims,
        runs=runs,
        seed=seed,
        flow=case.flow,
        student_rank=case.student_rank,
    )
    ds = ds[[*KEPT]].compute()
    compared = mids.compare(ds)
    measured = compared["escape_time"].notnull() | compared["censored"]
    expected = compared["escape_time_theory"].notnull()
    largest = compared["exponent"].max(["dim", "run"])
    exponents = {int(k): int(s) for k, s in zip(largest["saddle"], largest, strict=True) if s > 0}
    error = np.abs(compared["loss"] / compared["loss_theory"] - 1)
    resolved = _resolved(case, ds, seed)
    saddles = [
        {
            "dim": int(dim),
            "saddle": rank,
            "exponent": exponents[rank],
            "runs": int((measured & expected).sel(dim=dim, saddle=rank).sum()),
            "on grid": int(error.sel(dim=dim, saddle=rank).notnull().sum()),
            "grid error": _quantile(error.sel(dim=dim, saddle=rank), 0.5),
            "resolved": int(resolved.sel(dim=dim, saddle=rank).notnull().sum()),
            "loss error": _quantile(resolved.sel(dim=dim, saddle=rank), 0.5),
            "ratio": _quantile(compared["ratio"].sel(dim=dim, saddle=rank), 0.5),
            "5 %": _quantile(compared["ratio"].sel(dim=dim, saddle=rank), 0.05),
            "95 %": _quantile(compared["ratio"].sel(dim=dim, saddle=rank), 0.95),
        }
        for dim in ds["dim"].values
        for rank in exponents
        if bool((measured | expected).sel(dim=dim, saddle=rank).any())
    ]
    same = (measured == expected).all("saddle")
    ended = [
        {
            "dim": int(dim),
            "measured saddles": float(measured.sel(dim=dim).sum("saddle").mean()),
            "expected saddles": float(expected.sel(dim=dim).sum("saddle").mean()),
            "as expected": float(same.sel(dim=dim).mean()),
            "converged": int((ds["status"].sel(dim=dim) == 0).sum()),
            "censored": int((ds["status"].sel(dim=dim) == 1).sum()),
            "other": int((ds["status"].sel(dim=dim) > 1).sum()),
        }
        for dim in ds["dim"].values
    ]
    return Result(
        case,
        compared.attrs["ladder"],
        pd.DataFrame(saddles),
        pd.DataFrame(ended),
        _fits(case, ds, compared, exponents, seed),
        time.perf_counter() - began,
    )


def _resolved(case: Case, ds: xr.Dataset, seed: int) -> xr.DataArray:
    """Relative errors of levels, (dim, run, saddle), of runs whose stays are full of times."""
    parts = []
    for dim in ds["dim"].values:
        crossing = ds["crossing_time"].sel(dim=dim).isel(run=slice(RESOLVED))
        crossing = crossing.sel(level=list(LEVELS)).values
        enter = np.concatenate([np.zeros((len(crossing), 1)), crossing[:, :-1, -1]], axis=1)
        leave = crossing[:, :, 0]
        stays = leave > enter
        time = np.linspace(enter[stays], leave[stays], POINTS)
        fine = mids.simulate(
            case.target,
            dim=dim,
            runs=len(crossing),
            seed=seed,
            flow=case.flow,
            student_rank=case.student_rank,
            time=np.unique(np.append(time, 0.0)),
        )
        compared = mids.compare(fine[[*KEPT]].compute())
        parts.append(np.abs(compared["loss"] / compared["loss_theory"] - 1))
    return xr.concat(parts, "dim")


def _fits(
    case: Case, ds: xr.Dataset, compared: xr.Dataset, exponents: dict[int, int], seed: int
) -> pd.DataFrame:
    """Slopes of the escape times in log d: of common starts, of the runs, of their theory."""
    large = ds["dim"].values[ds["dim"].values >= SETTLED]
    if len(large) < 2:
        return pd.DataFrame()
    found = mids.scaling(ds.sel(dim=large), resamples=200)
    common = _common_starts(case, large, max(ds.sizes["run"] // 4, 1), seed)
    rows = []
    for rank in exponents:
        expected = float(found["expected"].sel(saddle=rank))
        # For log d the time itself, not its logarithm, is linear in log d.
        scale: Callable[[np.ndarray], np.ndarray] = np.log if expected > 0 else np.asarray
        medians = [
            np.array([_median(row) for row in times])
            for times in (
                common[:, :, rank, _HALF],
                compared["escape_time"].sel(dim=large, saddle=rank).values,
                compared["escape_time_theory"].sel(dim=large, saddle=rank).values,
            )
        ]
        if not all(np.isfinite(scale(m)).all() for m in medians):
            continue
        slopes = [_slope(large, scale(m)) for m in medians]
        last = _slope(large[large >= PURE], scale(medians[0])[large >= PURE])
        local = np.diff(scale(medians[0])) / np.diff(np.log(large))
        own = exponents[rank] - 1
        stays = _stays(common, rank)
        scale = np.log if own else np.asarray
        rows.append(
            {
                "saddle": rank,
                "s - 1": int(expected),
                "common starts": last,
                **{f"from {d:.0e}": slope for d, slope in zip(large, local, strict=False)},
                f"all from {SETTLED:.0e}": slopes[0],
                "runs": slopes[1],
                "low": float(found["low"].sel(saddle=rank)) if expected > 0 else np.nan,
                "high": float(found["high"].sel(saddle=rank)) if expected > 0 else np.nan,
                "theory": slopes[2],
                "own s - 1": own,
                "stays": _slope(large, scale(stays)),
            }
        )
    return pd.DataFrame(rows)


def _slope(dims: np.ndarray, values: np.ndarray) -> float:
    """Slope of the least-squares line in log d; NaN of one point."""
    return float(np.polyfit(np.log(dims), values, 1)[0]) if len(dims) > 1 else np.nan


def _common_starts(case: Case, dims: np.ndarray, runs: int, seed: int) -> np.ndarray:
    """Crossing times, (dim, run, direction, level), where M(0) sqrt(d) is the same at every d."""
    rank = case.target.rank
    largest = 10**8
    M = draw_runs(rank, case.student_rank or rank, largest, range(runs), seed)
    starts = M * np.sqrt(largest / dims)[:, None, None, None]
    ds = mids.simulate(case.target, dim=dims, runs=runs, flow=case.flow, initial=starts)
    times = ds["crossing_time"].sel(level=list(LEVELS)).compute()
    return times.where(times.notnull(), np.inf).values


def _stays(crossing: np.ndarray, rank: int) -> np.ndarray:
    """Median time at a saddle, (dim,), of the runs that visit it at every d."""
    enter = crossing[:, :, rank - 1, -1] if rank else np.zeros(crossing.shape[:2])
    leave, escape = crossing[:, :, rank, 0], crossing[:, :, rank, _HALF]
    visited = (leave > enter).all(axis=0) & np.isfinite(escape).all(axis=0)
    return np.array([_median(row) for row in (escape - enter)[:, visited]])


def _median(times: np.ndarray) -> float:
    """Median of the known times, some of which may be inf; NaN of none."""
    known = np.sort(times[~np.isnan(times)])
    n = len(known)
    return float(known[(n - 1) // 2] + known[n // 2]) / 2 if n else np.nan


def _quantile(values: xr.DataArray, probability: float) -> float:
    known = values.values[np.isfinite(values.values)]
    return float(np.quantile(known, probability)) if len(known) else np.nan
