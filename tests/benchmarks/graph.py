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
    """Build a sweep and make all its tasks; return it and the CPU seconds of either."""
    started = time.process_time()
    ds = mids.simulate(target, dim=DIMS, runs=runs)
    built = time.process_time()
    dask.optimize(ds)
    return ds, built - started, time.process_time() - built


def submit(ds):
    """Give a sweep to a scheduler without workers; return CPU seconds until it has all."""
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0", silence_logs="ERROR"
        ) as cluster,
        distributed.Client(cluster) as client,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")  # of large graphs
        started = time.process_time()
        future = client.compute(ds)
        while future.key not in cluster.scheduler.tasks:
            assert future.status == "pending"
            time.sleep(0.01)
        count = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        seconds = time.process_time() - started
        future.cancel()
    return count, seconds


def main(runs, targets=TARGETS):
    build(targets[0], 10)  # imports
    print(f"{runs} runs at each of {len(DIMS)} dims: CPU seconds, largest memory")
    print("| target | blocks | tasks | call, s | all tasks, s | MB | scheduled | after, s |")
    print("|---|---|---|---|---|---|---|---|")
    for target in targets:
        ds, call, fused = build(target, runs)
        blocks = len(ds.chunks["dim"]) * len(ds.chunks["run"])
        tasks = len(ds.__dask_graph__())
        scheduled, seconds = submit(mids.simulate(target, dim=DIMS, runs=runs))
        del ds
        tracemalloc.start()
        build(target, runs)
        memory = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        print(
            f"| `{target}` | {blocks} | {tasks} | {call:.2f} | {fused:.2f} | {memory:.0f} "
            f"| {scheduled} | {seconds:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(1000, TARGETS[-1:]) if "--smoke" in sys.argv else main(1_000_000)
