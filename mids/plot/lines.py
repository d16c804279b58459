"""Lines: their styles, which can be told apart in grey, and the runs drawn with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..validation import FloatArray
from .layout import TRAPPED, Panels, pyplot, take, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

MAX_RUNS = 100  # runs drawn one by one; of more, an even selection is drawn

FAST = 0.2
"""Change of an overlap between two times of the grid from which on the times at which it passes
known levels are drawn too."""

RUN: dict[str, Any] = {"color": "0.72", "linewidth": 0.6}
TYPICAL: dict[str, Any] = {"color": "black", "linewidth": 1.6}
PLATEAU: dict[str, Any] = {"color": "#ffd34d", "linewidth": 7, "solid_capstyle": "butt"}
THEORY = "#b2182b"
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Colour:
    """One value of the dim of colours: where it is, how it is drawn, what it is called."""

    at: dict[str, int]
    style: dict[str, Any]
    light: dict[str, Any]
    marker: str
    text: str


def colours(panels: Panels, data: xr.DataArray | xr.Dataset) -> list[Colour]:
    """Return the colours of the panels' hue, or the one black that there is without."""
    if panels.hue is None:
        return [Colour({}, TYPICAL, RUN, MARKERS[0], "")]
    count = data.sizes[panels.hue]
    return [
        Colour(
            {panels.hue: index},
            {**TYPICAL, "color": colour, "linestyle": DASHES[index % len(DASHES)]},
            {"color": colour, "alpha": 0.22, "linewidth": 0.6},
            MARKERS[index % len(MARKERS)],
            value_text(data, panels.hue, index),
        )
        for index, colour in enumerate(shades(count))
    ]


def shades(
    count: int, *, darkest: float = 0.0, lightest: float = 0.75
) -> list[tuple[float, float, float, float]]:
    """Return colours that grow lighter, evenly also in grey."""
    steps = np.linspace(darkest, lightest, max(count, 2))[:count]
    return [pyplot().get_cmap("viridis")(step) for step in steps]


def key_line(label: str, **style: Any) -> Line2D:
    """Return an entry of a key."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style)


def typical(values: FloatArray, left_out: np.ndarray | None = None) -> int:
    """Return the run closest to the median of all that are not left out, of values (run, time)."""
    # Times at which no run is known, as in sweeps of different lengths, do not count.
    values = values[:, np.isfinite(values).any(axis=0)]
    known = np.isfinite(values).all(axis=1)
    if left_out is not None and not left_out[known].all():
        known = known & ~left_out
    if not known.any() or not values.size:
        return 0
    distance = np.abs(values - np.median(values[known], axis=0)).mean(axis=1)
    return int(np.argmin(np.where(known, distance, np.inf)))


def trapped_runs(
    ax: Axes, ds: xr.Dataset, at: dict[str, int], *, named: bool = True
) -> np.ndarray | None:
    """Return which runs of a panel are trapped, shape (run,), and write above it how many."""
    if "status" not in ds:
        return None
    found = (take(ds["status"], at, "run") == TRAPPED).values
    if found.any() and named:
        text = f"{found.sum()} of {found.size} trapped" if found.size > 1 else "trapped"
        ax.set_title(text, loc="left", fontsize="small")
    return np.asarray(found)


def run_key(panels: Panels, drawn: list[Colour]) -> list[Line2D]:
    """Return the entries of a key for one run, or for several of which one is drawn dark."""
    many = panels.runs() > 1
    runs = "all runs" if panels.runs() <= MAX_RUNS else f"{MAX_RUNS} of {panels.runs()} runs"
    if panels.hue is not None:
        key = [key_line(colour.text, **colour.style) for colour in drawn]
        return [*key, key_line(runs, **RUN)] if many else key
    if not many:
        return [key_line("run", **TYPICAL)]
    return [key_line(runs, **RUN), key_line("run closest to the median", **TYPICAL)]


def draw_runs(
    ax: Axes,
    x: FloatArray,
    y: FloatArray,
    *,
    dark: int,
    light: dict[str, Any],
    crossings: Crossings | None = None,
    **style: Any,
) -> None:
    """Draw runs, shape (run, time), lightly, and one of them dark."""
    from matplotlib.collections import LineCollection

    rows = np.broadcast_to(x, y.shape)
    points = {
        run: (rows[run], y[run]) if crossings is None else crossings.between(run, x, y[run])
        for run in {*drawn_runs(len(y)).tolist(), dark}
    }
    lines = [np.stack(points[run], axis=-1) for run in drawn_runs(len(y)).tolist()]
    ax.add_collection(LineCollection(lines, **light, zorder=1.5))
    ax.plot(*points[dark], **{**TYPICAL, "zorder": 3, **style})


@dataclass(frozen=True)
class Crossings:
    """When the overlaps of runs pass known levels, which is exact between times of the grid.

    Shapes: overlap (run, direction, time), times (run, direction, level), levels (level,).
    """

    overlap: FloatArray
    times: FloatArray
    levels: FloatArray

    @classmethod
    def of(cls, ds: xr.Dataset, at: dict[str, int]) -> Crossings | None:
        """Return those of a panel; None where they are not known."""
        if not {"overlap", "crossing_time"} <= ds.keys() or "time" not in ds["overlap"].dims:
            return None
        if "level" not in ds["crossing_time"].coords:
            return None
        overlap = take(ds["overlap"], at, "run", "direction", "time").values
        times = take(ds["crossing_time"], at, "run", "direction", "level")
        return cls(overlap, times.values, np.atleast_1d(times["level"].values))

    def along(self, direction: int) -> Crossings:
        """Return those of one direction."""
        one = slice(direction, direction + 1)
        return Crossings(self.overlap[:, one], self.times[:, one], self.levels)

    def between(
        self, run: int, time: FloatArray, values: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return times and values (..., time) of a run, with more points where it escapes."""
        overlap, times = np.nan_to_num(self.overlap[run]), self.times[run]
        # Cells of the grid in which an overlap passes a level faster than the grid can show.
        cell = np.clip(np.searchsorted(time, times) - 1, 0, len(time) - 2)
        low, high = (np.take_along_axis(overlap, cell + k, axis=1) for k in (0, 1))
        inside = (low < self.levels) & (self.levels < high) & (high - low > FAST)
        inside &= (time[cell] < times) & (times < time[cell + 1])  # false where it is NaN
        further = np.setdiff1d(times[inside], time)
        if not further.size:
            return time, values
        first = np.searchsorted(time, further) - 1
        before, change = overlap.sum(axis=0)[first], np.diff(overlap.sum(axis=0))[first]
        total = np.zeros(len(further))
        for path, passed, found in zip(overlap, times, inside, strict=True):
            known = np.searchsorted(time, passed[found])
            x = np.insert(time, known, passed[found])
            total += np.interp(further, x, np.insert(path, known, self.levels[found]))
        # Between two times of the grid values change as the sum of the overlaps does.
        share = (further - time[first]) / np.diff(time)[first]
        fast = np.abs(change) > FAST
        share[fast] = np.clip((total - before)[fast] / change[fast], 0.0, 1.0)
        between = values[..., first] + share * np.diff(values)[..., first]
        return np.insert(time, first + 1, further), np.insert(values, first + 1, between, axis=-1)


def drawn_runs(count: int) -> np.ndarray:
    """Return which of `count` runs are drawn."""
    return np.linspace(0, count - 1, min(count, MAX_RUNS)).astype(int)


def quantiles(
    times: FloatArray, levels: tuple[float, ...], left_out: np.ndarray | None = None
) -> FloatArray:
    """Return quantiles along the last axis of times of which NaN means never."""
    times = np.where(np.isnan(times), np.inf, times)
    if left_out is not None:
        times = np.where(left_out & ~left_out.all(axis=-1, keepdims=True), np.nan, times)
    # Interpolated, any quantile next to a run that never escapes would be infinite.
    return np.nanquantile(times, levels, axis=-1, method="nearest")


def time_limits(time: xr.DataArray, blocks: Iterable[FloatArray]) -> tuple[float, float]:
    """Return times between which nine tenths of the lines of every block, (lines, time), change."""
    grid = time.values
    positive = max(int(np.argmax(grid > 0)), 1 if len(grid) > 1 else 0)
    starts, stops = [len(grid) - 1], [positive]
    for lines in blocks:
        times = np.flatnonzero(np.isfinite(lines).any(axis=0))
        lines = lines[:, times]
        lines = lines[np.isfinite(lines).all(axis=1)]
        if not lines.size:
            continue
        # A line moves from 1 % of its range off its first value to 1 % off its last.
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
