"""A run as a film: loss and overlaps as time passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from .. import validation
from ..errors import DatasetError
from .layout import Layout, computed, need, pyplot, take, value_text
from .lines import MARKERS, RUN, TYPICAL, shades, time_limits, typical

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation


def animate(
    ds: xr.Dataset,
    *,
    frames: int = 120,
    interval: float = 50.0,
    figsize: tuple[float, float] = (7.0, 3.0),
) -> FuncAnimation:
    """Show one run as a film, at times evenly spaced in log time.

    To the left the loss, with a point that moves along it; to the right the overlaps of all
    directions, as bars. Of several runs the one closest to their median is shown.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variables ``loss`` and ``overlap``, at one dimension.
    frames : int
        Number of frames.
    interval : float
        Milliseconds from frame to frame.
    figsize : (float, float)
        Width and height of the figure in inches.

    Returns
    -------
    matplotlib.animation.FuncAnimation
        ``.save("run.gif", writer="pillow")`` writes a GIF, ``.to_jshtml()`` returns HTML, which
        ``IPython.display.HTML`` shows in a notebook.

    Raises
    ------
    DatasetError
        If there is no loss or overlap, or several dimensions.
    InputError
        If a parameter is wrong.

    Examples
    --------
    >>> import mids
    >>> film = animate(mids.simulate("h1(z1) + h1(z1)*h1(z2)", dim=100, runs=4), frames=2)
    >>> film.to_jshtml().count("data:image/png")
    2
    """
    need(ds, "loss", "overlap")
    frames = validation.integer(frames, "frames", at_least=1, at_most=10**5)
    interval = validation.number(interval, "interval", above=0.0)
    Layout(figsize=figsize)
    further = [str(n) for n, k in ds["loss"].sizes.items() if n not in ("run", "time") and k > 1]
    if further:
        raise DatasetError(
            f"a film shows one run, but {' and '.join(further)} "
            f"{'have' if further[1:] else 'has'} several values; select one, "
            f"for example with ds.isel({further[0]}=0)"
        )
    if "time" not in ds["loss"].dims:
        raise DatasetError("a film needs the dimension 'time': select several times")
    pyplot()
    from matplotlib.animation import FuncAnimation

    (shown,) = computed(ds[["loss", "overlap"]].squeeze(set(ds["loss"].dims) - {"run", "time"}))
    time = shown["time"].values
    lines = take(shown["loss"], {}, "run", "time").values
    chosen = typical(lines)
    bars = take(shown["overlap"], {}, "run", "time", "direction").values[chosen]
    low, high = time_limits(shown["time"], [lines[[chosen]]])
    moments = np.geomspace(low, high, frames)
    # A straight line between points of the grid: between them a film knows no more.
    levels = np.interp(moments, time, lines[chosen])
    overlaps = np.stack([np.interp(moments, time, column) for column in bars.T], axis=1)
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=figsize, width_ratios=(2, 1))
    figure.set_layout_engine("constrained")
    left.plot(time, lines.T, **RUN)
    left.plot(time, lines[chosen], **TYPICAL)
    (point,) = left.plot(low, levels[0], MARKERS[0], color="#b2182b", zorder=4)
    named = f", run {np.atleast_1d(shown['run'].values)[chosen]}" if "run" in shown.coords else ""
    title = value_text(shown, "dim", 0) + named if "dim" in shown.coords else named.strip(", ")
    left.set(xscale="log", xlim=(low, high), xlabel="time $t$", ylabel="loss", title=title)
    left.set_ylim(bottom=min(0.0, float(lines.min())) - 0.05 * float(lines.max()))
    names = np.arange(1, bars.shape[1] + 1)
    drawn = right.bar(names, overlaps[0], color=shades(len(names)))
    right.set(ylim=(0, 1), xlabel="direction", ylabel="overlap", xticks=names)

    def show(frame: int) -> list[object]:
        point.set_data([moments[frame]], [levels[frame]])
        for bar, value in zip(drawn, overlaps[frame], strict=True):
            bar.set_height(value)
        mantissa, exponent = f"{moments[frame]:.1e}".split("e")
        right.set_title(f"$t = {mantissa} \\cdot 10^{{{int(exponent)}}}$")
        return [point, *drawn]

    return FuncAnimation(figure, show, frames=frames, interval=interval)  # type: ignore[arg-type]
