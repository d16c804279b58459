"""Processes that are killed while they change a catalog.

Processes are forked, so that each costs milliseconds. One kind is killed before each single call
that changes a file, one after the other; the other kind at random times. After each, the catalog
must open, verify, hold the old or the new state, and have no waste in it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np

import mids
from mids.catalog import reindex

CALLS = ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "fsync", "open")


def dataset(number):
    """Return a small dataset that differs from that of other numbers."""
    time_points = np.geomspace(1.0, 10.0, 4)
    ds = mids.from_trajectories(time=time_points, loss=np.exp(-time_points - number), dim=100)
    return ds.assign_attrs(date_created="2026-01-01", history="made")


class Scene:
    """A catalog, another one to merge, and what each change would make of it."""

    def __init__(self, root: Path) -> None:
        self.path = root / "catalog"
        self.data = {n: dataset(n) for n in range(6)}
        self.template = root / "template"
        start = mids.open_catalog(self.template, create=True)
        for n in range(3):
            start.add(self.data[n], key=f"k{n}")
        self.other = mids.open_catalog(root / "other", create=True)
        for n in (0, 3, 4):
            self.other.add(self.data[n], key=f"k{n}")
        self.more = mids.open_catalog(root / "more", create=True)
        self.more.add(self.data[5], key="k5")
        self.more.add(self.data[5], key="k1")
        self.old = self.state(start)
        new = self.state(self.other) | self.state(self.more)
        self.changes = {
            "add": (self.add, self.old | {"k5": new["k5"]}),
            "overwrite": (self.overwrite, self.old | {"k1": new["k1"]}),
            "remove": (self.remove, {k: v for k, v in self.old.items() if k != "k1"}),
            "merge": (self.merge, self.old | {"k3": new["k3"], "k4": new["k4"]}),
            "reindex": (self.reindex, self.old | {"k5": new["k5"]}),
        }

    @staticmethod
    def state(catalog):
        """Return the checksums of all datasets."""
        return {key: entry.sha256 for key, entry in catalog.entries.items()}

    def reset(self, name):
        """Start again from the template."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self.template, self.path)
        if name == "reindex":
            shutil.copy(self.more.path("k5"), self.path / "data")

    def add(self):
        """Add a dataset."""
        mids.open_catalog(self.path).add(self.data[5], key="k5")

    def overwrite(self):
        """Replace one."""
        mids.open_catalog(self.path).add(self.data[5], key="k1", overwrite=True)

    def remove(self):
        """Remove one."""
        mids.open_catalog(self.path).remove("k1")

    def merge(self):
        """Take two from another catalog."""
        mids.open_catalog(self.path).merge(self.other)

    def reindex(self):
        """Take in a file."""
        reindex(self.path)

    def check(self, name):
        """Open what is there, and return whether it is the new state."""
        catalog = mids.open_catalog(self.path)
        found, new = self.state(catalog), self.changes[name][1]
        assert found in (self.old, new), f"{name}: neither old nor new: {sorted(found)}"
        problems = catalog.verify(replay=0).problems
        if name == "reindex" and found == self.old:
            problems = [text for text in problems if "k5-" not in text]
        assert not problems, f"{name}: {problems}"
        waste = {p.name for p in self.path.rglob("*") if p.name.startswith(".")} - {".lock"}
        assert not waste, f"{name}: {waste}"
        return found == new


def in_child(work, before=lambda: None):
    """Fork a process that works and ends; return its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            before()
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def kill_at(step):
    """Make this process kill itself at the step-th call that changes a file."""
    left = step

    def counted(call):
        def wrapper(*given, **options):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given, **options)

        return wrapper

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def at_each_step(scene, names=None, every=1):
    """Kill before each call that changes a file; return how often, by change, and old or new."""
    kills = {}
    for name in names or scene.changes:
        work, outcomes = scene.changes[name][0], []
        while True:
            scene.reset(name)
            child = in_child(work, partial(kill_at, every * len(outcomes)))
            status = os.waitpid(child, 0)[1]
            new = scene.check(name)
            if not os.WIFSIGNALED(status):
                assert status == 0 and new, f"{name} failed"
                break
            outcomes.append(new)
        assert outcomes == sorted(outcomes), f"{name}: not one moment of change: {outcomes}"
        assert not outcomes[0]
        kills[name] = (len(outcomes), sum(outcomes))
    return kills


def at_random(scene, count, seed):
    """Kill at random times until so many were killed in the middle of their work."""
    choose = random.Random(seed)
    durations = {}
    for name, (work, _) in scene.changes.items():
        scene.reset(name)
        started = time.perf_counter()
        assert os.waitpid(in_child(work), 0)[1] == 0
        durations[name] = time.perf_counter() - started
    killed, new = 0, 0
    while killed < count:
        name = choose.choice(list(scene.changes))
        scene.reset(name)
        child = in_child(scene.changes[name][0])
        time.sleep(choose.uniform(0, durations[name]))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        new += scene.check(name)
    return killed, new


def together(scene, writers=3, each=6):
    """Let processes add at once, one of which is killed; all that the others added is there."""
    scene.reset("add")

    def work(writer):
        for i in range(each):
            mids.open_catalog(scene.path).add(scene.data[i], key=f"w{writer}-{i}")

    children = [in_child(lambda writer=writer: work(writer)) for writer in range(writers)]
    victim = in_child(lambda: work("x"))
    time.sleep(0.1)
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    catalog = mids.open_catalog(scene.path)
    expected = {f"w{writer}-{i}" for writer in range(writers) for i in range(each)}
    assert expected <= set(catalog)
    assert catalog.verify(replay=0).ok
    return len(expected)


def kill_writers(folder, kills=100, seed=0):
    """Kill at each step and at random times; return what came of it."""
    scene = Scene(Path(folder))
    steps = at_each_step(scene)
    killed, new = at_random(scene, kills, seed)
    added = together(scene)
    return (
        f"{sum(count for count, _ in steps.values())} killed at each step of {len(steps)} changes, "
        f"{killed} at random times ({new} after the change); {added} of 18 added at once; "
        "no loss, no mix, nothing left over"
    )
