"""Measured saddles beside predicted ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from .. import validation
from ..errors import DatasetError
from ..schema import LEVELS
from ..simulation.by_recipe import by_recipe
from ..simulation.joining import only
from ..simulation.recipe import Recipe
from .plateaus import Scale
from .saddles import saddles
from .theory import has_theory, predictions

__all__ = ["as_dimension", "comparable", "compare", "measured", "summary"]

Array = NDArray[np.float64]

_PLACES = ("level", "direction")
NEEDED = ("loss", "crossing_time", "status", "gram0", "initial")
MEASURED = ("loss", "escape_time", "censored", "trapped")


def compare(ds: xr.Dataset) -> xr.Dataset:
    """Hold the measured saddles of each run against the predicted ones.

    Saddles are matched by the number of directions learned; saddles that only one side knows are
    kept, with NaN on the other. One that the theory says is never left, as where a run is trapped,
    is where the run ends and counts as none.

    Parameters
    ----------
    ds : xarray.Dataset
        With what `saddles` and `theory` need.

    Returns
    -------
    xarray.Dataset
        Dims of the runs and ``saddle``, the number of directions learned there: ``loss``,
        ``loss_theory`` (at the times of `ds`, at the same place between the beginning and the end
        of the stay), ``escape_time``, ``escape_time_theory``, ``ratio`` (measured / predicted),
        ``exponent`` (information exponent), ``censored`` (the run is cut off there), ``trapped``
        (it ends there for good), ``match`` (in both); and ``failed`` (dims of the runs: it has no
        saddles). Attributes as of `theory`. Lazy where `ds` is.

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
    validation.dataset(ds)
    return by_recipe(only(ds, *NEEDED), _compared)


def _compared(ds: xr.Dataset, recipe: Recipe) -> xr.Dataset:
    """`compare` for the runs of one recipe."""
    found = saddles(ds)
    crossing = ds.get("crossing_time")
    if crossing is not None:
        crossing = crossing.sel(level=list(LEVELS)).drop_vars(
            ["level", "direction"], errors="ignore"
        )
    predicted = predictions(ds, recipe, crossing=crossing)
    if "visited" not in found:
        raise DatasetError(
            "compare matches saddles by the directions learned, which need the variable "
            "'crossing_time', as mids.simulate and mids.from_trajectories(correlation=...) write it"
        )
    how = predicted.attrs
    left = np.isfinite(predicted["escape_time"])
    parts = dict(found[list(MEASURED)].items())
    for name in ("loss", "escape_time"):
        parts[f"{name}_theory"] = predicted[name].where(left)
    parts["exponent"] = predicted["exponent"].where(left)
    parts["ratio"] = parts["escape_time"] / parts["escape_time_theory"]
    parts["match"] = found["visited"] & predicted["visited"] & left
    parts["failed"] = found["failed"]
    names = {
        "loss": "measured loss on the plateau",
        "loss_theory": "predicted loss on the plateau",
        "escape_time": "measured escape time",
        "escape_time_theory": "predicted escape time",
        "ratio": "measured over predicted escape time",
        "exponent": "information exponent relative to them",
        "censored": "whether the run is cut off on the plateau",
        "trapped": "whether the run is trapped on the plateau",
        "match": "whether the saddle is both measured and predicted",
        "failed": "whether the run failed",
    }
    out = xr.Dataset({name: parts[name] for name in names})
    for key, variable in out.data_vars.items():
        variable.attrs = {"long_name": names[str(key)], "units": "1"}
    return out.transpose(..., "saddle", missing_dims="ignore").assign_attrs(how)


def comparable(ds: xr.Dataset) -> bool:
    """Tell whether a dataset has what `compare` needs: crossing times, start and target."""
    return "crossing_time" in ds and has_theory(ds)


def measured(ds: xr.Dataset, *, scale: Scale | None = None, confidence: float = 0.95) -> xr.Dataset:
    """Measured saddles alone, for `summary`: by directions learned, or by level if unknown."""
    found = saddles(ds, scale=scale, confidence=confidence)
    return found[[*MEASURED, "failed"]].drop_vars("level", errors="ignore")


def as_dimension(ds: xr.Dataset, name: str) -> xr.Dataset:
    """Return a dataset that has a dimension, of one entry where it had a single value."""
    if name in ds.dims:
        return ds
    along = ds[name].dims if name in ds.coords else ()
    if along:
        other = str(along[0])
        several = isinstance(ds.indexes.get(other), pd.MultiIndex)
        how = f"unstack({other!r})" if several else f"swap_dims({{{other!r}: {name!r}}})"
        raise DatasetError(
            f"{name!r} must be a dimension, but is a coordinate along {other!r}; use ds.{how}"
        )
    return ds.expand_dims(name)


def summary(comparison: xr.Dataset) -> pd.DataFrame:
    """One row per dimension and saddle, and label of other dims; medians over runs."""
    for name in ("dim", "run"):
        comparison = as_dimension(comparison, name)
    further = [str(name) for name in comparison.dims if name not in ("dim", "run", "saddle")]
    if further:
        name = further[0]
        tables = []
        for k in range(comparison.sizes[name]):
            here = comparison.isel({name: k})
            table = summary(here.drop_vars(name, errors="ignore"))
            table.insert(0, name, here[name].item() if name in here.coords else k)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)
    comparison = comparison.transpose("dim", "run", "saddle")
    alone = "loss_theory" not in comparison
    if alone:
        unknown = xr.full_like(comparison["loss"], np.nan)
        comparison = comparison.assign(dict.fromkeys(_THEORY, unknown))
    rows = []
    for d in range(comparison.sizes["dim"]):
        for j in range(comparison.sizes["saddle"]):
            here = comparison.isel(dim=d, saddle=j)
            censored, trapped = here["censored"].values, here["trapped"].values
            visited = censored | np.isfinite(here["escape_time"].values)
            expected = np.isfinite(here["loss_theory"].values)
            failed = here["failed"].values
            if not (visited | trapped | expected).any() and not failed.all():
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
                    "runs": int((visited | trapped | expected).sum()),
                    "censored": int(censored.sum()),
                    "trapped": int(trapped.sum()),
                    "unmatched": int(((visited != expected) & ~failed).sum()),
                    "failed": int(failed.sum()),
                }
            )
    table = pd.DataFrame(rows)
    return table.drop(columns=[*_THEORY[1:], "unmatched"], errors="ignore") if alone else table


_THEORY = ("loss_theory", "escape_time_theory", "ratio")


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
