"""Phase diagrams of the empirical flow: what they hold, the collapse in n / d^s, their picture."""

from __future__ import annotations

from html import escape

import dask
import numpy as np
import pytest
import xarray as xr

import mids
from mids import schema
from mids.errors import DatasetError, InputError
from mids.flows import Empirical
from mids.simulation.phase_diagram import from_spec
from mids.simulation.simulate import differences

ARGUMENTS = {"dim": [12, 24], "n": [12, 24, 384, 768], "runs": 3, "noise": 0.5, "duration": 10}


@pytest.fixture(scope="module")
def diagram():
    return mids.phase_diagram("h1(z1) + h1(z1)*h1(z2)", **ARGUMENTS).compute()


def refuse(*args, **kwargs):
    raise AssertionError("something was computed")


def test_nothing_runs_before_it_is_computed():
    with dask.config.set(scheduler=refuse):
        ds = mids.phase_diagram("h1(z1)", **ARGUMENTS)
        ds.mi.validate()
    assert ds.success.chunks is not None


@pytest.mark.slow
def test_it_holds_the_ends_of_the_flow(diagram):
    diagram.mi.validate()
    flow = Empirical(n=384, noise=0.5)
    single = mids.simulate(
        "h1(z1) + h1(z1)*h1(z2)", dim=[12, 24], runs=3, flow=flow, time=[0, 10]
    ).compute()
    here = diagram.sel(n=384)
    np.testing.assert_array_equal(here.final_overlap, single.overlap.isel(time=-1))
    np.testing.assert_array_equal(here.final_risk, single.risk.isel(time=-1))
    np.testing.assert_array_equal(here.success, single.overlap.isel(time=-1, direction=1) >= 0.5)


def test_success_depends_on_the_ratio(diagram):
    fractions = diagram.success.mean("run").values
    assert (fractions[:, 0] == 0).all() and (fractions[:, -1] == 1).all()
    np.testing.assert_array_equal(diagram.ratio, [[1, 2, 32, 64], [0.5, 1, 16, 32]])
    assert fractions[0, 2] == fractions[1, 3] == 1 and fractions[0, 0] == fractions[1, 1] == 0


def test_the_exponent_is_the_largest_leap():
    short = {**ARGUMENTS, "duration": 1.0}
    for text, s in (("h1(z1) + h1(z1)*h3(z2)", 3), ("h2(z1)", 2), ("staircase(3)", 1)):
        ds = mids.phase_diagram(text, **short)
        np.testing.assert_allclose(ds.ratio, ds.n.values / ds.dim.values[:, None] ** float(s))
    assert mids.phase_diagram("h2(z1)", exponent=1, **short).ratio[0, 0] == 1


@pytest.mark.slow
def test_it_is_described_and_stored(diagram, tmp_path):
    flows = [recipe["flow"] for recipe in schema.recipes(diagram).values()]
    assert [flow["n"] for flow in flows] == ARGUMENTS["n"] and flows[0]["noise"] == 0.5
    assert list(schema.grids(diagram).values()) == [[0.0, 10.0]]
    diagram.mi.to_netcdf(tmp_path / "diagram.nc")
    with mids.open_dataset(tmp_path / "diagram.nc") as again:
        assert differences(diagram, again) == []
        assert again.ratio.dims == ("dim", "n")
        alone = again.isel(run=[1])
        assert differences(alone, mids.replay(alone)) == []


def test_it_says_what_it_is(diagram):
    target = mids.Target.parse("h1(z1) + h1(z1)*h1(z2)")
    assert diagram.mi.target == target
    with pytest.raises(DatasetError, match=r"4 target and flows, which vary along n; .*isel\(n=0"):
        _ = diagram.mi.flow
    assert diagram.isel(n=1).mi.flow.n == ARGUMENTS["n"][1]
    text = repr(diagram.mi)
    for part in (
        repr(target),
        "1 -> 1",
        "empirical",
        "noise 0.5",
        "student rank 2",
        "an overlap of 0.5; ratio is n / d^1",
        "dim 12, 24; n 12, 24, 384, 768; 3 runs",
        ".plot.success()",
    ):
        assert part in text and escape(part) in diagram.mi._repr_html_()


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        {"dim": 1, "n": [0, 2], "run": slice(1, 3)},
        {"dim": [0], "run": [2, 0], "direction": 1},
        {"n": [3, 0], "dim": [1, 0], "run": [0]},
    ],
)
def test_parts_are_replayed(diagram, part):
    chosen = diagram.isel(part)
    again = mids.replay(chosen)
    xr.testing.assert_identical(again.drop_attrs(), chosen.drop_attrs())
    assert differences(chosen, again) == []


def test_replay_has_all_arguments():
    ds = mids.phase_diagram(
        "h1(z1) + h2(z2)",
        dim=12,
        n=[40, 80],
        runs=[3, 9],
        seed=4,
        student_rank=1,
        duration=2.0,
        level=0.01,
        exponent=3,
        noise=0.2,
        kernel={"polynomial": 1.0},
    )
    again = mids.replay(ds)
    assert schema.recipes(again) == schema.recipes(ds)
    assert differences(ds, again) == []
    np.testing.assert_array_equal(again.ratio, ds.ratio)
    changed = ds.compute()
    changed["final_risk"] = changed.final_risk * 1.001
    assert "final_risk differs in 2 of 2 runs" in differences(changed, again)[0]


def test_the_default_duration_is_long():
    ds = mids.phase_diagram("h1(z1)", dim=100, n=10, runs=1)
    (grid,) = schema.grids(ds).values()
    assert grid[-1] > 64 * 2 * np.log(100) / 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"n": 10}, "needs target and dim"),
        ({"target": "h1(z1)", "dim": 8, "n": 10, "runz": 2}, "did you mean 'runs'"),
        ({"target": "h1(z1)", "dim": 8, "n": 10, "flow": {"name": "joint"}}, "flow 'empirical'"),
        ({"target": "h1(z1)", "dim": 8, "n": 10, "flow": {"noisy": 1}}, "did you mean 'noise'"),
        ({"target": "h1(z1)", "dim": 8, "n": 10, "flow": {"n": 3}}, "unknown parameter"),
    ],
)
def test_wrong_specs_are_named(spec, message):
    with pytest.raises(InputError, match=message):
        from_spec(spec)


@pytest.mark.parametrize("x", ["ratio", "n"])
def test_the_picture_shows_the_fractions(diagram, x):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    (ax,) = diagram.mi.plot.success(x=x).ravel()
    for line, dim in zip(ax.lines, (12, 24), strict=True):
        at = diagram.sel(dim=dim)
        np.testing.assert_array_equal(line.get_xdata(), at[x])
        np.testing.assert_array_equal(line.get_ydata(), at.success.mean("run"))
    assert ax.get_xlabel() == ("samples $n$" if x == "n" else "samples $n / d$")
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == [
        "$d = 12$",
        "$d = 24$",
        "68 % interval (Wilson)",
    ]
    assert len(ax.collections) == 2
    plt.close("all")


def test_the_picture_is_divided_by_any_dimension(diagram):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    noises = xr.DataArray([0.1, 0.2, 0.3], dims="noise", name="noise")
    both = xr.concat(
        [diagram.assign(success=diagram.success & on) for on in (True, True, False)], noises
    )
    axes = mids.plot.success(both, row="dim", col="noise")
    assert axes.shape == (2, 3)
    for ax, here in zip(
        axes[1], (*[diagram.success.isel(dim=1).mean("run")] * 2, 0 * diagram.n), strict=True
    ):
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), here)
    wrapped = mids.plot.success(both, col="noise", col_wrap=2)
    wrapped[0, 0].figure.canvas.draw()
    labels = [any(label.get_visible() for label in ax.get_xticklabels()) for ax in wrapped.flat[:3]]
    assert labels == [False, True, True]
    plt.close("all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": []}, "n must be numbers of samples that increase"),
        ({"n": [100, 10]}, "increase"),
        ({"n": 10**30}, r"below 2\*\*63"),
        ({"n": 2.5}, "2.5"),
        ({"level": 0}, "level"),
        ({"duration": -1}, "duration"),
        ({"exponent": 0}, "exponent"),
        ({"noisy": 0.1}, "did you mean 'noise'"),
        ({"noise": -1}, "noise"),
        ({"dim": 1}, "dim must be"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        mids.phase_diagram("h1(z1)", **{**ARGUMENTS, **arguments})


def test_the_picture_needs_a_diagram(diagram):
    with pytest.raises(DatasetError, match="success"):
        mids.plot.success(mids.simulate("h1(z1)", dim=10))
    with pytest.raises(InputError, match="'n', 'ratio'"):
        mids.plot.success(diagram, x="d")
