"""Time per run and error of escape times beside LSODA, CVODE, DOP853 and heyoka, compiled.

The peers integrate ``M' = (I - G) H M`` with the gradient H of the one target written out by hand
and compiled; `mids` takes any target. "On the grid" is G at every time of the default grid, for
`mids` all its variables; "at the end" only the last time, for `mids` with escape times.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mids.flows import TwoTimescale
from mids.flows.base import Problem

from .speed import RTOL, time_errors
from .workloads import SMOKE, WORKLOADS, Workload

PATIENCE = 20.0  # seconds for all runs of one peer
# Solve one run on a grid: (times, rank^2) and whether it came to the end.
Solver = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, bool]]


@dataclass(frozen=True)
class Row:
    peer: str
    grid: float  # us per run
    end: float
    finished: int
    runs: int
    error: float  # median over runs of the largest relative error of an escape time


def source(workload: Workload) -> str:
    """Python source of the slope, with H as it is written by hand."""
    import sympy

    rank = workload.target.rank
    entries = range(rank)
    gram = np.array([[sympy.Symbol(f"g{min(i, j)}{max(i, j)}") for j in entries] for i in entries])
    lines = []
    for i in entries:
        for j in range(i, rank):
            total = " + ".join(f"u[{rank * i + k}]*u[{rank * j + k}]" for k in entries)
            lines.append(f"g{i}{j} = {total}")
    gradient = np.array(workload.gradient(gram)).reshape(-1)
    shared, reduced = sympy.cse(list(gradient))
    lines += [f"{name} = {value}" for name, value in shared]
    for i in entries:
        for k in entries:
            total = " + ".join(f"({reduced[rank * i + j]})*u[{rank * j + k}]" for j in entries)
            lines.append(f"p{i}{k} = {total}")
    for i in entries:
        for k in entries:
            total = " + ".join(f"{gram[i, j]}*p{j}{k}" for j in entries)
            lines.append(f"du[{rank * i + k}] = p{i}{k} - ({total})")
    return "def slope(t, u, du, p):\n    " + "\n    ".join(lines) + "\n"


def numbalsoda(workload: Workload, method: str, tolerance: float) -> Solver:
    """LSODA or DOP853 with a compiled slope."""
    import numba
    import numbalsoda

    scope: dict[str, Any] = {}
    exec(source(workload), scope)
    slope = numba.cfunc(numbalsoda.lsoda_sig)(scope["slope"]).address
    solver = getattr(numbalsoda, method)
    absolute = tolerance * workload.dim**-0.5

    @numba.njit
    def solve(start: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, bool]:
        return solver(slope, start, grid, rtol=tolerance, atol=absolute)

    return solve


def cvode(workload: Workload, tolerance: float) -> Solver:
    """CVODE of SUNDIALS, whose bindings call even a compiled slope through Python."""
    import numba
    from sksundae.cvode import CVODE

    scope: dict[str, Any] = {}
    exec(source(workload), scope)
    compiled = numba.njit(scope["slope"])

    def slope(t: float, u: np.ndarray, du: np.ndarray) -> None:
        compiled(t, u, du, None)

    absolute = tolerance * workload.dim**-0.5
    solver = CVODE(slope, rtol=tolerance, atol=absolute, max_num_steps=200_000)

    def solve(start: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, bool]:
        found = solver.solve(grid, start)
        return found.y, bool(found.success) and len(found.y) == len(grid)

    return solve


def heyoka(workload: Workload, tolerance: float) -> Solver:
    """Taylor series in batches of four, each of the runs with the same start and grid."""
    import heyoka as hy

    rank = workload.target.rank
    names = [f"m{i}" for i in range(rank * rank)]
    m = np.array(hy.make_vars(*names), dtype=object).reshape(rank, rank)
    gram = m @ m.T
    push = np.array(workload.gradient(gram), dtype=object).reshape(rank, rank) @ m
    slope = push - gram @ push
    batch = hy.taylor_adaptive_batch(
        list(zip(m.ravel(), slope.ravel(), strict=True)), np.zeros((rank * rank, 4)), tol=tolerance
    )

    def solve(starts: np.ndarray, grids: np.ndarray) -> tuple[np.ndarray, bool]:
        batch.set_time(0.0)
        batch.state[:] = starts.T
        result = batch.propagate_grid(np.ascontiguousarray(grids.T), max_steps=200_000)
        values = result[-1] if isinstance(result, tuple) else result
        done = all("time_limit" in str(outcome[0]) for outcome in batch.propagate_res)
        return np.asarray(values), done

    return solve


def measure(workload: Workload, name: str, solver: Solver, escape: np.ndarray, batch: int) -> Row:
    """Time a peer on the whole grid and at the end; errors from G at the escape times."""
    rank = workload.target.rank
    starts = workload.initial.reshape(workload.runs, -1)
    exact = np.stack([np.union1d(workload.time, at) for at in escape])
    ends = np.tile(workload.time[[0, -1]], (workload.runs, 1))
    plain = np.tile(workload.time, (workload.runs, 1))
    spent: dict[str, float] = {}
    finished, errors = 0, []
    for kind, grids in (("first", plain), ("exact", exact), ("grid", plain), ("end", ends)):
        used = done_runs = 0.0
        for first in range(0, workload.runs, batch):
            part = slice(first, first + batch) if batch > 1 else first
            begun = time.process_time()
            path, done = solver(starts[part], grids[part])
            used += time.process_time() - begun
            done_runs += batch
            if kind == "exact":
                for lane in range(batch):
                    run = first + lane
                    own = path[..., lane] if batch > 1 else path
                    if not done or not np.isfinite(own).all():
                        continue
                    finished += 1
                    matrix = own.reshape(-1, rank, rank)
                    gram = matrix @ matrix.swapaxes(1, 2)
                    at = np.searchsorted(exact[run], escape[run])
                    errors.append(time_errors(workload, escape[run], gram[at]).max())
            if used > PATIENCE or kind == "first":
                break
        spent[kind] = 1e6 * used / done_runs
    error = float(np.median(errors)) if errors else np.nan
    return Row(name, spent["grid"], spent["end"], finished, workload.runs, error)


def own(workload: Workload, escape: np.ndarray) -> Row:
    """Time `mids` likewise."""
    spent = []
    for grid in (workload.time, workload.time[[0, -1]]):
        problem = Problem(
            workload.target,
            workload.dim,
            np.arange(workload.runs),
            0,
            workload.initial,
            grid,
            RTOL,
        )
        flow = TwoTimescale()
        flow.integrate(problem)
        each = []
        for _ in range(15):
            begun = time.process_time()
            out = flow.integrate(problem)
            each.append(time.process_time() - begun)
        spent.append(1e6 * float(np.median(each)) / workload.runs)
    error = np.abs(out["crossing_time"][:, :, 1] / escape - 1).max(axis=1)
    done = int((out["status"] == 0).sum())
    return Row("mids", *spent, done, workload.runs, float(np.median(error)))


def rows(workload: Workload, smoke: bool) -> Iterator[Row]:
    """Measure; the reference is this package at rtol 1e-10."""
    problem = Problem(
        workload.target,
        workload.dim,
        np.arange(workload.runs),
        0,
        workload.initial,
        workload.time,
        1e-10,
    )
    escape = TwoTimescale().integrate(problem)["crossing_time"][:, :, 1]
    yield own(workload, escape)
    if smoke:
        return
    stiff = workload is not WORKLOADS[0]
    for tolerance in (RTOL, 1e-8):
        name = f"LSODA, rtol {tolerance:g}"
        yield measure(workload, name, numbalsoda(workload, "lsoda", tolerance), escape, 1)
        if not stiff:
            name = f"CVODE, rtol {tolerance:g}"
            yield measure(workload, name, cvode(workload, tolerance), escape, 1)
            name = f"DOP853, rtol {tolerance:g}"
            yield measure(workload, name, numbalsoda(workload, "dop853", tolerance), escape, 1)
        if workload.dim < 10**4 or not stiff:
            name = f"heyoka, tol {tolerance:g}"
            yield measure(workload, name, heyoka(workload, tolerance), escape, 4)


def main() -> None:
    smoke = "--smoke" in sys.argv
    if not smoke and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("\n| workload | solver | us per run, on the grid | at the end | finished | error |")
    print("|---|---|---|---|---|---|")
    for workload in SMOKE if smoke else WORKLOADS:
        for row in rows(workload, smoke):
            error = f"{row.error:.1e}" if row.error == row.error else "-"
            print(
                f"| `{workload.text}`, d = {workload.dim:g} | {row.peer} | {row.grid:.3g} "
                f"| {row.end:.3g} | {row.finished} of {row.runs} | {error} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
