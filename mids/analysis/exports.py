"""Logs of training runs - tables, series, rows - as curves on common times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["as_numpy", "curves_of", "is_log"]

Array = NDArray[np.float64]

EXPORTS = {"_step": "a W&B history", "Step": "a TensorBoard export"}
"""Columns of steps by which known exports are recognised."""
LOSSES = {"loss", "train_loss", "train/loss", "Value"}
BESIDE = {"_step", "_runtime", "_timestamp", "lr", "epoch", "Step", "Wall time"}
"""Columns of known exports that hold no loss."""


def as_numpy(value: Any) -> Any:
    """Return tensors of torch, of any type and on any device, as arrays; all else as it is."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        return value.detach().cpu().double().numpy()
    return value


def is_log(value: Any) -> bool:
    """Tell whether a value is a table of columns, rows of a log, or several curves with times."""
    if isinstance(value, pd.DataFrame):
        return any(isinstance(column, str) for column in value.columns)
    if isinstance(value, Mapping):
        return True
    return (
        isinstance(value, Sequence)
        and len(value) > 0
        and all(isinstance(part, pd.Series | pd.DataFrame | Mapping) for part in value)
    )


def curves_of(data: Any, loss: str | None, time: str | None) -> tuple[Array, Array]:
    """Return times (n,) and losses (run, n) of a log, NaN where a run was not measured."""
    if isinstance(data, pd.DataFrame):
        parts = [data]
    elif isinstance(data, Mapping):
        if not data:
            raise InputError("the log has no runs; pass a dict with one Series for each run")
        parts = list(data.values())
        if not all(isinstance(part, pd.Series | pd.DataFrame) for part in parts):
            parts = [pd.DataFrame(data)]
    elif all(isinstance(part, Mapping) for part in data):
        parts = [pd.DataFrame(list(data))]
    else:
        parts = list(data)
    series = [part if isinstance(part, pd.Series) else _column(part, loss, time) for part in parts]
    for k, curve in enumerate(series):
        if not pd.api.types.is_numeric_dtype(curve.index):
            raise InputError(
                f"run {k} has the index {curve.index[:2].tolist()}, which are no times; give each "
                "Series its times as index, or tables and time='name of the column'"
            )
        if curve.index.has_duplicates:
            raise InputError(
                f"run {k} has time {curve.index[curve.index.duplicated()][0]} twice; keep one of "
                "its values, for example with series[~series.index.duplicated(keep='last')]"
            )
    times = np.unique(np.concatenate([curve.index.to_numpy(dtype=np.float64) for curve in series]))
    out = np.full((len(series), len(times)), np.nan)
    for row, curve in zip(out, series, strict=True):
        values = pd.to_numeric(curve, errors="coerce").to_numpy(dtype=np.float64)
        # What a diverged run gives after it has left the numbers is no measurement.
        row[np.searchsorted(times, curve.index.to_numpy(dtype=np.float64))] = np.where(
            np.isfinite(values), values, np.nan
        )
    return times, out


def _column(table: pd.DataFrame, loss: str | None, time: str | None) -> pd.Series:
    """Return the loss of a table with its times as index; columns are given or of known exports."""
    columns = [str(name) for name in table.columns]
    if time is None:
        steps = [name for name in columns if name in EXPORTS]
        if len(steps) != 1:
            raise InputError(
                f"the table has the columns {columns}, and no known export names its times so; "
                "pass time='name of the column'"
            )
        time = steps[0]
    if loss is None:
        rest = [name for name in columns if name not in BESIDE and name != time]
        known = [name for name in rest if name in LOSSES]
        if len(known) != 1 or len(rest) > 1:
            raise InputError(
                f"the table has the columns {columns}, of which {rest} may be the loss; pass "
                "loss='name of the column'"
            )
        loss = known[0]
    for name, what in ((time, "time"), (loss, "loss")):
        if name not in columns:
            raise InputError(
                f"there is no column {name!r} for the {what}; the table has {columns}; pass one "
                f"of them as {what}="
            )
    # Rows of a log that hold other quantities have no loss.
    rows = table[[time, loss]].dropna(subset=[time])
    rows = rows[rows[loss].notna()]
    return pd.Series(rows[loss].to_numpy(), index=rows[time].to_numpy())
