"""Many tasks with results, run where dask computes, a few at a time."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager
from typing import Any

from ..errors import ClusterError
from ..simulation.progress import cluster_client

__all__ = ["out_of_reach", "run_tasks"]

ATTEMPTS = 5
"""How often a task may be the one that a worker was lost with, before it is given up."""


def run_tasks(
    function: Callable[..., Any],
    tasks: Iterable[tuple[str, tuple[Any, ...]]],
    tick: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, Any]]:
    """Call a function with many arguments where dask computes; yield results as they come.

    Tasks are taken one by one, only a few more than there are workers, so that there may be
    millions. The first error ends everything: waiting tasks are dropped, running ones finish.
    """
    waiting = iter(tasks)
    running: dict[Future[Any], tuple[str, tuple[Any, ...]]] = {}
    lost: dict[str, int] = {}
    executor, slots, on_cluster = _executor()

    def submit(name: str, arguments: tuple[Any, ...]) -> None:
        with out_of_reach():
            running[executor.submit(function, *arguments)] = (name, arguments)

    try:
        while True:
            while len(running) < 2 * max(slots(), 1) and (task := next(waiting, None)):
                submit(*task)
            if not running:
                break
            done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            tick()
            for future in done:
                name, arguments = running.pop(future)
                try:
                    result = future.result()
                except (CancelledError, BrokenExecutor) as error:
                    raise ClusterError(f"the workers are gone ({_reason(error)})") from None
                except Exception as error:
                    if type(error).__name__ != "KilledWorker":  # of an optional package
                        raise
                    lost[name] = lost.get(name, 0) + 1
                    if lost[name] >= ATTEMPTS:
                        raise ClusterError(
                            f"{name} has lost its worker again and again; give the workers more "
                            "memory, or use fewer runs in a task (chunks=...)"
                        ) from None
                    submit(name, arguments)
                    continue
                yield name, result
    finally:
        for future in running:
            future.cancel()
        # Threads and processes of this machine finish what they have begun; a cluster is only told
        # to drop the rest, for it may be gone.
        executor.shutdown(wait=not on_cluster)


@contextmanager
def out_of_reach() -> Iterator[None]:
    """Start processes that Ctrl-C in the terminal does not reach: this one ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # not POSIX
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # when it starts it lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # one that came meanwhile comes now


def _executor() -> tuple[Executor, Callable[[], int], bool]:
    """Return an executor for what dask computes on, its size, and whether it is a cluster."""
    import dask.multiprocessing
    from dask.base import get_scheduler
    from dask.local import get_sync
    from dask.system import CPU_COUNT

    client = cluster_client()
    if client is not None:
        executor: Executor = client.get_executor(pure=False)
        return executor, lambda: sum(client.nthreads().values()), True
    scheduler = get_scheduler()  # None where nothing is chosen: threads
    count = 1 if scheduler is get_sync else dask.config.get("num_workers", None) or CPU_COUNT
    if scheduler is dask.multiprocessing.get:
        from multiprocessing import get_context

        context = get_context(dask.config.get("multiprocessing.context", "spawn"))
        executor = ProcessPoolExecutor(count, mp_context=context)
    else:
        executor = ThreadPoolExecutor(count)
    return executor, lambda: count, False


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
