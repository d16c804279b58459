"""Progress of a computation on the terminal or in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

__all__ = ["progress"]


@contextmanager
def progress(stream: IO[str] | None = None) -> Iterator[None]:
    """Show how many blocks of runs are done while dask computes in this process."""
    from dask.callbacks import Callback

    out = stream or sys.stderr
    interval = 0.2 if out.isatty() else 60.0
    started = shown = time.monotonic()
    done = total = 0

    def is_block(key: Any) -> bool:
        return isinstance(key, tuple) and str(key[0]).startswith("simulate-")

    def begin(graph: Any, state: Any) -> None:
        nonlocal total, done
        total, done = sum(map(is_block, graph)), 0

    def show(*, last: bool = False) -> None:
        elapsed = time.monotonic() - started
        left = elapsed * (total - done) / max(done, 1)
        text = f"{done} of {total} blocks simulated, {elapsed:.0f} s" + (
            f", about {left:.0f} s left" if 0 < done < total else ""
        )
        if out.isatty():
            bar = "#" * (30 * done // max(total, 1))
            out.write(f"\r[{bar:<30}] {text:<50}" + ("\n" if last else ""))
        else:
            out.write(text + "\n")
        out.flush()

    def finished(key: Any, *_: Any) -> None:
        nonlocal shown, done
        if is_block(key):
            done += 1
            if time.monotonic() - shown >= interval or done == total:
                shown = time.monotonic()
                show()

    with Callback(start_state=begin, posttask=finished):
        yield
    if out.isatty() and total:
        show(last=True)
