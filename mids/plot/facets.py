"""How a figure is divided: the keywords that all plots share, said once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypedDict, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Facets", "faceted"]

Draw = TypeVar("Draw", bound=Callable[..., object])


class Facets(TypedDict, total=False):
    """Keywords of all plots; `faceted` shows them in signatures and docstrings."""

    row: str | None
    col: str | None
    col_wrap: int | None
    axes: Axes | Iterable[Axes] | None


PLACE = """
**facets
    See `Facets`.

Raises
------
"""
TEXT = """
row, col : str, optional
    Dims that change from panel to panel, downwards and to the right.
col_wrap : int, optional
    Columns, where only `col` divides the figure.
axes : Axes or iterable of Axes, optional
    One for each panel. If not given, a figure with shared axes is made.

Returns
-------
numpy.ndarray of Axes, shape (rows, columns)

Raises
------
InputError
    If `row`, `col`, `col_wrap` or `axes` do not fit the dataset.
MissingDependencyError
    If matplotlib is not installed.
"""


def faceted(draw: Draw) -> Draw:
    """Show the keywords of `Facets` in ``help`` of a function that takes ``**facets``."""
    signature = inspect.signature(draw)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind.__forward_arg__
        )
        for name, kind in inspect.get_annotations(Facets).items()
    ]
    text = inspect.getdoc(draw) or ""
    vars(draw).update(__signature__=signature.replace(parameters=[*own, *shared]))
    draw.__doc__ = text.replace(PLACE, TEXT)
    return draw
