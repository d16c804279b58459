"""Stores that several processes write at once, and whose writers are killed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import mids
from mids.simulation.replay import differences

ROOT = Path(__file__).parents[2]
SWEEP = {
    "target": "h1(z1) + h1(z1)*h3(z2)",
    "dim": [1e2, 1e4, 1e6],
    "runs": 2000,
    "chunks": 50,
    "rtol": 1e-8,
}
SMALL = {"target": "h1(z1)", "dim": [1e2, 1e4], "runs": 40, "chunks": 5, "rtol": 1e-4}

WRITE = """
import json, sys, time
import mids, mids.errors
mids.simulate("h1(z1)", dim=100, runs=2).compute()
print("ready", flush=True)
sys.stdin.readline()
try:
    mids.generate(json.loads(sys.argv[1]), sys.argv[2], progress=False)
    print("written")
except mids.errors.MidsError as error:
    print("refused:", error)
"""


def writer(spec, store):
    """Start a process that writes a store once it is told to."""
    import json

    return subprocess.Popen(
        [sys.executable, "-c", WRITE, json.dumps(spec), str(store)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def race(folder, races=50, sweep=SMALL):
    """Let two processes with other or the same arguments write one store at once."""
    ends = {"written": 0, "refused": 0}
    for number in range(races):
        store = Path(folder) / f"race-{number}"
        seeds = (1, 2 if number % 2 == 0 else 1)
        processes = [writer(sweep | {"seed": seed}, store) for seed in seeds]
        for process in processes:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=300) for process in processes]
        for out, error in said:
            assert not error, error
            ends[out.split()[0].strip(":")] += 1
        winners = {seed for seed, (out, _) in zip(seeds, said, strict=True) if out == "written\n"}
        assert len(winners) == 1, said
        for out, _ in said:
            assert out == "written\n" or "is being written by" in out or "another sweep" in out, out
        (seed,) = winners
        assert not differences(mids.simulate(**sweep | {"seed": seed}), mids.open_dataset(store))
    return f"{races} races: {ends['written']} calls wrote, {ends['refused']} were told; no mix"


def kill_clients(folder, kills=20, sweep=SWEEP, seed=2, least=0.2, most=1.5):
    """Kill the process that writes a store at random moments until it is complete."""
    choice = random.Random(seed)
    store = Path(folder) / "killed"
    killed = 0
    while True:
        process = writer(sweep, store)
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        process.stdin.write("\n")
        process.stdin.flush()
        try:
            process.wait(timeout=choice.uniform(least, most) if killed < kills else None)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
    out, error = process.communicate()
    assert out == "written\n", (out, error)
    assert mids.open_dataset(store).compute().equals(mids.simulate(**sweep).compute())
    return f"{killed} writers killed; equal arrays"
