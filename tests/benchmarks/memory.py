"""Peak memory of writing a lazy dataset: set by its blocks, not by its size."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import dask
import numpy as np

import mids


def written(total: float, folder: Path) -> tuple[float, float]:
    """Bytes of a dataset of at least `total` bytes, and peak memory after writing it."""
    time = np.append(0.0, np.logspace(-2, 12, 4000))
    one, two = (mids.simulate("h1(z1)", dim=100, runs=n, time=time).nbytes for n in (1, 2))
    runs = int(np.ceil(total / (two - one)))
    ds = mids.simulate("h1(z1)", dim=100, runs=runs, time=time, rtol=1e-3)
    with dask.config.set(scheduler="threads", num_workers=2):
        ds.mi.to_netcdf(folder / "large.nc")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    return ds.nbytes, peak


def main() -> None:
    total = 2e7 if "--smoke" in sys.argv else 4e9
    with tempfile.TemporaryDirectory() as folder:
        size, peak = written(total, Path(folder))
    print(f"\nwriting a lazy dataset of {size / 1e9:.2f} GB: peak memory {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
