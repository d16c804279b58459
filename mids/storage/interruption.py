"""Ctrl-C that takes effect wherever it arrives.

Python raises KeyboardInterrupt between any two instructions of the main thread. Where these belong
to a destructor, or to a callback of the garbage collector or of a weak reference, it writes the
exception to the standard error stream and goes on as if nothing had been pressed. Where they belong
to a condition that takes its lock again after a wait, as that of a queue, a lock that is not held
is released next: a RuntimeError.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["noting_interruptions", "repeating_interruptions"]

RESTORE = threading.Condition._acquire_restore.__code__  # type: ignore[attr-defined]

PAUSE = 0.05
"""Seconds until an interruption that was lost comes again: what swallowed it has then ended."""


@contextmanager
def noting_interruptions() -> Iterator[Callable[[], None]]:
    """Note Ctrl-C instead of raising KeyboardInterrupt at once, for loops that then ask.

    The second one raises at once. Handlers that somebody has chosen are left alone, and nothing is
    noted outside of the main thread.
    """
    pressed = False

    def note(number: int, frame: Any) -> None:
        nonlocal pressed
        if pressed:
            signal.default_int_handler(number, frame)
        pressed = True

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    with _handling(note):
        yield check
    check()


@contextmanager
def repeating_interruptions() -> Iterator[None]:
    """Raise KeyboardInterrupt where it is not lost, for waits of others.

    It is put off while a destructor or a callback of the garbage collector runs, which would be cut
    off in the middle, and while a condition takes its lock again; where it is lost all the same it
    comes again.
    """
    repeated: threading.Timer | None = None
    waiting = False
    before = sys.unraisablehook

    def again() -> None:
        nonlocal repeated, waiting
        if not waiting:
            waiting = True
            repeated = threading.Timer(PAUSE, send)
            repeated.daemon = True
            repeated.start()

    def send() -> None:
        nonlocal waiting
        waiting = False
        _interrupt()

    def interrupt(number: int, frame: Any) -> None:
        if frame.f_code is RESTORE or _ignores_exceptions(frame):
            again()
        else:
            signal.default_int_handler(number, frame)

    def hook(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            again()
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        with _handling(interrupt):
            yield
    finally:
        if repeated is not None:
            with suppress(KeyboardInterrupt):  # it may just be coming
                repeated.cancel()
                repeated.join()
        sys.unraisablehook = before
    if repeated is not None:
        raise KeyboardInterrupt


@contextmanager
def _handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle Ctrl-C in the main thread, unless somebody has chosen how."""
    before = signal.getsignal(signal.SIGINT)
    chosen = before is not signal.default_int_handler
    chosen &= getattr(before, "__module__", None) != __name__
    if chosen or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ignores_exceptions(frame: Any) -> bool:
    """Tell whether a frame is called by a destructor or a callback of the garbage collector."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code in callbacks:
            return True
        frame = frame.f_back
    return False


def _interrupt() -> None:
    """Send SIGINT to the main thread, which wakes it where it waits."""
    if hasattr(signal, "pthread_kill") and (main := threading.main_thread().ident):
        signal.pthread_kill(main, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)
