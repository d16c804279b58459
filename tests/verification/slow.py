"""What the suite tests in small, at full size: ``python -m pytest tests/verification/slow.py``."""

from __future__ import annotations

import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from scipy.stats import ortho_group

import mids
from tests.flows import test_planted as planted
from tests.flows.test_joint import LADDERS, orders, pair
from tests.test_discovery import check_types


@pytest.mark.parametrize("text", LADDERS)
def test_joint_crossing_times_at_a_thousandth_are_within_a_percent(text):
    slow, fast, relative = pair(text, 1e-3, dim=[1e2, 1e4], runs=4)
    assert (slow.status == 0).all() and (fast.status == 0).all()
    assert np.abs(relative).max() < 0.01


@pytest.mark.parametrize("text", LADDERS[:4])
def test_the_two_timescale_flow_is_the_limit_of_joint_to_first_order(text):
    found = orders(text, (4e-3, 1e-3, 2.5e-4), dim=50, runs=2, rtol=1e-10)
    np.testing.assert_allclose(found, 1, atol=0.05)


def test_joint_runs_that_end_without_numbers_have_failed():
    target = mids.Target.parse("h1(z1) + h1(z1)*h3(z2)").rotate(ortho_group.rvs(2, random_state=1))
    ds = mids.simulate(target, dim=[1e8, 2**53], runs=2, flow="joint").compute()
    np.testing.assert_array_equal(np.isnan(ds.loss).any("time"), ds.status == 3)
    assert not ds.status[0].any()


def test_mypy_sees_functions_and_accessor(tmp_path):
    check_types(tmp_path, ["mypy", "--strict"], r'Revealed type is "(.*)"')


def test_the_engine_runs_with_nothing_undocumented_of_numba(tmp_path):
    code = """
import sys, numba, numpy as np
numba.__version__ = sys.argv[1]
import mids
ds = [
    mids.simulate(text, dim=[1e2, 1e8], runs=3).compute(scheduler="synchronous")
    for text in ("h3(z1)", "h1(z1) + h1(z1)*h3(z2)", "leaps(1,2,3,4)")
]
np.save(sys.argv[2], np.concatenate([each.crossing_time.values.ravel() for each in ds]))
"""
    found = []
    for version in ("9.9.0", numba.__version__):
        file = tmp_path / f"{version}.npy"
        subprocess.run(
            [sys.executable, "-c", code, version, str(file)],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / version)},
            check=True,
        )
        found.append(np.load(file))
    np.testing.assert_allclose(*found, rtol=1e-9)


@pytest.mark.parametrize("flow", ["planted", "joint"])
@pytest.mark.parametrize("seed", range(6))
def test_targets_of_any_kind_are_followed_to_an_end(flow, seed):
    planted.test_targets_of_any_kind_are_followed_to_an_end(flow, seed)


@pytest.mark.parametrize("text", ["h3(z1)", "h1(z1) + h1(z1)*h3(z2)", "h2(z1)*h1(z2)"])
@pytest.mark.parametrize("turned", [False, True])
def test_what_the_planted_flow_holds_is_held_for_good(text, turned):
    planted.test_what_is_held_stays_for_good(text, turned)


def test_escape_times_of_exponent_5_grow_with_the_dimension_as_they_should():
    planted.test_escape_times_grow_with_the_dimension_as_they_should(5, 1.5)
