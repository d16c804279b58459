"""CPU time of the analyses of a dataset, as multiples of that of simulating its runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

import mids

from .workloads import SMOKE, WORKLOADS

NAMES = ("plateaus", "saddles", "theory", "compare")


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time of a call, and what it returns."""
    begun = time.process_time()
    result = function()
    return time.process_time() - begun, result


def measure(text: str, dim: int, runs: int, repeats: int) -> tuple[float, list[float], float]:
    """Medians of a simulation, of each analysis and of repr; nothing is analysed twice."""
    simulation, analyses, shown = [], [], []
    for k, name in enumerate(NAMES):
        spent = []
        for seed in range(k * repeats, (k + 1) * repeats):
            lazy = mids.simulate(text, dim=dim, runs=runs, seed=seed, rtol=1e-6)
            used, ds = timed(lambda lazy=lazy: lazy.compute(scheduler="synchronous"))
            simulation.append(used)
            spent.append(timed(lambda ds=ds, name=name: getattr(ds.mi, name)().compute())[0])
            shown.append(timed(lambda ds=ds: repr(ds.mi))[0])
        analyses.append(float(np.median(spent)))
    return float(np.median(simulation)), analyses, float(np.median(shown))


def main() -> None:
    smoke = "--smoke" in sys.argv
    if not smoke and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("\n| workload | runs | simulation, us per run | " + " | ".join(NAMES) + " | repr, ms |")
    print("|" + "---|" * (len(NAMES) + 4))
    workloads, numbers = (SMOKE, (2,)) if smoke else (WORKLOADS, (50, 1000))
    for workload, runs in product(workloads, numbers):
        if not smoke:
            measure(workload.text, workload.dim, 3, 1)  # compiles
        base, spent, shown = measure(workload.text, workload.dim, runs, 1 if smoke else 3)
        print(
            f"| `{workload.text}`, d = {workload.dim:g} | {runs} | {1e6 * base / runs:.0f} | "
            + " | ".join(f"{used / base:.2g} x" for used in spent)
            + f" | {1e3 * shown:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
