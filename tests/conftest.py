"""Settings and fixtures shared by all tests."""

import gc
import math
import os
import tempfile
from importlib import import_module

# Several processes test at once: threads that wait for each other's small matrices cost a fifth.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported
# Workers that live for seconds would spend half of them on a profile of their imports.
os.environ.setdefault("DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED", "False")

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


def pytest_collection_finish():
    """Do not look for cycles in what is imported, which takes a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_disks():
    """Skip fsync, which guards against loss of power: a small store waits for 168 of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


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
