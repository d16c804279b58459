"""How a figure is divided into panels: from the dims of the data to axes, titles and a key."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, cast

import numpy as np
import xarray as xr

from .. import validation
from ..errors import DatasetError, InputError
from ..schema import STATUS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

TRAPPED = STATUS.index("trapped")
LARGEST = 300.0  # inches of a figure, of which matplotlib can draw 65 536 pixels

Labelled = TypeVar("Labelled", xr.Dataset, xr.DataArray)


class Options(TypedDict, total=False):
    """The keywords that all pictures share; see `mids.plot`."""

    row: str | None
    col: str | None
    col_wrap: int | None
    hue: str | None
    ax: Axes | None
    axes: Iterable[Axes] | None
    figsize: tuple[float, float] | None
    size: float | None
    aspect: float | None
    xlim: tuple[float, float] | None


def checked(options: Options) -> Options:
    """Return the keywords of a layout that are given; an error if they cannot be right."""
    for name in options:
        validation.one_of(name, Options.__annotations__, "keyword of the picture's layout")
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    dims = {name: given[name] for name in ("row", "col", "hue") if name in given}
    for name, value in dims.items():
        if not isinstance(value, str):
            raise InputError(
                f"{name} must be the name of a dim, got {validation.shown(value)}; pass for "
                f"example {name}='dim'"
            )
    if len(dims) > len({*dims.values()}):
        raise InputError(
            f"row, col and hue are {', '.join(map(repr, dims.values()))}; they must be different "
            "dims"
        )
    for name in given.keys() & {"size", "aspect"}:
        validation.number(given[name], name, at_least=0.01, at_most=LARGEST)
    for name, kind, example in (
        ("figsize", f"positive numbers of at most {LARGEST:g} inches", "figsize=(6, 4)"),
        ("xlim", "positive numbers, the smaller one first", "xlim=(1, 1e6)"),
    ):
        if name in given:
            two = validation.finite_array(given[name], name)
            wrong = two.shape != (2,) or two.min() <= 0
            if wrong or (two[1] <= two[0] if name == "xlim" else two.max() > LARGEST):
                raise InputError(
                    f"{name} must be two {kind}, got {validation.shown(given[name])}; "
                    f"pass for example {example}"
                )
    sized = [name for name in ("figsize", "size", "aspect") if name in given]
    for pair in (("figsize", *sized[1:2]), ("ax", "axes")):
        if len(pair) > 1 and given.keys() >= {*pair}:
            raise InputError(f"{pair[0]} and {pair[1]} were both given; pass one of them")
    if sized and given.keys() & {"ax", "axes"}:
        raise InputError(f"{sized[0]} is that of a new figure; leave it out where axes are given")
    if "col_wrap" in given:
        validation.integer(given["col_wrap"], "col_wrap", at_least=1)
        if "row" in given or "col" not in given:
            raise InputError(
                "col_wrap wraps columns where there are no rows: pass col= alone with it"
            )
    return cast(Options, given)


def pyplot() -> Any:
    """Return ``matplotlib.pyplot``, or say how to install it."""
    return validation.package("matplotlib.pyplot", "plots need matplotlib", "plot")


def check_format(path: Path) -> None:
    """Raise an error if no picture can be written to a file of this name.

    Parameters
    ----------
    path : pathlib.Path
        The file; its suffix decides on the format.

    Raises
    ------
    InputError
        If the suffix is unknown.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> check_format(Path("ladder.png"))
    """
    path = validation.path(path)
    pyplot()
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise InputError(
            f"cannot draw {path}: pictures are {', '.join(sorted(formats))} files; "
            "name it for example runs.png"
        )


def need(ds: xr.Dataset, *names: str, remedy: str = "") -> None:
    """Raise an error if a dataset lacks a variable."""
    validation.dataset(ds, "what is drawn")
    missing = [name for name in names if name not in ds]
    if missing:
        raise DatasetError(
            f"the picture needs the variable {', '.join(missing)}, but the dataset has only "
            f"{', '.join(map(str, ds.data_vars))}{remedy}"
        )


def take(data: Labelled, at: dict[str, int], *dims: str) -> Labelled:
    """Select a panel's data, with the dims that it draws in front, in this order."""
    here = data.isel(at, missing_dims="ignore")
    return here.expand_dims([name for name in dims if name not in here.dims]).transpose(*dims, ...)


def computed(*datasets: xr.Dataset | None) -> tuple[Any, ...]:
    """Compute all that is drawn in one go, so that each run is simulated once."""
    given = {str(k): ds for k, ds in enumerate(datasets) if ds is not None}
    tree = xr.DataTree.from_dict(given).compute()
    return tuple(None if ds is None else tree[str(k)].to_dataset() for k, ds in enumerate(datasets))


def label(array: xr.DataArray, text: str) -> str:
    """Return the label of an axis, with the unit if there is one."""
    units = array.attrs.get("units", "1")
    return text if units in ("", "1") else f"{text} [{units}]"


def power(number: float) -> str:
    """Return a number as text, as a power of ten if it is one."""
    exponent = round(math.log10(number)) if number > 0 else 0
    return f"$10^{{{exponent}}}$" if number == 10.0**exponent else f"${number:.6g}$"


def value_text(data: xr.Dataset | xr.DataArray, name: str, index: int) -> str:
    """Name one value of a dim, such as ``d = 100`` or ``ridge 0.5``."""
    if name not in data.coords:
        return f"{name} {index}"
    value = np.atleast_1d(data[name].values)[index]
    if name == "dim":
        return f"$d = {power(int(value)).strip('$')}$"
    if name == "direction":
        return f"direction {value + 1}"
    if name == "saddle":
        known = "level" in data.coords and data["level"].dims == ("saddle",)
        return f"loss {data['level'].values[index]:.3g}" if known else f"{value} learned"
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, bool | int | float):
        return f"{name} {plain:g}"
    return str(plain)


def _flat(axes: Any) -> list[Any]:
    """Return the entries of an array or nested lists; NumPy would convert what is neither."""
    listed = isinstance(axes, list | tuple | np.ndarray)
    return [one for row in axes for one in _flat(row)] if listed else [axes]


class Panels:
    """The panels of a figure: one for each value of `row` and `col`, a colour for each of `hue`.

    `core` are the dims along the axes, `pooled` those whose values are drawn together. A picture
    that can do without colours says ``hue=None``, one that cannot tell colours apart ``hue=False``.
    """

    def __init__(
        self,
        data: xr.DataArray | xr.Dataset,
        options: Options,
        *,
        core: Sequence[str] = (),
        pooled: Sequence[str] = (),
        hue: str | Literal[False] | None = None,
        size: tuple[float, float],
    ) -> None:
        layout = checked(options)
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
        self._data, self._layout = data, layout
        self.row, self.col, self.hue = _assign(data, core, pooled, layout, hue)
        used = (*core, *pooled, self.row, self.col, self.hue)
        self._alone = {str(n): 0 for n, k in data.sizes.items() if k == 1 and n not in used}
        dims = {name: data.sizes[name] for name in (self.row, self.col) if name is not None}
        self._positions = [dict(zip(dims, at, strict=True)) for at in np.ndindex(*dims.values())]
        self.own = not {"ax", "axes"} & layout.keys()  # made here: its margins are free
        rows, columns = (dims[name] if name else 1 for name in (self.row, self.col))
        self.axes = (
            self._new_axes(rows, columns, size)
            if self.own
            else np.array(self._given_axes(), dtype=object).reshape(rows, columns)
        )

    def _given_axes(self) -> list[Any]:
        """Return the axes that were given, once they are seen to be one for each panel."""
        from matplotlib.axes import Axes

        given = _flat(self._layout.get("axes", self._layout.get("ax")))
        if len(given) != len(self._positions):
            raise InputError(
                f"axes must be one for each of the {len(self._positions)} panels, got "
                f"{len(given)}; select values with ds.sel(...) or pass axes=[...]"
            )
        for one in given:
            if not isinstance(one, Axes):
                raise InputError(
                    f"ax and axes must be axes of matplotlib, got {validation.shown(one)}; "
                    "pyplot.subplots() makes them"
                )
        return given

    def _new_axes(self, rows: int, columns: int, size: tuple[float, float]) -> np.ndarray:
        """Return axes of a new figure; `size` of a panel where the layout does not say."""
        layout, (width, height) = self._layout, size
        if wrap := layout.get("col_wrap"):
            rows, columns = math.ceil(columns / wrap), wrap
        if wanted := layout.get("size"):
            width, height = width / height * wanted, wanted
        if aspect := layout.get("aspect"):
            width = aspect * height
        _, axes = pyplot().subplots(
            rows,
            columns,
            sharex=True,
            sharey=True,
            squeeze=False,
            figsize=layout.get("figsize", (width * columns, height * rows + 0.8)),
            layout="constrained",
        )
        for spare in axes.flat[len(self._positions) :]:
            spare.remove()
        return np.asarray(axes)

    def runs(self) -> int:
        """Return how many runs a panel holds of each colour."""
        return 1 if "run" in (self.row, self.col, self.hue) else self._data.sizes.get("run", 1)

    def __iter__(self) -> Iterator[tuple[Axes, dict[str, int]]]:
        """Give each panel, titled, and where its data are: what ``isel`` takes."""
        for ax, position in zip(self.axes.flat, self._positions, strict=False):
            at = self._alone | position
            titled = [n for n in dict.fromkeys(["dim", self.row, self.col]) if n in at]
            parts = [value_text(self._data, str(name), at[str(name)]) for name in titled]
            single = "dim" in self._data.coords and self._data["dim"].ndim == 0
            if single and "dim" not in titled:
                parts.insert(0, value_text(self._data, "dim", 0))
            if parts:
                ax.set_title(", ".join(parts), loc="right", fontsize="medium")
            yield ax, at

    def finish(self, xlabel: str, ylabel: str, key: Sequence[Artist] = ()) -> np.ndarray:
        """Label the outer axes, explain the lines, and return the axes."""
        columns = self.axes.shape[1]
        for index, ax in enumerate(self.axes.flat[: len(self._positions)]):
            ax.set(xlabel=xlabel, ylabel=ylabel)
            if "xlim" in self._layout:
                ax.set_xlim(self._layout["xlim"])
            if self.own:
                ax.label_outer(remove_inner_ticks=False)
                # Where columns wrap, the last row may be short: panels above it have no one below.
                if index + columns >= len(self._positions):
                    ax.set_xlabel(xlabel)
                    ax.tick_params(labelbottom=True)
        if key and not self.own:
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


def _assign(
    data: xr.DataArray | xr.Dataset,
    core: Sequence[str],
    pooled: Sequence[str],
    layout: Options,
    default: str | Literal[False] | None,
) -> tuple[str | None, str | None, str | None]:
    """Return the dims of rows, columns and colours."""
    row, col, hue = layout.get("row"), layout.get("col"), layout.get("hue")
    allowed = [str(name) for name in data.dims if name not in core]
    for name, value in (("row", row), ("col", col), ("hue", hue)):
        if value is None:
            continue
        if name == "hue" and default is False:
            raise InputError("this picture has no hue; divide it with row= and col=")
        if value not in allowed:
            raise InputError(
                f"{name} must be a dim of what is drawn, got {value!r}; it can be "
                f"{' or '.join(map(repr, allowed)) or 'none: there is one panel'}"
            )
    if hue is None and default and default in data.dims and default not in (row, col):
        hue = default
    free = sorted(allowed, key=lambda name: name != "dim")  # dimensions change downwards first
    rest = [n for n in free if n not in (*pooled, row, col, hue) and data.sizes[n] > 1]
    if row is None and rest and "col_wrap" not in layout:
        row = rest.pop(0)
    if col is None and rest:
        col = rest.pop(0)
    if hue is None and default is None and rest:
        hue = rest.pop(0)
    if rest:
        raise DatasetError(
            f"rows, columns and colours are taken, but {' and '.join(map(repr, rest))} has several "
            f"values too; select one, for example with ds.isel({rest[0]}=0)"
        )
    return row, col, hue
