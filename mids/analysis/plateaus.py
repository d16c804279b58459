"""Plateaus of trajectories, from the curve alone.

On a plateau a trajectory slows down and then speeds up again. A curve that only slows down, such
as an exponential or a power law, has none, however flat it looks on a logarithmic axis; where it
ends it has converged.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.signal import find_peaks

from .. import _validate
from ..errors import DatasetError

__all__ = ["plateaus"]

Array = NDArray[np.float64]

BINS_PER_DECADE = 24
PROMINENCE = 3.0  # a transition is this many times faster than the plateaus beside it
CONVERGED, FAILED = 0, 3


def plateaus(
    ds: xr.Dataset, var: str = "loss", *, tolerance: float = 0.02, max_plateaus: int = 8
) -> xr.Dataset:
    """Find the plateaus of trajectories in logarithmic time.

    A plateau is a stretch on which the variable stays within a band and which is left again in a
    time short against the stretch; or, marked by ``left = False``, the stretch on which the
    trajectory is cut off. The level to which a run has converged (status 0, or a loss of zero
    within the band) is not a plateau.

    The noise is estimated from the data (median deviation from the neighbours) and widens the
    band. Points are averaged in bins of 1/24 decade, so that the density of the sampling does not
    matter; plateaus shorter than that are not resolved.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable and a coordinate ``time``, in any units, from 0 or later.
    var : str
        Any variable with the dimension ``time``.
    tolerance : float
        Half-width of the band, as a fraction of the range of the variable in each run.
    max_plateaus : int
        Size of the dimension ``plateau``.

    Returns
    -------
    xarray.Dataset
        Dims as `var` with ``plateau`` for ``time``, padded with NaN: ``start`` and ``stop`` (times
        at which the trajectory enters and leaves the band), ``decades`` (their ratio in decades, a
        start at 0 counted from the first positive time), the level under the name of the
        variable, ``left``; and ``n_plateaus`` and ``n_missing`` (points left out because they are
        NaN). Lazy where `ds` is.

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
    tolerance = _validate.number(tolerance, "tolerance", above=0.0, at_most=0.5)
    max_plateaus = _validate.integer(max_plateaus, "max_plateaus", at_least=1)
    values, time = _trajectory(ds, var)
    status = ds["status"] if "status" in ds else xr.DataArray(np.int8(-1))
    found = xr.apply_ufunc(
        _find,
        values,
        time,
        status,
        input_core_dims=[["time"], ["time"], []],
        output_core_dims=[["plateau"]] * 4 + [[]],
        exclude_dims={"time"},
        vectorize=True,
        dask="parallelized",
        kwargs={"tolerance": tolerance, "size": max_plateaus, "is_loss": var in ("loss", "risk")},
        output_dtypes=[np.float64] * 3 + [np.float64, np.int64],
        dask_gufunc_kwargs={"output_sizes": {"plateau": max_plateaus}},
    )
    start, stop, level, left, count = found
    first = float(time[time > 0][0]) if (time > 0).any() else np.nan
    decades = np.log10(stop / np.maximum(start, first))
    out = xr.Dataset(
        {
            "start": start.assign_attrs(
                long_name="time at which the plateau is entered", units="1"
            ),
            "stop": stop.assign_attrs(long_name="time at which the plateau is left", units="1"),
            "decades": decades.assign_attrs(
                long_name="length of the plateau in decades", units="1"
            ),
            var: level.assign_attrs(long_name=f"{var} on the plateau", units="1"),
            "left": (left == 1.0).assign_attrs(long_name="whether the plateau is left again"),
            "n_plateaus": count.assign_attrs(long_name="number of plateaus", units="1"),
            "n_missing": values.isnull()
            .sum("time")
            .assign_attrs(long_name="points of the curve that are missing", units="1"),
        }
    )
    return out.transpose(..., "plateau", missing_dims="ignore")


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
    time = ds["time"]
    numbers = time.values
    if not (np.issubdtype(numbers.dtype, np.number) and (np.diff(numbers) > 0).all()):
        raise DatasetError("time must be numeric and strictly increasing; sort the dataset by time")
    if numbers.size < 3:
        raise DatasetError(
            f"{var!r} has {numbers.size} points in time, of which a plateau needs at least 3; give "
            "the whole curve"
        )
    if values.chunks is not None:
        values = values.chunk(time=-1)
    return values, time.astype(np.float64).reset_coords(drop=True)


def _find(
    values: Array, time: Array, status: int, *, tolerance: float, size: int, is_loss: bool
) -> tuple[Array, Array, Array, Array, int]:
    """Plateaus of one trajectory; see `plateaus`."""
    start, stop, level, left = (np.full(size, np.nan) for _ in range(4))
    keep = np.isfinite(values) & (time >= 0)
    if keep.sum() < 3 or status == FAILED:
        return start, stop, level, left, 0
    time, values, noise = _binned(time[keep], values[keep])
    spread = np.ptp(values)
    band = tolerance * max(spread, 0.01 * np.abs(values).max()) + 3.0 * noise.max(initial=0.0)
    centre, peaks = _transitions(time, values, noise, band)

    rows = []
    for k, before in enumerate(centre):
        last = k == len(centre) - 1
        peak = len(time) - 1 if last else peaks[k]
        previous = 0 if k == 0 else peaks[k - 1]
        if last:
            settled = is_loss and np.abs(values[-1]) <= band
            # a loss still on its way to zero changes by a fraction of itself
            change = min(0.25 * band, tolerance * abs(values[-1])) if is_loss else 0.25 * band
            if settled or status == CONVERGED or not _flat_at_end(time, values, noise[-1], change):
                break
            before = len(time) - 1
        near = np.abs(values - values[before]) <= band
        low = before
        while low > previous and near[low - 1]:
            low -= 1
        high = before
        while high < peak and near[high + 1]:
            high += 1
        rows.append(
            (
                _edge(time, values, low, -1, values[before], band),
                time[-1] if last else _edge(time, values, high, 1, values[before], band),
                values[before],
                0.0 if last else 1.0,
            )
        )
    for k, row in enumerate(rows[:size]):
        start[k], stop[k], level[k], left[k] = row
    return start, stop, level, left, len(rows)


def _binned(time: Array, values: Array) -> tuple[Array, Array, Array]:
    """Median in bins of log time, and its standard error; t = 0 stays a point of its own."""
    noise = 0.0
    if len(time) >= 5:
        x = np.arange(len(time)) if time[0] == time[-1] else time
        weight = (x[1:-1] - x[:-2]) / (x[2:] - x[:-2])
        residual = values[1:-1] - (values[:-2] + weight * (values[2:] - values[:-2]))
        scale = np.sqrt(1.0 + weight**2 + (1.0 - weight) ** 2)
        noise = 1.4826 * float(np.median(np.abs(residual) / scale))
    positive = time > 0
    key = np.full(len(time), -(2**31))
    key[positive] = np.floor(BINS_PER_DECADE * np.log10(time[positive])).astype(int)
    edges = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
    counts = np.diff(edges, append=len(key))
    if counts.max() == 1:
        return time, values, np.full(len(time), noise)
    middle = np.array([np.median(part) for part in np.split(values, edges[1:])])
    moments = np.array([part.mean() for part in np.split(time, edges[1:])])
    return moments, middle, 1.25 * noise / np.sqrt(counts)


def _transitions(
    time: Array, values: Array, noise: Array, band: float
) -> tuple[list[int], list[int]]:
    """Slowest points and the fastest between them; the first point and the end included."""
    step = np.diff(time)
    jitter = 4.0 * np.maximum(noise[1:], noise[:-1])
    floor = np.maximum(1e-9 * band, jitter) / step
    floor = np.maximum.accumulate(floor[::-1])[::-1]  # uneven steps must not look like peaks
    speed = np.log(np.maximum(np.abs(np.diff(values)) / step, floor))
    peaks, _ = find_peaks(speed, prominence=np.log(PROMINENCE))
    kept: list[int] = []
    centre = [0]
    bounds = [*(int(peak) for peak in peaks), len(speed)]
    for peak, following in pairwise(bounds):
        quiet = speed[peak + 1 : following]
        after = min(peak + 2 + int(np.argmin(quiet)) if len(quiet) else peak + 1, len(values) - 1)
        if abs(values[after] - values[centre[-1]]) > 2.0 * band:
            kept.append(peak)
            centre.append(after)
    return centre, kept


def _flat_at_end(time: Array, values: Array, noise: float, change: float) -> bool:
    """Whether the last factor of two in time changes nothing, so that it is no slow decay."""
    return bool(np.ptp(values[time >= 0.5 * time[-1]]) <= change + 4.0 * noise)


def _edge(time: Array, values: Array, at: int, way: int, level: float, band: float) -> float:
    """Time at which the band is crossed beyond a point, interpolated in log time."""
    beyond = at + way
    if not 0 <= beyond < len(time):
        return float(time[at])
    inside, outside = abs(values[at] - level), abs(values[beyond] - level)
    if outside <= band or time[min(at, beyond)] <= 0:
        return float(time[at])
    share = (band - inside) / (outside - inside)
    return float(time[at] * (time[beyond] / time[at]) ** share)
