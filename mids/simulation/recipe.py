"""The recipe of a run: everything that makes it again but its dim and its index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Self

import numpy as np

from .. import flows, schema, validation
from ..errors import DatasetError, InputError
from ..flows.base import Flow, Problem
from ..flows.initial import check_initial
from ..targets.target import Target
from ..validation import FloatArray, IntArray

GIVEN = "variable"
"""Initial condition of runs that each have their own, in the variable ``initial``."""

PARTS = ("flow", "student_rank", "seed", "initial", "rtol", "time")
"""Entries of a recipe besides the target."""

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a run again but its dim and its index.

    Parameters
    ----------
    target : Target
    flow : Flow, optional
        None, as all that follows, for trajectories that were not simulated.
    student_rank, seed : int, optional
    initial : nested tuple or "variable", optional
        M(0) of all runs; "variable" where each has its own, in the variable ``initial``; None
        where it is drawn at random.
    rtol : float, optional
    time : str, optional
        Digest of the time grid, which is recorded beside the recipes: times at which a run ends,
        is judged and observed are part of what it is.

    Examples
    --------
    >>> recipe = Recipe(Target.parse("h2(z1)"), flows.TwoTimescale(), 1, 0, None, 1e-8, "0" * 16)
    >>> Recipe.from_dict(recipe.to_dict()) == recipe
    True
    """

    target: Target
    flow: Flow | None = None
    student_rank: int | None = None
    seed: int | None = None
    initial: Matrix | str | None = None
    rtol: float | None = None
    time: str | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        return schema.fingerprint(self.to_dict())

    def only(self, parts: tuple[str, ...]) -> Recipe:
        """Return the recipe without the parts that are not named."""
        dropped: dict[str, Any] = {name: None for name in PARTS if name not in parts}
        return replace(self, **dropped)

    def problem(
        self, dim: int, runs: IntArray, time: FloatArray, initial: FloatArray | None = None
    ) -> tuple[Flow, Problem]:
        """Return flow and problem of runs at a dimension; `initial` (n, r, q) if given to each."""
        if self.flow is None or None in (self.student_rank, self.seed, self.rtol):
            raise DatasetError(
                "the trajectories were not simulated, so there is nothing to replay; "
                "replay needs a dataset that mids.simulate made"
            )
        q, seed, rtol = int(self.student_rank or 0), int(self.seed or 0), float(self.rtol or 0)
        if initial is None and self.initial is not None:
            initial = np.asarray(self.initial, dtype=np.float64)
        if initial is None:
            initial = self.flow.draw_initial(self.target, q, dim, runs, seed)
        initial = np.broadcast_to(initial, (len(runs), self.target.rank, q)).copy()
        return self.flow, Problem(self.target, dim, runs, seed, initial, time, rtol)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe in types that JSON knows."""
        if self.flow is None:
            return {"target": self.target.to_dict()}
        initial = self.initial
        return {
            "target": self.target.to_dict(),
            "flow": self.flow.to_dict(),
            "student_rank": self.student_rank,
            "seed": self.seed,
            "initial": [list(row) for row in initial] if isinstance(initial, tuple) else initial,
            "rtol": self.rtol,
            "time": self.time,
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Self:
        """Read a recipe that anyone may have written; InputError says what is wrong with it."""
        for name in entry:
            validation.one_of(name, ("target", "versions", *PARTS), "entry of a recipe")
        if not isinstance(entry.get("target"), Mapping):
            raise InputError("a recipe needs a target; write recipes with mids.simulate")
        target = Target.from_dict(entry["target"])
        if not entry.keys() & set(PARTS):
            return cls(target)
        missing = [name for name in PARTS if name not in entry]
        if missing:
            raise InputError(
                f"a recipe of a simulation needs {', '.join(missing)}; write it with mids.simulate"
            )
        if not isinstance(entry["flow"], Mapping):
            raise InputError(
                f"the flow of a recipe must be an object, got {validation.shown(entry['flow'])}"
            )
        flow = flows.from_dict(entry["flow"])
        student_rank = validation.student_rank(entry["student_rank"])
        initial = entry["initial"]
        if isinstance(initial, list):
            matrix = validation.matrix(initial, "initial", target.rank, student_rank)
            checked = check_initial(matrix, target.rank, student_rank, orthonormal=flow.orthonormal)
            initial = tuple(map(tuple, checked.tolist()))
        elif initial not in (None, GIVEN):
            raise InputError(
                f"initial of a recipe must be a matrix, null or {GIVEN!r}, got "
                f"{validation.shown(initial)}"
            )
        time = entry["time"]
        if not isinstance(time, str) or len(time) != 16 or set(time) - set("0123456789abcdef"):
            raise InputError(f"time of a recipe must be a digest, got {validation.shown(time)}")
        return cls(
            target,
            flow,
            student_rank,
            validation.integer(entry["seed"], "seed", at_least=0),
            initial,
            validation.rtol(entry["rtol"]),
            time,
        )


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("numpy", "scipy", "numba")}


def versions() -> dict[str, str]:
    """Versions of the software on which the last bits of the numbers depend."""
    return _versions() | {"mids": schema.VERSION}


def grid(ds: Any, recipe: Recipe) -> np.ndarray:
    """Return the time grid of a recipe, shape (T,)."""
    known = schema.grids(ds).get(str(recipe.time))
    found = known if known is not None else ds["time"].values if "time" in ds.coords else []
    if schema.grid_digest(found) != recipe.time:
        raise DatasetError(
            "the dataset has lost the time grid of its simulation; start from the original file"
        )
    return np.asarray(found, dtype=np.float64)
