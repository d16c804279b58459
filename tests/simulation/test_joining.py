"""Joined datasets: right numbers for every run, or a refusal; never another run's recipe."""

from __future__ import annotations

import itertools

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mids
from mids import schema
from mids.errors import DatasetError, InputError, MidsError
from mids.flows import Joint, OnlineSGD, TwoTimescale
from mids.simulation.by_recipe import by_recipe
from mids.simulation.plan import LARGEST_CELLS
from mids.simulation.recipe import PARTS as ALL
from mids.simulation.recipe import Recipe, recipes_of

TIME = np.concatenate([[0.0], np.geomspace(0.1, 1e6, 40)])
PARTS = {
    "base": {},
    "seed": {"seed": 7},
    "ridge": {"flow": TwoTimescale(ridge=0.5)},
    "target": {"target": "2*h2(z1)"},
    "steep": {"target": "h3(z1)"},
    "ladder": {"target": "h1(z1) + h1(z1)*h2(z2)"},
}


def made(**arguments):
    usual = {"target": "h2(z1)", "dim": [100, 400], "runs": 3, "time": TIME}
    return mids.simulate(**{**usual, **arguments}).compute()


@pytest.fixture(scope="module")
def parts():
    return {name: made(**arguments) for name, arguments in PARTS.items()}


@pytest.fixture(scope="module")
def theories(parts):
    return {name: mids.theory(ds).escape_time for name, ds in parts.items()}


# -- every option of xarray, on datasets whose numbers name their recipe --------------------------

GRID = [0.0, 1.0]


def marked(marker, text="h2(z1)", seed=0, dims=(100,), runs=(0, 1)):
    """A dataset of one recipe in which each loss is `marker`, the degree and seed of its recipe."""
    recipe = Recipe(mids.Target.parse(text), TwoTimescale(), 1, seed, None, 1e-8, DIGEST)
    assert marker == mark(recipe)
    shape = (len(dims), len(runs))
    same = np.broadcast_to(schema.fingerprint_bytes([recipe.fingerprint]), (*shape, 32))
    recorded = schema.recorded({recipe.fingerprint: recipe.to_dict()}, {DIGEST: GRID})
    return xr.Dataset(
        {
            "loss": (("dim", "run", "time"), np.full((*shape, 2), float(marker))),
            "recipe": (("dim", "run", "byte"), same),
        },
        {"dim": list(dims), "run": list(runs), "time": GRID},
        {"mids_schema": 2, "mids_recipes": recorded},
    )


DIGEST = schema.grid_digest(GRID)


def mark(recipe):
    return 100 * recipe.target.degree + recipe.seed


def right_or_refused(ds):
    """Whether analyses take a dataset; they never see the numbers of another recipe."""

    def kernel(part, recipe):
        found = np.unique(part.loss.values[~np.isnan(part.loss.values)])
        assert found.tolist() in ([], [mark(recipe)])
        return part[["loss"]]

    try:
        found = by_recipe(ds, kernel, of=ALL)
    except DatasetError as error:
        said = ("mids.concat", "variable 'recipe'", "masked", "'run'", "has lost 'dim'")
        assert any(text in str(error) for text in said)
        return False
    known = (ds.recipe.fillna(0) != 0).any("byte")  # 0 in differences, too
    np.testing.assert_array_equal(found.loss, ds.loss.where(known).transpose(*found.loss.dims))
    return True


OPTIONS = ("coords", "compat", "data_vars", "join")
STRUCTURE = [
    {key: value for key, value in zip(OPTIONS, values, strict=True) if value is not None}
    for values in itertools.product(
        (None, "minimal", "different", "all"),
        (None, "equals", "override", "no_conflicts"),
        (None, "minimal", "different", "all"),
        (None, "outer", "inner", "exact", "override"),
    )
]
ATTRS = (None, "override", "drop", "drop_conflicts", "no_conflicts", mids.combine_attrs)
JOINS = {
    "new dim": lambda one, two, **o: xr.concat([one, two], "target", **o),
    "run": lambda one, two, **o: xr.concat([one, two], "run", **o),
    "dim": lambda one, two, **o: xr.concat([one, two.assign_coords(dim=[400])], "dim", **o),
    "by coords": lambda one, two, **o: xr.combine_by_coords(
        [one, two.assign_coords(dim=[400])], **o
    ),
}


def all_attrs(one, two):
    """What each `combine_attrs` of xarray makes of the attributes; it does so apart."""
    for how in ATTRS:
        parts = [xr.Dataset(attrs=part.attrs) for part in (one, two)]
        try:
            yield how, xr.merge(parts, **({} if how is None else {"combine_attrs": how})).attrs
        except xr.MergeError:
            continue


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("new", [False, True], ids=["old defaults", "new defaults"])
@pytest.mark.parametrize("way", JOINS)
def test_every_option_of_xarray(new, way):
    one, two = marked(200), marked(307, "h3(z1)", seed=7)
    seen, taken = {}, set()
    with xr.set_options(use_new_combine_kwarg_defaults=new):
        attrs = list(all_attrs(one, two))
        for options in STRUCTURE:
            try:
                found = JOINS[way](one, two, **options, combine_attrs="drop")
            except (ValueError, xr.MergeError):  # xarray refuses
                continue
            for how, given in attrs:
                key = (
                    how,
                    *(str(found[n].dims) for n in found.data_vars),
                    found.loss.values.tobytes(),
                )
                if key not in seen:
                    seen[key] = right_or_refused(found.assign_attrs(given))
                several = len(np.unique(found.loss)) > 1
                taken.add((how is mids.combine_attrs, several, seen[key]))
    assert (True, True, True) in taken and (False, True, True) not in taken
    assert (True, True, False) not in taken  # what keeps all recipes is never refused


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("new", [False, True], ids=["old defaults", "new defaults"])
def test_every_option_of_merge(new):
    one, two = marked(200), marked(307, "h3(z1)", seed=7)
    with xr.set_options(use_new_combine_kwarg_defaults=new):
        for compat, join, how in itertools.product(
            (None, "equals", "override", "no_conflicts", "broadcast_equals", "minimal"),
            (None, "outer", "inner", "exact", "override", "left"),
            ATTRS,
        ):
            given = {"compat": compat, "join": join, "combine_attrs": how}
            try:
                found = xr.merge([one, two], **{k: v for k, v in given.items() if v is not None})
            except (ValueError, xr.MergeError):
                continue
            right_or_refused(found)


REDUCTIONS = {
    **{
        name: lambda ds, name=name: getattr(ds, name)("x")
        for name in ("max", "min", "mean", "median", "sum", "prod", "std", "var")
    },
    **{name: lambda ds, name=name: getattr(ds, name)("x") for name in ("any", "all", "count")},
    **{name: lambda ds, name=name: getattr(ds, name)("x") for name in ("argmax", "cumsum")},
    "largest": lambda ds: ds.reduce(np.max, "x"),
    "quantile": lambda ds: ds.quantile(0.5, "x", method="lower"),
    "rolling": lambda ds: ds.rolling(x=2).max(),
    "products so far": lambda ds: ds.cumulative("x").prod(),
    "coarse": lambda ds: ds.coarsen(x=2, boundary="trim").max(),
    "groups": lambda ds: ds.assign_coords(x=[0] * ds.sizes["x"]).groupby("x").max(),
    "groups of medians": lambda ds: ds.assign_coords(x=[0] * ds.sizes["x"]).groupby("x").median(),
    "between": lambda ds: ds.assign_coords(x=range(ds.sizes["x"])).interp(x=0.5),
    "differences": lambda ds: ds.diff("x"),
    "weighted": lambda ds: ds.weighted(xr.DataArray([1.0] * ds.sizes["x"], dims="x")).mean("x"),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_what_is_computed_over_several_recipes_has_none(name, masked):
    for count in (2, 3, 5):
        parts = [marked(200 + seed, seed=seed) for seed in range(count)]
        ds = mids.concat(parts, "x")
        assert right_or_refused(ds)
        found = REDUCTIONS[name](ds.where(ds.run >= 0) if masked else ds)
        assert not right_or_refused(found)


@pytest.mark.parametrize("how", ATTRS)
def test_variables_of_another_recipe_are_refused(parts, how):
    """New defaults of xarray take the recipe of the first and what only the second has."""
    one, two = parts["base"], parts["seed"]
    halves = [["loss", "recipe"], ["crossing_time", "status", "gram0", "recipe"]]
    try:
        options = {} if how is None else {"combine_attrs": how}
        of_both = xr.merge([one[halves[0]], two[halves[1]]], compat="override", **options)
    except xr.MergeError:
        return
    with pytest.raises(DatasetError, match=r"mids\.concat"):
        mids.theory(of_both)
    with pytest.raises(DatasetError, match="'gram0' was made by other recipes"):
        mids.theory(one.assign(gram0=two.gram0))
    if how == "drop":  # the recipes of one, too
        return
    of_one = xr.merge([one[names] for names in halves], compat="override", **options)
    np.testing.assert_array_equal(mids.theory(of_one).escape_time, mids.theory(one).escape_time)


def test_a_dim_of_which_recipes_say_nothing_is_refused():
    one, two = marked(200), marked(307, "h3(z1)", seed=7)
    first = xr.concat([one, two], "x", data_vars=["loss"], coords="minimal", compat="override")
    with pytest.raises(DatasetError, match=r"'loss' has the dim 'x', but 'recipe' does not say"):
        by_recipe(first, lambda part, _: part)


def test_merge_keeps_no_foreign_recipe(parts):
    with pytest.raises(xr.MergeError):
        xr.merge([parts["base"], parts["target"]], compat="equals", join="outer")
    overridden = xr.merge([parts["base"], parts["target"]], compat="override", join="outer")
    xr.testing.assert_equal(overridden.recipe, parts["base"].recipe)


@pytest.mark.parametrize("how", ATTRS)
def test_files_opened_together(tmp_path, how):
    parts = [marked(200), marked(307, "h3(z1)", seed=7)]
    paths = [tmp_path / f"{k}.nc" for k in range(2)]
    for part, path in zip(parts, paths, strict=True):
        part.to_netcdf(path)
    options = {"combine": "nested", "concat_dim": "x", "data_vars": "all", "compat": "equals"}
    options |= {"coords": "different", "join": "exact"}
    try:
        joined = xr.open_mfdataset(paths, combine_attrs=how or "override", **options)
    except xr.MergeError:
        assert how == "no_conflicts"
        return
    with joined:
        assert right_or_refused(joined) == (how is mids.combine_attrs)


# -- mids.concat --------------------------------------------------------------------------------


@pytest.mark.slow
def test_targets_of_different_rank_are_padded_and_told_apart(parts):
    names = ["base", "ladder", "steep"]
    ds = mids.concat([parts[name] for name in names], xr.Variable("target", names))
    assert ds.sizes["direction"] == 2 and ds.sizes["mode"] == 4
    assert [str(mode) for mode in ds.mode.values] == ["h2(z1)", "h1(z1)", "h1(z1)h2(z2)", "h3(z1)"]
    assert ds.degree.dims == ("mode",) and ds.degree.values.tolist() == [2, 1, 3, 3]
    assert ds.exponents.values.tolist() == [[2, 0], [1, 0], [1, 2], [3, 0]]
    ratio = mids.compare(ds).ratio
    for name in names:
        own = mids.compare(parts[name]).ratio
        here = ratio.sel(target=name).isel(saddle=slice(own.sizes["saddle"]))
        np.testing.assert_array_equal(here, own)
        assert mids.compare(ds.sel(target=name)).sizes["saddle"] == own.sizes["saddle"]
        assert ds.sel(target=name).mi.target == parts[name].mi.target
    assert np.nanmax(abs(ratio - 1)) < 0.1
    scaled = mids.scaling(ds)
    assert scaled.expected.sel(saddle=0).values.tolist() == [1.0, 0.0, 2.0]
    assert mids.simulation.simulate.differences(ds, mids.replay(ds)) == []
    assert mids.saddles(ds).visited.sel(saddle=1, target="base").sum() == 0


def test_parts_of_the_time_are_one_dataset_again(parts):
    ds = parts["base"]
    again = mids.concat([ds.isel(time=slice(9)), ds.isel(time=slice(9, None))], "time")
    xr.testing.assert_identical(again, ds)


def test_seeds_joined_along_run_are_analysed_and_replayed_each(parts):
    ds = mids.concat([parts["base"], parts["seed"]], "run")
    assert mids.simulation.simulate.differences(ds, mids.replay(ds)) == []
    assert len(recipes_of(ds, ("flow",))[1]) == 1  # the theory of both is one
    shuffled = ds.isel(run=[4, 0, 3, 1, 5, 2])
    np.testing.assert_array_equal(
        mids.compare(shuffled).ratio, mids.compare(ds).ratio.isel(run=[4, 0, 3, 1, 5, 2])
    )
    ds.mi.validate()


def test_scaling_needs_runs_of_one_target(parts):
    ds = mids.concat([parts["base"], parts["steep"]], "run")
    assert mids.compare(ds).ratio.sizes["run"] == 6
    with pytest.raises(DatasetError, match="dim='target'"):
        mids.scaling(ds)


def test_attributes_of_all_are_kept(parts):
    ds = mids.concat([parts["base"], parts["steep"]], "target")
    assert len(schema.recipes(ds)) == 2 and len(schema.grids(ds)) == 1
    assert ds.attrs["title"].count("\n") == 1
    assert ds.attrs["license"] == parts["base"].attrs["license"]
    text = ds.mi.describe()
    assert "2: h2(z1); h3(z1)" in text or "2: h3(z1); h2(z1)" in text
    ds.mi.validate()


def test_a_lazy_dataset_stays_lazy():
    parts = [mids.simulate(text, dim=100, runs=2, time=TIME) for text in ("h1(z1)", "h2(z1)")]
    ds = mids.concat(parts, "target")
    for found in (ds, mids.compare(ds), mids.theory(ds), mids.saddles(ds)):
        name = "loss"
        assert found[name].chunks is not None


@pytest.mark.parametrize(
    ("joined", "message"),
    [
        (lambda p: mids.concat([], "x"), "at least one"),
        (lambda p: mids.concat([p["base"].loss], "x"), "xarray.Dataset, got"),
        (
            lambda p: mids.concat([p["base"]] * 2, "direction"),
            "name of the schema",
        ),
        (lambda p: mids.concat([p["base"]] * 2, xr.Variable("loss", [0, 1])), "name of the schema"),
        (lambda p: mids.concat([p["base"]] * 2, pd.Index([0, 1])), "name of a dim or a variable"),
        (lambda p: mids.concat([p["base"], p["seed"]], "time"), "of the same runs"),
        (lambda p: mids.concat([p["base"], p["ridge"]], "x"), "all have the variables risk"),
        (
            lambda p: mids.concat([p["base"], made(time=[0.0, 1.0])], "x"),
            "different time grids",
        ),
        (
            lambda p: mids.concat([p["base"], p["seed"].drop_vars("recipe")], "x"),
            "no variable 'recipe'",
        ),
        (
            lambda p: mids.concat([p["base"], p["seed"].assign_attrs(mids_schema=1)], "x"),
            "schema versions",
        ),
    ],
)
def test_what_does_not_fit_is_refused(parts, joined, message):
    with pytest.raises(MidsError, match=message):
        joined(parts)


# -- what becomes of the variable `recipe` ------------------------------------------------------

KEPT = {
    "isel": lambda ds: ds.isel(run=[2, 0]),
    "one run": lambda ds: ds.isel(run=1),
    "stacked": lambda ds: ds.stack(cell=("dim", "run")),
    "stacked and back": lambda ds: ds.stack(cell=("run", "dim")).unstack("cell"),
    "grouped": lambda ds: ds.groupby("dim").map(lambda part: part),
    "masked": lambda ds: ds.where(ds.run > 0),
    "all there": lambda ds: ds.where(ds.run >= 0),
    "a coordinate": lambda ds: ds.set_coords("recipe"),
    "more attributes": lambda ds: ds.assign_attrs(note="mine"),
    "in a tree": lambda ds: xr.DataTree.from_dict({"a": ds})["a"].to_dataset(),
    "chunked": lambda ds: ds.chunk(run=1),
    "sorted": lambda ds: ds.sortby("run", ascending=False),
    "broadcast": lambda ds: ds.expand_dims(twice=[0, 1]),
}


@pytest.mark.parametrize("change", KEPT)
def test_recipes_survive(parts, theories, change):
    changed = KEPT[change](parts["base"])
    found = mids.theory(changed).escape_time.compute()
    expected = KEPT[change](
        theories["base"].to_dataset(name="escape_time").assign(recipe=parts["base"].recipe)
    ).escape_time
    np.testing.assert_array_equal(found, expected.transpose(*found.dims))


LOST = {
    "doubled": lambda ds: 2 * ds,
    "added": lambda ds: ds + ds,
    "differences": lambda ds: ds - ds.isel(run=0),
    "mean over runs": lambda ds: ds.mean("run"),
    "median over runs": lambda ds: ds.median("run"),
    "largest over runs": lambda ds: ds.max("run"),
    "largest over dims": lambda ds: ds.max("dim"),
    "without dim": lambda ds: ds.isel(dim=0, drop=True),
    "coarser dims": lambda ds: ds.coarsen({"dim": 2}).max(),
    "names of runs": lambda ds: ds.assign_coords(run=["a", "b", "c"]),
    "coarser": lambda ds: ds.isel(run=slice(2)).coarsen(run=2).mean(),
    "groups": lambda ds: ds.groupby("dim").mean("run"),
    "without": lambda ds: ds.drop_vars("recipe"),
    "other attributes": lambda ds: ds.drop_attrs(),
    "all masked": lambda ds: ds.where(ds.run > 99),
    "float64": lambda ds: ds.astype("float64"),
    "text": lambda ds: ds.assign_attrs(mids_recipes="{"),
    "no recipes": lambda ds: ds.assign_attrs(mids_recipes='{"recipes": {}, "grids": {}}'),
    "edited": lambda ds: ds.assign_attrs(
        mids_recipes=ds.attrs["mids_recipes"].replace("[[2]]", "[[3]]")
    ),
    "another's": lambda ds: ds.assign(recipe=ds.recipe + np.uint8(1)),
}


@pytest.mark.parametrize("change", LOST)
def test_stale_recipes_are_refused(parts, change):
    with pytest.raises(DatasetError):
        mids.theory(LOST[change](parts["base"]))


def test_a_run_has_one_recipe(parts):
    ladder = parts["ladder"]
    for mixed in (ladder.where(ladder.axis < 1), xr.where(ladder.axis < 1, ladder, 0 * ladder)):
        with pytest.raises(DatasetError, match="varies along 'axis', but a run has one recipe"):
            mids.theory(mixed.assign_attrs(ladder.attrs))


def test_an_edited_recipe_says_so(parts):
    with pytest.raises(DatasetError, match="was changed: its fingerprint is"):
        mids.theory(LOST["edited"](parts["base"]))
    with pytest.raises(DatasetError, match="was changed"):
        LOST["edited"](parts["base"]).mi.validate()


def test_what_needs_no_recipe_does_without(parts):
    ds = parts["base"].drop_vars("recipe").drop_attrs(deep=False)
    xr.testing.assert_equal(mids.saddles(ds), mids.saddles(parts["base"]))
    assert mids.plateaus(2 * ds).loss.notnull().any()


# -- random joins -------------------------------------------------------------------------------

STEPS = {
    "concat": lambda one, two, dim, draw: mids.concat([one, two], dim),
    "xarray": lambda one, two, dim, draw: xr.concat(
        [one, two],
        dim,
        **draw(st.sampled_from(STRUCTURE)),
        combine_attrs=draw(st.sampled_from(ATTRS[1:])),
    ),
    "merge": lambda one, two, dim, draw: xr.merge(
        [one, two], compat="override", combine_attrs=draw(st.sampled_from(ATTRS[1:]))
    ),
    "larger": lambda one, two, dim, draw: one.max(dim),
    "median": lambda one, two, dim, draw: one.median(dim),
    "first": lambda one, two, dim, draw: one.isel({dim: 0}),
    "backwards": lambda one, two, dim, draw: one.isel({dim: slice(None, None, -1)}),
    "masked": lambda one, two, dim, draw: one.where(one.loss.isel(time=0) > 250),
    "filled": lambda one, two, dim, draw: one.where(one.loss.isel(time=0) > 250, two),
    "stacked": lambda one, two, dim, draw: one.stack(cell=("dim", "run")).unstack("cell"),
    "shifted": lambda one, two, dim, draw: one.shift({dim: 1}),
    "sum": lambda one, two, dim, draw: one + two,
    "difference": lambda one, two, dim, draw: one - two,
    "attributes": lambda one, two, dim, draw: one.assign_attrs(two.attrs),
    "groups": lambda one, two, dim, draw: one.groupby("dim").map(lambda part: part),
    "largest of groups": lambda one, two, dim, draw: one.groupby("dim").max(),
    "in a tree": lambda one, two, dim, draw: xr.DataTree.from_dict({"a": one})["a"].to_dataset(),
}


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_steps_are_right_or_refused(data):
    """Datasets joined, selected, reduced and computed with in any order."""
    recipes = st.sampled_from([(200, "h2(z1)", 0), (201, "h2(z1)", 1), (307, "h3(z1)", 7)])
    runs = st.sampled_from([(0, 1), (2, 3), (1,)])
    made = st.tuples(recipes, runs).map(lambda given: marked(*given[0], runs=given[1]))
    ds = data.draw(made)
    for _ in range(data.draw(st.integers(1, 5))):
        step = STEPS[data.draw(st.sampled_from(sorted(STEPS)))]
        dim = data.draw(st.sampled_from(["run", "dim", "a", "b"]))
        try:
            ds = step(ds, data.draw(made), dim, data.draw)
        except (ValueError, KeyError, TypeError, MidsError, AttributeError, IndexError):
            continue  # xarray or mids refuses
    if "loss" in ds:
        right_or_refused(ds)


# -- sweeps -------------------------------------------------------------------------------------


def test_a_sweep_is_the_outer_product_of_its_parts():
    targets = {"square": "h2(z1)", "ladder": "h1(z1) + h1(z1)*h2(z2)", "cube": "h3(z1)"}
    ridges, dims, time = [0.0, 0.5], [100, 400], TIME[::4]
    lazy = mids.simulate(targets, dim=dims, runs=2, flow=TwoTimescale(ridge=ridges), time=time)
    assert lazy.loss.dims == ("target", "ridge", "dim", "run", "time")
    assert lazy.recipe.dims == ("target", "ridge", "dim", "run", "byte")
    assert len(schema.recipes(lazy)) == 6
    lazy.mi.validate()
    ds = lazy.compute()
    comparison, at_once = mids.compare(lazy).compute(), mids.compare(ds)
    xr.testing.assert_allclose(comparison, at_once.transpose(*comparison.dims), rtol=1e-12)
    for (name, text), ridge in itertools.product(targets.items(), ridges):
        flow = TwoTimescale(ridge=ridge)
        own = made(target=text, dim=dims, runs=2, flow=flow, time=time)
        at = {"target": name, "ridge": ridge}
        cell = ds.sel(at)
        rank = own.sizes["direction"]
        np.testing.assert_array_equal(cell.loss, own.loss)
        np.testing.assert_array_equal(cell.gram[..., :rank, :rank], own.gram)
        np.testing.assert_array_equal(cell.energy.sel(mode=own.mode), own.energy)
        np.testing.assert_array_equal(cell.recipe, own.recipe)
        for variable, expected in mids.compare(own).data_vars.items():  # of each of the 24 runs
            here = comparison[variable].sel(at).transpose(*expected.dims)
            if "saddle" in expected.dims:
                here = here.isel(saddle=slice(rank))
            np.testing.assert_array_equal(here, expected, err_msg=f"{variable} at {at}")
    assert ds.overlap.sel(target="square", direction=1).isnull().all()
    assert mids.simulation.simulate.differences(ds, mids.replay(ds)) == []


LAZY = ("saddles", "theory", "compare", "scaling")


@pytest.mark.slow
@pytest.mark.parametrize("analysis", LAZY)
def test_a_lazy_sweep_is_analysed_block_by_block(analysis, parts):
    ds = mids.concat([parts["base"], parts["ladder"], parts["steep"]], "target")
    ds = mids.concat([ds, ds.isel(run=[2, 0, 1])], "run")
    options = {"resamples": 20} if analysis == "scaling" else {}
    expected = getattr(mids, analysis)(ds, **options)
    lazy = getattr(mids, analysis)(ds.chunk(target=2, dim=1, run=4), **options)
    assert lazy.to_array("name", "all").chunks is not None if analysis != "scaling" else True
    for name, array in lazy.compute().data_vars.items():
        xr.testing.assert_identical(array, expected[name].transpose(*array.dims))
        assert array.dtype == expected[name].dtype


def test_a_large_sweep_has_a_small_graph():
    """A task for each block of runs and one for each variable of it, not some for each recipe."""
    ds = mids.simulate(
        ["h2(z1)", "h1(z1) + h1(z1)*h3(z2)", "staircase(3)"],
        dim=[100, 1e3, 1e4],
        runs=1000,
        flow=TwoTimescale(ridge=[0.0, 0.1, 0.5, 1.0]),
        time=TIME,
    )
    before, blocks = len(ds.__dask_graph__()), ds.loss.data.npartitions
    after = mids.compare(ds)
    assert len(after.__dask_graph__()) - before < (len(after) + 3) * blocks


def test_flows_may_be_listed_and_yield_different_variables():
    ds = mids.simulate("h2(z1)", dim=100, runs=2, flow=["two-timescale", "planted"], time=[0, 1.0])
    assert ds.flow.values.tolist() == ["two-timescale", "planted"]
    ds = ds.compute()
    assert ds.gram.sel(flow="planted").isnull().all()
    assert ds.correlation.sel(flow="planted").notnull().all()
    assert (ds.gram0.sel(flow="planted") == ds.gram0.sel(flow="two-timescale")).all()


def test_samples_of_unequal_steps_have_the_dim_of_the_sweep():
    flow = OnlineSGD(step=[0.1, 0.2], batch=10)
    ds = mids.simulate("h1(z1)", dim=20, runs=1, flow=flow, time=[0, 1.0, 2.0])
    assert ds.samples.dims == ("step", "time")
    assert ds.samples.isel(time=-1).values.tolist() == [200, 100]


@pytest.mark.parametrize("chunks", [2, -1, None, "auto", {"run": 2}, {"dim": 1}, (1, 2)])
def test_chunks_are_those_of_xarray(chunks):
    ds = mids.simulate(["h1(z1)", "h2(z1)"], dim=100, runs=3, time=[0, 1.0], chunks=chunks)
    blocks = {2: (2, 1), "(1, 2)": (1, 2)}.get(chunks if isinstance(chunks, int) else str(chunks))
    if chunks == {"run": 2}:
        blocks = (2, 1)
    assert ds.chunksizes["run"] == (blocks or (3,))


def test_a_number_is_a_horizon():
    for horizon in (1e-5, 10.0, 1e3, 1e30):
        time = mids.simulate("h2(z1)", dim=100, runs=1, time=horizon).time.values
        assert time[0] == 0 and time[-1] == horizon and (np.diff(time) > 0).all()
        more = mids.simulate("h2(z1)", dim=[100, 1e6], runs=1, time=horizon)
        assert np.array_equal(more.time, time)  # so that a store with this horizon can grow


def test_targets_may_be_callables():
    ds = mids.simulate(lambda z: z[:, 0] ** 2, rank=1, dim=100, runs=1, time=[0, 1.0])
    assert ds.mi.target.degree == 2
    both = mids.simulate({"a": lambda z: z[:, 0], "b": "h2(z1)"}, rank=1, dim=100, time=[0, 1.0])
    assert both.target.values.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": ["h2(z1)", "h2(z1)"]}, "some are equal"),
        ({"target": []}, "empty list"),
        ({"target": {1: "h2(z1)"}}, "must be texts"),
        ({"seed": [0, 0]}, "some are equal"),
        ({"seed": [0, -1]}, "seed"),
        ({"student_rank": [1, 1]}, "some are equal"),
        ({"flow": ["planted", "planted"]}, "name them"),
        ({"flow": [TwoTimescale(ridge=[0, 1]), "planted"]}, "list the flows one by one"),
        ({"flow": {"name": "joint", "link": ["fitted", "zero"]}}, "take the name of a variable"),
        ({"seed": range(LARGEST_CELLS + 1)}, "can be in one sweep"),
        ({"chunks": {"time": 3}}, "dim in chunks"),
        ({"target": lambda z: z[:, 0]}, "needs rank="),
        ({"time": -1.0}, "time must be"),
        (
            {"target": ["h2(z1)", "h1(z1) + h1(z2)"], "initial": [[0.1]]},
            "initial",
        ),
    ],
)
def test_wrong_sweeps_are_refused_before_any_work(arguments, message):
    usual = {"target": "h2(z1)", "dim": 100, "runs": 1}
    with pytest.raises(InputError, match=message):
        mids.simulate(**{**usual, **arguments})


@pytest.mark.parametrize("given", [3, np.array(3), xr.DataArray(1), xr.Dataset({"a": 1}), [None]])
def test_what_is_no_list_of_datasets_is_not_joined(given):
    with pytest.raises(InputError, match=r"each of datasets must be an xarray\.Dataset"):
        mids.concat(given, "seed")


def test_edited_recipes_are_refused_before_any_work(tmp_path):
    ds = mids.simulate("h2(z1)", dim=[100, 400], runs=2, time=TIME)
    text = ds.attrs["mids_recipes"].replace('"seed": 0', '"seed": 1')
    edited = ds.assign_attrs(mids_recipes=text)
    uses = [getattr(mids, name) for name in ("theory", "compare", "saddles", "scaling", "replay")]
    uses += [lambda ds: mids.concat([ds, ds], "x"), lambda ds: mids.to_netcdf(ds, tmp_path / "a")]
    with dask.config.set(scheduler=lambda *a, **k: pytest.fail("a task was computed")):
        for use in uses:
            with pytest.raises(DatasetError, match=r"was changed.*restore the attribute"):
                use(edited)


def test_parameters_that_a_flow_does_not_have_are_refused():
    with pytest.raises(InputError, match="epsilon"):
        TwoTimescale(epsilon=[0.1, 1])
    with pytest.raises(InputError, match="more than once"):
        Joint(epsilon=[0.1, 0.1])
    with pytest.raises(InputError, match="empty list"):
        Joint(epsilon=[])


def test_the_kernel_sees_one_recipe_at_a_time(parts):
    ds = mids.concat([parts["base"], parts["steep"], parts["target"]], "target")
    seen = []

    def kernel(part, recipe):
        seen.append((recipe.target, recipe.seed, part.sizes["target"]))
        return part[["status"]]

    found = by_recipe(ds, kernel)
    assert [size for *_, size in seen] == [1, 1, 1] and len({target for target, *_ in seen}) == 3
    assert {seed for _, seed, _ in seen} == {None}  # it asked for the flow alone
    xr.testing.assert_equal(found.status, ds.status)


def test_a_replay_of_averages_over_time_differs_from_them(parts):
    ds = parts["base"].mean("time")
    assert len(mids.simulation.simulate.differences(ds, mids.replay(ds))) > 3
