"""Joined datasets: right numbers for every run, or a refusal; never another run's recipe."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mids
from mids import schema
from mids.errors import DatasetError, InputError, MidsError
from mids.flows import Joint, OnlineSGD, TwoTimescale
from mids.simulation.by_recipe import by_recipe
from mids.simulation.joining import recipes_of
from mids.simulation.plan import LARGEST_CELLS

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


def check(joined, expected):
    """Hold the theory of a joined dataset against that of its parts, or accept a refusal."""
    try:
        found = mids.theory(joined).escape_time
    except DatasetError as error:
        assert "mids.concat" in str(error) or "variable 'recipe'" in str(error)
        return False
    found, expected = xr.align(found, expected, join="inner", exclude=["saddle"])
    saddles = min(found.sizes["saddle"], expected.sizes["saddle"])
    found, expected = (side.isel(saddle=slice(saddles)) for side in (found, expected))
    np.testing.assert_array_equal(found, expected.transpose(*found.dims))
    return True


# -- every option of xarray ---------------------------------------------------------------------

OPTIONS = [
    dict(zip(("coords", "compat", "data_vars", "combine_attrs", "join"), values, strict=True))
    for values in itertools.product(
        (None, "minimal", "different", "all"),
        (None, "equals", "override", "no_conflicts"),
        (None, "minimal", "different", "all"),
        (None, "override", "drop", "drop_conflicts", "no_conflicts", mids.combine_attrs),
        (None, "outer", "inner", "exact", "override"),
    )
]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("new", [False, True], ids=["old defaults", "new defaults"])
@pytest.mark.parametrize("along", ["target", "run"])
def test_all_options_of_concat(parts, theories, new, along):
    names = ["base", "target"]
    small = [parts[name].isel(time=[0, -1]) for name in names]
    expected = xr.concat([theories[name] for name in names], along, join="override")
    kept = {}
    with xr.set_options(use_new_combine_kwarg_defaults=new):
        for options in OPTIONS[:: 7 if along == "target" else 23]:
            chosen = {key: value for key, value in options.items() if value is not None}
            try:
                joined = xr.concat(small, along, **chosen)
            except (ValueError, xr.MergeError):  # xarray refuses
                continue
            recipes = joined["recipe"]
            if along not in recipes.dims:  # the first one's was kept: no run is another's
                assert joined.sizes.get(along, 1) == 1 or "loss" not in joined.dims
                continue
            assert along in recipes.dims
            right = check(joined, expected)
            kept.setdefault(chosen.get("combine_attrs") is mids.combine_attrs, set()).add(right)
    assert kept == {True: {True}, False: {False}}  # refused without all recipes


def test_merge_keeps_no_foreign_recipe(parts):
    with pytest.raises(xr.MergeError):
        xr.merge([parts["base"], parts["target"]], compat="equals", join="outer")
    overridden = xr.merge([parts["base"], parts["target"]], compat="override", join="outer")
    xr.testing.assert_equal(overridden.recipe, parts["base"].recipe)


def test_combine_by_coords(parts):
    one = parts["base"]
    other = made(dim=[1600], seed=3)
    expected = xr.concat([mids.theory(one).escape_time, mids.theory(other).escape_time], "dim")
    options = {"join": "outer", "compat": "no_conflicts", "data_vars": "all", "coords": "minimal"}
    assert not check(
        xr.combine_by_coords([one, other], combine_attrs="override", **options), expected
    )
    joined = xr.combine_by_coords([one, other], combine_attrs=mids.combine_attrs, **options)
    assert check(joined, expected)


def test_files_opened_together(parts, theories, tmp_path):
    names = ["base", "seed"]
    paths = [tmp_path / f"{name}.nc" for name in names]
    for name, path in zip(names, paths, strict=True):
        parts[name].mi.to_netcdf(path)
    options = {"combine": "nested", "concat_dim": "seed", "data_vars": "all", "compat": "equals"}
    options |= {"coords": "different", "join": "exact"}
    expected = xr.concat([theories[name] for name in names], "seed")
    with xr.open_mfdataset(paths, combine_attrs=mids.combine_attrs, **options) as joined:
        assert check(joined, expected)
    with xr.open_mfdataset(paths, **options) as joined:
        assert not check(joined, expected)


# -- mids.concat --------------------------------------------------------------------------------


def test_targets_of_different_rank_are_padded_and_told_apart(parts):
    names = ["base", "ladder", "steep"]
    ds = mids.concat([parts[name] for name in names], xr.Variable("target", names))
    assert ds.sizes["direction"] == 2 and ds.sizes["mode"] == 4
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
    assert mids.simulation.differences(ds, mids.replay(ds)) == []
    assert mids.saddles(ds).visited.sel(saddle=1, target="base").sum() == 0


def test_seeds_joined_along_run_are_analysed_and_replayed_each(parts):
    ds = mids.concat([parts["base"], parts["seed"]], "run")
    assert mids.simulation.differences(ds, mids.replay(ds)) == []
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
        (lambda p: mids.concat([p["base"].loss], "x"), "xarray.Datasets"),
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


@pytest.mark.filterwarnings("ignore::FutureWarning")
@settings(max_examples=15)
@given(data=st.data())
def test_random_joins_are_right_or_refused(data, parts, theories):
    """Trees of joins along old and new dims, with or without our `combine_attrs`."""
    names = data.draw(
        st.lists(st.sampled_from(["base", "seed", "target", "steep"]), min_size=2, max_size=4)
    )
    pairs = [(parts[name], theories[name]) for name in names]
    ours = True
    while len(pairs) > 1:
        (one, first), (two, second), *rest = pairs
        dim = data.draw(st.sampled_from(["run", "a", "b"]))
        if (dim in one.dims) != (dim in two.dims):
            dim = "run"
        how = data.draw(st.sampled_from(["concat", "xarray", "override"]))
        try:
            if how == "concat":
                joined = mids.concat([one, two], dim)
            else:
                attrs = mids.combine_attrs if how == "xarray" else "override"
                joined = xr.concat(
                    [one, two], dim, combine_attrs=attrs, join="outer", data_vars="all"
                )
                same = schema.recipes(one) == schema.recipes(two)
                ours = ours and (how == "xarray" or same)
        except (ValueError, InputError):
            return
        except DatasetError:
            assert not ours
            return
        values = xr.concat([first, second], dim, join="outer")
        if data.draw(st.booleans()):
            order = np.random.default_rng(0).permutation(joined.sizes[dim])
            joined, values = joined.isel({dim: order}), values.isel({dim: order})
        pairs = [(joined, values), *rest]
    ((joined, values),) = pairs
    found = None
    try:
        found = mids.theory(joined).escape_time
    except DatasetError as error:
        assert not ours and "mids.concat" in str(error)
    if found is not None:
        np.testing.assert_array_equal(found, values.transpose(*found.dims))


# -- sweeps -------------------------------------------------------------------------------------


def test_a_sweep_is_the_outer_product_of_its_parts():
    ds = mids.simulate(
        {"square": "h2(z1)", "ladder": "h1(z1) + h1(z1)*h2(z2)"},
        dim=[100, 400],
        runs=3,
        seed=[0, 7],
        flow=TwoTimescale(ridge=[0.0, 0.5]),
        time=TIME,
    )
    assert ds.loss.dims == ("target", "seed", "ridge", "dim", "run", "time")
    assert ds.recipe.dims == ("target", "seed", "ridge", "dim", "run", "byte")
    assert len(schema.recipes(ds)) == 8
    ds.mi.validate()
    ds = ds.compute()
    comparison = mids.compare(ds)
    for name, text in (("square", "h2(z1)"), ("ladder", "h1(z1) + h1(z1)*h2(z2)")):
        for seed, ridge in itertools.product((0, 7), (0.0, 0.5)):
            own = made(target=text, seed=seed, flow=TwoTimescale(ridge=ridge))
            at = {"target": name, "seed": seed, "ridge": ridge}
            cell = ds.sel(at)
            rank = own.sizes["direction"]
            np.testing.assert_array_equal(cell.loss, own.loss)
            np.testing.assert_array_equal(cell.gram[..., :rank, :rank], own.gram)
            np.testing.assert_array_equal(cell.energy.sel(mode=own.mode), own.energy)
            np.testing.assert_array_equal(cell.recipe, own.recipe)
            expected = mids.compare(own)
            np.testing.assert_array_equal(comparison.ratio.sel(at)[..., :rank], expected.ratio)
    assert ds.overlap.sel(target="square", direction=1).isnull().all()
    assert mids.simulation.differences(ds, mids.replay(ds)) == []


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
        ({"seed": range(LARGEST_CELLS + 1)}, "recipes"),
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
