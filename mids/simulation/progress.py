"""Progress of what dask computes, as tqdm shows it: blocks of simulations, or tasks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

DELAY = 2.0  # seconds before progress is shown
REFRESH = 0.2  # seconds between two states on a terminal
LOG_INTERVAL = 60.0  # seconds between two states where there is no terminal


@contextmanager
def progress() -> Iterator[None]:
    """Show the progress of what dask computes within a ``with`` statement.

    Blocks of simulations are counted, and tasks where nothing is simulated, in this process or on
    the cluster that dask uses. What takes less than two seconds shows nothing; where the standard
    error stream is no terminal, there is one state a minute. Messages of workers about runs that
    failed, from the logger ``mids``, are repeated here.

    Yields
    ------
    None
        A context manager; nothing is bound by ``as``.

    Examples
    --------
    >>> import mids
    >>> with mids.progress():
    ...     ds = mids.simulate("h1(z1)", dim=100, runs=4).compute()
    """
    client = cluster_client()
    with _local() if client is None else _on_cluster(client):
        yield


def _bar(total: int, unit: str = " blocks") -> Any:
    from tqdm.auto import tqdm

    interval = REFRESH if sys.stderr.isatty() else LOG_INTERVAL
    return tqdm(total=total, unit=unit, delay=DELAY, mininterval=interval, maxinterval=interval)


@contextmanager
def _local() -> Iterator[None]:
    """Count in dask's own schedulers, one bar for each graph."""
    from dask.callbacks import Callback

    bars: list[Any] = []

    def begin(graph: Any, state: Mapping[str, Any]) -> None:
        tasks = [key for kind in ("ready", "waiting", "running") for key in state[kind]]
        blocks = sum(map(_is_block, tasks))
        bars.append(_bar(blocks) if blocks else _bar(len(tasks), " tasks"))

    def finished(key: Any, *_: Any) -> None:
        if bars and (bars[-1].unit == " tasks" or _is_block(key)):
            bars[-1].update()

    def over(*_: Any) -> None:
        if bars:
            bars.pop().close()

    with Callback(start_state=begin, posttask=finished, finish=over):
        yield


@contextmanager
def _on_cluster(client: Any) -> Iterator[None]:
    """Poll the scheduler of a cluster."""
    left = threading.Event()

    def ask() -> None:
        with _bar(0) as bar, suppress(OSError, ValueError):  # the computation itself reports it
            before: Mapping[str, int] = client.run_on_scheduler(_finished)
            while not left.wait(REFRESH):
                now = client.run_on_scheduler(_finished)
                kind = "simulate" if now["simulate"] > before["simulate"] else "all"
                bar.unit = " blocks" if kind == "simulate" else " tasks"
                done = now[kind] - before[kind]
                bar.total = done + now[f"{kind} to do"]
                bar.set_description_str("" if now["workers"] else "waiting for workers", False)
                bar.update(done - bar.n)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    # Failed runs are logged on the workers; this shows their warnings here.
    client.forward_logging("mids")
    try:
        yield
    finally:
        left.set()
        asking.join()
        with suppress(OSError):
            client.unforward_logging("mids")


def _finished(dask_scheduler: Any) -> dict[str, int]:
    """Return how many tasks a scheduler has finished since it began, and how many are to do."""
    found = dict.fromkeys(("simulate", "simulate to do", "all", "all to do"), 0)
    for name, prefix in dask_scheduler.task_prefixes.items():
        to_do = sum(
            prefix.states[state] for state in ("waiting", "queued", "processing", "no-worker")
        )
        for kind in {"all", name} & found.keys():
            found[kind] += prefix.state_counts["memory"]
            found[f"{kind} to do"] += to_do
    return {**found, "workers": len(dask_scheduler.workers)}


def _is_block(key: Any) -> bool:
    return isinstance(key, tuple) and str(key[0]).startswith("simulate-")


def cluster_client() -> Any:
    """Return the client of the cluster that dask computes on, if there is one."""
    # If nobody has imported distributed there is no client, and the import is slow.
    if "distributed" not in sys.modules:
        return None
    from dask.base import get_scheduler
    from distributed import default_client

    try:
        client = default_client()
    except ValueError:
        return None
    # A client may exist while dask is told to compute elsewhere.
    return client if get_scheduler() == client.get else None
