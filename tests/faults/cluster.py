"""Workers and disks that are lost in the middle of a sweep."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import dask

import mids
from mids.errors import FileError
from mids.simulation.simulate import differences

from .stores import SWEEP, checksums


@contextmanager
def local_cluster():
    """Start two workers on loopback, which are started again however often they are lost.

    By default a worker that is away 15 s after it has been lost is given up, also where it has
    come back in between and has just been lost again; the last one with the cluster.
    """
    import distributed

    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"}),
        # On a busy machine one block may lose its worker many times.
        dask.config.set({"distributed.scheduler.allowed-failures": 1000}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs="CRITICAL"
        ) as cluster,
    ):
        yield cluster


def worker_processes(cluster):
    """Return the processes of the workers that are not just being started again.

    One that is killed while it starts is given up by distributed, and with the last one the
    cluster.
    """
    connected = set(cluster.scheduler.workers)
    nannies = [n for n in list(cluster.workers.values()) if n.worker_address in connected]
    processes = [nanny.process for nanny in nannies]
    return [process.pid for process in processes if process is not None and process.pid]


def kill_workers(folder, kills=20, sweep=SWEEP, seed=0):
    """Kill one of two workers at random moments, again and again; return what came of it."""
    import distributed

    choice = random.Random(seed)
    killed = []
    with (
        local_cluster() as cluster,
        distributed.Client(cluster) as client,
    ):
        done = threading.Event()

        def kill():
            while len(killed) < kills and not done.is_set():
                time.sleep(choice.uniform(0.2, 1.5))
                running = worker_processes(cluster)
                if running:
                    killed.append(choice.choice(running))
                    os.kill(killed[-1], signal.SIGKILL)

        store = Path(folder) / "kills"
        killer = threading.Thread(target=kill)
        killer.start()
        part = 0
        while len(killed) < kills and killer.is_alive():  # one sweep after another
            part += 1
            mids.generate(sweep | {"seed": part}, f"{store}-{part}", progress=False)
        done.set()
        killer.join()
        assert len(killed) == kills
        for k in range(1, part + 1):
            reference = Path(folder) / f"whole-{k}"
            mids.generate(sweep | {"seed": k}, reference, progress=False)
            mids.generate(sweep | {"seed": k}, f"{store}-{k}", progress=False)
            assert checksums(f"{store}-{k}") == checksums(reference)
        del client
    assert not list(Path(folder).rglob("*.partial"))  # the call that found all complete saw to it
    return f"{len(killed)} workers killed in {part} sweeps; all stores have the same bytes"


def kill_workers_lazily(kills=3, sweep=SWEEP, seed=1):
    """Kill workers while a lazy dataset is computed on them."""
    import distributed

    choice = random.Random(seed)
    lazy = mids.simulate(**sweep)[["crossing_time", "status"]]
    here = lazy.compute(scheduler="threads")
    killed = 0
    with (
        local_cluster() as cluster,
        distributed.Client(cluster) as client,
    ):
        while killed < kills:
            future = client.compute(lazy)
            time.sleep(choice.uniform(0.2, 1.0))
            running = worker_processes(cluster)
            if running:
                os.kill(choice.choice(running), signal.SIGKILL)
                killed += 1
            assert not differences(here, future.result())
            del future  # so that the next one is computed again
    return f"{killed} workers killed while a dataset was computed; numbers identical"


def fill_disk(sweep=SWEEP, size="3m"):
    """Write a store to a file system that is too small, then make it larger and resume."""
    with tempfile.TemporaryDirectory() as mount:
        mounted = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mount]
        if subprocess.run(mounted, capture_output=True).returncode != 0:
            return "not run: needs the right to mount a small file system"
        try:
            store = Path(mount) / "sweep"
            try:
                mids.generate(sweep, store, progress=False)
            except FileError as error:
                message = str(error)
                assert "free space" in message
                assert "the same call simulates the others" in message
            else:
                raise AssertionError("the disk was not full")
            kept = len(list((store / "blocks").iterdir()))
            subprocess.run(["mount", "-o", "remount,size=2g", mount], check=True)
            mids.generate(sweep, store, progress=False)
            assert not list(store.rglob("*.partial"))
            with tempfile.TemporaryDirectory() as folder:
                mids.generate(sweep, Path(folder) / "whole", progress=False)
                assert checksums(store) == checksums(Path(folder) / "whole")
        finally:
            subprocess.run(["umount", "-l", mount], check=True)
    return f"refused with {kept} blocks kept, resumed to the same bytes"
