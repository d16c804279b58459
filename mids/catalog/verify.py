"""Checking a catalog: files against index, index against files, numbers against the simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from .. import schema
from ..errors import MidsError, printable
from ..simulation.recipe import grid, recipes_of
from ..simulation.simulate import differences
from ..simulation.simulate import replay as simulate_again
from ..storage import netcdf as io
from .index import COLUMNS, Entry

LONGEST_RUN = 60.0  # seconds that a run may take, by its flow's estimate, to be simulated again
CLOSE = 1e3  # tolerances by which crossing times of a replay elsewhere may differ


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
    skipped : int
        Runs that were not replayed, as each would take more than a minute.

    Examples
    --------
    >>> Verification(problems=("s2: the file is missing",), datasets=1, identical=0, close=0).ok
    False
    """

    problems: tuple[str, ...]
    datasets: int
    identical: int
    close: int
    skipped: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong.

        Examples
        --------
        >>> Verification(problems=(), datasets=1, identical=2, close=0).ok
        True
        """
        return not self.problems

    def __str__(self) -> str:
        """Return one line, and one for each problem."""
        runs = f"{self.identical} runs replayed bit by bit"
        if self.close:
            runs += f", {self.close} within tolerance (made elsewhere or by other versions)"
        if self.skipped:
            runs += f", {self.skipped} not, as each would take more than {LONGEST_RUN:.0f} s"
        found = "no problems" if self.ok else f"{len(self.problems)} problems:"
        return "\n  ".join([f"{self.datasets} datasets, {runs}: {found}", *self.problems])


def verify(
    entries: Mapping[str, Entry],
    path_of: Callable[[str], Path],
    strays: list[str],
    *,
    replay: int,
    progress: Callable[[str], None] | None,
) -> Verification:
    """Check the datasets of a catalog, each whatever came of the others; see `Catalog.verify`."""
    problems: list[str] = []
    counts = {"identical": 0, "close": 0, "skipped": 0}
    for key, entry in entries.items():
        if progress is not None:
            progress(key)
        try:
            path = path_of(key)
            with io.open_dataset(path, chunks={}) as ds:
                problems += [f"{path}: {text}" for text in _disagreements(entry, ds)]
                if replay and any("flow" in recipe for recipe in schema.recipes(ds).values()):
                    for outcome in _replayed(ds, replay):
                        if outcome in counts:
                            counts[outcome] += 1
                        else:
                            problems.append(f"{path}: {outcome}")
        except Exception as error:  # a foreign recipe may raise anything
            text = " ".join(printable(error).split())[:1000]
            text = text if isinstance(error, MidsError) else f"{type(error).__name__}: {text}"
            problems.append(text if entry.path in text else f"{entry.path}: {text}")
    return Verification(tuple(map(printable, problems + strays)), len(entries), **counts)


def _disagreements(entry: Entry, ds: xr.Dataset) -> list[str]:
    derived = Entry.of(entry.key, ds, sha256=entry.sha256, size=entry.bytes, path=entry.path).row()
    return [
        f"the index says {name} {entry.row()[name]!r}, but the file {derived[name]!r}; reindex"
        for name in COLUMNS
        if derived[name] != entry.row()[name]
    ]


def _replayed(ds: xr.Dataset, replay: int) -> Iterator[str]:
    """Simulate runs again, each of another dimension while there are more; what came of each."""
    dims, runs = ds.sizes.get("dim", 1), ds.sizes.get("run", 1)
    for i in np.linspace(0, dims * runs - 1, min(replay, dims * runs)).astype(int):
        sample = ds.isel(dim=[i // runs], run=[i % runs]).compute()
        seconds = sum(
            recipe.flow.run_seconds(
                recipe.target, int(sample["dim"][0]), recipe.student_rank, grid(sample, recipe)
            )
            for recipe in recipes_of(sample)[1]
            if recipe.flow is not None and recipe.student_rank is not None
        )
        if seconds > LONGEST_RUN:
            yield "skipped"
            continue
        again = simulate_again(sample).compute()
        if not (found := differences(sample, again)):
            yield "identical"
        else:
            same = _close(sample, again)
            yield "close" if same else f"a replay differs: {'; '.join(found)}"


def _close(one: xr.Dataset, two: xr.Dataset) -> bool:
    """Tell whether two runs agree in how they end, when they cross, and where they stop."""
    tolerance = CLOSE * max(float(recipe["rtol"]) for recipe in schema.recipes(one).values())
    for name, smallest in (("status", 0), ("crossing_time", 0), ("gram0", 1e-12)):
        if name in one and not np.allclose(
            one[name], two[name], rtol=tolerance, atol=smallest, equal_nan=True
        ):
            return False
    return "loss" not in one or bool(abs(one["loss"] - two["loss"]).isel(time=[0, -1]).max() < 1e-5)


def equal(one: Path, two: Path) -> bool:
    """Tell whether two files hold the same data, made in the same way at whatever time."""
    with io.open_dataset(one) as first, io.open_dataset(two) as second:
        for ds in (first, second):
            for name in ("date_created", "history"):
                ds.attrs.pop(name, None)
        return bool(first.identical(second))
