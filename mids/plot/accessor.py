"""The accessor ``ds.mi.plot``: takes a dataset, and draws it with what its analyses find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NoReturn, Unpack

import numpy as np
import xarray as xr

from .. import plot, validation
from ..analysis.compare import comparable, compare, measured
from ..analysis.exponents import exponents
from ..analysis.plateaus import Scale, plateaus
from ..analysis.probabilities import traps
from ..analysis.scaling import scaling
from ..errors import InputError
from .layout import Options, checked

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation


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

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Name the pictures, which are methods."""
        names = " ".join(f".{name}()" for name in plot.__all__ if hasattr(self, name))
        raise InputError(f"ds.mi.plot has a method for each picture; call one of {names}")

    if not TYPE_CHECKING:  # for whom every name would be there

        def __getattr__(self, name: str) -> Any:
            """Name the picture that was meant: notebooks do not show Python's suggestion."""
            raise validation.no_attribute("ds.mi.plot", name, dir(PlotAccessor))

    def _lazy(self) -> xr.Dataset:
        """Return the dataset with lazy variables, so that nothing is analysed before checks."""
        return self._ds.chunk({})

    def loss(
        self,
        *,
        theory: bool = True,
        yscale: Literal["linear", "log"] | None = None,
        scale: Scale | None = None,
        confidence: float = 0.95,
        **layout: Unpack[Options],
    ) -> np.ndarray:
        """Draw the loss with its plateaus and, if there is one, its theory: `mids.plot.loss`.

        Examples
        --------
        >>> import mids
        >>> mids.simulate("h2(z1)", dim=[100, 1e4], runs=4).mi.plot.loss(col="dim").shape
        (1, 2)
        """
        ds = self._lazy()
        known = theory and comparable(ds)
        comparison = compare(ds) if known else None
        found = plateaus(ds, scale=scale, confidence=confidence)
        return plot.loss(ds, comparison, found, yscale=yscale, **layout)

    def overlap(self, **layout: Unpack[Options]) -> np.ndarray:
        """Draw the overlaps against time: `mids.plot.overlap`.

        Examples
        --------
        >>> import mids
        >>> mids.simulate("h2(z1)", dim=[100, 1e4], runs=4).mi.plot.overlap(hue="dim").shape
        (1, 1)
        """
        return plot.overlap(self._ds, **layout)

    def modes(self, **layout: Unpack[Options]) -> np.ndarray:
        """Draw what each Hermite degree contributes: `mids.plot.modes`.

        Examples
        --------
        >>> import mids
        >>> mids.simulate("h1(z1) + h3(z1)", dim=100, runs=4).mi.plot.modes().shape
        (1, 1)
        """
        return plot.modes(self._ds, **layout)

    def phase(
        self, *, directions: tuple[int, int] = (0, 1), **layout: Unpack[Options]
    ) -> np.ndarray:
        """Draw two overlaps against each other: `mids.plot.phase`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.simulate("h1(z1) + h3(z2)", dim=100, runs=4)
        >>> ds.mi.plot.phase(directions=(1, 0))[0, 0].get_xlabel()
        'overlap of direction 2'
        """
        return plot.phase(self._ds, directions=directions, **layout)

    def escape_times(self, **layout: Unpack[Options]) -> np.ndarray:
        """Draw measured against predicted escape times: `mids.plot.escape_times`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.simulate("h2(z1)", dim=[100, 1e4], runs=4)
        >>> ds.mi.plot.escape_times(col="dim").shape
        (1, 2)
        """
        return plot.escape_times(compare(self._lazy()), **layout)

    def timescales(
        self, *, scale: Scale | None = None, confidence: float = 0.95, **layout: Unpack[Options]
    ) -> np.ndarray:
        """Draw the escape times against d, with theory if there is one: `mids.plot.timescales`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.simulate("h2(z1)", dim=[100, 1000, 1e4], runs=4)
        >>> ds.mi.plot.timescales()[0, 0].get_xlabel()
        'ambient dimension $d$'
        """
        ds = self._lazy()
        alone = not comparable(ds)
        found = measured(ds, scale=scale, confidence=confidence) if alone else compare(ds)
        fit = scaling(ds, scale=scale, plateau_confidence=confidence)
        return plot.timescales(found, fit, **layout)

    def success(
        self, *, x: Literal["ratio", "n"] = "ratio", **layout: Unpack[Options]
    ) -> np.ndarray:
        """Fractions of successful runs of a phase diagram: `mids.plot.success`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.phase_diagram("h1(z1)", dim=[8, 16], n=[5, 80], runs=2, duration=5)
        >>> ds.mi.plot.success(x="n")[0, 0].get_xlabel()
        'samples $n$'
        """
        return plot.success(self._ds, x=x, **layout)

    def traps(self, **layout: Unpack[Options]) -> np.ndarray:
        """Draw how the runs ended: `mids.plot.traps`.

        Examples
        --------
        >>> import mids
        >>> ds = mids.simulate("h3(z1)", dim=[100, 1000], runs=8, flow="planted")
        >>> ds.mi.plot.traps()[0, 0].get_ylabel()
        'share of runs'
        """
        return plot.traps(traps(self._lazy()), **layout)

    def exponents(self, **layout: Unpack[Options]) -> np.ndarray:
        """Draw what grows with d at each saddle of the target: `mids.plot.exponents`.

        Examples
        --------
        >>> import mids
        >>> mids.simulate("h1(z1) + h3(z2)", dim=100, runs=2).mi.plot.exponents().shape
        (1, 1)
        """
        checked(layout)  # the exponents of a large target take seconds
        return plot.exponents(exponents(self._ds), **layout)

    def animate(
        self,
        *,
        frames: int = 120,
        interval: float = 50.0,
        figsize: tuple[float, float] = (7.0, 3.0),
    ) -> FuncAnimation:
        """Show one run as a film: `mids.plot.animate`.

        Examples
        --------
        >>> import mids
        >>> film = mids.simulate("h2(z1)", dim=100, runs=2).mi.plot.animate(frames=2)
        >>> film.to_jshtml().count("data:image/png")
        2
        """
        return plot.animate(self._ds, frames=frames, interval=interval, figsize=figsize)
