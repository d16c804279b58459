r"""Sums of one link along many directions: escape times of neurons, and the law of the loss.

Under the correlation loss neurons do not meet. For :math:`\sum_i \alpha_i h_s(v_i \cdot z)` with
orthonormal index vectors :math:`v_i`, in the coordinates of an unnormalised weight y with
:math:`w = y / |y|`,

.. math:: y_i' = a s c_s \alpha_i y_i^{s-1}, \qquad \frac{dt}{d\tau} = |y|^{s-2},

the directions have separate clocks: :math:`y_i^{2-s}` falls linearly in :math:`\tau`, what lies
beyond the index vectors stays, and the first to blow up is the one that the neuron finds
(Simsek, Bendjeddou, Hsu 2024). Time is a quadrature.

With strengths that fall as :math:`a_i = i^{-\beta}` direction i is learned at a time of order
:math:`a_i^{-\kappa}` and takes :math:`a_i^2 / 2` from the loss, so that between the first and the
last escape :math:`L(t) \sim t^{-(2 \beta - 1) / (\kappa \beta)}` (Ren, Nichani, Wu, Lee 2025).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from .. import flows, validation
from ..errors import DatasetError, InputError
from ..flows import TwoLayer
from ..simulation.by_recipe import by_recipe
from ..simulation.recipe import Recipe
from ..simulation.run_recipes import only
from ..targets.additive import AdditiveTarget
from ..targets.target import Target
from ..validation import FloatArray as Array


def neuron_times(ds: xr.Dataset, recipe: Recipe) -> xr.Dataset | None:
    """Predict when each neuron finds which index vector; None where that is not known."""
    flow = recipe.flow
    if not isinstance(flow, TwoLayer) or flow.loss != "correlation" or flow.step:
        return None
    if "initial" not in ds:
        return None
    found = _index_vectors(recipe.target, flow._series)
    if found is None or flow.planted_target(recipe.target) is not None:
        return None
    order, strengths, directions = found
    columns = xr.apply_ufunc(
        _times,
        ds["initial"],
        input_core_dims=[["axis", "student"]],
        output_core_dims=[["column", "neuron"]],
        dask="parallelized",
        kwargs={
            "order": order,
            "strengths": strengths,
            "directions": directions,
            "layer": flow._layer * flow._series[order],
        },
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={
            "output_sizes": {"column": 2, "neuron": flow.neurons},
            "allow_rechunk": True,
        },
    )
    out = xr.Dataset(
        {
            "neuron_escape_time": columns.isel(column=0, drop=True),
            "neuron_nearest": columns.isel(column=1, drop=True),
        }
    ).drop_vars(("axis", "student"), errors="ignore")
    names = {
        "neuron_escape_time": "predicted time at which the squared cosine reaches 1/2",
        "neuron_nearest": "direction that the neuron finds",
    }
    for name, text in names.items():
        out[name].attrs = {"long_name": text, "units": "1"}
    return out.assign_coords(neuron=np.arange(flow.neurons)).assign_attrs(method="index vectors")


def _index_vectors(target: Target, series: Array) -> tuple[int, Array, Array] | None:
    """Degree, coefficients and directions of the part of a target that neurons see."""
    if isinstance(target, AdditiveTarget):
        if not target.orthonormal:
            return None
        orders = [k for k in np.flatnonzero(target.series) if k and k < len(series) and series[k]]
        if len(orders) != 1 or orders[0] < 3:
            return None
        order = int(orders[0])
        return order, target.series[order] * target.weights, target.directions
    degrees = target.modes.sum(axis=1)
    seen = (degrees > 0) & (degrees < len(series))
    seen[seen] &= series[degrees[seen]] != 0
    modes, values = target.modes[seen], target.coefficients[seen]
    if len(set(degrees[seen])) != 1 or degrees[seen][0] < 3 or (modes > 0).sum(axis=1).max() > 1:
        return None
    directions = np.eye(target.rank)[:, modes.argmax(axis=1)]
    return int(degrees[seen][0]), values, directions


def _times(start: Array, *, order: int, strengths: Array, directions: Array, layer: Array) -> Array:
    """Escape time and direction of each neuron, shape (..., 2, neuron); inf where it finds none."""
    rows = np.einsum("...ap,an->...pn", start, directions)
    out = np.empty((*rows.shape[:-1], 2))
    for at in np.ndindex(rows.shape[:-1]):
        out[at] = _escape(rows[at], order * layer[at[-1]] * strengths, order)
    return np.moveaxis(out, -1, -2)


def _escape(y: Array, rates: Array, order: int) -> tuple[float, float]:
    """Time to a squared cosine of 1/2, and the direction.

    Shapes: y, rates (n,).
    """
    from scipy.integrate import quad
    from scipy.optimize import brentq

    if not np.isfinite(y).all():
        return np.nan, np.nan
    power = order - 2
    clocks = power * rates * y**power  # y_i = y_i(0) (1 - clock tau)^(-1 / power)
    winner = int(clocks.argmax())
    if not clocks[winner] > 0.0:
        return np.inf, np.nan
    rest = max(1.0 - float(y @ y), 0.0)
    others = clocks / clocks[winner]

    def squares(x: float) -> Array:
        # 1 - tau / (end of the winner's clock) = exp(-x)
        left = np.where(others < 1.0, 1.0 - others * -np.expm1(-x), np.exp(-x))
        return np.asarray(y**2 * left ** (-2.0 / power))

    def excess(x: float) -> float:
        found = squares(x)
        return float(2 * found[winner] - found.sum() - rest)

    if excess(0.0) >= 0.0:
        return 0.0, float(winner)
    end = 1.0
    while excess(end) < 0.0:
        if (end := 2.0 * end) > 600.0:
            return np.inf, np.nan
    stop = brentq(excess, 0.0, end, xtol=1e-13)

    def pace(x: float) -> float:
        return float((squares(x).sum() + rest) ** (power / 2) * np.exp(-x))

    edges = np.linspace(0.0, stop, 2 + int(stop / 2.0))
    total = sum(quad(pace, a, b, epsabs=0, epsrel=1e-10)[0] for a, b in pairwise(edges.tolist()))
    return total / float(clocks[winner]), float(winner)


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
        ``-(2 beta - 1) / (kappa beta)`` for infinitely many directions, and ``finite``, the slope
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
