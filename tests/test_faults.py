"""Small versions of what ``python -m tests.faults`` makes."""

from __future__ import annotations

import pytest

from tests.faults import cluster, fuzz

SWEEP = cluster.SWEEP | {"runs": 60, "chunks": 10, "rtol": 1e-4}


def test_any_arguments_run_or_are_refused_clearly(monkeypatch):
    monkeypatch.setattr(fuzz, "REFUSAL_SECONDS", 20.0)  # slow machines are not slow code
    ends, _ = fuzz.fuzz(150)
    assert ends.total() >= 150
    assert any(end.startswith("ran") for end in ends)
    assert any(end.startswith("refused") for end in ends)


def test_stores_survive_lost_workers(tmp_path):
    pytest.importorskip("distributed")
    assert "same bytes" in cluster.kill_workers(tmp_path, kills=1, sweep=SWEEP)
