"""The accessor ``ds.mi``: the functions of the package as methods of a Dataset.

They are taken from the package itself, which imports the modules behind them on first use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from html import escape
from typing import Unpack

import numpy as np
import xarray as xr

import mids

from . import schema
from .errors import DatasetError, MidsError
from .flows.base import Flow
from .ladder import leaps
from .plot._facets import Facets, faceted
from .simulate import flow_of, target_of
from .targets import Target

__all__ = ["MultiIndexAccessor", "PlotAccessor", "describe", "description"]

TRAPPED = schema.STATUS.index("trapped")


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
      target     <Target of rank 2, degree 4, norm 1.41421: h1(z1) + h1(z1)h3(z2)>
      leaps      1 -> 3: log d, d^2
      flow       two-timescale, student rank 2, rtol 1e-08, seed 0
      sweep      dim 100, 1e6; 8 runs; 435 times up to 1.2e+24
      variables  9, lazy, 0.3 MB: loss, overlap, energy, gram0, crossing_time, ...
      next       .saddles() .compare() .scaling() .plot.loss() .to_netcdf()
    """
    title, rows = description(ds)
    return "\n".join([title, *(f"  {name:<9}  {text}" for name, text in rows)])


def description(ds: xr.Dataset) -> tuple[str, list[tuple[str, str]]]:
    """Return what `describe` says as a title and rows of a name and a text."""
    version = ds.attrs.get("mids_schema")
    if version is None:
        return "not a dataset of mids", [
            ("missing", "the attribute mids_schema"),
            (
                "next",
                "mids.simulate(...) and mids.open_dataset(...) give one; mids.plateaus takes any",
            ),
        ]
    rows = [*_origin(ds), ("sweep", _sweep(ds))]
    names = [str(name) for name in ds.data_vars]
    where = "in memory" if all(map(_in_memory, ds.data_vars.values())) else "lazy"
    listed = ", ".join([*names[:5], "..."] if len(names) > 5 else names)
    rows.append(("variables", f"{len(names)}, {where}, {in_memory(ds)}: {listed}"))
    if "status" in ds and ds["status"].dtype.kind in "iu" and _in_memory(ds["status"]):
        counts = np.bincount(ds["status"].values.ravel(), minlength=len(schema.STATUS))
        ended = zip(counts, schema.STATUS, strict=True)
        rows.append(("runs", ", ".join(f"{count} {meaning}" for count, meaning in ended if count)))
    rows.append(("next", " ".join(f".{name}()" for name in _next(ds))))
    return f"multi-index dataset (schema {version})", rows


def in_memory(ds: xr.Dataset) -> str:
    """Return how much memory a dataset takes once it is computed, as text."""
    return f"{ds.nbytes / 1e6:.1f} MB" if ds.nbytes >= 1e5 else f"{ds.nbytes / 1e3:.1f} kB"


def _origin(ds: xr.Dataset) -> Iterator[tuple[str, str]]:
    """Describe target and flow, as far as the dataset says what they are."""
    try:
        spec = schema.spec(ds)
    except DatasetError:
        return
    diagram = isinstance(spec.get("phase_diagram"), dict)
    spec = spec["phase_diagram"] if diagram else spec
    if spec.get("target"):
        target = target_of(ds)
        yield "target", repr(target)
        yield "leaps", repr(leaps(target))
    if spec.get("flow"):
        flow = {name: value for name, value in spec["flow"].items() if value and name != "name"}
        shown = [spec["flow"]["name"], *(f"{name} {value}" for name, value in flow.items())]
        for name in ("student_rank", "rtol", "seed"):
            if name in spec and not (diagram and name == "rtol"):
                shown.append(f"{name.replace('_', ' ')} {spec[name]}")
        yield "flow", ", ".join(shown)
    if diagram:
        yield (
            "success",
            f"all directions at an overlap of {spec['level']:g} by time {spec['duration']:.4g}; "
            f"ratio is n / d^{spec['exponent']}",
        )


def _sweep(ds: xr.Dataset) -> str:
    parts = []
    if "dim" in ds.coords:
        parts.append(f"dim {', '.join(map(schema.dim_text, np.ravel(ds['dim'].values).tolist()))}")
    if "n" in ds.coords:
        parts.append(f"n {', '.join(map(str, np.atleast_1d(ds['n'].values)))}")
    runs = ds.sizes.get("run", 1)
    parts.append(f"{runs} run{'s' if runs != 1 else ''}")
    if "time" in ds.dims and "time" in ds.indexes:
        parts.append(f"{ds.sizes['time']} times up to {float(ds.indexes['time'].max()):.2g}")
    return "; ".join(parts)


def _next(ds: xr.Dataset) -> Iterator[str]:
    """Name what to call first, of what the dataset has enough for."""
    if "crossing_time" in ds or "loss" in ds:
        yield "saddles"
        if _comparable(ds):
            yield "compare"
        if ds.sizes.get("dim", 1) > 1:
            yield "scaling"
    if "status" in ds and _in_memory(ds["status"]) and (ds["status"] == TRAPPED).any():
        yield "traps"
    if "loss" in ds:
        yield "plot.loss"
    if "success" in ds:
        yield "plot.success"
    yield "to_netcdf"


def _comparable(ds: xr.Dataset) -> bool:
    from .analysis.compare import comparable

    try:
        return comparable(ds)
    except MidsError:  # the attributes are damaged
        return False


def _in_memory(array: xr.DataArray) -> bool:
    # xarray has no public test that tells an array read from a file from one still in it.
    return array.variable._in_memory


def _comparison(ds: xr.Dataset) -> xr.Dataset | None:
    """Return the comparison with theory, where flow and target have one and the start is known."""
    return mids.compare(ds) if _comparable(ds) else None


class PlotAccessor:
    """The plots of a dataset, ``ds.mi.plot``; each takes what the function of its name takes.

    Examples
    --------
    >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=[100, 1e4], runs=4)
    >>> ds.mi.plot.loss(col="dim").shape
    (1, 2)
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @faceted
    def loss(self, *, theory: bool = True, **facets: Unpack[Facets]) -> np.ndarray:
        """Draw the loss with its plateaus and, if there is one, its theory: `mids.plot.loss`."""
        return mids.plot.loss(
            self._ds,
            _comparison(self._ds) if theory else None,
            mids.plateaus(self._ds),
            **facets,
        )

    @faceted
    def overlap(self, **facets: Unpack[Facets]) -> np.ndarray:
        """Draw the overlaps against time: `mids.plot.overlap`."""
        return mids.plot.overlap(self._ds, **facets)

    @faceted
    def modes(self, **facets: Unpack[Facets]) -> np.ndarray:
        """Draw what each Hermite degree contributes: `mids.plot.modes`."""
        return mids.plot.modes(self._ds, **facets)

    @faceted
    def phase(
        self, *, directions: tuple[int, int] = (0, 1), **facets: Unpack[Facets]
    ) -> np.ndarray:
        """Draw two overlaps against each other: `mids.plot.phase`."""
        return mids.plot.phase(self._ds, directions=directions, **facets)

    @faceted
    def escape_times(self, **facets: Unpack[Facets]) -> np.ndarray:
        """Draw measured against predicted escape times: `mids.plot.escape_times`."""
        return mids.plot.escape_times(mids.compare(self._ds), **facets)

    @faceted
    def success(self, *, x: str = "ratio", **facets: Unpack[Facets]) -> np.ndarray:
        """Fractions of successful runs of a phase diagram: `mids.plot.success`."""
        return mids.plot.success(self._ds, x=x, **facets)

    @faceted
    def timescales(self, **facets: Unpack[Facets]) -> np.ndarray:
        """Draw the escape times against d: `mids.plot.timescales`."""
        return mids.plot.timescales(
            mids.compare(self._ds),
            mids.scaling(self._ds),
            **facets,
        )

    @faceted
    def traps(self, **facets: Unpack[Facets]) -> np.ndarray:
        """Draw how the runs ended: `mids.plot.traps`."""
        return mids.plot.traps(mids.traps(self._ds), **facets)


@xr.register_dataset_accessor("mi")
class MultiIndexAccessor:
    """The functions of `mids` as methods: ``ds.mi.saddles()`` is ``mids.saddles(ds)``.

    Examples
    --------
    >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=[100, 1e4], runs=4)
    >>> ds.mi.saddles().n_saddles.values.max().item()
    2
    >>> ds.mi.flow
    TwoTimescale(ridge=0.0, kernel=None)
    """

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
        return mids.describe(self._ds)

    def validate(self) -> None:
        """Check the dataset against the schema: `mids.validate`."""
        return mids.validate(self._ds)

    def plateaus(
        self,
        var: str = "loss",
        *,
        tolerance: float = 0.02,
        contrast: float = 2.0,
        max_plateaus: int = 8,
    ) -> xr.Dataset:
        """Find the plateaus of a variable: `mids.plateaus`."""
        return mids.plateaus(
            self._ds, var, tolerance=tolerance, contrast=contrast, max_plateaus=max_plateaus
        )

    def saddles(self) -> xr.Dataset:
        """Find the plateaus that are left again: `mids.saddles`."""
        return mids.saddles(self._ds)

    def theory(self, *, quantiles: Sequence[float] = (), samples: int = 500) -> xr.Dataset:
        """Predict the saddles from the initial conditions: `mids.theory`."""
        return mids.theory(self._ds, quantiles=quantiles, samples=samples)

    def compare(self) -> xr.Dataset:
        """Hold the measured saddles against the theory: `mids.compare`."""
        return mids.compare(self._ds)

    def scaling(
        self, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
    ) -> xr.Dataset:
        """Fit the growth of the escape times with d: `mids.scaling`."""
        return mids.scaling(self._ds, resamples=resamples, confidence=confidence, seed=seed)

    def traps(self, *, confidence: float = 0.95) -> xr.Dataset:
        """Count how runs ended, and how often they are trapped: `mids.traps`."""
        return mids.traps(self._ds, confidence=confidence)

    def replay(self) -> xr.Dataset:
        """Simulate the dataset again: `mids.replay`."""
        return mids.replay(self._ds)

    def to_netcdf(self, path: str | os.PathLike[str], *, compact: bool = False) -> None:
        """Write the dataset to a file: `mids.to_netcdf`."""
        return mids.to_netcdf(self._ds, path, compact=compact)

    def __repr__(self) -> str:
        """Say what the dataset is and what can be called."""
        return describe(self._ds)

    def _repr_html_(self) -> str:
        title, rows = description(self._ds)
        cells = "".join(
            f"<tr><th style='text-align: left; padding-right: 1em'>{escape(name)}</th>"
            f"<td style='text-align: left'>{escape(text)}</td></tr>"
            for name, text in rows
        )
        return f"<div><b>{escape(title)}</b><table>{cells}</table></div>"
