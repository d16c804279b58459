"""The accessor ``ds.mi``: the functions of the package as methods of a Dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from typing import Unpack

import numpy as np
import xarray as xr

from . import analysis, plot, schema
from .analysis.compare import comparable
from .analysis.describe import describe, description
from .flows.base import Flow
from .plot.facets import Facets, faceted
from .simulation import flow_of, replay, target_of
from .storage import to_netcdf
from .targets import Target

__all__ = ["MultiIndexAccessor", "PlotAccessor"]


def _comparison(ds: xr.Dataset) -> xr.Dataset | None:
    """Return the comparison with theory, where flow and target have one and the start is known."""
    return analysis.compare(ds) if comparable(ds) else None


class PlotAccessor:
    """The plots of a dataset, ``ds.mi.plot``; each takes what the function of its name takes.

    Examples
    --------
    >>> import mids
    >>> import mids
    >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=[100, 1e4], runs=4)
    >>> ds.mi.plot.loss(col="dim").shape
    (1, 2)
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @faceted
    def loss(self, *, theory: bool = True, **facets: Unpack[Facets]) -> np.ndarray:
        """Draw the loss with its plateaus and, if there is one, its theory: `mids.plot.loss`."""
        return plot.loss(
            self._ds,
            _comparison(self._ds) if theory else None,
            analysis.plateaus(self._ds),
            **facets,
        )

    @faceted
    def overlap(self, **facets: Unpack[Facets]) -> np.ndarray:
        """Draw the overlaps against time: `mids.plot.overlap`."""
        return plot.overlap(self._ds, **facets)

    @faceted
    def modes(self, **facets: Unpack[Facets]) -> np.ndarray:
        """Draw what each Hermite degree contributes: `mids.plot.modes`."""
        return plot.modes(self._ds, **facets)

    @faceted
    def phase(
        self, *, directions: tuple[int, int] = (0, 1), **facets: Unpack[Facets]
    ) -> np.ndarray:
        """Draw two overlaps against each other: `mids.plot.phase`."""
        return plot.phase(self._ds, directions=directions, **facets)

    @faceted
    def escape_times(self, **facets: Unpack[Facets]) -> np.ndarray:
        """Draw measured against predicted escape times: `mids.plot.escape_times`."""
        return plot.escape_times(analysis.compare(self._ds), **facets)

    @faceted
    def success(self, *, x: str = "ratio", **facets: Unpack[Facets]) -> np.ndarray:
        """Fractions of successful runs of a phase diagram: `mids.plot.success`."""
        return plot.success(self._ds, x=x, **facets)

    @faceted
    def timescales(self, **facets: Unpack[Facets]) -> np.ndarray:
        """Draw the escape times against d: `mids.plot.timescales`."""
        return plot.timescales(
            analysis.compare(self._ds),
            analysis.scaling(self._ds),
            **facets,
        )

    @faceted
    def traps(self, **facets: Unpack[Facets]) -> np.ndarray:
        """Draw how the runs ended: `mids.plot.traps`."""
        return plot.traps(analysis.traps(self._ds), **facets)


@xr.register_dataset_accessor("mi")
class MultiIndexAccessor:
    """The functions of `mids` as methods: ``ds.mi.saddles()`` is ``mids.saddles(ds)``.

    Examples
    --------
    >>> import mids
    >>> import mids
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
        return describe(self._ds)

    def validate(self) -> None:
        """Check the dataset against the schema: `mids.validate`."""
        return schema.validate(self._ds)

    def plateaus(
        self,
        var: str = "loss",
        *,
        tolerance: float = 0.02,
        contrast: float = 2.0,
        max_plateaus: int = 8,
    ) -> xr.Dataset:
        """Find the plateaus of a variable: `mids.plateaus`."""
        return analysis.plateaus(
            self._ds, var, tolerance=tolerance, contrast=contrast, max_plateaus=max_plateaus
        )

    def saddles(self) -> xr.Dataset:
        """Find the plateaus that are left again: `mids.saddles`."""
        return analysis.saddles(self._ds)

    def theory(self, *, quantiles: Sequence[float] = (), samples: int = 500) -> xr.Dataset:
        """Predict the saddles from the initial conditions: `mids.theory`."""
        return analysis.theory(self._ds, quantiles=quantiles, samples=samples)

    def compare(self) -> xr.Dataset:
        """Hold the measured saddles against the theory: `mids.compare`."""
        return analysis.compare(self._ds)

    def scaling(
        self, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
    ) -> xr.Dataset:
        """Fit the growth of the escape times with d: `mids.scaling`."""
        return analysis.scaling(self._ds, resamples=resamples, confidence=confidence, seed=seed)

    def traps(self, *, confidence: float = 0.95) -> xr.Dataset:
        """Count how runs ended, and how often they are trapped: `mids.traps`."""
        return analysis.traps(self._ds, confidence=confidence)

    def replay(self) -> xr.Dataset:
        """Simulate the dataset again: `mids.replay`."""
        return replay(self._ds)

    def to_netcdf(self, path: str | os.PathLike[str], *, compact: bool = False) -> None:
        """Write the dataset to a file: `mids.to_netcdf`."""
        return to_netcdf(self._ds, path, compact=compact)

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
