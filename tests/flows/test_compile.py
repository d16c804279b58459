"""How functions are compiled: by one process at a time, and with a numba that nobody knows yet."""

import os
import subprocess
import sys
import threading

import pytest
from filelock import FileLock
from numba import types

from mids.flows.engine import compile
from mids.flows.engine.compile import entry, separate

NEXT_RELEASE = """
import sys, typing, numpy as np, numba
numba.__version__ = "9.9.0"
from mids.flows.engine import addresses as a, compile as c

class Machine(typing.NamedTuple):
    values: np.ndarray

kind = numba.typeof(Machine(np.zeros(3)))
machine_at = a.value_at(kind)
signature = numba.types.float64(a.ADDRESS, numba.types.int64)

@c.separate(signature)
def double(where, i):
    machine_at(where).values[i] *= 2.0
    return machine_at(where).values[i]

call_double, address_of = a.call_at(signature), a.address_of

@numba.njit
def total(machine, address):
    where = address_of(machine)
    return call_double(address, where, 1) + call_double(address, where, 2)

machine = Machine(np.array([1.0, 2.0, 3.0]))
held = sys.getrefcount(machine.values)
found = total(machine, double.address)
print(found, sys.getrefcount(machine.values) - held, machine.values)
"""


@pytest.mark.slow
def test_the_next_release_of_numba_needs_nothing_undocumented(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(NEXT_RELEASE)
    command = [sys.executable, script]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split(maxsplit=1) == ["10.0", "0 [1. 4. 6.]\n"]


@pytest.mark.parametrize("kind", ["separate", "entry"])
def test_processes_that_start_together_compile_a_function_once(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(compile, "_folder", lambda: tmp_path)
    signature = (types.int64,)
    results = []

    def double(x):
        return 2 * x

    def second():
        wanted = separate(signature, from_python=True) if kind == "separate" else entry({})
        results.append(wanted(double)(3))

    done = compile._marker(double, signature)
    thread = threading.Thread(target=second)
    with FileLock(done.with_suffix(".lock")):  # as another process holds it while it compiles
        thread.start()
        thread.join(0.5)
        assert not results and not list(tmp_path.rglob("*.nbi"))
    thread.join()
    assert results == [6] and done.exists() and list(tmp_path.rglob("*.nbi"))
    with FileLock(done.with_suffix(".lock")):  # what is compiled needs nobody to wait
        second()
    assert results == [6, 6]


def test_compiled_functions_are_kept_for_these_sources_alone(tmp_path, monkeypatch):
    own, chosen = tmp_path / "__pycache__", tmp_path / "chosen"
    for parent in (own, chosen):
        (parent / "mids-before").mkdir(parents=True)
    monkeypatch.setattr(compile, "__file__", str(tmp_path / "compile.py"))
    monkeypatch.setattr(compile._CONFIG, "CACHE_DIR", "")
    assert compile._folder.__wrapped__() == own / f"mids-{compile._SOURCES}"
    assert len(list(own.iterdir())) == 1
    monkeypatch.setattr(compile._CONFIG, "CACHE_DIR", str(chosen))
    assert compile._folder.__wrapped__().parent == chosen
    assert len(list(chosen.iterdir())) == 2  # other versions may share it


def test_failed_compilation_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(compile, "_folder", lambda: tmp_path)
    with pytest.raises(ZeroDivisionError), compile._once(compile._once, ()):
        raise ZeroDivisionError
    assert not list(tmp_path.glob("*.done"))
