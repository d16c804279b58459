"""Argument checks, one wording per check.

Each function returns the checked value in its canonical type or raises
:class:`~mids.errors.InputError` with the argument's name, the value given, what is allowed and
the remedy.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import math
import numbers
import os
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, MissingDependencyError, printable

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

LARGEST_EXACT_FLOAT = 2**53  # up to which integers are floats; the largest dimension
LARGEST = 2**128  # integer, also of seeds; Python does not print those of more than 4300 digits
LONGEST_SWEEP = 10**6  # most values of one parameter
LARGEST_STUDENT = 10_000  # columns of a student's frame
LONGEST_NAME = 200  # bytes of a file name: 255 on most systems, temporary ones are longer
LONGEST_PATH = 4000
LONGEST = 10**8  # longest range that is taken for an array
ORTHONORMAL = 1e-5  # most by which frames may fail to be orthonormal: single precision
DEEPEST = 10  # deepest lists that are taken for an array


class _Shown(reprlib.Repr):
    """A representation whose time and memory are bounded, whatever the object does."""

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to print integers of more than 4300 digits."""
        return (
            super().repr_int(x, level) if x.bit_length() < 10_000 else "a number too long to print"
        )

    def repr_instance(self, x: Any, level: int) -> str:
        """Objects of others may say anything, or never end: their type is enough."""
        kind = type(x)
        if kind.__module__.partition(".")[0] in ("builtins", "numpy", "mids", "pathlib"):
            is_large = isinstance(x, np.ndarray) and x.dtype.hasobject
            return f"an array of shape {x.shape}" if is_large else super().repr_instance(x, level)
        return f"an object of type {kind.__module__}.{kind.__qualname__}"


_SHOWN = _Shown()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 80
_SHOWN.maxlist = _SHOWN.maxtuple = _SHOWN.maxdict = _SHOWN.maxarray = 20


def shown(value: object) -> str:
    """Return a short form of a value for an error message, in bounded time and memory."""
    if isinstance(value, str | bytes):
        value = value[:200]
    text = " ".join(printable(_SHOWN.repr(value)).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def package(name: str, use: str, extra: str) -> Any:
    """Return a module of an optional package, or say how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingDependencyError(
            f'{use}; install it with: python -m pip install "mids[{extra}]"'
        ) from None


def dataset(value: object, name: str = "ds") -> None:
    """Refuse what is no dataset, naming what gives one."""
    import xarray as xr

    if isinstance(value, xr.Dataset):
        return
    cure = "open a file with mids.open_dataset, or make one: mids.simulate(target, dim=[1e2, 1e4])"
    if isinstance(value, xr.DataArray):
        cure = "take the whole dataset instead of one of its variables"
    raise InputError(f"{name} must be an xarray.Dataset, got {shown(value)}; {cure}")


def is_finite(value: object, depth: int = 0) -> bool:
    """Tell whether NumPy can read a value in finite time: numbers, text, arrays, lists of them."""
    if isinstance(value, list | tuple):
        return depth < DEEPEST and all(is_finite(item, depth + 1) for item in value)
    if isinstance(value, range):
        return len(value) <= LONGEST
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return is_finite(value.tolist(), depth)
    if value is None or isinstance(value, numbers.Number | str | bytes | np.generic | np.ndarray):
        return True
    known = type(value).__module__.startswith(("xarray", "pandas", "dask"))
    return known and hasattr(value, "dtype")


def path(value: object, name: str = "path") -> Path:
    """Return a path that the system can be asked for, or say what is wrong with it."""
    try:
        text = os.fspath(value)  # type: ignore[call-overload]
        encoded = text if isinstance(text, bytes) else text.encode()
        result = Path(os.fsdecode(text))
    except (TypeError, ValueError):
        encoded = b"\0"
    parts = encoded.replace(b"\\", b"/").split(b"/")
    if b"\0" in encoded or len(encoded) > LONGEST_PATH or max(map(len, parts)) > LONGEST_NAME:
        raise InputError(
            f"{name} must be the path of a file, as text or pathlib.Path, with names of at most "
            f"{LONGEST_NAME} bytes, got {shown(value)}; pass for example 'runs.nc'"
        )
    return result


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


def integer(value: object, name: str, *, at_least: int, at_most: int = LARGEST) -> int:
    """Return an integer within the given bounds; 1e4 and 10000 are both accepted."""
    number = _exact_integer(value)
    if number is None or not at_least <= number <= at_most:
        most = f" and at most {at_most}" if number and number > at_most else ""
        raise InputError(
            f"{name} must be an integer of at least {at_least}{most}, got {shown(value)}; "
            f"pass a whole number such as {max(at_least, 1)}"
        )
    return number


def flag(value: object, name: str) -> bool:
    """Return a truth value; only True and False are accepted."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, got {shown(value)}; pass one of them")
    return bool(value)


def items(value: Any, name: str) -> list[Any]:
    """Return the values of a list, range or array; a sweep has a largest size."""
    if len(value) > LONGEST_SWEEP:
        raise InputError(
            f"{name} has {len(value)} values, at most {LONGEST_SWEEP} can be in one sweep; "
            "simulate parts and join them with mids.concat"
        )
    return value.tolist() if isinstance(value, np.ndarray) else list(value)


def student_rank(value: object) -> int:
    """Return the number of columns of a student's frame."""
    return integer(value, "student_rank", at_least=1, at_most=LARGEST_STUDENT)


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
    """Return distinct ambient dimensions from ``rank + student_rank`` to ``2**53``."""
    try:
        given = value if is_finite(value) else ()
        values = [given] if np.ndim(given) == 0 else list(given)  # type: ignore[arg-type,call-overload]
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


def as_numpy(value: Any) -> Any:
    """Return tensors of torch and JAX, and masked arrays with NaN, as arrays; else the value."""
    if isinstance(value, np.ma.MaskedArray) and value.dtype.kind in "iufb":
        return np.ma.filled(value.astype(np.float64), np.nan)
    if isinstance(value, list | tuple) and any(hasattr(item, "detach") for item in value[:1]):
        return [as_numpy(item) for item in value]
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        if getattr(value, "is_sparse", False):
            value = value.to_dense()
        is_complex = hasattr(value, "is_complex") and value.is_complex()
        return (value if is_complex else value.double()).numpy()
    if type(value).__module__.partition(".")[0] in ("jax", "jaxlib"):
        array = np.asarray(value)
        return array if array.dtype.kind == "c" else array.astype(np.float64)
    return value


def finite_array(value: object, name: str) -> FloatArray:
    """Return a float64 array, also of tensors, without NaN or infinity."""
    value = as_numpy(value)
    try:
        given = np.asarray(value if is_finite(value) else "")
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


def orthonormal(value: object, name: str) -> FloatArray:
    """Return directions as a float64 array (d, r) whose columns are orthonormal."""
    frame = finite_array(value, name)
    if frame.ndim != 2 or not frame.size:
        raise InputError(
            f"{name} must have the shape (d, columns), got {frame.shape}; one vector v is "
            "v[:, None]"
        )
    d, r = frame.shape
    if r > d or np.abs(frame.T @ frame - np.eye(r)).max() > ORTHONORMAL:
        hint = f", or pass {name}.T" if r > d else ""
        raise InputError(
            f"the columns of {name} must be orthonormal; take those of "
            f"numpy.linalg.qr({name})[0]{hint}"
        )
    left, _, right = np.linalg.svd(frame, full_matrices=False)
    nearest: FloatArray = left @ right  # frames in single precision are orthonormal up to 1e-6
    return nearest


def shape(value: object) -> tuple[int, ...]:
    """Return the shape of an argument that is not checked yet; () is a scalar."""
    try:
        return np.shape(value) if is_finite(value) else ()  # type: ignore[call-overload]
    except ValueError:  # lists of unequal lengths
        return (len(value),)  # type: ignore[arg-type]


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
    return time.copy()  # the grid given may be read-only, or change later


def one_of(value: object, allowed: Iterable[str], name: str) -> str:
    """Return a name that is among the allowed ones, or suggest the closest of them."""
    names = sorted(allowed)
    if isinstance(value, str) and value in names:
        return value
    remedy = suggestion(value, names, "pass one of these names")
    listed = ", ".join(map(repr, names))
    raise InputError(f"unknown {name} {shown(value)}; allowed: {listed}; {remedy}")


def suggestion(value: object, names: Iterable[str], otherwise: str) -> str:
    """Return a question for the closest of the names, or what is said if none is close."""
    close = difflib.get_close_matches(value, list(names), n=1) if isinstance(value, str) else []
    return f"did you mean {close[0]!r}?" if close else otherwise


def entries(given: Iterable[str], needed: Iterable[str], allowed: Iterable[str], of: str) -> None:
    """Refuse a mapping that has an entry which is not allowed, or lacks one."""
    for name in given:
        one_of(name, allowed, f"argument of {of}")
    missing = [name for name in needed if name not in [*given]]
    if missing:
        raise InputError(f"{of} needs {' and '.join(missing)}; got {shown([*given])}")


def no_attribute(owner: str, name: str, allowed: Iterable[str]) -> AttributeError:
    """Return the error of a name that an object does not have, with the closest of its names."""
    remedy = suggestion(name, allowed, f"dir({owner}) lists what there is")
    return AttributeError(f"{owner} has no {name!r}; {remedy}")


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
