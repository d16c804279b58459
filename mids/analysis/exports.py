"""Logs of training runs - tables, series, rows - as curves on common times."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .. import validation
from ..errors import InputError
from ..validation import FloatArray as Array

EXPORTS = {"_step": "a W&B history", "Step": "a TensorBoard export"}
"""Columns of steps by which known exports are recognised."""
LOSSES = {"loss", "train_loss", "train/loss", "Value"}
BESIDE = {"_step", "_runtime", "_timestamp", "lr", "epoch", "Step", "Wall time"}
"""Columns of known exports that hold no loss."""
CHART = re.compile(r"(?P<run>.+) - (?P<what>[^-]+)")  # columns of a chart of W&B: run - quantity
FORMS = (
    "a log is a table, a list of rows (dicts), or a list or dict of tables, rows or Series, one "
    "for each run"
)


def is_log(value: Any) -> bool:
    """Tell whether a value is a table of columns, rows of a log, or several curves with times."""
    if isinstance(value, pd.DataFrame):
        return any(isinstance(column, str) for column in value.columns)
    return isinstance(value, Mapping) or _is_list(value, _is_part)


def curves_of(
    data: Any, loss: str | None, time: str | None
) -> tuple[Array, Array, list[int] | None]:
    """Return times (n,), losses (run, n) of a log, NaN where not measured, and labels of runs."""
    labels, parts = _parts(data)
    series: list[pd.Series] = []
    for part in parts:
        series += [part] if isinstance(part, pd.Series) else _columns(_table(part), loss, time)
    if not series:
        raise InputError("the log has no run; pass the table, rows or Series of at least one")
    times, values = zip(*(_curve(k, curve) for k, curve in enumerate(series)), strict=True)
    common = np.unique(np.concatenate(times))
    out = np.full((len(series), len(common)), np.nan)
    for row, at, known in zip(out, times, values, strict=True):
        row[np.searchsorted(common, at)] = known
    return common, out, labels


def numbers(values: Any, name: str) -> Array:
    """Return measured values, NaN where there is none: missing, or no longer finite."""
    given = validation.as_numpy(values)
    try:
        array = np.asarray(given)
    except ValueError:
        raise InputError(
            f"{name} must be an array of real numbers, got {validation.shown(given)}; pass a NumPy "
            "array, or runs of different lengths as a list with their times: loss=[a, b], "
            "time=[t, u]"
        ) from None
    if array.dtype.kind in "OUT" and array.ndim:
        read = [_read(value) for value in array.ravel().tolist()]
        # The None keeps NumPy from taking entries that are lists for a further axis.
        array = np.array([*read, None], dtype=object)[:-1].reshape(array.shape)
        gaps = [isinstance(value, float) and not np.isfinite(value) for value in read]
        missing = np.array(gaps, dtype=bool).reshape(array.shape)
    else:
        missing = ~np.isfinite(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
    known = validation.finite_array(np.where(missing, 0.0, array), name)
    return np.where(missing, np.nan, known)


def _read(value: Any) -> Any:
    """Return a number where a log has text such as "NaN", NaN where it has nothing."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return np.nan if value is None or value is pd.NA or value is pd.NaT else value


def _is_list(value: Any, of: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and len(value) > 0
        and all(map(of, value))
    )


def _is_row(value: Any) -> bool:
    return isinstance(value, Mapping) and all(np.ndim(entry) == 0 for entry in value.values())


def _is_part(value: Any) -> bool:
    """Tell whether a value may hold one run."""
    return isinstance(value, pd.Series | pd.DataFrame | Mapping) or _is_list(value, _is_row)


def _parts(data: Any) -> tuple[list[int] | None, list[Any]]:
    """Return the runs of a log one by one, and their labels where these are whole numbers."""
    if isinstance(data, pd.DataFrame) or _is_list(data, _is_row):
        return None, [data]
    if not isinstance(data, Mapping):
        return None, list(data)
    if not data:
        raise InputError("the log has no runs; pass a dict with one Series for each run")
    runs = [_is_part(part) for part in data.values()]
    if any(runs) and not all(runs):
        raise InputError(f"some entries of the dict are runs and others are not; {FORMS}")
    if not any(runs):
        return None, [data]
    labels = list(data)
    whole = all(isinstance(label, int | np.integer) for label in labels)
    return labels if whole else None, list(data.values())


def _table(part: Any) -> pd.DataFrame:
    try:
        return part if isinstance(part, pd.DataFrame) else pd.DataFrame(part)
    except ValueError as error:
        raise InputError(f"a table of a run cannot be read ({error}); {FORMS}") from None


def _curve(run: int, curve: pd.Series) -> tuple[Array, Array]:
    """Return times and values of a run."""
    if curve.name in BESIDE:
        raise InputError(
            f"run {run} is the column {curve.name!r}, which holds no loss; leave it out"
        )
    if not pd.api.types.is_numeric_dtype(curve.index):
        raise InputError(
            f"run {run} has the index {validation.shown(curve.index[:2].tolist())}, which are no "
            "times; give each Series its times as index, or tables and time='name of the column'"
        )
    if curve.index.has_duplicates:
        raise InputError(
            f"run {run} has time {curve.index[curve.index.duplicated()][0]} twice; keep one of its "
            "values, for example with series[~series.index.duplicated(keep='last')]; a table of "
            "several runs is taken apart by the column that names them: "
            "dict(list(table.groupby('run')))"
        )
    values = numbers(curve.to_numpy(), f"loss of run {run}")
    if not np.isfinite(values).any():
        raise InputError(
            f"the loss of run {run} has no number, all its entries are missing; leave that run out"
        )
    return curve.index.to_numpy(dtype=np.float64), values


def _columns(table: pd.DataFrame, loss: str | None, time: str | None) -> list[pd.Series]:
    """Return the losses of a table with its times as index; columns are given or of exports."""
    columns = [str(name) for name in table.columns]
    shown = f"the table has the columns {columns}"
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise InputError(
            f"{shown}, {twice[0]!r} twice; keep one: table.loc[:, ~table.columns.duplicated()]"
        )
    if time is None:
        steps = [name for name in columns if name in EXPORTS]
        if len(steps) != 1:
            raise InputError(
                f"{shown}, of which {steps or 'none'} are those of steps in known exports; pass "
                "time='name of the column'"
            )
        time = steps[0]
    rest = [name for name in columns if name not in BESIDE and name != time]
    losses = [loss] if loss is not None else [name for name in rest if name in LOSSES]
    # One known name alone is clear; several columns are a chart, or for the user to say.
    if loss is None and (len(losses) != 1 or len(rest) > 1):
        losses = _of_chart(rest)
        if not losses:
            raise InputError(
                f"{shown}, of which {rest} may be the loss; pass loss='name of the column'"
            )
    for name, what in ((time, "time"), *((each, "loss") for each in losses)):
        if name not in columns:
            raise InputError(
                f"there is no column {name!r} for the {what}; {shown}; pass one of them as {what}="
            )
    if time in losses:
        raise InputError(f"the column {time!r} is named as time and as loss; {shown}")
    found = []
    for name in losses:
        # Rows of a log that hold other quantities have no loss.
        rows = table[[time, name]].dropna()
        found.append(pd.Series(rows[name].to_numpy(), index=pd.Index(rows[time].to_numpy())))
    return found


def _of_chart(columns: list[str]) -> list[str]:
    """Columns of the runs in a chart of losses that W&B exports; none if it is no such chart."""
    # W&B adds columns of minima and maxima.
    middle = [name for name in columns if not name.endswith(("__MIN", "__MAX"))]
    found = [CHART.fullmatch(name) for name in middle]
    whats = {match["what"] for match in found if match}
    bounds = {f"{name}__{end}" for name in middle for end in ("MIN", "MAX")}
    whole = all(found) and set(columns) <= set(middle) | bounds
    return middle if whole and len(whats) == 1 and whats <= LOSSES else []
