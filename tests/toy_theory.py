"""A theory of the toy flow that is off by a known factor."""

from __future__ import annotations

import numpy as np
import xarray as xr


def toy_comparison(ds):
    """What `mids.compare` would give if the theory of the toy flow were 1 % off."""
    escape = ds.crossing_time.sel(level=0.5, drop=True).rename(direction="saddle")
    levels = 0.5 - 0.5 * np.arange(ds.sizes["direction"]) / ds.sizes["direction"]
    level = xr.zeros_like(escape) + xr.DataArray(levels, dims="saddle")
    return xr.Dataset(
        {
            "escape_time": escape,
            "escape_time_theory": escape * 1.01,
            "censored": escape.isnull(),
            "loss": level,
            "loss_theory": level,
        }
    )
