"""Two-layer networks: their parameters, how they start, and what is observed of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .. import validation
from ..errors import InputError
from ..schema import LEVELS
from ..targets.basis import ACTIVATIONS, hermite_series
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Flow, Neurons, Problem, Swept
from .initial import stream
from .network_target import IMPLICIT, duration, monomials, pulls, reached
from .observables import CENSORED, CONVERGED, FAILED, TRAPPED
from .time_grid import chi_squared_quantile, logarithmic

__all__ = ["NetworkFlow", "Path", "gram"]

GRAM = 4
"""Branch of a run's random streams for the directions of neurons orthogonal to the target."""
SMALL = 16
"""Neurons or directions up to which crossings of the span's overlaps are followed."""
LARGEST_STATE = 4096
"""Entries up to which overlaps of neurons are kept at every time."""
LARGEST_NEURONS = 4096
LARGEST_PATH = 2**30
"""Entries up to which the products of neurons are held at all times of a run."""
GLOBAL = 1e-6
"""Population risk, relative to ``|f*|^2``, that counts as none."""
STILL = 0.02
"""Change of an overlap, in as long a time again, that counts as none."""
LATE = 0.01
"""Fraction of neurons whose start the default time grid leaves out."""


@dataclass(frozen=True)
class Path:
    """What is known of a run, at each time of the grid; NaN after a failure.

    Shapes: M (T, p, rank); Q (T, p, p); layer (T, p); neuron_crossing (p, levels); crossing
    (rank or 0, levels); counts (2,). `ended` is 0 at the end of the time, 1 at rest, 2 given up.
    """

    M: FloatArray
    Q: FloatArray
    layer: FloatArray
    neuron_crossing: FloatArray
    crossing: FloatArray
    counts: IntArray
    ended: int


@dataclass(frozen=True, kw_only=True)
class NetworkFlow(Flow):
    """Dynamics of a network ``f(x) = sum_j a_j sigma(w_j . x)``; subclasses say which."""

    fast_link: ClassVar[bool] = False
    orthonormal: ClassVar[bool] = False
    tensors: ClassVar[bool] = False
    neurons: int | Swept = 1
    activation: Any = "erf"
    loss: str | Swept = "squared"
    readout: str | Swept = "fixed"
    epsilon: float | Swept | None = None
    second_layer: Any = 1.0
    norm: str | Swept = "spherical"
    degree: int | Swept | None = None
    step: float | Swept = 0.0
    batch: int | Swept = 1
    noise: float | Swept = 0.0
    _series: FloatArray = field(init=False, repr=False, compare=False)
    _left_out: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the parameters."""
        p = validation.integer(self.neurons, "neurons", at_least=1)
        if p > LARGEST_NEURONS:
            raise InputError(
                f"neurons must be at most {LARGEST_NEURONS}, whose Gram matrix fits in memory, got "
                f"{p}; use fewer"
            )
        validation.one_of(self.loss, ("squared", "correlation"), "loss")
        validation.one_of(self.readout, ("fixed", "trained"), "readout")
        validation.one_of(self.norm, ("spherical", "free"), "norm")
        if self.readout == "trained" and self.loss == "correlation":
            raise InputError(
                "a trained readout grows without bound under the correlation loss; take "
                'loss="squared" or readout="fixed"'
            )
        if self.readout == "fixed" and self.epsilon is not None:
            raise InputError(
                "epsilon is the time scale of a trained readout, got "
                f'{validation.shown(self.epsilon)} with readout="fixed"; leave it out or pass '
                'readout="trained"'
            )
        if self.norm == "free" and self.loss == "correlation":
            raise InputError(
                "free norms grow without bound under the correlation loss; take "
                'loss="squared" or norm="spherical"'
            )
        epsilon = 1.0 if self.readout == "trained" and self.epsilon is None else self.epsilon
        if epsilon is not None:
            epsilon = validation.number(epsilon, "epsilon", above=0.0)
        given = self.second_layer
        if isinstance(given, Mapping):  # as `to_dict` writes it
            given = [given.get(str(j), given.get(j)) for j in range(len(given))]
        layer = validation.finite_array(given, "second_layer")
        if layer.ndim > 1 or (layer.ndim == 1 and len(layer) != p):
            raise InputError(
                f"second_layer must be one number or {p}, one for each neuron, got shape "
                f"{layer.shape}"
            )
        if self.readout == "fixed" and not layer.any():
            raise InputError(
                "a fixed second layer of zeros never moves; give another second_layer, or pass "
                'readout="trained"'
            )
        if callable(self.activation):
            raise InputError(
                "an activation is given by name or by its Hermite coefficients, got a function; "
                "pass those, which it has if its square has a mean under the Gaussian measure"
            )
        series, left_out = hermite_series(self.activation, self.degree)
        truncated = {*ACTIVATIONS} - {"quadratic"}
        if self.degree is not None and str(self.activation).strip() not in truncated:
            raise InputError("degree is for activations that are no polynomials; leave it out")
        named = isinstance(self.activation, str)
        activation: Any = self.activation if named else tuple(series.tolist())
        if self.norm == "free" and left_out and activation not in ("erf", "relu"):
            raise InputError(
                f"free norms need a polynomial activation, erf or relu, got {activation!r}, whose "
                'coefficients at other norms are not known; take norm="spherical"'
            )
        values: dict[str, Any] = {
            "neurons": p,
            "activation": activation,
            "epsilon": epsilon,
            "second_layer": float(layer) if layer.ndim == 0 else tuple(layer.tolist()),
            "_series": series,
            "_left_out": left_out,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def truncation_error(self) -> float:
        """L2 norm of what the Hermite series of the activation leaves out; 0 for polynomials.

        Examples
        --------
        >>> from mids.flows import TwoLayer
        >>> TwoLayer(activation="h3").truncation_error
        0.0
        >>> 0.01 < TwoLayer(activation="relu").truncation_error < 0.1
        True
        """
        return self._left_out

    @property
    def note(self) -> str:
        """What the Hermite series leaves out."""
        series = f"the Hermite series of {self.activation} up to degree {len(self._series) - 1}"
        return f"{series} leaves out an L2 norm of {self._left_out:.2g}" if self._left_out else ""

    def student_rank(self, target: Target) -> int:
        """Return the number of neurons."""
        return self.neurons

    def theory(self, target: Target) -> str:
        """Neurons, where they do not act on each other; the exit, while they do not yet.

        That is on one direction, by an activation without linear part. Samples make neurons wander,
        and only a linear growth is faster from the start on.
        """
        found = self.neurons_of(target)
        if found is None or self.planted_target(target) is not None:
            return super().theory(target)
        if not found.rate and (self.neurons == 1 or self.loss == "correlation"):
            return "neurons"
        seen = pulls(target, self._series)[0] if target.rank == 1 else {}
        starts = bool(seen) and not self._series[1] and (not found.rate or 2 in seen)
        return "start" if starts else ""

    def neurons_of(self, target: Target) -> Neurons | None:
        """Neurons of unit norm with a fixed second layer."""
        if self.norm != "spherical" or self.epsilon is not None:
            return None
        rate, squared = self.step / self.batch, self.loss == "squared"
        return Neurons(self._series, self._layer.copy(), squared, rate, self.noise)

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError if the student's rank is not the number of neurons, or no pull is left.

        The memory of a run is that of M and Q.
        """
        if student_rank != self.neurons:
            raise InputError(
                f"the flow {self.name!r} has neurons={self.neurons}, got student_rank="
                f"{student_rank}; leave student_rank out, or give as many neurons"
            )
        degrees = np.unique(monomials(target).degrees)
        if not any(self._series[k] for k in degrees if 0 < k < len(self._series)):
            raise InputError(
                "activation and target have no Hermite degree in common (the activation has "
                f"{np.flatnonzero(self._series).tolist()}, the target {degrees.tolist()}), so that "
                "neurons never see the target; choose another activation"
            )

    def draw_initial(
        self, target: Target, student_rank: int, dim: int, runs: IntArray, seed: int
    ) -> FloatArray:
        """Correlations of neurons that are uniform on the sphere, shape (runs, rank, neurons)."""
        out = np.empty((len(runs), target.rank, student_rank))
        for row, run in enumerate(np.asarray(runs).tolist()):
            rng = stream(seed, dim, run)
            # m = g / (|g|^2 + chi^2_{d-r})^(1/2): uniform on the sphere, without d numbers.
            normal = rng.standard_normal((student_rank, target.rank))
            rest = rng.chisquare(dim - target.rank, student_rank)
            out[row] = (normal / np.sqrt((normal**2).sum(axis=1) + rest)[:, None]).T
        return out

    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Logarithmic grid that covers the escapes of all but one in a hundred neurons.

        Where several directions have a part of degree 1, it draws neurons to their average first: a
        plateau that higher degrees leave at the rate ``k (k - 1) c m^(k - 2)``. Under the squared
        loss neurons of one degree k >= 3 may cancel in pairs first. As a dipole, of size
        ``alpha m^(k - 1) / 2 a c``, a pair moves by ``m' = k (k - 1) alpha^2 m^(2 k - 3) / 2``.
        """
        layers = np.abs(self._layer[self._layer != 0]) if np.any(self.second_layer) else np.ones(1)
        start = math.sqrt(chi_squared_quantile(LATE, target.rank) / dim)
        last, fastest = 0.0, math.inf
        odd, layer = not self._series[::2].any(), self._layer
        # Only implicit steps come so far, which are for few unknowns.
        few = self.neurons * (target.rank + self.neurons / 2) <= IMPLICIT
        cancel = self.loss == "squared" and self.neurons > 1 and not self.step and few
        cancel &= bool(odd or layer.min() < 0.0 < layer.max())
        found = pulls(target, self._series).values()
        shared = sum(pull.get(1, 0.0) > 0 for pull in found)
        for pull in found:
            seen = [(k, strength) for k, strength in pull.items() if strength]
            if seen:
                higher = [
                    duration(start, 2, 0.5 * k * (k - 1) * c * layers.min() * shared ** (1 - k / 2))
                    for k, c in seen
                    if k > 1 and shared > 1 and pull.get(1, 0.0) > 0
                ]
                alone = [duration(start, k, layers.min() * c) for k, c in seen]
                if cancel and len(seen) == 1 and seen[0][0] > 2:
                    (k, c) = seen[0]
                    alone = [duration(start, 2 * (k - 1), k * (c / self._series[k]) ** 2 / 4)]
                slowest = min(higher or alone)
                quickest = min(duration(start, k, float(layers.max()) * c) for k, c in seen)
                last, fastest = max(last, slowest), min(fastest, quickest)
        slow = (self.epsilon or 0.0) / max(float(self._series @ self._series), 1e-300)
        first = 10.0 ** math.floor(math.log10(1e-3 * fastest))
        return logarithmic(first, 5.0 * (last + slow))

    def coordinates(self, time: FloatArray) -> dict[str, FloatArray | IntArray]:
        """Return none; an error where the products of neurons do not fit in memory."""
        if len(time) * self.neurons**2 > LARGEST_PATH:
            raise InputError(
                f"the products of {self.neurons} neurons at {len(time)} times do not fit in memory;"
                f" use at most {math.isqrt(LARGEST_PATH // len(time))} neurons, or at most "
                f"{LARGEST_PATH // self.neurons**2} times"
            )
        return {}

    def variables(self, target: Target) -> tuple[str, ...]:
        """Losses, overlaps of the span and of each neuron, second layer and how the run ended."""
        small = min(target.rank, self.neurons) <= SMALL
        shown = target.rank * self.neurons <= LARGEST_STATE
        return (
            "loss",
            "overlap",
            "gram0",
            "initial",
            "status",
            "n_steps",
            "n_rhs",
            "neuron_crossing_time",
            "nearest",
            "coverage",
            *(["crossing_time"] if small else []),
            *(["risk"] if self.loss == "correlation" else []),
            *(["neuron_overlap"] if shown else []),
            *(["neuron_gram"] if self.neurons <= SMALL else []),
            "second_layer",
        )

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters in types that JSON knows."""
        data = super().to_dict()
        for name in ("activation", "second_layer"):  # a list would be a sweep
            if isinstance(data[name], tuple):
                data[name] = {str(k): value for k, value in enumerate(data[name])}
        return data

    @property
    def _layer(self) -> FloatArray:
        """Second layer at the start, shape (p,)."""
        return np.broadcast_to(np.asarray(self.second_layer, dtype=np.float64), (self.neurons,))

    def _beyond(self, problem: Problem, run: int) -> FloatArray:
        """Directions of a run's neurons orthogonal to the target: their triangular factor.

        Shapes: returns (p, p), rows of norm 1.
        """
        rng = stream(problem.seed, problem.dim, run, branch=GRAM)
        return directions_factor(self.neurons, problem.dim - problem.target.rank, rng)

    def _network(self, target: Target) -> Any:
        """Constants of the network and the target for compiled code."""
        from .engine.neurons import Network

        of = monomials(target)
        # Two more entries than the highest degree, for derivatives by the norm.
        count = max(len(self._series), int(of.degrees.max()) + 1)
        activation = np.zeros(count + 2)
        activation[: len(self._series)] = self._series
        power_law = self._left_out > 0 and self.activation in ("erf", "relu")
        shift, power = (1.0, 0.0) if self.activation == "erf" else (0.0, 1.0)
        return Network(
            activation=activation,
            scaling=0 if self.norm == "spherical" else 2 if power_law else 1,
            shift=shift,
            power=power,
            starts=np.concatenate([[0], of.ends]),
            axes=of.axes,
            powers=of.powers,
            weights=of.weights,
            degrees=of.degrees,
            directions=of.directions,
            identity=bool(np.array_equal(of.directions, np.eye(len(of.directions)))),
            squared=self.loss == "squared",
            readout_rate=0.0 if self.epsilon is None else 1.0 / self.epsilon,
            target_square=target.norm**2,
        )

    def _activation(
        self, smooth: tuple[FloatArray, FloatArray] | None = None, radius: float = 0.0
    ) -> Any:
        """Activation for compiled code that draws samples, averaged over nodes with weights."""
        from .engine.neuron_descent import KINDS, Activation

        kind = KINDS.index(self.activation) if self.activation in KINDS else 0
        return Activation(kind, self._series, *(smooth or (np.zeros(1), np.ones(1))), radius)

    def _start(self, problem: Problem, net: Any, rows: FloatArray) -> Any:
        """State of compiled code that draws samples. Shapes: rows (p, rank or more)."""
        from .engine.neuron_descent import NeuronState

        rank, levels = problem.target.rank, np.array(LEVELS)
        M, follow = rows[:, :rank], "crossing_time" in self.variables(problem.target)
        cosines = ((M @ net.directions.T) ** 2).max(axis=1)
        overlaps = span(net, M[None], (rows @ rows.T)[None])[0]
        return NeuronState(
            used=np.zeros(2, dtype=np.int64),
            frame=rows,
            layer=self._layer.copy(),
            cosines=cosines,
            overlaps=overlaps,
            neuron_crossing=np.where(cosines[:, None] >= levels, 0.0, np.nan),
            crossing=np.where(overlaps[:, None] >= levels, 0.0, np.nan)[: rank if follow else 0],
        )

    def _observe(self, problem: Problem, net: Any, paths: list[Path]) -> dict[str, Any]:
        """Return the schema's variables of a block of runs."""
        from .engine.neuron_paths import risks

        target, p = problem.target, self.neurons
        runs, times, rank = len(paths), len(problem.time), target.rank
        out: dict[str, Any] = {
            "loss": np.full((runs, times), np.nan),
            "risk": np.full((runs, times), np.nan),
            "overlap": np.full((runs, times, rank), np.nan),
            "gram0": np.empty((runs, rank, rank)),
            "initial": problem.initial,
            "crossing_time": np.array([path.crossing for path in paths]),
            "neuron_crossing_time": np.array([path.neuron_crossing for path in paths]),
            "neuron_overlap": np.array([path.M for path in paths]),
            "neuron_gram": np.array([path.Q for path in paths]),
            "second_layer": np.array([path.layer for path in paths]),
            "nearest": np.full((runs, p), -1, dtype=np.int64),
            "coverage": np.zeros(runs, dtype=np.int64),
            "status": np.zeros(runs, dtype=np.int8),
            "n_steps": np.array([path.counts[0] for path in paths]),
            "n_rhs": np.array([path.counts[1] for path in paths]),
        }
        for row, path in enumerate(paths):
            done = int(np.isfinite(path.layer).all(axis=1).sum())
            loss, risk = out["loss"][row], out["risk"][row]
            states = states_of(path.M[:done], path.Q[:done], path.layer[:done])
            slopes = np.empty_like(states)
            risks(net, rank, p, states, slopes, loss, risk)
            out["overlap"][row, :done] = span(net, path.M[:done], path.Q[:done])
            # G = M^T Q^(-1) M, because neurons are not orthonormal.
            values, vectors = np.linalg.eigh(path.Q[0])
            basis = path.M[0].T @ vectors / np.sqrt(values)
            out["gram0"][row] = basis @ basis.T
            last = max(done - 1, 0)
            norms = np.sqrt(np.diagonal(path.Q[last]))
            out["nearest"][row], out["coverage"][row] = reached(
                target, path.M[last] / norms[:, None]
            )
            if path.ended == 2 or done < times:
                out["status"][row] = FAILED
            elif self._learned(problem, out, row):
                # Steps on samples fluctuate for ever, and flows at rest within their tolerance.
                rests = self.step or path.ended == 1
                moves = 0.0 if rests else np.abs(slopes[-1]).max() * problem.time[-1]
                out["status"][row] = CONVERGED if moves <= STILL else CENSORED
            else:
                stuck = path.ended == 1 or self._shrinks(net, path.M[-2:])
                out["status"][row] = TRAPPED if stuck else CENSORED
        return {name: out[name] for name in self.variables(target)}

    def _shrinks(self, net: Any, M: FloatArray) -> bool:
        """Tell whether neurons that do not interact lose every direction they have not found.

        Shapes: M (2, p, rank), at the last two times.
        """
        if self.loss != "correlation" or len(M) < 2 or self.step:  # samples move all to and fro
            return False
        before, now = np.abs(M @ net.directions.T)
        waiting = (now**2).max(axis=1) < LEVELS[-1]
        return bool((now <= before)[waiting].all())

    def _learned(self, problem: Problem, out: Mapping[str, Any], row: int) -> bool:
        """Tell whether a run has learned the directions its neurons can hold, or has no risk."""
        target = problem.target
        if self.loss == "squared" and out["loss"][row, -1] <= GLOBAL * target.norm**2:
            return True
        learnable = min(self.neurons, len(monomials(target).directions))
        return bool((out["overlap"][row, -1, :learnable] >= LEVELS[-1]).all())


def states_of(M: FloatArray, Q: FloatArray, layer: FloatArray) -> FloatArray:
    """States of compiled code.

    Shapes: M (T, p, rank); Q (T, p, p); layer (T, p); returns (T, size).
    """
    return np.concatenate([M.reshape(len(M), -1), Q.reshape(len(M), -1), layer], axis=1)


def span(net: Any, M: FloatArray, Q: FloatArray) -> FloatArray:
    """Overlaps of the span of neurons, descending.

    Shapes: M (T, p, rank); Q (T, p, p); returns (T, rank).
    """
    from .engine.neuron_paths import overlaps_of
    from .engine.neurons import ROUNDING, SINGULAR

    times, p, rank = M.shape
    out = np.zeros((times, rank))
    if min(p, rank) <= SMALL:
        overlaps_of(net, rank, p, states_of(M, Q, np.zeros((times, p))), out)
        return out
    for k in range(len(M)):
        sizes, vectors = np.linalg.eigh(Q[k])
        kept = sizes > ROUNDING * sizes[-1]
        # Directions in which neurons hardly differ fade, as in `span_overlaps`.
        faded = np.sqrt(sizes[kept] + SINGULAR * sizes[-1])
        basis = (vectors[:, kept] / faded).T @ M[k]
        small = basis @ basis.T if len(basis) < out.shape[1] else basis.T @ basis
        out[k, : len(small)] = np.clip(np.linalg.eigvalsh(small)[::-1], 0.0, 1.0)
    return out


def gram(M: FloatArray, factor: FloatArray) -> FloatArray:
    """Products of unit neurons, from what is in the target's span and the directions beyond it.

    Shapes: M (..., p, rank); factor (p, p), rows of norm 1; returns (..., p, p).
    """
    rest = np.sqrt(np.maximum(1.0 - (M**2).sum(axis=-1), 0.0))
    Q: FloatArray = M @ M.swapaxes(-1, -2)
    # Q_ij = m_i . m_j + |rest_i| |rest_j| cos(angle beyond the target).
    Q += rest[..., :, None] * (factor @ factor.T) * rest[..., None, :]
    diagonal = np.arange(M.shape[-2])
    Q[..., diagonal, diagonal] = 1.0
    return Q


def directions_factor(p: int, dim: int, rng: np.random.Generator) -> FloatArray:
    """Triangular factor of the Gram matrix of p uniform directions in R^dim, rows of norm 1."""
    factor = np.tril(rng.standard_normal((p, p)), -1)
    factor[np.diag_indices(p)] = np.sqrt([rng.chisquare(dim - j) for j in range(p)])
    unit: FloatArray = factor / np.sqrt((factor**2).sum(axis=1))[:, None]
    return unit
