"""The registry of variables: dims, type, label and meaning of all that a dataset may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = [
    "COORDINATES",
    "DIMENSIONS",
    "LEVELS",
    "OF_ONE_RUN",
    "STATUS",
    "VARIABLES",
    "Variable",
]

LEVELS = (0.1, 0.5, 0.9)
"""Overlaps at which crossing times are recorded."""

STATUS = ("converged", "censored", "trapped", "failed")
"""Meanings of the values 0, 1, 2, 3 of the variable ``status``."""

DIMENSIONS: Mapping[str, str] = {
    "dim": "ambient dimension d",
    "run": "independent runs",
    "time": "points of the time grid",
    "mode": "Hermite modes of the target",
    "direction": "learned directions, most learned first",
    "axis": "coordinates of the link function",
    "axis_t": "coordinates of the link function, as columns",
    "student": "columns of the student's frame",
    "level": "overlaps at which crossing times are recorded",
    "n": "numbers of samples of an empirical loss",
    "neuron": "neurons of a two-layer network",
    "neuron_t": "neurons, as columns",
    "byte": "bytes of a fingerprint",
}
OF_ONE_RUN = tuple(name for name in DIMENSIONS if name not in ("dim", "run", "n"))
"""Dimensions that no sweep adds."""


@dataclass(frozen=True)
class Variable:
    """One entry of the schema; ``"str"`` is text of any length.

    `compact` is a narrower type for compact files where it is accurate enough: of curves that are
    drawn, fitted and compared, but not of times, or of what a replay starts from.
    """

    dims: tuple[str, ...]
    dtype: str
    long_name: str
    meaning: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    compact: str | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the variable in a dataset; everything is dimensionless."""
        return {**self.required, "comment": self.meaning}

    @property
    def required(self) -> dict[str, Any]:
        """Those of the attributes that a dataset must have."""
        units = {} if self.dtype == "str" else {"units": "1"}
        return {"long_name": self.long_name, **units, **self.attrs}

    @property
    def dtypes(self) -> str:
        """The types it may have, for people."""
        return self.dtype if self.compact is None else f"{self.dtype} or {self.compact}"

    def accepts(self, dtype: np.dtype[Any]) -> bool:
        """Tell whether an array of this type may hold the variable."""
        if self.dtype == "str":
            return dtype.kind in "UT"
        return any(dtype == np.dtype(name) for name in (self.dtype, self.compact) if name)


def _flags(*meanings: str) -> dict[str, Any]:
    """Attributes of a variable whose values 0, 1, ... have meanings."""
    values = np.arange(len(meanings), dtype=np.int8)
    return {"flag_values": values, "flag_meanings": " ".join(meanings)}


VARIABLES: Mapping[str, Variable] = {
    "loss": Variable(
        ("dim", "run", "time"),
        "float64",
        "loss",
        "objective of the flow, with the factor 1/2 (paper eq. 31)",
        compact="float32",
    ),
    "risk": Variable(
        ("dim", "run", "time"),
        "float64",
        "population risk",
        "population risk with the factor 1/2, where it differs from the objective",
        compact="float32",
    ),
    "overlap": Variable(
        ("dim", "run", "time", "direction"),
        "float64",
        "overlap",
        "eigenvalues of G in [0, 1], descending: squared cosines of the principal angles",
        compact="float32",
    ),
    "gram": Variable(
        ("dim", "run", "time", "axis", "axis_t"),
        "float64",
        "summary statistic G(t)",
        "G(t) = M(t) M(t)^T: the learned subspace, in the coordinates of the link function",
        compact="float32",
    ),
    "correlation": Variable(
        ("dim", "run", "time", "axis", "student"),
        "float64",
        "correlation matrix M(t)",
        "M(t) = W*^T W(t), for flows on M",
        compact="float32",
    ),
    "link": Variable(
        ("dim", "run", "time", "mode"),
        "float64",
        "coefficient of the student on the mode",
        "E f(W^T x) H_beta(W*^T x), f the student's link, for flows that learn it: the "
        "coefficient of the student on the mode beta of the target, alpha_beta where that is "
        "learned",
        compact="float32",
    ),
    "energy": Variable(
        ("dim", "run", "time", "mode"),
        "float64",
        "contribution of the mode to h(G)",
        "alpha_beta (A_G f*)_beta; sums over mode to h(G), which is |f*|^2 - 2 loss where the "
        "link is at its optimum without ridge",
        compact="float32",
    ),
    "gram0": Variable(
        ("dim", "run", "axis", "axis_t"),
        "float64",
        "initial summary statistic G(0)",
        "G(0) = M(0) M(0)^T",
    ),
    "crossing_time": Variable(
        ("dim", "run", "direction", "level"),
        "float64",
        "time at which the overlap first reaches the level",
        "first time at which the direction's overlap reaches the level, from the dense output "
        "of the integrator and not from the grid; NaN if it never does",
    ),
    "stage_duration": Variable(
        ("dim", "run", "direction"),
        "float64",
        "time from the previous direction's overlap of 1/2 to this one's",
        "difference of crossing times at level 0.5, kept apart by the integrator: exact where "
        "the times themselves, of order d^(s - 1), are too large to be subtracted",
    ),
    "status": Variable(
        ("dim", "run"),
        "int8",
        "how the run ended",
        "0 converged; 1 censored: still on a plateau at the last time; 2 trapped; 3 failed",
        _flags(*STATUS),
    ),
    "n_steps": Variable(
        ("dim", "run"),
        "int64",
        "integration steps",
        "steps the integrator accepted",
    ),
    "n_rhs": Variable(
        ("dim", "run"),
        "int64",
        "evaluations of the right-hand side",
        "how often the integrator evaluated the flow",
    ),
    "initial": Variable(
        ("dim", "run", "axis", "student"),
        "float64",
        "initial correlation matrix M(0)",
        "M(0) = W*^T W(0), where the flow depends on more than G(0), or where each run was "
        "given its own",
    ),
    "recipe": Variable(
        ("dim", "run", "byte"),
        "uint8",
        "fingerprint of the recipe",
        "names the recipe of the run in the attribute mids_recipes: the 32 bytes of the SHA-256 "
        "of its canonical JSON, apart, so that no statistic over several recipes is one of them",
    ),
    "neuron_overlap": Variable(
        ("dim", "run", "time", "neuron", "axis"),
        "float64",
        "correlation of the neuron with the axis",
        "m_j = W*^T w_j of neuron j: its cosines where weights have unit norm",
        compact="float32",
    ),
    "neuron_gram": Variable(
        ("dim", "run", "time", "neuron", "neuron_t"),
        "float64",
        "products of the weights of two neurons",
        "Q = W^T W",
        compact="float32",
    ),
    "second_layer": Variable(
        ("dim", "run", "time", "neuron"),
        "float64",
        "second layer",
        "a_j, the weight of neuron j in the network",
        compact="float32",
    ),
    "neuron_crossing_time": Variable(
        ("dim", "run", "neuron", "level"),
        "float64",
        "time at which the neuron's overlap first reaches the level",
        "first time at which the neuron's squared cosine with the nearest direction (axis of "
        "the link, or index vector of an additive target) reaches the level; NaN if it never "
        "does",
    ),
    "nearest": Variable(
        ("dim", "run", "neuron"),
        "int64",
        "direction nearest to the neuron at the end",
        "its number, from 0; -1 where the squared cosine is below 1/2, or as large with another "
        "one, as at their average. A permutation where every direction has one neuron",
    ),
    "coverage": Variable(
        ("dim", "run"),
        "int64",
        "directions that neurons have reached",
        "number of directions that are the nearest of some neuron at the end, squared cosine "
        "1/2 at least",
    ),
    "success": Variable(
        ("dim", "run"),
        "int8",
        "whether the run succeeded",
        "1 if all directions that the student can hold were learned at the end of the run, else 0",
        _flags("no", "yes"),
    ),
    "final_overlap": Variable(
        ("dim", "run", "direction"),
        "float64",
        "overlap at the end of the run",
        "the variable overlap at the last time",
    ),
    "final_risk": Variable(
        ("dim", "run"),
        "float64",
        "population risk at the end of the run",
        "the variable risk at the last time",
    ),
}
"""Data variables by name."""

COORDINATES: Mapping[str, Variable] = {
    "dim": Variable(("dim",), "int64", "ambient dimension d", "ambient dimension d"),
    "run": Variable(("run",), "int64", "run", "index of the run, part of its random stream"),
    "time": Variable(
        ("time",),
        "float64",
        "time",
        "time of the flow, increasing; no physical unit",
    ),
    "samples": Variable(
        ("time",),
        "int64",
        "samples used",
        "samples that a stochastic flow has drawn by this time",
    ),
    "n": Variable(("n",), "int64", "samples", "number of samples of the empirical loss"),
    "ratio": Variable(
        ("dim", "n"),
        "float64",
        "samples in units of d^s",
        "n / d^s, s the largest leap",
    ),
    "direction": Variable(
        ("direction",),
        "int64",
        "direction",
        "rank of the direction, 0 for the most learned",
    ),
    "neuron": Variable(("neuron",), "int64", "neuron", "number of the neuron"),
    "level": Variable(("level",), "float64", "overlap level", "overlap that is reached"),
    "degree": Variable(("mode",), "int64", "degree of the mode", "total degree |beta|"),
    "exponents": Variable(
        ("mode", "axis"),
        "int64",
        "multi-index of the mode",
        "the multi-index beta",
    ),
    "mode": Variable(("mode",), "str", "mode", 'text such as "h1(z1)h3(z2)"'),
}
"""Coordinates by name; those named like a dimension are required wherever that is used."""
