"""Two threads against one on 2 000 runs, and what dask and xarray add to the compute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import dask
import numpy as np

import mids
from mids.flows import TwoTimescale

TARGET = "h1(z1) + h1(z1)*h3(z2)"


def main() -> None:
    runs = 100 if "--smoke" in sys.argv else 2000
    repeats = 1 if "--smoke" in sys.argv else 7
    ds = mids.simulate(TARGET, dim=1e4, runs=runs, seed=1, rtol=1e-6)
    inside: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.thread_time()
            out = function(*arguments)
            inside.append(time.thread_time() - start)
            return out

        return call

    TwoTimescale.integrate = timed(TwoTimescale.integrate)  # type: ignore[method-assign]
    TwoTimescale.draw_initial = timed(TwoTimescale.draw_initial)  # type: ignore[method-assign]
    wall: dict[int, list[float]] = {1: [], 2: []}
    shares = []
    ds.compute(scheduler="synchronous")
    for _ in range(repeats):
        for workers in wall:
            inside.clear()
            start, begun = time.perf_counter(), time.process_time()
            with dask.config.set(scheduler="threads", num_workers=workers):
                ds.compute()
            wall[workers].append(time.perf_counter() - start)
            shares.append((time.process_time() - begun) / sum(inside) - 1)
    one, two = (min(values) for values in wall.values())
    print(f"\n{runs} runs of `{TARGET}` at d = 1e4 through dask's threads:")
    print(f"one thread {one:.3f} s, two threads {two:.3f} s, ratio {one / two:.2f};")
    print(
        f"dask and xarray add {100 * np.median(shares):.1f} % to the CPU time of initial "
        "conditions and integrator"
    )


if __name__ == "__main__":
    main()
