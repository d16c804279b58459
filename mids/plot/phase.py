"""Phase portraits: two overlaps against each other."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import xarray as xr

from .. import validation
from ..errors import DatasetError, InputError
from .layout import Layout, Options, Panels, computed, need, take
from .lines import colours, draw_runs, drawn_runs, key_line, run_key, trapped_runs, typical

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
    Layout(**layout)  # or say what is wrong with it
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
            for place in ((low[0], low[1]), middle, (CEILING, CEILING)):
                ax.plot(*place, **CRITICAL, zorder=5)
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
