"""Phase portraits: two overlaps against each other."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import xarray as xr

from ..errors import DatasetError, InputError
from .facets import Facets, faceted
from .lines import RUN, draw_runs, key_line, run_key, typical
from .panels import Panels, need, take, trapped_runs, with_status

__all__ = ["phase"]

FLOOR, CEILING = 1e-12, 1 - 1e-3


@faceted
def phase(
    ds: xr.Dataset,
    *,
    directions: tuple[int, int] = (0, 1),
    **facets: Unpack[Facets],
) -> np.ndarray:
    """Draw two overlaps against each other, one panel for each dimension.

    On log-odds axes, where overlaps of 1/d and of 1 - 1/d have room; beyond 0.999 they are cut off.
    Circles are where the runs start. The ambient dimension changes to the right if nothing else is
    said.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``overlap`` of at least two directions.
    directions : (int, int)
        Which directions, counted from 0, are drawn to the right and upwards.
    **facets
        See `Facets`.

    Raises
    ------
    DatasetError
        If the dataset has no overlaps, or of one direction only.
    InputError
        If `directions` are not two different ones of the dataset.

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
    pair = np.asarray(directions)
    if pair.shape != (2,) or pair.dtype.kind != "i" or len({*pair.tolist()} & {*range(count)}) < 2:
        raise InputError(
            f"directions must be two different ones of 0 to {count - 1}, got {directions!r}"
        )
    data = ds["overlap"].isel(direction=pair)
    if facets.get("col") is None and "dim" in data.dims and facets.get("row") != "dim":
        facets["col"] = "dim"
    panels = Panels(data, ("time", "direction"), ("run",), size=(3.2, 3.2), **facets)
    from matplotlib.ticker import LogitLocator

    data, status = with_status(data, ds)
    data = data.clip(FLOOR, CEILING)
    low = [float(data.isel(direction=k).min("time").quantile(0.02)) / 3 for k in (0, 1)]
    for ax, at in panels:
        x, y = take(data, at, "direction", "run", "time").values
        draw_runs(ax, x, y, dark=typical(x + y, trapped_runs(ax, status, at)), light=RUN)
        ax.plot(x[:, 0], y[:, 0], "o", color="0.35", markersize=2.5, zorder=3)
        ax.set(xscale="logit", yscale="logit", xlim=(low[0], 1 - 9e-4), ylim=(low[1], 1 - 9e-4))
        ax.minorticks_off()
        ax.xaxis.set_major_locator(LogitLocator(nbins=4))
    key = [
        *run_key(panels.runs()),
        key_line("start", marker="o", color="0.35", markersize=3, linestyle="none"),
    ]
    right, up = (f"overlap of direction {k + 1}" for k in pair)
    return panels.finish(right, up, key)
