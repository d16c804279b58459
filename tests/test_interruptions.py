"""Ctrl-C, as a terminal sends it: to the process and to all that it has started."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest
from click.testing import CliRunner

import mids
from mids._interruption import noting_interruptions, repeating_interruptions
from mids.cli import main
from mids.cli.cluster import computing_on
from mids.errors import FileError
from mids.progress import Progress, cluster_client
from mids.simulate import differences

ROOT = Path(__file__).parents[1]
SWEEP = {
    "target": "h1(z1) + h1(z1)*h3(z2)",
    "dim": [100, 10_000],
    "runs": 20_000,
    "chunks": 50,
    "rtol": 1e-6,
}
"""Half a minute of work: an interruption does not come too late because this process is slow."""
SMALL = SWEEP | {"runs": 1000}
COMMAND = """
from mids.__main__ import main
if __name__ == "__main__":
    main()
"""
SCRIPT = """
import dask, mids
from contextlib import nullcontext
if __name__ == "__main__":
    with {context}:
        mids.generate("sweep.toml", "sweep")
"""
CONTEXTS = {
    "threads": "nullcontext()",
    "processes": 'dask.config.set(scheduler="processes", num_workers=2)',
    "workers": "__import__('distributed').Client(n_workers=2, threads_per_worker=1)",
}
PREFIX = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A test that runs in the background has had SIGINT ignored."""


@pytest.fixture
def folder(tmp_path):
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in SWEEP.items())
    (tmp_path / "sweep.toml").write_text("".join(lines))
    return tmp_path


@contextmanager
def started(folder, code, *arguments):
    """Start Python as a terminal does, with processes of its own group."""
    script = folder / "script.py"
    script.write_text(PREFIX + code)
    with subprocess.Popen(
        [sys.executable, script, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def interrupt(process, ready):
    """Press Ctrl-C when it is time to; return what has been written to stderr."""
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=300)  # until all that it started has ended, too
    return message


def records(folder):
    return list((folder / "sweep" / "records").rglob("*.json"))


def wait_for_workers(address):
    """Wait until the workers of a cluster, which outlive the command, have ended their blocks."""
    import distributed

    with distributed.Client(address) as client:
        deadline = time.monotonic() + 120
        while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.client_comms)) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # One thread each: what comes last begins when the block before has been written.
        workers = client.scheduler_info()["workers"]
        client.gather([client.submit(int, workers=[name], pure=False) for name in workers])


def check_store(folder, message):
    """Check that what is kept is what the message says, and that it can be resumed."""
    kept = len(records(folder))
    assert 0 < kept < 800
    assert f" blocks are kept in {folder / 'sweep'}; the same call simulates the others" in message
    said = int(message.rpartition(" of 800 blocks")[0].split()[-1])
    assert said > 0 and (said == kept or (said < kept and f"at least {said} of" in message))
    with pytest.raises(FileError, match=f"not finished: {kept} of 800 blocks are there"):
        mids.open_dataset(folder / "sweep")


def unfinished(folder):
    return list((folder / "sweep").rglob("*.part"))


@pytest.fixture
def sigint():
    """Handle SIGINT as Python does, also where tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.fixture(scope="module")
def address():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.parametrize("on", ["threads", "--workers", "--scheduler"])
def test_the_command_that_generates(folder, on, request):
    options = []
    if on != "threads":
        pytest.importorskip("distributed")
        options = [on, "2" if on == "--workers" else request.getfixturevalue("address")]
    with started(folder, COMMAND, "generate", "--spec", "sweep.toml", "sweep", *options) as process:
        message = interrupt(process, lambda: records(folder))
    assert process.returncode == 130, message
    assert message.splitlines()[-1].startswith("interrupted: "), message
    assert "Traceback" not in message
    if on == "--scheduler":
        wait_for_workers(options[1])
    check_store(folder, message)
    assert not unfinished(folder)


@pytest.mark.parametrize("scheduler", CONTEXTS)
def test_generate_in_python(folder, scheduler):
    with started(folder, SCRIPT.format(context=CONTEXTS[scheduler])) as process:
        message = interrupt(process, lambda: records(folder))
    lines = [line for line in message.splitlines() if line.startswith("KeyboardInterrupt: ")]
    assert len(lines) == 1, message
    check_store(folder, lines[0])
    if scheduler != "workers":  # which are interrupted themselves, while they write
        assert process.returncode == -signal.SIGINT
        assert lines[0] == message.splitlines()[-1] and message.count("Traceback") == 1, message
        assert not unfinished(folder)


@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_the_command_that_simulates(folder, options):
    if options:
        pytest.importorskip("distributed")
    arguments = ("simulate", "--spec", "sweep.toml", "-o", "out.nc", *options)
    with started(folder, COMMAND, *arguments) as process:
        message = interrupt(process, lambda: list(folder.glob(".out.nc.*.part")))
    assert process.returncode == 130, message
    expected = "nothing is kept; mids generate writes sweeps block by block and resumes them"
    assert message.splitlines()[-1] == f"interrupted: {expected}"
    assert "Traceback" not in message
    assert {path.name for path in folder.iterdir()} == {"sweep.toml", "script.py"}


def test_an_interrupted_wait_for_a_cluster_logs_nothing(address, sigint, caplog, tmp_path):
    """Tasks of the client fail once nobody waits, and are reported when they are garbage."""
    main_thread = threading.main_thread().ident
    begun, free = tmp_path / "begun", tmp_path / "free"

    def hold(number):
        begun.touch()
        while not free.exists():
            time.sleep(0.02)

    def press_when_it_waits():
        while not begun.exists():
            time.sleep(0.02)
        signal.pthread_kill(main_thread, signal.SIGINT)

    presser = threading.Thread(target=press_when_it_waits, daemon=True)
    with computing_on(address, None):
        client = cluster_client()
        try:
            with pytest.raises(KeyboardInterrupt), repeating_interruptions():
                presser.start()
                dask.compute(*(dask.delayed(hold)(number) for number in range(3)))
        finally:
            free.touch()
        client.sync(asyncio.sleep, 0.1)
        gc.collect()
    presser.join()
    logged = [record for record in caplog.records if record.name == "asyncio"]
    assert not [record for record in logged if record.levelname in ("ERROR", "CRITICAL")]


# -- interruptions that Python loses -------------------------------------------------------------


class Cycle:
    """Garbage whose destructor presses Ctrl-C."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def press(*_):
    signal.raise_signal(signal.SIGINT)


def in_destructor():
    garbage = Cycle()
    garbage.itself = None
    del garbage


def in_collection():
    Cycle()
    gc.collect()


def in_callback_of_collection():
    presses = iter([press])
    try:
        gc.callbacks.append(lambda *_: next(presses, int)())
        gc.collect()
    finally:
        gc.callbacks.pop()


def in_callback_of_reference():
    referred = threading.Event()
    _reference = weakref.ref(referred, press)
    del referred


LOST = [in_destructor, in_collection, in_callback_of_collection, in_callback_of_reference]


@pytest.mark.parametrize("pressed", LOST)
@pytest.mark.parametrize("times", [1, 3])
def test_lost_interruptions_come_again(sigint, pressed, times):
    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), repeating_interruptions():
        for _ in range(times):
            pressed()
        threading.Event().wait(60)
        pytest.fail("it never came")
    assert sys.unraisablehook is hook
    with pytest.raises(KeyboardInterrupt), repeating_interruptions():
        pressed()  # and the work ends before it comes again


def test_an_interruption_while_a_lock_is_taken_again(sigint):
    """After a wait, as of a queue: without its lock it would end with a RuntimeError."""
    condition = threading.Condition(threading.Lock())
    restore = condition._acquire_restore.__func__.__code__

    def hold():
        with condition:
            condition.notify()
            while sys._current_frames()[main_thread].f_code is not restore:
                time.sleep(0.001)  # until it wants the lock that is held here
            signal.pthread_kill(main_thread, signal.SIGINT)
            time.sleep(0.2)

    main_thread = threading.main_thread().ident
    holder = threading.Thread(target=hold, daemon=True)
    with pytest.raises(KeyboardInterrupt), repeating_interruptions():
        with condition:
            holder.start()
            condition.wait()
        threading.Event().wait(60)
        pytest.fail("it never came")
    holder.join()


@pytest.mark.parametrize("pressed", [press, *LOST])
def test_noted_interruptions_are_not_lost(sigint, pressed):
    with pytest.raises(KeyboardInterrupt), noting_interruptions() as check:
        check()
        pressed()
        with pytest.raises(KeyboardInterrupt):
            check()
        with pytest.raises(KeyboardInterrupt):
            press()  # the second one
    with pytest.raises(KeyboardInterrupt), noting_interruptions():
        pressed()


def test_handlers_of_others_are_left_alone(sigint):
    seen = []
    chosen = lambda *_: seen.append(1)  # noqa: E731
    signal.signal(signal.SIGINT, chosen)
    with noting_interruptions() as check:
        assert signal.getsignal(signal.SIGINT) is chosen
        press()
        check()
    assert seen == [1]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: noting_interruptions().__enter__()()).result()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interruption_lost_while_a_store_is_written(sigint, tmp_path, monkeypatch):
    lost = iter([in_collection])  # a second one would end it at once
    monkeypatch.setattr(Progress, "add", lambda *_: next(lost, int)())
    store = tmp_path / "sweep"
    with (
        dask.config.set(num_workers=2),
        pytest.raises(KeyboardInterrupt, match=r"\d of 40 blocks are kept"),
    ):
        mids.generate(SMALL, store)
    assert 0 < len(list((store / "records").rglob("*.json"))) < 20
    monkeypatch.undo()
    ds = mids.generate(SMALL, store)
    assert not differences(ds.isel(run=slice(50)), mids.replay(ds.isel(run=slice(50))))


def test_an_interruption_lost_while_a_file_is_written(sigint, folder, monkeypatch):
    lost = iter([in_callback_of_collection])
    monkeypatch.setattr(Progress, "add", lambda *_: next(lost, int)())
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(main, ["simulate", "--spec", "sweep.toml", "-o", "out.nc"])
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1].startswith("interrupted: nothing is kept")
    assert [path.name for path in folder.iterdir()] == ["sweep.toml"]


# -- imports -------------------------------------------------------------------------------------

CONSOLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Finder:
    def find_spec(name, path, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder)
from mids.__main__ import main
if __name__ == "__main__":
    sys.exit(main())
"""
"""The script that an installation makes, and a signal while a module is looked for."""


@pytest.mark.parametrize("module", ["xarray", "mids.simulate", "click", "mids.cli", "dask.array"])
def test_ctrl_c_while_the_command_is_imported(tmp_path, module):
    script = tmp_path / "mids"
    script.write_text(CONSOLE.format(module=module))
    done = subprocess.run(
        [sys.executable, script, "simulate", "--target", "h1(z1)", "--dim", "100", "--runs", "2"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("interrupted") and len(done.stderr.splitlines()) == 1


def test_ctrl_c_while_a_script_imports_the_package(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CONSOLE.format(module="xarray"))
    done = subprocess.run(
        [sys.executable, script], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr.rstrip().endswith(b"KeyboardInterrupt")
