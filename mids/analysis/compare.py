"""Measured saddles beside predicted ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ..errors import DatasetError
from .saddles import saddles
from .theory import theory

__all__ = ["compare", "summary"]

Array = NDArray[np.float64]


def compare(ds: xr.Dataset) -> xr.Dataset:
    """Hold the measured saddles of each run against the predicted ones.

    Saddles are matched by the number of directions learned; saddles that only one side knows are
    kept, with NaN on the other. One that the theory says is never left, as where the student has no
    direction left, is where a run ends and counts as none.

    Parameters
    ----------
    ds : xarray.Dataset
        With what `saddles` and `theory` need.

    Returns
    -------
    xarray.Dataset
        Dims of the runs and ``saddle``, the number of directions learned there: ``loss``,
        ``loss_theory``, ``escape_time``, ``escape_time_theory``, ``ratio`` (measured / predicted),
        ``censored`` (the run ends there), ``match`` (in both). Lazy where `ds` is.

    Raises
    ------
    DatasetError
        If the dataset lacks what either side needs.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=1e4, runs=20)
    >>> compare(ds).ratio.median("run").round(2).values.tolist()
    [[1.0, 1.0]]
    """
    measured, predicted = saddles(ds), theory(ds)
    if "rank" not in measured:
        raise DatasetError(
            "compare matches saddles by the directions learned, which need the variable "
            "'crossing_time', as mids.simulate and mids.from_trajectories(correlation=...) write it"
        )
    size = ds.sizes["direction"]
    left = np.isfinite(predicted["escape_time"])
    predicted = predicted[["rank", "loss", "escape_time"]].where(left)
    columns = {
        "loss": (measured["loss"], measured["rank"]),
        "loss_theory": (predicted["loss"], predicted["rank"]),
        "escape_time": (measured["escape_time"], measured["rank"]),
        "escape_time_theory": (predicted["escape_time"], predicted["rank"]),
        "censored": (measured["censored"].astype(np.float64), measured["rank"]),
        "visited": (measured["rank"], measured["rank"]),
        "expected": (predicted["rank"], predicted["rank"]),
    }
    by_rank = {name: _by_rank(*pair, size) for name, pair in columns.items()}
    found, expected = by_rank.pop("visited").notnull(), by_rank.pop("expected").notnull()
    out = xr.Dataset(by_rank).assign_coords(saddle=np.arange(size))
    out["censored"] = out["censored"] == 1.0
    out["ratio"] = out["escape_time"] / out["escape_time_theory"]
    out["match"] = found & expected
    names = {
        "loss": "measured loss on the plateau",
        "loss_theory": "predicted loss on the plateau",
        "escape_time": "measured escape time",
        "escape_time_theory": "predicted escape time",
        "ratio": "measured over predicted escape time",
        "censored": "whether the run ends on the plateau",
        "match": "whether the saddle is both measured and predicted",
    }
    for name, variable in out.data_vars.items():
        variable.attrs = {"long_name": names[str(name)], "units": "1"}
    out["saddle"].attrs = {"long_name": "directions learned at the saddle", "units": "1"}
    return out[list(names)].transpose(..., "saddle", missing_dims="ignore")


def _by_rank(values: xr.DataArray, rank: xr.DataArray, size: int) -> xr.DataArray:
    """Values of saddles in order of visit, put at the place of their rank."""
    placed: xr.DataArray = xr.apply_ufunc(
        _scatter,
        values,
        rank,
        input_core_dims=[["saddle"], ["saddle"]],
        output_core_dims=[["saddle"]],
        exclude_dims={"saddle"},
        dask="parallelized",
        kwargs={"size": size},
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"saddle": size}},
    )
    return placed


def _scatter(values: Array, rank: Array, *, size: int) -> Array:
    values, rank = np.broadcast_arrays(values, rank)
    out = np.full((*rank.shape[:-1], size), np.nan)
    known = np.isfinite(rank) & (rank < size)
    at = np.nonzero(known)
    out[(*at[:-1], rank[known].astype(int))] = values[known]
    return out


def summary(comparison: xr.Dataset) -> pd.DataFrame:
    """One row per dimension and saddle, medians over runs.

    Parameters
    ----------
    comparison : xarray.Dataset
        What `compare` returns, in memory.

    Returns
    -------
    pandas.DataFrame
        Columns ``dim``, ``saddle`` (directions learned there), ``loss``, ``escape_time``,
        ``escape_time_theory``, ``ratio`` (median of the ratios of single runs), ``runs`` (that
        visited or were predicted to), ``censored`` and ``unmatched`` (numbers of runs). A median
        escape time counts censored runs as later than all others; it is NaN if they are half.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h2(z1)", dim=[100, 1000], runs=8)
    >>> summary(compare(ds).compute())[["dim", "saddle", "runs"]].values.tolist()
    [[100, 0, 8], [1000, 0, 8]]
    """
    for name in ("dim", "run"):
        if name not in comparison.dims:
            comparison = comparison.expand_dims(name)
    comparison = comparison.transpose("dim", "run", "saddle")
    rows = []
    for d in range(comparison.sizes["dim"]):
        for j in range(comparison.sizes["saddle"]):
            here = comparison.isel(dim=d, saddle=j)
            censored = here["censored"].values
            visited = censored | np.isfinite(here["escape_time"].values)
            expected = np.isfinite(here["loss_theory"].values)
            if not (visited | expected).any():
                continue
            escape = np.where(censored, np.inf, here["escape_time"].values)[visited]
            predicted = here["escape_time_theory"].values[expected]
            rows.append(
                {
                    "dim": here["dim"].item() if "dim" in here.coords else np.nan,
                    "saddle": int(comparison["saddle"].values[j]),
                    "loss": _median(_known(here["loss"].values)),
                    "escape_time": _median(escape),
                    "escape_time_theory": _median(predicted),
                    "ratio": _median(_known(here["ratio"].values)),
                    "runs": int((visited | expected).sum()),
                    "censored": int(censored.sum()),
                    "unmatched": int((visited != expected).sum()),
                }
            )
    return pd.DataFrame(rows)


def _known(values: Array) -> Array:
    return values[np.isfinite(values)]


def _median(values: Array) -> float:
    """Median, NaN of nothing and where it is not finite."""
    if not len(values):
        return np.nan
    middle = float(np.quantile(values, 0.5, method="lower"))
    upper = float(np.quantile(values, 0.5, method="higher"))
    result = 0.5 * (middle + upper)
    return result if np.isfinite(result) else np.nan
