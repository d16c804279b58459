"""How runs ended: shares of trapped, censored and converged runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ._lines import key_line, shades
from ._panels import Panels, need, power, take

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = ["traps"]

ENDS = ("trapped", "censored", "failed", "converged")
HATCHES = ("", "////", "xxxx", "")


def traps(
    counts: xr.Dataset,
    *,
    row: str | None = None,
    col: str | None = None,
    col_wrap: int | None = None,
    axes: Axes | Iterable[Axes] | None = None,
) -> np.ndarray:
    """Draw how the runs ended at each dimension, with the probability of being trapped.

    Bars are shares of all runs. The point is the share of trapped runs among those that are
    decided, and the bar through it its confidence interval.

    Parameters
    ----------
    counts : xarray.Dataset
        What `mids.traps` returns.
    row, col : str, optional
        Dims other than the ambient dimension that change from panel to panel.
    col_wrap : int, optional
        Columns, where only `col` divides the figure.
    axes : Axes or iterable of Axes, optional
        One for each panel.

    Returns
    -------
    numpy.ndarray of Axes, shape (rows, columns)

    Raises
    ------
    DatasetError
        If the dataset has no counts.
    InputError
        If `row`, `col` or `axes` do not fit the dataset.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h3(z1)", dim=[100, 1000], runs=20, flow="planted")
    >>> traps(mids.traps(ds))[0, 0].get_ylabel()
    'share of runs'
    """
    need(counts, *ENDS, "probability", "low", "high")
    data = counts[[*ENDS, "probability", "low", "high"]].compute()
    panels = Panels(
        data, ("dim",), (), row=row, col=col, col_wrap=col_wrap, axes=axes, size=(4.2, 2.8)
    )
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
        labels = [power(int(d)) for d in here["dim"].values] if "dim" in here.coords else [""]
        ax.set_xticks(places, labels)
        ax.set(ylim=(0, 1), xlim=(-0.6, len(places) - 0.4))
    key.append(key_line("probability of a trap", **style))
    return panels.finish("ambient dimension $d$", "share of runs", key)
