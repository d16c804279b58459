"""Phase diagrams: how often runs succeed, against the number of samples."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import xarray as xr

from .. import schema, validation
from .facets import Facets, faceted
from .lines import DASHES, MARKERS, key_line, shades
from .panels import Panels, need, power, take

__all__ = ["success"]


@faceted
def success(diagram: xr.Dataset, *, x: str = "ratio", **facets: Unpack[Facets]) -> np.ndarray:
    """Draw the fraction of successful runs at each dimension against the number of samples.

    The bands are Wilson's intervals at 68 %, the error of a fraction of so many runs.

    Parameters
    ----------
    diagram : xarray.Dataset
        What `mids.phase_diagram` returns.
    x : str
        ``"ratio"`` for n / d^s, in which the dimensions should come together, or ``"n"``.
    **facets
        See `Facets`.

    Raises
    ------
    DatasetError
        If the dataset has no successes.
    InputError
        If `x` is another name.

    Examples
    --------
    >>> import mids
    >>> ds = mids.phase_diagram("h1(z1)", dim=[8, 16], n=[5, 20, 80, 320], runs=8, noise=0.5)
    >>> success(ds)[0, 0].get_ylabel()
    'fraction of runs that succeed'
    >>> success(ds, x="n", col="dim").shape
    (1, 2)
    """
    need(diagram, "success", "ratio")
    validation.one_of(x, ("ratio", "n"), "x")
    data = diagram["success"]
    panels = Panels(data, ("n",), ("dim", "run"), size=(5.2, 3.4), **facets)
    data = data.compute()
    dims = np.atleast_1d(data["dim"].values)
    styles: dict[int, dict[str, Any]] = {
        dim: {
            "color": color,
            "linestyle": DASHES[index % len(DASHES)],
            "marker": MARKERS[index % len(MARKERS)],
            "markersize": 4,
            "linewidth": 1.2,
        }
        for index, (dim, color) in enumerate(zip(dims, shades(len(dims)), strict=True))
    }
    for ax, at in panels:
        here = take(data, at, "dim", "n", "run")
        for dim in here["dim"].values:
            succeeded = here.sel(dim=dim)
            places, runs = succeeded[x].values, succeeded.sizes["run"]
            share = succeeded.values.mean(axis=-1)
            # Wilson's interval at one standard error
            middle = (share + 0.5 / runs) / (1 + 1 / runs)
            half = np.sqrt(share * (1 - share) / runs + 0.25 / runs**2) / (1 + 1 / runs)
            color = styles[dim]["color"]
            ax.fill_between(places, middle - half, middle + half, color=color, alpha=0.18, lw=0)
            ax.plot(places, share, **styles[dim])
        ax.set(xscale="log", ylim=(-0.04, 1.04))
    exponent = schema.spec(diagram)["phase_diagram"]["exponent"]
    ratio = "samples $n / d$" if exponent == 1 else f"samples $n / d^{{{exponent}}}$"
    return panels.finish(
        "samples $n$" if x == "n" else ratio,
        "fraction of runs that succeed",
        [key_line(f"$d = {power(dim).strip('$')}$", **style) for dim, style in styles.items()],
    )
