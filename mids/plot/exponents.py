"""The table of exponents as a picture."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Unpack

import numpy as np
import xarray as xr

from .layout import Options, Panels, computed, need, take


def exponents(table: xr.Dataset, **layout: Unpack[Options]) -> np.ndarray:
    """Draw what grows with d at each saddle: the darker, the larger the power of d.

    Fields are empty where the notion of exponent by which a row goes has no saddle with so many
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

    Raises
    ------
    DatasetError
        If the dataset has no rates.
    InputError
        If the layout does not fit the dataset.

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
