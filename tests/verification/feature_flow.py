r"""Links of random features beside the population flow of those features.

For a frame with correlation matrix M the best link in features :math:`\varphi_j` with ridge
:math:`\mu` has the coefficients :math:`c = (K + \mu)^{-1} b(M)`, with :math:`K_{ij} = E \varphi_i
\varphi_j` and :math:`b_j(M) = E F^*(x) \varphi_j(W^T x)`. With the link at its best the gradient
flow on the frame is :math:`M' = (I - M M^T) \, \partial_M (c \cdot b(M))` at fixed c. For
:math:`\varphi_j(z) = A \cos(u_j \cdot z + a_j)` and :math:`v_j = M u_j`,

.. math:: b_j = A e^{-|u_j|^2 / 2} \sum_\beta \frac{\alpha_\beta}{\sqrt{\beta!}} v_j^\beta
          \cos(a_j + \pi |\beta| / 2) .
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import numpy as np
import xarray as xr
from scipy.integrate import solve_ivp
from scipy.special import factorial

import mids
from mids.flows.initial import stream
from mids.flows.readout import Features, Readout
from mids.flows.sampled import FEATURES
from mids.schema import LEVELS
from mids.targets.target import Target
from tests.verification.log_time import GOAL, GRID, LADDER, descent, differences, worst

__all__ = ["feature_flow", "random_features"]

RANDOM = [(16, 1e-4), (32, 1e-4)]
"""Random features and ridges."""
RANDOM_STEP = (0.002, 8192)


class _BestLink:
    def __init__(self, link: Readout, target: Target, features: Features) -> None:
        u, self.modes, self.frequencies = features.frequencies, target.modes, features.frequencies
        amplitude = (2 / len(u)) ** 0.5
        factorials = factorial(target.modes).prod(axis=1) ** 0.5
        turns = np.cos(features.phases[:, None] + 0.5 * np.pi * target.modes.sum(axis=1))
        damping = amplitude * np.exp(-0.5 * (u**2).sum(axis=1))
        self.weights = damping[:, None] * turns * target.coefficients / factorials
        self.gram = np.zeros((len(u), len(u)))
        for sign in (1.0, -1.0):
            squares = ((u[:, None] + sign * u) ** 2).sum(axis=2)
            angles = features.phases[:, None] + sign * features.phases
            self.gram += 0.5 * amplitude**2 * np.exp(-0.5 * squares) * np.cos(angles)
        self.inverse = np.linalg.inv(self.gram + link.ridge * np.eye(len(u)))

    def products(self, M: np.ndarray) -> np.ndarray:
        """``b(M)``."""
        v = self.frequencies @ M.T
        return (self.weights * (v[:, None] ** self.modes).prod(axis=2)).sum(axis=1)

    def slope(self, _: float, state: np.ndarray) -> np.ndarray:
        M = state.reshape(self.modes.shape[1], -1)
        v, fitted = self.frequencies @ M.T, self.inverse @ self.products(M)
        gradient = np.empty_like(M)
        for i in range(len(M)):
            lower = np.maximum(self.modes - np.eye(len(M), dtype=int)[i], 0)
            change = self.modes[:, i] * (v[:, None] ** lower).prod(axis=2)
            gradient[i] = (fitted * (self.weights * change).sum(axis=1)) @ self.frequencies
        return (gradient - M @ (M.T @ gradient)).ravel()

    def risk(self, M: np.ndarray) -> float:
        products = self.products(M)
        fitted = self.inverse @ products
        return float(0.5 * fitted @ self.gram @ fitted - fitted @ products)


def feature_flow(
    link: Readout,
    target: Target,
    features: Features,
    initial: np.ndarray,
    time: Sequence[float] | np.ndarray,
) -> xr.Dataset:
    """Integrate the flow of one run.

    Parameters
    ----------
    link : Readout
    target : Target
    features : Features
        Random features.
    initial : (r, q) float array
        M(0).
    time : (n,) float array
        Increasing, from 0, fine enough to interpolate overlaps linearly in log-odds.

    Returns
    -------
    xarray.Dataset
        ``loss``, the population risk, and ``crossing_time``, for one dim and run.
    """
    best = _BestLink(link, target, features)
    found = solve_ivp(
        best.slope,
        (0.0, time[-1]),
        np.ravel(initial),
        method="DOP853",
        t_eval=time,
        rtol=1e-8,
        atol=1e-10,
    )
    M = found.y.T.reshape(len(time), *np.shape(initial))
    risk = 0.5 * target.norm**2 + np.array([best.risk(each) for each in M])
    overlaps = np.minimum(np.linalg.svd(M, compute_uv=False) ** 2, 1 - 1e-12)
    odds = np.log(overlaps / (1 - overlaps))
    crossing = np.full((odds.shape[1], len(LEVELS)), np.nan)
    for i, curve in enumerate(odds.T):
        for k, level in enumerate(np.log(np.array(LEVELS) / (1 - np.array(LEVELS)))):
            above = np.flatnonzero(curve >= level)
            if len(above):
                first = max(int(above[0]), 1)
                crossing[i, k] = np.interp(
                    level, curve[first - 1 : first + 1], time[first - 1 : first + 1]
                )
    return xr.Dataset(
        {
            "loss": (("dim", "run", "time"), risk[None, None]),
            "crossing_time": (("dim", "run", "direction", "level"), crossing[None, None]),
        },
        {"time": time, "level": list(LEVELS)},
    )


def random_features(dim: int, runs: int) -> list[str]:
    """Hold links of random features against population flows, from M(0) = I / sqrt(d).

    Parameters
    ----------
    dim : int
    runs : int

    Returns
    -------
    list of str
        Rows of a table.
    """
    start, target = np.eye(2) / dim**0.5, Target.parse(LADDER)
    arguments: dict[str, Any] = {"dim": dim, "initial": start}
    best = mids.simulate(LADDER, runs=1, rtol=1e-9, **arguments)
    arguments["time"] = np.arange(0.0, 1.3 * float(best["crossing_time"].max()), GRID)
    limit = mids.simulate(LADDER, runs=1, rtol=1e-9, **arguments).compute()
    rows = []
    for count, ridge in RANDOM:
        parameters = {"readout": "random-features", "features": count, "ridge": ridge}
        flow = descent(*RANDOM_STEP, **parameters)
        away, from_limit = [], []
        found = mids.simulate(LADDER, runs=runs, flow=flow, chunks=1, **arguments).compute()
        for run in range(runs):
            one = found.isel(run=[run])
            features = flow.link.build(target, 2, stream(0, dim, run, FEATURES))
            own = feature_flow(flow.link, target, features, start, arguments["time"])
            away.append(differences(one, own)[0])
            from_limit.append(differences(one, limit)[0])
        most, beside = worst(np.array(away)), worst(np.array(from_limit))
        rows.append(
            f"| {count} | {ridge:g} | {np.nanmean(away):+.4f} | {np.median(most):.4f} | "
            f"{most.max():.4f} | {(most <= GOAL).sum()} of {runs} | {np.median(beside):.4f} | "
            f"{(beside <= GOAL).sum()} of {runs} |"
        )
        click.echo(rows[-1], err=True)
    return rows
