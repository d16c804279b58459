"""The saddles of a run: the plateaus it leaves again, and the one on which it is cut off."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import xarray as xr

from .. import validation
from ..errors import DatasetError
from ..schema import LEVELS
from ..simulation.by_recipe import by_recipe
from ..simulation.recipe import Recipe, has_recipes, only
from ..validation import FloatArray as Array
from .kernels import applied, labelled
from .noise import averaged, noise
from .plateaus import Scale, increasing_time, plateaus
from .prediction import level, visits

CONVERGED, TRAPPED, FAILED = 0, 2, 3
SADDLE = {"long_name": "directions learned at the saddle", "units": "1"}


def saddles(ds: xr.Dataset, *, scale: Scale | None = None, confidence: float = 0.95) -> xr.Dataset:
    """Find the saddles that each run visits.

    With crossing times in the dataset, as `mids.simulate` writes them, saddle j, at which j
    directions are learned, lasts from
    the overlap of direction j reaching 0.9 to that of direction j + 1 reaching 0.1, and it is
    escaped when the latter reaches 1/2: exact times, whatever the grid. A run that starts beyond
    0.1 does not visit it. Without crossing times the saddles are the `plateaus` of the loss,
    escaped when the loss is halfway to the next one. Those of different runs (and dims) are
    matched by their levels, the closest first. Two plateaus of one run are never matched, nor
    levels farther apart than a third of the typical gap within a run. With three runs or more, a
    level that only one of them shows is no saddle; ``n_unmatched`` counts these.

    A loss shows fewer saddles than there are directions where it does not slow down in between:
    directions learned within one step of the grid or one fall (leaps 3, 2, 1: the second plateau is
    a fraction 1/d of the first, as for parity; staircases with s = 1: escapes 0.1 to 0.3 decades
    apart need some 16 points per decade, more where the loss is noisy), and a first direction
    learned at a rate that is largest at the start (planted, s = 1). At d of 1e2 directions also
    begin to be learned before they are alone.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``loss`` over ``time``, or ``crossing_time``.
    scale, confidence
        As for `plateaus`; only curves without crossing times need them.

    Returns
    -------
    xarray.Dataset
        Dims of the runs and ``saddle``, NaN where there is none: with crossing times the number of
        directions learned, a coordinate; without them
        the order of the matched levels, whose medians are the coordinate ``level``.
        ``loss`` (where it changes least in logarithmic time on the plateau, between the points of
        the grid on either side; the first value on the first plateau; averaged over what noise
        blurs; NaN where no time of the grid falls into it), ``visited`` (whether the run
        visits it; only with crossing times), ``enter_time`` (NaN where the data begin later),
        ``escape_time`` (NaN where it is not left), ``duration`` (their difference), ``censored``
        (the run is cut off there or on its way to the next), ``trapped`` (status 2: it ends there
        for good);
        ``n_saddles`` and ``failed`` (status 3: the run has none), on curves alone also
        ``n_missing`` (points left out) and ``n_unmatched``. The attribute ``method`` says where the
        times come from.
        Lazy where `ds` is.

    Raises
    ------
    DatasetError
        If there is neither, levels of the crossing times have been left out, or time does not
        increase.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=1e4, runs=1)
    >>> found = saddles(ds).compute()
    >>> found.saddle.values.tolist(), found.visited.values.ravel().tolist()
    ([0, 1], [True, True])
    """
    validation.dataset(ds)
    known = "crossing_time" in ds
    if not ("time" in ds["loss"].dims if "loss" in ds else known):
        raise DatasetError(
            "saddles needs a variable 'loss' with the dimension 'time', or 'crossing_time'; the "
            f"dataset has {', '.join(map(str, ds.data_vars)) or 'no variables'}: rename yours with "
            "ds.rename(...)"
        )
    if "loss" in ds or "time" in ds.coords:
        increasing_time(ds)
    if not known:
        found = _from_curve(ds, scale, confidence)
    elif has_recipes(ds):  # directions that a target lacks are no saddles
        needed = only(ds, "loss", "crossing_time", "status")
        found = by_recipe(needed, _from_crossings, of=())
    else:
        found = _from_crossings(ds)
    names = {
        "loss": "loss on the plateau",
        "visited": "whether the run visits the saddle",
        "enter_time": "time at which the saddle is reached",
        "escape_time": "time at which it is left",
        "duration": "time spent there",
        "censored": "whether the run is cut off there",
        "trapped": "whether the run is trapped there",
        "n_saddles": "number of saddles",
        "failed": "whether the run failed, and has none",
        "n_missing": "points of the curve left out",
        "n_unmatched": "plateaus whose level no other run shows",
    }
    return labelled(found, names).transpose(..., "saddle", missing_dims="ignore")


def _from_crossings(ds: xr.Dataset, _: Recipe | None = None) -> xr.Dataset:
    crossing = ds["crossing_time"]
    if "direction" not in crossing.dims or not np.isin(LEVELS, crossing["level"].values).all():
        raise DatasetError(
            f"saddles needs 'crossing_time' with the dimension 'direction' and the levels "
            f"{LEVELS}, but it has the dims {crossing.dims} and the levels "
            f"{crossing['level'].values.tolist()}; select directions with a list and leave the "
            "levels as they were, or drop 'crossing_time' to read the loss alone"
        )
    crossing = crossing.sel(level=list(LEVELS)).drop_vars(["level", "direction"], errors="ignore")
    status = _status(ds)
    if "loss" in ds:
        loss = ds["loss"]
        time = ds["time"].reset_coords(drop=True)
    else:  # the times of the saddles are known all the same
        time = (
            ds["time"].reset_coords(drop=True)
            if "time" in ds.coords
            else xr.DataArray([np.inf], dims="time")
        )
        unknown = xr.full_like(time, np.nan, dtype=np.float64)
        loss = unknown.broadcast_like(crossing.isel(direction=0, level=0, drop=True))
    columns = applied(
        _visited,
        loss,
        time,
        crossing,
        status,
        core=[["time"], ["time"], ["direction", "level"], []],
        out=[["column", "saddle"]],
        sizes={"column": 5, "saddle": ds.sizes["direction"]},
    )
    flat, rank, enter, escape, cut = (columns.isel(column=k, drop=True) for k in range(5))
    visited = rank.notnull()
    count = visited.sum("saddle")
    out = xr.Dataset(
        {
            "loss": flat,
            "visited": visited,
            "enter_time": enter,
            "escape_time": escape,
            "duration": escape - enter,
            **_ends(cut == 1.0, status),
            "n_saddles": count,
            "failed": (count < 0) | (status == FAILED),
        }
    )
    return with_saddles(out).assign_attrs(method="crossing times")


def with_saddles(ds: xr.Dataset) -> xr.Dataset:
    """Label saddles by the number of directions learned there."""
    saddle = xr.Variable("saddle", np.arange(ds.sizes["saddle"]), SADDLE)
    return ds.assign_coords(saddle=saddle)


def _status(ds: xr.Dataset) -> xr.DataArray:
    return ds["status"] if "status" in ds else xr.DataArray(np.int8(-1))


def _ends(cut: xr.DataArray, status: xr.DataArray) -> dict[str, xr.DataArray]:
    """Tell runs that are cut off from those that are trapped where they end."""
    return {"censored": cut & (status != TRAPPED), "trapped": cut & (status == TRAPPED)}


def _visited(loss: Array, time: Array, crossing: Array, status: Array) -> Array:
    """Level, rank, enter and escape time and whether it is the end, for a block of runs."""
    shape, rank = crossing.shape[:-2], crossing.shape[-2]
    crossing = crossing.reshape(-1, *crossing.shape[-2:])
    status = np.broadcast_to(status, shape).ravel()
    loss = np.broadcast_to(loss, (*shape, len(time))).reshape(-1, len(time))
    noisy = np.any(np.diff(loss, axis=-1) > 0, axis=-1)  # no flow climbs
    out = np.full((len(crossing), 5, rank), np.nan)
    here = status != FAILED
    # Data that begin late do not say when what is learned at once was learned.
    early = (crossing == time[0]) & (time[0] > 0)
    for k in range(rank):
        enter = np.zeros(len(crossing)) if k == 0 else crossing[:, k - 1, -1]
        since = np.where(early[:, k - 1, -1], np.nan, enter) if k else enter
        leave = np.where(early[:, k, 0], 0.0, crossing[:, k, 0])
        escape = crossing[:, k, 1]
        cut = np.isnan(escape)
        # A run that has converged there has fewer students than directions.
        here = here & ~np.isnan(enter) & ~(cut & (status == CONVERGED))
        stop = np.where(np.isnan(leave), time[-1], leave)
        # If it is not visited, it is learned together with the direction before.
        runs = np.flatnonzero(here & visits(enter, stop))
        flat = np.array(level(time, loss[runs], enter[runs], stop[runs]))
        for at in np.flatnonzero(noisy[runs]):
            run = runs[at]
            flat[at] = _averaged(flat[at], time, loss[run], enter[run], stop[run])
        columns = flat, np.full(len(runs), k), since[runs], escape[runs], cut[runs]
        out[runs, :, k] = np.stack(columns, axis=1)
    return out.reshape(*shape, 5, rank)


def _averaged(level: float, time: Array, loss: Array, enter: float, stop: float) -> float:
    """Average a level over the part of the plateau that noise blurs."""
    known = np.isfinite(loss)
    time, loss = time[known], loss[known]
    errors = noise(time, loss)
    inside = (time >= enter) & (time <= stop)
    return averaged(level, loss[inside], errors[inside])


def _from_curve(ds: xr.Dataset, scale: Scale | None, confidence: float) -> xr.Dataset:
    """Find plateaus of the loss, and match them by level."""
    found = plateaus(ds, scale=scale, confidence=confidence).rename(plateau="saddle")
    runs = [name for name in ("dim", "run") if name in found["loss"].dims]
    loss = found["loss"]
    if loss.chunks is not None:
        # Levels are matched between all runs and dims, which have to be in one block.
        loss = loss.chunk(dict.fromkeys([*runs, "saddle"], -1))
    index = xr.apply_ufunc(
        _matched,
        loss,
        input_core_dims=[[*runs, "saddle"]],
        output_core_dims=[[*runs, "saddle"]],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64],
    )
    # Of a plateau on which the data begin, the start is not known.
    enter = found["start"].where(found["entered"])
    columns = xr.concat(
        [found["loss"], enter, found["halfway_time"]], "column", coords="minimal", compat="override"
    )
    size = found.sizes["saddle"]
    core = [["saddle"], ["saddle"]]
    placed = applied(_put, columns, index, core=core, out=[["saddle"]])
    level, enter, escape = (placed.isel(column=k, drop=True) for k in range(3))
    over = [name for name in level.dims if name in runs]
    out = xr.Dataset(
        {
            "loss": level,
            "enter_time": enter,
            "escape_time": escape,
            "duration": escape - enter,
            **_ends(level.notnull() & escape.isnull(), _status(ds)),
            "n_saddles": level.notnull().sum("saddle"),
            "n_unmatched": (index < 0).sum("saddle"),
            "n_missing": found["n_missing"],
            "failed": found["failed"],
        }
    )
    medians = level.chunk(dict.fromkeys(over, -1)) if level.chunks is not None else level
    if over:
        known = medians.notnull().any(over)
        # The median of nothing would warn: a zero stands in for it.
        medians = medians.where(known, 0.0).median(over).where(known)
    return out.assign_coords(
        saddle=np.arange(size),
        level=medians,
    ).assign_attrs(method="curve", scale=found.attrs["scale"])


def _matched(levels: Array) -> Array:
    """Index of each plateau (..., saddle) among shared levels; -1 if no other run has its level."""
    rows = levels.reshape(-1, levels.shape[-1])
    run, at = np.nonzero(np.isfinite(rows))
    values = rows[run, at]
    apart = np.abs(np.diff(rows, axis=1))
    apart = apart[np.isfinite(apart)]
    reach = np.inf if not len(apart) else float(np.median(apart)) / 3.0
    # Levels in the order of time: from the top if the curves fall.
    falls = np.diff(rows, axis=1)
    falling = np.nansum(np.where(np.isfinite(falls), falls, 0.0)) <= 0
    order = np.argsort(-values if falling else values, kind="stable")
    groups = [[int(k)] for k in order]
    while len(groups) > 1:
        # Neighbours merge, the closest first, unless both hold a plateau of the same run.
        centres = np.array([np.median(values[group]) for group in groups])
        gaps = np.abs(np.diff(centres))
        owners = [set(run[group].tolist()) for group in groups]
        for k in np.flatnonzero([bool(a & b) for a, b in pairwise(owners)]):
            gaps[k] = np.inf
        closest = int(np.argmin(gaps))
        if gaps[closest] > reach:
            break
        groups[closest : closest + 2] = [groups[closest] + groups[closest + 1]]
    several = len(np.unique(run)) >= 3
    out = np.full(rows.shape, np.nan)
    index = 0
    for group in groups:
        alone = several and len(group) == 1
        out[run[group], at[group]] = -1 if alone else index
        index += not alone
    return out.reshape(levels.shape)


def _put(columns: Array, index: Array) -> Array:
    """Put values (..., saddle) at their indices."""
    columns, index = np.broadcast_arrays(columns, index)
    out = np.full(columns.shape, np.nan)
    known = np.isfinite(index) & (index >= 0) & (index < columns.shape[-1])
    at = np.nonzero(known)
    out[(*at[:-1], index[known].astype(np.int64))] = columns[known]
    return out
