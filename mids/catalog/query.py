"""Conditions on the columns of an index."""

from __future__ import annotations

import fnmatch
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from .. import validation
from ..errors import InputError
from .entry import COLUMNS, LISTS, Entry

__all__ = ["query"]

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
