"""Portraits of runs: two overlaps against each other, and one run as a film."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import xarray as xr

from .. import validation
from ..errors import DatasetError, InputError
from .layout import Options, Panels, checked, computed, need, pyplot, take, value_text
from .lines import (
    MARKERS,
    RUN,
    TYPICAL,
    colours,
    draw_runs,
    drawn_runs,
    key_line,
    run_key,
    shades,
    time_limits,
    trapped_runs,
    typical,
)

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation


FLOOR, CEILING = 1e-14, 1 - 1e-3
CRITICAL: dict[str, Any] = {
    "marker": "s",
    "color": "black",
    "markerfacecolor": "white",
    "markersize": 6,
    "linestyle": "none",
}


def phase(
    ds: xr.Dataset,
    *,
    directions: tuple[int, int] = (0, 1),
    **layout: Unpack[Options],
) -> np.ndarray:
    """Draw two overlaps against each other, one panel for each dimension.

    On log-odds axes, where overlaps of 1/d and of 1 - 1/d have room; beyond 0.999 they are drawn
    there, as are those far below all starts. Circles are where runs start. Squares are the
    critical points with none, the first or both of the two directions learned: their overlaps are
    0 or 1, which is beyond the axes.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``overlap`` of at least two directions.
    directions : (int, int)
        Which directions, counted from 0, are drawn to the right and upwards.
    **layout
        Layout of the panels: see `mids.plot`. Without `row`, dimensions change to the right.

    Returns
    -------
    numpy.ndarray of Axes, shape (rows, columns)

    Raises
    ------
    DatasetError
        If the dataset has no overlaps, or of one direction only.
    InputError
        If `directions` are not two different ones of the dataset, or the layout does not fit.

    Examples
    --------
    >>> import mids
    >>> axes = phase(mids.simulate("h1(z1) + h1(z1)*h1(z2)", dim=100, runs=4))
    >>> axes[0, 0].get_xlabel()
    'overlap of direction 1'
    """
    need(ds, "overlap")
    count = ds["overlap"].sizes.get("direction", 1)
    if count < 2:
        raise DatasetError(
            "a phase portrait needs two directions, but the dataset has one; "
            "draw it with ds.mi.plot.overlap()"
        )
    pair = np.asarray(directions if validation.is_finite(directions) else ())
    if pair.shape != (2,) or pair.dtype.kind != "i" or len({*pair.tolist()} & {*range(count)}) < 2:
        raise InputError(
            f"directions must be two different ones of 0 to {count - 1}, got "
            f"{validation.shown(directions)}"
        )
    xlim = checked(layout).get("xlim")  # or say what is wrong with them
    if xlim is not None and xlim[1] >= 1:
        raise InputError(
            f"xlim of a phase portrait must be overlaps between 0 and 1, got "
            f"{validation.shown(xlim)}; pass for example xlim=(1e-4, 0.99)"
        )
    shown = ds["overlap"].isel(direction=pair)
    if "dim" in shown.dims and "dim" not in (layout.get("row"), layout.get("hue")):
        layout = layout | {"col": layout.get("col") or "dim"}
    panels = Panels(shown, layout, core=("time", "direction"), pooled=("run",), size=(3.2, 3.2))
    from matplotlib.ticker import LogitLocator

    status = [name for name in ("status",) if name in ds]
    (ds,) = computed(ds[status].assign(overlap=shown))
    data = ds["overlap"].clip(FLOOR, CEILING)
    drawn = colours(panels, data)
    starts = data.isel(time=0)
    low = [float(starts.isel(direction=k).min()) / 10 for k in (0, 1)]
    data = data.clip(xr.DataArray(low, dims="direction"))
    for ax, at in panels:
        for colour in drawn:
            here = at | colour.at
            x, y = take(data, here, "direction", "run", "time").values
            dark = typical(x + y, trapped_runs(ax, ds, here, named=panels.hue is None))
            draw_runs(ax, x, y, dark=dark, light=colour.light, **colour.style)
            style = {"color": colour.style["color"], "markersize": 2.5, "zorder": 4}
            rows = drawn_runs(len(x))
            ax.plot(x[rows, 0], y[rows, 0], "o", **style)
        first = int(pair[0] > pair[1])  # overlaps are sorted: the lower index is learned first
        middle = (CEILING, low[1]) if first == 0 else (low[0], CEILING)
        if data.isel(at, missing_dims="ignore").max("direction", skipna=False).notnull().any():
            for position in ((low[0], low[1]), middle, (CEILING, CEILING)):
                ax.plot(*position, **CRITICAL, zorder=5)
        ax.set(
            xscale="logit",
            yscale="logit",
            xlim=(low[0] / 8, 1 - 2e-4),
            ylim=(low[1] / 8, 1 - 2e-4),
        )
        ax.minorticks_off()
        ax.xaxis.set_major_locator(LogitLocator(nbins=4))
    key = [
        *run_key(panels, drawn),
        key_line("start", marker="o", color="black", markersize=3, linestyle="none"),
        key_line("critical point", **CRITICAL),
    ]
    right, up = (f"overlap of direction {k + 1}" for k in pair)
    return panels.finish(right, up, key)


def animate(
    ds: xr.Dataset,
    *,
    frames: int = 120,
    interval: float = 50.0,
    figsize: tuple[float, float] = (7.0, 3.0),
) -> FuncAnimation:
    """Show one run as a film, at times evenly spaced in log time.

    To the left the loss, with a point that moves along it; to the right the overlaps of all
    directions, as bars. Of several runs the one closest to their median is shown.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variables ``loss`` and ``overlap``, at one dimension.
    frames : int
        Number of frames.
    interval : float
        Milliseconds from frame to frame.
    figsize : (float, float)
        Width and height of the figure in inches.

    Returns
    -------
    matplotlib.animation.FuncAnimation
        ``.save("run.gif", writer="pillow")`` writes a GIF, ``.to_jshtml()`` returns HTML, which
        ``IPython.display.HTML`` shows in a notebook.

    Raises
    ------
    DatasetError
        If there is no loss or overlap, or several dimensions.
    InputError
        If a parameter is wrong.

    Examples
    --------
    >>> import mids
    >>> film = animate(mids.simulate("h1(z1) + h1(z1)*h1(z2)", dim=100, runs=4), frames=2)
    >>> film.to_jshtml().count("data:image/png")
    2
    """
    need(ds, "loss", "overlap")
    frames = validation.integer(frames, "frames", at_least=1, at_most=10**5)
    interval = validation.number(interval, "interval", above=0.0)
    checked({"figsize": figsize})
    further = [str(n) for n, k in ds["loss"].sizes.items() if n not in ("run", "time") and k > 1]
    if further:
        raise DatasetError(
            f"a film shows one run, but {' and '.join(further)} "
            f"{'have' if further[1:] else 'has'} several values; select one, "
            f"for example with ds.isel({further[0]}=0)"
        )
    if "time" not in ds["loss"].dims:
        raise DatasetError("a film needs the dimension 'time': select several times")
    pyplot()
    from matplotlib.animation import FuncAnimation

    (shown,) = computed(ds[["loss", "overlap"]].squeeze(set(ds["loss"].dims) - {"run", "time"}))
    time = shown["time"].values
    lines = take(shown["loss"], {}, "run", "time").values
    chosen = typical(lines)
    bars = take(shown["overlap"], {}, "run", "time", "direction").values[chosen]
    low, high = time_limits(shown["time"], [lines[[chosen]]])
    moments = np.geomspace(low, high, frames)
    # A straight line between points of the grid: between them a film knows no more.
    levels = np.interp(moments, time, lines[chosen])
    overlaps = np.stack([np.interp(moments, time, column) for column in bars.T], axis=1)
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=figsize, width_ratios=(2, 1))
    figure.set_layout_engine("constrained")
    left.plot(time, lines.T, **RUN)
    left.plot(time, lines[chosen], **TYPICAL)
    (point,) = left.plot(low, levels[0], MARKERS[0], color="#b2182b", zorder=4)
    named = f", run {np.atleast_1d(shown['run'].values)[chosen]}" if "run" in shown.coords else ""
    title = value_text(shown, "dim", 0) + named if "dim" in shown.coords else named.strip(", ")
    left.set(xscale="log", xlim=(low, high), xlabel="time $t$", ylabel="loss", title=title)
    left.set_ylim(bottom=min(0.0, float(lines.min())) - 0.05 * float(lines.max()))
    names = np.arange(1, bars.shape[1] + 1)
    drawn = right.bar(names, overlaps[0], color=shades(len(names)))
    right.set(ylim=(0, 1), xlabel="direction", ylabel="overlap", xticks=names)

    def show(frame: int) -> list[object]:
        point.set_data([moments[frame]], [levels[frame]])
        for bar, value in zip(drawn, overlaps[frame], strict=True):
            bar.set_height(value)
        mantissa, exponent = f"{moments[frame]:.1e}".split("e")
        right.set_title(f"$t = {mantissa} \\cdot 10^{{{int(exponent)}}}$")
        return [point, *drawn]

    return FuncAnimation(figure, show, frames=frames, interval=interval)  # type: ignore[arg-type]
