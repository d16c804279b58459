"""Trajectories from outside - other simulations, real training runs - as datasets of the schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from .. import schema, validation
from ..errors import InputError
from ..simulation.recipe import Recipe
from ..targets.target import Target, as_target
from ..validation import FloatArray, IntArray
from .exports import BESIDE, FORMS, curves_of, is_log, numbers

Trajectories: TypeAlias = ArrayLike | pd.Series | pd.DataFrame | xr.DataArray

LEADING = ("dim", "run", "time")
CORE = {
    "loss": (),
    "overlap": ("direction",),
    "correlation": ("axis", "student"),
}
ROUNDING = 1e-6
RUN = re.compile(r"(run|seed|trial)[ _-]?\d+", re.IGNORECASE)  # columns that are runs
TIMES = {"t", "time", "step", "steps", "epoch", "epochs", "iteration", "iterations"}
"""Names of columns, in small letters, that hold no loss."""


def from_trajectories(
    data: Any = None,
    *,
    time: ArrayLike | str | None = None,
    loss: Trajectories | str | None = None,
    overlap: Trajectories | None = None,
    correlation: Trajectories | None = None,
    dim: ArrayLike | None = None,
    run: ArrayLike | None = None,
    target: Target | str | None = None,
    learning_rate: float | None = None,
    half: bool = False,
) -> xr.Dataset:
    r"""Make a dataset of the schema from trajectories that were not made by `mids.simulate`.

    Every analysis that has enough information works on it; the others say what they lack:
    `plateaus` needs any trajectory, `saddles` and `scaling` the loss or the overlaps, `theory` and
    `compare` the correlation matrices from time 0 on and the target.

    Arrays have the time on the axis before those of the matrix or vector, with runs and then
    dimensions in front: a loss has shape (time,), (run, time) or (dim, run, time). A DataArray has
    the dims ``dim``, ``run``, ``time``, and ``direction`` for overlaps or ``axis`` and ``student``
    for correlation matrices, in any order. A Series has the time as its index; a DataFrame too,
    with runs (loss) or directions (overlap) as columns. Labels found there are used where the
    argument is not given. Tensors of torch and JAX are arrays, whatever their type and device.

    Runs with times of their own are given as a list or dict of Series, as lists of arrays
    (``loss=[a, b], time=[t, u]``), or as logs, `data`. A log is a table, a list of rows (dicts), or
    a list or dict of these, one for each run; the columns of W&B histories (``_step``) and charts
    and of TensorBoard (``Step``) are known, others are named with `time` and `loss`. Points at
    which a run was not measured, or no longer finite, are NaN.

    Parameters
    ----------
    data : DataFrame, or list or dict of DataFrame, Series or rows, optional
        Logs, instead of `loss`.
    time : array_like, optional
        1-D, at least 2 points, not negative, strictly increasing. Times of the flow, or steps
        multiplied by the learning rate, if they are to be compared with theory.
    loss : array_like, Series, DataFrame or DataArray, optional
        Shape (..., time). With the factor 1/2 if it is to be compared with theory. NaN where it was
        not measured: the analyses leave those points out and count them.
    overlap : array_like, DataFrame or DataArray, optional
        Squared cosines of the principal angles, shape (..., time, rank). Any order of directions.
    correlation : array_like or DataArray, optional
        Correlation matrices :math:`M(t) = W_*^T W(t)` of shape (..., time, rank, student_rank)
        between orthonormal frames. The overlaps are the eigenvalues of ``M M^T``.
    dim : int or sequence of int, optional
        Ambient dimensions d, one for each entry of the first axis. Without it the dataset has no
        dimension ``dim``; what needs it (`scaling`, `theory`, `compare`, files) asks for it.
    run : int or sequence of int, optional
        Indices of the runs; 0, 1, ... if not given.
    target : Target or str, optional
        What was learned; text is for `Target.parse`, which does not scale it to unit norm.
    learning_rate : float, optional
        By which the times, then steps, are multiplied.
    half : bool
        Whether the loss lacks the factor 1/2, and is halved.

    Returns
    -------
    xarray.Dataset
        In memory: ``loss`` and ``overlap`` as given; ``crossing_time``, from the overlaps by linear
        interpolation in log time between the points of the grid (NaN if never; the first time where
        the trajectory starts beyond the level); ``gram0``, if the correlation matrices start at
        time 0. There is no ``status``: from outside nobody knows whether a run has converged.

    Raises
    ------
    InputError
        If nothing is given, shapes or labels disagree, the time does not increase, an overlap is
        outside [0, 1], an overlap is not finite or a whole loss missing, a column is unknown, or
        the dimension has no room for the directions.

    Examples
    --------
    >>> import numpy as np
    >>> time = np.linspace(0, 60, 601)
    >>> ds = from_trajectories(time=time, loss=0.25 - 0.25 * np.tanh((time - 30) / 2), dim=50)
    >>> dict(ds.sizes)
    {'dim': 1, 'run': 1, 'time': 601}
    >>> import mids
    >>> round(float(mids.saddles(ds).escape_time[0, 0, 0]))
    30
    """
    half = validation.flag(half, "half")
    loss, time, found = _unpacked(data, loss, time)
    run = found if run is None else run
    overlap, correlation = validation.as_numpy(overlap), validation.as_numpy(correlation)
    given = {"loss": loss, "overlap": overlap, "correlation": correlation}
    labels: dict[str, Any] = {"dim": dim, "run": run, "time": time}
    arrays = {
        name: _array(value, name, labels) for name, value in given.items() if value is not None
    }
    if not arrays:
        raise InputError(
            "from_trajectories got no trajectories; pass at least one of loss=, overlap= and "
            "correlation="
        )
    if "overlap" in arrays and "correlation" in arrays:
        raise InputError(
            "overlap= and correlation= were both given, but the overlaps follow from the "
            "correlation matrices; pass one of them"
        )
    target = None if target is None else as_target(target)
    empty = [f"{name} {array.shape}" for name, array in arrays.items() if not array.size]
    if empty:
        raise InputError(f"there are no trajectories in {', '.join(empty)}; pass at least one run")
    shape = _common_shape(arrays)
    # One dimension of unknown size d keeps its axis to the end, where it is dropped.
    unknown = labels["dim"] is None and shape[0] == 1
    coords = _coordinates(labels | ({"dim": 1} if unknown else {}), shape)
    if learning_rate is not None:
        coords["time"] = coords["time"] * validation.number(
            learning_rate, "learning_rate", above=0.0
        )
    if half and "loss" not in arrays:
        raise InputError("half=True halves the loss, but no loss was given; leave it out")

    if not unknown:
        _check_room(arrays, int(coords["dim"].min()))
    variables: dict[str, FloatArray] = {}
    if "loss" in arrays:
        variables["loss"] = 0.5 * arrays["loss"] if half else arrays["loss"]
    if "correlation" in arrays:
        matrices = arrays["correlation"]
        variables["overlap"] = _checked(_squared_cosines(matrices), "correlation")
        if coords["time"][0] == 0:
            first = matrices[:, :, 0]
            if not first.any(axis=(-2, -1)).all():
                raise InputError(
                    "the correlation matrix of a run is 0 at time 0: a student orthogonal to all "
                    "directions never moves; record it after the initialisation of its weights"
                )
            variables["gram0"] = first @ first.swapaxes(-1, -2)
    elif "overlap" in arrays:
        variables["overlap"] = _checked(arrays["overlap"], "overlap")
    if "overlap" in variables:
        rank = variables["overlap"].shape[-1]
        if target is not None and target.rank != rank:
            raise InputError(
                f"the trajectories have {rank} directions, but the target has rank {target.rank}; "
                "give one overlap, or one row of the correlation matrix, for each of its variables"
            )
        variables["crossing_time"] = _crossing_times(coords["time"], variables["overlap"])
        coords |= {"direction": np.arange(rank), "level": np.array(schema.LEVELS)}
    ds = _dataset(variables, coords, target, "" if unknown else _at_dims(coords["dim"]))
    return ds.isel(dim=0, drop=True) if unknown else ds


def _unpacked(data: Any, loss: Any, time: Any) -> tuple[Any, Any, list[int] | None]:
    """Return loss and times as arrays, out of a log where one is given, and its labels of runs."""
    names = (
        loss if isinstance(loss, str) else None,
        time if isinstance(time, str) else None,
    )
    if data is None and any(names):
        raise InputError(
            "loss and time as text name columns of a log; pass it first: "
            "from_trajectories(table, loss='train/loss', time='_step')"
        )
    if data is not None:
        if isinstance(data, xr.Dataset) or not is_log(data):
            raise InputError(
                f"{FORMS}, got {type(data).__name__}; pass arrays as loss=, overlap= or "
                "correlation="
            )
        if (loss is not None and names[0] is None) or (time is not None and names[1] is None):
            raise InputError(
                "the log has its own loss and times; pass the names of its columns as loss= and "
                "time=, or arrays without a log"
            )
        times, curves, runs = curves_of(data, *names)
        return curves, times, runs
    several = isinstance(loss, Mapping | list | tuple) and is_log(loss)
    if not several and _own_times(loss, time):
        own = [validation.finite_array(each, "time") for each in time]
        loss, time, several = _paired(own, list(loss)), None, True
    if several and time is None:
        times, curves, runs = curves_of(loss, None, None)
        return curves, times, runs
    return validation.as_numpy(loss), validation.as_numpy(time), None


def _own_times(loss: Any, time: Any) -> bool:
    """Tell whether losses are a sequence of runs, each with times of its own."""
    objects = isinstance(time, np.ndarray) and time.dtype.hasobject
    return (
        (objects or isinstance(time, list | tuple))
        and isinstance(loss, list | tuple | np.ndarray)
        and all(validation.shape(validation.as_numpy(each)) != () for each in time)
    )


def _paired(times: list[FloatArray], losses: list[Any]) -> list[pd.Series]:
    """Return runs as Series over their own times."""
    if len(times) != len(losses):
        raise InputError(
            f"there are times of {len(times)} runs and losses of {len(losses)}; pass one list of "
            "times for each run"
        )
    curves = []
    for k, (at, loss) in enumerate(zip(times, losses, strict=True)):
        values = numbers(loss, f"loss of run {k}")
        if at.ndim != 1 or values.shape != at.shape:
            raise InputError(
                f"run {k} has {values.shape} losses at {at.shape} times; pass as many of both"
            )
        curves.append(pd.Series(values, index=at))
    return curves


def _array(value: Any, name: str, labels: dict[str, Any]) -> FloatArray:
    """Return values with the dims (dim, run, time, ...); labels found are added to `labels`."""
    core = CORE[name]
    dims: tuple[str, ...] = (*LEADING, *core)
    if isinstance(value, xr.Dataset):
        raise InputError(f"{name} is a Dataset; pass one of its variables, such as ds[{name!r}]")
    if isinstance(value, xr.DataArray):
        unknown = [str(d) for d in value.dims if d not in dims]
        lacking = [d for d in dims[2:] if d not in value.dims]
        if unknown or lacking:
            free = [d for d in ("run", "dim") if d not in value.dims]
            raise InputError(
                f"{name} has the dims ({', '.join(map(str, value.dims))}), but must have "
                f"({', '.join(dims)}), where dim and run may be left out; rename them with "
                f".rename({{{(unknown or ['...'])[0]!r}: {(lacking or free or ['...'])[0]!r}}})"
            )
        for label in LEADING:
            if label in value.coords:
                _label(labels, label, value[label].values, name)
        value = value.expand_dims([d for d in dims if d not in value.dims]).transpose(*dims)
        return _numbers(value.values, name)
    if isinstance(value, pd.Series | pd.DataFrame):
        if labels["time"] is None:
            labels["time"] = value.index.to_numpy()
        if isinstance(value, pd.DataFrame) and name == "loss":
            times = [column for column in value.columns if str(column).lower() in TIMES]
            beside = [column for column in value.columns if column in BESIDE]
            if beside:
                raise InputError(
                    f"loss has a column {beside[0]!r}, which is no run; pass the table first and "
                    "name its columns: from_trajectories(table, loss=..., time=...)"
                )
            if times:
                raise InputError(
                    f"loss has a column {times[0]!r}, but a DataFrame must have the time as its "
                    f"index and a column for each run; pass loss.set_index({times[0]!r})"
                )
            if pd.api.types.is_integer_dtype(value.columns):
                labels["run"] = value.columns.to_numpy() if labels["run"] is None else labels["run"]
            elif not all(RUN.fullmatch(str(column)) for column in value.columns):
                raise InputError(
                    f"loss has the columns {validation.shown(list(map(str, value.columns)))}, and "
                    "a column of text may be anything; pass the loss alone, loss=table['name'], or "
                    "runs as columns 0, 1, ..., or 'run 0', 'run 1', ..."
                )
            value = value.T
        value = value.to_numpy()
    array = _numbers(value, name)
    fewest = 1 + len(core)
    if not fewest <= array.ndim <= len(dims):
        raise InputError(
            f"{name} must have the axes (dim, run, {', '.join(dims[2:])}), of which dim and run "
            f"may be left out, got shape {array.shape}"
        )
    return array.reshape((1,) * (len(dims) - array.ndim) + array.shape)


def _numbers(value: Any, name: str) -> FloatArray:
    """Return finite numbers, or NaN where a loss has gaps."""
    if name != "loss" or not validation.is_finite(value):
        return validation.finite_array(value, name)
    array = numbers(value, name)
    if array.size and np.isnan(array).all():
        raise InputError("loss has no number, all its entries are missing; pass measured values")
    return array


def _label(labels: dict[str, Any], label: str, found: Any, name: str) -> None:
    """Keep a label that a DataArray carries, which must agree with what is known."""
    if labels[label] is None:
        labels[label] = found
    elif not np.array_equal(np.atleast_1d(labels[label]), np.atleast_1d(found)):
        raise InputError(
            f"the coordinate {label!r} of {name} differs from the {label} given otherwise; "
            f"align the trajectories, or drop it with .drop_vars({label!r})"
        )


def _common_shape(arrays: dict[str, FloatArray]) -> tuple[int, ...]:
    shapes = {name: array.shape[:3] for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(f"the sizes (dim, run, time) must be the same for all, got {listed}")
    return next(iter(shapes.values()))


def _coordinates(labels: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    if labels["dim"] is None:
        raise InputError(
            "dim is missing: pass the ambient dimension d, the number of inputs of the network, "
            "for example dim=100"
        )
    if labels["time"] is None:
        raise InputError(
            "time is missing: pass time=, or a pandas or xarray object that carries it"
        )
    time = validation.finite_array(labels["time"], "time")
    if time.ndim != 1 or time.size < 2:
        raise InputError(f"time must be 1-D with at least 2 points, got shape {time.shape}")
    falls = np.flatnonzero(np.diff(time) <= 0)
    if falls.size or time[0] < 0:
        i = int(falls[0]) if falls.size else 0
        what = f"{time[i]:g} is followed by {time[i + 1]:g}" if falls.size else f"it is {time[0]:g}"
        raise InputError(
            f"time must not be negative and must strictly increase, but at position {i} {what}; "
            "sort the trajectories and remove repeated times"
        )
    coords: dict[str, Any] = {
        "dim": _integers(labels["dim"], "dim", at_least=1),
        "run": np.arange(shape[1])
        if labels["run"] is None
        else _integers(labels["run"], "run", at_least=0),
        "time": time,
    }
    for name, size in zip(LEADING, shape, strict=True):
        if len(coords[name]) != size:
            raise InputError(
                f"{name} has {len(coords[name])} entries, but the trajectories have {size} along "
                f"it (their sizes are {dict(zip(LEADING, shape, strict=True))}); check the order "
                "of the axes, dim, run, time first"
            )
    return coords


def _integers(value: Any, name: str, *, at_least: int) -> IntArray:
    entries = np.atleast_1d(value if validation.is_finite(value) else "").ravel()
    numbers = [validation.integer(entry, name, at_least=at_least) for entry in entries]
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{name} has repeated values; list each once")
    if max(numbers, default=0) >= 2**63:
        raise InputError(f"{name} must be below 2**63, got {validation.shown(max(numbers))}")
    return np.array(numbers, dtype=np.int64)


def _check_room(arrays: dict[str, FloatArray], dim: int) -> None:
    """Refuse dimensions in which the directions have no room."""
    for name in arrays.keys() & {"overlap", "correlation"}:
        rank = arrays[name].shape[3]
        if rank > dim:
            raise InputError(
                f"{name} has {rank} directions, but dim is {dim}; pass the number of inputs of the "
                "network as dim="
            )
    students = arrays["correlation"].shape[4] if "correlation" in arrays else 0
    if students >= dim > 1:
        raise InputError(
            f"the correlation matrices have {students} columns and dim is {dim}: a frame of that "
            "many columns spans everything, and nothing is left to learn; keep the leading "
            "directions of a wide layer, mids.overlaps(W, W_star, rank=...)"
        )


def _squared_cosines(matrices: FloatArray) -> FloatArray:
    """Eigenvalues of M M^T, of which rank - student_rank are 0 if that is positive."""
    values = np.linalg.svd(matrices, compute_uv=False) ** 2
    missing = matrices.shape[-2] - values.shape[-1]
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])


def _checked(overlap: FloatArray, name: str) -> FloatArray:
    """Overlaps in descending order, within [0, 1]."""
    worst = overlap.flat[int(np.argmax(np.abs(overlap - 0.5)))]
    if not -ROUNDING <= worst <= 1 + ROUNDING:
        remedy = {
            "overlap": "pass squared cosines of the principal angles",
            "correlation": "it must come from orthonormal frames: orthonormalise the student's "
            "columns (numpy.linalg.qr) and the target's",
        }[name]
        raise InputError(f"{name} gives an overlap of {worst:g}, outside [0, 1]; {remedy}")
    descending: FloatArray = -np.sort(-np.clip(overlap, 0.0, 1.0), axis=-1)
    return descending


def _crossing_times(time: FloatArray, overlap: FloatArray) -> FloatArray:
    """First time at which each overlap (..., time, rank) reaches each level, (..., rank, level)."""
    curves = overlap.swapaxes(-1, -2)[..., None, :]
    levels = np.array(schema.LEVELS)
    beyond = curves >= levels[:, None]
    after = beyond.argmax(-1)
    before = np.maximum(after - 1, 0)
    low, high = (
        np.take_along_axis(curves, at[..., None], axis=-1)[..., 0] for at in (before, after)
    )
    # Part of the way from the point before the level to the one after it.
    share = np.where(high > low, (levels - low) / np.where(high > low, high - low, 1.0), 1.0)
    first, last = time[before], time[after]
    linear = first + share * (last - first)  # where log time is not finite
    logarithmic = last * np.where(first > 0, first / np.where(last > 0, last, 1.0), 1.0) ** (
        1.0 - share
    )
    crossing = np.where(after == 0, time[0], np.where(first > 0, logarithmic, linear))
    return np.where(beyond.any(-1), crossing, np.nan)


def _at_dims(dims: IntArray) -> str:
    listed = ", ".join(map(schema.dim_text, np.ravel(dims).tolist()))
    return f" at each ambient dimension d = {listed}"


def _dataset(
    variables: Mapping[str, np.ndarray], coords: dict[str, Any], target: Target | None, where: str
) -> xr.Dataset:
    given, recorded = list(variables), {}
    if target is not None:
        recipe = Recipe(target)
        recorded[recipe.fingerprint] = recipe.to_dict() | {"versions": {"mids": schema.VERSION}}
        shape = len(coords["dim"]), len(coords["run"]), schema.FINGERPRINT
        same = np.broadcast_to(schema.fingerprint_bytes([recipe.fingerprint]), shape)
        variables = {**variables, "recipe": same}
    learned = "" if target is None else f" on the target {target.name or target}"
    ds = xr.Dataset(
        {
            name: xr.Variable(schema.VARIABLES[name].dims, values, schema.VARIABLES[name].required)
            for name, values in variables.items()
        },
        {
            name: xr.Variable((name,), values, schema.COORDINATES[name].attributes)
            for name, values in coords.items()
        },
        schema.attributes(
            schema.recorded(recorded, {}),
            title=f"Trajectories from outside mids{learned}",
            summary=(
                f"{', '.join(given)} of {len(coords['run'])} "
                f"run{'s' * (len(coords['run']) > 1)}{where}, given to mids."
            ),
            source=f"mids {schema.VERSION}",
            command="from_trajectories()",
        ),
    )
    if "crossing_time" in ds:
        ds["crossing_time"].attrs["comment"] = (
            "interpolated linearly in log time between the points of the time grid"
        )
    schema.validate(ds)
    return ds
