"""Functions that call each other by address, from what numba has not documented.

Passing a few dozen arrays costs more than what most functions here compute: so they find them at
an address, and each is translated to machine code once instead of once more in every function that
calls it. `compile` has what replaces all this with a numba that is not known to allow it.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ADDRESS = types.uintp
OPTIONS: dict[str, Any] = {"no_cfunc_wrapper": True, "_nrt": False}
INNER = OPTIONS | {"no_cpython_wrapper": True}


def address(dispatcher: Any) -> int:
    """Address of a function compiled for one signature."""
    (result,) = dispatcher.overloads.values()
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


def call_at(signature: Any) -> Any:
    """Compiled function that calls one of a signature: ``call(address, *arguments)``."""

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


def value_at(kind: Any) -> Any:
    """Compiled function that reads a value of a type at an address."""

    @intrinsic
    def read(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, given: Any, values: Any) -> Any:
            pointer = context.get_value_type(kind).as_pointer()
            return builder.load(builder.inttoptr(values[0], pointer))

        return kind(ADDRESS), generate

    return read
