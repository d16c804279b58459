"""Files of schema 1: their recipe was one attribute."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import mids
from mids import schema
from mids.errors import DatasetError
from mids.flows import TwoTimescale
from mids.simulation.upgrade import upgraded

TIME = np.concatenate([[0.0], np.geomspace(0.1, 100, 8)])
M0 = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3, 1, 1))


def made(**arguments):
    usual = {"target": "h2(z1)", "dim": [50, 100], "runs": 3, "time": TIME}
    return mids.simulate(**{**usual, **arguments}).compute()


def old(ds, **other):
    """The same dataset as version 0.1 wrote it."""
    (recipe,) = schema.recipes(ds).values()
    spec = {
        **recipe,
        "dim": ds.dim.values.tolist(),
        "runs": ds.sizes["run"],
        "time": ds.time.values.tolist(),
        **other,
    }
    attrs = {name: value for name, value in ds.attrs.items() if name != "mids_recipes"}
    attrs |= {"mids_schema": 1, "mids_spec": json.dumps(spec)}
    label = ("mode", ds.mode.values)
    return (
        ds.drop_vars(["recipe", "mode"])
        .assign_coords(label=label)
        .assign_attrs(attrs)
        .pipe(lambda each: xr.Dataset(each.data_vars, each.coords, attrs))
    )


@pytest.mark.parametrize(
    ("arguments", "other"),
    [
        ({}, {}),
        ({"runs": [4, 2, 9]}, {"runs": [4, 2, 9]}),
        ({"flow": TwoTimescale(ridge=0.5), "seed": 3}, {}),
        ({}, {"time": {"variable": "time"}}),
        ({"initial": M0[0, 0]}, {"initial": M0[:1, :1].tolist()}),
        ({"initial": M0}, {"initial": M0.tolist()}),
    ],
)
def test_old_datasets_have_the_recipe_of_new_ones(arguments, other):
    ds = made(**arguments)
    before = old(ds, **other)
    assert "recipe" not in before and before.attrs["mids_schema"] == 1
    after = upgraded(before if "initial" not in before else before.drop_vars("initial"))
    schema.validate(after)
    np.testing.assert_array_equal(after.recipe, ds.recipe)
    assert schema.recipes(after) == schema.recipes(ds)
    xr.testing.assert_equal(after.mode, ds.mode)
    assert mids.simulation.simulate.differences(after, mids.replay(after)) == []
    assert upgraded(ds) is ds


def test_selections_of_old_datasets_are_replayed(tmp_path):
    before = old(made(initial=M0), initial=M0.tolist()).drop_vars("initial").isel(run=[2, 0])
    before = before.drop_encoding()
    before.to_netcdf(tmp_path / "old.nc")
    with mids.open_dataset(tmp_path / "old.nc") as ds:
        assert mids.simulation.simulate.differences(ds.compute(), mids.replay(ds)) == []


def test_old_phase_diagrams_are_sweeps_over_n():
    ds = mids.phase_diagram(
        "h1(z1)", dim=[8, 16], n=[20, 40], runs=2, noise=0.5, duration=5
    ).compute()
    recipes = list(schema.recipes(ds).values())
    flow = {name: v for name, v in recipes[0]["flow"].items() if name not in ("name", "n")}
    ((duration,),) = {tuple(grid[1:]) for grid in schema.grids(ds).values()}
    diagram = {
        **{name: recipes[0][name] for name in ("target", "seed", "student_rank")},
        "n": [20, 40],
        "flow": flow,
        "duration": duration,
        "level": 0.5,
        "exponent": 1,
    }
    attrs = {"mids_schema": 1, "mids_spec": json.dumps({"phase_diagram": diagram})}
    after = upgraded(xr.Dataset(ds.drop_vars("recipe").data_vars, ds.coords, attrs))
    assert schema.recipes(after).keys() == schema.recipes(ds).keys()
    np.testing.assert_array_equal(after.recipe.transpose(*ds.recipe.dims), ds.recipe)
    assert after.success.attrs["level"] == 0.5 and after.ratio.attrs["exponent"] == 1
    assert mids.simulation.simulate.differences(after, mids.replay(after)) == []


def test_old_trajectories_keep_their_target():
    ds = mids.from_trajectories(loss=[1.0, 0.5], time=[0, 1], dim=10, target="h2(z1)")
    (recipe,) = schema.recipes(ds).values()
    attrs = {"mids_schema": 1, "mids_spec": json.dumps({"target": recipe["target"]})}
    after = upgraded(xr.Dataset(ds.drop_vars("recipe").data_vars, ds.coords, attrs))
    assert after.mi.target == mids.Target.parse("h2(z1)")
    attrs["mids_spec"] = "{}"
    nameless = upgraded(xr.Dataset(ds.drop_vars("recipe").data_vars, ds.coords, attrs))
    assert schema.recipes(nameless) == {}


@pytest.mark.parametrize(
    "spec",
    ["{", "3", '{"target": 3}', '{"target": {"modes": [[2]], "coefficients": [1]}, "flow": 1}'],
)
def test_old_recipes_without_sense_are_refused(spec):
    ds = xr.Dataset(attrs={"mids_schema": 1, "mids_spec": spec})
    with pytest.raises(DatasetError, match="mids_spec does not describe the dataset"):
        upgraded(ds)
