"""The same runs under several flows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import numpy as np
import xarray as xr

from ..errors import InputError
from .facets import Facets, faceted
from .lines import DASHES, TYPICAL, draw_runs, key_line, shades, time_limits, typical
from .panels import TRAPPED, Panels, label, need, take

if TYPE_CHECKING:
    from matplotlib.artist import Artist

__all__ = ["against"]


@faceted
def against(
    tree: xr.DataTree,
    **facets: Unpack[Facets],
) -> np.ndarray:
    """Draw the loss of the same runs under several flows against log time.

    Losses are divided by the run's own loss at the start, because flows count them from different
    links. Light lines are runs, the dark one of each flow is the run closest to the median of those
    that are not trapped; the key says how many are.

    Parameters
    ----------
    tree : xarray.DataTree
        What `mids.against` returns: a dataset for each flow, on one time grid.
    **facets
        See `Facets`.

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
    panels = Panels(first, ("time",), ("run",), size=(6.0, 2.4), **facets)
    found = {name: ds[["loss", "status"]].compute() for name, ds in flows.items()}
    losses = {name: ds["loss"] / ds["loss"].isel(time=0) for name, ds in found.items()}
    colours = dict(zip(losses, shades(len(losses)), strict=True))
    blocks, key = [], []
    for index, (name, loss) in enumerate(losses.items()):
        style = {"color": colours[name], "linestyle": DASHES[index % len(DASHES)]}
        light = {"color": colours[name], "alpha": 0.25, "linewidth": 0.6}
        for ax, at in panels:
            lines = take(loss, at, "run", "time").values
            dark = typical(lines, take(found[name]["status"], at, "run").values == TRAPPED)
            draw_runs(ax, loss.time.values, lines, dark=dark, light=light, zorder=3, **style)
            blocks.append(lines)
        key.append(_entry(name, found[name]["status"], **{**TYPICAL, **style}))
    limits = time_limits(first.time, blocks)
    for ax, _ in panels:
        ax.set_xscale("log")
        ax.set_xlim(limits)
        ax.set_ylim(bottom=-0.04)
    return panels.finish(label(first.time, "time $t$"), "loss relative to its start", key)


def _entry(name: str, status: xr.DataArray, **style: object) -> Artist:
    trapped = int((status == TRAPPED).sum())
    text = f"{name} ({trapped} of {status.size} trapped)" if trapped else name
    return key_line(text, **style)
