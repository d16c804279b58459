"""Compilation of the integrator: cached once, for all processes, whenever they start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PIECE = """
from numba import types
from mids.flows._compile import piece

@piece(types.float64(types.float64, types.int64), from_python=True)
def power(base, exponent):
    total = 1.0
    for _ in range(exponent):
        total *= base
    return total

if __name__ == "__main__":
    print(power(1.5, 10), sum(power.stats.cache_hits.values()))
"""
INLINED = """
import mids.flows._compile as compile

@compile.inlined
def square(number):
    return number * number

if __name__ == "__main__":
    function = compile.njit(**compile._OPTIONS)(lambda number: square(number))
    print(function(1.5))
"""
RUN = """
import numpy as np
from mids import Target
from mids.flows import TwoTimescale
from mids.flows.base import Problem
from mids.flows._integrator import integrate_runs, run

target = Target.parse("h1(z1) + h1(z1)*h1(z2)")
problem = Problem(target, 100, np.arange(1), 0, np.full((1, 2, 2), [[0.1, 0], [0, 0.09]]),
                  np.array([0.0, 1e3]), 1e-6)
times = TwoTimescale().integrate(problem)["crossing_time"]
hits = sum(sum(each.stats.cache_hits.values()) for each in (integrate_runs, run))
print(times.tobytes().hex(), hits)
"""


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(processes: list[subprocess.Popen[str]]) -> list[list[str]]:
    printed = []
    for process in processes:
        out, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
        printed.append(out.split())
    return printed


def test_processes_that_start_at_once_with_an_empty_cache(tmp_path):
    script = tmp_path / "power.py"
    script.write_text(PIECE)
    at_once = results([start(tmp_path, str(script)) for _ in range(8)])
    assert {value for value, _ in at_once} == {repr(1.5**10)}
    later = results([start(tmp_path, str(script)) for _ in range(2)])
    assert later == [[repr(1.5**10), "1"]] * 2
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name]


def test_another_version_of_numba_compiles_with_all_of_its_passes(tmp_path):
    other = "import sys, types, numba; numba.version_info = types.SimpleNamespace(short=(9, 0))\n"
    last = "    print('mids.flows._numba_passes' in sys.modules)\n"
    (printed,) = results([start(tmp_path, "-c", other + INLINED + last)])
    assert printed == ["2.25", "False"]
    (printed,) = results([start(tmp_path, "-c", "import sys\n" + INLINED + last)])
    assert printed == ["2.25", "True"]


def test_the_integrator_in_processes_that_start_at_once(tmp_path):
    at_once = results([start(tmp_path, "-c", RUN) for _ in range(2)])
    later = results([start(tmp_path, "-c", RUN)])
    assert len({times for times, _ in at_once + later}) == 1
    assert later[0][1] == "2"


@pytest.mark.parametrize("change", ["", "# another source\n"])
def test_a_change_of_any_source_invalidates_the_cache(tmp_path, change):
    """numba alone would reuse a piece although what it inlined has changed."""
    flows = tmp_path / "flows"
    flows.mkdir()
    for name in ("_compile.py", "_numba_passes.py"):
        shutil.copy(ROOT / "mids/flows" / name, flows)
    (flows / "_power.py").write_text(PIECE.replace("mids.", ""))
    (flows / "_other.py").write_text("")
    script = [
        "-c",
        "import sys; sys.path.insert(0, sys.argv[1]); import flows._power as p; "
        "print(sum(p.power.stats.cache_hits.values()))",
        str(tmp_path),
    ]
    assert results([start(tmp_path, *script)]) == [["0"]]
    (flows / "_other.py").write_text(change)
    assert results([start(tmp_path, *script)]) == [["0" if change else "1"]]
