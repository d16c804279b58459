"""Cost of large stores: python -m tests.benchmarks.soak [RUNS ...], by default up to a million."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil

import mids

TARGET = "staircase(2)"
COUNTS = (1_000, 10_000, 100_000, 1_000_000)


class Memory:
    """Memory of this process over the time of a ``with`` statement, in MB."""

    def __enter__(self):
        self.samples = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self):
        process = psutil.Process()
        while not self._done.wait(0.05):
            self.samples.append(process.memory_info().rss / 2**20)

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def quarters(self):
        """Largest memory in each quarter of the time."""
        return [max(part, default=0.0) for part in np.array_split(self.samples, 4)]


def measure(runs, chunks):
    """Write a store of so many runs; return its blocks, seconds, CPU seconds, bytes and memory."""
    mids.simulate(TARGET, dim=100, runs=2).compute()  # compiles
    with tempfile.TemporaryDirectory() as folder, Memory() as memory:
        store = Path(folder) / "store"
        started, used = time.perf_counter(), time.process_time()
        ds = mids.generate(
            {
                "target": TARGET,
                "dim": 1e4,
                "runs": runs,
                "time": np.concatenate([[0.0], np.geomspace(0.1, 1e6, 32)]),
                "rtol": 1e-6,
                "chunks": chunks,
            },
            store,
            compact=True,
        )
        seconds, used = time.perf_counter() - started, time.process_time() - used
        size = sum(path.stat().st_size for path in store.rglob("*.*"))
    return ds.chunks["run"], seconds, used, size, memory.quarters()


def main(counts):
    rows = []

    def row(runs, chunks="auto"):
        """Measure in a process of its own."""
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            blocks, seconds, used, size, memory = process.submit(measure, runs, chunks).result()
        quarters = ", ".join(f"{part:.0f}" for part in memory)
        print(
            f"| {runs} | {len(blocks)} x {blocks[0]} | {seconds:.1f} | {runs / seconds:.0f} "
            f"| {used:.1f} | {size / 1e6:.1f} | {quarters} |",
            flush=True,
        )
        rows.append((runs, len(blocks), used))
        return blocks[0]

    print(f"{os.cpu_count()} cores, target {TARGET}, d = 1e4, 33 times, rtol 1e-6, compact")
    print("| runs | blocks | seconds | runs/s | CPU seconds | MB on disk | MB, by quarters |")
    print("|---|---|---|---|---|---|---|")
    for runs in counts:
        largest = row(runs)
    row(counts[-1] // 8, largest)  # memory is that of the blocks
    del rows[-1]
    if len(rows) > 2:
        runs, parts, used = np.array(rows).T
        costs = np.stack([parts, runs], axis=1) / used[:, None]
        block, run = np.linalg.lstsq(costs, np.ones(len(used)))[0]
        off = np.abs(costs @ [block, run] - 1).max()
        print(
            f"{1e3 * block:.0f} core-milliseconds a block and {1e6 * run:.0f} core-microseconds a "
            f"run fit the CPU seconds within {100 * off:.0f} %"
        )
    for (few, _, less), (many, _, more) in pairwise(rows):
        each = (more - less) / (many - few)
        exponent = np.log(more / less) / np.log(many / few)
        print(
            f"{few} to {many} runs: {1e6 * each:.0f} core-microseconds for each further run, CPU "
            f"seconds grow like runs^{exponent:.2f}"
        )
    each = rows[-1][2] / rows[-1][0]
    print(
        f"{1e6 * each:.0f} core-microseconds a run, writing included: 10^9 runs take "
        f"{1e9 * each / 3600:.0f} / N hours on N workers of one core"
    )


if __name__ == "__main__":
    main([int(float(text)) for text in sys.argv[1:]] or COUNTS)
