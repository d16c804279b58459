"""Progress of long computations: a line on a terminal, one line a minute in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

from .graph import CAUSES, TOPIC

__all__ = ["Progress", "causes_text", "cluster_client", "deserted_cluster", "watching"]

DELAY = 2.0
"""Seconds after which a terminal shows progress, and after which a wait for workers is told."""
REFRESH = 0.2
"""Seconds between two states on a terminal."""
LOG_INTERVAL = 60.0
"""Seconds between two lines where there is no terminal."""


class Progress:
    """Counts what is done and shows it: rate, time left, failures so far."""

    def __init__(
        self,
        total: int = 0,
        unit: str = "runs",
        doing: str = "",
        stream: IO[str] | None = None,
    ) -> None:
        self.total = total
        self.unit = unit
        self.doing = doing
        self.kept = 0
        self.done = 0
        self.causes: Counter[str] = Counter()
        self._out = stream or sys.stderr
        self._terminal = self._out.isatty()
        self._interval = REFRESH if self._terminal else LOG_INTERVAL
        self._started = time.monotonic()
        self._next = self._started + (DELAY if self._terminal else self._interval)
        self._shown = False
        self._width = 0
        self._address = ""
        self._deserted = 0.0
        self._told = False
        self._lock = threading.Lock()

    def add(self, count: int, causes: Mapping[str, int] | None = None) -> None:
        """Count what has been done and the causes of failures; show it if it is time to."""
        self.done += count
        self.causes.update(causes or {})
        self.tick()

    def keep(self, count: int, causes: Mapping[str, int] | None = None) -> None:
        """Count what an earlier call had done, which says nothing about the rate."""
        self.kept += count
        self.causes.update(causes or {})

    def tick(self) -> None:
        """Show the state if it is time to."""
        with self._lock:
            now = time.monotonic()
            if now >= self._next:
                self._next = now + self._interval
                self._write(self.text())

    def wait_for_workers(self, address: str) -> None:
        """Note the address of a cluster that has no workers, or "" once there are some.

        A log hears of it once; a terminal shows how long it has been.
        """
        if address != self._address:
            self._address, self._deserted, self._told = address, time.monotonic(), False
        if self._waits() and not self._told and not self._terminal:
            self._told = True
            self.say(self.text())

    def _waits(self) -> bool:
        return bool(self._address) and time.monotonic() - self._deserted >= DELAY

    def text(self) -> str:
        """Return the state in words."""
        if self._waits():
            waited = _duration(time.monotonic() - self._deserted)
            return f"waiting for workers of {self._address}, {waited}"
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = self.done / elapsed
        done = self.done + self.kept
        if self.doing and not self.total and not done:
            return f"{self.doing}, {_duration(elapsed)}"
        parts = [f"{done} of {self.total} {self.unit}" if self.total else f"{done} {self.unit}"]
        if self.done:
            parts.append(f"{rate:.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
        if self.causes:
            parts.append(f"{self.causes.total()} failed")
        if self.done and self.total > done:
            parts.append(f"about {_duration((self.total - done) / rate)} left")
        else:
            parts.append(_duration(elapsed))
        return ", ".join(parts)

    def finish(self) -> None:
        """Show the last state, if anything was shown or what is done took long."""
        long = time.monotonic() - self._started >= DELAY
        if self._shown or (long and self.done + self.kept):
            self._write(self.text())
            if self._terminal:
                self._out.write("\n")
                self._out.flush()

    def say(self, text: str) -> None:
        """Write a line of its own."""
        if self._terminal and self._shown:
            self._out.write("\n")
        self._out.write(text + "\n")
        self._out.flush()

    def _write(self, text: str) -> None:
        self._shown = True
        if self._terminal:
            if self.total:
                filled = min(30 * (self.done + self.kept) // self.total, 30)
                text = f"[{'#' * filled:<30}] {text}"
            self._out.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._out.write(text + "\n")
        self._out.flush()


@contextmanager
def watching(
    total: int = 0, doing: str = "working", stream: IO[str] | None = None
) -> Iterator[Progress]:
    """Show the progress of what dask computes, in this process or on a cluster.

    Counts runs while simulations are computed, tasks otherwise, of which a cluster tells the last
    ones; where there is nothing to count, seconds.
    """
    from dask.callbacks import Callback

    progress = Progress(doing=doing, stream=stream)
    client = cluster_client()

    def begin(graph: Mapping[Any, Any], state: Any) -> None:
        progress.unit = "runs" if any(map(_is_block, graph)) else "tasks"
        progress.total = total if progress.unit == "runs" and total else 0
        if progress.unit == "tasks":
            progress.done, progress.total = 0, len(graph)

    def finished(key: Any, result: Any, *_: Any) -> None:
        if progress.unit == "tasks":
            progress.add(1)
        elif _is_block(key):
            causes = Counter(result[CAUSES].values())
            progress.add(len(result["status"]), causes)

    seen: set[str] = set()

    def told(event: tuple[float, list[Any]]) -> None:
        block, runs, causes = event[1]
        if block not in seen:  # simulated again where a worker was lost
            seen.add(block)
            progress.total = total
            progress.add(runs, causes)

    def over(*_: Any) -> None:
        if progress.unit == "tasks":  # what follows is none of them
            progress.done = progress.total = 0

    left = threading.Event()
    served = client is None
    others = set() if client is None else set(client.futures)

    def count() -> None:
        """Count the tasks whose results the client of a cluster has asked for."""
        asked = [state.status for key, state in list(client.futures.items()) if key not in others]
        progress.unit, progress.total, progress.done = "tasks", len(asked), asked.count("finished")

    def tick() -> None:
        nonlocal served
        while not left.wait(0.2):
            if client is not None and not total and not seen:
                count()
            if not served:
                address = deserted_cluster()
                progress.wait_for_workers(address)
                served = not address
            progress.tick()

    ticking = threading.Thread(target=tick, daemon=True)
    if client is not None:
        client.subscribe_topic(TOPIC, told)
    ticking.start()
    try:
        with Callback(start_state=begin, posttask=finished, finish=over):
            yield progress
    finally:
        left.set()
        ticking.join()
        if client is not None:
            client.unsubscribe_topic(TOPIC)
        progress.finish()


def causes_text(causes: Mapping[str, int], runs: int) -> str:
    """Say how many runs failed and why, most frequent cause first."""
    listed = "; ".join(f"{n} with {cause}" for cause, n in Counter(causes).most_common(3))
    return f"{sum(causes.values())} of {runs} runs failed (status 3): {listed}"


def _is_block(key: Any) -> bool:
    return isinstance(key, tuple) and str(key[0]).startswith("simulate-")


def cluster_client() -> Any:
    """Return the client of the cluster that dask computes on, if there is one."""
    if "distributed" not in sys.modules:
        return None
    from dask.base import get_scheduler
    from distributed import default_client

    try:
        client = default_client()
    except ValueError:
        return None
    return client if get_scheduler() == client.get else None


def deserted_cluster() -> str:
    """Return the address of the cluster that dask computes on if it has no workers, or ""."""
    client = cluster_client()
    if client is None:
        return ""
    with suppress(OSError):  # whoever computes there will hear of it
        if not client.nthreads():
            return str(client.scheduler.address)
    return ""


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 100:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{days:.1f} days"
