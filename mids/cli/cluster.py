"""Where a command computes: threads of this process, local workers, or a cluster."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import click

from .. import validation
from ..errors import ClusterError, InputError


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options ``--scheduler`` and ``--workers`` to a command."""
    workers = click.option(
        "--workers", type=int, metavar="N", help="Compute in N processes with one thread each."
    )
    scheduler = click.option(
        "--scheduler", metavar="ADDRESS", help="Compute on a dask cluster: tcp://host:8786."
    )
    return scheduler(workers(command))


@contextmanager
def computing_on(scheduler: str | None, workers: int | None) -> Iterator[None]:
    """Make dask compute on the cluster that the options name, or in threads without them."""
    if scheduler is None and workers is None:
        yield
        return
    if scheduler is not None and workers is not None:
        raise InputError("--scheduler and --workers were both given; pass one of them")
    import dask

    use = "computing on a cluster needs dask.distributed"
    distributed = validation.package("distributed", use, "distributed")
    with _log_levels() as silence, ExitStack() as stack:
        if workers is not None:
            count = validation.integer(workers, "--workers", at_least=1)
            # By default a worker is given up that is away 15 s after it was lost, though it has
            # come back in between; with the last one the command would wait forever.
            stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "1 h"}))
            with _deaf_processes():
                cluster = distributed.LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    memory_limit=0.9 / count,  # of the machine's memory
                    dashboard_address=":0",
                    silence_logs="CRITICAL",  # errors of tasks come with their results
                )
            stack.push(_ending(cluster))
        try:
            client: Any = distributed.Client(scheduler or cluster, timeout="10s")
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ClusterError(
                f"cannot reach a dask scheduler at {scheduler} ({reason}); start one with "
                "dask scheduler and pass the address it prints, such as tcp://host:8786"
            ) from None
        stack.push(_ending(client))
        client.loop.asyncio_loop.set_exception_handler(_handle_exception)
        stack.callback(silence)
        yield


@contextmanager
def _deaf_processes() -> Iterator[None]:
    """Start processes that Ctrl-C in the terminal does not reach: this one ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ending(used: Any) -> Callable[..., None]:
    """Return what ends a client or cluster; one that is slow to end is no failure of a command."""

    def end(*_: Any) -> None:
        with suppress(OSError):
            used.__exit__(None, None, None)

    return end


def _handle_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what fails in an event loop, but not what nobody waits for after an interruption."""
    if not context["message"].endswith(("was never retrieved", "destroyed but it is pending!")):
        loop.default_exception_handler(context)


@contextmanager
def _log_levels() -> Iterator[Callable[[], None]]:
    """Give a function that silences what is logged when connections are cut, until the end."""
    names = ("distributed", "distributed.client", "tornado.application", "asyncio")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]

    def silence() -> None:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)

    try:
        yield silence
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
