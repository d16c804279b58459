"""Checking a catalog: files against index, index against files, numbers against the simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from .. import schema
from ..errors import MidsError
from ..simulation.replay import differences
from ..simulation.replay import replay as simulate_again
from ..storage import netcdf as io
from .entry import COLUMNS, Entry

if TYPE_CHECKING:
    from .catalog import Catalog

__all__ = ["Verification", "verify"]

CLOSE = 1e3
"""Crossing times of a replay elsewhere may differ by `CLOSE` times the tolerance of the run."""


@dataclass(frozen=True)
class Verification:
    """What `Catalog.verify` found.

    Attributes
    ----------
    problems : tuple of str
        Everything that is wrong, a sentence each; empty if nothing is.
    datasets : int
        How many were checked.
    identical : int
        Runs whose replay is the stored one bit by bit, as on the machine that made them.
    close : int
        Runs whose replay agrees within the integrator's tolerance, as with other versions.

    Examples
    --------
    >>> Verification(problems=("s2: the file is missing",), datasets=1, identical=0, close=0).ok
    False
    """

    problems: tuple[str, ...]
    datasets: int
    identical: int
    close: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        """Return one line, and one for each problem."""
        runs = f"{self.identical} runs replayed bit by bit"
        if self.close:
            runs += f", {self.close} within tolerance (made elsewhere or by other versions)"
        found = "no problems" if self.ok else f"{len(self.problems)} problems:"
        return "\n  ".join([f"{self.datasets} datasets, {runs}: {found}", *self.problems])


def verify(
    catalog: Catalog, *, replay: int, progress: Callable[[str], None] | None
) -> Verification:
    """Check all datasets of a catalog; see `Catalog.verify`."""
    problems: list[str] = []
    counts = {"identical": 0, "close": 0}
    entries = catalog.entries
    for key, entry in entries.items():
        if progress is not None:
            progress(key)
        try:
            path = catalog.path(key)
            with io.open_dataset(path, chunks={}) as ds:
                problems += [f"{path}: {text}" for text in _disagreements(entry, ds)]
                if replay and any("flow" in recipe for recipe in schema.recipes(ds).values()):
                    for name, number in _replayed(ds, replay, problems, str(path)).items():
                        counts[name] += number
        except MidsError as error:
            text = " ".join(str(error).split())
            problems.append(text if entry.path in text else f"{entry.path}: {text}")
    problems += catalog.strays()
    return Verification(tuple(problems), len(entries), **counts)


def _disagreements(entry: Entry, ds: xr.Dataset) -> list[str]:
    derived = Entry.of(entry.key, ds, sha256=entry.sha256, size=entry.bytes).row()
    return [
        f"the index says {name} {entry.row()[name]!r}, but the file {derived[name]!r}; reindex"
        for name in COLUMNS
        if derived[name] != entry.row()[name]
    ]


def _replayed(ds: xr.Dataset, replay: int, problems: list[str], path: str) -> Mapping[str, int]:
    """Simulate runs again, each of another dimension while there are more."""
    dims, runs = ds.sizes.get("dim", 1), ds.sizes.get("run", 1)
    counts = {"identical": 0, "close": 0}
    for i in np.linspace(0, dims * runs - 1, min(replay, dims * runs)).astype(int):
        sample = ds.isel(dim=[i // runs], run=[i % runs]).compute()
        again = simulate_again(sample).compute()
        found = differences(sample, again)
        if not found:
            counts["identical"] += 1
        elif _close(sample, again):
            counts["close"] += 1
        else:
            problems.append(f"{path}: a replay differs: {'; '.join(found)}")
    return counts


def _close(one: xr.Dataset, two: xr.Dataset) -> bool:
    """Tell whether two runs agree in how they end, when they cross, and where they stop."""
    tolerance = CLOSE * max(float(recipe["rtol"]) for recipe in schema.recipes(one).values())
    for name in ("status", "crossing_time", "gram0"):
        if name in one and not np.allclose(
            one[name],
            two[name],
            rtol=tolerance,
            atol=0 if name != "gram0" else 1e-12,
            equal_nan=True,
        ):
            return False
    return "loss" not in one or bool(abs(one["loss"] - two["loss"]).isel(time=[0, -1]).max() < 1e-5)
