"""Numba's compiler without what it does here for nothing, for which the first call waits.

That is machine code of functions that are inlined anyway, and passes for syntax that is not used.
It rests on internals of numba, unchanged from 0.61 to 0.68.
"""

from __future__ import annotations

from typing import Any

from numba import _dynfunc  # type: ignore[attr-defined]
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import NativeLowering, NopythonRewrites
from numba.core.untyped_passes import InlineClosureLikes

__all__ = ["Compiler", "InliningCompiler"]

_UNUSED = (InlineClosureLikes, NopythonRewrites)


class Compiler(CompilerBase):
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


class InliningCompiler(Compiler):
    """The same for functions that are inlined wherever they are called."""

    lowering = _IntermediateLowering
