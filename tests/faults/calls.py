"""Command lines and calls that nobody should make: one line, or an error of the package."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from click.testing import CliRunner

import mids
from mids import validation
from mids.cli import main
from mids.plot.layout import Options

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
SLOW = ("race", "generate", "phase_diagram", "plot.animate", "plot.loss", "plot.phase")
NOT_FOR_USERS = (
    "AdditiveTarget",
    "Catalog",
    "Flow",
    "FlowSweep",
    "Neurons",
    "Problem",
    "Verification",
)


def functions(simulated=True):
    """Return public functions by name, with arguments that are right; all or the quick ones."""
    target = mids.Target.parse("h1(z1) + h2(z2)")
    points = {"time": [0.0, 1.0], "loss": [1.0, 0.5]}
    runs = mids.from_trajectories(**points, dim=100)
    subjects = {"ds": runs}
    if simulated:
        runs = mids.simulate("h1(z1)", dim=[100, 1000], runs=3, rtol=1e-4).compute()
        subjects = {"ds": runs, "comparison": mids.compare(runs), "counts": mids.traps(runs)}
        diagram = mids.phase_diagram("h1(z1)", dim=20, n=[20], runs=2, duration=0.1)
        subjects["diagram"] = diagram.compute()  # or the first call that is right compiles its flow
    right = {
        "Recorder": {"W_star": np.eye(3)},
        "Target": {"coefficients": {(1,): 1.0}},
        "AdditiveTarget": None,  # from `additive`
        "combine_attrs": {"variable_attrs": [runs.attrs]},
        "concat": {"datasets": [runs], "dim": "run"},
        "from_trajectories": points,
        "generate": {
            "spec": {"target": "h1(z1)", "dim": 100, "runs": 2, "chunks": 1},
            "store": "s",
        },
        "open_catalog": {"path": "/dev/null/x"},
        "reindex": {"path": "/dev/null/x"},
        "open_dataset": {"path": "/dev/null/x"},
        "overlaps": {"W": np.eye(3), "W_star": np.eye(3)},
        "phase_diagram": {"target": "h1(z1)", "dim": 20, "n": [20]},
        "race": {"target": "h1(z1)", "dim": 100, "runs": 2},
        "simulate": {"target": "h1(z1)", "dim": 100},
        "theory": {"ds": "h1(z1)", "dim": 100},
        "flows.HermiteKernel": {"exponential": 1.0},
        "to_netcdf": {"ds": runs, "path": "/dev/null/x.nc"},
        "plot.check_format": {"path": Path("x.png")},
        "targets.additive": {"coefficients": [1.0], "link": "h2"},
        "targets.hermite": {"degree": 2},
        "targets.leaps": {"orders": [1, 2]},
        "flows.from_dict": {"data": {"name": "planted"}},
        "flows.get": {"flow": "planted"},
        "flows.Empirical": {"n": 10},
        "Target.from_dict": {"data": target.to_dict()},
        "Target.from_function": {"function": lambda z: z[:, 0], "rank": 1, "degree": 3},
        "Target.from_json": {"text": target.to_json()},
        "Target.parse": {"text": "h1(z1)"},
        "Target.rotate": {"rotation": np.eye(2)},
    }
    if simulated:
        right["plot.animate"] = {"ds": runs.isel(dim=0, run=0), "frames": 2}
        two = mids.simulate(target, dim=100, runs=2, rtol=1e-4).compute()
        right["plot.phase"] = {"ds": two}
    guesses = {"target": "h1(z1)", "rank": 2, **subjects}
    found = {}
    owners = {"": mids, "plot.": mids.plot, "targets.": mids.targets, "flows.": mids.flows,
              "catalog.": mids.catalog, "Target.": target}  # fmt: skip
    for place, owner in owners.items():
        for name in getattr(owner, "__all__", dir(owner)):
            function = getattr(owner, name)
            skipped = name.startswith("_") or name in NOT_FOR_USERS or not callable(function)
            parameters = {} if skipped else inspect.signature(function).parameters
            kinds = [p.kind for p in parameters.values()]
            if skipped or not parameters or inspect.Parameter.VAR_POSITIONAL in kinds:
                continue
            taken = [p.name for p in parameters.values() if p.kind != p.VAR_KEYWORD]
            if len(taken) < len(parameters) and place == "plot.":
                taken += Options.__annotations__
            given = right.get(place + name, right.get(name))
            if given is None:
                needed = {n for n in taken if n in parameters}
                needed -= {n for n in needed if parameters[n].default is not inspect._empty}
                if not needed <= guesses.keys():
                    continue
                given = {n: guesses[n] for n in needed}
            if not simulated and place + name in SLOW:
                continue
            found[place + name] = (function, given, taken)
    return found


def calls(count=1000, seed=0, simulated=True):
    """Call public functions with one argument of a wrong type or value."""
    choose = random.Random(seed)
    known = functions(simulated)
    every = [
        (name, parameter, value)
        for (name, (_, _, parameters)), value in itertools.product(known.items(), WRONG)
        for parameter in parameters
    ]
    ends = Ends()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name, parameter, value in choose.sample(every, min(count, len(every))):
            function, given, _ = known[name]

            def use(function=function, given=given | {parameter: value}):
                function(**given)
                plt.close("all")

            ends.attempt(use, f"{name}({parameter}={validation.shown(value)})")
    return ends.all_well()


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
    return ends.all_well()


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
