"""Argument checks, one wording per check.

Each function returns the checked value in its canonical type or raises
:class:`~mids.errors.InputError` with the argument's name, the value given, what is allowed and
the remedy.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import numbers
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

LARGEST_EXACT_FLOAT = 2**53
"""Largest integer up to which every integer is a float64; the largest dimension accepted."""


def shown(value: object) -> str:
    """Return a short form of a value for an error message."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of more than 4300 digits
        return "a number too long to print"
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _exact_integer(value: object) -> int | None:
    if type(value) is int:  # a fifth of the time of the checks below
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        if number.is_integer() and abs(number) <= LARGEST_EXACT_FLOAT:
            return int(number)
    return None


def integer(value: object, name: str, *, at_least: int) -> int:
    """Return an integer of at least the given value; 1e4 and 10000 are both accepted."""
    number = _exact_integer(value)
    if number is None or number < at_least:
        raise InputError(
            f"{name} must be an integer of at least {at_least}, got {shown(value)}; "
            f"pass a whole number such as {max(at_least, 1)}"
        )
    return number


def number(
    value: object,
    name: str,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
) -> float:
    """Return a finite real number within the given bounds."""
    result = math.nan
    if isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_):
        with contextlib.suppress(OverflowError):
            result = float(value)
    if math.isfinite(result) and result > above and at_least <= result <= at_most:
        return result
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("above", above), ("at least", at_least), ("at most", at_most))
        if math.isfinite(bound)
    ]
    allowed = " ".join(["a finite number", " and ".join(bounds)]).strip()
    raise InputError(f"{name} must be {allowed}, got {shown(value)}; pass a value in that range")


def rtol(value: object) -> float:
    """Return a relative tolerance the integrators can meet in double precision."""
    return number(value, "rtol", at_least=1e-12, at_most=1e-2)


def dims(value: object, rank: int, student_rank: int) -> IntArray:
    """Return ambient dimensions as a 1-D int64 array of distinct values.

    Each must be a whole number from ``rank + student_rank`` (below that the target's frame and the
    student's overlap by necessity) to ``2**53``.
    """
    try:
        values = [value] if np.ndim(value) == 0 else list(value)  # type: ignore[arg-type,call-overload]
    except (TypeError, ValueError):
        values = []
    if not values:
        raise InputError(
            f"dim must be a whole number or a 1-D sequence of them, got {shown(value)}; "
            "pass for example dim=[100, 10000]"
        )
    smallest = rank + student_rank
    result: list[int] = []
    for entry in values:
        dim = _exact_integer(entry)
        if dim is None or not smallest <= dim <= LARGEST_EXACT_FLOAT:
            raise InputError(
                f"dim must be a whole number from rank + student_rank = {rank} + {student_rank} = "
                f"{smallest} to 2**53, got {shown(entry)}; pass for example dim=[100, 1e4]"
            )
        if dim in result:
            raise InputError(f"dim has {dim} more than once; list each dimension once")
        result.append(dim)
    return np.array(result, dtype=np.int64)


def finite_array(value: object, name: str) -> FloatArray:
    """Return a float64 array without NaN or infinity."""
    try:
        given = np.asarray(value)
        # A complex array would only warn when it loses its imaginary part.
        array = np.asarray(given, dtype=np.float64) if given.dtype.kind in "iufbO" else None
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None:
        raise InputError(
            f"{name} must be an array of real numbers, got {shown(value)}; "
            "pass a NumPy array or nested lists of equal length"
        )
    bad = ~np.isfinite(array)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name} must be finite, but entry {list(where)} is {array[where]} "
            f"({int(bad.sum())} of {array.size} entries are not finite); remove or replace them"
        )
    return array


def time_grid(value: object) -> FloatArray:
    """Return a 1-D float64 time grid that starts at 0 and strictly increases."""
    time = finite_array(value, "time")
    if time.ndim != 1 or time.size < 2:
        raise InputError(
            f"time must be a 1-D grid of at least 2 points, got shape {time.shape}; "
            "pass for example np.concatenate([[0.0], np.geomspace(1e-2, 1e6, 200)])"
        )
    falls = np.flatnonzero(np.diff(time) <= 0)
    if falls.size:
        i = int(falls[0])
        raise InputError(
            f"time must strictly increase, but time[{i}] = {time[i]:g} is followed by "
            f"time[{i + 1}] = {time[i + 1]:g}; sort it and remove repeated values"
        )
    if time[0] != 0:
        raise InputError(
            f"time must start at 0, where the initial condition is given, got time[0] = "
            f"{time[0]:g}; prepend 0.0 and drop negative values"
        )
    return time.copy()  # the caller's may be read-only, or change later


def one_of(value: object, allowed: Iterable[str], name: str) -> str:
    """Return a name that is among the allowed ones, or suggest the closest of them."""
    names = sorted(allowed)
    if isinstance(value, str) and value in names:
        return value
    close = difflib.get_close_matches(value, names, n=1) if isinstance(value, str) else []
    remedy = f"did you mean {close[0]!r}?" if close else "pass one of these names"
    listed = ", ".join(repr(n) for n in names)
    raise InputError(f"unknown {name} {shown(value)}; allowed: {listed}; {remedy}")


def matrices(value: object, name: str, rows: int | None, columns: int | None) -> FloatArray:
    """Return a finite float64 array of shape (..., rows, columns); None stands for any size."""
    array = finite_array(value, name)
    wanted = (rows, columns)
    if array.ndim < 2 or any(
        want not in (None, have) for want, have in zip(wanted, array.shape[-2:], strict=True)
    ):
        sizes = ", ".join("any" if n is None else str(n) for n in wanted)
        raise InputError(
            f"{name} must have shape (..., {sizes}), got {array.shape}; "
            "check the order of its axes and the target's rank"
        )
    return array


def matrix(value: object, name: str, rows: int | None, columns: int | None) -> FloatArray:
    """Return one finite float64 matrix of shape (rows, columns); None stands for any size."""
    array = matrices(value, name, rows, columns)
    if array.ndim > 2:
        raise InputError(f"{name} must be one matrix, got shape {array.shape}; pass one at a time")
    return array
