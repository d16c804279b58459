"""How functions are compiled, and where what was compiled is kept.

Small functions are inlined wherever they are called. `separate` marks the large ones of the
fast-link flow, which are compiled one by one and call each other at their addresses (`addresses`).

Numba notes changes of the file in which a function stands, not of those from which others were
inlined: so its files are kept in a folder named after all sources here.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba import cfunc, njit

_CONFIG: Any = numba.config
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_INNER = _OPTIONS
# Without what numba has not documented, all compiles and runs more slowly: arrays are counted, and
# functions that no other language calls can be called from all.
if (0, 61) <= tuple(map(int, numba.__version__.split(".")[:2])) <= (0, 68):
    _OPTIONS |= {"no_cfunc_wrapper": True, "_nrt": False}
    _INNER = _OPTIONS | {"no_cpython_wrapper": True}
compiled = njit(fastmath={"contract"}, **_INNER)
inlined = njit(fastmath={"contract"}, forceinline=True, **_INNER)
# Sums whose order is free, so that they can be vectorised.
pair_sum = njit(fastmath={"contract", "reassoc"}, forceinline=True, **_INNER)

_SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()[:16]


@functools.cache
def _folder() -> Path | None:
    """Where compiled functions are kept; None where numba has to find a folder itself."""
    own = Path(__file__).parent / "__pycache__"
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "mids"
    for parent in [Path(_CONFIG.CACHE_DIR)] if _CONFIG.CACHE_DIR else [own, home]:
        folder = parent / f"mids-{_SOURCES}"
        with contextlib.suppress(OSError):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                for old in own.glob("mids-*"):  # of these sources as they were
                    if old != folder:
                        shutil.rmtree(old, ignore_errors=True)
            if os.access(folder, os.W_OK):
                return folder
    return None


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """Have numba keep what is decorated meanwhile in the folder."""
    usual, folder = _CONFIG.CACHE_DIR, _folder()
    if folder is not None:
        _CONFIG.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        _CONFIG.CACHE_DIR = usual


_THREADS = threading.RLock()


def _marker(function: Any, signature: Any) -> Path | None:
    """File that is there once a function was compiled for a signature."""
    folder, given = _folder(), hashlib.sha256(str(signature).encode()).hexdigest()[:16]
    return folder and folder / f"{function.__module__}.{function.__qualname__}.{given}.done"


@contextlib.contextmanager
def _once(function: Any, signature: Any) -> Iterator[None]:
    """Let processes that start together wait for the first one to compile a function."""
    done = _marker(function, signature)
    # Threads wait here, not at the file: the one that has numba's own lock may need this file next.
    with _THREADS, contextlib.ExitStack() as stack:
        if done is not None and not done.exists():
            from filelock import FileLock

            # Where no lock can be had, or not in time, each process compiles for itself.
            with contextlib.suppress(OSError, NotImplementedError):
                lock = FileLock(done.with_suffix(".lock"), timeout=300, is_singleton=False)
                stack.enter_context(lock)
        yield
        if done is not None:
            with contextlib.suppress(OSError):
                done.touch()


def separate(signature: Any, from_python: bool = False, rank: int = 0) -> Callable[[Any], Any]:
    """Compile a function for one signature, or load it from its file; each rank has one."""
    kind = njit if from_python else cfunc

    def decorate(function: Any) -> Any:
        if rank:
            function.__qualname__ = f"{function.__name__}_{rank}"
        collected = gc.isenabled()
        gc.disable()  # a tenth of the time, and compilers leave few cycles behind
        try:
            with _kept(), _once(function, signature):
                return kind(signature, cache=True, fastmath={"contract"}, **_OPTIONS)(function)
        finally:
            if collected:
                gc.enable()

    return decorate


def entry(options: dict[str, Any]) -> Callable[[Any], Any]:
    """Compile a function at its first call from Python, once per machine for these sources."""

    def decorate(function: Any) -> Any:
        with _kept():
            dispatcher = njit(cache=True, **options)(function)
        compile_for = dispatcher.compile

        def compile_once(signature: Any) -> Any:
            with _once(function, signature):
                return compile_for(signature)

        dispatcher.compile = compile_once
        return dispatcher

    return decorate
