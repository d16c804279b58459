"""Write and open many NetCDF files at once: ``python -m tests.verification.netcdf_stress``.

Neither netCDF nor HDF5 is thread-safe. Under each scheduler, threads write files from lazy
datasets while they open and read those of others, then all files are opened together, and reduced
in one graph while copies of them are written. A crash of a library ends a process of its own and
is counted; every number read must be the one written.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from functools import cache
from pathlib import Path

import dask
import numpy as np

import mids

SCHEDULERS = ("threads", "distributed")
THREADS = 8
RUNS, POINTS, BLOCK = 8, 50, 4


@cache
def made(number):
    """Return the dataset of a file."""
    random = np.random.default_rng(number)
    return mids.from_trajectories(
        time=np.geomspace(1.0, 100.0, POINTS),
        loss=random.random((RUNS, POINTS)),
        overlap=random.random((RUNS, POINTS, 2)),
        dim=100,
    ).drop_vars("crossing_time")


def checked(number, path, *, lazy):
    """Open a file, read all of it and hold it against what was written."""
    with mids.open_dataset(path, chunks={"run": BLOCK} if lazy else None) as ds:
        assert ds.compute().equals(made(number)), path


def write_and_read(folder, count):
    """Write files and read earlier ones in the same threads."""

    def work(number):
        mids.to_netcdf(made(number).chunk(run=BLOCK), folder / f"{number}.nc")
        for other in (number, number // 2):
            if (folder / f"{other}.nc").exists():
                checked(other, folder / f"{other}.nc", lazy=other % 2 == 0)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(count)))


def reduce_and_copy(folder, count):
    """Reduce all files in one graph while copies of them are written."""
    with ExitStack() as stack, ThreadPoolExecutor(THREADS) as pool:
        opened = [
            stack.enter_context(mids.open_dataset(folder / f"{number}.nc", chunks={"run": BLOCK}))
            for number in range(count)
        ]
        means = pool.submit(dask.compute, [ds.loss.mean() for ds in opened])
        copies = [
            pool.submit(mids.to_netcdf, ds, folder / f"copy-{number}.nc")
            for number, ds in enumerate(opened)
        ]
        for number, mean in enumerate(means.result()[0]):
            assert np.isclose(mean, made(number).loss.mean(), rtol=1e-12)
        for number, copy in enumerate(copies):
            copy.result()
            checked(number, folder / f"copy-{number}.nc", lazy=False)


def stress(scheduler, count):
    """Do everything under one scheduler, in this process and, if distributed, its workers."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if scheduler == "distributed":
            import distributed

            cluster = distributed.LocalCluster(
                n_workers=2, threads_per_worker=THREADS // 2, dashboard_address=":0"
            )
            stack.enter_context(cluster)
            stack.enter_context(distributed.Client(cluster))
            chosen = nullcontext()
        else:
            chosen = dask.config.set(scheduler=scheduler, num_workers=THREADS)
        with chosen:
            write_and_read(folder, count)
            reduce_and_copy(folder, count)


def main() -> int:
    """Run all schedulers, each time in a process of its own, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=500, help="files under each scheduler")
    parser.add_argument("--times", type=int, default=1, help="repetitions")
    parser.add_argument("--scheduler", choices=SCHEDULERS, help="only this one, in this process")
    options = parser.parse_args()
    if options.scheduler:
        stress(options.scheduler, options.files)
        return 0
    failed = 0
    for scheduler in SCHEDULERS:
        crashes = errors = 0
        for _ in range(options.times):
            command = [sys.executable, "-m", "tests.verification.netcdf_stress"]
            command += ["--scheduler", scheduler, "--files", str(options.files)]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
            crashes += done.returncode < 0
            errors += done.returncode > 0
            if done.returncode:
                print(done.stderr[-3000:], file=sys.stderr)
        print(
            f"{scheduler}: {options.files} files written, opened and copied at once: "
            f"{crashes} crashes and {errors} errors of {options.times}",
            flush=True,
        )
        failed += crashes + errors
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
