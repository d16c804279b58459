"""How far descent of a two-layer network is from its flow and from the limit SDE.

``python -m tests.verification.networks`` prints the tables of `sde` and `distance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

import mids
from mids.flows import TwoLayer, TwoLayerSGD
from mids.targets import Target
from mids.targets.basis import hermite_values

__all__ = ["displacement", "distance", "prediction"]

NODES = 14


def prediction(
    flow: TwoLayerSGD, target: Target, M: np.ndarray, Q: np.ndarray, dim: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drift of m_j, what the norm takes from it, and its variance in a unit of time.

    Means over samples are quadratures over (W* x, W x). Shapes: M (p, r); Q (p, p); returns (p, r).
    """
    p, rank = M.shape
    x, w = np.polynomial.hermite_e.hermegauss(NODES)
    points = np.array(list(product(x, repeat=rank + p)))
    weights = np.prod(np.array(list(product(w, repeat=rank + p))), axis=1)
    weights /= weights.sum()
    lower = np.linalg.cholesky(np.block([[np.eye(rank), M.T], [M, Q]]))
    z, u = np.split(points @ lower.T, [rank], axis=1)
    series, a = flow._series, flow._layer
    orders = np.sqrt(np.arange(1, len(series)))
    values = hermite_values(u, len(series) - 1)
    slopes = values[..., :-1] @ (series[1:] * orders)
    error = -target(z) if flow.loss == "correlation" else values @ series @ a - target(z)
    size = (error**2 + flow.noise**2) @ (weights[:, None] * slopes**2 * a**2)
    move = slopes[:, :, None] * a[:, None] * (z[:, None, :] - u[:, :, None] * M)
    mean = np.einsum("n,n,nji->ji", weights, error, move)
    square = np.einsum("n,nji->ji", weights * (error**2 + flow.noise**2), move**2)
    rate = flow.step / flow.batch
    return -mean, -0.5 * dim * rate * size[:, None] * M, rate * (square - mean**2)


def displacement(
    flow: TwoLayerSGD, target: str, dim: int, runs: int, steps: int, start: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean displacement of m in a unit of time over a few steps, beside the prediction.

    Shapes: start (r, p).
    """
    time = steps * flow.step
    ds = mids.simulate(
        target, dim=dim, runs=runs, flow=flow, initial=start, time=[0.0, time]
    ).compute()
    path = ds.neuron_overlap.values[0]  # (run, time, neuron, axis)
    rates = (path[:, 1] - path[:, 0]) / time
    Q = ds.neuron_gram.values[0, :, 0].mean(axis=0)
    drift, norm, variance = prediction(flow, Target.parse(target), start.T, Q, dim)
    return {
        "measured": rates.mean(axis=0),
        "error": rates.std(axis=0) / np.sqrt(runs),
        "flow": drift,
        "norm": norm,
        "variance": rates.var(axis=0) * time / variance,
    }


def distance(steps: Sequence[float], dim: int, runs: int, **parameters: Any) -> list[float]:
    """Largest difference of m between descent at some steps and the flow from the same start."""
    shared = {"activation": "h2", "loss": "correlation"} | parameters
    same: dict[str, Any] = {
        "target": "h2(z1)",
        "dim": dim,
        "runs": runs,
        "initial": [[0.4]],
        "time": np.linspace(0.0, 3.0, 13),
    }
    exact = mids.simulate(flow=TwoLayer(**shared), **same).compute()
    found = []
    for step in steps:
        flow = TwoLayerSGD(step=step, batch=64, **shared)
        ds = mids.simulate(flow=flow, **same).compute()
        found.append(float(abs(ds.neuron_overlap - exact.neuron_overlap).max()))
    return found


def main() -> None:
    """Print the tables.

    The SDE is a limit of small steps.  Cubic gradients have rare samples that move the weights by
    more than their norm unless steps are much smaller: there the drift is far from the limit, so
    that rows at both sizes show it.
    """
    usual = [(256, 0.002, 1, 1000), (1024, 0.001, 2, 1000), (4096, 0.001, 4, 1000)]
    print("drift of m: measured, flow, flow and norm; variance over that of the SDE")
    for kind, sizes in (
        ({"activation": "h2", "loss": "correlation"}, usual),
        ({"activation": "h3", "loss": "correlation"}, [*usual, (256, 1.25e-4, 1, 16_000)]),
        ({"activation": "h2", "noise": 0.7, "second_layer": 0.5}, usual),
    ):
        for dim, step, batch, runs in sizes:
            flow = TwoLayerSGD(step=step, batch=batch, **kind)
            found = displacement(flow, f"{kind['activation']}(z1)", dim, runs, 8, np.array([[0.5]]))
            m, e, f, n, v = (float(np.ravel(part)[0]) for part in found.values())
            print(
                f"{kind} d={dim} step={step} batch={batch}: {m:.4f} +- {e:.4f}, {f:.4f}, "
                f"{f + n:.4f}; {v:.3f}"
            )


if __name__ == "__main__":
    main()
