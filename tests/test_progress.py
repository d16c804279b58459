"""Progress on terminals and in logs, of sweeps and of analyses."""

from __future__ import annotations

import io
import re
import time

import dask
import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from test_generate import TOY

import mids
from mids import progress
from mids.cli import main
from mids.progress import Progress


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """Time that passes when the test says so."""
    seconds = [0.0]
    monkeypatch.setattr("mids.progress.time.monotonic", lambda: seconds[0])
    monkeypatch.setattr(progress, "DELAY", 2.0)
    monkeypatch.setattr(progress, "LOG_INTERVAL", 60.0)
    return seconds


def test_progress_on_a_terminal(now):
    out = Screen()
    shown = Progress(1000, stream=out)
    shown.keep(200)
    for _ in range(6):
        now[0] += 0.5
        shown.add(50, {"ValueError: no": 1})
    shown.finish()
    frames = out.getvalue().split("\r")
    assert frames[0] == ""
    assert frames[1].startswith("[############                  ] 400 of 1000 runs, 100/s")
    assert "4 failed, about 6 s left" in frames[1]
    assert frames[-1].startswith(f"[{'#' * 15:<30}] 500 of 1000 runs, 100/s, 6 failed")
    assert out.getvalue().endswith("\n")


def test_progress_in_a_log_is_a_line_a_minute(now):
    out = io.StringIO()
    shown = Progress(100_000, stream=out)
    for _ in range(600):
        now[0] += 0.5
        shown.add(10)
    shown.finish()
    lines = out.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[0] == "1200 of 100000 runs, 20/s, about 82 min left"


@pytest.mark.parametrize("screen", [Screen, io.StringIO])
def test_a_cluster_without_workers_is_told_after_two_seconds(now, screen):
    out = screen()
    shown = Progress(100, stream=out)
    for _ in range(40):
        now[0] += 0.5
        shown.wait_for_workers("tcp://host:1" if now[0] < 10 or now[0] > 15 else "")
        shown.tick()
    if screen is Screen:
        assert frames(out)[2] == f"[{'':30}] waiting for workers of tcp://host:1, 2 s"
        assert [frame for frame in frames(out)[3:] if "0 of 100 runs" in frame]
        assert frames(out)[-1].endswith("waiting for workers of tcp://host:1, 4 s")
    else:
        assert out.getvalue() == "waiting for workers of tcp://host:1, 2 s\n" * 2


def test_quick_sweeps_show_nothing(capsys, tmp_path):
    mids.generate(TOY, tmp_path / "sweep")
    assert capsys.readouterr().err == ""


def frames(screen):
    return [frame.strip() for frame in screen.getvalue().replace("\n", "\r").split("\r")]


def test_what_cannot_be_counted_shows_its_time(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.2)
    out = Screen()

    def until(text):
        """Wait until the screen shows it, however slow the machine is."""
        begun, waited = len(out.getvalue()), time.monotonic()
        while text not in out.getvalue()[begun:] and time.monotonic() < waited + 120:
            time.sleep(0.01)

    with progress.watching(doing="drawing", stream=out):
        until("drawing")
        slow = da.ones(4, chunks=1).map_blocks(lambda block: until("tasks") or block)
        with dask.config.set(scheduler="threads", num_workers=1):
            slow.sum().compute(optimize_graph=False)
        until("drawing")
    shown = frames(out)
    assert re.fullmatch(r"drawing, \d+ s", shown[1])
    assert shown[-2].startswith("drawing, ") and shown[-1] == ""
    counted = [frame for frame in shown if "tasks" in frame]
    assert len(counted) > 2 and all(re.match(r"\[#* *\] \d+ of \d+ tasks, ", f) for f in counted)


def test_a_log_hears_nothing_of_short_work():
    out = io.StringIO()
    with progress.watching(doing="drawing", stream=out):
        da.ones(4, chunks=1).sum().compute()
        time.sleep(0.5)
    assert out.getvalue() == ""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "runs.nc"
    mids.to_netcdf(mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=[100, 1000], runs=5), path)
    return path


COMMANDS = {
    "saddles": (["saddles", "{file}"], "measuring saddles"),
    "report": (["report", "{file}", "-o", "{file}.html"], "drawing"),
    "pictures": (
        ["simulate", "--target", "h1(z1)", "--dim", "100", "--runs", "4", "--plot", "{file}.png"],
        "drawing",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_analyse_show_it(file, name, monkeypatch):
    """Every graph they compute is watched, and what is no graph is named."""
    arguments, doing = COMMANDS[name]
    named, units, graphs = [], [], []

    class Recorded(Progress):
        def __setattr__(self, key, value):
            {"doing": named, "unit": units}.get(key, []).append(value)
            super().__setattr__(key, value)

    start = dask.local.start_state_from_dask

    def counted(*args, **options):
        graphs.append(args)
        return start(*args, **options)

    monkeypatch.setattr(progress, "Progress", Recorded)
    monkeypatch.setattr(dask.local, "start_state_from_dask", counted)
    done = CliRunner().invoke(main, [part.format(file=file) for part in arguments])
    assert (done.exit_code, done.stderr) == (0, "")
    assert doing in named
    assert len(units) - len(named) == len(graphs) > 0  # a unit at the beginning of each graph


@pytest.mark.parametrize("with_crossings", [True, False])
@pytest.mark.parametrize("lazy", [True, False])
def test_analyses_mark_runs_that_failed(file, with_crossings, lazy):
    with mids.open_dataset(file, chunks={"run": 2} if lazy else None) as ds:
        ds = ds.assign(status=ds.status.where(ds.run != 3, np.int8(3)).astype("int8"))
        if not with_crossings:
            ds = ds.drop_vars("crossing_time")
        for analyse in (mids.saddles, mids.plateaus):
            found = analyse(ds)
            assert (found.failed.chunks is not None) == lazy
            failed = found.compute().failed
            assert failed.dtype == bool and failed.dims == ("dim", "run")
            np.testing.assert_array_equal(failed, ds.status == 3)
            counts = found[f"n_{analyse.__name__}"]
            assert (counts.isel(run=3) == 0).all() and (counts.isel(run=2) > 0).all()
        bare = mids.plateaus(ds.drop_vars("status"))
        assert bare.failed.dims == ("dim", "run") and not bare.failed.any()
