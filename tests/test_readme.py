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


def test_every_flow_is_in_the_table():
    import mids

    rows = re.findall(r"^\| `([\w-]+)` \| `(\w+)\(", README.read_text("utf-8"), re.MULTILINE)
    assert rows == [(flow.name, flow.__name__) for flow in mids.flows.classes()]


def test_every_command_and_picture_is_named():
    import mids
    from mids.accessor import PlotAccessor
    from mids.cli import main

    text = README.read_text("utf-8")
    for name in main.commands:
        assert re.search(rf"`(mids )?{name}`", text), f"mids {name}"
    pictures = {name for name in vars(PlotAccessor) if not name.startswith("_")}
    for name in pictures | set(mids.plot.__all__) - {"check_format"}:
        assert re.search(rf"`(ds\.mi\.plot|mids\.plot)?\.{name}(\(\))?`", text), name


def test_every_extra_that_is_installed_exists():
    import tomllib

    text = README.read_text("utf-8")
    extras = tomllib.loads((README.parent / "pyproject.toml").read_text("utf-8"))
    known = extras["project"]["optional-dependencies"]
    named = {name for group in re.findall(r'"\.\[([\w,]+)\]"', text) for name in group.split(",")}
    assert named == {"plot", "test", "notebooks"} <= known.keys()


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
    assert_alike(README.parent / ".github" / "ladder.png", tmp_path / "ladder.png")


def assert_alike(*paths):
    """Two images look the same from some distance, whatever the version of matplotlib."""
    import numpy as np
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    kept, drawn = (Image.open(path).convert("L").resize((450, 480)) for path in paths)
    blurred = [gaussian_filter(np.asarray(image, dtype=float), 4) for image in (kept, drawn)]
    assert np.abs(blurred[0] - blurred[1]).max() < 20


def test_the_table_of_the_catalog_is_its_index():
    import mids

    catalog = mids.open_catalog(README.parent / "catalog")
    entries = catalog.entries.values()
    table = "".join(
        f"| `{e.key}` | {e.title} | `{e.target}` | {e.rank} | {e.student_rank} |\n" for e in entries
    )
    assert f"|---|---|---|---|---|\n{table}\n" in README.read_text("utf-8")
    assert sum(entry.bytes for entry in entries) < 15e6
    assert catalog.verify(replay=0).ok
