"""Escape times: measured against predicted, and against the dimension."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import xarray as xr

from ..errors import DatasetError
from .facets import Facets, faceted
from .lines import MARKERS, THEORY, key_line, quantiles, shades
from .panels import Panels, label, need, take

__all__ = ["escape_times", "timescales"]

SIZE = (4.6, 3.8)
GUIDE: dict[str, Any] = {"color": "0.55", "linewidth": 0.8, "zorder": 1}


@faceted
def escape_times(
    comparison: xr.Dataset,
    **facets: Unpack[Facets],
) -> np.ndarray:
    """Draw the measured escape time of each saddle of each run against the predicted one.

    The line is where both are equal. Arrows upwards are censored runs: they leave the saddle later
    than the last time of the grid, if ever. Dims that do not divide the figure are drawn together.

    Parameters
    ----------
    comparison : xarray.Dataset
        What `mids.compare` returns.
    **facets
        See `Facets`.

    Raises
    ------
    DatasetError
        If the dataset has no escape times.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h2(z1)", dim=[100, 1000], runs=8)
    >>> escape_times(mids.compare(ds))[0, 0].get_xlabel()
    'predicted escape time'
    """
    need(comparison, "escape_time", "escape_time_theory", "censored")
    data = comparison[["escape_time", "escape_time_theory", "censored"]]
    pooled = tuple(str(name) for name in data.dims)
    panels = Panels(data, (), pooled, size=(4.2, 4.0), **facets)
    data = data.compute()
    known = np.concatenate([data[name].values.ravel() for name in list(data)[:2]])
    known = known[np.isfinite(known) & (known > 0)]
    limits = (known.min() / 3, known.max() * 3) if len(known) else (0.1, 10.0)
    styles = _styles(data)
    key = {}
    for ax, at in panels:
        ax.plot(limits, limits, color=THEORY, linewidth=1.0, zorder=1)
        here = take(data, at, "saddle")
        for saddle in here["saddle"].values:
            style = {**styles[saddle], "linestyle": "none", "fillstyle": "none", "markersize": 4}
            y, x, censored = (here[name].sel(saddle=saddle).values.ravel() for name in data)
            ax.plot(x, y, **style)
            if np.isfinite(x * y).any():
                key[saddle] = key_line(_name(saddle), **style)
            late = np.isfinite(x) & censored
            if late.any():
                style |= {"marker": "$\\uparrow$", "markersize": 6}
                ax.plot(x[late], np.full(late.sum(), limits[1] / 1.5), **style)
                key["late"] = key_line("censored", **style | {"color": "0.2"})
        ax.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal")
    key["line"] = key_line("measured = predicted", color=THEORY, linewidth=1.0)
    return panels.finish("predicted escape time", "measured escape time", list(key.values()))


@faceted
def timescales(
    comparison: xr.Dataset,
    fit: xr.Dataset | None = None,
    **facets: Unpack[Facets],
) -> np.ndarray:
    """Draw the escape times against d on logarithmic axes, measured and predicted.

    Markers are medians over the runs, bars go from the 10 % to the 90 % quantile, dashed lines are
    the medians of the predictions. Censored runs count as infinite; trapped runs are left out.
    Where the fitted slopes are given, thin lines have the slopes that the theory expects as d
    grows: the largest s - 1 so far.

    Parameters
    ----------
    comparison : xarray.Dataset
        What `mids.compare` returns.
    fit : xarray.Dataset, optional
        What `mids.scaling` returns.
    **facets
        See `Facets`.

    Raises
    ------
    DatasetError
        If there is one dimension only, or no escape times.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h2(z1)", dim=[100, 1000], runs=8)
    >>> timescales(mids.compare(ds), mids.scaling(ds))[0, 0].get_ylabel()
    'escape time'
    """
    need(comparison, "escape_time", "escape_time_theory")
    if comparison.sizes.get("dim", 1) < 2:
        raise DatasetError("time scales need at least two dims; simulate with dim=[1e2, 1e4, 1e6]")
    names = ("escape_time", "escape_time_theory", "trapped")
    data = comparison[[name for name in names if name in comparison]]
    panels = Panels(data, ("dim",), ("run", "saddle"), size=SIZE, **facets)
    data = data.compute()
    if fit is not None:
        need(fit, "expected")
        fit = fit.compute()
    dims = data["dim"].values.astype(float)
    styles = _styles(data)
    key = {}
    for ax, at in panels:
        here = take(data, at, "saddle", "dim", "run")
        trapped = here["trapped"].values if "trapped" in here else here["escape_time"].values < 0
        trapped = np.logical_or.accumulate(trapped, axis=0)  # no later saddle is reached
        for saddle, left_out in zip(here["saddle"].values, trapped, strict=True):
            one = here.sel(saddle=saddle)
            low, middle, high = quantiles(one["escape_time"].values, (0.1, 0.5, 0.9), left_out)
            (predicted,) = quantiles(one["escape_time_theory"].values, (0.5,), left_out)
            seen = np.isfinite(middle)
            if not seen.any():
                continue
            style = {"color": styles[saddle]["color"]}
            high = np.where(np.isfinite(high), high, middle)
            bars = [middle[seen] - low[seen], high[seen] - middle[seen]]
            ax.errorbar(
                dims[seen], middle[seen], bars, fmt=styles[saddle]["marker"], capsize=2, **style
            )
            ax.plot(dims, np.where(np.isfinite(predicted), predicted, np.nan), "--", **style)
            key[saddle] = key_line(_name(saddle), linestyle="none", **styles[saddle])
            if fit is not None:
                slopes = take(fit, at, "saddle")["expected"].reindex(saddle=[saddle])
                guide = middle[seen][-1] * (dims / dims[seen][-1]) ** slopes.item()
                ax.plot(dims, guide, **GUIDE)
        ax.set(xscale="log", yscale="log")
    key["theory"] = key_line("theory", color="0.2", linestyle="--")
    if fit is not None:
        key["guide"] = key_line("slope s - 1", **GUIDE)
    text = label(data["escape_time"], "escape time")
    return panels.finish("ambient dimension $d$", text, list(key.values()))


def _styles(data: xr.Dataset) -> dict[int, dict[str, Any]]:
    """Return colour and marker of each saddle."""
    saddles = np.atleast_1d(data["saddle"].values).tolist()
    return {
        saddle: {"color": colour, "marker": MARKERS[index % len(MARKERS)]}
        for index, (saddle, colour) in enumerate(zip(saddles, shades(len(saddles)), strict=True))
    }


def _name(saddle: int) -> str:
    return f"saddle with {saddle} learned"
