"""Runs of the zoo against the theory, and what they say as Markdown."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pandas as pd
import xarray as xr

import mids
from mids.initial import draw_runs
from mids.schema import LEVELS

from .zoo import Case

__all__ = ["Result", "document", "verify"]

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
    ladder, method : str
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
    method: str
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
    ds = ds[["loss", "crossing_time", "gram0", "status"]].compute()
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
        compared.attrs["method"],
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
        compared = mids.compare(fine[["loss", "crossing_time", "gram0", "status"]].compute())
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


def document(results: Sequence[Result], runs: int, seed: int) -> str:
    """Write the report.

    Parameters
    ----------
    results : sequence of Result
    runs, seed : int
        As given to `verify`.

    Returns
    -------
    str
        Markdown.
    """
    seconds = sum(result.seconds for result in results)
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "numba"))
    parts = [
        "# Theory against simulation\n",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, mids {mids.__version__}, Python "
        f"{platform.python_version()}, {packages}. {runs} runs at each dimension, seed {seed}, "
        f"{seconds / 60:.0f} minutes. `python -m tests.verification` writes this page.\n",
        "Each run is predicted from its own initial condition alone; ratios are measured over "
        "predicted escape times.\n",
        "## Against the goals\n",
        *_goals(results),
        "",
        "Levels of plateaus are those where the curve is flattest in log time, read in the same "
        "way off the simulated and the predicted curve; the first plateau has the loss at the "
        "start. A stay may be far shorter than the time that has passed before it: of those of "
        "log d after one of a power of d (ladder 2-1) hardly any has a time of the usual grid, 16 "
        "a decade. So the goals are those of stays that are resolved: the first "
        f"{RESOLVED} runs are simulated again with {POINTS} times, evenly spread, between the "
        "beginning and the end of each of their stays (the overlaps 0.9 of the direction before "
        "and 0.1 of the next one), and both curves are read at the same places between their own "
        "beginning and end of the stay. `grid error` is the same on the usual grid, of the runs "
        "that show the stay there (`on grid`).\n",
        "## Cases\n",
        _table(map(_overview, results)),
        "## Exponents\n",
        "Slope of the logarithm of the median escape time in log d. Common starts: the same "
        f"M(0) sqrt(d) at every d, which leaves no sampling error, from d = {PURE:.0e} on; then "
        f"the slopes between one dimension and the next, and the line through all of them from "
        f"d = {SETTLED:.0e} on. Runs: independent at every d, from d = {SETTLED:.0e} on, with a "
        "95 % bootstrap interval, and their theory. For saddles of log d (s - 1 = 0) the slope of "
        "the median time itself.\n",
        "An escape time is the sum of the stays so far, and `s - 1` the largest of their powers. A "
        "stay whose own power is smaller, but whose factor is large, keeps the slope of the sum "
        "from its limit: after a stay of A d^2 one of B d takes part as long as d is not large "
        "against B / A. B is heavy-tailed (a later direction may start arbitrarily small), so that "
        "this happens to medians, too, at d = 1e4; the slopes between dimensions show how it is "
        "over by d = 1e6. The last columns take the stays apart: from the "
        "overlap 0.9 of the direction before to 1/2 of the next one, in the runs of the common "
        "starts that visit the saddle at every d, with the exponent of that saddle alone.\n",
        _table(row for result in results for row in _named(result, result.fits)),
        "## Saddles\n",
        _table(row for result in results for row in _named(result, result.saddles)),
        "## Runs\n",
        _table(row for result in results for row in _named(result, result.runs)),
    ]
    return "\n".join(parts)


def _goals(results: Sequence[Result]) -> Iterable[str]:
    """One line for each number to reach, with the worst case."""
    saddles = pd.concat([r.saddles.assign(case=r.case.name, method=r.method) for r in results])
    saddles["off"] = np.abs(saddles["ratio"] - 1)
    for dim, close in ((100, 0.05), (10**4, 0.01), (10**6, 0.001)):
        for method, factor in (("closed-form", 1), ("limit-flow", 2)):
            rows = saddles[(saddles["dim"] == dim) & (saddles["method"] == method)]
            yield _worst(
                f"median ratio within {factor * close:.1%} at d = {dim:.0e}, {method}",
                rows,
                "off",
                factor * close,
            )
    large = saddles[saddles["dim"] >= SETTLED]
    first = large["saddle"] == 0
    name = f"median plateau loss within 1e-3 at d >= {SETTLED:.0e}"
    yield _worst(f"{name}, first saddles", large[first], "loss error", 1e-3)
    yield _worst(f"{name}, later saddles", large[~first], "loss error", 1e-3)
    yield _worst(f"{name}, later saddles on the usual grid", large[~first], "grid error", 1e-3)
    unseen = large[~first]
    yield (
        f"- {(unseen['resolved'] == 0).sum()} of {len(unseen)} later saddles at d >= {SETTLED:.0e} "
        f"show no level when resolved, {(unseen['on grid'] == 0).sum()} none on the usual grid."
    )
    ended = pd.concat([r.runs.assign(case=r.case.name, saddle="") for r in results])
    ended["missed"] = 1 - ended["as expected"]
    pure = ended[ended["dim"] >= PURE]
    yield _worst(f"saddles as expected in 99 % of runs at d >= {PURE:.0e}", pure, "missed", 0.01)
    fits = pd.concat([r.fits.assign(case=r.case.name, dim="") for r in results])
    if len(fits):
        power = fits[fits["s - 1"] > 0]
        power = power.assign(
            away=np.abs(power["common starts"] - power["s - 1"]),
            early=np.abs(power[f"all from {SETTLED:.0e}"] - power["s - 1"]),
            apart=np.abs(power["runs"] - power["theory"]),
        )
        name = "escape times: slope within 0.02 of s - 1, common starts"
        yield _worst(f"{name}, d >= {PURE:.0e}", power, "away", 0.02)
        yield _worst(f"{name}, d >= {SETTLED:.0e}", power, "early", 0.02)
        stays = fits[fits["own s - 1"] > 0]
        stays = stays.assign(away=np.abs(stays["stays"] - stays["own s - 1"]))
        yield _worst("stays: slope within 0.02 of the saddle's own s - 1", stays, "away", 0.02)
        name = "escape times: slope within 0.02 of that of the same runs' theory"
        yield _worst(name, power, "apart", 0.02)
        inside = (power["low"] <= power["s - 1"]) & (power["s - 1"] <= power["high"])
        yield f"- {inside.sum()} of {len(power)} bootstrap intervals (95 %) contain s - 1."
        slow = fits[fits["s - 1"] == 0]
        slow = slow.assign(apart=np.abs(slow["runs"] / slow["theory"] - 1))
        yield _worst("log d saddles: slope within 2 % of the theory's", slow, "apart", 0.02)
    able = [r for r in results if r.case.converges]
    trapped = sum(int(r.runs["other"].sum()) for r in able)
    cut = sum(int(r.runs["censored"].sum()) for r in able)
    total = sum(int(r.runs[["converged", "censored", "other"]].sum().sum()) for r in able)
    yield (
        f"- Students with enough directions: {total - trapped - cut} of {total} runs converged, "
        f"{cut} were still on a plateau at the last time, {trapped} ended otherwise."
    )


def _worst(claim: str, rows: pd.DataFrame, column: str, limit: float) -> str:
    rows = rows[rows[column].notna()]
    if not len(rows):
        return f"- {claim}: no such runs."
    worst = rows.loc[rows[column] == rows[column].max()].iloc[0]
    failing = int((rows[column] > limit).sum())
    verdict = "met" if not failing else f"missed in {failing} of {len(rows)} places"
    where = ", ".join(
        text
        for text in (
            worst["case"],
            f"d = {worst['dim']:.0e}" if worst["dim"] != "" else "",
            f"saddle {worst['saddle']}" if worst["saddle"] != "" else "",
        )
        if text
    )
    return f"- {claim}: **{verdict}**; worst {worst[column]:.2g} ({where})."


def _overview(result: Result) -> dict[str, object]:
    return {
        "case": result.case.name,
        "target": _shortened(repr(result.case.target)[1:-1].split(": ", 1)[1]),
        "q": result.case.student_rank or result.case.target.rank,
        "leaps": result.ladder,
        "theory": result.method,
        "seconds": f"{result.seconds:.0f}",
    }


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _named(result: Result, rows: pd.DataFrame) -> Iterable[dict[str, object]]:
    for row in rows.to_dict("records"):
        yield {"case": result.case.name, **{str(k): _text(str(k), v) for k, v in row.items()}}


def _text(name: str, value: float) -> str:
    if name == "dim":
        return f"{value:.0e}"
    if isinstance(value, int):
        return str(value)
    if np.isnan(value):
        return ""
    return f"{value:.1e}" if name.endswith("error") else f"{value:.4f}"


def _table(rows: Iterable[dict[str, object]]) -> str:
    listed = list(rows)
    if not listed:
        return "None.\n"
    lines = [f"| {' | '.join(listed[0])} |", f"|{'---|' * len(listed[0])}"]
    lines += [f"| {' | '.join(map(str, row.values()))} |" for row in listed]
    return "\n".join([*lines, ""])
