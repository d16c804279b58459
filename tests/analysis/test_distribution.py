"""The law of the escape times over initial conditions against simulated runs and exact laws."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from scipy.stats import chi2, f, ks_2samp

import mids
from mids.errors import DatasetError, InputError

PROBABILITIES = np.linspace(0, 1, 2049)[1:-1]
RUNS = 1000


def refuse(*args, **kwargs):
    raise AssertionError("something was computed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "student_rank", "dim"),
    [
        ("h1(z1) + h1(z1)*h3(z2)", 2, 1e4),
        ("h2(z1) + h1(z1)*h2(z2)", 4, 1e6),
        ("h1(z1) + h1(z1)*h2(z2) + h2(z2)*h3(z3)", 3, 1e5),
        ("parity(2)", 2, 1e5),
        ("h1(z1) + h2(z1) + 1/2*h1(z1)*h1(z2)", 2, 1e5),
    ],
)
def test_simulated_runs_follow_the_law(text, student_rank, dim):
    """Both are samples: these quantiles are the drawn times themselves, in order."""
    target = mids.Target.parse(text).normalize()
    ds = mids.simulate(target, dim=dim, runs=RUNS, seed=1, student_rank=student_rank)
    ds = ds[["recipe", "gram0", "crossing_time"]].compute()
    samples = RUNS // 2
    each = (np.arange(samples) + 0.5) / samples
    law = mids.theory(ds.isel(run=[0]), quantiles=each, samples=samples).escape_time_quantile[0]
    for saddle in range(target.rank):
        times = ds.crossing_time[0, :, saddle].sel(level=0.5).values
        times[np.isnan(times)] = np.inf  # cut off: later than all others
        assert ks_2samp(times, law[saddle].values, method="asymp").pvalue > 0.01


def test_one_direction_has_an_exact_law():
    """Escape from h2 takes 1 / (4 delta) to leading order; delta = chi2_q / chi2_(d-q)."""
    dim, q, levels = 10**8, 3, [0.05, 0.5, 0.95]
    ds = mids.simulate("h2(z1)", dim=dim, runs=1, student_rank=q)
    found = mids.theory(ds, quantiles=levels).escape_time_quantile.values[0, 0]
    exact = 1 / (4 * f.isf(levels, q, dim - q) * q / (dim - q))
    np.testing.assert_allclose(found, exact, rtol=1e-3)
    np.testing.assert_allclose(found, dim / (4 * chi2.isf(levels, q)), rtol=1e-3)


def test_quantiles_of_saddles_nobody_visits():
    target = mids.Target.parse("h1(z1) + h1(z1)*h3(z2)").normalize()
    ds = mids.simulate(target, dim=[1e4, 1e5], runs=1, student_rank=1)
    law = ds.mi.theory(quantiles=[0.5]).escape_time_quantile
    assert law.dims == ("dim", "saddle", "quantile")
    assert np.isfinite(law.isel(saddle=0)).all() and np.isnan(law.isel(saddle=1)).all()


@pytest.mark.parametrize("text", ["h2(z1) + h1(z1)*h2(z2)", "parity(2)"])
def test_quantiles_are_lazy_where_the_dataset_is(text):
    lazy = mids.simulate(text, dim=[1e3, 1e4], runs=4)
    with dask.config.set(scheduler=refuse):
        found = mids.theory(lazy, quantiles=[0.1, 0.5], samples=20)
    law = found.escape_time_quantile
    assert law.chunks is not None and law.sizes == {"dim": 2, "saddle": 2, "quantile": 2}
    eager = mids.theory(lazy[["recipe", "gram0"]].compute(), quantiles=[0.1, 0.5], samples=20)
    xr.testing.assert_allclose(law.compute(), eager.escape_time_quantile, rtol=1e-7)
    one = mids.theory(lazy.isel(dim=1), quantiles=[0.1, 0.5], samples=20).escape_time_quantile
    np.testing.assert_allclose(one, law.isel(dim=1), rtol=1e-7)
    assert one.dims == ("saddle", "quantile") and one.dim.item() == 10**4


def test_quantiles_need_the_law_of_the_start():
    given = mids.simulate("h2(z1)", dim=100, runs=1, initial=[[0.1]])
    with pytest.raises(DatasetError, match="uniform"):
        mids.theory(given, quantiles=[0.5])
    with pytest.raises(InputError, match="quantile must be"):
        mids.theory(mids.simulate("h2(z1)", dim=100, runs=1), quantiles=[1.5])
