"""Plateaus of trajectories, from the curve alone.

On a plateau a trajectory slows down and then speeds up again. A curve that only slows down, such
as an exponential or a power law, has none, however flat it looks on a logarithmic axis; where it
ends it has converged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .. import validation
from ..errors import DatasetError, InputError
from ..schema import LEVELS
from .noise import is_smooth, noise
from .staircase import Fit, believed, bins, staircase
from .stretches import COLUMNS, Stretches, read, stretches

__all__ = ["Scale", "plateaus"]

Array = NDArray[np.float64]
Scale = Literal["log", "linear"]

CONVERGED, TRAPPED, FAILED = 0, 2, 3
EXACT = 1e-4
"""Noise, as a share of the change that counts, below which a curve is taken as it is."""
LEAST = 1e-3
"""Share of the range below which changes of a loss do not count, however small it has become."""
SMALL = 4.0
"""Ratio of the range to a value of a loss from which on it is the value that counts."""
FINE = 96.0
"""Bins per decade of curves without noise."""
FITTED = 2.0
"""Factor by which a transition of a fitted curve has to be faster, or to be seen in the data."""
RUNS = 2048
"""Curves at a time, so that work arrays stay small."""
WIDE = 100.0
"""Ratio of the last to the first time from which on the scale is logarithmic by default."""


def plateaus(
    ds: xr.Dataset,
    var: str = "loss",
    *,
    scale: Scale | None = None,
    confidence: float = 0.95,
    tolerance: float = 0.02,
    contrast: float = 2.0,
    max_plateaus: int = 8,
) -> xr.Dataset:
    r"""Find the plateaus of trajectories.

    A plateau is a level that is left again by speeding up in time; or, marked by ``left = False``,
    the level on which the trajectory is cut off. A curve that only slows down, such as an
    exponential or a power law, has none, however flat it looks on a logarithmic axis. The level to
    which a run has converged is not a plateau: that of a loss that is zero within the tolerance, or
    of status 0, where crossing times or overlaps show that it was reached before the last time (a
    dataset cut in time keeps its status). A loss alone that ends level above zero may have
    converged or not: it is counted, as is that of a trapped run (status 2).

    Curves without noise (monotone ones, and those that bend smoothly) are taken as they are. Noise
    is estimated: its size, additive and multiplicative, from the deviations of points from their
    neighbours; the correlation of neighbouring points, of an AR(1) process, with the fit itself. A
    noisy curve is replaced by a changepoint model, fitted by penalised likelihood: a constant, and
    a sum of few sigmoids in the chosen scale of time, each of which ends a plateau, and of decays
    (exponentials, powers, ramps), which do not. The sigmoids must beat the best sum of decays alone
    at the given `confidence`, or the curve has no plateau that is left; where that is close and the
    noise does not last, curves drawn anew of these decays decide. A loss that is zero within its
    noise has none, either. Several runs of a noisy curve help each other: the evidence of the
    others is added to that of each, within bounds.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable and a coordinate ``time``, in any units, from 0 or later.
    var : str
        Any variable with the dimension ``time``.
    scale : {"log", "linear"}, optional
        Scale of time in which falls have a width and levels are flat. By default logarithmic where
        the times extend over a factor of 100 or more. The attribute ``scale`` of the result says
        which.
    confidence : float
        One minus the share of noisy curves without plateaus in which one may be found.
    tolerance : float
        Half-width of a level, as a fraction of the range of the variable in each run, and for a
        loss of its value where that is smaller; plateaus that differ by less than twice that are
        one.
    contrast : float
        A transition is at least so many times faster than the plateaus beside it.
    max_plateaus : int
        Size of the dimension ``plateau``.

    Returns
    -------
    xarray.Dataset
        Dims as `var` with ``plateau`` for ``time``, padded with NaN: ``start`` and ``stop`` (times
        at which the trajectory, or the curve fitted to it, enters and leaves the level within the
        tolerance), ``decades`` (their ratio in decades, a start at 0 counted from the first
        positive time), the level under the name of the variable, ``halfway_time`` (when it is
        halfway to the next level; NaN where the data end before), ``left``, ``entered`` (False
        where the data begin on the plateau after time 0: its start is unknown); and
        ``n_plateaus``, ``n_missing`` (points left out: not finite, or before time 0) and ``failed``
        (status 3: the run has none). Lazy where `ds` is.

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
    if not isinstance(var, str):
        raise InputError(f"var must be the name of a variable, got {validation.shown(var)}")
    max_plateaus = validation.integer(max_plateaus, "max_plateaus", at_least=1, at_most=1000)
    options = _Options(
        scale=chosen_scale(scale, ds),
        confidence=validation.number(confidence, "confidence", above=0.0, at_most=1.0 - 1e-9),
        tolerance=validation.number(tolerance, "tolerance", above=0.0, at_most=0.5),
        contrast=validation.number(contrast, "contrast", above=1.0),
        to_zero=var in ("loss", "risk"),
        # Where nothing but the curve is known.
        together="run" in ds.get(var, xr.DataArray()).dims and "crossing_time" not in ds,
    )
    values, time = _trajectory(ds, var)
    failed, converged = _status(ds, float(time[-1]))
    together = options.together
    if together and values.chunks is not None:
        # Runs help each other: all of them have to be in one block.
        values = values.chunk(run=-1)
    core = ["run"] if together else []
    flags = [
        flag.broadcast_like(values["run"]) if together else flag
        for flag in (
            failed,
            converged,
            ds["status"] == TRAPPED if "status" in ds else xr.DataArray(False),
        )
    ]
    columns = xr.apply_ufunc(
        _find,
        values,
        time,
        *flags,
        input_core_dims=[[*core, "time"], ["time"], core, core, core],
        output_core_dims=[[*core, "column", "plateau"]],
        exclude_dims={"time"},
        dask="parallelized",
        kwargs={"options": options, "size": max_plateaus},
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
    out = out.transpose(
        *(d for d in values.dims if d != "time"), ..., "plateau", missing_dims="ignore"
    )
    return out.assign_attrs(scale=options.scale)


def chosen_scale(scale: str | None, ds: xr.Dataset) -> Scale:
    """Return the scale of time that was asked for, or the one that the range of times suggests."""
    if scale in ("log", "linear"):
        return scale  # type: ignore[return-value]
    if scale is not None:
        raise InputError(
            f"scale must be 'log', 'linear' or None, got {validation.shown(scale)}; None takes "
            "'log' where the times extend over a factor of 100 or more"
        )
    time: Any = ds["time"].values if "time" in ds.coords and ds["time"].dtype.kind in "biuf" else []
    positive = np.asarray(time, dtype=np.float64)
    positive = positive[positive > 0]
    wide = len(positive) > 0 and positive.max() >= WIDE * positive.min()
    return "log" if wide else "linear"


@dataclass(frozen=True)
class _Options:
    """How plateaus are sought."""

    scale: Scale
    confidence: float
    tolerance: float
    contrast: float
    to_zero: bool
    together: bool = False

    def floor(self, values: Array) -> Array:
        """Return the changes that count, at each point of curves (runs, time)."""
        size = np.abs(values)
        spread = np.ptp(values, axis=1, keepdims=True)
        spread = np.maximum(spread, LEAST * size.max(axis=1, keepdims=True))
        if not self.to_zero:
            return np.asarray(self.tolerance * spread * np.ones_like(values))
        # Late plateaus of a loss are low: once it is small its own size counts.
        return np.asarray(self.tolerance * np.clip(SMALL * size, LEAST * spread, spread))


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
    failed: NDArray[np.bool_],
    converged: NDArray[np.bool_],
    trapped: NDArray[np.bool_],
    *,
    options: _Options,
    size: int,
) -> Array:
    """Columns of plateaus, and their number, (..., column, plateau) of curves (..., time)."""
    shape = values.shape[:-1]
    curves = np.asarray(values, dtype=np.float64).reshape(-1, values.shape[-1])
    failed, converged, trapped = (
        np.broadcast_to(flag, shape).ravel() for flag in (failed, converged, trapped)
    )
    out = np.full((len(curves), len(COLUMNS) + 1, size), np.nan)
    out[:, -1] = 0
    usable = _usable(curves, time) & ~failed[:, None]
    usable[usable.sum(axis=1) < 3] = False
    exponents = np.frexp(np.abs(np.where(usable, curves, 0.0)).max(axis=1))[1][:, None]
    scaled = np.ldexp(curves, -exponents)  # squares neither overflow nor vanish
    fits = _fits(time, scaled, usable, options)
    # One run is helped by the others.
    stepping = np.zeros(len(curves), dtype=bool)
    together = shape[-1] if options.together else 1
    group = np.array([row // together for row in fits])
    evidence = np.array([fit.evidence for fit in fits.values()])
    for index in np.unique(group):
        own = group == index
        stepping[np.array(list(fits))[own]] = believed(evidence[own])
    for block, keep in _alike(usable):
        noisy = np.isin(block, list(fits))
        parts: list[tuple[Any, ...]] = []
        if not noisy.all():
            rows = block[~noisy]
            starts = bins(time[keep], options.scale, FINE)
            counts = np.diff(starts, append=keep.sum())
            curve = np.add.reduceat(scaled[np.ix_(rows, keep)], starts, axis=1) / counts
            at = np.add.reduceat(time[keep], starts) / counts
            parts.append((rows, at, curve, options.floor(curve), []))
        if noisy.any():
            rows = block[noisy]
            chosen = [fits[row] for row in rows]
            curve = np.stack(
                [
                    fit.stepping if stepping[row] else fit.decaying
                    for row, fit in zip(rows, chosen, strict=True)
                ]
            )
            band = np.maximum(options.floor(curve), [fit.errors for fit in chosen])
            parts.append((rows, chosen[0].time, curve, band, chosen))
        for rows, at, curve, band, noisy_fits in parts:
            slow = stretches(at, curve, band, options.contrast)
            for run, fit in enumerate(noisy_fits):
                _seen(fit, curve[run], slow, run, options.contrast)
            columns = read(at, curve, band, slow, options.scale, options.contrast)
            count = slow.count
            for k in np.flatnonzero(slow.open):
                # Where the data end is a plateau for a run cut off there, not for a converged one.
                row, last = rows[k], count[k] - 1
                level = trapped[row] or _is_level(
                    at, curve[k], int(slow.low[k, last]), float(band[k, -1]), options
                )
                if (converged[row] and not trapped[row]) or not level:
                    columns[k, :, last] = np.nan
                    count[k] -= 1
            if options.to_zero and noisy_fits:
                # A loss that is zero within its noise does not leave that level again.
                done = np.logical_or.accumulate(np.abs(columns[:, 2]) <= band[:, -1:], axis=1)
                columns = np.where(done[:, None], np.nan, columns)
                count = count - (done & (np.arange(done.shape[1]) < count[:, None])).sum(axis=1)
            most = min(columns.shape[2], size)
            columns[:, 2] = np.ldexp(columns[:, 2], exponents[rows])
            out[rows, :-1, :most] = columns[:, :, :most]
            out[rows, -1] = count[:, None]
    return out.reshape(*shape, *out.shape[1:])


def _alike(usable: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """Blocks of the curves (runs, time) that were measured at the same times, and these."""
    rows = np.flatnonzero(usable.any(axis=1))
    if not len(rows):
        return
    masks, which = np.unique(np.packbits(usable[rows], axis=1), axis=0, return_inverse=True)
    for group in range(len(masks)):
        members = rows[which.ravel() == group]
        for at in range(0, len(members), RUNS):
            yield members[at : at + RUNS], usable[members[0]]


def _fits(
    time: Array, values: Array, usable: NDArray[np.bool_], options: _Options
) -> dict[int, Fit]:
    """Fits to the noisy ones of curves (runs, time), by row."""
    fits = {}
    for block, keep in _alike(usable):
        part = values[np.ix_(block, keep)]
        for at in np.flatnonzero(~is_smooth(part)):
            points = noise(time[keep], part[at])
            floor = options.floor(part[at : at + 1])[0]
            if (points > EXACT * floor).any():
                fits[int(block[at])] = staircase(
                    time[keep], part[at], floor, points, options.scale, options.confidence
                )
    return fits


def _seen(fit: Fit, curve: Array, found: Stretches, run: int, contrast: float) -> None:
    """Take out stretches of a fitted curve (bins,) that only the terms of the fit may show.

    A transition is kept that is much faster than the plateau beside it, or if the data show it.
    """
    speeds, n = np.abs(np.diff(curve) / np.diff(fit.time)), len(curve)
    low, high = found.low[run], found.high[run]

    def slowest(k: int) -> int:
        return int(low[k] + np.argmin(speeds[low[k] : max(high[k] - 1, low[k] + 1)]))

    # From the end, since taking one out moves those after it.
    for k in reversed(range(found.count[run])):
        at, last = slowest(k), k == found.count[run] - 1
        least = FITTED * contrast * speeds[at]
        fall, rise = speeds[max(low[k] - 1, 0) : at + 1].max(), speeds[at : high[k]].max()
        left, end = not last or found.falling[run], n if last else slowest(k + 1) + 1
        if left and rise < least and not fit.bends(low[k], end, 1):
            if last:
                high[k], found.open[run], found.falling[run] = n, True, False
            else:
                found.without(run, k, (low[k], low[k]))
        elif low[k] > 0 and fall < least and k == 0:
            low[k] = 0
        elif low[k] > 0 and fall < least and not fit.bends(slowest(k - 1), high[k] + 1, -1):
            found.without(run, k, (high[k], high[k]) if rise > fall else (low[k], low[k]))


def _is_level(time: Array, values: Array, low: int, zero: float, options: _Options) -> bool:
    """Whether a curve ends level, from the point `low` on, and not at zero where that is its end.

    Shapes: time, values (n,).
    """
    end = float(np.median(values[time >= 0.5 * time[-1]]))
    spread = max(float(np.ptp(values)), LEAST * float(np.abs(values).max()))
    band = options.tolerance * spread
    if options.to_zero and abs(end) <= max(band, zero):
        return False
    off = np.flatnonzero(np.abs(values - values[-1]) > band)
    low = max(low, int(off[-1]) + 1 if len(off) else 0)
    low += int(time[low] == 0)
    x, late = np.log10(time[low:]), values[low:]
    # Less than a factor of 2 in time does not tell a level from a slow fall.
    if len(x) < 3 or x[-1] - x[0] < np.log10(2.0):
        return False
    slope = abs(np.polyfit(x, late, 1)[0])
    positive = time[time > 0]
    # Level is what falls, in log time, at 0.3 of the mean slope of the curve at most.
    allowed = 0.3 * np.ptp(values) / np.log10(positive[-1] / positive[0])
    if options.to_zero:
        allowed = min(allowed, 0.1 * abs(end))
    if slope > max(allowed, 0.25 * band / (x[-1] - x[0])):
        return False
    # One slope may hide a fall that begins late: the last thirds must agree as well.
    middle, final = np.array_split(late, 3)[1:]
    return bool(abs(middle.mean() - final.mean()) <= 0.25 * band)


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
