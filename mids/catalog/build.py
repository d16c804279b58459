"""A catalog from a list of sweeps: the same file of sweeps gives the same catalog."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .. import validation
from ..errors import InputError
from ..simulation.simulate import from_spec
from .catalog import open_catalog
from .index import check_key

SETTINGS = ("date", "defaults", "dataset", "points_per_decade")


def build(
    spec: Mapping[str, Any], folder: Path, *, only: Sequence[str] = ()
) -> Iterator[tuple[str, float]]:
    """Simulate the sweeps of a specification and put them into a catalog, one after the other."""
    for name in spec:
        validation.one_of(name, SETTINGS, "setting of a build")
    sweeps = spec.get("dataset")
    if not isinstance(sweeps, Mapping) or not sweeps or "date" not in spec:
        raise InputError("a build needs date = 2026-01-01 and a table [dataset.KEY] for each sweep")
    for key in only:
        validation.one_of(key, sweeps, "dataset of the build")
    keys = list(only) or list(sweeps)
    points = spec.get("points_per_decade")
    lazy = {
        check_key(key): _sweep({**spec.get("defaults", {}), **sweeps[key]}, points) for key in keys
    }
    catalog = open_catalog(folder, create=True)
    for key, ds in lazy.items():
        started = time.perf_counter()
        # In memory first: blocks written as they come would lie in the file in any order.
        catalog.add(_dated(ds.compute(), str(spec["date"])), key=key, overwrite=True)
        yield key, time.perf_counter() - started


def _sweep(arguments: dict[str, Any], points_per_decade: object) -> xr.Dataset:
    texts = {name: arguments.pop(name) for name in ("title", "summary") if name in arguments}
    ds = from_spec(arguments)
    if "time" not in arguments and points_per_decade is not None:
        grid = _thinned(ds["time"].values, points_per_decade)
        ds = from_spec({**arguments, "time": grid.tolist()})
    return ds.assign_attrs(texts)


def _thinned(grid: np.ndarray, points_per_decade: object) -> np.ndarray:
    """Thin a logarithmic grid to `points_per_decade`, its start and its end."""
    kept = validation.integer(points_per_decade, "points_per_decade", at_least=1)
    positions = np.log10(grid[1:]) * kept
    chosen = np.abs(positions - np.round(positions)) < 1e-6
    chosen[-1] = True
    return np.concatenate([grid[:1], grid[1:][chosen]])


def _dated(ds: xr.Dataset, date: str) -> xr.Dataset:
    """Return a dataset with a fixed date, so that the same sweep gives the same file."""
    made = ds.attrs["date_created"]
    history = ds.attrs["history"].replace(made, date)
    return ds.assign_attrs(date_created=date, history=history)
