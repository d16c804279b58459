"""Networks with neurons beside the ODE of overlaps as public codes integrate it: NumPy and SciPy.

``python -m tests.benchmarks.networks`` prints milliseconds a run of both, in one process.
"""

from __future__ import annotations

import time

import numpy as np

from mids.flows import TwoLayer
from mids.flows.base import Problem
from mids.targets import additive

NEURONS, RANK, DIM, RUNS = 8, 4, 10**6, 5


def by_scipy(problem: Problem, flow: TwoLayer, order: int, run: int) -> np.ndarray:
    """Return M at the end, from `solve_ivp` on (M, Q); shape (p, r)."""
    from scipy.integrate import solve_ivp

    from mids.flows.network import gram

    p, squared = flow.neurons, flow.loss == "squared"
    M0 = np.ascontiguousarray(problem.initial[run].T)
    Q0 = gram(M0, flow._beyond(problem, run))

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        M, Q = y[: p * RANK].reshape(p, RANK), y[p * RANK :].reshape(p, p)
        pull = order * M ** (order - 1)
        mixing = -order * Q ** (order - 1) if squared else np.zeros((p, p))
        along = (M * pull).sum(axis=1) + (Q * mixing).sum(axis=1)
        mixing = mixing - np.diag(along)
        change = pull @ M.T + mixing @ Q
        change = change + change.T
        np.fill_diagonal(change, 0.0)  # left free, errors of the norms grow exponentially
        return np.concatenate([(pull + mixing @ M).ravel(), change.ravel()])

    found = solve_ivp(
        slope,
        (0.0, problem.time[-1]),
        np.concatenate([M0.ravel(), Q0.ravel()]),
        t_eval=problem.time,
        rtol=problem.rtol,
        atol=1e-3 * problem.rtol,
    )
    if not found.success:
        raise RuntimeError(found.message)
    return np.asarray(found.y[: p * RANK, -1].reshape(p, RANK))


def main() -> None:
    """Print the table."""
    for order in (2, 3):
        for loss in ("correlation", "squared"):
            flow = TwoLayer(neurons=NEURONS, activation=f"h{order}", loss=loss)
            target = additive(np.ones(RANK), f"h{order}")
            initial = flow.draw_initial(target, NEURONS, DIM, np.arange(RUNS), 0)
            grid = flow.default_time(target, DIM, NEURONS)
            if order == 3:
                grid = grid[grid <= 300.0]  # through the plateau
            problem = Problem(target, DIM, np.arange(RUNS), 0, initial, grid, 1e-8)
            flow.integrate(problem)
            started = time.process_time()
            found = flow.integrate(problem)
            ours = (time.process_time() - started) / RUNS
            started = time.process_time()
            other = by_scipy(problem, flow, order, 0)
            theirs = time.process_time() - started
            error = abs(found["neuron_overlap"][0, -1] - other).max()
            print(
                f"h{order} {loss}: {1e3 * ours:.2f} ms a run, NumPy and SciPy {1e3 * theirs:.0f} "
                f"ms, ratio {theirs / ours:.0f}, difference at the end {error:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
