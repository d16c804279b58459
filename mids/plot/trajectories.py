"""Trajectories against log time: the loss, the overlaps, what each Hermite degree contributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import xarray as xr

from .facets import Facets, faceted
from .lines import (
    DASHES,
    RUN,
    THEORY,
    TYPICAL,
    draw_runs,
    key_line,
    quantiles,
    run_key,
    shades,
    time_limits,
    typical,
)
from .panels import Panels, label, need, take, trapped_runs, with_status

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = ["loss", "modes", "overlap"]

SIZE = (6.0, 1.9)
SHADES = ("0.93", "0.86")
LEVEL: dict[str, Any] = {"color": THEORY, "linewidth": 1.0, "linestyle": ":"}
ESCAPE: dict[str, Any] = {"color": THEORY, "linewidth": 1.1, "linestyle": (0, (5, 3))}


@faceted
def loss(
    ds: xr.Dataset,
    comparison: xr.Dataset | None = None,
    plateaus: xr.Dataset | None = None,
    **facets: Unpack[Facets],
) -> np.ndarray:
    """Draw the loss against log time, one panel for each dimension.

    Light lines are runs, the dark one is the run that stays closest to the median of those that are
    not trapped; its plateaus are shaded. Where a comparison with theory is given, dotted lines are
    the losses of its plateaus and dashed ones the medians of the predicted escape times.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``loss``.
    comparison : xarray.Dataset, optional
        What `mids.compare` returns for `ds`.
    plateaus : xarray.Dataset, optional
        What `mids.plateaus` returns for `ds`.
    **facets
        See `Facets`.

    Raises
    ------
    DatasetError
        If the dataset has no loss.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h1(z1) + h1(z1)*h1(z2)", dim=[100, 10000], runs=4)
    >>> axes = loss(ds, mids.compare(ds), mids.plateaus(ds), col="dim")
    >>> axes.shape, axes[0, 0].get_ylabel()
    ((1, 2), 'loss')
    """
    need(ds, "loss")
    data = ds["loss"]
    panels = Panels(data, ("time",), ("run",), size=SIZE, **facets)
    data, status = with_status(data, ds)
    key: list[Artist] = [*run_key(panels.runs())]
    if plateaus is not None:
        from matplotlib.patches import Patch

        need(plateaus, "start", "stop")
        plateaus = plateaus.compute()
        key.append(Patch(label="its plateaus", facecolor=SHADES[1]))
    if comparison is not None:
        need(comparison, "loss_theory", "escape_time_theory")
        comparison = comparison.compute()
        key += [
            key_line("plateau, theory", **LEVEL),
            key_line("escape, theory (median)", **ESCAPE),
        ]
    blocks = []
    for ax, at in panels:
        lines = take(data, at, "run", "time").values
        dark = typical(lines, trapped_runs(ax, status, at))
        if plateaus is not None:
            found = take(plateaus, at, "run", "plateau").isel(run=dark)
            for index in np.flatnonzero(found["start"].notnull().values):
                start, stop = (float(found[name][index]) for name in ("start", "stop"))
                ax.axvspan(start, stop, facecolor=SHADES[index % 2], edgecolor="none", zorder=0.5)
        draw_runs(ax, data.time.values, lines, dark=dark, light=RUN)
        if comparison is not None:
            _mark_theory(ax, take(comparison, at, "saddle", "run"))
        blocks.append(lines)
    _scale_time(panels, data, blocks)
    lowest = min(0.0, float(data.min()))
    for ax, _ in panels:
        ax.set_ylim(bottom=1.05 * lowest)
    return panels.finish(label(data.time, "time $t$"), label(data, "loss"), key)


@faceted
def overlap(
    ds: xr.Dataset,
    **facets: Unpack[Facets],
) -> np.ndarray:
    """Draw the overlaps of all directions against log time, one panel for each dimension.

    Light lines are runs, the dark one is the run that stays closest to the median of those that are
    not trapped.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``overlap``.
    **facets
        See `Facets`.

    Raises
    ------
    DatasetError
        If the dataset has no overlaps.

    Examples
    --------
    >>> import mids
    >>> axes = overlap(mids.simulate("h1(z1)", dim=100, runs=4))
    >>> axes[0, 0].get_ylabel()
    'overlap'
    """
    need(ds, "overlap")
    data = ds["overlap"]
    panels = Panels(data, ("time",), ("run", "direction"), size=SIZE, **facets)
    data, status = with_status(data, ds)
    directions = np.atleast_1d(
        data["direction"].values if {"direction"} & {*data.dims, *data.coords} else 0
    )
    colours = dict(zip(directions, shades(len(directions)), strict=True))
    styles = {
        direction: {"color": colour, "linestyle": DASHES[index % len(DASHES)]}
        for index, (direction, colour) in enumerate(colours.items())
    }
    blocks = []
    for ax, at in panels:
        here = take(data, at, "direction", "run", "time")
        dark = typical(here.values.sum(axis=0), trapped_runs(ax, status, at))
        for direction, lines in zip(np.atleast_1d(here.direction.values), here.values, strict=True):
            light = {"color": colours[direction], "alpha": 0.22, "linewidth": 0.6}
            draw_runs(
                ax, data.time.values, lines, dark=dark, light=light, zorder=3, **styles[direction]
            )
        blocks += list(here.values)
        ax.set_ylim(-0.03, 1.03)
    _scale_time(panels, data, blocks)
    key = [
        key_line(f"direction {direction + 1}", **{**TYPICAL, **style})
        for direction, style in styles.items()
    ]
    if panels.runs() > 1:
        key.append(key_line("runs", **RUN))
    return panels.finish(label(data.time, "time $t$"), label(data, "overlap"), key)


@faceted
def modes(
    ds: xr.Dataset,
    **facets: Unpack[Facets],
) -> np.ndarray:
    """Draw what each Hermite degree contributes to the norm learned, stacked, against log time.

    One panel for each dimension, for the run that stays closest to the median of those that are not
    trapped. The contributions sum to h(G) without its constant; where a flow lets some be negative,
    those are stacked downwards.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``energy``.
    **facets
        See `Facets`.

    Raises
    ------
    DatasetError
        If the dataset has no energies.

    Examples
    --------
    >>> import mids
    >>> axes = modes(mids.simulate("h1(z1) + h1(z1)*h1(z2)", dim=100, runs=4))
    >>> axes[0, 0].get_ylabel()
    'contribution to h(G)'
    """
    need(ds, "energy", "degree")
    degree = ds["degree"].compute()  # xarray does not group by what is not in memory
    data = ds["energy"].assign_coords(degree=degree).groupby("degree").sum("mode")
    data = data.sel(degree=data.degree > 0)
    panels = Panels(data, ("time",), ("run", "degree"), size=SIZE, **facets)
    data, status = with_status(data, ds)
    colours = shades(data.sizes["degree"], darkest=0.3, lightest=0.95)
    blocks = []
    top = float(data.clip(min=0).sum("degree").max())
    for ax, at in panels:
        values = take(data, at, "run", "degree", "time").values
        stacked = values[typical(values.sum(axis=1), trapped_runs(ax, status, at))]
        for part in (np.maximum(stacked, 0), np.minimum(stacked, 0)):
            if part.any():
                areas = ax.stackplot(data.time.values[1:], part[:, 1:], colors=colours)
                for area in areas:
                    area.set(edgecolor="white", linewidth=0.6)
        ax.set_ylim(top=1.05 * top if top > 0 else None)  # of the run that learns most
        blocks.append(values.sum(axis=1))
    _scale_time(panels, data, blocks)
    from matplotlib.patches import Patch

    key = [
        Patch(facecolor=colour, edgecolor="white", label=f"degree {degree}")
        for degree, colour in zip(data.degree.values, colours, strict=True)
    ]
    return panels.finish(label(data.time, "time $t$"), "contribution to h(G)", key)


def _scale_time(panels: Panels, data: xr.DataArray, blocks: list[np.ndarray]) -> None:
    limits = time_limits(data.time, blocks)
    for ax, _ in panels:
        ax.set_xscale("log")
        ax.set_xlim(limits)


def _mark_theory(ax: Axes, comparison: xr.Dataset) -> None:
    for index in range(comparison.sizes["saddle"]):
        here = comparison.isel(saddle=index)
        levels = here["loss_theory"].values
        left_out = here["trapped"].values if "trapped" in here else None
        (escape,) = quantiles(here["escape_time_theory"].values, (0.5,), left_out)
        if np.isfinite(levels).any():
            ax.axhline(np.nanmedian(levels), **LEVEL)
        if np.isfinite(escape):
            ax.axvline(escape, **ESCAPE)
