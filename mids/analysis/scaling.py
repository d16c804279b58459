"""How escape times grow with the dimension, beside the exponents of the theory."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .. import _validate
from ..errors import DatasetError
from .compare import compare
from .theory import theory

__all__ = ["scaling"]

Array = NDArray[np.float64]


def scaling(
    ds: xr.Dataset, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> xr.Dataset:
    """Fit the slope of log escape time in log d, for each saddle.

    The slope is that of a least-squares line through the medians over runs, in which censored
    runs count as later than all others; its interval is the bootstrap percentile interval over
    runs, drawn anew at each dimension. Theory expects ``s - 1`` (paper Theorem 1.4); for s = 1 the
    time grows like log d and the slope tends to 0 slowly.

    Parameters
    ----------
    ds : xarray.Dataset
        With what `compare` needs, at two dimensions or more.
    resamples : int
        Bootstrap samples.
    confidence : float
        Of the interval.
    seed : int
        Of the bootstrap.

    Returns
    -------
    xarray.Dataset
        Dims ``saddle`` (directions learned there): ``slope``, ``low``, ``high``, ``expected``
        (``s - 1``, the most common over runs) and ``n_dims`` (dimensions with a finite median).
        Lazy where `ds` is.

    Raises
    ------
    DatasetError
        If there are fewer than two dimensions.
    InputError
        If a parameter is wrong.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h2(z1)", dim=[1e4, 1e6], runs=64)
    >>> fit = scaling(ds).compute()
    >>> bool(fit.low[0] < 1 < fit.high[0]), fit.expected.values.tolist()
    (True, [1.0])
    """
    resamples = _validate.integer(resamples, "resamples", at_least=1)
    confidence = _validate.number(confidence, "confidence", above=0.0, at_most=1.0)
    seed = _validate.integer(seed, "seed", at_least=0)
    if "dim" not in ds.dims or ds.sizes["dim"] < 2:
        raise DatasetError(
            "scaling needs escape times at two dimensions or more; "
            "simulate with for example dim=[1e2, 1e4, 1e6]"
        )
    comparison, predicted = compare(ds), theory(ds)
    escape = comparison["escape_time"].where(~comparison["censored"], np.inf)
    exponent = predicted["exponent"]
    if escape.chunks is not None:
        escape = escape.chunk(dim=-1, run=-1)
        exponent = exponent.chunk(dim=-1, run=-1, saddle=-1)
    columns = xr.apply_ufunc(
        _fit,
        escape,
        np.log(ds["dim"].astype(np.float64)),
        input_core_dims=[["dim", "run"], ["dim"]],
        output_core_dims=[["column"]],
        vectorize=True,
        dask="parallelized",
        kwargs={"resamples": resamples, "confidence": confidence, "seed": seed},
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"column": 4}},
    )
    rank = predicted["rank"].chunk(dim=-1, run=-1, saddle=-1) if exponent.chunks else None
    expected = xr.apply_ufunc(
        _usual,
        exponent,
        predicted["rank"] if rank is None else rank,
        input_core_dims=[["dim", "run", "saddle"], ["dim", "run", "saddle"]],
        output_core_dims=[["place"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"place": ds.sizes["direction"]}},
    ).rename(place="saddle")
    names = {
        "slope": "slope of log escape time in log d",
        "low": "lower end of its bootstrap interval",
        "high": "upper end of its bootstrap interval",
        "n_dims": "dimensions with a finite median escape time",
    }
    out = xr.Dataset({name: columns.isel(column=k, drop=True) for k, name in enumerate(names)})
    out["expected"] = expected - 1.0
    for name, text in (names | {"expected": "information exponent minus one"}).items():
        out[name].attrs = {"long_name": text, "units": "1"}
    return out


def _fit(escape: Array, log_dim: Array, *, resamples: int, confidence: float, seed: int) -> Array:
    """Slope, its interval and the number of dimensions, for escape times of shape (dim, run)."""
    known = [values[~np.isnan(values)] for values in escape]
    usable = [k for k, values in enumerate(known) if len(values) and np.isfinite(np.median(values))]
    if len(usable) < 2:
        return np.array([np.nan, np.nan, np.nan, len(usable)])
    x = log_dim[usable]
    x = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    rng = np.random.default_rng(seed)
    slope, samples = 0.0, np.zeros(resamples)
    for weight, k in zip(x, usable, strict=True):
        values = np.sort(known[k])
        slope += weight * np.log(np.median(values))
        drawn = rng.choice(values, (resamples, len(values)))
        samples += weight * np.log(np.median(drawn, axis=1))
    samples = samples[np.isfinite(samples)]
    low, high = np.quantile(samples, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return np.array([slope, low, high, len(usable)])


def _usual(exponent: Array, rank: Array) -> Array:
    """Most common exponent of the saddles of each rank."""
    size = exponent.shape[-1]
    out = np.full(size, np.nan)
    for k in range(size):
        values = exponent[(rank == k) & np.isfinite(exponent)]
        if len(values):
            found, counts = np.unique(values, return_counts=True)
            out[k] = found[np.argmax(counts)]
    return out
