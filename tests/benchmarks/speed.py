"""Time, completion and error per run of this package and of general solvers, on one core.

Everybody gets the same initial conditions and tolerance and returns G, or what this package does,
loss, overlaps and energies, on the same grid.  The times at which overlaps pass 1/2 are exact
results here; the peers are asked for less, G at the reference times, from which the error of their
times follows.  The peers integrate ``M' = (I - G) H M`` with the gradient H of the one target
written out by hand, which is the most they can be given; diffrax also with that of any target, from
its tensors, as here.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import logit

from mids.flows import TwoTimescale
from mids.flows.base import Problem
from mids.targets import averaging as operators
from mids.targets.basis import multiplicities

from .workloads import SMOKE, WORKLOADS, Workload

RTOL = 1e-6
PATIENCE = 25.0  # seconds for one run of SciPy
DIFFRAX = {"Tsit5": 20_000, "Kvaerno5": 20_000}
SCIPY = ("LSODA", "BDF", "Radau", "DOP853")


@dataclass(frozen=True)
class Result:
    peer: str
    workload: Workload
    milliseconds: float  # per run
    finished: int
    runs: int
    error: float  # median over runs of the largest relative error of an escape time


def own(workload: Workload, rtol: float, repeats: int) -> tuple[float, dict[str, np.ndarray]]:
    """Median milliseconds per run, and what comes out."""
    problem = Problem(
        workload.target,
        workload.dim,
        np.arange(workload.runs),
        0,
        workload.initial,
        workload.time,
        rtol,
    )
    out = TwoTimescale().integrate(problem)
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        TwoTimescale().integrate(problem)
        spent.append(time.process_time() - start)
    return 1e3 * float(np.median(spent or np.nan)) / workload.runs, out


def time_errors(workload: Workload, escape: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Relative error of escape times, from G at the reference time of each direction."""
    values, vectors = np.linalg.eigh(gram)  # (at, ...): ascending
    at = np.arange(len(gram))
    overlap = np.clip(values[at, -1 - at], 1e-300, 1 - 1e-16)
    direction = vectors[at, :, -1 - at]
    hessian = operators.gradient(workload.target, np.nan_to_num(gram))
    growth = 2 * np.einsum("ai,aij,aj->a", direction, hessian, direction)
    return np.abs(logit(overlap)) / (growth * escape)


def scipy_runs(workload: Workload, method: str, escape: np.ndarray, runs: int) -> Result:
    rank = workload.target.rank
    tolerance = RTOL * workload.dim**-0.5
    spent, errors = [], []
    for start, at in zip(workload.initial[:runs], escape, strict=False):
        grid = np.union1d(workload.time, at)
        deadline = time.process_time() + PATIENCE

        def slope(_: float, flat: np.ndarray, deadline: float = deadline) -> np.ndarray:
            if time.process_time() > deadline:
                raise TimeoutError
            matrix = flat.reshape(rank, rank)
            gram = matrix @ matrix.T
            h = np.array(workload.gradient(gram))
            return ((np.eye(rank) - gram) @ (h @ matrix)).ravel()

        begun = time.process_time()
        try:
            solved = solve_ivp(
                slope,
                (0, grid[-1]),
                start.ravel(),
                method=method,
                t_eval=grid,
                rtol=RTOL,
                atol=tolerance,
            )
            done = solved.status == 0
        except TimeoutError:
            done = False
        spent.append(time.process_time() - begun)
        if done:
            matrix = solved.y.T.reshape(-1, rank, rank)
            gram = matrix @ matrix.swapaxes(1, 2)
            operators.loss(workload.target, gram)
            errors.append(time_errors(workload, at, gram[np.searchsorted(grid, at)]).max())
        elif len(spent) > 1:
            break
    error = float(np.median(errors)) if errors else np.nan
    name = f"SciPy {method}, H by hand"
    return Result(name, workload, 1e3 * float(np.median(spent)), len(errors), len(spent), error)


def diffrax_runs(
    workload: Workload, method: str, escape: np.ndarray, by_hand: bool, observed: bool
) -> Result:
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    eye = jnp.eye(workload.target.rank)

    def averaged(tensor: np.ndarray, gram: jax.Array) -> jax.Array:
        moved = jnp.asarray(tensor)
        for _ in range(tensor.ndim):
            moved = jnp.tensordot(gram, moved, axes=(1, tensor.ndim - 1))
        return moved * tensor

    def correlation(gram: jax.Array) -> jax.Array:
        return sum(averaged(tensor, gram).sum() for tensor in workload.target.tensors[1:])

    def observables(gram: jax.Array) -> tuple[jax.Array, ...]:
        modes = workload.target.modes
        products = [averaged(tensor, gram) for tensor in workload.target.tensors[1:]]
        words = [tuple(np.repeat(np.arange(len(gram)), mode)) for mode in modes]
        counts = multiplicities(modes)
        energies = [
            count * products[len(word) - 1][word] for word, count in zip(words, counts, strict=True)
        ]
        return jnp.stack(energies), (1 - sum(energies)) / 2, jnp.linalg.eigvalsh(gram)

    def gradient(gram: jax.Array) -> jax.Array:
        if by_hand:
            return jnp.stack([jnp.stack(row) for row in workload.gradient(gram)])
        return jax.grad(correlation)(gram)

    def slope(_: float, matrix: jax.Array, __: None) -> jax.Array:
        gram = matrix @ matrix.T
        return (eye - gram) @ (gradient(gram) @ matrix)

    grids = np.stack([np.union1d(workload.time, at) for at in escape])
    solver = getattr(diffrax, method)()
    control = diffrax.PIDController(rtol=RTOL, atol=RTOL * workload.dim**-0.5)

    def solve(start: jax.Array, grid: jax.Array) -> tuple[jax.Array, jax.Array, tuple[jax.Array]]:
        solved = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            solver,
            0.0,
            grid[-1],
            None,
            start,
            saveat=diffrax.SaveAt(ts=grid),
            stepsize_controller=control,
            max_steps=DIFFRAX[method],
            throw=False,
        )
        gram = solved.ys @ solved.ys.swapaxes(1, 2)
        seen = jax.vmap(observables)(gram) if observed else ()
        return gram, solved.result == diffrax.RESULTS.successful, seen

    run = jax.jit(jax.vmap(solve))
    initial, grid = jnp.asarray(workload.initial), jnp.asarray(grids)
    grams, done, seen = jax.block_until_ready(run(initial, grid))
    spent = []
    for _ in range(3):
        start = time.process_time()
        grams, done, seen = jax.block_until_ready(run(initial, grid))
        spent.append(time.process_time() - start)
        if sum(spent) > 120:
            break
    done = np.asarray(done)
    if observed:
        energy = operators.energy(workload.target, np.asarray(grams)[done])
        np.testing.assert_allclose(np.asarray(seen[0])[done], energy, atol=1e-12)
    places = [np.searchsorted(g, at) for g, at in zip(grids, escape, strict=True)]
    errors = [
        time_errors(workload, at, np.asarray(gram)[place]).max()
        for gram, place, at, ok in zip(grams, places, escape, done, strict=True)
        if ok
    ]
    return Result(
        f"diffrax {method}, {'H by hand' if by_hand else 'any target'}"
        f"{', all variables' if observed else ''}",
        workload,
        1e3 * float(np.median(spent)) / workload.runs,
        int(done.sum()),
        workload.runs,
        float(np.median(errors)) if errors else np.nan,
    )


def check_gradient(workload: Workload) -> None:
    """The gradient written out by hand is that of the target."""
    gram = workload.initial[0] @ workload.initial[0].T + 0.3 * np.eye(workload.target.rank)
    expected = operators.gradient(workload.target, gram)
    np.testing.assert_allclose(np.array(workload.gradient(gram)), expected, atol=1e-12)


def results(smoke: bool) -> Iterator[Result]:
    """Measure; the reference is this package at rtol 1e-10, which tests hold against mpmath."""
    for workload in SMOKE if smoke else WORKLOADS:
        check_gradient(workload)
        escape = own(workload, 1e-10, 0)[1]["crossing_time"][:, :, 1]
        spent, out = own(workload, RTOL, 1 if smoke else 15)
        error = np.abs(out["crossing_time"][:, :, 1] / escape - 1).max(axis=1)
        done = int((out["status"] == 0).sum())
        yield Result("mids", workload, spent, done, workload.runs, float(np.median(error)))
        if smoke:
            yield scipy_runs(workload, "LSODA", escape, 2)
            continue
        for method in DIFFRAX:
            if method == "Tsit5" and workload is not WORKLOADS[0]:
                continue  # finishes no run in hours
            for by_hand in (True, False):
                yield diffrax_runs(workload, method, escape, by_hand, observed=False)
                if method == "Tsit5":
                    yield diffrax_runs(workload, method, escape, by_hand, observed=True)
        for method in SCIPY:
            yield scipy_runs(workload, method, escape, 3)


def table(smoke: bool = False, report: Callable[[str], None] = print) -> list[Result]:
    """Print the table, row by row."""
    if not smoke and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    report("| workload | solver | ms per run | finished | error of escape times | ratio |")
    report("|---|---|---|---|---|---|")
    found: list[Result] = []
    for result in results(smoke):
        if result.peer == "mids":
            base = result.milliseconds
        found.append(result)
        name = f"`{result.workload.text}`, d = {result.workload.dim:g}"
        error = "" if np.isnan(result.error) else f"{result.error:.1e}"
        report(
            f"| {name} | {result.peer} | {result.milliseconds:.3g} | "
            f"{result.finished} of {result.runs} | {error} | {result.milliseconds / base:.3g} |"
        )
    return found


if __name__ == "__main__":
    table("--smoke" in sys.argv)
