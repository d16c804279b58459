"""What the README shows is what happens."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(README), module_relative=False)
    assert tried > 5
    assert failed == 0


def test_the_commands_make_their_environment_themselves():
    commands = re.findall(r"^python3 -m venv .*$", README.read_text("utf-8"), re.MULTILINE)
    assert ["mids simulate" in command for command in commands] == [True, False]
    assert all(".venv/bin/pip install" in command for command in commands)


def test_the_table_of_the_main_job(monkeypatch, tmp_path):
    """The table shown is that of the command shown."""
    from click.testing import CliRunner

    from mids.cli import main

    monkeypatch.chdir(tmp_path)
    text = README.read_text("utf-8")
    arguments = re.search(r"bin/mids (simulate .*)$", text, re.MULTILINE)
    shown = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    if arguments is None or shown is None:
        pytest.fail("the README has no main job")
    import shlex

    result = CliRunner().invoke(main, shlex.split(arguments[1]))
    assert result.exit_code == 0
    assert shown[1].strip() in result.stdout


def test_the_table_of_the_catalog_is_its_index():
    import mids
    from mids.catalog.display import markdown

    catalog = mids.open_catalog(README.parent / "catalog")
    assert markdown(catalog.entries.values()) in README.read_text("utf-8")
    assert sum(entry.bytes for entry in catalog.entries.values()) < 15e6
    assert catalog.verify(replay=0).ok
