"""Phase diagrams: how often runs succeed, against the number of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from .. import schema
from ..errors import InputError
from ._lines import DASHES, MARKERS, shades
from ._panels import need, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["success"]


def success(diagram: xr.Dataset, *, x: str = "ratio", axes: Axes | None = None) -> np.ndarray:
    """Draw the fraction of successful runs at each dimension against the number of samples.

    The bands are Wilson's intervals at 68 %, the error of a fraction of so many runs.

    Parameters
    ----------
    diagram : xarray.Dataset
        What `mids.phase_diagram` returns.
    x : str
        ``"ratio"`` for n / d^s, in which the dimensions should come together, or ``"n"``.
    axes : Axes, optional
        Where to draw; a new figure if not given.

    Returns
    -------
    numpy.ndarray of Axes, shape (1, 1)

    Raises
    ------
    DatasetError
        If the dataset has no successes.
    InputError
        If `x` is another name.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> import mids
    >>> ds = mids.phase_diagram("h1(z1)", dim=[8, 16], n=[5, 20, 80, 320], runs=8, noise=0.5)
    >>> success(ds)[0, 0].get_ylabel()
    'fraction of runs that succeed'
    """
    need(diagram, "success", "ratio")
    if x not in ("ratio", "n"):
        raise InputError(f"x must be 'ratio' or 'n', got {x!r}; pass one of them")
    data = diagram["success"].compute()
    if axes is None:
        axes = pyplot().subplots(figsize=(5.2, 3.6), layout="constrained")[1]
    runs = data.sizes["run"]
    fractions = data.mean("run").transpose("dim", "n")
    colors = shades(data.sizes["dim"])
    for index, dim in enumerate(np.atleast_1d(data["dim"].values)):
        share = fractions.isel(dim=index)
        places = share[x].values
        # Wilson's interval at one standard error
        middle = (share + 0.5 / runs) / (1 + 1 / runs)
        half = np.sqrt(share * (1 - share) / runs + 0.25 / runs**2) / (1 + 1 / runs)
        axes.fill_between(
            places, middle - half, middle + half, color=colors[index], alpha=0.18, linewidth=0
        )
        axes.plot(
            places,
            share,
            color=colors[index],
            linestyle=DASHES[index % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            linewidth=1.2,
            label=f"d = {dim}",
        )
    axes.set_xscale("log")
    axes.set_ylim(-0.04, 1.04)
    power = schema.spec(diagram)["phase_diagram"]["exponent"]
    axes.set_xlabel("samples $n$" if x == "n" else f"samples $n / d^{power}$".replace("^1$", "$"))
    axes.set_ylabel("fraction of runs that succeed")
    axes.legend(frameon=False)
    return np.array([[axes]])
