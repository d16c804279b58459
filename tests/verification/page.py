"""What runs of the zoo say about the theory, as Markdown."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version

import numpy as np
import pandas as pd

import mids

from .report import POINTS, PURE, RESOLVED, SETTLED, Result

__all__ = ["document"]


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
        "this happens to medians, too: the slopes between dimensions show it at d = 1e4 and how it "
        "ends. Single runs pass the median much later (parity 3, saddle 2: one of 50, of which "
        "nine tenths of the time are B d at d = 1e6, does so between 1e7 and 1e8). The last "
        "columns take the stays apart: from "
        "the "
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
    saddles = pd.concat([r.saddles.assign(case=r.case.name) for r in results])
    saddles["off"] = np.abs(saddles["ratio"] - 1)
    for dim, close in ((100, 0.05), (10**4, 0.01), (10**6, 0.001)):
        rows = saddles[saddles["dim"] == dim]
        yield _worst(f"median ratio within {close:.1%} at d = {dim:.0e}", rows, "off", close)
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
