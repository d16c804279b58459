"""Small versions of what ``python -m tests.faults`` makes."""

from __future__ import annotations

import pytest

import mids
from mids.catalog import remote
from tests.faults import calls, cluster, fuzz, hostile, kills

SWEEP = cluster.SWEEP | {"runs": 60, "chunks": 10, "rtol": 1e-4}


def test_any_arguments_run_or_are_refused_clearly(monkeypatch):
    monkeypatch.setattr(fuzz, "REFUSAL_SECONDS", 20.0)  # slow machines are not slow code
    ends, _ = fuzz.fuzz(150)
    assert ends.total() >= 150
    assert any(end.startswith("ran") for end in ends)
    assert any(end.startswith("refused") for end in ends)


@pytest.mark.slow
def test_stores_survive_lost_workers(tmp_path):
    pytest.importorskip("distributed")
    assert "same bytes" in cluster.kill_workers(tmp_path, kills=1, sweep=SWEEP)


@pytest.mark.slow
def test_hostile_recipes_and_indexes_are_refused_or_harmless(tmp_path):
    assert hostile.recipes(30)["refused in part"] > 10
    assert hostile.indexes(tmp_path, 30)["refused"] > 5


def test_harmful_files_are_refused_by_path(tmp_path):
    content = hostile.catalog_of_two(tmp_path / "catalog").path("k0").read_bytes()
    for harm in hostile.REFUSED:
        path = hostile.made(harm, content, tmp_path)
        with pytest.raises(mids.errors.FileError, match=rf"{harm.__name__}\.nc cannot be used"):
            mids.open_dataset(path)


def test_files_with_changed_bytes_are_refused_or_harmless(tmp_path):
    assert hostile.files(tmp_path, 3, seed=1, harms=()).total() == 3


def test_hostile_servers_are_left(monkeypatch):
    pytest.importorskip("pooch")
    for name in ("WAIT_SECONDS", "PATIENCE_SECONDS"):
        monkeypatch.setattr(remote, name, 0.2)
    names = ("slow headers", "endless", "odd location", "to a file", "escapes", "short", "deep")
    assert hostile.servers(len(names), names)["refused"] == len(names)


def test_command_lines_end_in_a_line_and_calls_in_an_error_of_the_package(tmp_path):
    assert calls.command_lines(tmp_path, 20)["exit code 2"] > 10
    assert calls.calls(40, simulated=False)["refused"] > 20


@pytest.mark.slow
def test_writers_of_catalogs_are_killed_without_a_loss(tmp_path):
    done = kills.at_each_step(kills.Scene(tmp_path), names=("overwrite",), every=10)
    assert done["overwrite"][0] > 3
