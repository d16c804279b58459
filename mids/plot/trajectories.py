"""Trajectories against log time: the loss, the overlaps, what each Hermite degree contributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import xarray as xr

from .. import validation
from .layout import Options, Panels, computed, label, need, take
from .lines import (
    DASHES,
    PLATEAU,
    THEORY,
    Crossings,
    colours,
    draw_runs,
    key_line,
    run_key,
    shades,
    time_limits,
    trapped_runs,
    typical,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

SIZE = (6.0, 1.9)
LEVEL: dict[str, Any] = {"color": THEORY, "linewidth": 1.0, "linestyle": ":"}
ESCAPE: dict[str, Any] = {"color": THEORY, "linewidth": 1.1, "linestyle": (0, (5, 3)), "zorder": 4}
LARGEST = 20_000_000  # values of overlaps computed only to draw escapes at their exact times
DECADES = 1.3  # between levels of plateaus, from which on the loss is drawn on a log axis


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

    Raises
    ------
    DatasetError
        If the dataset has no loss.
    InputError
        If the layout does not fit the dataset.

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


def overlap(
    ds: xr.Dataset,
    **layout: Unpack[Options],
) -> np.ndarray:
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

    Raises
    ------
    DatasetError
        If the dataset has no overlaps.
    InputError
        If the layout does not fit the dataset.

    Examples
    --------
    >>> import mids
    >>> axes = overlap(mids.simulate("h1(z1)", dim=100, runs=4))
    >>> axes[0, 0].get_ylabel()
    'overlap'
    """
    need(ds, "overlap")
    panels = Panels(
        ds["overlap"],
        layout,
        core=("time",),
        pooled=("run", "direction"),
        hue="direction",
        size=SIZE,
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


def modes(
    ds: xr.Dataset,
    **layout: Unpack[Options],
) -> np.ndarray:
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

    Raises
    ------
    DatasetError
        If the dataset has no energies.
    InputError
        If the layout does not fit the dataset.

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
