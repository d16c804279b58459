"""A catalog as a table: conditions on its columns; for the terminal, notebooks and pandas."""

from __future__ import annotations

import fnmatch
import numbers
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from .. import validation
from ..errors import InputError, printable
from ..schema import dim_text
from ..targets.target import Target
from .index import COLUMNS, LISTS, SEPARATOR, SWEPT, Entry

HEADINGS = ("key", "target", "flow", "r", "q", "s", "leaps", "d", "runs", "MB")
NUMERIC = (3, 4, 5, 8, 9)
WIDEST = 32
ROUNDING = 1e-9  # difference of coefficients, relative to the largest, that makes no other function
ROWS = 60  # datasets shown; the index has them all


def frame(entries: Iterable[Entry]) -> pd.DataFrame:
    """Return the index as a table with the keys as index."""
    rows = pd.DataFrame([entry.row() for entry in entries], columns=list(COLUMNS))
    integers = [name for name, (kind, _) in COLUMNS.items() if kind == "integer"]
    return rows.astype(dict.fromkeys(integers, "Int64")).set_index("key")


def text(location: str, entries: Iterable[Entry]) -> str:
    """Return the table for a terminal."""
    title, rows, rest = _table(location, entries)
    if not rows:
        return title
    columns = [
        [cell if len(cell) <= WIDEST else f"{cell[: WIDEST - 3]}..." for cell in column]
        for column in zip(HEADINGS, *rows, strict=True)
    ]
    padded = [
        [
            (str.rjust if at in NUMERIC else str.ljust)(cell, max(map(len, column)))
            for cell in column
        ]
        for at, column in enumerate(columns)
    ]
    lines = ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]
    return "\n  ".join([title, *lines, *rest])


def html(location: str, entries: Iterable[Entry]) -> str:
    """Return the table for a notebook."""
    title, rows, rest = _table(location, entries)
    table = pd.DataFrame(rows, columns=list(HEADINGS)).to_html(index=False, border=0)
    return "\n".join([f"<b>{escape(title)}</b>", table, *map(escape, rest)])


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
    dims = list(map(dim_text, sorted(entry.dims)))
    return (
        entry.key,
        entry.target or entry.title,
        entry.flow or "-",
        *("-" if number is None else str(number) for number in numbers),
        "-".join(map(str, entry.leaps)) or "-",
        f"{dims[0]}..{dims[-1]} ({len(dims)})" if len(dims) > 2 else ", ".join(dims) or "-",
        str(entry.runs),
        f"{entry.bytes / 1e6:.2f}",
    )


# -- search --------------------------------------------------------------------------------


Test = Callable[[Any], bool]


def query(conditions: Mapping[str, object]) -> Callable[[Entry], bool]:
    """Return a function that tells whether an entry meets all conditions of `Catalog.search`."""
    for name in conditions:
        validation.one_of(name, COLUMNS, "column of the index")
    tests = {name: _test(name, condition) for name, condition in conditions.items()}

    def values(entry: Entry, name: str) -> list[Any]:
        """Return a cell, and all its numbers, each and together, or the texts of a sweep."""
        found = getattr(entry, name)
        if name in LISTS:
            return [LISTS[name].join(map(str, found)), *found, found]
        return [found, *(found.split(SEPARATOR) if name in SWEPT else ())]

    return lambda entry: all(any(map(test, values(entry, name))) for name, test in tests.items())


def same_function(one: Target, two: Target, scaled: bool) -> bool:
    """Tell whether two targets are the same function, or, if scaled, multiples of each other."""
    first, second = (_coefficients(target) for target in (one, two))
    if first is None or second is None or first.keys() != second.keys():
        return first is None and second is None and one == two
    a, b = (np.array([values[beta] for beta in first]) for values in (first, second))
    if scaled:
        a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
        b = b if a @ b > 0 else -b
    return bool(np.abs(a - b).max() <= ROUNDING * np.abs(a).max())


def _coefficients(target: Target) -> dict[tuple[int, ...], float] | None:
    """Return coefficients by multi-index without zeros at its end; None where there are none."""
    if not target.dense:
        return None
    out = {}
    for beta, value in zip(target.modes.tolist(), target.coefficients.tolist(), strict=True):
        while beta and beta[-1] == 0:
            beta.pop()
        out[tuple(beta)] = value
    return out


def _test(name: str, condition: object) -> Test:
    """Return the test of one cell: text, a number, numbers or None."""
    if isinstance(condition, list | set | frozenset):
        alternatives = [_test(name, alternative) for alternative in condition]
        return lambda value: any(test(value) for test in alternatives)
    if isinstance(condition, slice) and condition.step is None:
        return _between(name, condition.start, condition.stop)
    if isinstance(condition, tuple) and name in LISTS and all(map(_is_number, condition)):
        return lambda value: bool(value == condition)
    if condition is None:
        return lambda value: value in (None, "")
    if isinstance(condition, str):
        return lambda value: isinstance(value, str) and fnmatch.fnmatchcase(value, condition)
    if _is_number(condition):
        return lambda value: bool(value == condition)
    raise _senseless(name, condition)


def _between(name: str, low: Any, high: Any) -> Test:
    numeric = COLUMNS[name][0] == "integer" or name in LISTS
    kind: Any = numbers.Real if numeric else str
    for bound in (low, high):
        if bound is not None and not isinstance(bound, kind):
            raise _senseless(name, slice(low, high))

    return lambda value: (
        isinstance(value, kind)
        and (low is None or value >= low)
        and (high is None or value <= high)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _senseless(name: str, condition: object) -> InputError:
    several = ", a tuple of all its numbers" if name in LISTS else ""
    return InputError(
        f"cannot search {name} for {validation.shown(condition)}; pass a value, a text with *, a "
        f"range slice(lowest, highest) of the column's type{several}, or a list of alternatives"
    )
