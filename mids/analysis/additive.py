r"""Sums of one link along many directions: the law of the loss.

With strengths that fall as :math:`a_i = i^{-\beta}` direction i is learned at a time of order
:math:`a_i^{-\kappa}` and takes :math:`a_i^2 / 2` from the loss, so that between the first and the
last escape :math:`L(t) \sim t^{-(2 \beta - 1) / (\kappa \beta)}` (Ren, Nichani, Wu, Lee 2025).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .. import flows, validation
from ..errors import DatasetError, InputError
from ..simulation.by_recipe import by_recipe
from ..simulation.recipe import Recipe, only
from ..targets.additive import AdditiveTarget
from ..validation import FloatArray as Array

FEWEST = 8
"""Directions that a power law needs."""


def scaling_law(ds: xr.Dataset, *, first: int = 3, last: int | None = None) -> xr.Dataset:
    r"""Fit the power of time with which the loss falls, beside the one the plateaus predict.

    The fit is the least-squares line through log loss against log time, run by run, while the loss
    is between what is left after `first` and after `last` directions. Time is sampled evenly in its
    logarithm.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``loss`` over ``time``, of an additive target of at least 8 orthonormal directions.
    first, last : int
        Directions learned at the two ends of the fit; `last` a quarter of all if not given.

    Returns
    -------
    xarray.Dataset
        Over the dims of the runs: ``exponent`` (the slope; NaN where the loss does not pass both
        ends); over those but ``run``: ``median``, ``low`` and ``high`` (a tenth of the runs beyond
        each; NaN if a run has no slope), ``decay`` (beta, fitted to the sizes of the coefficients),
        ``expected``, that for infinitely many directions,
        ``-(2 beta - 1) / (kappa beta)``, and ``finite``, the slope
        of the sum of as many plateaus as there are over the same part of the loss. kappa is 2 for a
        fast link and for neurons whose fixed second layer has the target's coefficients; for other
        flows it is not known, and both are NaN. Lazy where `ds` is.

    Raises
    ------
    DatasetError
        If there is no loss over time, or a target is not such a sum.
    InputError
        If the ends are not 1 <= first < last <= directions.

    Examples
    --------
    >>> import mids
    >>> target = mids.targets.additive([i**-0.75 for i in range(1, 65)], "h2")
    >>> start = 0.01 * np.eye(64)
    >>> ds = mids.simulate(target, dim=1e4, runs=1, initial=start)
    >>> law = scaling_law(ds).compute()
    >>> law.expected.round(3).item(), bool((abs(law["median"] / law.finite - 1) < 0.1).all())
    (-0.333, True)
    """
    validation.dataset(ds)
    if "loss" not in ds or "time" not in ds["loss"].dims:
        raise DatasetError(
            "scaling_law needs a variable 'loss' with the dimension 'time', as mids.simulate "
            "writes it; start from the original dataset"
        )
    validation.integer(first, "first", at_least=1)
    found: xr.Dataset = by_recipe(
        only(ds, "loss"), lambda part, recipe: _law(part, recipe, first, last)
    )
    return found


def _law(ds: xr.Dataset, recipe: Recipe, first: int, last: int | None) -> xr.Dataset:
    target = recipe.target
    if (
        not isinstance(target, AdditiveTarget)
        or len(target.weights) < FEWEST
        or not target.orthonormal
    ):
        raise DatasetError(
            "scaling_law is for sums of one link along at least 8 orthonormal directions, got "
            f"{target!r}; make the target with mids.targets.additive"
        )
    sizes = np.sort(np.abs(target.weights))[::-1]
    n = len(sizes)
    last = max(n // 4, first + 1) if last is None else validation.integer(last, "last", at_least=1)
    if not first < last <= n:
        raise InputError(
            f"first and last must satisfy 1 <= first < last <= {n}, the number of directions, got "
            f"{first} and {last}"
        )
    scale = float(target.series[1:] @ target.series[1:])
    left = 0.5 * scale * np.append(np.cumsum((sizes**2)[::-1])[::-1], 0.0)
    upper, lower = left[first] / left[0], left[last] / left[0]
    index = np.log(np.arange(1, n + 1))
    decay = float(-np.polyfit(index, np.log(sizes), 1)[0])
    expected = finite = np.nan
    if _paired(recipe, target):
        expected = -(2 * decay - 1) / (2 * decay)
        times = np.append(0.0, np.geomspace(1.0, sizes[-1] ** -2 * sizes[0] ** 2, 4000))
        plateaus = left[np.searchsorted(sizes**-2 * sizes[0] ** 2, times, side="right")]
        finite = float(_fall(plateaus[None], times, upper, lower)[0])
    exponent = xr.apply_ufunc(
        _fall,
        ds["loss"],
        ds["time"],
        input_core_dims=[["time"], ["time"]],
        dask="parallelized",
        kwargs={"upper": upper, "lower": lower},
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"allow_rechunk": True},
    )
    runs = exponent.chunk(run=-1) if exponent.chunks is not None else exponent
    low, median, high = (
        runs.quantile(q, "run", skipna=False).drop_vars("quantile") for q in (0.1, 0.5, 0.9)
    )
    out = xr.Dataset({"exponent": exponent, "median": median, "low": low, "high": high})
    for name, value in (("decay", decay), ("expected", expected), ("finite", finite)):
        out[name] = xr.full_like(median, value)
    names = {
        "exponent": "power of time with which the loss falls",
        "median": "median of the power over runs",
        "low": "power that a tenth of the runs fall below",
        "high": "power that a tenth of the runs exceed",
        "decay": "power with which the coefficients fall",
        "expected": "power for infinitely many directions",
        "finite": "power of the sum of all plateaus",
    }
    for name, text in names.items():
        out[name].attrs = {"long_name": text, "units": "1"}
    return out


def _paired(recipe: Recipe, target: AdditiveTarget) -> bool:
    """Tell whether a direction's time goes with the square of its coefficient."""
    flow = recipe.flow or flows.TwoTimescale()
    if flow.fast_link:
        return True
    layer: Any = getattr(flow, "second_layer", 0.0)
    return (
        getattr(flow, "readout", "") == "fixed"
        and np.shape(layer) == np.shape(target.weights)
        and bool(np.allclose(np.abs(layer), np.abs(target.weights)))
    )


def _fall(loss: Array, time: Array, upper: float, lower: float) -> Array:
    """Slope of log loss against log time between two losses, relative to that at the start.

    Shapes: loss (..., T); time (T,); returns (...).
    """
    rows = loss.reshape(-1, loss.shape[-1])
    out = np.full(len(rows), np.nan)
    positive = time > 0
    x = np.log(time[positive])
    even = np.linspace(x[0], x[-1], max(400, len(x))) if len(x) else x
    for n, row in enumerate(rows):
        values = row[positive] / (row[0] if row[0] > 0 else 1.0)
        if len(x) < 2 or not np.isfinite(values).all() or values.min() > lower:
            continue
        y = np.interp(even, x, values)
        inside = np.flatnonzero((y <= upper) & (y >= lower) & (y > 0))
        if len(inside) >= 3 and y[0] > upper:
            out[n] = np.polyfit(even[inside], np.log(y[inside]), 1)[0]
    return out.reshape(loss.shape[:-1])
