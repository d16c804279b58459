"""Cost of large stores: python -m tests.benchmarks.soak [RUNS ...], by default up to a million."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import mids

TARGET = "staircase(2)"
COUNTS = (1_000, 10_000, 100_000, 1_000_000)


def memory():
    """Return the largest memory of this process so far in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(runs, folder):
    """Write a store of so many runs; return seconds, bytes on disk and peak memory in MB."""
    store = Path(folder) / str(runs)
    started = time.perf_counter()
    mids.generate(
        {
            "target": TARGET,
            "dim": 1e4,
            "runs": runs,
            "time": np.concatenate([[0.0], np.geomspace(0.1, 1e6, 32)]),
            "rtol": 1e-6,
        },
        store,
        compact=True,
    )
    seconds = time.perf_counter() - started
    return seconds, sum(path.stat().st_size for path in store.rglob("*.*")), memory()


def main(counts):
    mids.simulate(TARGET, dim=100, runs=2).compute()  # compiles
    seconds = []
    print(f"{os.cpu_count()} cores, target {TARGET}, d = 1e4, 33 times, rtol 1e-6, compact")
    print("| runs | seconds | runs/s | MB on disk | peak memory, MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for runs in counts:
            took, size, peak = measure(runs, folder)
            seconds.append(took)
            print(
                f"| {runs} | {took:.1f} | {runs / took:.0f} | {size / 1e6:.1f} | {peak:.0f} |",
                flush=True,
            )
    if len(counts) > 1:
        exponent = np.polyfit(np.log(counts), np.log(seconds), 1)[0]
        last = np.log(seconds[-1] / seconds[-2]) / np.log(counts[-1] / counts[-2])
        print(f"seconds grow like runs^{exponent:.2f}, over the last step like runs^{last:.2f}")
    core_seconds = seconds[-1] * (os.cpu_count() or 1) / counts[-1]
    print(
        f"{1e6 * core_seconds:.0f} core-microseconds a run, writing included: 10^9 runs take "
        f"{1e9 * core_seconds / 3600:.0f} / N hours on N workers of one core"
    )


if __name__ == "__main__":
    main([int(float(text)) for text in sys.argv[1:]] or COUNTS)
