"""How runs ended: shares of trapped and converged runs, and of those that learn from n samples."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import xarray as xr

from .. import validation
from .layout import Options, Panels, computed, need, power, take
from .lines import colours, key_line, shades

if TYPE_CHECKING:
    from matplotlib.artist import Artist

ENDS = ("trapped", "censored", "failed", "converged")
HATCHES = ("", "////", "xxxx", "")


def traps(
    counts: xr.Dataset,
    **layout: Unpack[Options],
) -> np.ndarray:
    """Draw how the runs ended at each dimension, with the probability of being trapped.

    Bars are shares of all runs. The point is the share of trapped runs among those that are
    decided, and the bar through it its confidence interval.

    Parameters
    ----------
    counts : xarray.Dataset
        What `mids.traps` returns.
    **layout
        Layout of the panels: see `mids.plot`.

    Returns
    -------
    numpy.ndarray of Axes, shape (rows, columns)

    Raises
    ------
    DatasetError
        If the dataset has no counts.
    InputError
        If the layout does not fit the dataset.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h3(z1)", dim=[100, 1000], runs=20, flow="planted")
    >>> traps(mids.traps(ds))[0, 0].get_ylabel()
    'share of runs'
    """
    names = [*ENDS, "probability", "low", "high"]
    need(counts, *names, remedy="; pass what mids.traps returns, or draw ds.mi.plot.traps()")
    panels = Panels(counts[names], layout, core=("dim",), hue=False, size=(4.2, 2.8))
    (data,) = computed(counts[names])
    fills = dict(zip(ENDS, shades(len(ENDS), darkest=0.4, lightest=1.0), strict=True))
    from matplotlib.patches import Patch

    key: list[Artist] = [
        Patch(facecolor=fills[name], hatch=hatch, edgecolor="white", label=name)
        for name, hatch in zip(ENDS, HATCHES, strict=True)
        if int(data[name].sum())
    ]
    style: dict[str, Any] = {"color": "black", "marker": "o", "markersize": 4, "linestyle": "none"}
    for ax, at in panels:
        here = take(data, at, "dim")
        positions = np.arange(here.sizes["dim"])
        total = sum(here[name].values for name in ENDS)
        base = np.zeros(len(positions))
        for name, hatch in zip(ENDS, HATCHES, strict=True):
            share = here[name].values / np.maximum(total, 1)
            ax.bar(positions, share, 0.7, base, color=fills[name], hatch=hatch, edgecolor="white")
            base += share
        middle, low, high = (here[name].values for name in ("probability", "low", "high"))
        decided = np.isfinite(middle)
        bars = np.stack([middle - low, high - middle])[:, decided]
        ax.errorbar(
            positions[decided], middle[decided], np.maximum(bars, 0), capsize=3, zorder=3, **style
        )
        labels = [power(int(d)) for d in here["dim"].values] if "dim" in here.coords else None
        ax.set_xticks(positions, labels)
        ax.set(ylim=(0, 1), xlim=(-0.6, len(positions) - 0.4))
    said = re.search(r"confidence ([\d.]+)", str(data["low"].attrs.get("long_name", "")))
    interval = f"{100 * float(said[1]):g} % interval" if said else "its interval"
    key.append(key_line(f"probability of a trap, {interval}", **style))
    return panels.finish("ambient dimension $d$", "share of runs", key)


def success(
    diagram: xr.Dataset,
    *,
    x: Literal["ratio", "n"] = "ratio",
    **layout: Unpack[Options],
) -> np.ndarray:
    """Draw the fraction of successful runs at each dimension against the number of samples.

    The bands are Wilson's intervals at 68 % of the fractions. Colours are
    dimensions, if no other `hue` is asked for.

    Parameters
    ----------
    diagram : xarray.Dataset
        What `mids.phase_diagram` returns.
    x : str
        ``"ratio"`` for n / d^s, in which the dimensions should come together, or ``"n"``.
    **layout
        Layout of the panels: see `mids.plot`.

    Returns
    -------
    numpy.ndarray of Axes, shape (rows, columns)

    Raises
    ------
    DatasetError
        If the dataset has no successes.
    InputError
        If `x` is another name, or the layout does not fit the dataset.

    Examples
    --------
    >>> import mids
    >>> ds = mids.phase_diagram("h1(z1)", dim=[8, 16], n=[10, 80], runs=2, noise=0.5, duration=5)
    >>> success(ds)[0, 0].get_ylabel()
    'fraction of runs that succeed'
    >>> success(ds, x="n", col="dim").shape
    (1, 2)
    """
    need(diagram, "success", "ratio", remedy="; pass what mids.phase_diagram returns")
    validation.one_of(x, ("ratio", "n"), "x")
    panels = Panels(
        diagram["success"], layout, core=("n",), pooled=("dim", "run"), hue="dim", size=(5.2, 3.4)
    )
    (found,) = computed(diagram[["success"]])
    data = found["success"]
    drawn = colours(panels, data)
    for ax, at in panels:
        for colour in drawn:
            here = take(data, at | colour.at, "n", "run", "dim").isel(dim=0)
            positions, runs = here[x].values, here.sizes["run"]
            share = here.values.mean(axis=-1)
            # Wilson's interval at one standard error
            middle = (share + 0.5 / runs) / (1 + 1 / runs)
            half = np.sqrt(share * (1 - share) / runs + 0.25 / runs**2) / (1 + 1 / runs)
            fill = colour.style["color"]
            ax.fill_between(positions, middle - half, middle + half, color=fill, alpha=0.18, lw=0)
            ax.plot(positions, share, **colour.style, marker=colour.marker, markersize=4)
        ax.set(xscale="log", ylim=(-0.04, 1.04))
    exponent = diagram["ratio"].attrs.get("exponent", "s") if "ratio" in diagram.coords else "s"
    ratio = "samples $n / d$" if exponent == 1 else f"samples $n / d^{{{exponent}}}$"
    from matplotlib.patches import Patch

    key: list[Artist] = [key_line(colour.text, **colour.style) for colour in drawn if colour.text]
    key.append(Patch(color="0.5", alpha=0.3, lw=0, label="68 % interval (Wilson)"))
    text = "samples $n$" if x == "n" else ratio
    return panels.finish(text, "fraction of runs that succeed", key)
