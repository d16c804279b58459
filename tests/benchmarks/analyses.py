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


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Median CPU time of a call."""
    spent = []
    for _ in range(repeats):
        begun = time.process_time()
        function()
        spent.append(time.process_time() - begun)
    return float(np.median(spent))


def main() -> None:
    smoke = "--smoke" in sys.argv
    repeats = 1 if smoke else 3
    if not smoke and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    names = ("plateaus", "saddles", "theory", "compare")
    print("\n| workload | runs | simulation, us per run | " + " | ".join(names) + " | repr, ms |")
    print("|" + "---|" * (len(names) + 4))
    workloads, numbers = (SMOKE, (2,)) if smoke else (WORKLOADS, (50, 1000))
    for workload, runs in product(workloads, numbers):
        lazy = mids.simulate(workload.text, dim=workload.dim, runs=runs, rtol=1e-6)
        ds = lazy.compute(scheduler="synchronous")
        base = seconds(lambda lazy=lazy: lazy.compute(scheduler="synchronous"), repeats)
        ratios = []
        for name in names:
            analysis = getattr(ds.mi, name)
            analysis().compute()
            ratios.append(seconds(lambda call=analysis: call().compute(), repeats) / base)
        shown = 1e3 * seconds(lambda ds=ds: repr(ds.mi), repeats)
        print(
            f"| `{workload.text}`, d = {workload.dim:g} | {runs} | {1e6 * base / runs:.0f} | "
            + " | ".join(f"{ratio:.2g} x" for ratio in ratios)
            + f" | {shown:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
