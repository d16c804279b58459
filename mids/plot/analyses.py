"""Pictures of what analyses return: escape times, exponents, how runs ended."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import xarray as xr

from .. import validation
from ..errors import DatasetError
from ..validation import FloatArray
from .layout import Options, Panels, computed, label, need, power, take
from .lines import MARKERS, THEORY, Colour, colours, key_line, quantiles, shades

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


ENDS = ("trapped", "censored", "failed", "converged")
HATCHES = ("", "////", "xxxx", "")
GUIDE: dict[str, Any] = {"linewidth": 0.9, "linestyle": (0, (1, 1.5)), "zorder": 1}
CURE = "; pass what mids.compare returns, or draw the dataset itself with ds.mi.plot.{}()"


def escape_times(comparison: xr.Dataset, **layout: Unpack[Options]) -> np.ndarray:
    """Draw the measured escape time of each saddle of each run against the predicted one.

    On the line both are equal. Arrows are censored runs: they leave the saddle later than the last
    time of the grid, if ever. The narrow panels below show the ratio of the two, where a figure is
    made; they are not among the axes returned. Colours are saddles, if no other `hue` is asked for;
    dims that do not divide the figure are drawn together.

    Parameters
    ----------
    comparison : xarray.Dataset
        What `mids.compare` returns.
    **layout
        Layout of the panels: see `mids.plot`.

    Returns
    -------
    numpy.ndarray of Axes, shape (rows, columns)

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h2(z1)", dim=[100, 1000], runs=8)
    >>> escape_times(mids.compare(ds))[0, 0].get_ylabel()
    'measured escape time'
    """
    names = ["escape_time", "escape_time_theory", "censored"]
    need(comparison, *names, remedy=CURE.format("escape_times"))
    data = comparison[names]
    pooled = tuple(str(name) for name in data.dims)
    panels = Panels(data, layout, pooled=pooled, hue="saddle", size=(4.4, 4.8))
    (data,) = computed(data)
    known = np.concatenate([data[name].values.ravel() for name in names[:2]])
    known = known[np.isfinite(known) & (known > 0)]
    limits = (known.min() / 3, known.max() * 3) if len(known) else (0.1, 10.0)
    limits = layout.get("xlim") or limits
    drawn = colours(panels, data)
    key: dict[str, Any] = {}
    ratios: dict[Axes, Axes] = {}
    for ax, at in panels:
        below = _axes_below(ax) if panels.own else None
        ax.plot(limits, limits, color=THEORY, linewidth=1.0, zorder=1)
        for colour in drawn:
            here = data.isel(at | colour.at, missing_dims="ignore")
            y, x, late = (here[name].values.ravel() for name in names)
            style = _points(colour, linestyle="none", fillstyle="none", markersize=4)
            ax.plot(x, y, **style)
            if below is not None:
                below.plot(x, y / x, **style)
                ratios[ax] = below
            if np.isfinite(x * y).any():
                key[colour.text] = key_line(colour.text or "runs", **style)
            late = np.isfinite(x) & late.astype(bool)
            if late.any():
                style |= {"marker": "$\\uparrow$", "markersize": 6}
                ax.plot(x[late], np.full(late.sum(), limits[1] / 1.5), **style)
                key["late"] = key_line("censored", **style | {"color": "0.2"})
        ax.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    key["line"] = key_line("measured = predicted", color=THEORY, linewidth=1.0)
    out = panels.finish("predicted escape time", "measured escape time", list(key.values()))
    _finish_ratios(ratios, (data["escape_time"] / data["escape_time_theory"]).values)
    return out


def _axes_below(ax: Axes) -> Axes:
    """Take the lower quarter of a panel for axes of their own."""
    cell = ax.get_subplotspec()
    if cell is None:
        raise TypeError("the panel is not in a grid")
    halves = cell.subgridspec(2, 1, height_ratios=(3, 1), hspace=0.05)
    ax.set_subplotspec(halves[0])
    return ax.figure.add_subplot(halves[1], sharex=ax)


def _finish_ratios(ratios: dict[Axes, Axes], values: FloatArray) -> None:
    """Label the panels of ratios, on one scale that shows all that are within a factor of 100."""
    found = np.abs(np.log(values[np.isfinite(values) & (values > 0)]))
    widest = float(np.clip(1.3 * found.max(), 1e-6, 5)) if len(found) else 1.0
    for ax, below in ratios.items():
        below.axhline(1.0, color=THEORY, linewidth=1.0, zorder=1)
        if widest < 0.3:
            below.set_ylim(1 - np.expm1(widest), 1 + np.expm1(widest))
            below.ticklabel_format(axis="y", useOffset=False)
        else:
            below.set(yscale="log", ylim=(np.exp(-widest), np.exp(widest)))
        below.set_xlabel(ax.get_xlabel())
        below.set_ylabel("ratio" if ax.get_ylabel() else "")
        ax.set_xlabel("")
        ax.tick_params(which="both", labelbottom=False)


def timescales(
    comparison: xr.Dataset,
    fit: xr.Dataset | None = None,
    **layout: Unpack[Options],
) -> np.ndarray:
    """Draw the escape times against d on logarithmic axes, measured and predicted.

    Markers are medians over the runs, bars go from the 10 % to the 90 % quantile, dashed lines are
    the medians of the predictions, where there are any. Censored runs count as infinite; trapped
    runs are left out. Where the fitted slopes are given, dotted lines grow as the theory expects
    (the key names the power of d); where it expects log d they are the fit a + b log d.

    Parameters
    ----------
    comparison : xarray.Dataset
        What `mids.compare` returns, or any dataset of ``escape_time`` with the dims ``dim``,
        ``run`` and ``saddle``, such as `mids.saddles` returns.
    fit : xarray.Dataset, optional
        What `mids.scaling` returns.
    **layout
        Layout of the panels: see `mids.plot`.

    Returns
    -------
    numpy.ndarray of Axes, shape (rows, columns)

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h2(z1)", dim=[100, 1000], runs=8)
    >>> timescales(mids.compare(ds), mids.scaling(ds))[0, 0].get_ylabel()
    'escape time'
    """
    need(comparison, "escape_time", remedy=CURE.format("timescales"))
    if fit is not None:
        need(fit, "expected", "time_slope", "rate")
    if comparison.sizes.get("dim", 1) < 2:
        raise DatasetError("time scales need at least two dims; simulate with dim=[1e2, 1e4, 1e6]")
    names = ("escape_time", "escape_time_theory", "trapped")
    data = comparison[[name for name in names if name in comparison]]
    panels = Panels(
        data, layout, core=("dim",), pooled=("run", "saddle"), hue="saddle", size=(4.6, 3.8)
    )
    data, fit = computed(data, fit)
    dims = data["dim"].values.astype(float)
    drawn = colours(panels, data)
    key: dict[str, Any] = {}
    for ax, at in panels:
        for colour in drawn:
            here = take(data, at | colour.at, "saddle", "dim", "run")
            for index in range(here.sizes["saddle"]):
                one = here.isel(saddle=index)
                marker = colour.marker if panels.hue == "saddle" else MARKERS[index % len(MARKERS)]
                style, rate = _points(colour, marker=marker, linestyle="none"), ""
                medians = _draw_medians(ax, dims, one, style["color"], marker)
                if medians is None:
                    continue
                if fit is not None:
                    others = {n: k for n, k in (at | colour.at).items() if n != "saddle"}
                    expected = take(fit, others, "saddle").reindex(saddle=[one["saddle"].item()])
                    rate = _draw_guide(ax, dims, medians, expected, colour)
                style |= GUIDE if rate else {}
                text = "; ".join(part for part in (colour.text, rate) if part)
                key[text] = key_line(text, **style)
        ax.set(xscale="log", yscale="log", xlim=(0.8 * dims.min(), 1.25 * dims.max()))
        if dims.max() < 30 * dims.min():  # labels between powers of ten would overlap
            ax.set_xticks(dims, map(power, dims))
            ax.xaxis.set_minor_formatter("")
    key["bars"] = key_line(
        "median, 10 % to 90 % of the runs", color="0.2", marker="|", markersize=9, linestyle="none"
    )
    if "escape_time_theory" in data:
        key["theory"] = key_line("median of the predictions", color="0.2", linestyle="--")
    text = label(data["escape_time"], "escape time")
    return panels.finish("ambient dimension $d$", text, list(key.values()))


def _points(colour: Colour, **style: Any) -> dict[str, Any]:
    return {"color": colour.style["color"], "marker": colour.marker, **style}


def _draw_medians(
    ax: Axes, dims: FloatArray, saddle: xr.Dataset, color: Any, marker: str
) -> FloatArray | None:
    """Draw one saddle, dims (dim, run), and return its medians, NaN where most never escape."""
    trapped = saddle["trapped"].values if "trapped" in saddle else None
    low, middle, high = quantiles(saddle["escape_time"].values, (0.1, 0.5, 0.9), trapped)
    seen = np.isfinite(middle)
    if not seen.any():
        return None
    # Where too many runs never escape the 90 % quantile is infinite: the bar ends at the median.
    high = np.where(np.isfinite(high), high, middle)
    bars = [middle[seen] - low[seen], high[seen] - middle[seen]]
    points = dims[seen], middle[seen]
    ax.errorbar(*points, bars, fmt=marker, markersize=5, capsize=2, color=color)
    if "escape_time_theory" in saddle:
        (predicted,) = quantiles(saddle["escape_time_theory"].values, (0.5,), trapped)
        ax.plot(dims, np.where(np.isfinite(predicted), predicted, np.nan), "--", color=color)
    return np.where(seen, middle, np.nan)


def _draw_guide(
    ax: Axes, dims: FloatArray, medians: FloatArray, fit: xr.Dataset, colour: Colour
) -> str:
    """Draw how the medians should grow, and return its name; nothing where theory is silent."""
    power, slope = (float(fit[name].squeeze()) for name in ("expected", "time_slope"))
    rate, seen = str(fit["rate"].squeeze().item()), np.isfinite(medians)
    if not np.isfinite(power) or not rate or rate == "nan":
        return ""
    fine = np.geomspace(dims.min(), dims.max(), 100)
    if rate == "log d":
        if not np.isfinite(slope):
            return ""
        start = float(np.mean(medians[seen] - slope * np.log(dims[seen])))
        curve, text = start + slope * np.log(fine), r"$a + b\,\log d$, fitted"
    else:
        curve = medians[seen][-1] * (fine / dims[seen][-1]) ** power
        grows = "d" if power == 1 else f"d^{{{Fraction(power)}}}"
        text = "constant, expected" if power == 0 else f"${grows}$, expected"
    ax.plot(fine, np.where(curve > 0, curve, np.nan), color=colour.style["color"], **GUIDE)
    return text


def exponents(table: xr.Dataset, **layout: Unpack[Options]) -> np.ndarray:
    """Draw what grows with d at each saddle: the darker, the larger the power of d.

    Fields are empty where the exponent of a row has no saddle with that many
    directions learned.

    Parameters
    ----------
    table : xarray.Dataset
        What `mids.exponents` returns.
    **layout
        Layout of the panels: see `mids.plot`.

    Returns
    -------
    numpy.ndarray of Axes, shape (rows, columns)

    Examples
    --------
    >>> import mids
    >>> exponents(mids.exponents("h1(z1) + h1(z1)*h3(z2)"))[0, 0].get_xlabel()
    'directions learned'
    """
    need(table, "rate", "power", "exponent", remedy="; pass what mids.exponents returns")
    core, wide = ("scale", "saddle"), 3.4 + 0.9 * table.sizes["saddle"]
    panels = Panels(table[["rate", "power"]], layout, core=core, hue=False, size=(wide, 2.6))
    (data,) = computed(table[["rate", "power", "exponent"]])
    largest = max(2.0, float(np.nanmax(data["power"].values)))
    names = data["exponent"].values
    rows = [f"{scale}\n({name})" for scale, name in zip(data["scale"].values, names, strict=True)]
    for ax, at in panels:
        here = take(data[["rate", "power"]], at, *core)
        power, rate = here["power"].values, here["rate"].values
        ax.imshow(power, cmap="Greys", vmin=0, vmax=1.6 * largest, aspect="auto")
        for i, j in np.ndindex(power.shape):
            words = re.sub(r"(?<=\^)[\d.]+", lambda power: f"{{{Fraction(power[0])}}}", rate[i, j])
            words = words.replace("log", r"\,\log").replace("<=", r"\leq")
            text = f"${words}$" if words else ""
            ax.text(j, i, text, ha="center", va="center")
        ax.set_xticks(range(here.sizes["saddle"]), here["saddle"].values)
        ax.set_yticks(range(len(rows)), rows, fontsize="small")
        ax.set_xticks(np.arange(power.shape[1] + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(power.shape[0] + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=2)
        ax.tick_params(which="both", length=0)
    return panels.finish("directions learned", "")


# -- how runs ended -----------------------------------------------------------------------------


def traps(counts: xr.Dataset, **layout: Unpack[Options]) -> np.ndarray:
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
