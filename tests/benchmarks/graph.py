"""Cost of the graph of a million runs at seven dims: python -m tests.benchmarks.graph."""

from __future__ import annotations

import sys
import time
import tracemalloc
import warnings

import dask
import numpy as np

import mids

DIMS = 10.0 ** np.arange(2, 9)
TARGETS = ("staircase(2)", "h1(z1) + h1(z1)*h3(z2)", "leaps(1,2,3)")


def build(target, runs):
    """Build a sweep and fuse its graph, as before it is computed; return it and its tasks."""
    ds = mids.simulate(target, dim=DIMS, runs=runs)
    (fused,) = dask.optimize(ds)
    return ds, len(ds.__dask_graph__()), len(fused.__dask_graph__())


def submit(ds):
    """Give a sweep to a scheduler without workers; return seconds until it knows all tasks."""
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0", silence_logs="ERROR"
        ) as cluster,
        distributed.Client(cluster) as client,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")  # of large graphs
        started = time.perf_counter()
        future = client.compute(ds)
        while not cluster.scheduler.tasks:
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        future.cancel()
    return seconds


def main(runs):
    build(TARGETS[0], 10)  # imports
    print(f"{runs} runs at each of {len(DIMS)} dims")
    print("| target | blocks | tasks | fused | build, s | memory, MB | submit, s |")
    print("|---|---|---|---|---|---|---|")
    for target in TARGETS:
        started = time.perf_counter()
        ds, tasks, fused = build(target, runs)
        seconds = time.perf_counter() - started
        blocks = len(ds.chunks["dim"]) * len(ds.chunks["run"])
        submitted = submit(ds)
        del ds
        tracemalloc.start()
        build(target, runs)
        memory = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        print(
            f"| `{target}` | {blocks} | {tasks} | {fused} | {seconds:.2f} | {memory:.0f} "
            f"| {submitted:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(1000 if "--smoke" in sys.argv else 1_000_000)
