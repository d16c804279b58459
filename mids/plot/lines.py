"""Lines: their styles, which readers tell apart in grey, and the runs drawn with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..validation import FloatArray
from .panels import pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = [
    "DASHES",
    "MARKERS",
    "RUN",
    "THEORY",
    "TYPICAL",
    "draw_runs",
    "key_line",
    "quantiles",
    "run_key",
    "shades",
    "time_limits",
    "typical",
]

MAX_RUNS = 100
"""Runs drawn one by one; of more, an even selection is drawn."""

RUN: dict[str, Any] = {"color": "0.72", "linewidth": 0.6}
TYPICAL: dict[str, Any] = {"color": "black", "linewidth": 1.6}
THEORY = "#b2182b"
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def shades(
    count: int, *, darkest: float = 0.0, lightest: float = 0.75
) -> list[tuple[float, float, float, float]]:
    """Return colours that grow lighter, evenly also in grey."""
    places = np.linspace(darkest, lightest, max(count, 2))[:count]
    return [pyplot().get_cmap("viridis")(place) for place in places]


def key_line(label: str, **style: Any) -> Line2D:
    """Return an entry of a key."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style)


def typical(values: FloatArray, left_out: np.ndarray | None = None) -> int:
    """Return the run that stays closest to the median of all, shape (run, time).

    Runs that are `left_out`, shape (run,), count only if all are. Times at which no run is known,
    as where sweeps of different lengths were put together, do not count.
    """
    values = values[:, np.isfinite(values).any(axis=0)]
    known = np.isfinite(values).all(axis=1)
    if left_out is not None and not left_out[known].all():
        known = known & ~left_out
    if not known.any():
        return 0
    distance = np.abs(values - np.median(values[known], axis=0)).mean(axis=1)
    return int(np.argmin(np.where(known, distance, np.inf)))


def run_key(count: int) -> list[Line2D]:
    """Return the entries of a key for one run, or for several of which one is drawn dark."""
    if count == 1:
        return [key_line("run", **TYPICAL)]
    return [key_line("runs", **RUN), key_line("typical run", **TYPICAL)]


def draw_runs(
    ax: Axes, x: FloatArray, y: FloatArray, *, dark: int, light: dict[str, Any], **style: Any
) -> None:
    """Draw runs, shape (run, time), lightly, and one of them dark."""
    from matplotlib.collections import LineCollection

    chosen = np.unique(np.linspace(0, len(y) - 1, min(len(y), MAX_RUNS)).astype(int))
    rows = np.broadcast_to(x, y.shape)
    lines = np.stack([rows[chosen], y[chosen]], axis=-1)
    ax.add_collection(LineCollection(list(lines), **light, zorder=1.5))
    ax.plot(rows[dark], y[dark], **{**TYPICAL, **style})


def quantiles(
    times: FloatArray, levels: tuple[float, ...], left_out: np.ndarray | None = None
) -> FloatArray:
    """Return quantiles along the last axis of times of which NaN means never."""
    times = np.where(np.isnan(times), np.inf, times)
    if left_out is not None:
        times = np.where(left_out & ~left_out.all(axis=-1, keepdims=True), np.nan, times)
    return np.nanquantile(times, levels, axis=-1, method="nearest")


def time_limits(time: xr.DataArray, blocks: Iterable[FloatArray]) -> tuple[float, float]:
    """Return the times between which nine tenths of the lines of every block change.

    Shapes: blocks (lines, time).
    """
    grid = time.values
    positive = max(int(np.argmax(grid > 0)), 1 if len(grid) > 1 else 0)
    starts, stops = [len(grid) - 1], [positive]
    for lines in blocks:
        times = np.flatnonzero(np.isfinite(lines).any(axis=0))
        lines = lines[:, times]
        lines = lines[np.isfinite(lines).all(axis=1)]
        if not lines.size:
            continue
        begun, left = (np.abs(lines - lines[:, [column]]) for column in (0, -1))
        some = 0.01 * begun.max(axis=1, keepdims=True) + 1e-300
        first = np.argmax(begun > some, axis=1)
        last = len(times) - 1 - np.argmax((left > some)[:, ::-1], axis=1)
        moves = (left > some).any(axis=1)
        if moves.any():
            starts.append(int(np.quantile(times[first[moves]], 0.1)))
            stops.append(int(np.quantile(times[last[moves]], 0.9)))
    low = grid[max(min(starts), positive)] / 3
    high = min(max(3 * grid[max(stops)], 100 * low), grid[-1])
    return float(max(min(low, high / 100), min(low, grid[positive]))), float(high)
