"""The same runs under several flows."""

from __future__ import annotations

import dask
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import mids
from mids.errors import DatasetError, InputError
from mids.flows import Joint, TwoTimescale
from mids.simulation.replay import differences

mpl.use("agg")
TEXT = "h1(z1) + h1(z1)*h3(z2)"


def refuse(*args, **kwargs):
    raise AssertionError("something was computed")


def test_runs_start_from_the_same_frames_on_one_grid():
    with dask.config.set(scheduler=refuse):
        tree = mids.against(TEXT, ["two-timescale", "planted"], dim=[1e2, 1e4], runs=12, seed=4)
    fast, known = (tree[name].to_dataset().compute() for name in ("two-timescale", "planted"))
    np.testing.assert_array_equal(fast.gram0, known.gram0)
    np.testing.assert_array_equal(fast.time, known.time)
    assert (fast.status == 0).all()
    trapped = known.mi.traps()
    assert ((trapped.low < 0.5) & (trapped.high > 0.5)).all()
    escaped = known.status == 0
    assert (known.crossing_time < fast.crossing_time).where(escaped, True).all()
    for ds in (fast, known):
        mids.validate(ds)
        assert not differences(ds, mids.replay(ds))


def test_flows_may_be_named_and_time_given():
    flows = {"close": Joint(epsilon=1e-3), "far": Joint(epsilon=0.5), "limit": TwoTimescale()}
    time = np.concatenate([[0], np.geomspace(0.01, 100, 30)])
    tree = mids.against("h2(z1)", flows, dim=50, runs=3, time=time)
    assert list(tree) == list(flows)
    loss = {name: tree[name].to_dataset().loss.compute() for name in tree}
    gaps = [abs(loss[name] - loss["limit"]).max().item() for name in ("close", "far")]
    assert 0 < 20 * gaps[0] < gaps[1]
    np.testing.assert_array_equal(loss["far"].time, time)


@pytest.mark.parametrize(
    ("flows", "arguments", "message"),
    [
        ("planted", {}, "flows must be a list"),
        ([], {}, "flows must be a list"),
        ([Joint(), Joint(epsilon=1)], {}, "names must differ"),
        (["planted", "plantd"], {}, "unknown flow"),
        ({"a/b": "planted"}, {}, "without a slash"),
        ({1: "planted"}, {}, "without a slash"),
        (["planted"], {"flow": "joint"}, "not flow="),
        (["planted"], {"student_rank": 3}, "needs student_rank"),
    ],
)
def test_wrong_arguments_are_named(flows, arguments, message):
    with pytest.raises(InputError, match=message):
        mids.against(TEXT, flows, dim=100, runs=1, **arguments)


def test_one_picture_has_all_flows():
    tree = mids.against(TEXT, ["two-timescale", "planted"], dim=[1e2, 1e4], runs=8)
    axes = mids.plot.against(tree, col="dim")
    assert axes.shape == (1, 2)
    texts = [text.get_text() for text in axes[0, 0].figure.legends[0].get_texts()]
    count = int((tree["planted"].to_dataset().status == 2).sum())
    assert texts == ["two-timescale", f"planted ({count} of 16 trapped)"]
    for ax in axes.flat:
        assert len(ax.lines) == 2 and len(ax.collections) == 2
        start = [line.get_ydata()[0] for line in ax.lines]
        np.testing.assert_allclose(start, 1)
    mpl.pyplot.close("all")


def test_pictures_need_datasets_with_losses():
    with pytest.raises(InputError, match=r"mids\.against"):
        mids.plot.against(xr.DataTree())
    with pytest.raises(DatasetError, match="loss"):
        mids.plot.against(xr.DataTree.from_dict({"a": xr.Dataset({"x": 1})}))
