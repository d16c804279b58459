r"""Escape times of neurons that climb towards orthogonal index vectors.

Under the correlation loss neurons do not meet. For :math:`\sum_i \alpha_i h_s(v_i \cdot z)` with
orthonormal :math:`v_i`, in the coordinates of an unnormalised weight y with
:math:`w = y / |y|`,

.. math:: y_i' = a s c_s \alpha_i y_i^{s-1}, \qquad \frac{dt}{d\tau} = |y|^{s-2},

the directions have separate clocks: :math:`y_i^{2-s}` falls linearly in :math:`\tau`, what lies
beyond the index vectors stays, and the first to blow up is the one that the neuron finds
(Simsek, Bendjeddou, Hsu 2024). Time is a quadrature.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import xarray as xr

from ..flows import TwoLayer
from ..simulation.recipe import Recipe
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
