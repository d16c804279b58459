"""The verification of online gradient descent measures what it says."""

from __future__ import annotations

import numpy as np
import pytest

import mids
from tests.verification import feature_flow, log_time, sgd, small_starts


def test_a_slower_clock_is_seen_at_every_level():
    arguments = {"dim": 32, "runs": 3, "time": np.arange(0, 40, 0.01)}
    exact = mids.simulate(log_time.LADDER, **arguments).compute()
    slow = mids.simulate(
        log_time.LADDER, **{**arguments, "time": arguments["time"] / 1.05}
    ).compute()
    slow = slow.assign_coords(time=exact["time"]).assign(risk=slow["loss"].drop_vars("time"))
    slow["crossing_time"] = 1.05 * slow["crossing_time"]
    away = log_time.differences(slow, exact)
    reached = away != 0
    assert reached.mean() > 3 / 4
    np.testing.assert_allclose(away[reached], np.log(1.05), atol=1e-4)


def test_levels_are_reached_between_times():
    assert log_time._reached(np.array([1.0, 2.0]), np.array([1.0, 0.5]))[:3] == pytest.approx(
        [1.2, 1.6, 1.96]
    )
    assert np.isnan(log_time._reached(np.array([1.0, 2.0]), np.array([1.0, 0.5]))[3:]).all()


def test_levels_that_are_not_reached_are_the_worst():
    away = np.array([[0.01, -0.03], [0.0, np.nan]])
    assert log_time.worst(away).tolist() == [0.03, np.inf]


def test_the_flow_of_many_features_is_that_of_the_target():
    """With a small ridge the best link in many random features is the averaged target."""
    flow = log_time.descent(0.1, 64, readout="random-features", features=150, ridge=1e-9)
    target, start = mids.Target.parse(log_time.LADDER), np.array([[0.3, 0.1], [-0.05, 0.2]])
    features = flow.link.build(target, 2, np.random.default_rng(0))
    times = np.arange(0, 10, 0.01)
    own = feature_flow.feature_flow(flow.link, target, features, start, times)
    arguments = {"dim": 64, "runs": 1, "initial": start, "time": times}
    exact = mids.simulate(log_time.LADDER, **arguments).compute()
    np.testing.assert_allclose(own["loss"], exact["loss"], atol=1e-4)
    np.testing.assert_allclose(own["crossing_time"], exact["crossing_time"], rtol=1e-4)


def test_shifts_are_those_of_a_kicked_start():
    """Against the flow from starts whose second direction is m + g sqrt(step / batch)."""
    m, last = 1e-3, 11.0
    found = small_starts.shifts(0.5, last)
    kicks = np.random.default_rng(0).standard_normal(20_000)
    kicked = last - 2 * np.log(np.abs(m + 0.5 * m * kicks) / m)
    assert np.median(found) == pytest.approx(np.median(np.log(kicked / last)), abs=2e-3)
    assert np.std(found) == pytest.approx(np.std(np.log(kicked / last)), rel=0.1)
    assert np.std(small_starts.shifts(0.01, last)) == pytest.approx(2 * 0.01 / last, rel=0.01)


@pytest.mark.slow
def test_tables_have_a_row_for_each_flow_run_and_dimension(monkeypatch):
    for name, value in {
        "STEPS": [(0.1, 1024), (0.05, 512)],
        "BATCHES": [(0.02, 256), (0.02, 1024)],
        "DRAWN": [(0.05, 64)],
        "FAR_BATCHES": [64],
    }.items():
        monkeypatch.setattr(sgd, name, value)
    monkeypatch.setattr(feature_flow, "RANDOM", [(8, 1e-3)])
    monkeypatch.setattr(feature_flow, "RANDOM_STEP", (0.05, 64))
    monkeypatch.setattr(small_starts, "SMALL", [(0.05, 64)])
    tables = {
        "orders": sgd.orders(16, 3),
        "follows": sgd.follows(16, 2),
        "small_starts": sgd.small_starts(64, 3, 2),
        "random_features": sgd.random_features(16, 2),
        "escapes": sgd.escapes("h1(z1)", [16, 32], 2),
        "far_starts": sgd.far_starts(16, 2),
    }
    assert [len(rows) for rows in tables.values()] == [6, 4, 1, 1, 3, 3]
    assert all(row.split("|")[8].strip().endswith("of 3") for row in tables["orders"][:2])
    order = float(tables["orders"][2].split("order ")[1].split()[0])
    assert 0.3 < order < 2  # a bias of first order, roughly, at such steps
    text = sgd.document(tables, 16, 2)
    assert all(row in text for rows in tables.values() for row in rows)
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 100
