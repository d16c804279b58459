"""Processes that are killed while they change a catalog; `catalog_crashes` does the killing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import mids

HERE = Path(__file__).parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_killed_change_took_place_or_did_not():
    """More than 100 kills at random times, and one before each call that changes a file."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # kills need no disk
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        done = subprocess.run(
            [sys.executable, HERE / "catalog_crashes.py", folder, "--random", "105"],
            env={**os.environ, "PYTHONPATH": str(Path(mids.__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=500,
        )
    assert done.returncode == 0, done.stderr
    assert "killed at 105 random times" in done.stdout
    assert "added at once: 18 of 18" in done.stdout
    steps = re.findall(r"killed at each of (\d+) steps; old state (\d+), new (\d+)", done.stdout)
    assert len(steps) == 5
    assert all(int(old) > 5 and int(new) > 5 for _, old, new in steps)
