"""Command lines and calls that nobody should make: one line, or an error of the package."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import xarray as xr
from click.testing import CliRunner

import mids
from mids.cli import main

from .hostile import Ends


class Endless:
    """A sequence without an end, which also takes long to show."""

    def __len__(self):
        return 2**62

    def __getitem__(self, index):
        return self

    def __repr__(self):
        return "x" * 10**8


WRONG = (
    None, True, 3, 1e400, "text", "\x1b[31m", b"bytes", 2j, [], {}, (1, 2), {1}, object, object(),
    Endless(), itertools.count(), range(10**12), np.array(["a"]), np.zeros((0, 3)), xr.DataArray(1),
    xr.Dataset(), xr.Dataset({"loss": ("time", [1.0])}), "x" * 10**6, "\ud800", "\x00", Path("."),
    [Endless()], float("nan"), 10**5000,
)  # fmt: skip
TAKE_DATASETS = (
    "compare", "describe", "plateaus", "replay", "saddles", "scaling", "theory", "traps",
    "validate",
)  # fmt: skip


def functions():
    """Return what takes a dataset, a path, or arguments of a simulation first."""
    found = {name: getattr(mids, name) for name in TAKE_DATASETS}
    for name in ("open_dataset", "open_catalog"):
        found[name] = getattr(mids, name)
    found["to_netcdf"] = lambda value: mids.to_netcdf(value, "/dev/null/x.nc")
    found["simulate target"] = lambda value: mids.simulate(value, dim=100)
    for name in ("dim", "runs", "seed", "rtol", "student_rank", "initial", "time", "flow"):
        found[f"simulate {name}"] = lambda value, name=name: mids.simulate(
            "h1(z1)", **{"dim": 100, name: value}
        )
    for name in ("time", "loss", "overlap"):
        found[f"from_trajectories {name}"] = lambda value, name=name: mids.from_trajectories(
            **{"time": [0.0, 1.0], "loss": [1.0, 0.5], name: value}
        )
    return found


def calls(count=1000, seed=0):
    """Call public functions with wrong types."""
    choose = random.Random(seed)
    every = list(itertools.product(functions().items(), WRONG))
    choose.shuffle(every)
    ends = Ends()
    for k in range(count):
        (name, function), value = every[k % len(every)]
        what = f"{name}({type(value).__name__})"
        ends.attempt(lambda f=function, v=value: f(v) and None, what)
    return ends


WORDS = (
    "", ".", "/", "-", "--", "-h", "--help", "--seed", "-1", "1e400", "nan", "\x1b[31m", "a" * 300,
    "x\ud800", "h1(z1)", "h99(z1)", "leaps(1,2)", "nowhere.nc", "http://", "http://[",
    "http://127.0.0.1:9",
    "{loop}", "{folder}", "{secret}", "{catalog}", "--dim", "100", "--runs", "2", "--key",
    "--replay", "0",
    "/dev/null", "../" * 50, "a/" * 2000, "n" * 240 + ".nc",
)  # fmt: skip
COMMANDS = (
    ["info"], ["saddles"], ["replay"], ["targets"], ["flows"], ["catalog", "ls"],
    ["catalog", "add"], ["catalog", "remove"], ["catalog", "verify"], ["catalog", "merge"],
    ["catalog", "reindex"], ["catalog", "fetch"], ["catalog", "build"], ["catalog"], [],
)  # fmt: skip


def command_lines(folder, count=500, seed=0):
    """Run commands with words that make no sense, links in circles and files without permission."""
    choose = random.Random(seed)
    folder = Path(folder)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "secret").write_bytes(b"x")
    mids.open_catalog(folder / "catalog", create=True)
    places = {name: str(folder / name) for name in ("loop", "secret", "catalog")}
    ends = Ends()
    for _ in range(count):
        words = [choose.choice(WORDS) for _ in range(choose.randrange(4))]
        for name, place in (places | {"folder": str(folder)}).items():
            words = [word.replace(f"{{{name}}}", place) for word in words]
        line = [*choose.choice(COMMANDS), *words]

        def use(line=line):
            done = CliRunner().invoke(main, line)
            wrong = done.exception
            if wrong is not None and not isinstance(wrong, SystemExit):
                raise wrong
            assert "Traceback" not in done.output and "\x1b" not in done.output, done.output
            return f"exit code {done.exit_code}"

        ends.attempt(use, line)
    return ends


OPENS = """
import sys, threading
import mids
folder, threads, each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
failures = []
def work(k):
    try:
        for j in range(each):
            with mids.open_dataset(f"{folder}/s{(k + j) % 4 if j % 2 else 0}.nc") as ds:
                if j % 50 == 0:
                    ds.loss.values
    except BaseException as error:
        failures.append(error)
started = [threading.Thread(target=work, args=(k,)) for k in range(threads)]
for thread in started: thread.start()
for thread in started: thread.join()
if failures: raise failures[0]
"""


def opens(folder, total=100_000, threads=8):
    """Open the same and different files in many threads of one process."""
    points = np.geomspace(1.0, 10.0, 5)
    for k in range(4):
        ds = mids.from_trajectories(time=points, loss=np.exp(-points - k), dim=100)
        mids.to_netcdf(ds, Path(folder) / f"s{k}.nc")
    command = [sys.executable, "-c", OPENS, str(folder), str(threads), str(total // threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    return f"{total} opens in {threads} threads: no crash"
