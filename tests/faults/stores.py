"""Stores that several forked processes write at once, and whose writers are killed."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import dask

import mids
from mids.errors import MidsError
from mids.simulation.simulate import differences
from mids.storage.generation import TEMPORARY

from .kills import in_child

SWEEP = {
    "target": "h1(z1) + h1(z1)*h3(z2)",
    "dim": [1e2, 1e4, 1e6],
    "runs": 2000,
    "chunks": 50,
    "rtol": 1e-8,
}
SMALL = {"target": "h1(z1)", "dim": [1e2, 1e4], "runs": 40, "chunks": 5, "rtol": 1e-4}


def write(spec, store, said=None):
    """Write a store, in the only thread that a forked process has; keep the refusal."""
    with dask.config.set(scheduler="synchronous"):
        try:
            mids.generate(spec, store, progress=False)
        except MidsError as error:
            if said is None:
                raise
            said.write_text(str(error))


def compiled(sweep):
    """Compile, and load what writes, before processes are forked."""
    import zarr  # noqa: F401

    mids.simulate(**sweep | {"runs": 2, "dim": 100}).compute(scheduler="synchronous")


OF_THE_CALL = {"mids.json", "zarr.json", "writer", "lock"}
"""What says when a store was written, and by whom."""


def checksums(store):
    """Return the SHA-256 of every file of a store but those of `OF_THE_CALL` at its top."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(store).rglob("*"))
        if path.is_file() and str(path.relative_to(store)) not in OF_THE_CALL
    }


def race(folder, races=50, sweep=SMALL):
    """Let two processes with other or the same arguments write one store at once."""
    compiled(sweep)
    written = refused = 0
    for number in range(races):
        store = Path(folder) / f"race-{number}"
        seeds = (1, 2 if number % 2 == 0 else 1)
        answers = [Path(folder) / f"said-{number}-{k}" for k in range(2)]
        children = [
            in_child(partial(write, sweep | {"seed": seed}, store, said))
            for seed, said in zip(seeds, answers, strict=True)
        ]
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
        said = [answer.read_text() if answer.exists() else "" for answer in answers]
        winners = {seed for seed, text in zip(seeds, said, strict=True) if not text}
        assert len(winners) == 1, said
        for text in filter(None, said):
            assert "is being written by" in text or "another sweep" in text, text
        written, refused = written + said.count(""), refused + 2 - said.count("")
        (seed,) = winners
        assert not differences(mids.simulate(**sweep | {"seed": seed}), mids.open_dataset(store))
    return f"{races} races: {written} calls wrote, {refused} were told; no mix"


def kill_clients(folder, kills=100, sweep=SWEEP, seed=2, most=1.5):
    """Kill the process that writes a store at random moments, one store after the other."""
    compiled(sweep)
    choice = random.Random(seed)
    killed = stores = 0
    reference = Path(folder) / "reference"
    assert os.waitpid(in_child(partial(write, sweep, reference)), 0)[1] == 0
    expected = checksums(reference)
    while killed < kills:
        store = Path(folder) / f"killed-{stores}"
        stores += 1
        while True:
            child = in_child(partial(write, sweep, store))
            ended, deadline = 0, time.monotonic() + choice.uniform(0, most)
            while not ended and (killed >= kills or time.monotonic() < deadline):
                time.sleep(0.01)
                ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                assert status == 0, status
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed += 1
        assert not [path for path in store.rglob("*") if path.suffix in TEMPORARY]
        assert checksums(store) == expected
    return f"{killed} writers of {stores} stores killed; all stores have the same bytes"
