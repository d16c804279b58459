"""Settings and fixtures shared by all tests."""

import math
import os
import tempfile
from importlib import import_module
from pathlib import Path

# Several processes test at once: threads that wait for each other's small matrices cost a fifth.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported

import pytest
from hypothesis import settings
from toy_flow import SIMULATED

# What was found out about files, and what was fetched.
_CACHE = tempfile.TemporaryDirectory(prefix="mids-cache-")
os.environ["MIDS_CACHE"] = _CACHE.name

# Times depend on the machine and on who else uses it; they are tested where they matter.
# The same examples in every run, so that a change fails for what it does; other ones are tried by
# ``pytest --hypothesis-profile=random``.
settings.register_profile("mids", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None)
settings.load_profile("mids")


@pytest.fixture(autouse=True)
def nothing_simulated():
    """Forget what other tests have simulated: their order is free."""
    SIMULATED.clear()


@pytest.fixture(autouse=True)
def no_progress():
    """Show none, which depends on the time something takes; tests of progress set their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("mids.simulation.progress"), "DELAY", math.inf)
        yield


STEPS = {"step": 0.1, "batch": 2}
NEURONS = {"neurons": 2, "activation": "h2"}
COMPILED = {
    "two-timescale": [{"target": f"staircase({rank})"} for rank in (1, 2, 3, 4)],
    "online-sgd": [{"flow": STEPS}, {"flow": STEPS | {"sampling": "projected"}}],
    "two-layer": [{"flow": NEURONS}],
    "two-layer-sgd": [{"flow": NEURONS | STEPS}],
}
"""Sweeps that take ten seconds and more to compile where there is no cache yet."""


def pytest_collection_finish(session):
    """Compile every engine once, though several processes of pytest-xdist need all of them."""
    worker = getattr(session.config, "workerinput", None)
    if worker is None or len(session.items) < 1000:
        return
    from filelock import FileLock, Timeout

    shared = Path(tempfile.gettempdir(), f"mids-{worker['testrunuid']}")
    shared.mkdir(exist_ok=True)
    locks = {name: FileLock(shared / f"{name}.lock") for name in COMPILED}
    for name, sweeps in COMPILED.items():
        try:
            with locks[name].acquire(timeout=0):
                if not (shared / name).exists():
                    _compile(name, sweeps)
                    (shared / name).touch()
        except Timeout:  # another process compiles it
            continue
    for lock in locks.values():
        with lock:
            pass


def _compile(name, sweeps):
    import mids

    for sweep in sweeps:
        flow = {"name": name, **sweep.get("flow", {})}
        given = {"target": "h2(z1)", "dim": 16, "runs": 1, "time": [0.0, 0.3], **sweep}
        mids.simulate(**given | {"flow": flow}).compute()
