"""Pictures: what is drawn, where, and on which axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from toy_flow import ToyFlow

import mids
from mids.errors import DatasetError, InputError, MissingDependencyError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

DIMS = [100, 10_000, 54_321]
TIME = np.concatenate([[0.0], np.geomspace(1e-3, 1e9, 200)])


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def ds():
    flow = ToyFlow()
    return mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=DIMS, runs=9, flow=flow, time=TIME).compute()


@pytest.fixture(scope="module")
def comparison(ds):
    """What a perfect theory of the toy flow would give."""
    escape = ds.crossing_time.sel(level=0.5, drop=True).rename(direction="saddle")
    level = xr.zeros_like(escape) + xr.DataArray([0.5, 0.25], dims="saddle")
    return xr.Dataset(
        {
            "escape_time": escape,
            "escape_time_theory": escape * 1.01,
            "loss": level,
            "loss_theory": level,
        }
    )


TRAJECTORIES = {
    "loss": (mids.plot.loss, "loss"),
    "overlap": (mids.plot.overlap, "overlap"),
    "modes": (mids.plot.modes, "contribution to h(G)"),
}
FACETED = {**TRAJECTORIES, "phase": (mids.plot.phase, "overlap of direction 2")}


@pytest.mark.parametrize("name", FACETED)
def test_one_labelled_panel_for_each_dimension(ds, name):
    draw, label = FACETED[name]
    panels = draw(ds)
    assert panels.shape == (3,)
    assert panels[0].get_ylabel() == label
    assert panels[-1].get_xlabel()
    assert [ax.get_title(loc="right") for ax in panels] == [
        "d = $10^{2}$",
        "d = $10^{4}$",
        "d = 54321",
    ]
    panels[0].figure.canvas.draw()


@pytest.mark.parametrize("name", FACETED)
def test_given_axes_are_drawn_into_and_returned(ds, name):
    figure, axes = plt.subplots(3)
    panels = FACETED[name][0](ds, axes=axes)
    assert list(panels) == list(axes)
    assert plt.get_fignums() == [figure.number]
    (single,) = FACETED[name][0](ds.isel(dim=0), axes=axes[0])
    assert single is axes[0]


@pytest.mark.parametrize("name", FACETED)
def test_a_wrong_number_of_axes_is_an_error(ds, name):
    with pytest.raises(InputError, match="each of the 3 dims, got 2"):
        FACETED[name][0](ds, axes=plt.subplots(2)[1])


@pytest.mark.parametrize("name", FACETED)
def test_lazy_datasets_and_single_runs_are_drawn(name):
    lazy = mids.simulate("staircase(2)", dim=100, runs=3, flow=ToyFlow(), time=TIME)
    FACETED[name][0](lazy)
    FACETED[name][0](lazy.isel(run=0))


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_the_time_axis_stops_where_nothing_happens_any_more(ds, name):
    for ax in TRAJECTORIES[name][0](ds):
        low, high = ax.get_xlim()
        assert ax.get_xscale() == "log"
        assert 1e-3 < low < 1
        assert 100 < high < 1e5
        assert high > float(ds.crossing_time.sel(level=0.9).quantile(0.8))


def test_the_theory_is_marked_where_it_belongs(ds, comparison):
    panels = mids.plot.loss(ds, comparison)
    for index, ax in enumerate(panels):
        lines = [line.get_xydata() for line in ax.get_lines()]
        levels = sorted(xy[0, 1] for xy in lines if len(xy) == 2 and xy[0, 1] == xy[1, 1])
        times = sorted(xy[0, 0] for xy in lines if len(xy) == 2 and xy[0, 0] == xy[1, 0])
        assert levels == [0.25, 0.5]
        expected = comparison.escape_time_theory[index].median("run").values
        np.testing.assert_allclose(times, expected, rtol=1e-12)
    texts = [text.get_text() for text in panels[-1].get_legend().get_texts()]
    assert texts == ["runs", "typical run", "theory: loss of plateaus", "theory: median escape"]


def test_the_dark_line_is_a_run(ds):
    (ax, *_) = mids.plot.loss(ds)
    drawn = ax.get_lines()[0].get_ydata()
    assert any(np.array_equal(drawn, run) for run in ds.loss.values[0])


def test_censored_saddles_are_not_drawn_as_numbers(ds, comparison):
    never = comparison.copy()
    never["escape_time_theory"] = comparison.escape_time_theory.where(comparison.saddle == 0)
    (ax, *_) = mids.plot.loss(ds, never)
    vertical = [
        xy for xy in (line.get_xydata() for line in ax.get_lines()) if xy[0, 0] == xy[-1, 0]
    ]
    assert len(vertical) == 1


def test_lines_differ_without_colour(ds):
    (ax, *_) = mids.plot.overlap(ds)
    drawn = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
    assert len({line.get_linestyle() for line in drawn}) == len(drawn) == 2
    for name in TRAJECTORIES:
        for panel in TRAJECTORIES[name][0](ds):
            for line in panel.get_lines():
                assert len(set(matplotlib.colors.to_rgb(line.get_color()))) == 1


def test_contributions_are_stacked_to_the_norm(ds):
    panels = mids.plot.modes(ds)
    top = max(path.vertices[:, 1].max() for c in panels[0].collections for path in c.get_paths())
    assert top == pytest.approx(1.0, abs=1e-3)


def test_time_scales_have_both_axes_logarithmic(comparison):
    ax = mids.plot.timescales(comparison)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(labels) == ["saddle 1", "saddle 2", "theory"]
    same = plt.subplots()[1]
    assert mids.plot.timescales(comparison, ax=same) is same


def test_runs_that_never_escape_count_in_the_median(comparison):
    censored = comparison.copy(deep=True)
    censored.escape_time[:, :5] = np.nan  # five of nine runs
    ax = mids.plot.timescales(censored)
    assert ax.get_legend().get_texts()[0].get_text() == "theory"


@pytest.mark.parametrize(
    ("draw", "data", "message"),
    [
        ("loss", lambda ds: ds.drop_vars("loss"), "needs the variable loss"),
        ("overlap", lambda ds: ds[["loss"]], "needs the variable overlap.*only loss"),
        ("modes", lambda ds: ds[["loss"]], "needs the variable energy"),
        ("phase", lambda ds: ds.isel(direction=[0]), "needs two directions"),
        ("timescales", lambda ds: ds, "needs the variable escape_time"),
    ],
)
def test_what_is_missing_is_named(ds, draw, data, message):
    with pytest.raises(DatasetError, match=message):
        getattr(mids.plot, draw)(data(ds))


def test_time_scales_need_several_dimensions(comparison):
    with pytest.raises(DatasetError, match="at least two dims"):
        mids.plot.timescales(comparison.isel(dim=[0]))


@pytest.mark.parametrize("name", ["a.png", "b.PDF", "c.svg"])
def test_formats_are_known(name):
    mids.plot.check_format(Path(name))


@pytest.mark.parametrize("name", ["a", "a.docx"])
def test_unknown_formats_are_errors(name):
    with pytest.raises(InputError, match=r"pictures are .*png"):
        mids.plot.check_format(Path(name))


def test_without_matplotlib_the_error_says_how_to_install_it(ds, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingDependencyError, match=r"pip install \"mids\[plot\]\""):
        mids.plot.loss(ds)
