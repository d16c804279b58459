"""How runs ended: shares of trapped, censored and converged runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import xarray as xr

from .facets import Facets, faceted
from .lines import key_line, shades
from .panels import Panels, need, power, take

if TYPE_CHECKING:
    from matplotlib.artist import Artist

__all__ = ["traps"]

ENDS = ("trapped", "censored", "failed", "converged")
HATCHES = ("", "////", "xxxx", "")


@faceted
def traps(
    counts: xr.Dataset,
    **facets: Unpack[Facets],
) -> np.ndarray:
    """Draw how the runs ended at each dimension, with the probability of being trapped.

    Bars are shares of all runs. The point is the share of trapped runs among those that are
    decided, and the bar through it its confidence interval.

    Parameters
    ----------
    counts : xarray.Dataset
        What `mids.traps` returns.
    **facets
        See `Facets`.

    Raises
    ------
    DatasetError
        If the dataset has no counts.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h3(z1)", dim=[100, 1000], runs=20, flow="planted")
    >>> traps(mids.traps(ds))[0, 0].get_ylabel()
    'share of runs'
    """
    need(counts, *ENDS, "probability", "low", "high")
    data = counts[[*ENDS, "probability", "low", "high"]]
    panels = Panels(data, ("dim",), (), size=(4.2, 2.8), **facets)
    data = data.compute()
    colours = dict(zip(ENDS, shades(len(ENDS), darkest=0.4, lightest=1.0), strict=True))
    drawn = [name for name in ENDS if int(data[name].sum())]
    from matplotlib.patches import Patch

    key: list[Artist] = [
        Patch(facecolor=colours[name], hatch=hatch, edgecolor="white", label=name)
        for name, hatch in zip(ENDS, HATCHES, strict=True)
        if name in drawn
    ]
    style: dict[str, Any] = {"color": "black", "marker": "o", "markersize": 4, "linestyle": "none"}
    for ax, at in panels:
        here = take(data, at, "dim")
        places = np.arange(here.sizes["dim"])
        total = sum(here[name].values for name in ENDS)
        base = np.zeros(len(places))
        for name, hatch in zip(ENDS, HATCHES, strict=True):
            share = here[name].values / np.maximum(total, 1)
            ax.bar(places, share, 0.7, base, color=colours[name], hatch=hatch, edgecolor="white")
            base += share
        middle, low, high = (here[name].values for name in ("probability", "low", "high"))
        decided = np.isfinite(middle)
        bars = np.stack([middle - low, high - middle])[:, decided]
        ax.errorbar(
            places[decided], middle[decided], np.maximum(bars, 0), capsize=3, zorder=3, **style
        )
        labels = [power(int(d)) for d in here["dim"].values] if "dim" in here.coords else None
        ax.set_xticks(places, labels)
        ax.set(ylim=(0, 1), xlim=(-0.6, len(places) - 0.4))
    key.append(key_line("probability of a trap", **style))
    return panels.finish("ambient dimension $d$", "share of runs", key)
