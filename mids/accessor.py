"""The accessor ``ds.mi``: the functions of the package as methods of a Dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Literal, Unpack

import numpy as np
import xarray as xr

from . import analysis, plot, schema, validation
from .analysis.compare import comparable, measured
from .analysis.describe import describe, description
from .analysis.plateaus import Scale
from .flows.base import Flow
from .plot.layout import Options
from .simulation import flow_of, replay, target_of
from .storage import to_netcdf
from .targets import Target

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation

__all__ = ["MultiIndexAccessor", "PlotAccessor", "accessor"]


class PlotAccessor:
    """The pictures of a dataset; keywords lay the panels out, see `mids.plot`.

    It is ``ds.mi.plot``. Analyses are computed together with what is drawn, once.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=[100, 1e4], runs=4)
    >>> ds.mi.plot.loss(col="dim", figsize=(8, 3)).shape
    (1, 2)
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def _lazy(self) -> xr.Dataset:
        """Return the dataset with lazy variables, so that nothing is analysed before checks."""
        return self._ds.chunk({})

    def loss(
        self,
        *,
        theory: bool = True,
        yscale: Literal["linear", "log"] | None = None,
        **layout: Unpack[Options],
    ) -> np.ndarray:
        """Draw the loss with its plateaus and, if there is one, its theory: `mids.plot.loss`."""
        ds = self._lazy()
        known = theory and comparable(ds)
        comparison = analysis.compare(ds) if known else None
        return plot.loss(ds, comparison, analysis.plateaus(ds), yscale=yscale, **layout)

    def overlap(self, **layout: Unpack[Options]) -> np.ndarray:
        """Draw the overlaps against time: `mids.plot.overlap`."""
        return plot.overlap(self._ds, **layout)

    def modes(self, **layout: Unpack[Options]) -> np.ndarray:
        """Draw what each Hermite degree contributes: `mids.plot.modes`."""
        return plot.modes(self._ds, **layout)

    def phase(
        self, *, directions: tuple[int, int] = (0, 1), **layout: Unpack[Options]
    ) -> np.ndarray:
        """Draw two overlaps against each other: `mids.plot.phase`."""
        return plot.phase(self._ds, directions=directions, **layout)

    def escape_times(self, **layout: Unpack[Options]) -> np.ndarray:
        """Draw measured against predicted escape times: `mids.plot.escape_times`."""
        return plot.escape_times(analysis.compare(self._lazy()), **layout)

    def timescales(self, **layout: Unpack[Options]) -> np.ndarray:
        """Draw the escape times against d, with theory if there is one: `mids.plot.timescales`."""
        ds = self._lazy()
        found = analysis.compare(ds) if comparable(ds) else measured(ds)
        return plot.timescales(found, analysis.scaling(ds), **layout)

    def success(
        self, *, x: Literal["ratio", "n"] = "ratio", **layout: Unpack[Options]
    ) -> np.ndarray:
        """Fractions of successful runs of a phase diagram: `mids.plot.success`."""
        return plot.success(self._ds, x=x, **layout)

    def traps(self, **layout: Unpack[Options]) -> np.ndarray:
        """Draw how the runs ended: `mids.plot.traps`."""
        return plot.traps(analysis.traps(self._lazy()), **layout)

    def exponents(self, **layout: Unpack[Options]) -> np.ndarray:
        """Draw what grows with d at each saddle of the target: `mids.plot.exponents`."""
        return plot.exponents(analysis.exponents(self._ds), **layout)

    def animate(
        self,
        *,
        frames: int = 120,
        interval: float = 50.0,
        figsize: tuple[float, float] = (7.0, 3.0),
    ) -> FuncAnimation:
        """Show one run as a film: `mids.plot.animate`."""
        return plot.animate(self._ds, frames=frames, interval=interval, figsize=figsize)


@xr.register_dataset_accessor("mi")
class MultiIndexAccessor:
    """The functions of `mids` as methods of a dataset.

    ``ds.mi.saddles()`` is ``mids.saddles(ds)``.

    Examples
    --------
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
        scale: Scale | None = None,
        confidence: float = 0.95,
        tolerance: float = 0.02,
        contrast: float = 2.0,
        max_plateaus: int = 8,
    ) -> xr.Dataset:
        """Find the plateaus of a variable: `mids.plateaus`."""
        return analysis.plateaus(
            self._ds,
            var,
            scale=scale,
            confidence=confidence,
            tolerance=tolerance,
            contrast=contrast,
            max_plateaus=max_plateaus,
        )

    def saddles(self, *, scale: Scale | None = None, confidence: float = 0.95) -> xr.Dataset:
        """Find the plateaus that are left again: `mids.saddles`."""
        return analysis.saddles(self._ds, scale=scale, confidence=confidence)

    def subspace(self, *, time: float | Sequence[float] | None = None) -> xr.DataArray:
        """Return the learned directions, eigenvectors of G(t): `mids.subspace`."""
        return analysis.subspace(self._ds, time=time)

    def theory(
        self,
        *,
        quantiles: Sequence[float] = (),
        samples: int = 2048,
        leading_order: bool = False,
    ) -> xr.Dataset:
        """Predict the saddles from the initial conditions: `mids.theory`."""
        return analysis.theory(
            self._ds, quantiles=quantiles, samples=samples, leading_order=leading_order
        )

    def compare(self) -> xr.Dataset:
        """Compare the measured saddles with the theory: `mids.compare`."""
        return analysis.compare(self._ds)

    def exponents(self) -> xr.Dataset:
        """Return the exponents of the target and the rates by them: `mids.exponents`."""
        return analysis.exponents(self._ds)

    def scaling(
        self,
        *,
        resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        scale: Scale | None = None,
    ) -> xr.Dataset:
        """Fit the growth of the escape times with d: `mids.scaling`."""
        return analysis.scaling(
            self._ds, resamples=resamples, confidence=confidence, seed=seed, scale=scale
        )

    def scaling_law(self, *, first: int = 3, last: int | None = None) -> xr.Dataset:
        """Fit the power law of the loss of many directions: `mids.scaling_law`."""
        return analysis.scaling_law(self._ds, first=first, last=last)

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


def accessor(ds: xr.Dataset) -> MultiIndexAccessor:
    """Return ``ds.mi``, whose type editors and type checkers cannot know from the dataset.

    Parameters
    ----------
    ds : xarray.Dataset

    Returns
    -------
    MultiIndexAccessor

    Raises
    ------
    InputError
        If `ds` is no dataset.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h2(z1)", dim=100, runs=2)
    >>> mids.accessor(ds).flow.name
    'two-timescale'
    """
    validation.dataset(ds)
    found: MultiIndexAccessor = ds.mi
    return found
