"""The benchmarks still run; what they measure is not judged here."""

from __future__ import annotations

import runpy
import sys

import pytest

import mids

SECTIONS = ("speed", "compiled", "analyses", "limit", "threads", "startup", "graph", "memory")


@pytest.fixture
def smoke(monkeypatch, capsys):
    """A section of the benchmarks in small, which returns what it prints."""
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--smoke"])
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    for name in ("integrate", "draw_initial"):  # threads measures them
        monkeypatch.setattr(mids.flows.TwoTimescale, name, getattr(mids.flows.TwoTimescale, name))

    def run(section: str) -> str:
        sys.modules.pop(f"tests.benchmarks.{section}", None)  # runpy warns of what is imported
        runpy.run_module(f"tests.benchmarks.{section}", run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_every_section_runs(smoke):
    printed = "".join(map(smoke, SECTIONS))
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| `")]
    assert [row[2].split(",")[0].strip() for row in rows[:2]] == ["mids", "SciPy LSODA"]
    assert all("2 of 2" in row[4] for row in rows[:2])
    assert all(float(row[5]) < 1e-4 for row in rows[:2])
    assert "two threads" in printed and "import mids" in printed and "peak memory" in printed
    (ladder,) = (row for row in rows if row[1].strip() == "`leaps(1,2,3)`")
    assert 0 < int(ladder[3]) < 1000  # tasks


@pytest.mark.slow
def test_online_descent_is_measured(smoke):
    rows = [line.split() for line in smoke("sgd").splitlines()[2:]]
    assert [row[:2] for row in rows] == [["256", "1"], ["256", "256"]]
    assert all(float(row[k]) > 0 for row in rows for k in (2, 3, 7))
