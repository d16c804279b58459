"""Trajectories: loss, overlaps and Hermite degrees against log time, phase portraits, films."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import xarray as xr

from .. import validation
from ..errors import DatasetError, InputError
from .layout import Options, Panels, checked, computed, label, need, pyplot, take, value_text
from .lines import (
    DASHES,
    MARKERS,
    PLATEAU,
    RUN,
    THEORY,
    TYPICAL,
    Crossings,
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
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

SIZE = (6.0, 1.9)
LEVEL: dict[str, Any] = {"color": THEORY, "linewidth": 1.0, "linestyle": ":"}
ESCAPE: dict[str, Any] = {"color": THEORY, "linewidth": 1.1, "linestyle": (0, (5, 3)), "zorder": 4}
LARGEST = 20_000_000  # values of overlaps computed only to draw escapes at their exact times
DECADES = 1.3  # between levels of plateaus, from which on the loss is drawn on a log axis
FLOOR, CEILING = 1e-14, 1 - 1e-3
CRITICAL: dict[str, Any] = {"marker": "s", "color": "black", "markersize": 6, "linestyle": "none"}


def loss(
    ds: xr.Dataset,
    comparison: xr.Dataset | None = None,
    plateaus: xr.Dataset | None = None,
    *,
    yscale: Literal["linear", "log"] | None = None,
    **layout: Unpack[Options],
) -> np.ndarray:
    """Draw the loss against log time, one panel for each dimension.

    The black line is the run closest to the median of those that are not trapped, and yellow its
    plateaus. Where a comparison with theory is given, dotted lines are the predicted losses of the
    plateaus and dashed ones the predicted escape times of this same run.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``loss``.
    comparison : xarray.Dataset, optional
        What `mids.compare` returns for `ds`.
    plateaus : xarray.Dataset, optional
        What `mids.plateaus` returns for `ds`.
    yscale : {"linear", "log"}, optional
        Scale of the loss; if not given, logarithmic where the plateaus span more than a decade.
    **layout
        Layout of the panels: see `mids.plot`.

    Returns
    -------
    numpy.ndarray of Axes, shape (rows, columns)

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h1(z1) + h1(z1)*h1(z2)", dim=[100, 10000], runs=4)
    >>> axes = loss(ds, mids.compare(ds), mids.plateaus(ds), col="dim")
    >>> axes.shape, axes[0, 0].get_ylabel()
    ((1, 2), 'loss')
    """
    need(ds, "loss")
    if yscale is not None:
        validation.one_of(yscale, ("linear", "log"), "yscale")
    if plateaus is not None:
        need(plateaus, "start", "stop", "loss", remedy="; pass what mids.plateaus returns")
    if comparison is not None:
        names = ("loss_theory", "escape_time_theory")
        need(comparison, *names, remedy="; pass what mids.compare returns")
    panels = Panels(ds["loss"], layout, core=("time",), pooled=("run",), size=SIZE)
    ds, comparison, plateaus = computed(_drawn(ds, "loss"), comparison, plateaus)
    data = ds["loss"]
    drawn = colours(panels, data)
    blocks, levels = [], []
    for ax, at in panels:
        for colour in drawn:
            here = at | colour.at
            lines = take(data, here, "run", "time").values
            dark = typical(lines, trapped_runs(ax, ds, here, named=panels.hue is None))
            style = colour.style | {"crossings": Crossings.of(ds, here)}
            draw_runs(ax, data.time.values, lines, dark=dark, light=colour.light, **style)
            if plateaus is not None:
                found = take(plateaus, here, "run", "plateau").isel(run=dark)
                _mark_plateaus(ax, found, float(data.time[data.time > 0][0]), panels.hue is None)
                levels.append(found["loss"].values)
            if comparison is not None:
                expected = take(comparison, here, "run", "saddle").isel(run=dark)
                _mark_theory(ax, expected, {} if panels.hue is None else colour.style)
                levels.append(expected["loss_theory"].values.ravel())
            blocks.append(lines)
    floor = _scale_loss(panels, data, np.concatenate([*levels, [np.nan]]), yscale)
    if floor > 0:  # falls by a decade count alike, however low
        blocks = [np.log(np.maximum(lines, floor)) for lines in blocks]
    _scale_time(panels, data, blocks)
    key: list[Artist] = list(run_key(panels, drawn))
    if plateaus is not None and panels.hue is None:
        key.append(key_line("its plateaus", **PLATEAU))
    if comparison is not None:
        style = {} if panels.hue is None else {"color": "0.2"}
        key += [
            key_line("plateau, theory for this run", **LEVEL | style),
            key_line("escape, theory for this run", **ESCAPE | style),
        ]
    return panels.finish(label(data.time, "time $t$"), label(data, "loss"), key)


def overlap(ds: xr.Dataset, **layout: Unpack[Options]) -> np.ndarray:
    """Draw the overlaps of all directions against log time, one panel for each dimension.

    Colours are directions, if no other `hue` is asked for. Light lines are runs, the dark one the
    run closest to the median of those that are not trapped.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``overlap``.
    **layout
        Layout of the panels: see `mids.plot`.

    Returns
    -------
    numpy.ndarray of Axes, shape (rows, columns)

    Examples
    --------
    >>> import mids
    >>> axes = overlap(mids.simulate("h1(z1)", dim=100, runs=4))
    >>> axes[0, 0].get_ylabel()
    'overlap'
    """
    need(ds, "overlap")
    pooled = ("run", "direction")
    panels = Panels(
        ds["overlap"], layout, core=("time",), pooled=pooled, hue="direction", size=SIZE
    )
    (ds,) = computed(_drawn(ds, "overlap"))
    data = ds["overlap"]
    drawn = colours(panels, data)
    blocks = []
    for ax, at in panels:
        named = panels.hue in (None, "direction")
        whole = take(data, {n: k for n, k in at.items() if n != "direction"}, "run", "time")
        for colour in drawn:
            here = take(data, at | colour.at, "direction", "run", "time")
            others = {n: k for n, k in colour.at.items() if n != "direction"}
            total = whole.isel(others, missing_dims="ignore")
            total = total.sum("direction") if "direction" in total.dims else total
            left_out = trapped_runs(ax, ds, at | others, named=named)
            dark = typical(take(total, {}, "run", "time").values, left_out)
            crossings = Crossings.of(ds, at | colour.at)
            for index, lines in enumerate(here.values):
                style = colour.style | {"crossings": crossings and crossings.along(index)}
                if len(here.values) > 1:
                    style = style | {"linestyle": DASHES[index % len(DASHES)]}
                draw_runs(ax, data.time.values, lines, dark=dark, light=colour.light, **style)
            blocks += list(here.values)
        ax.set_ylim(-0.03, 1.03)
    _scale_time(panels, data, blocks)
    key: list[Artist] = list(run_key(panels, drawn))
    return panels.finish(label(data.time, "time $t$"), label(data, "overlap"), key)


def modes(ds: xr.Dataset, **layout: Unpack[Options]) -> np.ndarray:
    """Draw what each Hermite degree contributes to h(G), stacked, against log time.

    h(G) = <f*, A_G f*> is the part of the squared norm of the target that is learned: the loss is
    half the squared norm minus h(G) / 2. One panel for each dimension shows the run closest to the
    median of those that are not trapped; its number is above the panel. Where a flow lets a
    contribution be negative, it is stacked downwards. The constant is left out.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``energy``.
    **layout
        Layout of the panels: see `mids.plot`.

    Returns
    -------
    numpy.ndarray of Axes, shape (rows, columns)

    Examples
    --------
    >>> import mids
    >>> axes = modes(mids.simulate("h1(z1) + h1(z1)*h1(z2)", dim=100, runs=4))
    >>> axes[0, 0].get_title(loc="left")[:3]
    'run'
    """
    need(ds, "energy", "degree")
    degree = ds["degree"].compute()  # xarray does not group by what is not in memory
    by_degree = ds["energy"].assign_coords(degree=degree).groupby("degree").sum("mode", min_count=1)
    by_degree = by_degree.sel(degree=by_degree.degree > 0)
    panels = Panels(
        by_degree, layout, core=("time",), pooled=("run", "degree"), hue=False, size=SIZE
    )
    (ds,) = computed(_drawn(ds).assign(energy=by_degree))
    data = ds["energy"]
    known = data.notnull().any([dim for dim in data.dims if dim != "degree"])
    if known.any():  # degrees that none of these targets has are not shown
        data = data.isel(degree=known.values)
    data = data.fillna(0.0)
    fills = shades(data.sizes["degree"], darkest=0.3, lightest=0.95)
    blocks = []
    top = float(data.clip(min=0).sum("degree").max())
    for ax, at in panels:
        values = take(data, at, "run", "degree", "time").values
        dark = typical(values.sum(axis=1), trapped_runs(ax, ds, at))
        named = f"run {data['run'].values[dark]}" if data["run"].ndim else ""
        if "run" in data.dims and "run" not in (panels.row, panels.col):
            ended = ax.get_title(loc="left")
            ax.set_title(f"{named}; {ended}" if ended else named, loc="left", fontsize="small")
        time, shown = data.time.values, values[dark]
        crossings = Crossings.of(ds, at)
        if crossings is not None:
            time, shown = crossings.between(dark, time, shown)
        for part in (np.maximum(shown, 0), np.minimum(shown, 0)):
            if part.any():
                # Time 0 has no place on a log axis.
                for area in ax.stackplot(time[1:], part[:, 1:], colors=fills):
                    area.set(edgecolor="white", linewidth=0.6)
        ax.set_ylim(top=1.05 * top if top > 0 else None)  # of the run that learns most
        blocks.append(values.sum(axis=1))
    _scale_time(panels, data, blocks)
    from matplotlib.patches import Patch

    key = [
        Patch(facecolor=fill, edgecolor="white", label=f"degree {degree}")
        for degree, fill in zip(data.degree.values, fills, strict=True)
    ]
    text = r"$h(G) = \langle f^*, A_G f^*\rangle$"
    return panels.finish(label(data.time, "time $t$"), text, key)


# -- portraits of runs ---------------------------------------------------------------------------


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
        Which two directions, counted from 0, are drawn to the right and upwards.
    **layout
        Layout of the panels: see `mids.plot`. Without `row`, dimensions change to the right.

    Returns
    -------
    numpy.ndarray of Axes, shape (rows, columns)

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
                ax.plot(*position, **CRITICAL, markerfacecolor="white", zorder=5)
        ax.set(xscale="logit", xlim=(low[0] / 8, 1 - 2e-4))
        ax.set(yscale="logit", ylim=(low[1] / 8, 1 - 2e-4))
        ax.minorticks_off()
        ax.xaxis.set_major_locator(LogitLocator(nbins=4))
    key = [
        *run_key(panels, drawn),
        key_line("start", marker="o", color="black", markersize=3, linestyle="none"),
        key_line("critical point", **CRITICAL, markerfacecolor="white"),
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
    plt = pyplot()
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
    figure, (left, right) = plt.subplots(1, 2, figsize=figsize, width_ratios=(2, 1))
    figure.set_layout_engine("constrained")
    left.plot(time, lines.T, **RUN)
    left.plot(time, lines[chosen], **TYPICAL)
    (point,) = left.plot(low, levels[0], MARKERS[0], color=THEORY, zorder=4)
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


# -- parts of the pictures against time -----------------------------------------------------------


def _drawn(ds: xr.Dataset, *names: str) -> xr.Dataset:
    """Select what a picture of trajectories draws: variables, and how and when runs ended."""
    if "overlap" in ds and ds["overlap"].size < LARGEST:
        names = (*names, "overlap", "crossing_time")
    return ds[[name for name in dict.fromkeys((*names, "status")) if name in ds]]


def _scale_time(panels: Panels, data: xr.DataArray, blocks: list[np.ndarray]) -> None:
    limits = time_limits(data.time, blocks)
    for ax, _ in panels:
        ax.set_xscale("log")
        ax.set_xlim(limits)


def _scale_loss(
    panels: Panels, data: xr.DataArray, levels: np.ndarray, yscale: str | None
) -> float:
    """Draw levels (n,) that span decades on a log axis, others from 0 on; return its end or 0."""
    positive = levels[np.isfinite(levels) & (levels > 0)]
    lowest = float(positive.min()) if len(positive) else float("nan")
    spread = np.log10(positive.max() / lowest) if len(positive) else 0.0
    scale = yscale or ("log" if spread > DECADES else "linear")
    if scale == "log":
        values = data.values[np.isfinite(data.values) & (data.values > 0)]
        final = float(values.min()) if len(values) else 1.0
        bottom = max(0.5 * final, 0.03 * (lowest if len(positive) else float(values.max()) / 1e5))
        for ax, _ in panels:
            ax.set_yscale("log")
            ax.set_ylim(bottom=bottom, top=2 * float(values.max()) if len(values) else None)
        return bottom
    for ax, _ in panels:
        ax.set_ylim(bottom=1.05 * min(0.0, float(data.min())) - 0.04 * float(data.max()))
    return 0.0


def _mark_plateaus(ax: Axes, found: xr.Dataset, first: float, marked: bool) -> None:
    """Draw the plateaus of one run as broad bands along its curve."""
    for index in np.flatnonzero(found["start"].notnull().values) if marked else ():
        start, stop, level = (float(found[name][index]) for name in ("start", "stop", "loss"))
        ax.plot([max(start, 1e-3 * first), stop], [level, level], **PLATEAU, zorder=2)


def _mark_theory(ax: Axes, run: xr.Dataset, style: dict[str, Any]) -> None:
    """Draw the predicted levels and escape times of one run."""
    colour = {"color": style["color"]} if style else {}
    for level in np.unique(run["loss_theory"]):
        if np.isfinite(level):
            ax.axhline(level, **LEVEL | colour)
    for escape in np.unique(run["escape_time_theory"]):
        if np.isfinite(escape):
            ax.axvline(escape, **ESCAPE | colour)
