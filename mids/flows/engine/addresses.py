"""Functions that call each other at an address and find their arrays at one.

Passing a few dozen arrays costs more than what most functions here compute; and what numba calls by
name is translated to machine code once more in every function that calls it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ADDRESS = types.uintp


def call_at(signature: Any) -> Any:
    """Compiled function that calls a C function: ``call(address, *numbers)``."""

    @intrinsic
    def call(typing: Any, address: Any, *numbers: Any) -> Any:
        def generate(context: Any, builder: Any, given: Any, values: Any) -> Any:
            kinds = [context.get_value_type(kind) for kind in signature.args]
            kind = ir.FunctionType(context.get_value_type(signature.return_type), kinds)
            passed = [
                context.cast(builder, value, have, want)
                for value, have, want in zip(
                    cgutils.unpack_tuple(builder, values[1]),
                    given.args[1],
                    signature.args,
                    strict=True,
                )
            ]
            return builder.call(builder.inttoptr(values[0], kind.as_pointer()), passed)

        return signature.return_type(ADDRESS, types.StarArgTuple(numbers)), generate

    return call


def _address_of(typing: Any, value: Any) -> Any:
    """Where a value lies, until the calling function returns."""

    def generate(context: Any, builder: Any, given: Any, values: Any) -> Any:
        slot = cgutils.alloca_once_value(builder, values[0])
        return builder.ptrtoint(slot, context.get_value_type(ADDRESS))

    return ADDRESS(value), generate


address_of: Any = intrinsic(_address_of)


def value_at(kind: Any) -> Any:
    """Compiled function that reads a value of a type at an address."""

    @intrinsic
    def read(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, given: Any, values: Any) -> Any:
            pointer = context.get_value_type(kind).as_pointer()
            value = builder.load(builder.inttoptr(values[0], pointer))
            if context.enable_nrt:
                context.nrt.incref(builder, kind, value)
            return value

        return kind(ADDRESS), generate

    return read
