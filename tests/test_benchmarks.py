"""The benchmarks still run; what they measure is not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def benchmarks(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--smoke", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_section_runs():
    printed = benchmarks("speed", "compiled", "analyses", "limit", "threads", "startup", "graph")
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| `")]
    assert [row[2].split(",")[0].strip() for row in rows[:2]] == ["mids", "SciPy LSODA"]
    assert all("2 of 2" in row[4] for row in rows[:2])
    assert all(float(row[5]) < 1e-4 for row in rows[:2])
    assert "two threads" in printed and "import mids" in printed
    (ladder,) = (row for row in rows if row[1].strip() == "`leaps(1,2,3)`")
    assert 0 < int(ladder[3]) < 1000  # tasks


def test_memory_is_set_by_blocks():
    """A dataset of 1 GB in less than 0.6 GB, most of which are the libraries."""
    printed = benchmarks("memory")
    size, peak = printed.split(" GB: peak memory ")
    assert float(size.split()[-1]) >= 1
    assert float(peak.split()[0]) < 600
