"""The manual: its examples print what it shows, and every page is in it."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import browser

FOLDER = Path(__file__).parents[1] / "notebooks"
PAGES = sorted(FOLDER.glob("**/*.md"))
PAGES = [page for page in PAGES if "generated" not in page.parts]
API = [f"generated/mids.{name}" for name in ("simulate", "generate", "Target", "catalog.Catalog")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_print_what_they_show(page, tmp_path, monkeypatch):
    (tmp_path / "catalog").symlink_to(FOLDER.parent / "catalog")
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testfile(str(page), module_relative=False)
    assert failed == 0


def test_every_page_and_flow_is_listed():
    import mids

    listed = set(re.findall(r"^([\w/]+)$", (FOLDER / "index.md").read_text("utf-8"), re.MULTILINE))
    pages = {str(page.relative_to(FOLDER).with_suffix("")) for page in PAGES}
    notebooks = {path.stem for path in FOLDER.glob("*.ipynb")}
    inner = {page for page in pages if page.startswith("flows/") and page != "flows/index"}
    assert pages | notebooks <= listed | inner | {"index"}
    table = (FOLDER / "flows" / "index.md").read_text("utf-8")
    rows = re.findall(r"^\| \[`([\w-]+)`\]\((\w+)\.md\) \| `(\w+)\(", table, re.MULTILINE)
    assert [(name, kind) for name, _, kind in rows] == [
        (flow.name, flow.__name__) for flow in mids.flows.classes()
    ]
    assert {f"flows/{page}" for _, page, _ in rows} == inner


def test_every_command_and_picture_is_named():
    import mids
    from mids.cli import main

    commands = (FOLDER / "command_line.md").read_text("utf-8")
    for name in main.commands:
        assert re.search(rf"`mids {name}\b", commands), f"mids {name}"
    pictures = (FOLDER / "pictures.md").read_text("utf-8")
    for name in set(mids.plot.__all__) - {"check_format"}:
        assert f"`.{name}()`" in pictures, name


@pytest.mark.slow
def test_the_table_of_the_catalog_is_its_index():
    import mids

    catalog = mids.open_catalog(FOLDER.parent / "catalog")
    entries = catalog.entries.values()
    table = "".join(
        f"| `{e.key}` | {e.title} | `{e.target}` | {e.rank} | {e.student_rank} |\n" for e in entries
    )
    assert f"|---|---|---|---|---|\n{table}\n" in (FOLDER / "catalogs.md").read_text("utf-8")
    assert sum(entry.bytes for entry in entries) < 15e6
    assert catalog.verify(replay=0).ok


@pytest.mark.slow
def test_the_site_is_built_without_warnings_and_browsers_show_it(tmp_path):
    for needed in ("sphinx", "myst_nb", "latex2mathml"):
        pytest.importorskip(needed)
    root, site = FOLDER.parent, tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", str(FOLDER), str(site)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    built = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    import mids

    for name in mids.__all__:
        page = site / "generated" / f"mids.{name}.html"
        assert page.exists() or name in ("catalog", "errors", "flows", "plot", "targets"), name
    names = ["index", "concepts", "performance", "datasets", "flows/index", "catalogs"]
    pages = [(site / f"{name}.html").as_uri() for name in [*names, *API]]
    with browser() as look:
        for width in (390, 1400):
            for page, (found, log) in zip(
                pages, look(pages, width, tmp_path / str(width)), strict=True
            ):
                assert log == [], page
                assert found["inner"] == width and found["scroll"] <= width, page
                assert all(loaded for loaded, _ in found["pictures"]), page
