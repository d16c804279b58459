"""Pictures of datasets and of their analyses; nothing is analysed here.

Every function draws into the axes it is given, or makes a figure, and returns the axes. Times are
drawn on a logarithmic axis that is limited to where something happens. Lines differ in darkness
and dashes, so that the pictures read without colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr

from ._validate import FloatArray
from .errors import DatasetError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_format", "loss", "modes", "overlap", "phase", "timescales"]

Labelled = TypeVar("Labelled", xr.Dataset, xr.DataArray)

MAX_RUNS = 100
"""Runs drawn one by one; of more, an even selection is drawn."""

LIGHT: dict[str, Any] = {"color": "0.75", "linewidth": 0.6}
DARK: dict[str, Any] = {"color": "black", "linewidth": 1.6}
LEVEL: dict[str, Any] = {"color": "0.45", "linewidth": 0.9, "linestyle": ":"}
ESCAPE: dict[str, Any] = {"color": "0.3", "linewidth": 1.0, "linestyle": (0, (5, 3))}
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def loss(
    ds: xr.Dataset,
    comparison: xr.Dataset | None = None,
    *,
    axes: Axes | Iterable[Axes] | None = None,
) -> np.ndarray:
    """Draw the loss against log time, one panel for each dimension.

    Light lines are runs, the dark one is the run that stays closest to the median of all. Where a
    comparison with theory is given, dotted lines are the losses of its plateaus and dashed ones
    the medians of the predicted escape times.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``loss``.
    comparison : xarray.Dataset, optional
        What `mids.compare` returns for `ds`.
    axes : Axes or iterable of Axes, optional
        One for each dimension. If not given, a figure with shared axes is made.

    Returns
    -------
    numpy.ndarray of Axes, shape (n_dims,)

    Raises
    ------
    DatasetError
        If the dataset has no loss.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h1(z1) + h1(z1)*h1(z2)", dim=[100, 10000], runs=4)
    >>> axes = loss(ds)
    >>> axes[1].get_ylabel()
    'loss'
    """
    data = _trajectories(ds, "loss")
    panels = _panels(data, axes)
    for index, ax in enumerate(panels):
        here = data.isel(dim=index)
        _runs(ax, here.time.values, here.values, typical=_typical(here.values))
        if comparison is not None:
            _theory(ax, _expanded(comparison).isel(dim=index))
        ax.set_ylabel("loss")
        ax.set_ylim(bottom=min(0.0, float(here.min())))
    # Before the first escape, which comes latest at the largest dimension, the lower left is empty.
    key = _key(theory=comparison is not None)
    panels[-1].legend(
        handles=key, loc="lower left", fontsize="small", framealpha=1, edgecolor="none"
    )
    _finish(panels, data)
    return panels


def overlap(ds: xr.Dataset, *, axes: Axes | Iterable[Axes] | None = None) -> np.ndarray:
    """Draw the overlaps of all directions against log time, one panel for each dimension.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``overlap``.
    axes : Axes or iterable of Axes, optional
        One for each dimension.

    Returns
    -------
    numpy.ndarray of Axes, shape (n_dims,)

    Raises
    ------
    DatasetError
        If the dataset has no overlaps.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> import mids
    >>> axes = overlap(mids.simulate("h1(z1)", dim=100, runs=4))
    >>> axes[0].get_ylabel()
    'overlap'
    """
    data = _trajectories(ds, "overlap")
    panels = _panels(data, axes)
    for index, ax in enumerate(panels):
        values = data.isel(dim=index).transpose("direction", "run", "time").values
        typical = _typical(values.sum(axis=0))
        for direction, lines in enumerate(values):
            _runs(
                ax,
                data.time.values,
                lines,
                typical=typical,
                label=f"direction {direction + 1}",
                linestyle=DASHES[direction % len(DASHES)],
            )
        ax.set_ylabel("overlap")
        ax.set_ylim(-0.03, 1.03)
    panels[0].legend(frameon=False, loc="upper left")
    _finish(panels, data)
    return panels


def modes(ds: xr.Dataset, *, axes: Axes | Iterable[Axes] | None = None) -> np.ndarray:
    """Draw what each Hermite degree contributes to the norm learned, stacked, against log time.

    One panel for each dimension, for the run that stays closest to the median of all. The
    contributions sum to h(G) without its constant; degree by degree they are never negative.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``energy``.
    axes : Axes or iterable of Axes, optional
        One for each dimension.

    Returns
    -------
    numpy.ndarray of Axes, shape (n_dims,)

    Raises
    ------
    DatasetError
        If the dataset has no energies.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> import mids
    >>> axes = modes(mids.simulate("h1(z1) + h1(z1)*h1(z2)", dim=100, runs=4))
    >>> [text.get_text() for text in axes[0].get_legend().get_texts()]
    ['degree 2', 'degree 1']
    """
    data = _trajectories(ds, "energy").groupby("degree").sum("mode")
    data = data.sel(degree=data.degree > 0)
    panels = _panels(data, axes)
    greys = [str(grey) for grey in np.linspace(0.35, 0.9, data.sizes["degree"])]
    for index, ax in enumerate(panels):
        values = data.isel(dim=index).transpose("run", "degree", "time").values
        ax.stackplot(
            data.time.values[1:],
            values[_typical(values.sum(axis=1))][:, 1:],
            labels=[f"degree {degree}" for degree in data.degree.values],
            colors=greys,
            edgecolor="black",
            linewidth=0.5,
        )
        ax.set_ylabel("contribution to h(G)")
        ax.set_ylim(bottom=0)
    panels[0].legend(frameon=False, loc="upper left", reverse=True)
    _finish(panels, data.sum("degree"))
    return panels


def phase(ds: xr.Dataset, *, axes: Axes | Iterable[Axes] | None = None) -> np.ndarray:
    """Draw the two largest overlaps against each other, one panel for each dimension.

    On log-odds axes, where overlaps of 1/d and of 1 - 1/d have room; beyond 0.999 they are cut off.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``overlap`` of at least two directions.
    axes : Axes or iterable of Axes, optional
        One for each dimension.

    Returns
    -------
    numpy.ndarray of Axes, shape (n_dims,)

    Raises
    ------
    DatasetError
        If the dataset has no overlaps, or of one direction only.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> import mids
    >>> axes = phase(mids.simulate("h1(z1) + h1(z1)*h1(z2)", dim=100, runs=4))
    >>> axes[0].get_xlabel()
    'overlap of direction 1'
    """
    data = _trajectories(ds, "overlap")
    if data.sizes["direction"] < 2:
        raise DatasetError("a phase portrait needs two directions, but the target has one")
    data = data.clip(1e-12, 1 - 1e-3)
    low_1, low_2 = (float(data.isel(direction=k).min()) / 2 for k in (0, 1))
    panels = _panels(data, axes, square=True)
    for index, ax in enumerate(panels):
        first, second = data.isel(dim=index).transpose("direction", "run", "time").values[:2]
        _runs(ax, first, second, typical=_typical(first + second))
        ax.set(xscale="logit", yscale="logit", xlim=(low_1, 1 - 9e-4), ylim=(low_2, 1 - 9e-4))
        ax.minorticks_off()
        ax.set_xlabel("overlap of direction 1")
        ax.label_outer()
    panels[0].set_ylabel("overlap of direction 2")
    return panels


def timescales(comparison: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the escape times against d on logarithmic axes, measured and predicted.

    Markers are medians over the runs, bars go from the 10 % to the 90 % quantile, dashed lines are
    the medians of the predictions. Censored runs count as infinite.

    Parameters
    ----------
    comparison : xarray.Dataset
        What `mids.compare` returns.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    DatasetError
        If there is one dimension only, or no escape times.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h2(z1)", dim=[100, 1000], runs=8)
    >>> timescales(mids.compare(ds)).get_ylabel()
    'escape time'
    """
    _need(comparison, "escape_time", "escape_time_theory")
    if comparison.sizes.get("dim", 1) < 2:
        raise DatasetError("time scales need at least two dims; simulate with dim=[1e2, 1e4, 1e6]")
    if ax is None:
        ax = _pyplot().subplots(figsize=(5, 4), layout="constrained")[1]
    dims = comparison["dim"].values.astype(float)
    for index in range(comparison.sizes["saddle"]):
        here = comparison.isel(saddle=index).transpose("dim", "run", ...)
        low, middle, high = _quantiles(here["escape_time"].values, (0.1, 0.5, 0.9))
        (predicted,) = _quantiles(here["escape_time_theory"].values, (0.5,))
        seen = np.isfinite(middle)
        if not seen.any():
            continue
        grey = str(0.6 * index / max(comparison.sizes["saddle"] - 1, 1))
        high = np.where(np.isfinite(high), high, middle)
        ax.errorbar(
            dims[seen],
            middle[seen],
            [(middle - low)[seen], (high - middle)[seen]],
            fmt=MARKERS[index % len(MARKERS)],
            color=grey,
            capsize=2,
            label=f"saddle {index + 1}",
        )
        ax.plot(dims, np.where(np.isfinite(predicted), predicted, np.nan), "--", color=grey)
    ax.plot([], [], "k--", label="theory")
    ax.set(xscale="log", yscale="log", xlabel="ambient dimension d", ylabel="escape time")
    ax.legend(frameon=False)
    return ax


def check_format(path: Path) -> None:
    """Raise an error if no picture can be written to a file of this name.

    Parameters
    ----------
    path : pathlib.Path
        The file; its suffix decides on the format.

    Raises
    ------
    InputError
        If the suffix is unknown.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> check_format(Path("ladder.png"))
    """
    _pyplot()
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise InputError(
            f"cannot draw {path}: pictures are {', '.join(sorted(formats))} files; "
            f"name it for example {path.with_suffix('.png')}"
        )


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot
    except ImportError:
        raise MissingDependencyError(
            'plots need matplotlib; install it with: python -m pip install "mids[plot]"'
        ) from None
    return matplotlib.pyplot


# -- data ---------------------------------------------------------------------------------------


def _need(ds: xr.Dataset, *names: str) -> None:
    missing = [name for name in names if name not in ds]
    if missing:
        raise DatasetError(
            f"the picture needs the variable {' and '.join(missing)}, but the dataset has only "
            f"{', '.join(map(str, ds.data_vars))}"
        )


def _expanded(ds: Labelled) -> Labelled:
    """Put back the dims that a selection of one dim or run took away."""
    return ds.expand_dims([name for name in ("dim", "run") if name not in ds.dims])


def _trajectories(ds: xr.Dataset, name: str) -> xr.DataArray:
    _need(ds, name)
    return _expanded(ds[name]).transpose("dim", "run", "time", ...).compute()


def _typical(values: FloatArray) -> int:
    """Return the run that stays closest to the median of all, shape (run, time)."""
    distance = np.abs(values - np.nanmedian(values, axis=0)).mean(axis=1)
    return int(np.argmin(np.where(np.isnan(distance), np.inf, distance)))


def _quantiles(times: FloatArray, levels: tuple[float, ...]) -> FloatArray:
    """Return quantiles over the runs, shape (dim, run), of times of which NaN means never."""
    return np.quantile(np.where(np.isnan(times), np.inf, times), levels, axis=1, method="nearest")


def _span(data: xr.DataArray) -> tuple[float, float]:
    """Return the times between which nine tenths of the runs of every dimension change."""
    time = data.time.values
    values = data.transpose("time", "dim", "run", ...).values
    values = values.reshape(*values.shape[:3], -1)
    begun, left = (np.abs(values - values[row]) for row in (0, -1))
    some = 0.01 * np.nanmax(begun, axis=0) + 1e-300
    first = np.argmax(begun > some, axis=0)
    last = len(time) - 1 - np.argmax(left[::-1] > some, axis=0)
    last[~(left > some).any(axis=0)] = 1
    low = time[max(int(np.quantile(first, 0.1, axis=(1, 2)).min()), 1)] / 3
    high = time[max(int(np.quantile(last, 0.9, axis=(1, 2)).max()), 1)] * 3
    return float(low), float(max(high, 10 * low))


# -- drawing ------------------------------------------------------------------------------------


def _panels(
    data: xr.DataArray, axes: Axes | Iterable[Axes] | None, *, square: bool = False
) -> np.ndarray:
    count = data.sizes["dim"]
    if axes is None:
        rows, columns, size = (
            (1, count, (3.2 * count, 3.4)) if square else (count, 1, (6, 2 * count + 0.8))
        )
        figure: Figure = _pyplot().figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    else:
        panels = np.array(list(axes) if isinstance(axes, Iterable) else [axes])
        if len(panels) != count:
            raise InputError(
                f"axes must be one for each of the {count} dims, got {len(panels)}; select dims "
                "with ds.sel(dim=[...]) or pass as many axes"
            )
    for ax, dim in zip(panels, data.dim.values, strict=True):
        ax.set_title(f"d = {_power(int(dim))}", loc="right", fontsize="medium")
    return panels


def _power(dim: int) -> str:
    exponent = round(math.log10(dim))
    return f"$10^{{{exponent}}}$" if dim == 10**exponent else f"{dim}"


def _runs(ax: Axes, x: FloatArray, y: FloatArray, *, typical: int, **style: Any) -> None:
    """Draw runs, shape (run, time), lightly, and the typical one of them dark."""
    from matplotlib.collections import LineCollection

    chosen = np.unique(np.linspace(0, len(y) - 1, min(len(y), MAX_RUNS)).astype(int))
    rows = np.broadcast_to(x, y.shape)
    lines = np.stack([rows[chosen], y[chosen]], axis=-1)
    ax.add_collection(LineCollection(list(lines), **LIGHT, zorder=1))
    ax.plot(rows[typical], y[typical], **{**DARK, **style})


def _key(*, theory: bool) -> list[Artist]:
    from matplotlib.lines import Line2D

    styles: dict[str, dict[str, Any]] = {"runs": LIGHT, "typical run": DARK}
    if theory:
        styles |= {"theory: loss of plateaus": LEVEL, "theory: median escape": ESCAPE}
    return [Line2D([], [], label=label, **style) for label, style in styles.items()]


def _theory(ax: Axes, comparison: xr.Dataset) -> None:
    _need(comparison, "loss_theory", "escape_time_theory")
    for index in range(comparison.sizes["saddle"]):
        here = comparison.isel(saddle=index)
        level = here["loss_theory"].median().item()
        ((escape,),) = _quantiles(np.atleast_2d(here["escape_time_theory"].values), (0.5,))
        if np.isfinite(level):
            ax.axhline(level, **LEVEL)
        if np.isfinite(escape):
            ax.axvline(escape, **ESCAPE)


def _finish(panels: np.ndarray, data: xr.DataArray) -> None:
    """Scale the time axes and label the lowest."""
    low, high = _span(data)
    for ax in panels:
        ax.set_xscale("log")
        ax.set_xlim(low, high)
    panels[-1].set_xlabel("time t")
