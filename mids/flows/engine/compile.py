"""How the integrator is compiled.

Small functions are inlined wherever they are called: passing a few dozen arrays costs more than
what they compute.  `piece` marks the large ones, which call each other by address and find their
arrays at an address: each is translated to machine code once, for one signature, instead of once
more in every caller, and is cached in a file of its own.

The cache is safe with several processes starting at once: a piece has one signature, hence one
file, which is renamed into place when complete.  Its key covers the sources of all pieces, as
numba's own covers only the file a function stands in, not what was inlined from others.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit, types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

ADDRESS = types.uintp

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,
    "_nrt": False,
}
_INNER = _OPTIONS | {"no_cpython_wrapper": True}
_INLINED = _INNER | {"forceinline": True}
compiled = njit(fastmath={"contract"}, **_INNER)
inlined = njit(fastmath={"contract"}, **_INLINED)
# Sums whose order is free, so that they can be vectorised.
pair_sum = njit(fastmath={"contract", "reassoc"}, **_INLINED)

_SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


class SourcesCache(FunctionCache):
    """Numba's cache, whose entries also depend on the sources of all compiled modules here."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (super()._index_key(sig, codegen), _SOURCES)


def piece(signature: Any, from_python: bool = False, rank: int = 0) -> Callable[[Any], Any]:
    """Compile a function for one signature, or load it from the cache; each rank has a file."""

    def decorate(function: Any) -> Any:
        if rank:
            function.__qualname__ = f"{function.__name__}_{rank}"
        options = _OPTIONS if from_python else _INNER
        dispatcher = njit(fastmath={"contract"}, **options)(function)
        dispatcher._cache = SourcesCache(function)
        collected = gc.isenabled()
        gc.disable()  # a tenth of the time, and compilers leave few cycles behind
        try:
            dispatcher.compile(signature)
        finally:
            if collected:
                gc.enable()
        dispatcher.disable_compile()
        return dispatcher

    return decorate


def place(dispatcher: Any) -> int:
    """Address of a piece."""
    (result,) = dispatcher.overloads.values()
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


def caller(signature: Any) -> Any:
    """Compiled function that calls the piece of a signature: ``call(address, *arguments)``."""

    @intrinsic
    def call(typing: Any, address: Any, *arguments: Any) -> Any:
        def generate(context: Any, builder: Any, given: Any, values: Any) -> Any:
            kind = context.call_conv.get_function_type(signature.return_type, signature.args)
            function = builder.inttoptr(values[0], kind.as_pointer())
            passed = cgutils.unpack_tuple(builder, values[1])
            passed = [
                context.cast(builder, value, have, want)
                for value, have, want in zip(passed, given.args[1], signature.args, strict=True)
            ]
            _, result = context.call_conv.call_function(
                builder, function, signature.return_type, signature.args, passed
            )
            return result

        return signature.return_type(ADDRESS, types.StarArgTuple(arguments)), generate

    return call


def _address_of(typing: Any, value: Any) -> Any:
    """Where a value lies, until the calling function returns."""

    def generate(context: Any, builder: Any, given: Any, values: Any) -> Any:
        slot = cgutils.alloca_once_value(builder, values[0])
        return builder.ptrtoint(slot, context.get_value_type(ADDRESS))

    return ADDRESS(value), generate


address_of: Any = intrinsic(_address_of)


def reader(kind: Any) -> Any:
    """Compiled function that reads a value of a type at an address."""

    @intrinsic
    def read(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, given: Any, values: Any) -> Any:
            pointer = context.get_value_type(kind).as_pointer()
            return builder.load(builder.inttoptr(values[0], pointer))

        return kind(ADDRESS), generate

    return read
