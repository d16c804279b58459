"""The verification of online gradient descent measures what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import mids
from mids.flows import OnlineSGD

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.verification import sgd


def test_a_slower_clock_is_seen_at_every_level():
    arguments = {"dim": 32, "runs": 3, "time": np.arange(0, 40, 0.01)}
    exact = mids.simulate(sgd.LADDER, **arguments).compute()
    slow = mids.simulate(sgd.LADDER, **{**arguments, "time": arguments["time"] / 1.05}).compute()
    slow = slow.assign_coords(time=exact["time"]).assign(risk=slow["loss"].drop_vars("time"))
    slow["crossing_time"] = 1.05 * slow["crossing_time"]
    away = sgd.differences(slow, exact)
    assert np.isnan(away).sum() < away.size / 4
    np.testing.assert_allclose(away[np.isfinite(away)], np.log(1.05), atol=1e-4)


def test_levels_are_reached_between_times():
    assert sgd._reached(np.array([1.0, 2.0]), np.array([1.0, 0.5]))[:3] == pytest.approx(
        [1.2, 1.6, 1.96]
    )
    assert np.isnan(sgd._reached(np.array([1.0, 2.0]), np.array([1.0, 0.5]))[3:]).all()


def test_tables_have_a_row_for_each_flow_and_dimension():
    flows = [("coarse", OnlineSGD(step=0.05, batch=64))]
    (row,) = sgd.follows(flows, dim=16, runs=2)
    worst, within = float(row.split("|")[4]), row.split("|")[6].strip()
    assert worst > 0.02 and within.endswith("of 2")
    rows = sgd.escapes("h1(z1)", [16, 32], 2, flows[0][1])
    text = sgd.document([row], rows, 16, 2)
    assert len(rows) == 3 and all(line in text for line in [row, *rows])
