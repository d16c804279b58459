"""Damaged stores: an error that names the file, or simulated again, but never other numbers."""

from __future__ import annotations

import json
import shutil
import uuid

import fsspec
import netCDF4
import numpy as np
import pytest
from test_generate import TOY, simulated, tree
from toy_flow import SIMULATED

import mids
from mids.errors import FileError
from mids.simulation.replay import differences


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Write one store of each kind."""
    folder = tmp_path_factory.mktemp("stores")
    for name, options in KINDS.items():
        if options.get("format") != "zarr" or _zarr():
            mids.generate(TOY, folder / name, **options)
    return folder


KINDS = {"netcdf": {}, "compact": {"compact": True}, "zarr": {"format": "zarr"}}


def _zarr():
    return pytest.importorskip("zarr")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def store(stores, kind, tmp_path):
    """Copy a store."""
    shutil.copytree(stores / kind, tmp_path / "store")
    return tmp_path / "store"


def again(kind, store):
    return mids.generate(TOY, store, **KINDS[kind])


def change(path, at, bit=0):
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def without(key):
    def damage(path):
        content = json.loads(path.read_text())
        del content[key]
        path.write_text(json.dumps(content))

    return damage


def digit(path):
    """Change a number: JSON as before, with another content."""
    text = path.read_text()
    at = next(k for k in range(len(text) // 2, len(text)) if text[k] in "12345678")
    path.write_text(text[:at] + str(int(text[at]) + 1) + text[at + 1 :])


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "no JSON": lambda path: path.write_text("none of it"),
    "other JSON": lambda path: path.write_text("[1, 2]"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a key missing": without("mids_store"),
    "one digit": digit,
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("kind", ["netcdf"], indirect=True)
def test_a_damaged_description_is_an_error_that_names_it(store, kind, case):
    DAMAGE[case](store / "store.json")
    before = tree(store)
    for use in (mids.open_dataset, lambda place: again(kind, place)):
        with pytest.raises(FileError, match=r"store/store\.json is damaged; .*restore it"):
            use(store)
    assert tree(store) == before
    assert not SIMULATED


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("kind", ["netcdf"], indirect=True)
def test_with_a_damaged_manifest_everything_is_simulated_again(store, kind, case, capsys):
    before = tree(store)
    DAMAGE[case](store / "manifest.json")
    with pytest.raises(FileError, match=r"store/manifest\.json is damaged; call mids\.generate"):
        mids.open_dataset(store)
    again(kind, store)
    assert "manifest.json is damaged: all blocks are simulated again" in capsys.readouterr().err
    assert len(simulated()) == 20
    assert tree(store) == before


@pytest.mark.parametrize("case", ["a block missing", *DAMAGE])
@pytest.mark.parametrize("kind", ["netcdf"], indirect=True)
def test_blocks_with_damaged_records_are_simulated_again(store, kind, case):
    before = tree(store)
    files = mids.storage.named_files.NamedFiles(store)
    manifest = files.document("manifest.json")
    if case == "a block missing":
        record = manifest["blocks"].pop("d100/r000000004")
        files.write_document("manifest.json", manifest)
        with pytest.raises(FileError, match=r"manifest\.json lacks d100/r000000004; call"):
            mids.open_dataset(store)
    else:  # as it lies there before the end
        files.remove("manifest.json")
        for name, record in manifest["blocks"].items():
            files.write_document(f"records/{name}.json", {"mids_store": 1, **record})
        path = store / "records" / "d100" / "r000000004.json"
        DAMAGE[case](path)
        with pytest.raises(FileError, match=rf"5 of 6 blocks are there; {path} is damaged; call"):
            mids.open_dataset(store)
    again(kind, store)
    assert simulated() == {(100, run) for run in (4, 5, 6, 7)}
    assert set(tree(store)) == set(before)
    assert not differences(mids.simulate(**TOY), mids.open_dataset(store))


def files(store, kind):
    """Return the files of a store that hold numbers, and what to compute to read them."""
    if kind != "zarr":
        block = store / "d10000" / "r000000004.nc"
        return {store / "header.nc": None, block: ["crossing_time", "loss", "overlap", "gram0"]}
    data = store / "data.zarr"
    return {data / ".zmetadata": None, data / "time" / "0": None} | {
        data / name / f"1.1{'.0' * rest}": [name]
        for name, rest in (("crossing_time", 2), ("loss", 1), ("status", 0))
    }


def test_no_changed_byte_is_read_silently(store, kind):
    """Change a bit at many places of each file, in headers, tables and numbers."""
    rng = np.random.default_rng(0)
    good = mids.open_dataset(store).compute()
    for path, names in files(store, kind).items():
        content = path.read_bytes()
        places = np.linspace(0, len(content) - 1, 15).astype(int)
        for at, bit in zip(places, rng.integers(8, size=15), strict=True):
            change(path, at, bit)
            if names is None:
                with pytest.raises(FileError, match=rf"{path} is missing or damaged; call"):
                    mids.open_dataset(store)
            else:
                ds = mids.open_dataset(store)
                for name in names:
                    with pytest.raises(FileError, match=rf"{path} is missing or damaged \(its"):
                        ds[name].isel(dim=1, run=5).compute()
                others = ds.isel(dim=0)
                assert others.crossing_time.equals(good.crossing_time.isel(dim=0))
            path.write_bytes(content)
    assert mids.open_dataset(store).identical(good)


@pytest.mark.parametrize("kind", ["netcdf"], indirect=True)
def test_damage_that_the_format_does_not_notice(store, kind):
    """NetCDF reads missing values where the table of chunks is wrong; a store does not."""
    path = store / "d100" / "r000000000.nc"
    with netCDF4.Dataset(path) as file:
        assert np.isfinite(file["loss"][...].filled(np.nan)).all()
    node = path.read_bytes().index(b"TREE\x01")
    change(path, node + 32)  # where the first chunk begins
    with netCDF4.Dataset(path) as file:
        assert not np.isfinite(file["loss"][...].filled(np.nan)).any()
    with pytest.raises(FileError, match="its checksum differs"):
        mids.open_dataset(store).loss.compute()


def test_damaged_headers_are_written_again(store, kind):
    before = tree(store)
    for path in [path for path, names in files(store, kind).items() if names is None]:
        change(path, path.stat().st_size // 2)
    if kind == "zarr":
        (store / "data.zarr" / "loss" / ".zarray").write_bytes(b"")
    again(kind, store)
    assert not SIMULATED
    assert tree(store) == before


def test_damage_in_object_stores():
    _zarr()
    place = f"memory://{uuid.uuid4()}"
    mids.generate(TOY, place)
    name = f"{place}/data.zarr/loss/0.1.0"
    fs, path = fsspec.url_to_fs(name)
    content = bytearray(fs.cat_file(path))
    content[50] ^= 4
    fs.pipe_file(path, bytes(content))
    with pytest.raises(FileError, match=rf"{name} is missing or damaged"):
        mids.open_dataset(place).loss.compute()
    SIMULATED.clear()
    ds = mids.generate(TOY, place)
    assert simulated() == {(100, run) for run in (4, 5, 6, 7)}
    assert not differences(mids.simulate(**TOY), ds)


def test_a_dataset_from_a_file_resumes_under_the_same_recipe(tmp_path):
    """Labels are text, which files give back as objects."""
    mids.to_netcdf(mids.simulate(**TOY), tmp_path / "runs.nc")
    for _ in range(2):
        with mids.open_dataset(tmp_path / "runs.nc", chunks={"run": 4}) as ds:
            stored = mids.generate(ds, tmp_path / "store")
            assert not differences(ds, stored)
