"""The same runs under several flows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ..errors import InputError
from .layout import TRAPPED, Layout, Panels, computed, label, need, take
from .lines import DASHES, TYPICAL, draw_runs, key_line, shades, time_limits, typical

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["against"]


def against(
    tree: xr.DataTree,
    *,
    row: str | None = None,
    col: str | None = None,
    col_wrap: int | None = None,
    ax: Axes | None = None,
    axes: Iterable[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    size: float | None = None,
    aspect: float | None = None,
    xlim: tuple[float, float] | None = None,
) -> np.ndarray:
    """Draw the loss of the same runs under several flows against log time.

    Losses are divided by the run's own loss at the start, because flows count them from different
    links. Light lines are runs, the dark one of each flow is the run closest to the median of those
    that are not trapped; the key says how many are.

    Parameters
    ----------
    tree : xarray.DataTree
        What `mids.against` returns: a dataset for each flow, on one time grid.
    row, col, col_wrap, ax, axes, figsize, size, aspect, xlim : optional
        Layout of the panels: see `mids.plot`.

    Returns
    -------
    numpy.ndarray of Axes, shape (rows, columns)

    Raises
    ------
    DatasetError
        If a dataset has no loss.
    InputError
        If the tree has no datasets.

    Examples
    --------
    >>> import mids
    >>> tree = mids.against("h3(z1)", ["two-timescale", "planted"], dim=1e4, runs=10)
    >>> against(tree)[0, 0].get_ylabel()
    'loss relative to its start'
    """
    flows = {name: node.to_dataset() for name, node in tree.children.items()}
    if not flows:
        raise InputError("the tree has no datasets; pass what mids.against returns")
    for ds in flows.values():
        need(ds, "loss", "status")
    first = next(iter(flows.values()))["loss"]
    layout = Layout(row, col, col_wrap, None, ax, axes, figsize, size, aspect, xlim)
    panels = Panels(first, layout, core=("time",), pooled=("run",), hue=False, size=(6.0, 2.4))
    parts = computed(*(ds[["loss", "status"]] for ds in flows.values()))
    blocks, key = [], []
    for index, (name, ds) in enumerate(zip(flows, parts, strict=True)):
        shade = shades(len(flows))[index]
        style = {"color": shade, "linestyle": DASHES[index % len(DASHES)]}
        light = {"color": shade, "alpha": 0.25, "linewidth": 0.6}
        loss = ds["loss"] / ds["loss"].isel(time=0)
        for ax, at in panels:
            lines = take(loss, at, "run", "time").values
            dark = typical(lines, take(ds["status"], at, "run").values == TRAPPED)
            draw_runs(ax, loss.time.values, lines, dark=dark, light=light, **style)
            blocks.append(lines)
        trapped = int((ds["status"] == TRAPPED).sum())
        ended = f" ({trapped} of {ds['status'].size} trapped)" if trapped else ""
        key.append(key_line(name + ended, **{**TYPICAL, **style}))
    limits = time_limits(first.time, blocks)
    for ax, _ in panels:
        ax.set_xscale("log")
        ax.set_xlim(limits)
        ax.set_ylim(bottom=-0.04)
    return panels.finish(label(first.time, "time $t$"), "loss relative to its start", key)
