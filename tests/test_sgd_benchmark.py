"""The benchmark of online gradient descent runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_benchmark_runs():
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.sgd", "--smoke"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["256", "1"], ["256", "256"]]
    assert all(float(row[k]) > 0 for row in rows for k in (2, 3, 7))
