"""Pictures: what is drawn, where, and on which axes."""

from __future__ import annotations

import inspect
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from toy_flow import SIMULATED, ToyFlow
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


def lines_of(ax, **wanted):
    """Lines of some style."""
    return [
        line
        for line in ax.get_lines()
        if all(getattr(line, f"get_{name}")() == value for name, value in wanted.items())
    ]


def black(ax):
    """The curve of the run closest to the median, at the times of the grid."""
    (line,) = lines_of(ax, linewidth=1.6)
    return line.get_ydata()[np.isin(line.get_xdata(), TIME)]


TRAJECTORIES = {
    "loss": (mids.plot.loss, "loss"),
    "overlap": (mids.plot.overlap, "overlap"),
    "modes": (mids.plot.modes, r"$h(G) = \langle f^*, A_G f^*\rangle$"),
}
FACETED = {**TRAJECTORIES, "phase": (mids.plot.phase, "overlap of direction 2")}
RUNS = ["all runs", "run closest to the median"]


# -- keywords -----------------------------------------------------------------------------------


def test_all_pictures_take_the_same_keywords():
    for name in set(mids.plot.__all__) - {"check_format", "animate"}:
        layout = inspect.signature(getattr(mids.plot, name)).parameters["layout"]
        assert (layout.kind, layout.annotation) == (layout.VAR_KEYWORD, "Unpack[Options]")


@pytest.mark.parametrize("name", FACETED)
def test_one_labelled_panel_for_each_dimension(ds, name):
    draw, label = FACETED[name]
    panels = draw(ds)
    assert panels.shape == ((1, 3) if name == "phase" else (3, 1))
    assert panels[0, 0].get_ylabel() == label
    assert panels[-1, -1].get_xlabel()
    titles = [ax.get_title(loc="right") for ax in panels.flat]
    assert titles == ["$d = 10^{2}$", "$d = 10^{4}$", "$d = 54321$"]


@pytest.mark.parametrize("name", FACETED)
def test_given_axes_are_drawn_into_and_returned(ds, name):
    figure, axes = plt.subplots(3)
    panels = FACETED[name][0](ds, axes=axes)
    assert list(panels.flat) == list(axes)
    assert plt.get_fignums() == [figure.number]
    (single,) = FACETED[name][0](ds.isel(dim=0), ax=axes[0]).flat
    assert single is axes[0]


@pytest.mark.parametrize(
    ("arguments", "shape", "first"),
    [
        ({"row": "dim"}, (3, 1), "$d = 10^{2}$"),
        ({"col": "dim", "col_wrap": 2}, (2, 2), "$d = 10^{2}$"),
        ({"col": "run"}, (3, 9), "$d = 10^{2}$, run 0"),
        ({"row": "run", "col": "dim"}, (9, 3), "$d = 10^{2}$, run 0"),
        ({"hue": "dim"}, (1, 1), ""),
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
    for run, dim in np.ndindex(9, 3):
        np.testing.assert_array_equal(black(panels[run, dim]), ds.loss.values[dim, run])
    coloured = mids.plot.loss(ds.isel(run=[3]), hue="dim")[0, 0]
    for dim, line in enumerate(lines_of(coloured, linewidth=1.6)):
        at_grid = np.isin(line.get_xdata(), TIME)
        np.testing.assert_array_equal(line.get_ydata()[at_grid], ds.loss.values[dim, 3])


def test_escapes_are_drawn_when_they_happen_not_when_the_grid_sees_them():
    time = np.array([0.0, 1.0, 10.0, 100.0])
    overlap = np.array([[0.0, 0.0, 0.04, 1.0], [0.0, 0.0, 0.0, 1.0]])
    passed = np.array([[20.0, 21.0, 22.0], [50.0, np.nan, np.nan]])
    ds = xr.Dataset(
        {
            "loss": (("run", "time"), [1.0 - overlap.sum(axis=0) / 2]),
            "overlap": (("run", "direction", "time"), overlap[None]),
            "crossing_time": (("run", "direction", "level"), passed[None]),
        },
        {"time": time, "level": [0.1, 0.5, 0.9]},
    )
    (line,) = mids.plot.loss(ds)[0, 0].get_lines()
    assert line.get_xdata().tolist() == [0, 1, 10, 20, 21, 22, 50, 100]
    drawn = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    rest = 0.1 / 40  # of the second direction, on a straight line from time 10 on
    second = {t: rest * (t - 10) for t in (20, 21, 22)}
    for t, level in zip((20, 21, 22), (0.1, 0.5, 0.9), strict=True):
        assert drawn[t] == pytest.approx(1.0 - (level + second[t]) / 2)
    assert drawn[100] == 0.0
    first, _ = mids.plot.overlap(ds, col="direction").flat
    (line,) = first.get_lines()
    assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True))[21] == 0.5


def test_sizes_are_those_asked_for(ds):
    def inches(**arguments):
        return mids.plot.loss(ds, **arguments)[0, 0].figure.get_size_inches().tolist()

    assert inches(figsize=(7, 5)) == [7, 5]
    assert inches(size=2, aspect=1.5) == pytest.approx([3, 6.8])
    assert mids.plot.loss(ds, xlim=(1, 500))[2, 0].get_xlim() == (1, 500)


def test_dims_of_other_origin_become_panels_and_colours(ds):
    both = xr.concat([ds, ds], xr.DataArray([0.0, 0.5], dims="ridge", name="ridge"))
    assert mids.plot.loss(both).shape == (3, 2)
    assert mids.plot.loss(both, row="ridge").shape == (2, 3)
    titles = [ax.get_title(loc="right") for ax in mids.plot.overlap(both)[0]]
    assert titles == ["$d = 10^{2}$, ridge 0", "$d = 10^{2}$, ridge 0.5"]
    more = xr.concat([both, both], "noise")
    axes = mids.plot.loss(more, row="ridge")
    assert axes.shape == (2, 3) and key_of(axes) == ["noise 0", "noise 1", "all runs"]
    with pytest.raises(DatasetError, match=r"colours are taken.*isel\(ridge=0\)"):
        mids.plot.loss(xr.concat([more, more], "seed"))


def test_directions_and_saddles_can_be_panels_too(ds, comparison):
    assert mids.plot.overlap(ds, col="direction").shape == (3, 2)
    assert mids.plot.timescales(comparison, col="saddle").shape == (1, 2)
    panels = mids.plot.escape_times(comparison, row="dim", col="saddle")
    assert panels.shape == (3, 2)
    points = panels[2, 1].get_lines()[1]
    np.testing.assert_array_equal(points.get_ydata(), comparison.escape_time.values[2, :, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"row": "time"}, "row must be a dim.*'dim' or 'run'"),
        ({"col": "dims"}, "got 'dims'"),
        ({"hue": "colour"}, "hue must be a dim"),
        ({"row": "dim", "col": "dim"}, "row, col and hue are 'dim', 'dim'"),
        ({"row": "dim", "col": "run", "col_wrap": 2}, "no rows"),
        ({"col": "dim", "col_wrap": 0}, "col_wrap"),
        ({"figsize": (3, 2), "size": 2}, "figsize and size"),
        ({"figsize": (3, -2)}, r"figsize=\(6, 4\)"),
        ({"size": 0}, "size"),
        ({"xlim": (5, 1)}, "two positive numbers, the smaller one first"),
        ({"xlim": (0, 10)}, "two positive numbers"),
        ({"figsize": (1e6, 2)}, "at most 300 inches"),
        ({"aspect": "equal"}, "aspect"),
        ({"yscale": "cubic"}, "yscale"),
        ({"ax": "here", "axes": ["there"]}, "ax and axes"),
        ({"ax": "here", "size": 3}, "new figure"),
        ({"ax": "here"}, "axes must be one for each of the 3 panels, got 1"),
        ({"axes": xr.Dataset()}, "axes must be one for each of the 3 panels, got 1"),
        ({"axes": [xr.Dataset()] * 3}, "must be axes of matplotlib"),
    ],
)
def test_wrong_layouts_are_refused_before_anything_is_simulated(arguments, message):
    lazy = mids.simulate("staircase(2)", dim=DIMS, runs=2, flow=ToyFlow(), time=TIME)
    with pytest.raises(InputError, match=message):
        lazy.mi.plot.loss(theory=False, **arguments)
    assert not plt.get_fignums() and not SIMULATED


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(mids.plot.__all__) - {"check_format"}))
def test_all_pictures_refuse_wrong_sizes_and_dims_before_any_work(name):
    diagram = mids.phase_diagram("h1(z1)", dim=[8, 16], n=[5, 20], runs=2, duration=5)
    lazy = diagram if name == "success" else mids.simulate("staircase(2)", dim=DIMS, runs=2)
    wrong = [
        *({"figsize": value} for value in (3, (3,), (3, -1), (3, np.nan), (1e6, 2), "wide")),
        *({"size": value} for value in (-1, "big", np.nan)),
        *({"aspect": value} for value in (0, "equal", (1, 2), 1e9)),
        *({"hue": value} for value in ("colour", "time", 3, ["dim"])),
        {"figsize": (3, 2), "aspect": 2},
        {"xlim": (5, 1)},
    ]

    def compute(graph, keys, **_):
        tasks = dict(graph.__dask_graph__())
        assert len(tasks) <= 4, "more was computed than recipes in memory"
        return dask.local.get_sync(tasks, keys)

    for arguments in wrong[:6] if name == "animate" else wrong:
        with dask.config.set(scheduler=compute), pytest.raises(InputError):
            getattr(lazy.mi.plot, name)(**arguments)
        assert not plt.get_fignums()


def test_a_run_is_simulated_once_for_all_that_is_drawn():
    lazy = mids.simulate("staircase(2)", dim=DIMS, runs=2, flow=ToyFlow(), time=TIME)
    lazy.mi.plot.loss()
    assert set(SIMULATED.values()) == {1}
    mids.plot.overlap(lazy.isel(run=0, dim=0))


@pytest.mark.parametrize("directions", [(0, 0), (0, 2), (0,), "ab", (0.0, 1.0)])
def test_wrong_directions_are_errors(ds, directions):
    with pytest.raises(InputError, match="two different ones of 0 to 1"):
        mids.plot.phase(ds, directions=directions)


@pytest.mark.parametrize(
    ("draw", "data", "message"),
    [
        ("loss", lambda ds: ds.drop_vars("loss"), "needs the variable loss"),
        ("overlap", lambda ds: ds[["loss"]], "needs the variable overlap.*only loss"),
        ("modes", lambda ds: ds.drop_vars("degree"), "needs the variable degree"),
        ("overlap", lambda ds: ds.isel(run=[]), "the dataset has no run"),
        ("overlap", lambda ds: ds.isel(time=5), "needs the dimension 'time'"),
        ("modes", lambda ds: ds.isel(time=slice(None, None, -1)), "time must increase"),
        ("phase", lambda ds: ds.isel(direction=[0]), "needs two directions"),
        ("timescales", lambda ds: ds, r"variable escape_time.*draw.*ds\.mi\.plot\.timescales\(\)"),
        ("escape_times", lambda ds: ds, "needs the variable escape_time, .*, censored"),
        ("traps", lambda ds: ds, r"ds\.mi\.plot\.traps\(\)"),
        ("animate", lambda ds: ds, r"one run.*ds\.isel\(dim=0\)"),
    ],
)
def test_what_is_missing_is_named(ds, draw, data, message):
    with pytest.raises(DatasetError, match=message):
        getattr(mids.plot, draw)(data(ds))


def test_without_matplotlib_the_error_says_how_to_install_it(ds, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingDependencyError, match=r"pip install \"mids\[plot\]\""):
        mids.plot.loss(ds)


@pytest.mark.parametrize("name", ["a.png", "b.PDF", "c.svg"])
def test_formats_are_known(name):
    mids.plot.check_format(Path(name))


@pytest.mark.parametrize("name", ["a", "a.docx"])
def test_unknown_formats_are_errors(name):
    with pytest.raises(InputError, match=r"pictures are .*png"):
        mids.plot.check_format(Path(name))


# -- trajectories -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_the_time_axis_stops_where_nothing_happens_any_more(ds, name):
    for ax in TRAJECTORIES[name][0](ds).flat:
        low, high = ax.get_xlim()
        assert ax.get_xscale() == "log"
        assert 1e-3 < low < 1
        assert 100 < high < 1e5
        assert high > float(ds.crossing_time.sel(level=0.9).quantile(0.8))


def test_the_theory_is_that_of_the_black_run(ds, comparison):
    panels = mids.plot.loss(ds, comparison)
    for index, ax in enumerate(panels.flat):
        run = next(k for k, y in enumerate(ds.loss.values[index]) if np.array_equal(y, black(ax)))
        lines = [line.get_xydata() for line in ax.get_lines()]
        levels = sorted(xy[0, 1] for xy in lines if len(xy) == 2 and xy[0, 1] == xy[1, 1])
        times = sorted(xy[0, 0] for xy in lines if len(xy) == 2 and xy[0, 0] == xy[1, 0])
        assert levels == [0.25, 0.5]
        np.testing.assert_array_equal(times, comparison.escape_time_theory[index, run].values)
    assert key_of(panels)[:2] == RUNS
    assert key_of(panels)[2:] == ["plateau, theory for this run", "escape, theory for this run"]
    never = comparison.assign(
        escape_time_theory=comparison.escape_time_theory.where(comparison.saddle == 0)
    )
    lines = [line.get_xydata() for line in mids.plot.loss(ds, never)[0, 0].get_lines()]
    assert sum(xy[0, 0] == xy[-1, 0] for xy in lines) == 1


def test_plateaus_lie_under_the_black_run(ds):
    found = mids.plateaus(ds)
    ax = mids.plot.loss(ds, None, found)[1, 0]
    run = next(k for k, values in enumerate(ds.loss.values[1]) if np.array_equal(values, black(ax)))
    expected = found.isel(dim=1, run=run).dropna("plateau")
    drawn = lines_of(ax, linewidth=7)
    assert len(drawn) == expected.sizes["plateau"] > 0
    np.testing.assert_array_equal([line.get_xdata()[1] for line in drawn], expected.stop)
    np.testing.assert_array_equal([line.get_ydata()[0] for line in drawn], expected.loss)


def test_losses_that_span_decades_are_drawn_on_a_logarithmic_axis(ds, comparison):
    assert mids.plot.loss(ds, comparison)[0, 0].get_yscale() == "linear"
    assert mids.plot.loss(ds, comparison, yscale="log")[0, 0].get_yscale() == "log"
    levels = comparison.loss_theory.where(comparison.saddle == 0, 1e-3)
    ax = mids.plot.loss(ds, comparison.assign(loss_theory=levels))[0, 0]
    assert ax.get_yscale() == "log"
    assert 1e-6 < ax.get_ylim()[0] < 1e-3


def lightness(colour):
    """Lightness of a colour in print, as defined for sRGB."""
    red, green, blue = matplotlib.colors.to_rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_lines_differ_without_colour(ds):
    for axes in (mids.plot.overlap(ds), mids.plot.loss(ds.isel(dim=[0, 1]), hue="dim")):
        drawn = lines_of(axes[0, 0], linewidth=1.6)
        assert len({line.get_linestyle() for line in drawn}) == len(drawn) == 2
        assert np.diff([lightness(line.get_color()) for line in drawn]) > 0.2
    greys = [lightness(a.get_facecolor()[0]) for a in mids.plot.modes(ds)[0, 0].collections]
    assert len(greys) == 2 and np.diff(greys) > 0.2


def test_contributions_are_stacked_to_the_norm(ds):
    panels = mids.plot.modes(ds)
    areas = panels[0, 0].collections
    top = max(path.vertices[:, 1].max() for area in areas for path in area.get_paths())
    assert top == pytest.approx(1.0, abs=1e-3)
    assert key_of(panels) == ["degree 1", "degree 4"]
    run = int(panels[0, 0].get_title("left").removeprefix("run "))
    np.testing.assert_array_equal(black(mids.plot.loss(ds)[0, 0]), ds.loss.values[0, run])
    ax = mids.plot.modes(ds.assign(energy=-ds.energy).chunk())[0, 0]
    low = min(path.vertices[:, 1].min() for area in ax.collections for path in area.get_paths())
    assert low == pytest.approx(-1.0, abs=1e-3)


@pytest.mark.slow
def test_degrees_of_other_targets_of_a_sweep_are_not_shown():
    ds = mids.simulate(["h2(z1)", "h1(z1) + h3(z1)"], dim=100, runs=2, time=[0, 1.0, 10.0])
    assert key_of(mids.plot.modes(ds)) == ["degree 1", "degree 2", "degree 3"]
    assert key_of(mids.plot.modes(ds.isel(target=0))) == ["degree 2"]


def test_the_directions_of_a_portrait_can_be_chosen(ds):
    axes = mids.plot.phase(ds, directions=(1, 0))
    ax = axes[0, 0]
    assert ax.get_xlabel() == "overlap of direction 2"
    drawn = ax.get_lines()[0].get_xdata()
    assert any(np.allclose(drawn, run.clip(1e-14, 0.999)) for run in ds.overlap.values[0, ..., 1])
    assert key_of(axes) == [*RUNS, "start", "critical point"]
    squares = [line.get_xydata()[0] for line in lines_of(ax, marker="s")]
    (x, y), corner, end = squares
    assert corner.tolist() == [x, end[1]] and end[0] == end[1] == 0.999  # direction 1 comes first
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left < x and bottom < y and end[0] < right and end[1] < top


def test_one_run_is_not_called_typical(ds):
    one = ds.isel(run=[0])
    assert key_of(mids.plot.loss(one, None, mids.plateaus(one))) == ["run", "its plateaus"]
    assert key_of(mids.plot.overlap(one)) == ["direction 1", "direction 2"]
    each = ds.isel(dim=0, run=slice(3))
    assert key_of(mids.plot.loss(each, col="run")) == ["run"]


def test_times_without_data_change_neither_the_black_run_nor_the_axis(ds):
    """As where sweeps of different lengths were put together."""
    longer = np.append(ds.time.values, ds.time.values[-1] * np.array([10, 100, 1000]))
    padded = ds[["loss", "overlap", "crossing_time"]].reindex(time=longer)
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
def test_the_black_run_is_none_that_is_trapped(ds, name):
    draw, _ = FACETED[name]
    ended = with_ends(ds)
    some, none, every = draw(ended).flat
    titles = [ax.get_title("left").rpartition("; ")[2] for ax in (some, none, every)]
    assert titles[::2] == ["6 of 9 trapped", "9 of 9 trapped"] and "trapped" not in titles[1]
    free = draw(ended.isel(run=slice(6, None))).flat[0]
    if name == "modes":
        drawn, expected = (
            [area.get_paths()[0].vertices for area in ax.collections] for ax in (some, free)
        )
    else:
        drawn, expected = ([ax.get_lines()[0].get_ydata()] for ax in (some, free))
    for one, two in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_labels_that_are_lost_leave_pictures(ds):
    assert mids.plot.overlap(ds.drop_vars("direction")).size
    assert mids.plot.modes(ds.drop_vars("run")).size
    assert mids.plot.traps(mids.traps(ds.drop_vars("dim"))).size


@pytest.mark.slow
def test_a_run_is_a_film(ds, tmp_path):
    film = ds.isel(dim=1).mi.plot.animate(frames=3)
    film.save(tmp_path / "run.gif", writer="pillow")
    image = pytest.importorskip("PIL.Image")
    with image.open(tmp_path / "run.gif") as written:
        assert written.n_frames == 3
    _, bars = film._fig.axes
    last = [bar.get_height() for bar in bars.patches]
    assert min(last) > 0.9 and len(last) == 2


# -- escape times -------------------------------------------------------------------------------


def test_time_scales_have_both_axes_logarithmic(comparison):
    axes = mids.plot.timescales(comparison)
    assert (axes[0, 0].get_xscale(), axes[0, 0].get_yscale()) == ("log", "log")
    bars, theory = "median, 10 % to 90 % of the runs", "median of the predictions"
    assert key_of(axes) == ["0 learned", "1 learned", bars, theory]
    alone = mids.plot.timescales(comparison[["escape_time"]])
    assert key_of(alone) == ["0 learned", "1 learned", bars]
    never = comparison.copy(deep=True)
    never.escape_time[:, :5] = np.nan  # five of nine runs
    assert key_of(mids.plot.timescales(never)) == [bars, theory]
    never = comparison.copy(deep=True)
    never.escape_time[0] = np.nan
    assert key_of(mids.plot.timescales(never))[:2] == ["0 learned", "1 learned"]
    with pytest.raises(DatasetError, match="at least two dims"):
        mids.plot.timescales(comparison.isel(dim=[0]))


def test_the_growth_that_is_expected_is_drawn(comparison):
    fit = xr.Dataset(
        {
            "expected": ("saddle", [0.0, 0.5]),
            "time_slope": ("saddle", [0.1, np.nan]),
            "rate": ("saddle", ["log d", "d^0.5"]),
        },
        {"saddle": [0, 1]},
    )
    axes = mids.plot.timescales(comparison, fit)
    logarithm, root = lines_of(axes[0, 0], linewidth=0.9)
    x, y = logarithm.get_data()
    np.testing.assert_allclose(np.diff(y) / np.diff(np.log(x)), 0.1)
    medians = comparison.escape_time.isel(saddle=0).median("run").values
    np.testing.assert_allclose(np.mean(np.interp(DIMS, x, y) - medians), 0, atol=1e-3)
    x, y = root.get_data()
    np.testing.assert_allclose(np.diff(np.log(y)) / np.diff(np.log(x)), 0.5)
    assert key_of(axes)[:2] == [
        r"0 learned; $a + b\,\log d$, fitted",
        "1 learned; $d^{1/2}$, expected",
    ]


def test_measured_times_and_ratios_lie_where_they_belong(comparison):
    ax = mids.plot.escape_times(comparison)[0, 0]
    below = next(other for other in ax.figure.axes if other is not ax)
    points = lines_of(ax, linestyle="None")
    ratios = lines_of(below, linestyle="None")
    assert len({line.get_marker() for line in points}) == len(points) == 2
    for saddle, (line, ratio) in enumerate(zip(points, ratios, strict=True)):
        here = comparison.isel(saddle=saddle)
        np.testing.assert_array_equal(line.get_ydata(), here.escape_time.values.ravel())
        np.testing.assert_array_equal(line.get_xdata(), here.escape_time_theory.values.ravel())
        np.testing.assert_allclose(ratio.get_ydata(), 1 / 1.01)
    identity = ax.get_lines()[0]
    np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())
    figure, given = plt.subplots()
    mids.plot.escape_times(comparison, ax=given)
    assert figure.axes == [given]


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


def test_the_last_fall_of_a_log_axis_is_shown():
    time = np.append(0.0, np.geomspace(1, 1e6, 200))
    loss = 30 / (1 + (time / 40) ** 4) + 2 / (1 + (time / 3e3) ** 4) + 0.1 / (1 + (time / 1e5) ** 4)
    ds = mids.from_trajectories(time=time, loss=loss + 0.004)
    assert ds.mi.plot.loss()[0, 0].get_xlim()[1] > 2e5
    assert ds.mi.plot.loss(yscale="linear")[0, 0].get_xlim()[1] < 1e5
