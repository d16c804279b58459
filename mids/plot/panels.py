"""Panels: how a figure is divided, titled and explained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import numpy as np
import xarray as xr

from .. import validation
from ..errors import DatasetError, InputError, MissingDependencyError
from ..schema import STATUS
from .facets import Facets

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = [
    "TRAPPED",
    "Panels",
    "label",
    "need",
    "power",
    "pyplot",
    "take",
    "trapped_runs",
    "with_status",
]

TRAPPED = STATUS.index("trapped")

Labelled = TypeVar("Labelled", xr.Dataset, xr.DataArray)


def pyplot() -> Any:
    """Return ``matplotlib.pyplot``, or say how to install it."""
    try:
        import matplotlib.pyplot
    except ImportError:
        raise MissingDependencyError(
            'plots need matplotlib; install it with: python -m pip install "mids[plot]"'
        ) from None
    return matplotlib.pyplot


def need(ds: xr.Dataset, *names: str) -> None:
    """Raise an error if a dataset lacks a variable."""
    missing = [name for name in names if name not in ds]
    if missing:
        raise DatasetError(
            f"the picture needs the variable {' and '.join(missing)}, but the dataset has only "
            f"{', '.join(map(str, ds.data_vars))}"
        )


def take(data: Labelled, at: dict[str, int], *dims: str) -> Labelled:
    """Select a panel's data, with the dims that it draws in front, in this order."""
    here = data.isel(at, missing_dims="ignore")
    return here.expand_dims([name for name in dims if name not in here.dims]).transpose(*dims, ...)


def with_status(data: xr.DataArray, ds: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Compute what is drawn, in one go with how the runs ended, if the dataset says so."""
    if "status" not in ds:
        return data.compute(), None
    both = data.to_dataset(name="drawn").assign(status=ds["status"]).compute()
    return both["drawn"], both["status"]


def trapped_runs(ax: Axes, status: xr.DataArray | None, at: dict[str, int]) -> np.ndarray | None:
    """Return which runs of a panel are trapped, shape (run,), and write above it how many."""
    if status is None:
        return None
    found = (take(status, at, "run") == TRAPPED).values
    if found.any():
        text = f"{found.sum()} of {found.size} trapped" if found.size > 1 else "trapped"
        ax.set_title(text, loc="left", fontsize="small")
    return np.asarray(found)


def label(array: xr.DataArray, text: str) -> str:
    """Return the label of an axis, with the unit if there is one."""
    units = array.attrs.get("units", "1")
    return text if units in ("", "1") else f"{text} [{units}]"


def power(number: int) -> str:
    """Return a number as text, as a power of ten if it is one."""
    exponent = round(math.log10(number))
    return f"$10^{{{exponent}}}$" if number == 10**exponent else f"${number}$"


class Panels:
    """The panels of a figure, one for each value of the dims that it is divided by."""

    def __init__(
        self,
        data: xr.DataArray | xr.Dataset,
        core: Sequence[str],
        pooled: Sequence[str],
        *,
        size: tuple[float, float],
        **facets: Unpack[Facets],
    ) -> None:
        for name in facets:
            validation.one_of(name, sorted(Facets.__annotations__), "keyword of plots")
        if "time" in core and "time" not in data.dims:
            raise DatasetError(
                "the picture needs the dimension 'time': select several times, or rename yours "
                "with ds.rename(...)"
            )
        if "time" in core and (np.diff(data["time"].values) <= 0).any():
            raise DatasetError("time must increase; sort the dataset: ds.sortby('time')")
        empty = [str(name) for name, count in data.sizes.items() if count == 0]
        if empty:
            raise DatasetError(
                f"there is nothing to draw: the dataset has no {' and no '.join(empty)}; select at "
                "least one"
            )
        row, col, col_wrap = facets.get("row"), facets.get("col"), facets.get("col_wrap")
        axes = facets.get("axes")
        self._data = data
        self._row, self._col = _facets(data, core, pooled, row, col, col_wrap)
        self._alone = {
            str(name): 0
            for name, count in data.sizes.items()
            if count == 1 and name not in (*core, *pooled, self._row, self._col)
        }
        rows, columns = (data.sizes[name] if name else 1 for name in (self._row, self._col))
        self._count = rows * columns
        if col_wrap is not None:
            columns = min(validation.integer(col_wrap, "col_wrap", at_least=1), columns)
            rows = -(-self._count // columns)
        self._given = axes is not None
        if axes is not None:
            self.axes = _given(axes, self._count, rows, columns)
            return
        figure = pyplot().figure(
            figsize=(size[0] * columns, size[1] * rows + 0.8), layout="constrained"
        )
        self.axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for spare in range(self._count, rows * columns):
            self.axes.flat[spare].remove()

    def runs(self) -> int:
        """Return how many runs a panel holds."""
        return 1 if "run" in (self._row, self._col) else self._data.sizes.get("run", 1)

    def __iter__(self) -> Iterator[tuple[Axes, dict[str, int]]]:
        """Give each panel, titled, and where its data are: what ``isel`` takes."""
        for index, ax in enumerate(self.axes.flat[: self._count]):
            at = dict(self._alone)
            if self._col is not None:
                index, at[self._col] = divmod(index, self._data.sizes[self._col])
            if self._row is not None:
                at[self._row] = index
            here = self._data.isel(at)
            title = ", ".join(
                _title(name, here, at)
                for name in dict.fromkeys(["dim", self._row, self._col])
                if name in at or (name in here.coords and here[name].ndim == 0)
            )
            if title:
                ax.set_title(title, loc="right", fontsize="medium")
            yield ax, at

    def finish(self, xlabel: str, ylabel: str, key: Sequence[Artist] = ()) -> np.ndarray:
        """Label the outer axes, explain the lines, and return the axes."""
        columns = self.axes.shape[1]
        for index, ax in enumerate(self.axes.flat[: self._count]):
            ax.set(xlabel=xlabel, ylabel=ylabel)
            if not self._given:
                ax.label_outer(remove_inner_ticks=False)
                if index + columns >= self._count:  # no panel below, perhaps no last row either
                    ax.set_xlabel(xlabel)
                    ax.tick_params(labelbottom=True)
        if key and self._given:
            self.axes.flat[0].legend(handles=key, fontsize="small", framealpha=0.9)
        elif key:
            figure = self.axes.flat[0].figure
            # In inches: about 0.075 a letter, and 0.6 for the line and the space around it.
            widest = max(0.075 * len(str(artist.get_label())) + 0.6 for artist in key)
            figure.legend(
                handles=key,
                loc="outside lower center",
                ncols=max(min(int(figure.get_figwidth() / widest), len(key)), 1),
                fontsize="small",
                frameon=False,
            )
        return self.axes


def _facets(
    data: xr.DataArray | xr.Dataset,
    core: Sequence[str],
    pooled: Sequence[str],
    row: str | None,
    col: str | None,
    col_wrap: int | None,
) -> tuple[str | None, str | None]:
    """Return the dims of rows and columns."""
    allowed = [str(name) for name in data.dims if name not in core]
    for name, value in (("row", row), ("col", col)):
        if value is not None and value not in allowed:
            raise InputError(
                f"{name} must be a dimension that changes from panel to panel, got {value!r}; "
                f"it can be {' or '.join(map(repr, allowed)) or 'none: there is one panel'}"
            )
    if row is not None and row == col:
        raise InputError(f"row and col are both {row!r}; they must be different dimensions")
    rest = [
        name
        for name in sorted(allowed, key=lambda name: name != "dim")
        if name not in (*pooled, row, col) and data.sizes[name] > 1
    ]
    if row is None and rest and col_wrap is None:
        row = rest.pop(0)
    if col is None and rest:
        col = rest.pop(0)
    if rest:
        raise DatasetError(
            f"rows and columns are taken, but {' and '.join(map(repr, rest))} has several values "
            f"too; select one, for example with ds.isel({rest[0]}=0)"
        )
    if col_wrap is not None and (row is not None or col is None):
        raise InputError("col_wrap wraps columns where there are no rows: pass col= alone with it")
    return row, col


def _given(axes: Axes | Iterable[Axes], count: int, rows: int, columns: int) -> np.ndarray:
    given = np.ravel(np.array(list(axes) if isinstance(axes, Iterable) else [axes], dtype=object))
    if len(given) != count:
        raise InputError(
            f"axes must be one for each of the {count} panels ({rows} x {columns}), got "
            f"{len(given)}; select values with ds.sel(...) or pass as many axes"
        )
    out = np.full(rows * columns, None, dtype=object)
    out[:count] = given
    return out.reshape(rows, columns)


def _title(name: str | None, here: xr.DataArray | xr.Dataset, at: dict[str, int]) -> str:
    if name not in here.coords:
        return f"{name} {at[str(name)]}"
    value = here[name].item()
    if name == "dim":
        return f"$d = {power(value).strip('$')}$"
    if name == "direction":
        return f"direction {value + 1}"
    return f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"
