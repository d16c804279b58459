r"""When networks leave the plateau on which they start, where no neuron has found the target.

There neurons do not act on each other yet, whatever the loss: with an activation without linear
part, on a target of one direction,

.. math:: m_j' = a_j (1 - m_j^2) \sum_k k c_k \alpha_k m_j^{k-1} - \kappa_j m_j, \qquad
          \kappa_j = \frac{d\,\mathrm{step}}{2\,\mathrm{batch}}\, a_j^2\, E[\delta^2 \sigma'^2],

with :math:`\kappa` = 0 for a flow; and the network leaves when the risk has fallen by a hundredth.
For h2, p neurons and :math:`a_j = 1/p` that is a time of
:math:`\log(T (p + 1) / (2 \sum_j m_j(0)^2)) / 2 \mu`, T = 0.01, at the rate :math:`\mu` of
:math:`m_j' = \mu m_j`: a wide network gains a constant factor alone (Arnaboldi, Krzakala, Loureiro,
Stephan 2023). Samples also scatter m_j, by :math:`v / 2\mu` in the mean square over a time of
:math:`1 / \mu`, which is added to the square of the start.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..flows.base import Neurons
from ..simulation.recipe import Recipe
from ..targets.basis import gauss_hermite, hermite_values
from ..validation import FloatArray as Array
from .kernels import applied
from .neurons import start_loss

FALL = 0.01  # part of the risk at the start that is gone at the exit
NODES = 64
RTOL, MAX_STEPS, BLOCK = 1e-9, 5_000, 256


def exit_times(ds: xr.Dataset, recipe: Recipe, neurons: Neurons) -> xr.Dataset:
    """Predict when each run leaves the plateau of its start: ``escape_time``, ``exponent``, ..."""
    link = np.zeros(recipe.target.degree + 1)
    link[recipe.target.modes[:, 0]] = recipe.target.coefficients
    dims, core = ds["dim"].drop_vars("dim", errors="ignore"), [["axis", "student"], []]
    # The exit is read off the population risk, whichever loss is trained.
    loss = start_loss(recipe.target, neurons, True)
    times = applied(_exits, ds["initial"], dims, core=core, neurons=neurons, link=link, loss=loss)
    # The least degree that target and activation share is what neurons climb first.
    order = float(np.flatnonzero(_pulls(link, neurons.series))[0] + 1)
    parts = {"escape_time": times, "exponent": xr.full_like(times, order)}
    return xr.Dataset(parts | {"method": xr.full_like(times, 2, dtype=np.int8)})


def _pulls(link: Array, series: Array) -> Array:
    """Coefficients of ``sum_k k c_k alpha_k m^(k - 1)`` by power of m."""
    count = min(len(link), len(series))
    return (np.arange(count) * link[:count] * series[:count])[1:]


def _moments(link: Array, neurons: Neurons) -> tuple[Array, Array]:
    """``a^2 E[delta^2 sigma'^2]`` of each neuron at the start, and that times z^2; shapes (p,)."""
    x, w = gauss_hermite(NODES)
    series, layer = neurons.series, neurons.layer
    values = hermite_values(x, max(len(series), len(link)) - 1)
    act, label = values[:, : len(series)] @ series, values[:, : len(link)] @ link
    orders = np.sqrt(np.arange(1, len(series)))
    slope = (values[:, : len(series) - 1] @ (series[1:] * orders)) ** 2
    # Under the correlation loss the residual is the label alone.
    own = layer if neurons.squared else np.zeros_like(layer)
    spread = float(series[1:] @ series[1:])
    shift = own.sum() * series[0] - own * series[0]  # mean of the others
    # Other neurons, nearly orthogonal at the start, add their variance as noise would.
    noise = (own**2).sum() * spread - own**2 * spread + neurons.noise**2
    delta = own[:, None, None] * act[:, None] - label + shift[:, None, None]
    # Input along the neuron, x, and along the target, z, are independent at the start.
    squares = delta**2 + noise[:, None, None]  # (p, x, z)
    both = np.outer(w * slope, w)
    size = layer**2
    return size * (squares * both).sum(axis=(1, 2)), size * (squares * both * x**2).sum(axis=(1, 2))


def _exits(start: Array, dim: Array, *, neurons: Neurons, link: Array, loss: float) -> Array:
    """Exit time of each run, inf if it never leaves; shape (...)."""
    m = start[..., 0, :]
    dims = np.broadcast_to(dim, m.shape[:-1]).astype(np.float64).ravel()
    flat = m.reshape(-1, m.shape[-1])
    out = np.full(len(flat), np.nan)
    known = np.flatnonzero(np.isfinite(flat).all(axis=1))
    for first in range(0, len(known), BLOCK):
        of = known[first : first + BLOCK]
        out[of] = _followed(flat[of], dims[of], neurons, link, loss)
    return out.reshape(m.shape[:-1])


def _followed(m: Array, dims: Array, neurons: Neurons, link: Array, loss: float) -> Array:
    """Follow the neurons of all runs side by side. Shapes: m (n, p); dims (n,); returns (n,)."""
    from scipy.integrate import DOP853
    from scipy.optimize import brentq

    series, layer = neurons.series, neurons.layer
    pulls = _pulls(link, series)
    # The risk falls by sum_j a_j sum_k c_k alpha_k m_j^k; pairs of neurons are left out.
    gains = np.append(0.0, pulls / np.arange(1, len(pulls) + 1))
    kappa = np.zeros_like(m)
    if neurons.rate:
        norm, scatter = _moments(link, neurons)
        kappa = 0.5 * neurons.rate * dims[:, None] * norm
        # The rate mu of m' = mu m at small m, to which degree 2 alone contributes.
        growth = layer * pulls[1] - kappa
        with np.errstate(divide="ignore"):
            wander = np.where(growth > 0, 0.5 * neurons.rate * scatter / growth, 0.0)
        m = np.where(m < 0, -1.0, 1.0) * np.sqrt(m**2 + wander)

    def left(m: Array) -> Array:
        """Fall of the risk."""
        return np.asarray(np.polyval(gains[::-1], m) @ layer)

    # The overlaps of the start are not zero: the fall is counted from there.
    needed = FALL * loss + left(m)
    slow = np.abs(layer[layer != 0] * np.abs(pulls).max()).max()

    def slope(_: float, y: Array) -> Array:
        m = y.reshape(kappa.shape)
        change = layer * np.polyval(pulls[::-1], m) * (1 - m * m) - kappa * m
        # Runs that have left stand still, or their fast end would shorten the steps of all.
        return np.asarray(np.where(waiting[:, None], change, 0.0)).ravel()

    out, waiting = np.full(len(m), np.inf), np.full(len(m), True)
    rtol = max(RTOL / np.sqrt(m.size), 3e-14)
    size = np.abs(m).max(axis=1, initial=0.0)
    solver: Any = DOP853(slope, 0.0, m.ravel(), np.inf, rtol=rtol, atol=1e-300 + rtol * size.min())
    for _ in range(MAX_STEPS):
        if not waiting.any() or solver.status == "failed":
            break
        solver.atol = rtol * np.repeat(np.abs(m).max(axis=1) + 1e-300, m.shape[1])
        solver.step()
        m = solver.y.reshape(m.shape)
        dense: Any = None
        for n in np.flatnonzero(waiting & (left(m) >= needed)).tolist():
            dense = dense or solver.dense_output()

            def excess(at: float, n: int = n, read: Any = dense) -> float:
                return float(left(read(at).reshape(len(out), -1)[n]) - needed[n])

            out[n] = brentq(excess, solver.t_old, solver.t, xtol=1e-300, rtol=1e-10)
        change = np.abs(slope(0.0, solver.y).reshape(m.shape))
        sinks = (change.max(axis=1) < 1e-9 * slow) & (left(m) < needed)
        # No overlap grows any more: the run never leaves.
        sinks |= (m * slope(0.0, solver.y).reshape(m.shape) <= 0).all(axis=1)
        done = waiting & (np.isfinite(out) | sinks)
        if done.any():
            waiting &= ~done
            # The next step begins with the slope that the solver remembers.
            solver.f = np.where(np.repeat(done, m.shape[1]), 0.0, solver.f)
    return out


def measured_exits(ds: xr.Dataset) -> xr.Dataset:
    """Measure the ``escape_time`` at which the risk has fallen by a hundredth; NaN if never."""
    risk = ds["risk"] if "risk" in ds else ds["loss"]

    def first(rows: Array, time: Array) -> Array:
        fallen = 1.0 - rows / rows[..., :1]
        over = fallen >= FALL
        at = np.maximum(over.argmax(axis=-1), 1)[..., None]
        early, late = (np.take_along_axis(fallen, at - k, -1)[..., 0] for k in (1, 0))
        begin, end = time[at - 1][..., 0], time[at][..., 0]
        # The fall grows exponentially between two times.
        known = early > 0
        part = np.where(
            known,
            np.log(FALL / np.where(known, early, 1.0)) / np.log(late / np.where(known, early, 1.0)),
            (FALL - early) / (late - early),
        )
        return np.where(over.any(axis=-1), begin + part * (end - begin), np.nan)

    return xr.Dataset({"escape_time": applied(first, risk, ds["time"], core=[["time"], ["time"]])})
