"""A catalog as a table: for the terminal, for notebooks, for pandas."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from ..schema import dim_text
from .entry import COLUMNS, Entry

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame", "html", "text"]

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
    title = f"catalog of {count}, {size:.1f} MB: {location}"
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
