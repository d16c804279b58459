"""The accessor ``ds.mi``: the functions of the package as methods of a Dataset."""

from __future__ import annotations

import os
from collections.abc import Hashable
from html import escape
from typing import Any

import numpy as np
import xarray as xr

from . import analysis, io, plot, schema
from .errors import DatasetError
from .flows.base import Flow
from .ladder import leaps
from .simulate import flow_of, replay, target_of
from .targets import Target

__all__ = ["MultiIndexAccessor", "PlotAccessor", "describe"]

_NEXT = {
    "saddles": "the plateaus that are left again, with the times of escape",
    "compare": "measured escape times beside the theory's",
    "scaling": "growth of the escape times with d",
    "plot.loss": "the staircase of the loss",
    "to_netcdf": "write a file that mids.open_dataset reads",
}


def describe(ds: xr.Dataset) -> str:
    """Return what a dataset holds, in a few lines, without computing anything lazy.

    Parameters
    ----------
    ds : xarray.Dataset
        Any dataset.

    Returns
    -------
    str
        Target, flow, sizes, how the runs ended if that is in memory, and what to call next.

    Examples
    --------
    >>> from mids import simulate
    >>> print(describe(simulate("h1(z1) + h1(z1)*h3(z2)", dim=[100, 1e6], runs=8)))
    multi-index dataset (schema 1)
      target     1.0*h1(z1) + 1.0*h1(z1)h3(z2): rank 2, leaps 1 -> 3: log d, d^2
      flow       two-timescale, student rank 2, rtol 1e-08
      sweep      dim 100, 1000000; 8 runs; seed 0; 425 times up to 1.2e+24
      variables  loss, overlap, energy, gram0, crossing_time, status, n_steps, n_rhs: lazy, 0.4 MB
      next       .saddles() .compare() .scaling() .plot.loss() .to_netcdf()
    """
    title, rows = _description(ds)
    return "\n".join([title, *(f"  {name:<9}  {text}" for name, text in rows)])


def _description(ds: xr.Dataset) -> tuple[str, list[tuple[str, str]]]:
    version = ds.attrs.get("mids_schema")
    if version is None:
        return "not a dataset of mids", [
            ("missing", "the attribute mids_schema"),
            ("next", "mids.from_trajectories(...) makes one from any trajectories"),
        ]
    rows = []
    try:
        spec = schema.spec(ds)
        target = target_of(ds)
        rows.append(
            ("target", f"{target.name or target}: rank {target.rank}, leaps {leaps(target)}")
        )
        flow = dict(spec["flow"])
        given = ", ".join(f"{name} {value}" for name, value in flow.items() if name != "name")
        rows.append(
            (
                "flow",
                f"{flow['name']}{given and f' ({given})'}, student rank {spec['student_rank']}, "
                f"rtol {spec['rtol']:g}",
            )
        )
        seed = f"seed {spec['seed']}; "
    except (DatasetError, KeyError):
        seed = ""
    sizes = ds.sizes
    dims = ", ".join(f"{dim}" for dim in np.atleast_1d(ds["dim"].values)) if "dim" in ds else "?"
    until = f" up to {float(ds['time'][-1]):.2g}" if sizes.get("time") else ""
    rows.append(
        (
            "sweep",
            f"dim {dims}; {sizes.get('run', 1)} runs; {seed}{sizes.get('time', 0)} times{until}",
        )
    )
    where = "in memory" if all(map(_in_memory, ds.data_vars.values())) else "lazy"
    rows.append(
        ("variables", f"{', '.join(map(str, ds.data_vars))}: {where}, {ds.nbytes / 1e6:.1f} MB")
    )
    if "status" in ds and _in_memory(ds["status"]):
        counts = np.bincount(ds["status"].values.ravel(), minlength=len(schema.STATUS))
        ended = ", ".join(
            f"{n} {meaning}" for n, meaning in zip(counts, schema.STATUS, strict=False) if n
        )
        rows.append(("runs", ended))
    rows.append(("next", " ".join(f".{name}()" for name in _NEXT)))
    return f"multi-index dataset (schema {version})", rows


def _in_memory(array: xr.DataArray) -> bool:
    # xarray has no public test that tells an array read from a file from one still in it.
    return array.variable._in_memory


class PlotAccessor:
    """The plots of a dataset, ``ds.mi.plot``."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def loss(self, **options: Any) -> Any:
        """Plot the staircase of the loss beside the theory: `mids.plot.loss`."""
        return plot.loss(self._ds, analysis.compare(self._ds), **options)


@xr.register_dataset_accessor("mi")
class MultiIndexAccessor:
    """The functions of `mids` as methods: ``ds.mi.saddles()`` is ``mids.saddles(ds)``."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @property
    def target(self) -> Target:
        """The target of the dataset."""
        return target_of(self._ds)

    @property
    def flow(self) -> Flow:
        """The flow that made the dataset."""
        return flow_of(self._ds)

    @property
    def plot(self) -> PlotAccessor:
        """The plots: ``ds.mi.plot.loss()`` and others."""
        return PlotAccessor(self._ds)

    def describe(self) -> str:
        """Return what the dataset holds: `mids.describe`."""
        return describe(self._ds)

    def validate(self) -> None:
        """Check the dataset against the schema: `mids.validate`."""
        return schema.validate(self._ds)

    def plateaus(self, var: Hashable = "loss", **options: Any) -> xr.Dataset:
        """Find the plateaus of a variable: `mids.plateaus`."""
        return analysis.plateaus(self._ds, var, **options)

    def saddles(self) -> xr.Dataset:
        """Find the plateaus that are left again: `mids.saddles`."""
        return analysis.saddles(self._ds)

    def theory(self) -> xr.Dataset:
        """Predict the saddles from the initial conditions: `mids.theory`."""
        return analysis.theory(self._ds)

    def compare(self) -> xr.Dataset:
        """Hold the measured saddles against the theory: `mids.compare`."""
        return analysis.compare(self._ds)

    def scaling(self) -> xr.Dataset:
        """Fit the growth of the escape times with d: `mids.scaling`."""
        return analysis.scaling(self._ds)

    def replay(self) -> xr.Dataset:
        """Simulate the dataset again: `mids.replay`."""
        return replay(self._ds)

    def to_netcdf(self, path: str | os.PathLike[str]) -> None:
        """Write the dataset to a file: `mids.to_netcdf`."""
        return io.to_netcdf(self._ds, path)

    def __repr__(self) -> str:
        """Say what the dataset is and what can be called."""
        return describe(self._ds)

    def _repr_html_(self) -> str:
        title, rows = _description(self._ds)
        cells = "".join(
            f"<tr><th style='text-align: left'>{escape(name)}</th>"
            f"<td style='text-align: left'>{escape(text)}</td></tr>"
            for name, text in rows
        )
        return f"<div><b>{escape(title)}</b><table>{cells}</table></div>"
