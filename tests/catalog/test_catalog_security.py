"""Catalogs made to do harm: links, paths, bombs, files that name other files, mutations."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mids
from mids.catalog import files, probe, reindex
from mids.catalog.folder import Folder
from mids.catalog.index import documents
from mids.errors import DatasetError, FileError

sys.path.insert(0, str(Path(__file__).parents[1] / "verification"))
import fuzz_catalog

POSIX = pytest.mark.skipif(os.name != "posix", reason="links and limits of POSIX systems")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "catalog"
    fuzz_catalog.make(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "catalog"))


@pytest.fixture(autouse=True)
def suspicious(monkeypatch):
    """Trust no file that earlier tests have seen."""
    monkeypatch.setattr(probe, "_fine", set())


def vouch_for(folder, key="k0"):
    """Write an index that agrees with whatever file there is, as its maker would."""
    entries = mids.open_catalog(folder).entries
    path = folder / entries[key].path
    files._KNOWN.clear()
    entries[key] = dataclasses.replace(
        entries[key], bytes=path.stat().st_size, sha256=files.checksum(path)
    )
    for name, content in documents(entries.values()).items():
        (folder / name).write_bytes(content)
    return mids.open_catalog(folder)


# -- paths and links ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["../k0.nc", "/etc/passwd", "data/../k0.nc", "k0.nc", "data/k1.nc"]
)
def test_an_index_cannot_lead_out_of_the_folder(folder, path):
    index = folder / "datapackage.json"
    package = json.loads(index.read_text())
    resource = next(r for r in package["resources"] if r["name"] == "k0")
    resource["path"] = resource["entry"]["path"] = path
    index.write_text(json.dumps(package))
    with pytest.raises(FileError, match=r"datapackage\.json is damaged.*can only be data/k0\.nc"):
        mids.open_catalog(folder)


@pytest.mark.parametrize("key", ["../k0", "a/b", "", ".k0", "K0", "k0\n", "x" * 200, None, 7])
def test_keys_of_an_index_are_file_names(folder, key):
    index = folder / "datapackage.json"
    package = json.loads(index.read_text())
    package["resources"][-1]["entry"]["key"] = key
    index.write_text(json.dumps(package))
    with pytest.raises(FileError, match="which is no name of a dataset"):
        mids.open_catalog(folder)


@POSIX
@pytest.mark.parametrize("name", ["data/k0.nc", "data", "datapackage.json"])
def test_links_are_not_followed(folder, tmp_path, name):
    target = tmp_path / "outside"
    shutil.move(folder / name, target)
    (folder / name).symlink_to(target)
    with pytest.raises(FileError, match=r"is a link, which a catalog must not hold"):
        mids.open_catalog(folder)["k0"]
    if name == "data/k0.nc":
        with pytest.raises(FileError, match=r"k0\.nc is a link"):
            reindex(folder)


@POSIX
def test_pipes_do_not_hang(folder):
    (folder / "data/k0.nc").unlink()
    os.mkfifo(folder / "data/k0.nc")
    with pytest.raises(FileError, match=r"k0\.nc"):
        mids.open_catalog(folder)["k0"]
    with pytest.raises(FileError, match=r"k0\.nc is no plain file"):
        reindex(folder)


# -- files that are not what the index says -----------------------------------------------------


def test_files_that_differ_are_named(folder):
    path = folder / "data/k0.nc"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content, message in (
        (whole + b"x", r"k0\.nc has .* bytes, but the index says .*another file"),
        (whole[:-1], r"k0\.nc has .* truncated"),
        (bytes(flipped), r"k0\.nc is not the file of the index \(sha256 differs\)"),
    ):
        path.write_bytes(content)
        with pytest.raises(FileError, match=message):
            mids.open_catalog(folder)["k0"]
        assert len(mids.open_catalog(folder).verify(replay=0).problems) == 1


def test_an_index_that_is_too_large_is_not_read(folder):
    with (folder / "datapackage.json").open("r+b") as file:
        file.truncate(2**33)
    with pytest.raises(FileError, match=r"datapackage\.json has more than"):
        mids.open_catalog(folder)


# -- files that the index vouches for -----------------------------------------------------------


def declares_much(path):
    import netCDF4

    with netCDF4.Dataset(path, "a") as file:
        file.createDimension("huge", 10**12)
        file.createVariable("bomb", "f8", ("huge",), zlib=True, chunksizes=(10**6,))


def unpacks_to_much(path):
    """A chunk whose compressed bytes unpack to far more than the chunk."""
    import zlib

    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "a") as file:
        bomb = file.create_dataset("bomb", (10,), "f8", chunks=(10,), compression="gzip")
        packer = zlib.compressobj(9)
        zeros = [packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)]
        packed = zeros[0] + 256 * zeros[1] + packer.flush()
        bomb.id.write_direct_chunk((0,), packed)


def has_groups(path):
    import netCDF4

    with netCDF4.Dataset(path, "a") as file:
        file.createGroup("inner")


def has_objects(path):
    import netCDF4

    with netCDF4.Dataset(path, "a") as file:
        kind = file.createVLType("f8", "ragged_t")
        file.createVariable("ragged", kind, ())


def reads_another_file(path):
    h5py = pytest.importorskip("h5py")
    secret = path.parents[2] / "secret"
    secret.write_bytes(np.arange(10.0).tobytes())
    with h5py.File(path, "a") as file:
        file.create_dataset("stolen", (10,), "f8", external=[(str(secret), 0, 80)])


COUNT = np.arange(10.0)


def maps_another_file(path, content=COUNT):
    h5py = pytest.importorskip("h5py")
    secret = path.parents[2] / "secret.h5"
    with h5py.File(secret, "w") as file:
        kind = file.create_dataset("x", data=content).id.get_type()
    space = h5py.h5s.create_simple(content.shape) if content.ndim else h5py.h5s.create(0)
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_virtual(space, os.fsencode(secret), b"x", space)
    with h5py.File(path, "a") as file:
        h5py.h5d.create(file.id, b"stolen", kind, space, layout)


def maps_another_number(path):
    maps_another_file(path, np.array(3.14))


def maps_other_text(path):
    h5py = pytest.importorskip("h5py")
    maps_another_file(path, np.array(["secret"], dtype=h5py.string_dtype()))


def links_to_another_file(path):
    h5py = pytest.importorskip("h5py")
    secret = path.parents[2] / "secret.h5"
    with h5py.File(secret, "w") as file:
        file.create_dataset("x", data=COUNT, chunks=(5,))
    with h5py.File(path, "a") as file:
        file["stolen"] = h5py.ExternalLink(str(secret), "/x")


@POSIX
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (declares_much, "unpacks to .* bytes, far more than its size explains"),
        (unpacks_to_much, "memory|damaged"),
        (has_groups, "groups or types of its own"),
        (has_objects, "groups or types of its own"),
        (reads_another_file, "not stored in chunks"),
        (maps_another_file, "not stored in chunks"),
        (maps_another_number, "keeps data in other files"),
        (maps_other_text, "keeps data in other files"),
        (links_to_another_file, "keeps data in other files"),
    ],
)
def test_harmful_files_are_refused_by_name(folder, harm, message):
    path = folder / "data/k0.nc"
    harm(path)
    catalog = vouch_for(folder)
    for use in (
        lambda: catalog["k0"],
        lambda: reindex(folder),
        lambda: mids.open_catalog(folder.parent / "mine", create=True).merge(catalog),
    ):
        with pytest.raises(FileError, match=rf"(?s)k0\.nc cannot be used: .*({message})"):
            use()
    (problem,) = catalog.verify(replay=0).problems
    assert "k0.nc" in problem


@pytest.mark.parametrize(
    ("work", "seconds", "message"),
    [
        ("os.abort()", 60.0, "crashes the NetCDF library"),
        ("time.sleep(60)", 0.5, "takes more than"),
    ],
)
def test_what_kills_or_stops_the_library_kills_or_stops_another_process(
    folder, tmp_path, monkeypatch, work, seconds, message
):
    begin = "import os, sys, time\nprint('null', flush=True)\nsys.stdin.readline()\n"
    (tmp_path / "_probe.py").write_text(begin + work)
    monkeypatch.setattr(probe, "__file__", str(tmp_path / "probe.py"))
    monkeypatch.setattr(probe, "SECONDS", seconds)
    monkeypatch.setattr(probe, "_current", None)
    with pytest.raises(FileError, match=rf"k0\.nc cannot be used: .*{message}"):
        mids.open_catalog(folder)["k0"]
    probe._prober().stop()
    monkeypatch.undo()
    with mids.open_catalog(folder)["k0"] as ds:  # the next one is asked by a new process
        assert ds.loss.size


def test_a_spec_without_sense_is_an_error(folder):
    path = folder / "data/k0.nc"
    with mids.open_dataset(path) as ds:
        whole = ds.load()
    for spec in ('{"target": 3}', "[" * 100_000, '{"target": {"modes": [[1e9]]}}', '{"flow": []}'):
        mids.to_netcdf(whole.assign_attrs(mids_spec=spec), path)
        catalog = vouch_for(folder)
        with pytest.raises((FileError, DatasetError)):
            reindex(folder)
        (problem,) = catalog.verify(replay=0).problems
        assert "k0.nc" in problem


def test_nothing_is_unpickled(folder, monkeypatch):
    import pickle

    def refuse(*given, **options):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    catalog = mids.open_catalog(folder)
    with catalog.open("k0") as ds:
        ds.load()
    assert catalog.verify(replay=0).ok


def test_what_was_written_here_is_not_tried_again(folder, monkeypatch):
    catalog = mids.open_catalog(folder)
    monkeypatch.setattr(probe, "_prober", lambda: pytest.fail("tried"))
    points = np.geomspace(1.0, 2.0, 3)
    catalog.add(mids.from_trajectories(time=points, loss=points, dim=10), key="own")
    with catalog["own"] as ds:
        assert ds.loss.size


def test_plain_files_of_others_are_refused(folder):
    xr.Dataset({"t2m": ("x", [1.0])}).to_netcdf(folder / "data/k0.nc")
    catalog = vouch_for(folder)
    with pytest.raises(FileError, match=r"k0\.nc cannot be used: .*not stored in chunks"):
        catalog["k0"]


# -- mutations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fuzz", "count"), [(fuzz_catalog.fuzz_index, 100), (fuzz_catalog.fuzz_netcdf, 60)]
)
def test_mutations_open_or_are_errors(tmp_path, fuzz, count):
    """A small part of ``python -m tests.verification.fuzz_catalog``, with another seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes = fuzz(tmp_path, count, seed=1)
    assert outcomes["FileError"] > count / 5
    assert outcomes["opened"] > count / 5
    assert Folder(tmp_path).entries is not None
