"""Catalogs in folders: index, search, adding and removing, merging, verifying, building."""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from toy_flow import ToyFlow

import mids
from mids.catalog import reindex
from mids.cli import main
from mids.cli.catalog import _condition
from mids.errors import DatasetError, FileError, InputError

TIME = np.concatenate([[0.0], np.geomspace(0.1, 1e4, 20)])
TARGETS = {"s2": "h2(z1)", "s3": "h3(z1)", "ladder": "h1(z1) + h1(z1)*h3(z2)"}
INDEX = ("catalog.csv", "catalog.json", "datapackage.json")


def toy(target="h2(z1)", **arguments):
    given = {"dim": [100, 1000], "runs": 3, "time": TIME, "flow": ToyFlow()}
    return mids.simulate(target, **{**given, **arguments})


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "catalog"
    catalog = mids.open_catalog(folder, create=True)
    for key, target in TARGETS.items():
        dims = [100, 1000] if key != "s3" else [1e4]
        catalog.add(toy(target, dim=dims, seed=len(key)), key=key)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "catalog"))


@pytest.fixture
def catalog(folder):
    return mids.open_catalog(folder)


def stored(folder, key):
    """Return the file of a dataset, whose name begins with its key."""
    (path,) = (folder / "data").glob(f"{key}-*.nc")
    return path


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


# -- index --------------------------------------------------------------------------------------


def test_the_folder_holds_the_files_and_their_index(folder):
    data = {f"data/{stored(folder, key).name}" for key in TARGETS}
    assert content(folder).keys() == data | set(INDEX)
    package = json.loads((folder / "datapackage.json").read_text())
    listed = {resource["path"]: resource for resource in package["resources"]}
    assert listed.keys() == data | {"catalog.csv", "catalog.json"}
    for path, resource in listed.items():
        whole = (folder / path).read_bytes()
        assert resource["bytes"] == len(whole)
        assert resource["hash"] == f"sha256:{hashlib.sha256(whole).hexdigest()}"


def test_the_table_says_what_the_files_are(folder):
    with (folder / "catalog.csv").open(newline="") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    assert list(rows) == sorted(TARGETS)
    ladder = rows["ladder"]
    assert ladder["path"] == f"data/ladder-{ladder['sha256'][:16]}.nc"
    assert (ladder["leaps"], ladder["dims"], ladder["runs"]) == ("1-3", "100 1000", "3")
    assert (ladder["rank"], ladder["information_exponent"], ladder["schema"]) == ("2", "1", "2")
    assert ladder["mids_version"] == mids.__version__
    assert rows["s3"]["information_exponent"] == "3"


def test_the_collection_names_columns_of_the_table(folder):
    collection = json.loads((folder / "catalog.json").read_text())
    with (folder / collection["catalog_file"]).open(newline="") as file:
        columns = next(csv.reader(file))
    control = collection["aggregation_control"]
    assert collection["esmcat_version"] == "0.1.0"
    assert collection["assets"]["column_name"] in columns
    assert len(control["groupby_attrs"]) >= 2
    assert {a["column_name"] for a in collection["attributes"]} | {"path"} == set(columns)
    assert {control["variable_column_name"], *control["groupby_attrs"]} <= set(columns)


def test_the_index_follows_from_the_files_alone(folder):
    before = content(folder)
    for name in INDEX:
        (folder / name).unlink()
    assert list(reindex(folder)) == sorted(TARGETS)
    assert content(folder) == before
    (folder / "datapackage.json").write_text("{")
    (folder / "catalog.csv").write_text("key\n")
    reindex(folder)
    assert content(folder) == before


def test_reindex_takes_in_new_files_and_names_all_that_are_none(folder):
    shutil.copy(stored(folder, "s2"), folder / "data/copy.nc")
    (stored(folder, "s3")).unlink()
    assert list(reindex(folder)) == ["copy", "ladder", "s2"]
    before = content(folder)
    (folder / "data/text.nc").write_text("text")
    (folder / "data/Not a key.nc").write_bytes(stored(folder, "s2").read_bytes())
    with pytest.raises(FileError, match=r"(?s)Not a key.*text\.nc"):
        reindex(folder)
    assert {name: content(folder)[name] for name in INDEX} == {n: before[n] for n in INDEX}


def test_derived_files_are_repaired_when_a_catalog_is_opened(folder):
    before = content(folder)
    (folder / "catalog.csv").write_text("stale")
    (folder / "catalog.json").unlink()
    mids.open_catalog(folder)
    assert content(folder) == before


# -- reading ------------------------------------------------------------------------------------


def test_datasets_are_lazy_and_complete(catalog):
    with catalog["ladder"] as ds:
        assert all(variable.chunks is not None for variable in ds.data_vars.values())
        ds.mi.validate()
        assert ds.loss.dtype == np.float32 and ds.crossing_time.dtype == np.float64
        whole = toy(TARGETS["ladder"], seed=6).compute()
        xr.testing.assert_equal(ds.loss.compute(), whole.loss.astype("float32"))
        xr.testing.assert_equal(ds.crossing_time.compute(), whole.crossing_time)
    with catalog.open("ladder", chunks={"run": 1}) as ds:
        assert ds.loss.chunks[1] == (1, 1, 1)


def test_a_tree_holds_all(catalog):
    with xr.DataTree.from_dict(catalog) as tree:
        assert set(tree.children) == set(TARGETS)
        assert tree["s3"].dim.values.tolist() == [10000]
        assert tree["ladder"].ds.loss.chunks is not None


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ({}, ["ladder", "s2", "s3"]),
        ({"information_exponent": 2}, ["s2"]),
        ({"information_exponent": slice(2, None)}, ["s2", "s3"]),
        ({"information_exponent": slice(None, 2), "rank": 1}, ["s2"]),
        ({"information_exponent": [1, 3]}, ["ladder", "s3"]),
        ({"dims": 1e4}, ["s3"]),
        ({"dims": slice(500, 2000)}, ["ladder", "s2"]),
        ({"dims": "100 1000"}, ["ladder", "s2"]),
        ({"leaps": "1-3"}, ["ladder"]),
        ({"leaps": 3}, ["ladder", "s3"]),
        ({"leaps": (1, 3)}, ["ladder"]),
        ({"leaps": (3, 1)}, []),
        ({"leaps": (3,)}, ["s3"]),
        ({"leaps": [(3,), (2,)]}, ["s2", "s3"]),
        ({"dims": (100, 1000)}, ["ladder", "s2"]),
        ({"target": mids.Target.parse("h2(z1)")}, ["s2"]),
        ({"target": mids.Target.parse("-3*h2(z1)")}, []),
        ({"target": mids.Target.parse("-3*h2(z1)"), "scaled": True}, ["s2"]),
        ({"target": mids.Target.parse("h1(z1) + 2*h1(z1)*h3(z2)"), "scaled": True}, []),
        ({"target": mids.targets.hermite(3), "key": "s*"}, ["s3"]),
        ({"target": "*h3*"}, ["ladder", "s3"]),
        ({"flow": "toy", "key": "s?"}, ["s2", "s3"]),
        ({"created": slice("2020", "2999")}, ["ladder", "s2", "s3"]),
        ({"created": slice(None, "2020")}, []),
        ({"bytes": slice(1, None), "path": "data/s2-*.nc"}, ["s2"]),
        ({"license": None}, []),
    ],
)
def test_search_by_any_column(catalog, conditions, found):
    selected = catalog.search(**conditions)
    assert list(selected) == found
    assert list(selected.search(rank=2)) == [key for key in found if key == "ladder"]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"exponent": 2}, "unknown column of the index 'exponent'.*information_exponent"),
        ({"rank": slice("a", "b")}, "cannot search rank"),
        ({"information_exponent": (2, None)}, r"a range slice\(lowest, highest\)"),
        ({"leaps": (2, None)}, "a tuple of all its numbers"),
        ({"dims": slice(1, 9, 2)}, "cannot search dims"),
        ({"target": (1, 2)}, "cannot search target"),
        ({"rank": object()}, "cannot search rank"),
    ],
)
def test_senseless_searches_are_errors(catalog, conditions, message):
    with pytest.raises(InputError, match=message):
        catalog.search(**conditions)


def test_unknown_keys_are_errors_that_suggest_one(catalog):
    with pytest.raises(KeyError, match="has no dataset 'laddr'; did you mean 'ladder'"):
        catalog["laddr"]
    assert "laddr" not in catalog and "ladder" in catalog and len(catalog) == 3
    with pytest.raises(InputError):
        catalog.remove("s2", "laddr")
    assert len(catalog) == 3


def test_the_table_in_text_html_and_pandas(catalog):
    lines = repr(catalog).splitlines()
    assert lines[0].startswith("catalog of 3 datasets, ")
    assert lines[2].split()[0] == "ladder" and "1-3" in lines[2] and "100, 1000" in lines[2]
    html = catalog._repr_html_()
    assert html.count("<tr") == 4 and "ladder" in html
    frame = catalog.to_dataframe()
    assert frame.loc["s3", "information_exponent"] == 3 and frame.loc["s3", "runs"] == 3


def test_the_table_shows_foreign_text_as_text(folder, catalog):
    named = mids.Target.from_dict({**mids.Target.parse("h2(z1)").to_dict(), "name": "<img src=x>"})
    ds = toy(named).assign_attrs(title="<script>alert(1)</script>\n\x1b[31m")
    catalog.add(ds, key="sly")
    assert "<img" not in catalog._repr_html_() and "&lt;img" in catalog._repr_html_()
    assert "\x1b" not in (folder / "catalog.csv").read_text()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is no catalog.*create=True"),
        (lambda path: path.mkdir(), "is no catalog"),
        (lambda path: path.write_text("x"), "is no catalog|Not a directory"),
    ],
)
def test_what_is_no_catalog_is_an_error(tmp_path, make, message):
    make(tmp_path / "thing")
    with pytest.raises(FileError, match=message):
        mids.open_catalog(tmp_path / "thing")


# -- writing ------------------------------------------------------------------------------------


def test_others_see_what_is_added_and_removed(folder, catalog):
    other = mids.open_catalog(folder)
    assert catalog.add(toy("h1(z1)")) == "h1-z1-toy"
    assert len(other) == 4
    other.search(key="ladder").remove("s2")
    assert "s2" not in catalog and not list((folder / "data").glob("s2*"))
    assert catalog.verify(replay=0).ok


def test_a_key_is_replaced_only_when_asked(catalog):
    ds = toy("h4(z1)")
    with pytest.raises(InputError, match=r"has a dataset 's2' already.*overwrite=True"):
        catalog.add(ds, key="s2")
    with catalog["s2"] as old:
        assert catalog.entries["s2"].target == "h2(z1)"
        catalog.add(ds, key="s2", overwrite=True)
        assert old.loss.compute().size  # an open file stays what it was
    with catalog["s2"] as new:
        assert new.loss.compute().size and catalog.entries["s2"].target == "h4(z1)"


def test_catalogs_of_version_0_1_open_and_are_changed(folder):
    """Their files are named by the key alone."""
    package = json.loads((folder / "datapackage.json").read_text())
    for resource in package["resources"][2:]:
        key = resource["name"]
        stored(folder, key).rename(folder / f"data/{key}.nc")
        resource["path"] = resource["entry"]["path"] = f"data/{key}.nc"
    (folder / "datapackage.json").write_text(json.dumps(package))
    old = mids.open_catalog(folder)
    assert old.verify(replay=0).ok
    before = (folder / "datapackage.json").read_bytes()
    assert list(reindex(folder)) == sorted(TARGETS)
    assert (
        json.loads(before)["resources"][2:]
        == json.loads((folder / "datapackage.json").read_bytes())["resources"][2:]
    )
    old.add(toy("h4(z1)"), key="s2", overwrite=True)
    old.remove("s3")
    assert sorted(p.name for p in (folder / "data").iterdir()) == [
        "ladder.nc",
        stored(folder, "s2").name,
    ]
    assert old.verify(replay=0).ok


def test_files_outside_the_index_are_not_replaced(catalog, folder):
    shutil.copy(stored(folder, "s2"), folder / "data/new.nc")
    with pytest.raises(InputError, match="not in the index; reindex"):
        catalog.add(toy("h4(z1)"), key="new")
    (folder / "datapackage.json").unlink()
    with pytest.raises(FileError, match=r"has datasets but no datapackage\.json"):
        mids.open_catalog(folder, create=True)
    assert len(mids.catalog.reindex(folder)) == 4


def test_an_opened_dataset_can_be_added_again_under_its_key(catalog):
    with catalog["s2"] as ds:
        catalog.add(ds.assign_attrs(title="a better title"), key="s2", overwrite=True)
    assert catalog.entries["s2"].title == "a better title"
    with catalog["s2"] as again:
        xr.testing.assert_equal(again.loss.compute(), toy(seed=2).loss.astype("f4").compute())


@pytest.mark.parametrize(
    "key", ["", "../up", "/abs", "a/b", "UPPER", ".hidden", "x" * 101, "a b", "con.x", "a."]
)
def test_keys_are_file_names(catalog, folder, key):
    before = content(folder)
    with pytest.raises(InputError, match="key must be"):
        catalog.add(toy(), key=key)
    assert content(folder) == before


def test_what_is_no_dataset_is_refused_before_any_work(catalog, folder):
    before = content(folder)
    with pytest.raises(DatasetError, match="breaks the schema"):
        catalog.add(xr.Dataset({"loss": ("time", [1.0])}), key="new")
    bad = toy()
    bad.attrs["mids_recipes"] = '{"recipes": {"1": {"target": {"modes": "all"}}}, "grids": {}}'
    with pytest.raises(DatasetError):
        catalog.add(bad, key="new")
    assert content(folder) == before


def test_trajectories_from_outside_are_datasets_too(catalog):
    time = np.geomspace(1, 100, 5)
    ds = mids.from_trajectories(time=time, loss=np.exp(-time), dim=100)
    catalog.add(ds, key="outside")
    assert catalog.entries["outside"].flow == ""
    assert catalog.verify(replay=0).ok
    reindex(catalog.location)
    with catalog["outside"] as back:
        assert back.loss.size == 5


def test_a_failed_simulation_leaves_the_catalog_as_it_was(catalog, folder):
    before = content(folder)
    broken = toy()
    broken["loss"] = broken.loss.map_blocks(lambda block: block / [])
    with pytest.raises(Exception, match=r"."):
        catalog.add(broken, key="new")
    assert content(folder) == before


def test_a_catalog_that_cannot_be_written_can_be_read(catalog, folder, monkeypatch):
    def refused(*given, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    (folder / "catalog.csv").write_text("stale")
    again = mids.open_catalog(folder)
    with again["s2"] as ds:
        assert ds.loss.size
    with pytest.raises(FileError, match=r"cannot write the catalog .*check permissions"):
        again.add(toy(), key="new")


# -- merging ------------------------------------------------------------------------------------


def test_merging_takes_what_is_new_and_keeps_what_is_equal(catalog, tmp_path):
    other = mids.open_catalog(tmp_path / "other", create=True)
    other.add(toy("h5(z1)"), key="s5")
    later = toy(seed=2)
    later.attrs["date_created"] = "2031-01-01T00:00:00Z"
    other.add(later, key="s2")  # equal, but written on another day
    assert other.entries["s2"].sha256 != catalog.entries["s2"].sha256
    assert catalog.merge(other) == ["s5"]
    assert catalog.merge(other.location) == []
    assert sorted(catalog) == ["ladder", "s2", "s3", "s5"]
    assert catalog.verify(replay=0).ok


def test_conflicts_are_all_listed_and_nothing_is_merged(catalog, folder, tmp_path):
    other = mids.open_catalog(tmp_path / "other", create=True)
    for key, seed in (("s2", 77), ("s3", 78), ("new", 79)):
        other.add(toy(seed=seed), key=key)
    before = content(folder)
    with pytest.raises(InputError, match=r"different datasets of the same key: s2, s3; nothing"):
        catalog.merge(other)
    assert content(folder) == before
    assert catalog.merge(other.search(key="new")) == ["new"]


def test_a_damaged_source_is_not_merged(catalog, folder, tmp_path):
    other = mids.open_catalog(tmp_path / "other", create=True)
    other.add(toy("h5(z1)"), key="s5")
    file = stored(tmp_path / "other", "s5")
    file.write_bytes(file.read_bytes()[:-1])
    before = content(folder)
    with pytest.raises(FileError, match=r"s5-.*\.nc has .* truncated"):
        catalog.merge(other)
    assert content(folder) == before


# -- verifying ----------------------------------------------------------------------------------


def real(folder):
    catalog = mids.open_catalog(folder, create=True)
    catalog.add(mids.simulate("h2(z1)", dim=[100, 1e4], runs=4), key="real")
    return catalog


def test_verify_replays_a_sample(tmp_path):
    found = real(tmp_path / "c").verify(replay=3)
    assert (found.ok, found.datasets, found.identical, found.close) == (True, 1, 3, 0)
    assert str(found) == "1 datasets, 3 runs replayed bit by bit: no problems"


@pytest.mark.slow
def test_verify_tells_other_numbers_from_rounding(tmp_path):
    catalog = real(tmp_path / "c")
    with catalog["real"] as ds:
        whole = ds.load()
    for factor, close, ok in ((1 + 1e-9, 2, True), (1 + 1e-3, 0, False)):
        moved = whole.assign(crossing_time=whole.crossing_time * factor)
        catalog.add(moved.assign_attrs(whole.attrs), key="real", overwrite=True)
        found = catalog.verify(replay=2)
        assert (found.close, found.ok) == (close, ok)
    assert all(".nc: a replay differs: crossing_time" in text for text in found.problems)


def test_verify_leaves_out_what_would_take_for_ever_and_goes_on(tmp_path):
    """A recipe of anyone, signed as its maker would: the work it asks for is bounded."""
    setting = {"dim": 50, "runs": 1, "time": [0, 0.02]}
    ds = toy(**setting).compute()
    sgd = mids.simulate("h2(z1)", flow=mids.flows.OnlineSGD(step=0.01, batch=2), **setting)
    (entry,) = copy.deepcopy([*mids.schema.recipes(sgd).values()])
    entry["flow"]["batch"] = 10**9
    key = mids.schema.fingerprint(entry)
    text = mids.schema.recorded({key: entry}, mids.schema.grids(ds))
    digits = xr.DataArray(mids.schema.fingerprint_bytes([key])[0], dims="byte")
    endless = ds.assign(recipe=ds.recipe * 0 + digits).assign_attrs(mids_recipes=text)
    catalog = mids.open_catalog(tmp_path / "c", create=True)
    catalog.add(endless, key="endless")
    catalog.add(mids.simulate("h2(z1)", dim=100, runs=1), key="quick")
    found = catalog.verify(replay=1)
    assert (found.ok, found.skipped, found.identical) == (True, 1, 1)
    assert "1 not, as each would take more than 60 s" in str(found)


def test_verify_names_everything_that_is_wrong(catalog, folder):
    damaged = bytearray(stored(folder, "s2").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    stored(folder, "s2").write_bytes(damaged)
    (stored(folder, "s3")).unlink()
    (folder / "data/stray.nc").write_bytes(b"")
    found = catalog.verify(replay=0)
    assert len(found.problems) == 3
    for part in (
        r"s2-.*\.nc is not the file of the index",
        r"s3-.*\.nc is miss",
        r"stray\.nc is not in",
    ):
        assert any(re.search(part, problem) for problem in found.problems)


def test_verify_holds_the_index_against_the_files(catalog, folder):
    index = folder / "datapackage.json"
    package = json.loads(index.read_text())
    package["resources"][-1]["entry"]["information_exponent"] = 7
    index.write_text(json.dumps(package))
    (problem,) = mids.open_catalog(folder).verify(replay=0).problems
    assert "the index says information_exponent 7, but the file 3; reindex" in problem


def test_of_a_selection_only_what_it_holds_is_in_the_index(catalog):
    square, ladder = mids.Target.parse("h2(z1)"), mids.Target.parse("h1(z1) + h1(z1)*h5(z2)")
    sweep = mids.simulate([square, ladder], dim=100, runs=2, time=[0.0, 1.0])
    catalog.add(sweep.isel(target=1), key="part")
    entry = catalog.to_dataframe().loc["part"]
    assert entry["target"] == "h1(z1) + h1(z1)*h5(z2)"
    assert (entry["rank"], entry["student_rank"], entry["leaps"]) == (2, 2, "1-5")
    assert list(catalog.search(leaps=(1, 5))) == list(catalog.search(target=ladder)) == ["part"]
    assert "part" not in catalog.search(target=square)
    catalog.add(sweep, key="both")
    for given in (ladder, "h1(z1) + h1(z1)*h5(z2)"):
        assert set(catalog.search(target=given)) == {"both", "part"}
    for given in (square, "h2(z1)"):
        assert "both" in catalog.search(target=given) and "part" not in catalog.search(target=given)


# -- another checkout ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_copy_is_opened_searched_replayed_and_added_to(tmp_path):
    """In another process, in another folder, from nothing but the copied files."""
    real(tmp_path / "c")
    shutil.copytree(tmp_path / "c", tmp_path / "elsewhere/catalog")
    shutil.rmtree(tmp_path / "c")
    code = (
        "import mids\n"
        "catalog = mids.open_catalog('catalog')\n"
        "(key,) = catalog.search(information_exponent=2)\n"
        "with catalog[key] as ds: print(ds.mi.replay().loss.astype('f4').equals(ds.loss))\n"
        "catalog.add(mids.simulate('h1(z1)', dim=100, runs=2), key='mine')\n"
        "print(catalog.verify())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path / "elsewhere",
        env={"PYTHONPATH": str(Path(mids.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "True",
        "2 datasets, 2 runs replayed bit by bit: no problems",
    ]
    replayed = run("replay", stored(tmp_path / "elsewhere/catalog", "real"))
    assert "8 runs simulated again, identical bit by bit" in replayed.output


# -- building -----------------------------------------------------------------------------------

SPEC = """
date = 2026-01-01
points_per_decade = 4
[defaults]
dim = [100, 1000]
runs = 2
[dataset.s2]
target = "h2(z1)"
title = "Quadratic link"
[dataset.ladder]
target = "leaps(1,2)"
rtol = 1e-6
"""


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_a_build_is_the_same_each_time(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "build.toml").write_text(SPEC)
        done = run("catalog", "build", tmp_path / name / "build.toml")
        assert done.exit_code == 0, done.output
    assert content(tmp_path / "one") == content(tmp_path / "two")
    catalog = mids.open_catalog(tmp_path / "one")
    assert catalog.verify().identical == 2
    assert catalog.entries["s2"].title == "Quadratic link"
    assert catalog.entries["s2"].created == "2026-01-01"
    with catalog["s2"] as ds:
        steps = np.diff(np.log10(ds.time.values[1:]))
        assert np.allclose(steps[:-1], 0.25) and steps[-1] < 0.26


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date = 2026-01-01", "a build needs"),
        (SPEC.replace("points_", "pionts_"), "unknown setting of a build"),
        (SPEC.replace("runs = 2", "rnus = 2"), "unknown argument"),
        (SPEC.replace("dataset.s2", 'dataset."S 2"'), "key must be"),
    ],
)
def test_a_wrong_build_is_an_error_before_any_work(tmp_path, text, message):
    (tmp_path / "build.toml").write_text(text)
    done = run("catalog", "build", tmp_path / "build.toml")
    assert done.exit_code == 2 and message in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build.toml"]


# -- command line -------------------------------------------------------------------------------


def test_commas_within_a_name_do_not_separate_alternatives():
    assert _condition("target=leaps(1,2),h3(z1)") == ("target", ["leaps(1,2)", "h3(z1)"])
    assert _condition("target=leaps(1,2)") == ("target", "leaps(1,2)")


@pytest.mark.slow
def test_the_commands(folder, tmp_path):
    listed = run("catalog", "ls", folder)
    assert listed.exit_code == 0 and "catalog of 3 datasets" in listed.output
    assert "ladder" not in run("catalog", "ls", folder, "-w", "information_exponent=2..").output
    assert "s3" in run("catalog", "ls", folder, "-w", "dims=1e4").output
    assert "0 datasets" in run("catalog", "ls", folder, "-w", "rank=..0").output
    assert run("catalog", "ls", folder, "--csv", "-w", "rank=2,3").output.count("\n") == 2
    mids.to_netcdf(toy("h6(z1)"), tmp_path / "Six.nc")
    assert "added six" in run("catalog", "add", tmp_path / "new", tmp_path / "Six.nc").output
    again = run("catalog", "add", tmp_path / "new", tmp_path / "Six.nc")
    assert again.exit_code == 2 and "already" in again.output
    merged = run("catalog", "merge", folder, tmp_path / "new")
    assert "1 datasets are new" in merged.output
    assert "4 datasets" in run("catalog", "reindex", folder).output
    assert run("catalog", "remove", folder, "six").exit_code == 0
    assert run("catalog", "verify", folder, "--replay", 0).exit_code == 0
    stored(folder, "s2").write_bytes(b"short")
    broken = run("catalog", "verify", folder, "--replay", 0)
    assert broken.exit_code == 1 and ".nc has 5 bytes" in broken.output


@pytest.mark.parametrize("name", sorted(main.commands["catalog"].commands))
def test_each_command_has_an_example(name):
    done = run("catalog", name, "--help")
    assert done.exit_code == 0 and f"Example: mids catalog {name}" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ls", "nowhere"], "is no catalog"),
        (["ls", "{folder}", "-w", "rank"], "needs COLUMN=VALUE"),
        (["ls", "{folder}", "-w", "colour=2"], "unknown column"),
        (["add", "{folder}", "nothing.nc"], "does not exist"),
        (["fetch", "{folder}", "s9"], "has no dataset 's9'"),
        (["remove", "{folder}", "s9"], "has no dataset"),
    ],
)
def test_mistakes_are_one_line(folder, arguments, message):
    done = run("catalog", *(argument.format(folder=folder) for argument in arguments))
    assert done.exit_code == 2 and message in done.output
    assert len(done.output.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_folder_of_schema_1_is_verified_and_indexed_as_it_is(tmp_path):
    """Files say schema 1 in the index, though they are schema 2 once opened."""
    folder = Path(shutil.copytree(Path(mids.__file__).parents[1] / "catalog", tmp_path / "old"))
    shipped = content(folder)
    catalog = mids.open_catalog(folder)
    assert content(folder) == shipped
    assert {entry.schema for entry in catalog.entries.values()} == {1, 2}
    catalog.remove(*catalog.keys() - {"ladder-1-3", "parity-3", "planted-s2"})
    before = {name: (folder / name).read_bytes() for name in INDEX}
    assert catalog["parity-3"].attrs["mids_schema"] == 2
    assert catalog.verify(replay=0).ok
    assert reindex(folder).entries == catalog.entries
    assert before == {name: (folder / name).read_bytes() for name in INDEX}
    catalog.add(catalog["parity-3"], key="again")
    assert catalog.entries["again"].schema == 2
    assert catalog.verify(replay=0).ok
