"""How far a run is from what the arithmetic of its right-hand sides would take at full speed."""

from __future__ import annotations

import sys
import time

import numpy as np

from mids.flows.engine.tables import tables

from .speed import RTOL, own
from .workloads import SMOKE, WORKLOADS, Workload


def peak() -> float:
    """Floating-point operations per second of one core, from a matrix product."""
    matrix = np.ones((600, 600))
    best = np.inf
    for _ in range(10):
        start = time.thread_time()
        matrix @ matrix
        best = min(best, time.thread_time() - start)
    return 2 * len(matrix) ** 3 / best


def operations(workload: Workload) -> int:
    """Additions and multiplications of one right-hand side."""
    derivative = tables(workload.target).derivative
    rank, gradients = derivative.gradient_factor.shape
    shears = int((2 + derivative.shear[:, 2]).sum())
    hessian = len(derivative.power) + gradients * (2 * rank + rank * (rank + 1))
    triangular = 6 * rank**3  # Gram factor, its inverse, two products and two solves
    return shears + hessian + triangular + 20 * rank  # exponentials, divisions


def main() -> None:
    smoke = "--smoke" in sys.argv
    top = peak()
    print(f"\nPeak of one core: {top / 1e9:.3g} GFlop/s in a matrix product.\n")
    print(
        "| workload | flops of a right-hand side | right-hand sides | at peak | measured | ratio |"
    )
    print("|---|---|---|---|---|---|")
    for workload in SMOKE if smoke else WORKLOADS:
        spent, out = own(workload, RTOL, 1 if smoke else 15)
        flops, number = operations(workload), float(np.mean(out["n_rhs"]))
        least = flops * number / top
        print(
            f"| `{workload.text}` | {flops} | {number:.0f} | {least * 1e6:.2g} us "
            f"| {spent * 1e3:.3g} us | {spent * 1e-3 / least:.3g} |"
        )


if __name__ == "__main__":
    main()
