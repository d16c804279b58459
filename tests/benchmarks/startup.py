"""Compile and import times, each in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import numpy as np

FIRST = """
import time, numpy as np, mids
from mids.flows import TwoTimescale
from mids.flows.base import Problem
target = mids.Target.parse("h1(z1) + h1(z1)*h3(z2)")
problem = Problem(target, 100, np.arange(1), 0, np.full((1, 2, 2), 0.1) + 0.01 * np.eye(2),
                  np.array([0.0, 1e3]), 1e-6)
wall, cpu = time.perf_counter(), time.process_time()
TwoTimescale().integrate(problem)
print(time.perf_counter() - wall, time.process_time() - cpu)
"""
IMPORT = """
import time
start = time.process_time()
import {}
print(time.process_time() - start)
"""


def measure(code: str, **settings: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(value) for value in done.stdout.split()]


def main() -> None:
    smoke = "--smoke" in sys.argv
    repeats = 1 if smoke else 15
    spent: dict[str, list[float]] = {"xarray, dask.array": [], "mids": []}
    for _ in range(repeats):
        for modules, values in spent.items():
            values += measure(IMPORT.format(modules))
    base, own = (float(np.median(values)) for values in spent.values())
    print(f"\n`import xarray, dask.array` {base:.3f} s, `import mids` {own:.3f} s (CPU time)")
    if smoke:
        return
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = measure(FIRST, NUMBA_CACHE_DIR=folder)
        print(f"first call, nothing cached: {wall:.1f} s ({cpu:.1f} s CPU time)")
        wall, cpu = np.median([measure(FIRST, NUMBA_CACHE_DIR=folder) for _ in range(5)], axis=0)
        print(f"first call in a later process: {wall:.2f} s ({cpu:.2f} s CPU time)")


if __name__ == "__main__":
    main()
