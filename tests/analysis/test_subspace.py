"""G(t), M(t) and the learned directions in the data."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mids
from mids.errors import DatasetError, InputError
from mids.flows import Joint

TIME = np.concatenate([[0.0], np.geomspace(0.1, 1e4, 25)])
TARGET = "h1(z1) + h1(z1)*h2(z2)"


@pytest.fixture(scope="module")
def lazy():
    flows = {"fast": "two-timescale", "planted": "planted"}
    return mids.simulate(
        {"ladder": TARGET, "square": "h2(z1)"}, dim=[30, 100], runs=2, flow=flows, time=TIME
    )


@pytest.fixture(scope="module")
def ds(lazy):
    return lazy.compute()


def test_gram_and_correlation_have_the_overlaps_as_spectrum(ds):
    gram = ds.gram.sel(target="ladder", flow="fast")
    found = np.linalg.eigvalsh(gram.values)[..., ::-1]
    np.testing.assert_allclose(found, ds.overlap.sel(target="ladder", flow="fast"), atol=1e-12)
    np.testing.assert_array_equal(gram, gram.transpose(..., "axis_t", "axis").values)
    M = ds.correlation.sel(target="ladder", flow="planted").values
    found = np.linalg.svd(M, compute_uv=False) ** 2
    np.testing.assert_allclose(found, ds.overlap.sel(target="ladder", flow="planted"), atol=1e-12)
    np.testing.assert_allclose(gram.isel(time=0), ds.gram0.sel(target="ladder", flow="fast"))
    assert ds.correlation.sel(flow="fast").isnull().all()


def test_directions_diagonalise_gram_and_turn_least(lazy, ds):
    found = mids.subspace(lazy)
    assert found.chunks is not None
    found = found.compute()
    xr.testing.assert_allclose(found, mids.subspace(ds).transpose(*found.dims), atol=1e-12)
    V = found.sel(target="ladder").transpose("flow", "dim", "run", "time", "axis", "direction")
    np.testing.assert_allclose(
        V.values.swapaxes(-1, -2) @ V.values, np.broadcast_to(np.eye(2), V.shape), atol=1e-12
    )
    overlap = ds.overlap.sel(target="ladder").transpose("flow", "dim", "run", "time", "direction")
    again = (V.values * overlap.values[..., None, :]) @ V.values.swapaxes(-1, -2)
    expected = ds.gram.sel(target="ladder", flow="fast")
    np.testing.assert_allclose(again[0], expected, atol=1e-12)
    M = ds.correlation.sel(target="ladder", flow="planted").values
    np.testing.assert_allclose(again[1], M @ M.swapaxes(-1, -2), atol=1e-12)
    assert ((V * V.shift(time=1)).sum("axis") >= 0).all()
    first = V.isel(time=0)
    assert (first.isel(axis=abs(first).argmax("axis")) > 0).all()


def test_a_smaller_target_of_a_sweep_has_its_own_directions(ds):
    found = mids.subspace(ds).sel(target="square")
    assert (found.sel(direction=0).isel(axis=0) == 1).all()
    assert found.sel(direction=1).isnull().all()


def test_what_is_not_known_has_no_directions(ds):
    for flow, name in (("fast", "gram"), ("planted", "correlation")):
        lost = ds.sel(target="ladder", flow=flow).copy(deep=True)
        lost[name][0, 0, 3] = np.nan
        unknown = mids.subspace(lost)[0, 0].isnull().all(("axis", "direction"))
        assert unknown.values.nonzero()[0].tolist() == [3]


def test_times_are_the_nearest(ds):
    found = ds.mi.subspace(time=[0, 1.1e3])
    assert found.time.values.tolist() == [0.0, TIME[np.argmin(abs(TIME - 1.1e3))]]
    assert "time" not in ds.mi.subspace(time=5.0).dims


def test_compact_files_round_them_and_keep_the_directions(ds, tmp_path):
    mids.to_netcdf(ds, tmp_path / "small.nc", compact=True)
    with mids.open_dataset(tmp_path / "small.nc") as small:
        assert small.gram.dtype == small.correlation.dtype == np.float32
        assert small.gram0.dtype == np.float64
        at = {"target": "ladder", "flow": "fast", "time": [TIME[8]]}
        one, two = (abs(mids.subspace(each).sel(at)) for each in (small, ds))
        np.testing.assert_allclose(one, two.transpose(*one.dims), atol=1e-3)


@pytest.mark.slow
def test_a_learned_link_is_that_of_the_target_in_the_end(tmp_path):
    flow = Joint(epsilon=[0.01, 0.1])
    lazy = mids.simulate(TARGET, dim=50, runs=2, flow=flow, time=1e3)
    assert lazy.link.chunks is not None
    ds = lazy.compute()
    last = ds.link.isel(time=-1)
    np.testing.assert_allclose(last, np.broadcast_to(1.0, last.shape), atol=1e-3)
    assert abs(ds.link.isel(time=0)).max() < 0.5
    mids.to_netcdf(ds, tmp_path / "link.nc", compact=True)
    with mids.open_dataset(tmp_path / "link.nc") as small:
        assert small.link.dtype == np.float32
        np.testing.assert_allclose(small.link, ds.link, rtol=1e-6, atol=1e-30)


def test_files_without_them_open_and_say_what_to_do(ds, tmp_path):
    old = ds.sel(flow="fast").drop_vars(["gram", "correlation"])
    mids.to_netcdf(old, tmp_path / "old.nc")
    with mids.open_dataset(tmp_path / "old.nc") as back:
        assert back.mi.saddles().visited.any()
        with pytest.raises(DatasetError, match=r"mids\.replay"):
            back.mi.subspace()
        again = mids.replay(back)
        assert "gram" in again
    with pytest.raises(InputError, match="dataset"):
        mids.subspace(3)


@pytest.mark.slow
def test_theory_of_a_target_needs_no_simulation():
    found = mids.theory("h2(z1)", dim=[1e3, 1e5], quantiles=[0.5])
    assert found.escape_time_quantile.dims == ("dim", "saddle", "quantile")
    same = mids.theory(mids.Target.parse("h2(z1)"), dim=[1e3, 1e5], quantiles=[0.5])
    xr.testing.assert_equal(found, same)
    lazy = mids.simulate("h2(z1)", dim=[1e3, 1e5], runs=2)
    law = mids.theory(lazy, quantiles=[0.5]).escape_time_quantile
    assert law.chunks is not None
    np.testing.assert_array_equal(law, found.escape_time_quantile)
    with pytest.raises(InputError, match="dim="):
        mids.theory("h2(z1)")
    with pytest.raises(InputError, match="those of the dataset"):
        mids.theory(lazy, dim=100)
