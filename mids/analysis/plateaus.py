"""Plateaus of trajectories, from the curve alone.

On a plateau a trajectory slows down and then speeds up again. A curve that only slows down, such
as an exponential or a power law, has none, however flat it looks on a logarithmic axis; where it
ends it has converged.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .. import validation
from ..errors import DatasetError
from ..schema import LEVELS
from .staircase import stretches

__all__ = ["plateaus"]

Array = NDArray[np.float64]

CONVERGED, TRAPPED, FAILED = 0, 2, 3


def plateaus(
    ds: xr.Dataset,
    var: str = "loss",
    *,
    tolerance: float = 0.02,
    contrast: float = 2.0,
    max_plateaus: int = 8,
) -> xr.Dataset:
    """Find the plateaus of trajectories in logarithmic time.

    A plateau is a stretch on which the variable stays within a band and which is left again by
    speeding up; or, marked by ``left = False``, the level stretch on which the trajectory is cut
    off. The level to which a run has converged is not a plateau: that of a loss that is zero within
    the band, or of status 0, where crossing times or overlaps show that it was reached before the
    last time (a dataset cut in time keeps its status). A loss alone that ends level above zero may
    have converged or not: it is counted, as is that of a trapped run (status 2).

    The noise is estimated from the data: its size from small deviations from the neighbours, local
    in time, and how long it lasts (as that of a running mean does) from means of 2, 4, 8, ...
    successive points. It widens the band, and no plateau is found that noise on a curve which only
    slows down could feign with more than five standard errors. Noise that lasts for a good part of
    the curve cannot be told from the curve, and of noise that shrinks with the values within few
    points, as where it is a share of a loss that decays, part is taken for plateaus. Points closer
    than 1/96 decade are averaged, those closer than 1/24 where noise asks for it; what happens in
    between is not resolved. A level needs two points to be seen, or one beside slopes that show it;
    a first point whose level is left at the next is none.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable and a coordinate ``time``, in any units, from 0 or later.
    var : str
        Any variable with the dimension ``time``.
    tolerance : float
        Half-width of the band, as a fraction of the range of the variable in each run; plateaus
        that differ by less are one.
    contrast : float
        A transition is at least so many times faster than the plateaus beside it.
    max_plateaus : int
        Size of the dimension ``plateau``.

    Returns
    -------
    xarray.Dataset
        Dims as `var` with ``plateau`` for ``time``, padded with NaN: ``start`` and ``stop`` (times
        at which the trajectory enters and leaves the band), ``decades`` (their ratio in decades, a
        start at 0 counted from the first positive time), the level under the name of the
        variable, ``halfway_time`` (when it is halfway to the next level; NaN where the data end
        before), ``left``, ``entered`` (False where the data begin on the plateau after time 0: its
        start is unknown); and ``n_plateaus``, ``n_missing`` (points left out: not finite, or before
        time 0) and ``failed`` (status 3: the run has none). Lazy where `ds` is.

    Raises
    ------
    DatasetError
        If the variable or the time is missing or the time does not increase.
    InputError
        If a parameter is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> time = np.append(0, np.logspace(-2, 3, 200))
    >>> curve = 0.5 - 0.5 * np.tanh((time - 20) / 2)  # leaves 1 at t = 20
    >>> found = plateaus(xr.Dataset({"loss": ("time", curve)}, {"time": time}))
    >>> int(found.n_plateaus), bool(found.left[0]), round(float(found.stop[0]))
    (1, True, 16)
    """
    validation.dataset(ds)
    tolerance = validation.number(tolerance, "tolerance", above=0.0, at_most=0.5)
    contrast = validation.number(contrast, "contrast", above=1.0)
    max_plateaus = validation.integer(max_plateaus, "max_plateaus", at_least=1)
    values, time = _trajectory(ds, var)
    failed, converged = _status(ds, float(time[-1]))
    columns = xr.apply_ufunc(
        _find,
        values,
        time,
        failed,
        converged,
        ds["status"] == TRAPPED if "status" in ds else False,
        input_core_dims=[["time"], ["time"], [], [], []],
        output_core_dims=[["column", "plateau"]],
        exclude_dims={"time"},
        vectorize=True,
        dask="parallelized",
        kwargs={
            "tolerance": tolerance,
            "contrast": contrast,
            "size": max_plateaus,
            "to_zero": var in ("loss", "risk"),
        },
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"column": 7, "plateau": max_plateaus}},
    )
    start, stop, level, halfway, left, entered, count = (
        columns.isel(column=k, drop=True) for k in range(7)
    )
    first = float(time[time > 0][0]) if (time > 0).any() else np.nan
    n_plateaus = count.isel(plateau=0, drop=True).astype(np.int64)
    names = {
        "start": (start, "time at which the plateau is entered"),
        "stop": (stop, "time at which the plateau is left"),
        "decades": (
            np.log10(np.maximum(stop, first) / np.maximum(start, first)),
            "length of the plateau in decades",
        ),
        var: (level, f"{var} on the plateau"),
        "halfway_time": (halfway, f"time at which {var} is halfway to the next level"),
        "left": (left == 1.0, "whether the plateau is left again"),
        "entered": (entered == 1.0, "whether its beginning is in the data"),
        "n_plateaus": (n_plateaus, "number of plateaus"),
        "n_missing": ((~_usable(values, time)).sum("time"), "points of the curve left out"),
        "failed": ((n_plateaus < 0) | failed, "whether the run failed, and has none"),
    }
    out = xr.Dataset({name: variable for name, (variable, _) in names.items()})
    for name, (_, text) in names.items():
        out[name].attrs = {"long_name": text, "units": "1"}
    return out.transpose(..., "plateau", missing_dims="ignore")


def _status(ds: xr.Dataset, last: float) -> tuple[xr.DataArray, xr.DataArray]:
    """Which runs failed, and which converged before the last time of the data."""
    if "status" not in ds:
        return xr.DataArray(False), xr.DataArray(False)
    status = ds["status"]
    if "crossing_time" not in ds:
        overlap = ds.get("overlap", xr.DataArray(np.nan))
        if not {"time", "direction"} <= set(overlap.dims):
            return status == FAILED, xr.DataArray(False)
        # A narrow student has overlaps that are zero, and stay so.
        done = (overlap.isel(time=-1) >= max(LEVELS)) | (overlap.max("time") == 0)
        return status == FAILED, (status == CONVERGED) & done.all("direction")
    crossing = ds["crossing_time"]
    over = [name for name in ("direction", "level") if name in crossing.dims]
    # Directions that nobody learns cross no level; those that are learned cross all in time.
    begun = crossing.notnull().any([name for name in over if name == "level"])
    done = (crossing <= last).all([name for name in over if name == "level"])
    converged = (done | ~begun).all([name for name in over if name == "direction"])
    return status == FAILED, (status == CONVERGED) & converged


def _trajectory(ds: xr.Dataset, var: str) -> tuple[xr.DataArray, xr.DataArray]:
    if var not in ds:
        raise DatasetError(
            f"the dataset has no variable {var!r}; it has {', '.join(map(str, ds.data_vars))}; "
            "pass one of them as var="
        )
    values = ds[var]
    if "time" not in values.dims or "time" not in ds.coords:
        raise DatasetError(
            f"{var!r} has the dims {values.dims}; plateaus needs a dimension and coordinate "
            "'time': rename yours with ds.rename(...)"
        )
    time = increasing_time(ds)
    if time.size < 3:
        raise DatasetError(
            f"{var!r} has {time.size} points in time, of which a plateau needs at least 3; give "
            "the whole curve"
        )
    if values.dtype.kind not in "biuf":
        raise DatasetError(
            f"{var!r} has the dtype {values.dtype}, but plateaus needs real numbers; convert it "
            "with .astype(float)"
        )
    empty = [str(name) for name, size in values.sizes.items() if size == 0]
    if empty:
        raise DatasetError(f"{var!r} has no {' and no '.join(empty)}; select at least one")
    if values.chunks is not None:
        values = values.chunk(time=-1)
    return values, time.astype(np.float64).reset_coords(drop=True)


def _usable(values: Any, time: Any) -> Any:
    """Which points of a curve are used; those before time 0 have no logarithm."""
    return np.isfinite(values) & (time >= 0)


def _find(
    values: Array,
    time: Array,
    failed: bool,
    converged: bool,
    trapped: bool,
    *,
    tolerance: float,
    contrast: float,
    size: int,
    to_zero: bool,
) -> Array:
    """Columns start, stop, level, halfway, left, entered and the number of plateaus."""
    out = np.full((7, size), np.nan)
    keep = _usable(values, time)
    out[6] = 0
    if keep.sum() < 3 or failed:
        return out
    exponent = int(np.frexp(np.abs(values[keep]).max())[1])
    found = stretches(
        time[keep],
        np.ldexp(values[keep], -exponent),  # squares neither overflow nor vanish
        tolerance=tolerance,
        contrast=contrast,
        to_zero=to_zero,
        ended=bool(converged),
        trapped=bool(trapped),
    )
    for k, plateau in enumerate(found[:size]):
        out[:6, k] = dataclasses.astuple(plateau)
    out[2] = np.ldexp(out[2], exponent)
    out[6] = len(found)
    return out


def increasing_time(ds: xr.Dataset) -> xr.DataArray:
    """Return the times of a dataset, which must increase."""
    if "time" not in ds.coords:
        raise DatasetError("the dimension 'time' has no coordinate; assign the times to it")
    time = ds["time"]
    if time.ndim != 1:
        raise DatasetError(
            f"the times have the dims {time.dims}, but must be the same for all runs; interpolate "
            "the trajectories to common times"
        )
    if not (np.issubdtype(time.dtype, np.number) and (np.diff(time.values) > 0).all()):
        raise DatasetError("time must be numeric and strictly increasing; sort the dataset by time")
    return time
