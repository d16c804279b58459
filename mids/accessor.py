"""The accessor ``ds.mi``: takes a Dataset, and gives the functions of the package as methods."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import xarray as xr

from . import schema, validation
from .analysis.compare import compare
from .analysis.describe import describe, description
from .analysis.exponents import exponents
from .analysis.plateaus import Scale, plateaus
from .analysis.probabilities import traps
from .analysis.saddles import saddles
from .analysis.scaling import scaling, scaling_law
from .analysis.subspace import subspace
from .analysis.theory import theory
from .flows.base import Flow
from .plot.accessor import PlotAccessor
from .simulation.simulate import flow_of, replay, target_of
from .storage import to_netcdf
from .targets import Target


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
        """The target of the dataset.

        Examples
        --------
        >>> import mids
        >>> mids.simulate("h2(z1)", dim=100, runs=2).mi.target.degree
        2
        """
        return target_of(self._ds)

    @property
    def flow(self) -> Flow:
        """The flow that made the dataset.

        Examples
        --------
        >>> import mids
        >>> mids.simulate("h2(z1)", dim=100, runs=2, flow="planted").mi.flow
        Planted()
        """
        return flow_of(self._ds)

    @property
    def plot(self) -> PlotAccessor:
        """The plots: ``ds.mi.plot.loss()`` and others.

        Examples
        --------
        >>> import mids
        >>> mids.simulate("h2(z1)", dim=[100, 1000], runs=2).mi.plot.loss(row="dim").shape
        (2, 1)
        """
        return PlotAccessor(self._ds)

    def describe(self) -> str:
        """Return what the dataset holds: `mids.describe`.

        Examples
        --------
        >>> import mids
        >>> mids.simulate("h2(z1)", dim=100, runs=2).mi.describe().splitlines()[0]
        'multi-index dataset (schema 2)'
        """
        return describe(self._ds)

    def validate(self) -> None:
        """Check the dataset against the schema: `mids.validate`.

        Examples
        --------
        >>> import mids
        >>> mids.simulate("h2(z1)", dim=100, runs=2).mi.validate()  # nothing is wrong
        """
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
        """Find the plateaus of a variable: `mids.plateaus`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=1e4, runs=2)
        >>> ds.mi.plateaus().loss[0, 0, :2].round(2).values.tolist()
        [1.0, 0.5]
        """
        return plateaus(
            self._ds,
            var,
            scale=scale,
            confidence=confidence,
            tolerance=tolerance,
            contrast=contrast,
            max_plateaus=max_plateaus,
        )

    def saddles(self, *, scale: Scale | None = None, confidence: float = 0.95) -> xr.Dataset:
        """Find the plateaus that are left again: `mids.saddles`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=1e4, runs=2)
        >>> ds.mi.saddles().n_saddles.values.tolist()
        [[2, 2]]
        """
        return saddles(self._ds, scale=scale, confidence=confidence)

    def subspace(self, *, time: float | Sequence[float] | None = None) -> xr.DataArray:
        """Return the learned directions, eigenvectors of G(t): `mids.subspace`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.simulate("h1(z1) + h3(z2)", dim=100, runs=2)
        >>> dict(ds.mi.subspace().isel(time=-1, run=0, dim=0).sizes)
        {'axis': 2, 'direction': 2}
        """
        return subspace(self._ds, time=time)

    def theory(
        self,
        *,
        quantiles: Sequence[float] = (),
        samples: int = 2048,
        leading_order: bool = False,
    ) -> xr.Dataset:
        """Predict the saddles from the initial conditions: `mids.theory`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=1e4, runs=2)
        >>> ds.mi.theory().loss.sel(saddle=1).round(3).values.tolist()
        [[0.5, 0.5]]
        """
        return theory(self._ds, quantiles=quantiles, samples=samples, leading_order=leading_order)

    def compare(self) -> xr.Dataset:
        """Compare the measured saddles with the theory: `mids.compare`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=1e4, runs=2)
        >>> ds.mi.compare().ratio.sel(saddle=1).round(3).values.tolist()
        [[1.0, 1.0]]
        """
        return compare(self._ds)

    def exponents(self) -> xr.Dataset:
        """Return the exponents of the target and the rates by them: `mids.exponents`.

        Examples
        --------
        >>> import mids
        >>> mids.simulate("h3(z1)", dim=100, runs=2).mi.exponents().attrs["ladder"]
        '3: d^2'
        """
        return exponents(self._ds)

    def scaling(
        self,
        *,
        resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        scale: Scale | None = None,
        plateau_confidence: float = 0.95,
    ) -> xr.Dataset:
        """Fit the growth of the escape times with d: `mids.scaling`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.simulate("h3(z1)", dim=[1e3, 1e4, 1e5], runs=20)
        >>> ds.mi.scaling().expected.item()
        2.0
        """
        return scaling(
            self._ds,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
            scale=scale,
            plateau_confidence=plateau_confidence,
        )

    def scaling_law(self, *, first: int = 3, last: int | None = None) -> xr.Dataset:
        """Fit the power law of the loss of many directions: `mids.scaling_law`.

        Examples
        --------
        >>> import mids
        >>> target = mids.targets.additive([i**-0.75 for i in range(1, 9)], "h3")
        >>> mids.simulate(target, dim=1e4, runs=2).mi.scaling_law().expected.values.round(3)
        array([-0.333])
        """
        return scaling_law(self._ds, first=first, last=last)

    def traps(self, *, confidence: float = 0.95) -> xr.Dataset:
        """Count how runs ended, and how often they are trapped: `mids.traps`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.simulate("h3(z1)", dim=100, runs=8, flow="planted")
        >>> ds.mi.traps().trapped.values.tolist()
        [4]
        """
        return traps(self._ds, confidence=confidence)

    def replay(self) -> xr.Dataset:
        """Simulate the dataset again: `mids.replay`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.simulate("h2(z1)", dim=100, runs=2)
        >>> ds.mi.replay().loss.equals(ds.loss)
        True
        """
        return replay(self._ds)

    def to_netcdf(self, path: str | os.PathLike[str], *, compact: bool = False) -> None:
        """Write the dataset to a file: `mids.to_netcdf`.

        Examples
        --------
        >>> import mids, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mids.simulate("h2(z1)", dim=100, runs=2).mi.to_netcdf(f"{folder}/runs.nc")
        ...     mids.open_dataset(f"{folder}/runs.nc").sizes["run"]
        2
        """
        return to_netcdf(self._ds, path, compact=compact)

    if not TYPE_CHECKING:  # for whom every name would be there

        def __getattr__(self, name: str) -> Any:
            """Name the method that was meant: notebooks do not show Python's suggestion."""
            raise validation.no_attribute("ds.mi", name, dir(MultiIndexAccessor))

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
