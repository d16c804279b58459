"""How the integrator is compiled.

Two kinds of functions.  Small ones are inlined wherever they are called: passing a few dozen arrays
costs more than what they compute.  `piece` marks the large ones, which call each other by address:
each is translated to machine code once, for one signature, instead of once more in every caller,
and is cached in a file of its own.

The cache is safe with several processes starting at once: a piece has one signature, hence one
file, which is renamed into place when complete.  Its key covers the sources of all pieces, as
numba's own covers only the file a function stands in, not what was inlined from others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit, types
from numba.core.caching import FunctionCache

__all__ = [
    "ARRAY",
    "CUBE",
    "FLAG",
    "INTEGERS",
    "MATRIX",
    "compiled",
    "inlined",
    "pair_sum",
    "piece",
]

FLAG = types.boolean
ARRAY, MATRIX, CUBE = (types.Array(types.float64, n, "C") for n in (1, 2, 3))
INTEGERS = types.Array(types.int64, 1, "C")

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "_nrt": False,
}
compiled = njit(fastmath={"contract"}, **_OPTIONS)
inlined = njit(forceinline=True, fastmath={"contract"}, **_OPTIONS)
# Sums whose order is free, so that they can be vectorised.
pair_sum = njit(fastmath={"contract", "reassoc"}, forceinline=True, **_OPTIONS)

_SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("_*.py")))
).hexdigest()


class _Cache(FunctionCache):
    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (super()._index_key(sig, codegen), _SOURCES)


def piece(signature: Any, callable_from_python: bool = False) -> Callable[[Any], Any]:
    """Compile a function for one signature, or load it from the cache."""

    def decorate(function: Any) -> Any:
        options = _OPTIONS | {
            "no_cpython_wrapper": not callable_from_python,
            "no_cfunc_wrapper": False,
        }
        dispatcher = njit(fastmath={"contract"}, **options)(function)
        dispatcher._cache = _Cache(function)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return decorate
