"""The verification of online gradient descent measures what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import mids

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


def test_levels_that_are_not_reached_are_the_worst():
    away = np.array([[0.01, -0.03], [0.0, np.nan]])
    assert sgd.worst(away).tolist() == [0.03, np.inf]


def test_tables_have_a_row_for_each_flow_run_and_dimension(monkeypatch):
    for name, value in {
        "STEPS": [(0.1, 1024), (0.05, 512)],
        "BATCHES": [(0.02, 256), (0.02, 1024)],
        "DRAWN": [(0.05, 64)],
        "RANDOM": [(8, 1e-3)],
        "RANDOM_STEP": (0.05, 64),
        "FAR_BATCHES": [64],
    }.items():
        monkeypatch.setattr(sgd, name, value)
    tables = {
        "orders": sgd.orders(16, 3),
        "follows": sgd.follows(16, 2),
        "random_features": sgd.random_features(16, 2),
        "escapes": sgd.escapes("h1(z1)", [16, 32], 2),
        "far_starts": sgd.far_starts(16, 2),
    }
    assert [len(rows) for rows in tables.values()] == [6, 4, 1, 3, 3]
    assert all(row.split("|")[8].strip().endswith("of 3") for row in tables["orders"][:2])
    order = float(tables["orders"][2].split("order ")[1].split()[0])
    assert 0.3 < order < 2  # a bias of first order, roughly, at such steps
    text = sgd.document(tables, 16, 2)
    assert all(row in text for rows in tables.values() for row in rows)
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 100
