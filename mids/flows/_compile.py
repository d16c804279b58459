"""How the integrator is compiled.

Small functions are inlined wherever they are called: passing a few dozen arrays costs more than
what they compute.  `piece` marks the large ones, which call each other by address and find their
arrays at an address: each is translated to machine code once, for one signature, instead of once
more in every caller, and is cached in a file of its own.

The cache is safe with several processes starting at once: a piece has one signature, hence one
file, which is renamed into place when complete.  Its key covers the sources of all pieces, as
numba's own covers only the file a function stands in, not what was inlined from others.

The first call waits for all of this, so what numba does for nothing is left out: machine code of
functions that are inlined anyway, and passes for syntax that is not used here.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import _dynfunc, njit, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import NativeLowering, NopythonRewrites
from numba.core.untyped_passes import InlineClosureLikes
from numba.extending import intrinsic

__all__ = [
    "ADDRESS",
    "SourcesCache",
    "address_of",
    "caller",
    "compiled",
    "inlined",
    "pair_sum",
    "piece",
    "place",
    "reader",
]

ADDRESS = types.uintp

_UNUSED = (InlineClosureLikes, NopythonRewrites)


class _Compiler(CompilerBase):
    """Numba's compiler without the passes for closures and for expressions of whole arrays."""

    lowering: Any = NativeLowering

    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager("nopython")
        for each, description in DefaultPassBuilder.define_nopython_pipeline(self.state).passes:
            if each not in _UNUSED:
                passes.add_pass(self.lowering if each is NativeLowering else each, description)
        passes.finalize()
        return [passes]


class _Intermediate(JITCodeLibrary):
    """Intermediate code, which callers optimise and translate together with their own."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _IntermediateLowering(NativeLowering):
    """Lowering of a function that callers know although it has no machine code."""

    _name = "intermediate_lowering"

    def run_pass(self, state: Any) -> bool:
        name = state.func_id.func_qualname
        state.flags.no_compile = True
        state.library = library = _Intermediate(state.targetctx.codegen(), name)
        super().run_pass(state)
        lowered = state.cr
        module = lowered.fndesc.lookup_module()
        key = _dynfunc.make_function(module, name, "", 0, lowered.env, (library,))
        state.targetctx.insert_user_function(key, lowered.fndesc, [library])
        state.cr = lowered._replace(cfunc=key)
        return True


class _Inlining(_Compiler):
    """The same for functions that are inlined wherever they are called."""

    lowering = _IntermediateLowering


_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,
    "_nrt": False,
    "pipeline_class": _Compiler,
}
_INNER = _OPTIONS | {"no_cpython_wrapper": True}
compiled = njit(fastmath={"contract"}, **_INNER)
_INLINED = _INNER | {"forceinline": True, "pipeline_class": _Inlining}
inlined = njit(fastmath={"contract"}, **_INLINED)
# Sums whose order is free, so that they can be vectorised.
pair_sum = njit(fastmath={"contract", "reassoc"}, **_INLINED)

_SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("_*.py")))
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
