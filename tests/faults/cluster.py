"""Workers, clients and disks that are lost in the middle of a sweep."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import dask

import mids
from mids.errors import FileError
from mids.simulation.replay import differences

SWEEP = {
    "target": "h1(z1) + h1(z1)*h3(z2)",
    "dim": [1e2, 1e4, 1e6],
    "runs": 4000,
    "chunks": 100,
    "rtol": 1e-8,
}
ROOT = Path(__file__).parents[2]


def checksums(store):
    """Return the SHA-256 of every file of a store but the one with its date."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(store).rglob("*"))
        if path.is_file() and path.name != "store.json"
    }


@contextmanager
def local_cluster():
    """Start two workers on loopback, which are started again however often they are lost.

    By default a worker that is away 15 s after it has been lost is given up, also where it has
    come back in between and has just been lost again; the last one with the cluster.
    """
    import distributed

    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"}),
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
            assert checksums(f"{store}-{k}") == checksums(reference)
        del client
    assert not list(Path(folder).rglob("*.part"))
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


def kill_clients(folder, kills=5, sweep=SWEEP, seed=2):
    """Kill the process that writes a store at random moments until it is complete."""
    choice = random.Random(seed)
    folder = Path(folder)
    spec = folder / "sweep.toml"
    spec.write_text("".join(f"{k} = {v!r}\n".replace("'", '"') for k, v in sweep.items()))
    code = "from mids.cli import main; main()"
    arguments = ["generate", "--spec", str(spec), str(folder / "killed")]
    command = [sys.executable, "-c", code, *arguments]
    killed = 0
    while True:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            if killed < kills:
                process.wait(timeout=choice.uniform(2.5, 4.0))
            else:
                process.wait()
            assert process.returncode == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    mids.generate(spec, folder / "uninterrupted", progress=False)
    assert checksums(folder / "killed") == checksums(folder / "uninterrupted")
    return f"{killed} clients killed; the store has the same bytes"


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
            assert not list(store.rglob("*.part"))
            for path in store.rglob("r*.nc"):
                mids.open_dataset(path).close()
            kept = len(list((store / "records").rglob("*.json")))
            subprocess.run(["mount", "-o", "remount,size=2g", mount], check=True)
            mids.generate(sweep, store, progress=False)
            with tempfile.TemporaryDirectory() as folder:
                mids.generate(sweep, Path(folder) / "whole", progress=False)
                assert checksums(store) == checksums(Path(folder) / "whole")
        finally:
            subprocess.run(["umount", "-l", mount], check=True)
    return f"refused with {kept} blocks kept, nothing half-written, resumed to the same bytes"
