"""A catalog as a table: conditions on its columns; for the terminal, notebooks and pandas."""

from __future__ import annotations

import fnmatch
import numbers
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from .. import validation
from ..errors import InputError, printable
from ..schema import dim_text
from .index import COLUMNS, LISTS, Entry

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame", "html", "query", "text"]

HEADINGS = ("key", "target", "flow", "r", "q", "s", "leaps", "d", "runs", "MB")
NUMERIC = (3, 4, 5, 8, 9)
WIDEST = 32
ROWS = 60
"""Datasets shown; the index has them all."""


def frame(entries: Iterable[Entry]) -> pd.DataFrame:
    """Return the index as a table with the keys as index."""
    import pandas as pd

    rows = pd.DataFrame([entry.row() for entry in entries], columns=list(COLUMNS))
    integers = [name for name, (kind, _) in COLUMNS.items() if kind == "integer"]
    return rows.astype(dict.fromkeys(integers, "Int64")).set_index("key")


def text(location: str, entries: Iterable[Entry]) -> str:
    """Return the table for a terminal."""
    title, rows, rest = _table(location, entries)
    if not rows:
        return title
    rows = [tuple(map(_short, row)) for row in [HEADINGS, *rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = [
        "  ".join(
            cell.rjust(width) if i in NUMERIC else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n  ".join([title, *lines, *rest])


def html(location: str, entries: Iterable[Entry]) -> str:
    """Return the table for a notebook."""
    title, rows, rest = _table(location, entries)

    def row(cells: Iterable[str], tag: str) -> str:
        return "".join(
            f"<{tag} style='text-align: {'right' if i in NUMERIC else 'left'}; padding: 0 .6em'>"
            f"{escape(c)}</{tag}>"
            for i, c in enumerate(cells)
        )

    head = f"<thead><tr>{row(HEADINGS, 'th')}</tr></thead>" if rows else ""
    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    end = "".join(f"<div>{escape(line)}</div>" for line in rest)
    return f"<div><b>{escape(title)}</b><table>{head}<tbody>{body}</tbody></table>{end}</div>"


def _table(location: str, entries: Iterable[Entry]) -> tuple[str, list[tuple[str, ...]], list[str]]:
    entries = list(entries)
    size = sum(entry.bytes for entry in entries) / 1e6
    count = "1 dataset" if len(entries) == 1 else f"{len(entries)} datasets"
    title = f"catalog of {count}, {size:.1f} MB: {printable(location)}"
    hidden = len(entries) - ROWS
    rest = [f"... and {hidden} more: .to_dataframe() has all"] if hidden > 0 else []
    return title, [_cells(entry) for entry in entries[:ROWS]], rest


def _cells(entry: Entry) -> tuple[str, ...]:
    numbers = (entry.rank, entry.student_rank, entry.information_exponent)
    return (
        entry.key,
        entry.target or entry.title,
        entry.flow or "-",
        *("-" if number is None else str(number) for number in numbers),
        "-".join(map(str, entry.leaps)) or "-",
        _range(entry.dims),
        str(entry.runs),
        f"{entry.bytes / 1e6:.2f}",
    )


def _range(dims: tuple[int, ...]) -> str:
    shown = list(map(dim_text, sorted(dims)))
    if len(shown) > 2:
        return f"{shown[0]}..{shown[-1]} ({len(shown)})"
    return ", ".join(shown) or "-"


def _short(cell: str) -> str:
    return cell if len(cell) <= WIDEST else f"{cell[: WIDEST - 3]}..."


# -- search --------------------------------------------------------------------------------


Test = Callable[[Any], bool]


def query(conditions: Mapping[str, object]) -> Callable[[Entry], bool]:
    """Return a function that tells whether an entry meets all conditions of `Catalog.search`."""
    tests = {}
    for name, condition in conditions.items():
        validation.one_of(name, COLUMNS, "column of the index")
        tests[name] = _test(name, condition)

    def meets(entry: Entry) -> bool:
        row = entry.row()
        return all(
            any(map(test, [row[name], *(getattr(entry, name) if name in LISTS else ())]))
            for name, test in tests.items()
        )

    return meets


def _test(name: str, condition: object) -> Test:
    """Return the test of one cell: text, a number or None."""
    if isinstance(condition, list | set | frozenset):
        alternatives = [_test(name, alternative) for alternative in condition]
        return lambda value: any(test(value) for test in alternatives)
    if isinstance(condition, tuple) and len(condition) == 2:
        return _between(name, *condition)
    if condition is None:
        return lambda value: value in (None, "")
    if isinstance(condition, str):
        return lambda value: isinstance(value, str) and fnmatch.fnmatchcase(value, condition)
    if isinstance(condition, numbers.Real) and not isinstance(condition, bool):
        return lambda value: bool(value == condition)
    raise _senseless(name, condition)


def _between(name: str, low: Any, high: Any) -> Test:
    numeric = COLUMNS[name][0] == "integer" or name in LISTS
    kind: Any = numbers.Real if numeric else str
    for bound in (low, high):
        if bound is not None and not isinstance(bound, kind):
            raise _senseless(name, (low, high))

    def test(value: Any) -> bool:
        return (
            isinstance(value, kind)
            and (low is None or value >= low)
            and (high is None or value <= high)
        )

    return test


def _senseless(name: str, condition: object) -> InputError:
    return InputError(
        f"cannot search {name} for {validation.shown(condition)}; pass a value, a text with *, a "
        "pair (lowest, highest) of the column's type, or a list of alternatives"
    )
