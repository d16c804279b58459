"""Pictures: what is drawn, where, and on which axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from toy_flow import ToyFlow
from toy_theory import toy_comparison

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
    return toy_comparison(ds)


def key_of(axes):
    """Texts of the figure's key."""
    (legend,) = axes.flat[0].figure.legends
    return [text.get_text() for text in legend.get_texts()]


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
    assert panels.shape == ((1, 3) if name == "phase" else (3, 1))
    assert panels[0, 0].get_ylabel() == label
    assert panels[-1, -1].get_xlabel()
    titles = [ax.get_title(loc="right") for ax in panels.flat]
    assert titles == ["$d = 10^{2}$", "$d = 10^{4}$", "$d = 54321$"]
    panels[0, 0].figure.canvas.draw()


@pytest.mark.parametrize("name", FACETED)
def test_given_axes_are_drawn_into_and_returned(ds, name):
    figure, axes = plt.subplots(3)
    panels = FACETED[name][0](ds, axes=axes)
    assert list(panels.flat) == list(axes)
    assert plt.get_fignums() == [figure.number]
    (single,) = FACETED[name][0](ds.isel(dim=0), axes=axes[0]).flat
    assert single is axes[0]


@pytest.mark.parametrize("name", FACETED)
def test_a_wrong_number_of_axes_is_an_error(ds, name):
    with pytest.raises(InputError, match=r"each of the 3 panels .*, got 2"):
        FACETED[name][0](ds, axes=plt.subplots(2)[1])


@pytest.mark.parametrize("name", FACETED)
def test_lazy_datasets_and_single_runs_are_drawn(name):
    lazy = mids.simulate("staircase(2)", dim=100, runs=3, flow=ToyFlow(), time=TIME)
    FACETED[name][0](lazy)
    FACETED[name][0](lazy.isel(run=0))


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_the_time_axis_stops_where_nothing_happens_any_more(ds, name):
    for ax in TRAJECTORIES[name][0](ds).flat:
        low, high = ax.get_xlim()
        assert ax.get_xscale() == "log"
        assert 1e-3 < low < 1
        assert 100 < high < 1e5
        assert high > float(ds.crossing_time.sel(level=0.9).quantile(0.8))


def test_the_theory_is_marked_where_it_belongs(ds, comparison):
    panels = mids.plot.loss(ds, comparison)
    for index, ax in enumerate(panels.flat):
        lines = [line.get_xydata() for line in ax.get_lines()]
        levels = sorted(xy[0, 1] for xy in lines if len(xy) == 2 and xy[0, 1] == xy[1, 1])
        times = sorted(xy[0, 0] for xy in lines if len(xy) == 2 and xy[0, 0] == xy[1, 0])
        assert levels == [0.25, 0.5]
        expected = comparison.escape_time_theory[index].median("run").values
        np.testing.assert_allclose(times, expected, rtol=1e-12)
    assert key_of(panels) == ["runs", "typical run", "plateau, theory", "escape, theory (median)"]


def test_the_dark_line_is_a_run(ds):
    ax = mids.plot.loss(ds)[0, 0]
    drawn = ax.get_lines()[0].get_ydata()
    assert any(np.array_equal(drawn, run) for run in ds.loss.values[0])


def test_censored_saddles_are_not_drawn_as_numbers(ds, comparison):
    never = comparison.copy()
    never["escape_time_theory"] = comparison.escape_time_theory.where(comparison.saddle == 0)
    ax = mids.plot.loss(ds, never)[0, 0]
    vertical = [
        xy for xy in (line.get_xydata() for line in ax.get_lines()) if xy[0, 0] == xy[-1, 0]
    ]
    assert len(vertical) == 1


def lightness(colour):
    """Lightness of a colour in print, as defined for sRGB."""
    red, green, blue = matplotlib.colors.to_rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_lines_differ_without_colour(ds):
    ax = mids.plot.overlap(ds)[0, 0]
    drawn = [line for line in ax.get_lines() if len(line.get_xdata()) > 2]
    assert len({line.get_linestyle() for line in drawn}) == len(drawn) == 2
    assert np.diff([lightness(line.get_color()) for line in drawn]) > 0.2
    for row in (mids.plot.modes(ds)[0, 0], mids.plot.modes(ds)[2, 0]):
        greys = [lightness(area.get_facecolor()[0]) for area in row.collections]
        assert len(greys) == 2 and np.diff(greys) > 0.2


def test_contributions_are_stacked_to_the_norm(ds):
    panels = mids.plot.modes(ds)
    areas = panels[0, 0].collections
    top = max(path.vertices[:, 1].max() for area in areas for path in area.get_paths())
    assert top == pytest.approx(1.0, abs=1e-3)
    assert key_of(panels) == ["degree 1", "degree 4"]


def test_negative_contributions_are_stacked_downwards(ds):
    ax = mids.plot.modes(ds.assign(energy=-ds.energy))[0, 0]
    low = min(path.vertices[:, 1].min() for area in ax.collections for path in area.get_paths())
    assert low == pytest.approx(-1.0, abs=1e-3)


def test_plateaus_of_the_typical_run_are_shaded(ds):
    found = mids.plateaus(ds)
    ax = mids.plot.loss(ds, None, found)[1, 0]
    dark = ax.get_lines()[0].get_ydata()
    run = next(k for k, values in enumerate(ds.loss.values[1]) if np.array_equal(values, dark))
    expected = found.isel(dim=1, run=run).start.dropna("plateau").values
    assert len(expected) > 0
    np.testing.assert_array_equal([patch.get_x() for patch in ax.patches], expected)


def test_time_scales_have_both_axes_logarithmic(comparison):
    axes = mids.plot.timescales(comparison)
    assert (axes[0, 0].get_xscale(), axes[0, 0].get_yscale()) == ("log", "log")
    assert key_of(axes) == ["saddle with 0 learned", "saddle with 1 learned", "theory"]
    same = plt.subplots()[1]
    assert mids.plot.timescales(comparison, axes=same).item() is same


def test_the_slopes_expected_are_drawn(comparison):
    fit = xr.Dataset({"expected": ("saddle", [0.5, 2.0])}, {"saddle": [0, 1]})
    axes = mids.plot.timescales(comparison, fit)
    guides = [line for line in axes[0, 0].get_lines() if line.get_linewidth() == 0.8]
    for line, expected in zip(guides, [0.5, 2.0], strict=True):
        slope = np.diff(np.log(line.get_ydata())) / np.diff(np.log(line.get_xdata()))
        np.testing.assert_allclose(slope, expected)
    assert key_of(axes)[-1] == "slope s - 1"


def test_runs_that_never_escape_count_in_the_median(comparison):
    censored = comparison.copy(deep=True)
    censored.escape_time[:, :5] = np.nan  # five of nine runs
    assert key_of(mids.plot.timescales(censored)) == ["theory"]


def test_measured_times_lie_where_they_belong(comparison):
    ax = mids.plot.escape_times(comparison)[0, 0]
    points = [line for line in ax.get_lines() if line.get_linestyle() == "None"]
    assert len({line.get_marker() for line in points}) == len(points) == 2
    for saddle, line in enumerate(points):
        here = comparison.isel(saddle=saddle)
        np.testing.assert_array_equal(line.get_ydata(), here.escape_time.values.ravel())
        np.testing.assert_array_equal(line.get_xdata(), here.escape_time_theory.values.ravel())
    identity = ax.get_lines()[0]
    np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())


def test_censored_runs_are_marked_at_the_top(comparison):
    late = comparison.copy(deep=True)
    late.escape_time[0, 0, 1], late.censored[0, 0, 1] = np.nan, True
    late.escape_time[0, 1, 1] = np.nan  # known to theory only: not drawn
    axes = mids.plot.escape_times(late)
    arrows = [line for line in axes[0, 0].get_lines() if "arrow" in str(line.get_marker())]
    assert [line.get_xdata().tolist() for line in arrows] == [
        [late.escape_time_theory.values[0, 0, 1]]
    ]
    assert "censored" in key_of(axes)


# -- panels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "shape", "first"),
    [
        ({"row": "dim"}, (3, 1), "$d = 10^{2}$"),
        ({"col": "dim"}, (1, 3), "$d = 10^{2}$"),
        ({"col": "dim", "col_wrap": 2}, (2, 2), "$d = 10^{2}$"),
        ({"col": "run"}, (3, 9), "$d = 10^{2}$, run 0"),
        ({"row": "run", "col": "dim"}, (9, 3), "$d = 10^{2}$, run 0"),
    ],
)
def test_any_dim_divides_the_figure(ds, arguments, shape, first):
    panels = mids.plot.loss(ds, **arguments)
    assert panels.shape == shape
    assert panels[0, 0].get_title(loc="right") == first
    labelled = [ax for ax in panels.flat if ax.figure is not None and ax.get_xlabel()]
    assert len(labelled) == (2 if "col_wrap" in arguments else shape[1])


def test_panels_show_what_their_titles_say(ds):
    panels = mids.plot.loss(ds, row="run", col="dim")
    for run in range(9):
        for dim in range(3):
            drawn = panels[run, dim].get_lines()[0].get_ydata()
            np.testing.assert_array_equal(drawn, ds.loss.values[dim, run])


def test_dims_of_other_origin_become_panels(ds):
    both = xr.concat([ds, ds], xr.DataArray([0.0, 0.5], dims="ridge", name="ridge"))
    assert mids.plot.loss(both).shape == (3, 2)
    assert mids.plot.loss(both, row="ridge").shape == (2, 3)
    assert mids.plot.loss(both.isel(dim=0), col="ridge").shape == (1, 2)
    titles = [ax.get_title(loc="right") for ax in mids.plot.overlap(both)[0]]
    assert titles == ["$d = 10^{2}$, ridge 0", "$d = 10^{2}$, ridge 0.5"]
    more = xr.concat([both, both], "noise")
    with pytest.raises(DatasetError, match=r"rows and columns are taken.*isel\(noise=0\)"):
        mids.plot.loss(more, row="ridge")


def test_directions_and_saddles_can_be_panels_too(ds, comparison):
    assert mids.plot.overlap(ds, col="direction").shape == (3, 2)
    assert mids.plot.timescales(comparison, col="saddle").shape == (1, 2)
    panels = mids.plot.escape_times(comparison, row="dim", col="saddle")
    assert panels.shape == (3, 2)
    points = panels[2, 1].get_lines()[1]
    np.testing.assert_array_equal(points.get_ydata(), comparison.escape_time.values[2, :, 1])


def test_the_directions_of_a_portrait_can_be_chosen(ds):
    axes = mids.plot.phase(ds, directions=(1, 0))
    assert axes[0, 0].get_xlabel() == "overlap of direction 2"
    drawn = axes[0, 0].get_lines()[0].get_xdata()
    assert any(np.allclose(drawn, run.clip(1e-12, 0.999)) for run in ds.overlap.values[0, ..., 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"row": "time"}, "row must be a dimension.*'dim' or 'run'"),
        ({"col": "dims"}, "got 'dims'"),
        ({"row": "dim", "col": "dim"}, "both 'dim'"),
        ({"row": "dim", "col": "run", "col_wrap": 2}, "no rows"),
        ({"col": "dim", "col_wrap": 0}, "col_wrap"),
    ],
)
def test_wrong_panels_are_errors(ds, arguments, message):
    with pytest.raises(InputError, match=message):
        mids.plot.loss(ds, **arguments)
    assert not plt.get_fignums()


@pytest.mark.parametrize("directions", [(0, 0), (0, 2), (0,), "ab", (0.0, 1.0)])
def test_wrong_directions_are_errors(ds, directions):
    with pytest.raises(InputError, match="two different ones of 0 to 1"):
        mids.plot.phase(ds, directions=directions)


@pytest.mark.parametrize(
    ("draw", "data", "message"),
    [
        ("loss", lambda ds: ds.drop_vars("loss"), "needs the variable loss"),
        ("overlap", lambda ds: ds[["loss"]], "needs the variable overlap.*only loss"),
        ("modes", lambda ds: ds[["loss"]], "needs the variable energy"),
        ("modes", lambda ds: ds.drop_vars("degree"), "needs the variable degree"),
        ("overlap", lambda ds: ds.isel(run=[]), "the dataset has no run"),
        ("overlap", lambda ds: ds.isel(time=5), "needs the dimension 'time'"),
        ("modes", lambda ds: ds.isel(time=slice(None, None, -1)), "time must increase"),
        ("phase", lambda ds: ds.isel(direction=[0]), "needs two directions"),
        ("timescales", lambda ds: ds, "needs the variable escape_time"),
        ("escape_times", lambda ds: ds, "needs the variable escape_time and .* and censored"),
    ],
)
def test_what_is_missing_is_named(ds, draw, data, message):
    with pytest.raises(DatasetError, match=message):
        getattr(mids.plot, draw)(data(ds))


def test_labels_that_are_lost_leave_pictures(ds):
    assert mids.plot.overlap(ds.drop_vars("direction")).size
    assert mids.plot.traps(mids.traps(ds.drop_vars("dim"))).size


def test_modes_of_lazy_coordinates_are_drawn(ds):
    assert mids.plot.modes(ds.chunk()).size


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


def test_one_run_is_not_called_typical(ds):
    one = ds.isel(run=[0])
    assert key_of(mids.plot.loss(one, None, mids.plateaus(one))) == ["run", "its plateaus"]
    assert key_of(mids.plot.overlap(one)) == ["direction 1", "direction 2"]
    assert key_of(mids.plot.phase(one)) == ["run", "start"]
    each = ds.isel(dim=0, run=slice(3))
    assert key_of(mids.plot.loss(each, col="run")) == ["run"]
    assert key_of(mids.plot.overlap(each, col="run")) == ["direction 1", "direction 2"]


def test_times_without_data_change_neither_the_typical_run_nor_the_axis(ds):
    """As where sweeps of different lengths are put together."""
    longer = np.append(ds.time.values, ds.time.values[-1] * np.array([10, 100, 1000]))
    padded = ds[["loss", "overlap"]].reindex(time=longer)
    for draw in (mids.plot.loss, mids.plot.overlap):
        for plain, wide in zip(draw(ds).flat, draw(padded).flat, strict=True):
            assert plain.get_xlim() == wide.get_xlim()
            drawn, expected = (ax.get_lines()[0].get_ydata() for ax in (wide, plain))
            np.testing.assert_array_equal(drawn[: len(expected)], expected)


def with_ends(ds):
    """The toy runs, of which six of nine are trapped at d = 100 and all at the last dimension."""
    trapped = np.array([[True] * 6 + [False] * 3, [False] * 9, [True] * 9])
    status = xr.DataArray(np.where(trapped, np.int8(2), np.int8(0)), dims=("dim", "run"))
    at_start = ds[["loss", "overlap", "energy"]].isel(time=0, drop=True)
    still = {name: ds[name].where(status == 0, at_start[name]) for name in at_start}
    return ds.assign(status=status, **still)


@pytest.mark.parametrize("name", FACETED)
def test_the_typical_run_is_none_that_is_trapped(ds, name):
    draw, _ = FACETED[name]
    ended = with_ends(ds)
    some, none, every = draw(ended).flat
    titles = [ax.get_title("left") for ax in (some, none, every)]
    assert titles == ["6 of 9 trapped", "", "9 of 9 trapped"]
    free = draw(ended.isel(run=slice(6, None))).flat[0]
    if name == "modes":
        drawn, expected = (
            [area.get_paths()[0].vertices for area in ax.collections] for ax in (some, free)
        )
    else:
        drawn, expected = ([ax.get_lines()[0].get_ydata()] for ax in (some, free))
    for one, two in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_is_drawn_and_how_it_ended_are_computed_at_once(ds):
    calls = []

    def counted(block):
        calls.append(block.shape)
        return block

    lazy = ds[["loss", "status"]].chunk(dim=1)
    mids.plot.loss(lazy.map_blocks(lambda part: part.map(counted), template=lazy))
    assert len(calls) == 2 * ds.sizes["dim"]


def test_saddles_that_most_runs_never_leave_at_some_dimension_have_no_bar_there(comparison):
    never = comparison.copy(deep=True)
    never.escape_time[0] = np.nan
    axes = mids.plot.timescales(never)
    assert key_of(axes) == ["saddle with 0 learned", "saddle with 1 learned", "theory"]
