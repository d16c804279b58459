"""The page about a dataset: what it says, that it needs nothing else, how a browser shows it."""

from __future__ import annotations

import tomllib
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import browser
from click.testing import CliRunner

import mids
from mids.cli import main
from mids.report import page, recipe
from mids.simulation.simulate import differences, from_spec

pytest.importorskip("matplotlib").use("Agg")


@pytest.fixture(scope="module")
def ds():
    return mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=[100, 10_000], runs=6, seed=2).compute()


@pytest.fixture(scope="module")
def text(ds):
    return page(ds, "ladder.nc")


class Reader(HTMLParser):
    """Collects what a page refers to, and checks that its elements are closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.references, self.cells = [], [], []

    def handle_starttag(self, tag, attrs):
        self.references += [value for name, value in attrs if name in ("src", "href", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.slow
def test_it_is_one_file(text):
    reader = read(text)
    assert len(reader.references) == 7  # six pictures and no icon
    assert all(reference.startswith("data:") for reference in reader.references)
    assert "<script" not in text and "@import" not in text and "url(" not in text


def test_the_table_is_the_comparison(ds, text):
    cells = read(text).cells
    medians = ds.mi.compare().escape_time.median("run").values
    for value in medians.ravel():
        assert f"{value:.4g}" in cells
    assert "1 -> 3: log d, d^2" in cells
    assert "12 converged" in cells


def test_it_says_where_the_data_come_from(ds, text):
    for name in ("title", "summary", "source", "date_created", "license"):
        assert str(ds.attrs[name]).replace("'", "&#39;") in text
    assert "mids replay ladder.nc\nmids report ladder.nc -o report.html" in text


def test_texts_of_the_file_are_escaped(ds):
    hostile = ds[["loss", "recipe"]].isel(dim=[0])  # few pictures
    hostile.attrs |= {"title": '<script>alert("1")</script>', "source": "a & b $title"}
    text = page(hostile, "it's <b>.nc")
    assert "<script" not in text and "<b>" not in text
    assert "a &amp; b $title" in text
    assert "mids replay &#39;it&#39;&#34;&#39;&#34;&#39;s &lt;b&gt;.nc&#39;" in text
    read(text)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"flow": mids.flows.TwoTimescale(ridge=0.1)},
        {"flow": "planted"},
        {"student_rank": 3, "seed": 5, "rtol": 1e-6},
        {"time": [0.0, 1.0, 1e3], "initial": np.eye(2) * 0.1},
    ],
)
def test_the_recipe_makes_the_data_again_bit_by_bit(arguments):
    ds = mids.simulate("1/3*h1(z1) + h1(z1)*h2(z2)", dim=[100], runs=2, **arguments)
    again = from_spec(tomllib.loads(recipe(ds)))
    assert differences(ds, again) == []


@pytest.mark.slow
def test_the_command_writes_the_page(ds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mids.to_netcdf(ds.isel(dim=[1]).drop_vars(["overlap", "energy"]), "runs.nc")
    result = CliRunner().invoke(main, ["report", "runs.nc", "-o", "runs.html"])
    assert (result.exit_code, result.output) == (0, "wrote runs.html\n")
    assert "mids replay runs.nc" in (tmp_path / "runs.html").read_text("utf-8")
    missing = CliRunner().invoke(main, ["report", "nothing.nc"])
    assert missing.exit_code == 2 and "nothing.nc" in missing.output
    assert not (tmp_path / "report.html").exists()


def test_a_curve_from_outside_has_a_page():
    grid = np.linspace(0, 60, 301)
    loss = 0.25 - 0.25 * np.tanh((grid - 30) / 2)
    text = page(mids.from_trajectories(time=grid, loss=loss, dim=50))
    assert "Not compared with theory" in text
    assert text.count("<img") == 1
    assert "sweep.toml" not in text and "mids replay" not in text
    assert "mids report dataset.nc" in text


@pytest.mark.slow
def test_plateaus_of_a_page_have_the_scale_and_confidence_that_are_asked_for(tmp_path):
    grid = np.linspace(0, 60, 301)
    noise = 0.02 * np.random.default_rng(0).standard_normal(301)
    loss = 0.25 - 0.25 * np.tanh((grid - 30) / 2) + noise
    ds = mids.from_trajectories(time=grid, loss=loss, dim=50)
    assert page(ds) != page(ds, scale="linear")
    mids.to_netcdf(ds, tmp_path / "run.nc")
    command = ["report", str(tmp_path / "run.nc"), "-o", str(tmp_path / "run.html")]
    refused = CliRunner().invoke(main, [*command, "--confidence", "2"])
    assert refused.exit_code != 0 and "confidence must be" in refused.output
    done = CliRunner().invoke(main, [*command, "--scale", "linear"])
    assert done.exit_code == 0, done.output


def test_what_has_no_loss_has_no_page(ds):
    with pytest.raises(mids.errors.DatasetError, match="loss"):
        page(ds.drop_vars("loss"))
    with pytest.raises(mids.errors.DatasetError, match=r"plot\.success"):
        page(mids.phase_diagram("h1(z1)", dim=8, n=[5], runs=1))


@pytest.mark.slow
def test_columns_without_content_are_left_out(ds, text):
    assert not {"trapped", "failed"} & set(read(text).cells)
    planted = mids.simulate("h3(z1)", dim=100, runs=8, flow="planted").compute()
    planted = planted.drop_vars(["overlap", "energy"])  # whose pictures take longest
    assert "trapped" in read(page(planted)).cells


# -- in a browser -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_browser_shows_all_of_it(text, tmp_path):
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    with browser() as look:
        for width in (390, 1400):
            found, log = look((tmp_path / "page.html").as_uri(), width, tmp_path / str(width))
            assert log == []
            assert found["inner"] == width and found["scroll"] <= width
            assert len(found["pictures"]) == 6
            assert all(loaded and 340 <= wide <= 600 for loaded, wide in found["pictures"])
            assert found["size"] >= 16
