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


def test_it_fits_one_screen_and_its_links_lead_somewhere():
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 120
    for link in re.findall(r"\]\(([^)h][^)]*)\)", text):
        assert (README.parent / link).exists(), link


def test_every_extra_that_is_installed_exists():
    import tomllib

    text = README.read_text("utf-8")
    extras = tomllib.loads((README.parent / "pyproject.toml").read_text("utf-8"))
    known = extras["project"]["optional-dependencies"]
    named = {name for group in re.findall(r'"\.\[([\w,]+)\]"', text) for name in group.split(",")}
    assert named == {"plot", "test", "docs"} <= known.keys()


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
