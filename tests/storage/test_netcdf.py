"""NetCDF files: round trips, interruptions, damage, threads, memory."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from toy_flow import SIMULATED, ToyFlow

import mids
from mids.errors import DatasetError, FileError, InputError

from tests.faults import calls  # isort: skip

TIME = np.concatenate([[0.0], np.geomspace(0.1, 1e4, 20)])


def toy(**arguments):
    given = {"dim": [100, 1000], "runs": 6, "time": TIME, "flow": ToyFlow(), "chunks": 2}
    return mids.simulate("h1(z1) + h1(z1)*h3(z2)", **{**given, **arguments})


@pytest.fixture
def ds():
    """A dataset in memory with what NetCDF tends to change."""
    ds = toy().compute()
    ds["mine"] = ("dim", ["one", "zwei ü"])
    ds["single"] = ds.loss.astype("float32")
    ds["flag"] = ds.loss > 0.3
    ds["number"] = xr.Variable((), 3, {"note": "x" * 100_000, "values": np.array([1.5, 2.0])})
    ds["empty"] = ("nothing", np.zeros(0))
    return ds


@pytest.fixture
def file(ds, tmp_path):
    path = tmp_path / "runs.nc"
    mids.to_netcdf(ds, path)
    return path


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


# -- round trips --------------------------------------------------------------------------------


def test_everything_comes_back(ds, file):
    with mids.open_dataset(file) as opened:
        loaded = opened.load()
    xr.testing.assert_identical(loaded, ds)
    for name, variable in ds.variables.items():
        back = loaded.variables[name]
        assert back.dtype == variable.dtype
        assert np.asarray(back.values).tobytes() == np.asarray(variable.values).tobytes()
        assert back.attrs.keys() == variable.attrs.keys()
    assert list(loaded.attrs) == list(ds.attrs)
    assert loaded.status.attrs["flag_values"].dtype == np.int8
    mids.validate(loaded)


def test_plain_xarray_reads_the_file(ds, file):
    with xr.open_dataset(file) as opened:
        xr.testing.assert_identical(opened.load(), ds)


@pytest.mark.parametrize("small", [0, 2**16])
@pytest.mark.parametrize("opened", [xr.open_dataset, mids.open_dataset])
def test_what_is_still_in_a_file_is_written(ds, file, monkeypatch, opened, small):
    """Plain xarray reads under a lock of its own."""
    monkeypatch.setattr("mids.storage.netcdf.UNCUT_BYTES", small)
    with opened(file) as unread:
        mids.to_netcdf(unread, file)
        assert not unread["loss"].variable._in_memory
    with mids.open_dataset(file) as written:
        xr.testing.assert_identical(written.load(), ds)


def test_data_are_compressed_and_protected(file):
    with mids.open_dataset(file) as opened:
        for name in ("loss", "status", "n_steps"):
            encoding = opened[name].encoding
            assert (encoding["zlib"], encoding["complevel"]) == (True, 1)
            assert encoding["shuffle"] and encoding["fletcher32"]
        assert np.isnan(opened.crossing_time.encoding["_FillValue"])
        assert "_FillValue" not in opened.time.encoding


def test_equal_datasets_in_memory_give_equal_files(ds, file, tmp_path):
    mids.to_netcdf(ds, tmp_path / "again.nc")
    assert (tmp_path / "again.nc").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("chunks", [None, {"run": 4}, "auto"])
def test_lazy_and_opened_datasets_are_written_whole(tmp_path, chunks):
    path = tmp_path / "runs.nc"
    mids.to_netcdf(toy(), path)
    with mids.open_dataset(path, chunks=chunks) as opened:
        assert (opened.loss.chunks is None) == (chunks is None)
        mids.to_netcdf(opened, path)  # over the very file it comes from
    with mids.open_dataset(path) as again:
        xr.testing.assert_identical(again.load().drop_attrs(), toy().compute().drop_attrs())
    assert listed(tmp_path) == ["runs.nc"]


def test_writing_simulates_each_run_once(tmp_path):
    mids.to_netcdf(toy(), tmp_path / "runs.nc")
    assert dict(SIMULATED) == {(dim, run): 1 for dim in (100, 1000) for run in range(6)}


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_every_scheduler_writes_the_same(tmp_path, scheduler):
    with dask.config.set(scheduler=scheduler):
        mids.to_netcdf(toy(), tmp_path / "runs.nc")
    with mids.open_dataset(tmp_path / "runs.nc") as opened:
        assert opened.drop_attrs().equals(toy().compute().drop_attrs())


def test_chunks_on_disk_divide_the_blocks(tmp_path):
    mids.to_netcdf(toy(runs=1000, chunks=300, time=np.arange(1000.0)), tmp_path / "runs.nc")
    with mids.open_dataset(tmp_path / "runs.nc") as opened:
        for variable in opened.drop_vars("recipe").data_vars.values():  # 8 bytes a run, in memory
            dim, run, *rest = variable.encoding["chunksizes"]
            assert (dim, 300 % run) == (1, 0)
            assert variable.dtype.itemsize * run * np.prod(rest) <= 2**20
            assert run <= 64
            if "time" in variable.dims:
                assert 200 <= rest[0] <= 256


def test_compact_files_round_the_curves_and_nothing_else(ds, tmp_path):
    mids.to_netcdf(ds, tmp_path / "whole.nc")
    mids.to_netcdf(ds, tmp_path / "compact.nc", compact=True)
    with mids.open_dataset(tmp_path / "compact.nc") as opened:
        back = opened.load()
    mids.validate(back)
    rounded = {name for name in ds.data_vars if back[name].dtype != ds[name].dtype}
    assert rounded == {"loss", "overlap", "energy"}
    for name in ds.data_vars:
        expected = ds[name].astype("float32") if name in rounded else ds[name]
        xr.testing.assert_equal(back[name], expected)
    xr.testing.assert_identical(back.drop_vars(rounded), ds.drop_vars(rounded))
    mids.to_netcdf(toy(), tmp_path / "lazy.nc", compact=True)
    with mids.open_dataset(tmp_path / "lazy.nc") as opened:
        xr.testing.assert_equal(opened.load(), back[list(opened)])


def test_a_replay_of_a_compact_file_is_identical_bit_by_bit(tmp_path):
    from mids.simulation.simulate import differences

    mids.to_netcdf(mids.simulate("h2(z1)", dim=[100, 1e4], runs=4), tmp_path / "c.nc", compact=True)
    with mids.open_dataset(tmp_path / "c.nc", chunks={}) as opened:
        assert opened.loss.dtype == np.float32
        assert differences(opened, mids.replay(opened)) == []
        one = np.float32(1) + np.finfo("f4").eps
        (found,) = differences(opened.assign(loss=opened.loss * one), mids.replay(opened))
        assert "loss differs in 8 of 8 runs" in found


# -- nothing half-written -----------------------------------------------------------------------


class Failing(ToyFlow):
    """Fails in the last block of runs."""

    def integrate(self, problem):
        """Fail late."""
        if problem.dim == 1000 and 5 in problem.runs:
            raise self.error
        return super().integrate(problem)


@pytest.mark.parametrize("error", [InputError("broken"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("exists", [True, False])
def test_errors_leave_what_was_there(tmp_path, error, exists):
    path = tmp_path / "runs.nc"
    if exists:
        path.write_bytes(b"old")
    flow = Failing()
    object.__setattr__(flow, "error", error)
    with dask.config.set(scheduler="synchronous"), pytest.raises(type(error)):
        mids.to_netcdf(toy(flow=flow), path)
    assert listed(tmp_path) == (["runs.nc"] if exists else [])
    assert not exists or path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing/runs.nc", "the folder .*missing does not exist"), (".", "it is a folder")],
)
def test_impossible_outputs_are_errors_before_any_work(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        mids.to_netcdf(toy(), tmp_path / name)
    assert not SIMULATED
    assert listed(tmp_path) == []


def test_a_full_disk_is_an_error_that_says_so(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    with pytest.raises(FileError, match=r"No space left on device.*free space"):
        mids.to_netcdf(toy(), tmp_path / "runs.nc")
    assert listed(tmp_path) == []


def test_unstorable_attributes_are_named_together(ds, tmp_path):
    ds.attrs |= {"nothing": None, "truth": True}
    ds.loss.attrs["table"] = {"a": 1}
    with pytest.raises(
        DatasetError, match=r"'nothing' of type NoneType.*'truth'.*loss has.*'table'"
    ):
        mids.to_netcdf(ds, tmp_path / "runs.nc")
    assert listed(tmp_path) == []


def test_names_that_netcdf_cannot_hold_are_errors(ds, tmp_path):
    with pytest.raises(DatasetError, match="'a/b' is no name"):
        mids.to_netcdf(ds.assign({"a/b": 1}), tmp_path / "runs.nc")


# -- damaged and foreign files ------------------------------------------------------------------


def foreign(path):
    xr.Dataset({"t2m": ("x", [1.0])}).to_netcdf(path, engine="h5netcdf")


def newer(path):
    xr.Dataset(attrs={"mids_schema": 99}).to_netcdf(path)


def oddly_versioned(path):
    xr.Dataset(attrs={"mids_schema": "one"}).to_netcdf(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b""), "no NetCDF-4 file"),
        (lambda path: path.write_text("dim,run\n1,2\n"), "no NetCDF-4 file"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200)), "damaged"),
        (foreign, "no attribute mids_schema.*xarray.open_dataset"),
        (newer, "schema version 99, newer than 2.*upgrade"),
        (oddly_versioned, "'one', which is no version"),
    ],
)
def test_unusable_files_are_errors_that_name_them(tmp_path, make, message):
    path = tmp_path / "thing.nc"
    make(path)
    with pytest.raises(FileError, match=rf"thing\.nc.*{message}"):
        mids.open_dataset(path)


def test_truncated_files_are_errors(file):
    whole = file.read_bytes()
    for length in np.linspace(1, len(whole) - 1, 40).astype(int):
        file.write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"runs\.nc"):
            mids.open_dataset(file)


def test_flipped_bytes_are_noticed_when_read(file, ds):
    whole = bytearray(file.read_bytes())
    with mids.open_dataset(file) as opened:
        clean = opened.loss.values
    middle = whole.find(b"\x78\x01")  # the first compressed chunk
    assert middle > 0
    whole[middle + 20] ^= 0xFF
    file.write_bytes(whole)
    with pytest.raises((FileError, RuntimeError, OSError)), mids.open_dataset(file) as opened:
        opened.load()
    assert clean.shape == ds.loss.shape


@pytest.mark.slow
def test_an_interrupted_file_is_refused(tmp_path):
    """Global attributes come last: whatever stops the writing before, the file is not accepted."""
    code = (
        "import os, sys, h5py, mids, toy_flow\n"
        "h5py.AttributeManager.__setitem__ = lambda *given: os.kill(os.getpid(), 9)\n"
        "mids.to_netcdf(mids.simulate('h1(z1)', dim=100, runs=2, flow=toy_flow.ToyFlow(),"
        " time=[0, 1]), sys.argv[1])\n"
    )
    done = in_subprocess(code, tmp_path / "runs.nc")
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".mids-part"
    with pytest.raises(FileError, match=r"damaged|writing was interrupted"):
        mids.open_dataset(left)
    os.utime(left, (0, 0))  # long ago
    mids.to_netcdf(toy(), tmp_path / "other.nc")
    assert listed(tmp_path) == ["other.nc"]


def test_a_file_that_was_replaced_is_not_read_as_the_other(file, tmp_path):
    with mids.open_dataset(file) as opened:
        sent = pickle.dumps(opened)
        mids.to_netcdf(toy(seed=7), tmp_path / "other.nc")
        os.replace(tmp_path / "other.nc", file)
        assert opened.loss.values.size  # the file that was opened
    with pytest.raises(FileError, match="was replaced while it was open"):
        pickle.loads(sent).loss.load()


# -- threads, processes and memory --------------------------------------------------------------


def in_subprocess(code, *arguments):
    paths = [str(Path(__file__).parents[1]), str(Path(mids.__file__).parents[1])]
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.mark.slow
def test_files_are_opened_in_many_threads_at_once(tmp_path):
    """A small version of what ``python -m tests.faults`` makes."""
    assert "no crash" in calls.opens(tmp_path, total=400)


@pytest.mark.slow
def test_memory_is_set_by_the_blocks(tmp_path):
    code = """
import resource, sys, numpy as np, mids, toy_flow

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def sweep(runs):
    return mids.simulate("h1(z1)", dim=100, runs=runs, flow=toy_flow.ToyFlow(),
                         time=np.arange(4000.0), chunks=64)

mids.to_netcdf(sweep(256), sys.argv[1])
before = peak()
large = sweep(3072)
mids.to_netcdf(large, sys.argv[1])
print(large.nbytes / 2**20, peak() - before)
"""
    done = in_subprocess(code, tmp_path / "runs.nc")
    assert done.returncode == 0, done.stderr
    total, grown = map(float, done.stdout.split())
    assert total > 250
    assert grown < 60
