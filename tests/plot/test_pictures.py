"""Pictures as they were looked at, compared with images that running this file as a script draws.

The images hold everything but text, which depends on fonts and is compared as text; that it is
placed where it can be read is tested apart. Differences are those that remain in grey and after
blurring, in the place where they are largest.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter
from toy_flow import ToyFlow
from toy_theory import toy_comparison

import mids

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")
Image = pytest.importorskip("PIL.Image")  # comes with matplotlib

IMAGES = Path(__file__).parents[1] / "images"
TIME = np.concatenate([[0.0], np.geomspace(1e-3, 1e9, 200)])
TOLERANCE = 6.0
"""Of 255. A thin line more or less makes 7 or more, another font less than 1."""


def toy(target, dim, runs):
    return mids.simulate(target, dim=dim, runs=runs, flow=ToyFlow(), time=TIME).compute()


def ladder():
    return toy("h1(z1) + h1(z1)*h3(z2)", [100, 10_000, 54_321], 9)


def staircase():
    return toy("staircase(4)", [100, 10**6], 120)


def ridges():
    one, two = (toy("h1(z1) + h2(z2) + h3(z3)", [100, 10_000], runs=5) for _ in range(2))
    two = two.assign(loss=0.6 * two.loss, overlap=two.overlap**2, energy=0.6 * two.energy)
    return xr.concat([one, two], xr.DataArray([0.0, 0.5], dims="ridge", name="ridge"))


def with_theory(ds):
    return mids.plot.loss(ds, toy_comparison(ds), mids.plateaus(ds))


def coloured(ds):
    return mids.plot.loss(ds, hue="ridge")


def with_slopes(ds):
    saddle = np.arange(ds.sizes["direction"])
    columns = {
        "expected": ("saddle", 0.5 * saddle),
        "time_slope": ("saddle", 0 * saddle + 2.0),
        "rate": ("saddle", ["log d", *(f"d^{k / 2:g}" for k in saddle[1:])]),
    }
    fit = xr.Dataset(columns, {"saddle": saddle})
    return mids.plot.timescales(toy_comparison(ds), fit)


def measured(ds):
    comparison = toy_comparison(ds)
    late = comparison.escape_time > 200
    comparison["escape_time"] = comparison.escape_time.where(~late)
    return mids.plot.escape_times(comparison.assign(censored=late))


def ends():
    """Counts as `mids.traps` gives them, of two flows."""
    status = np.array([[0] * 9 + [1, 2, 2], [0] * 3 + [2] * 8 + [3], [2] * 12], dtype=np.int8)
    ds = xr.Dataset({"status": (("dim", "run"), status)}, {"dim": [100, 10_000, 54_321]})
    both = xr.concat([ds, 0 * ds], xr.DataArray(["planted", "other"], dims="flow", name="flow"))
    return mids.traps(both)


def phases():
    """Successes as `mids.phase_diagram` gives them, ever more of 20 runs as n / d^2 grows."""
    dim, n = np.array([16, 64, 256]), np.geomspace(10, 1e6, 11).astype(int)
    ratio = n / dim[:, None] ** 2
    late = np.round(20 * ratio / (1 + ratio))[..., None] > np.arange(20)
    return xr.Dataset(
        {"success": (("dim", "n", "run"), late)},
        {"dim": dim, "n": n, "ratio": (("dim", "n"), ratio)},
        {"mids_spec": json.dumps({"phase_diagram": {"exponent": 2}})},
    )


PICTURES = {
    "loss-ladder": (with_theory, ladder),
    "loss-staircase": (with_theory, staircase),
    "loss-ridges": (mids.plot.loss, ridges),
    "loss-colours": (coloured, ridges),
    "overlap-staircase": (mids.plot.overlap, staircase),
    "modes-ridges": (mids.plot.modes, ridges),
    "phase-ladder": (mids.plot.phase, ladder),
    "escape-times-ladder": (measured, ladder),
    "timescales-staircase": (with_slopes, staircase),
    "traps": (mids.plot.traps, ends),
    "success": (mids.plot.success, phases),
}


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def figure_of(name, change=lambda ds: ds):
    draw, data = PICTURES[name]
    return draw(change(data())).flat[0].figure


def image_of(figure):
    """Grey image of a figure without text and ticks, in a layout that does not depend on them."""
    figure.set_layout_engine("none")
    for ax in figure.axes:
        ax.set_position(ax.get_subplotspec().get_position(figure))
        ax.tick_params(which="both", length=0)
        for axis in (ax.xaxis, ax.yaxis):
            if axis.get_scale() == "log":  # so that a change of all times is seen
                axis.set_view_interval(1e-2, 1e6, ignore=True)
    for text in figure.findobj(matplotlib.text.Text):
        text.set_visible(False)
    for legend in [*figure.legends, *(ax.get_legend() for ax in figure.axes)]:
        if legend is not None:
            legend.set_visible(False)
    figure.set_dpi(40)
    figure.canvas.draw()
    rgb = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    return np.round(rgb @ [0.2126, 0.7152, 0.0722]).astype(np.uint8)


def difference(one, two):
    """Largest difference of two grey images, of 255, after blurring over two pixels."""
    if one.shape != two.shape:
        return 255.0
    return float(np.abs(gaussian_filter(one.astype(float) - two, 2.0)).max())


def stored(name):
    with Image.open(IMAGES / f"{name}.png") as image:
        return np.asarray(image)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_look_as_they_did(name):
    assert difference(image_of(figure_of(name)), stored(name)) < TOLERANCE


@pytest.mark.parametrize("name", ["loss-ladder", "escape-times-ladder"])
def test_other_fonts_make_no_difference(name):
    with matplotlib.rc_context({"font.family": "serif", "font.size": 13}):
        found = image_of(figure_of(name))
    assert difference(found, stored(name)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("loss-ladder", lambda ds: ds.assign(crossing_time=1.5 * ds.crossing_time)),
        ("loss-ladder", lambda ds: ds.assign(loss=ds.loss**1.1)),
        ("loss-ladder", lambda ds: ds.assign_coords(time=2 * ds.time)),
        ("loss-ridges", lambda ds: ds.isel(ridge=[1, 0])),
        ("overlap-staircase", lambda ds: ds.isel(direction=slice(3))),
        ("modes-ridges", lambda ds: ds.assign(energy=ds.energy * ds.degree / 2)),
        ("phase-ladder", lambda ds: ds.isel(direction=[1, 0])),
        ("escape-times-ladder", lambda ds: ds.isel(run=slice(1, None))),
        ("timescales-staircase", lambda ds: ds.isel(run=slice(20))),
        ("traps", lambda ds: ds.isel(flow=[1, 0])),
        ("traps", lambda ds: ds.assign(censored=0 * ds.censored)),
        ("traps", lambda ds: ds.assign(low=ds.probability, high=ds.probability)),
        ("success", lambda ds: ds.assign(success=ds.success & (ds.run < 17))),
        ("success", lambda ds: ds.isel(dim=[1, 0, 2])),
    ],
)
def test_wrong_pictures_are_told_from_right_ones(name, change):
    assert difference(image_of(figure_of(name, change)), stored(name)) > TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "artists"),
    [
        (
            "loss-ladder",
            lambda ax: [line for line in ax.get_lines() if line.get_linestyle() == ":"],
        ),
        (
            "loss-ladder",
            lambda ax: [line for line in ax.get_lines() if line.get_linewidth() == 1.1],
        ),
        ("loss-ladder", lambda ax: [line for line in ax.get_lines() if line.get_linewidth() == 7]),
        ("loss-ladder", lambda ax: ax.collections),
        ("escape-times-ladder", lambda ax: ax.get_lines()[:1]),
        ("timescales-staircase", lambda ax: ax.containers[0].get_children()),
    ],
)
def test_a_missing_line_is_noticed(name, artists):
    figure = figure_of(name)
    for artist in artists(figure.axes[-1]):
        artist.remove()
    assert difference(image_of(figure), stored(name)) > TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_texts_can_be_read(name):
    """None is cut off by the edge and none lies on another."""
    figure = figure_of(name)
    figure.canvas.draw()
    beyond = {
        text
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        for text in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    boxes = {
        text: text.get_window_extent()
        for text in figure.findobj(matplotlib.text.Text)
        if text.get_visible() and text.get_text() and text not in beyond
    }
    edge = figure.bbox
    for text, box in boxes.items():
        assert edge.x0 - 1 <= box.x0 <= box.x1 <= edge.x1 + 1, text
        assert edge.y0 - 1 <= box.y0 <= box.y1 <= edge.y1 + 1, text
    listed = [(text, box.padded(-2)) for text, box in boxes.items()]
    for index, (text, box) in enumerate(listed):
        for other, place in listed[:index]:
            assert not box.overlaps(place), (text, other)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for picture in PICTURES:
        Image.fromarray(image_of(figure_of(picture))).save(IMAGES / f"{picture}.png", optimize=True)
        plt.close("all")
