"""The registry of variables, and validation against it."""

from __future__ import annotations

import hashlib
import json

import dask
import numpy as np
import pytest
import xarray as xr
from toy_flow import ToyFlow

import mids
from mids import schema
from mids.errors import DatasetError, MidsError


def refuse(*args, **kwargs):
    raise AssertionError("something was computed")


@pytest.fixture
def ds():
    return mids.simulate(
        "h1(z1) + h1(z1)*h3(z2)", dim=[100, 1000], runs=3, flow=ToyFlow(), time=[0, 1, 10]
    )


ENTRIES = {**schema.VARIABLES, **schema.COORDINATES}


@pytest.mark.parametrize("name", ENTRIES)
def test_entries_are_complete(name):
    entry = ENTRIES[name]
    assert set(entry.dims) <= schema.DIMENSIONS.keys()
    assert entry.long_name and entry.meaning
    assert entry.accepts(np.dtype("<U3" if entry.dtype == "str" else entry.dtype))
    assert not entry.accepts(np.dtype(bool))
    assert entry.attributes.keys() == {*entry.required, "comment"}
    assert entry.attributes.get("units", "1") == "1"
    assert entry.attributes["comment"] == entry.meaning


def test_every_row_is_in_the_table():
    table = schema.table()
    for name, entry in ENTRIES.items():
        assert f"| {name} | {', '.join(entry.dims)} | {entry.dtypes} | {entry.meaning} |" in table


def test_simulations_follow_the_schema_and_nothing_is_computed(ds):
    with dask.config.set(scheduler=refuse):
        mids.validate(ds)
        mids.validate(ds.assign(mine=ds.loss * 2, other=("somewhere", [1, 2])))
        mids.validate(ds.drop_vars("overlap"))


def changed(ds, name, **attrs):
    return ds.assign({name: ds[name].assign_attrs(attrs)})


BREAKAGES = {
    "no version": (lambda ds: ds.drop_attrs(deep=False), "mids_schema is missing"),
    "newer version": (lambda ds: ds.assign_attrs(mids_schema=99), "mids_schema is 99"),
    "version as text": (lambda ds: ds.assign_attrs(mids_schema="1"), "mids_schema is '1'"),
    "recipes no JSON": (
        lambda ds: ds.assign_attrs(mids_recipes="{"),
        "mids_recipes is not JSON",
    ),
    "dims": (
        lambda ds: ds.assign(loss=ds.loss.transpose("run", "dim", "time")),
        r"loss has dims \(run, dim, time\), but must have \(dim, run, time\)",
    ),
    "dtype": (
        lambda ds: ds.assign(status=ds.status.astype(float)),
        "status has dtype float64, but must have int8",
    ),
    "mode dtype": (
        lambda ds: ds.assign_coords(mode=[1, 2]),
        "mode has dtype int64, but must have str",
    ),
    "units": (lambda ds: changed(ds, "loss", units="seconds"), "loss has units 'seconds'"),
    "no units": (lambda ds: ds.assign(loss=ds.loss.drop_attrs()), "lacks the attributes long_name"),
    "flags": (lambda ds: changed(ds, "status", flag_meanings="a b"), "status has flag_meanings"),
    "no time": (lambda ds: ds.drop_vars("time"), "coordinate time is missing"),
    "no run": (lambda ds: ds.drop_vars("run"), "coordinate run is missing"),
    "time falls": (lambda ds: ds.isel(time=[0, 2, 1]), "time must be finite and strictly"),
    "dim twice": (lambda ds: ds.isel(dim=[0, 0]), "dim has repeated values"),
    "dim zero": (lambda ds: shifted(ds, "dim", -100), "dim must be at least 1"),
    "run negative": (lambda ds: shifted(ds, "run", -1), "run must be at least 0"),
    "level": (lambda ds: shifted(ds, "level", 1), "level must lie between 0 and 1"),
    "rank": (lambda ds: ds.isel(direction=[0]), "direction 1, axis 2, axis_t 2"),
    "empty": (lambda ds: ds.drop_vars(list(ds.data_vars)), "none of the variables"),
}


def shifted(ds, name, by):
    values = xr.Variable(ds[name].dims, ds[name].values + by, ds[name].attrs)
    return ds.assign_coords({name: values})


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_each_breakage_is_named(ds, breakage):
    break_, message = BREAKAGES[breakage]
    with dask.config.set(scheduler=refuse), pytest.raises(DatasetError, match=message):
        mids.validate(break_(ds))


def test_all_problems_are_named_at_once(ds):
    names = ("units", "time falls", "no version")
    for name in names:
        ds = BREAKAGES[name][0](ds)
    with pytest.raises(MidsError) as caught:
        mids.validate(ds)
    assert len(str(caught.value).splitlines()) == 1 + len(names)
    assert "in 3 places" in str(caught.value)


def test_recipes_are_one_json_string(ds):
    decoded = json.loads(ds.attrs["mids_recipes"])
    ((key, recipe),) = schema.recipes(ds).items()
    assert decoded["recipes"] == {key: recipe} and key == schema.fingerprint(recipe)
    assert decoded["grids"] == schema.grids(ds) == {recipe["time"]: [0.0, 1.0, 10.0]}


def test_fingerprints_follow_their_definition(ds):
    ((key, recipe),) = schema.recipes(ds).items()
    kept = {name: value for name, value in recipe.items() if name != "versions"}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    assert key == hashlib.sha256(text.encode()).hexdigest()
    assert (ds.recipe.values == np.frombuffer(bytes.fromhex(key), dtype=np.uint8)).all()
    named = {**recipe, "target": {**recipe["target"], "name": "mine"}, "versions": {}}
    assert schema.fingerprint(named) == key


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[1]",
        7,
        "{}",
        '{"recipes": [], "grids": {}}',
        '{"recipes": {"1": {}}, "grids": {}}',
        '{"recipes": {"x": {"target": {}}}, "grids": {}}',
        "[" * 10**5,
    ],
)
def test_unusable_recipes_are_errors(ds, text):
    ds.attrs["mids_recipes"] = text
    with pytest.raises(DatasetError, match="mids_recipes"):
        schema.recipes(ds)


def test_global_attributes(ds):
    assert list(ds.attrs) == [
        "Conventions",
        "title",
        "summary",
        "source",
        "references",
        "history",
        "license",
        "comment",
        "keywords",
        "date_created",
        "mids_schema",
        "mids_recipes",
    ]
    assert ds.attrs["Conventions"] == "CF-1.11, ACDD-1.3"
    assert ds.attrs["source"] == f"mids {mids.__version__}"
    assert "10.1002/cpa.70006" in ds.attrs["references"]
    assert {type(value) for value in ds.attrs.values()} == {str, int}


def test_what_recipes_returns_is_free_to_be_changed():
    ds = mids.simulate("h1(z1)", dim=100, runs=1)
    (entry,) = mids.schema.recipes(ds).values()
    entry["seed"] = 7
    assert [other["seed"] for other in mids.schema.recipes(ds).values()] == [0]
