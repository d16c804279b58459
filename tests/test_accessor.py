"""The accessor ``ds.mi``: delegation, discovery, foreign datasets."""

from __future__ import annotations

import inspect
import subprocess
import sys

import dask
import numpy as np
import pytest
import xarray as xr

import mids
from mids.accessor import MultiIndexAccessor
from mids.errors import DatasetError
from mids.plot.accessor import PlotAccessor

METHODS = sorted(
    name
    for name, member in vars(MultiIndexAccessor).items()
    if inspect.isfunction(member) and not name.startswith("_")
)
PLOTS = sorted(
    name
    for name, member in vars(PlotAccessor).items()
    if inspect.isfunction(member) and not name.startswith("_")
)


def refuse(*args, **kwargs):
    raise AssertionError("something was computed")


@pytest.fixture(scope="module")
def lazy():
    return mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=[100, 10_000], runs=4, seed=3)


@pytest.fixture(scope="module")
def ds(lazy):
    return lazy.compute()


@pytest.fixture(scope="module")
def foreign():
    return xr.Dataset({"t2m": ("x", [1.0, 2.0])})


def test_a_loss_from_outside_is_drawn_without_theory():
    time = np.linspace(0, 60, 61)
    ds = mids.from_trajectories(time=time, loss=np.exp(-time), dim=10)
    assert "#b2182b" not in {line.get_color() for line in ds.mi.plot.loss()[0, 0].lines}


def test_the_loss_is_drawn_without_theory_where_there_is_none():
    flow = mids.flows.TwoLayer(neurons=2, activation="erf")
    ds = mids.simulate("h1(z1)*h2(z2)", dim=100, runs=3, flow=flow)
    assert "#b2182b" not in {line.get_color() for line in ds.mi.plot.loss()[0, 0].lines}
    with pytest.raises(DatasetError, match="no theory"):
        ds.mi.compare()


def test_the_accessor_has_the_methods_of_the_design():
    assert {
        "compare",
        "describe",
        "plateaus",
        "replay",
        "saddles",
        "scaling",
        "theory",
        "to_netcdf",
        "validate",
    } <= set(METHODS)
    assert set(PLOTS) == set(mids.plot.__all__) - {"check_format"}


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"scaling_law"}))  # of other targets
def test_a_method_is_the_function_of_its_name(ds, name, tmp_path):
    arguments = [tmp_path / "runs.nc"] if name == "to_netcdf" else []
    by_method = getattr(ds.mi, name)(*arguments)
    if arguments:
        by_method = arguments[0].read_bytes()
    by_function = getattr(mids, name)(ds, *arguments)
    if arguments:
        by_function = arguments[0].read_bytes()
    if isinstance(by_method, xr.Dataset):
        undated = [d.drop_attrs(deep=False) for d in (by_method.compute(), by_function.compute())]
        xr.testing.assert_identical(*undated)
        assert by_method.attrs.keys() == by_function.attrs.keys()
    else:
        assert np.array_equal(by_method, by_function)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_what_its_function_takes(name):
    method = inspect.signature(getattr(MultiIndexAccessor, name))
    function = inspect.signature(getattr(mids, name))
    of_targets = {
        "theory": ("dim", "student_rank", "flow"),
        "exponents": ("rank", "degree"),
    }.get(name, ())
    wanted = [each for each in list(function.parameters)[1:] if each not in of_targets]
    assert list(method.parameters)[1:] == wanted
    for each in wanted:
        one, two = method.parameters[each], function.parameters[each]
        assert (one.default, one.kind) == (two.default, two.kind)


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_takes_what_its_function_takes(name):
    """But for the datasets, which the accessor has or makes by what it takes, and their theory."""
    method = inspect.signature(getattr(PlotAccessor, name)).parameters
    function = inspect.signature(getattr(mids.plot, name)).parameters
    made = ("theory", "scale", "confidence")
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    taken, offered = (
        {p.name: p.annotation for p in given.values() if p.kind in kinds and p.name not in made}
        for given in (method, function)
    )
    assert taken == offered


@pytest.mark.parametrize("name", METHODS + PLOTS)
def test_a_method_is_one_line_and_says_where_it_goes(name):
    owner = PlotAccessor if name in PLOTS else MultiIndexAccessor
    function = getattr(owner, name)
    prefix = "mids.plot." if name in PLOTS else "mids."
    assert f"`{prefix}{name}`" in function.__doc__
    body = inspect.getsource(function).split('"""')[2].strip()
    assert body.count("return") == 1
    assert body.startswith("return") or name in (
        "exponents",
        "loss",
        "timescales",
    )  # checks, or several analyses


@pytest.mark.parametrize("name", ["plateaus", "saddles", "theory", "compare", "replay"])
def test_lazy_datasets_stay_lazy(lazy, name):
    with dask.config.set(scheduler=refuse):
        result = getattr(lazy.mi, name)()
    assert any(variable.chunks is not None for variable in result.data_vars.values())


@pytest.mark.parametrize("name", [name for name in PLOTS if name != "success"])  # of diagrams
def test_plots_are_drawn_from_the_dataset_alone(ds, name):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    if name == "animate":
        assert ds.isel(dim=0).mi.plot.animate(frames=1).to_jshtml()
        return
    figure = getattr(ds.mi.plot, name)().flat[0].figure
    figure.canvas.draw()
    __import__("matplotlib.pyplot").pyplot.close(figure)


def test_target_and_flow(ds):
    assert ds.mi.target == mids.Target.parse("h1(z1) + h1(z1)*h3(z2)")
    assert ds.mi.flow == mids.flows.get("two-timescale")


# -- discovery ----------------------------------------------------------------------------------


def test_the_repr_says_what_it_is_without_computing(lazy):
    with dask.config.set(scheduler=refuse):
        text = repr(lazy.mi)
    assert text == lazy.mi.describe()
    for part in ("rank 2", "1 -> 3", "two-timescale", "dim 100, 1e4", "4 runs", "seed 3"):
        assert part in text
    assert ", lazy, " in text
    assert "converged" not in text
    assert ".saddles()" in text


def test_only_what_works_is_named_as_next():
    time = np.arange(9.0)
    outside = mids.from_trajectories(time=time, loss=np.exp(-time), dim=50)
    text = repr(outside.mi)
    assert text.endswith(".saddles() .plot.loss() .to_netcdf()")
    assert "1 run;" in text
    one = mids.simulate("h2(z1)", dim=100, runs=2)
    assert repr(one.mi).endswith(".saddles() .compare() .plot.loss() .to_netcdf()")


def test_phase_diagrams_and_trapped_runs_have_rows_of_their_own():
    diagram = mids.phase_diagram("h1(z1)", dim=[8, 16], n=[5, 20], runs=3, duration=5)
    text = repr(diagram.mi)
    for part in ("rank 1", "empirical", "seed 0", "dim 8, 16; n 5, 20; 3 runs", " kB: success"):
        assert part in text
    assert text.endswith("next       .plot.success() .to_netcdf()")
    planted = mids.simulate("h3(z1)", dim=100, runs=8, flow="planted")
    assert ".traps()" not in repr(planted.mi) and ".traps()" in repr(planted.compute().mi)


def test_the_repr_counts_what_is_in_memory(ds):
    changed = ds.copy()
    changed["status"] = ds.status.copy(data=np.array([[0, 0, 0, 1], [0, 3, 0, 0]], dtype=np.int8))
    assert "6 converged, 1 censored, 1 failed" in repr(changed.mi)
    assert ", in memory, " in repr(changed.mi)
    assert "converged" not in repr(ds.mean("run", keep_attrs=True).mi)  # half a run is none


def test_the_repr_does_not_read_files(ds, tmp_path):
    mids.to_netcdf(ds, tmp_path / "runs.nc")
    with mids.open_dataset(tmp_path / "runs.nc") as opened:
        assert ", lazy, " in repr(opened.mi)
        assert "converged" not in repr(opened.mi)
        opened.load()
        assert "converged" in repr(opened.mi)


def test_the_html_has_the_same_rows_and_is_escaped(ds):
    html = ds.mi._repr_html_()
    assert "1 -&gt; 3" in html and "<table>" in html
    hostile = ds.assign({"<script>": ds.loss}).mi._repr_html_()
    assert "<script>" not in hostile


def test_selections_are_described(ds):
    assert "dim 100;" in repr(ds.isel(dim=0, run=1).mi)
    assert "not a dataset of mids" not in repr(ds[["loss"]].isel(time=0).mi)
    assert "dim 100" in repr(ds.stack(instant=("time",)).mi)


def test_a_sweep_is_described_by_its_values():
    flow = mids.flows.TwoTimescale(ridge=[0, 0.1])
    ds = mids.simulate("h1(z1)", dim=100, runs=2, seed=[3, 4], flow=flow)
    rows = dict(line.split(maxsplit=1) for line in repr(ds.mi).splitlines()[1:])
    assert rows["sweep"].startswith("seed 3, 4; ridge 0, 0.1; dim 100; 2 runs")
    assert rows["flow"] == "two-timescale, student rank 1, rtol 1e-08"


@pytest.mark.parametrize(
    ("target", "leaps"),
    [
        ("staircase(5)", "1 -> 1 -> 1 -> 1 -> 1: log d, log d, log d, log d, log d"),
        ("additive(64, 0.75, h3)", "64 directions): d^2"),
        ("staircase(7)", "mids.ladder(ds.mi.target) finds them"),
    ],
)
def test_the_ladder_is_shown_where_it_is_found_at_once(target, leaps):
    ds = mids.simulate(target, dim=1000, runs=1, student_rank=1, time=[0.0, 1.0])
    rows = dict(line.split(maxsplit=1) for line in repr(ds.mi).splitlines()[1:])
    assert rows["leaps"].endswith(leaps)


# -- foreign datasets ---------------------------------------------------------------------------


def test_a_foreign_dataset_is_told_so(foreign):
    assert repr(foreign.mi).startswith("not a dataset of mids")
    assert "mids.simulate" in repr(foreign.mi)
    assert "mids.simulate" in foreign.mi._repr_html_()


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"describe", "to_netcdf"}))
def test_methods_say_what_a_foreign_dataset_lacks(foreign, name):
    with pytest.raises(DatasetError):
        getattr(foreign.mi, name)()


@pytest.mark.parametrize("name", ["target", "flow"])
def test_properties_say_what_a_foreign_dataset_lacks(foreign, name):
    with pytest.raises(DatasetError, match="no variable 'recipe'"):
        getattr(foreign.mi, name)


@pytest.mark.parametrize("name", PLOTS)
def test_plots_say_what_a_foreign_dataset_lacks(foreign, name):
    with pytest.raises(DatasetError):
        getattr(foreign.mi.plot, name)()


def test_importing_the_package_registers_the_accessor():
    code = "import mids, xarray; assert hasattr(xarray.Dataset, 'mi')"
    subprocess.run([sys.executable, "-c", code], check=True)
