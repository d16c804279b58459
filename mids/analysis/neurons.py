r"""Neurons that do not act on each other: which direction each of them finds, and when.

A neuron alone climbs :math:`P(m) = a \sum_k c_k \langle T_k, m^{\otimes k} \rangle` on the sphere,
:math:`m' = \nabla P - \langle m, \nabla P \rangle m`. Where s is the least degree, in the clock
:math:`d\theta = |m|^{s-2} dt` m turns and grows at rates that do not depend on d: that is followed,
and time is its integral (any directions and activation; equiangular index vectors: Simsek,
Bendjeddou, Hsu 2024).

For :math:`\sum_i \alpha_i h_s(v_i \cdot z)` with orthonormal index vectors :math:`v_i`, in the
coordinates of an unnormalised weight y with :math:`w = y / |y|`,

.. math:: y_i' = a s c_s \alpha_i y_i^{s-1}, \qquad \frac{dt}{d\tau} = |y|^{s-2},

the directions have separate clocks: :math:`y_i^{2-s}` falls linearly in :math:`\tau`, what lies
beyond the index vectors stays, and the first to blow up is the one that the neuron finds. Time is
a quadrature.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from ..errors import DatasetError
from ..flows.base import Neurons
from ..simulation.recipe import Recipe
from ..targets.basis import multiplicities
from ..targets.target import Target
from ..validation import FloatArray as Array

__all__ = ["found_directions", "neuron_times", "start_loss"]

COLUMNS = ("escape_time", "learned", "shared")
REST = 1e-8
"""Rate, in the clock in which all neurons move alike, that is none."""
EQUAL = 1e-3
"""Relative difference of cosines that counts as none."""
RTOL, MAX_STEPS, BLOCK = 1e-10, 20_000, 256


def neuron_times(ds: xr.Dataset, recipe: Recipe, neurons: Neurons) -> xr.Dataset:
    """Predict when each neuron finds which direction: `COLUMNS`, ``exponent`` and ``method``."""
    target, series, layer = recipe.target, neurons.series, neurons.layer
    vectors = _orthonormal(target, series)
    columns = xr.apply_ufunc(
        _times if vectors else _paths,
        ds["initial"],
        input_core_dims=[["axis", "student"]],
        output_core_dims=[["column", "neuron"]],
        dask="parallelized",
        kwargs={"target": target, "series": series, "layer": layer},
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={
            "output_sizes": {"column": len(COLUMNS), "neuron": len(layer)},
            "allow_rechunk": True,
        },
    )
    out = xr.Dataset({name: columns.isel(column=k, drop=True) for k, name in enumerate(COLUMNS)})
    out["exponent"] = xr.full_like(out["escape_time"], min(_seen(target, series))).variable
    out["method"] = xr.full_like(out["escape_time"], 1 if vectors else 2, dtype=np.int8).variable
    angle = _equiangular(target, series)
    out.attrs = dict(zip(("cosine", "critical_cosine"), angle, strict=True)) if angle else {}
    return out.assign_coords(neuron=np.arange(len(layer)))


def found_directions(ds: xr.Dataset) -> xr.Dataset:
    """Measure ``escape_time`` of each neuron, and the direction ``nearest`` to it."""
    for name in ("neuron_crossing_time", "nearest"):
        if name not in ds:
            raise DatasetError(
                f"compare of these neurons needs the variable {name!r}, as mids.simulate writes "
                "it; start from the original dataset"
            )
    if "neuron" not in ds.coords:  # numbers here and there; a selection of them has their labels
        ds = ds.assign_coords(neuron=np.arange(ds.sizes["neuron"]))
    time = ds["neuron_crossing_time"].sel(level=0.5, drop=True)
    return xr.Dataset({"escape_time": time, "nearest": ds["nearest"]})


def start_loss(target: Target, neurons: Neurons, squared: bool) -> float:
    """Return the objective of either loss where no neuron has found anything."""
    series, layer, constant = neurons.series, neurons.layer, target.along(0)
    own = float((layer**2).sum() * (series @ series))
    # Orthogonal neurons have nothing in common but the means of their activations.
    pairs = float(layer.sum() ** 2 - (layer**2).sum()) * series[0] ** 2 if squared else 0.0
    return 0.5 * float(target.norm**2 + own + pairs) - float(layer.sum() * series[0]) * (
        0.0 if constant is None else float(constant.sum())
    )


def _seen(target: Target, series: Array) -> list[int]:
    """Degrees that the target has and neurons see."""
    return [int(k) for k in target.degrees if 0 < k < len(series) and series[k]]


def _orthonormal(target: Target, series: Array) -> tuple[int, Array] | None:
    """Degree and coefficients of orthonormal index vectors; None if they are none."""
    orders = _seen(target, series)
    weights = target.along(orders[0])
    # The solution in y^(2 - s) is for one degree s > 2.
    if len(orders) != 1 or orders[0] < 3 or weights is None or not target.orthonormal:
        return None
    return orders[0], weights


def _equiangular(target: Target, series: Array) -> tuple[float, float] | None:
    """Cosine of index vectors at equal angles, and that beyond which their average attracts."""
    orders = _seen(target, series)
    weights = target.along(orders[0])
    if len(orders) != 1 or orders[0] < 3 or weights is None:
        return None
    count, order = len(weights), orders[0]
    if count < 2 or np.ptp(weights) > EQUAL * abs(weights[0]):
        return None
    cosines = (target.directions.T @ target.directions)[np.triu_indices(count, 1)]
    if np.ptp(cosines) > 1e-9:
        return None
    # beta_c = (s - 2) / (k + s - 2) for k index vectors (Simsek, Bendjeddou, Hsu 2024)
    return float(cosines[0]), (order - 2) / (count + order - 2)


def _times(start: Array, *, target: Target, series: Array, layer: Array) -> Array:
    """Columns of each neuron on orthonormal index vectors, shape (..., 3, neuron)."""
    found = _orthonormal(target, series)
    assert found is not None
    order, strengths = found
    rows = np.einsum("...ap,an->...pn", start, target.directions)
    out = np.empty((*rows.shape[:-1], len(COLUMNS)))
    for at in np.ndindex(rows.shape[:-1]):
        rates = order * layer[at[-1]] * series[order] * strengths
        time, winner = _escape(rows[at], rates, order)
        out[at] = time, winner, np.where(np.isnan(winner), np.nan, 1.0)
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
    # What the neuron has beyond the index vectors stays, and y grows beside it.
    rest = max(1.0 - float(y @ y), 0.0)
    others = clocks / clocks[winner]

    def squares(x: float) -> Array:
        # 1 - tau / (end of the winner's clock) = exp(-x)
        left = np.where(others < 1.0, 1.0 - others * -np.expm1(-x), np.exp(-x))
        return np.asarray(y**2 * left ** (-2.0 / power))

    def excess(x: float) -> float:
        found = squares(x)
        # Zero where the winner has half of |y|^2.
        return float(2 * found[winner] - found.sum() - rest)

    if excess(0.0) >= 0.0:
        return 0.0, float(winner)
    end = 1.0
    while excess(end) < 0.0:
        # Winners that are alike blow up together, and none of them gets half.
        if (end := 2.0 * end) > 600.0:
            return np.inf, np.nan
    stop = brentq(excess, 0.0, end, xtol=1e-13)

    def pace(x: float) -> float:
        # dt = |y|^(s-2) dtau, and dtau = exp(-x) dx over the clock of the winner.
        return float((squares(x).sum() + rest) ** (power / 2) * np.exp(-x))

    edges = np.linspace(0.0, stop, 2 + int(stop / 2.0))
    total = sum(quad(pace, a, b, epsabs=0, epsrel=1e-10)[0] for a, b in pairwise(edges.tolist()))
    return total / float(clocks[winner]), float(winner)


def _paths(start: Array, *, target: Target, series: Array, layer: Array) -> Array:
    """Columns of each neuron on any target, shape (..., 3, neuron)."""
    pull, directions, strength = _pull(target, series)
    order = min(_seen(target, series))
    rows = np.moveaxis(start, -2, -1)
    flat = rows.reshape(-1, rows.shape[-1])
    layers = np.broadcast_to(layer, rows.shape[:-1]).ravel()
    out = np.full((len(flat), len(COLUMNS)), np.nan)
    known = np.flatnonzero(np.isfinite(flat).all(axis=1))
    for first in range(0, len(known), BLOCK):
        of = known[first : first + BLOCK]
        out[of] = _followed(flat[of], layers[of] * strength, pull, order, directions)
    return np.moveaxis(out.reshape(*rows.shape[:-1], -1), -1, -2)


def _pull(target: Target, series: Array) -> tuple[Callable[[Array], Array], Array, float]:
    """Gradient of ``sum_k c_k <T_k, m^k>`` by m over its size, directions to go to, and that size.

    Shapes: m (n, rank); directions (rank, terms).
    """
    directions, orders = target.directions, _seen(target, series)
    parts = [target.along(k) for k in orders]
    sums = [series[k] * part for k, part in zip(orders, parts, strict=True) if part is not None]
    if len(sums) == len(orders):
        slopes = np.zeros((max(orders), directions.shape[1]))
        slopes[np.array(orders) - 1] = np.array(orders)[:, None] * sums
        strength = float(np.linalg.norm(slopes, axis=0).max())
        slopes /= strength

        def along(m: Array) -> Array:
            inner, total = m @ directions, 0.0
            for slope in slopes[::-1]:
                total = total * inner + slope
            return np.asarray(total @ directions.T)

        return along, directions, strength
    degrees = target.modes.sum(axis=1)
    seen = np.isin(degrees, orders)
    modes = target.modes[seen]
    # <T_k, m^k> = sum_beta alpha_beta sqrt(k! / beta!) m^beta
    weights = target.coefficients[seen] * series[degrees[seen]] * np.sqrt(multiplicities(modes))
    strength = float(np.linalg.norm(weights * degrees[seen]))
    weights = weights / strength

    def gradient(m: Array) -> Array:
        factors = m[:, None, :] ** modes
        out = np.empty_like(m)
        for i in range(m.shape[1]):
            powers = modes[:, i]
            own = np.where(powers > 0, powers * m[:, i, None] ** np.maximum(powers - 1, 0), 0.0)
            # The other factors multiplied, rather than all divided by one that may be zero.
            out[:, i] = (own * np.delete(factors, i, axis=2).prod(axis=2)) @ weights
        return out

    return gradient, directions, strength


def _followed(
    start: Array, layer: Array, pull: Callable[[Array], Array], order: int, directions: Array
) -> Array:
    """Columns of neurons, which take their steps together in a clock that suits them all.

    Shapes: start (n, rank); layer (n,); returns (n, 3).
    """
    from scipy.integrate import DOP853
    from scipy.optimize import brentq

    n = len(start)
    # At an overlap of exactly zero only a linear part sets a neuron in motion.
    moving = (layer != 0) & (start.any(axis=1) | (order == 1))
    out = np.column_stack([np.full(n, np.inf), np.full((n, 2), np.nan)])

    def squares(m: Array) -> Array:
        return np.asarray(((m @ directions) ** 2).max(axis=1))

    def rates(m: Array) -> tuple[Array, Array]:
        size = np.linalg.norm(m, axis=1)
        # dt = |m|^(2-s) dtheta for s >= 2: in theta rates do not depend on how small m is.
        stretch = np.where(moving, np.where(size > 0, size, 1.0) ** min(2 - order, 0), 0.0)
        g = layer[:, None] * pull(m)
        # Other neurons go on as fast; those with small second layers would hold all up.
        stretch = stretch / np.where(layer != 0, np.abs(layer), 1.0)
        return stretch[:, None] * (g - (m * g).sum(axis=1, keepdims=True) * m), stretch

    def slope(_: float, y: Array) -> Array:
        return np.column_stack(rates(y.reshape(n, -1)[:, :-1])).ravel()

    def tolerance(y: Array) -> Array:
        m, t = y[:, :-1], y[:, -1]
        sizes = np.linalg.norm(m, axis=1) if order > 1 else np.ones(n)
        return np.column_stack(
            [np.repeat(sizes[:, None], m.shape[1], axis=1), t + rates(m)[1]]
        ).ravel()

    state = np.column_stack([start, np.zeros(n)])
    begun = squares(start) >= 0.5
    out[begun, 0] = 0.0
    # The error is a mean over all neurons; it could all be in one of them.
    rtol = max(RTOL / np.sqrt(n), 3e-14)
    solver: Any = DOP853(
        slope, 0.0, state.ravel(), np.inf, rtol=rtol, atol=rtol * tolerance(state) + 1e-300
    )
    for _ in range(MAX_STEPS):
        if not moving.any() or solver.status == "failed":
            break
        solver.atol = rtol * tolerance(state) + 1e-300
        solver.step()
        state = solver.y.reshape(n, -1)
        m = state[:, :-1]
        dense: Any = None
        for j in np.flatnonzero(moving & np.isinf(out[:, 0]) & (squares(m) >= 0.5)).tolist():
            dense = dense or solver.dense_output()

            def excess(at: float, j: int = j, read: Any = dense) -> float:
                return float(squares(read(at).reshape(n, -1)[j : j + 1, :-1])[0] - 0.5)

            ends = solver.t_old, solver.t
            at = brentq(excess, *ends, xtol=1e-13) if excess(ends[0]) < 0.0 < excess(ends[1]) else 0
            out[j, 0] = dense(at or solver.t).reshape(n, -1)[j, -1]
        change, _ = rates(m)
        size = np.maximum(np.linalg.norm(m, axis=1), 1e-300) if order > 1 else np.ones(n)
        radial = (m * change).sum(axis=1) / size**2
        turning = np.linalg.norm(change - radial[:, None] * m, axis=1) / size
        lost = (order > 1) & (radial < 0) & (size < 0.1)  # it goes to the equator
        resting = moving & (turning < REST) & ((np.abs(radial) < REST) | lost)
        if resting.any():
            moving &= ~resting
            # The next step begins with the slope that the solver remembers.
            solver.f = np.where(np.repeat(resting, state.shape[1]), 0.0, solver.f)
    cosines = np.abs(state[:, :-1] @ directions)
    ended = cosines.max(axis=1) >= np.sqrt(0.5)
    shared = (cosines >= (1 - EQUAL) * cosines.max(axis=1, keepdims=True)).sum(axis=1)
    out[ended, 1] = np.where(shared == 1, cosines.argmax(axis=1), np.nan)[ended]
    out[ended, 2] = shared[ended]
    return out
