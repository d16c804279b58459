r"""Networks with neurons: the gradient flow of a two-layer network, closed in its overlaps.

Takes a target, an activation and the number of neurons; gives the flow of the correlations
:math:`m_j = W^{*T} w_j`, the Gram matrix :math:`Q = W^T W` and the second layer :math:`a`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .. import validation
from ..errors import InputError
from ..schema import LEVELS
from ..targets.additive import LARGEST_DEGREE, AdditiveTarget, hermite_series
from ..targets.basis import multiplicities
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Flow, Problem
from .initial import stream
from .observables import CENSORED, CONVERGED, FAILED, TRAPPED
from .time_grid import logarithmic

__all__ = ["TwoLayer"]

GRAM = 4
"""Branch of a run's random streams for the directions of neurons orthogonal to the target."""
SMALL = 16
"""Neurons or directions up to which crossings of the span's overlaps are followed."""
LARGEST_STATE = 4096
"""Entries up to which overlaps of neurons are kept at every time."""
LARGEST_NEURONS = 4096
GLOBAL = 1e-6
"""Population risk, relative to ``|f*|^2``, that counts as none."""
LATE = 0.01
"""Fraction of neurons whose start the default time grid leaves out."""


@dataclass(frozen=True, kw_only=True)
class TwoLayer(Flow):
    r"""Gradient flow of the network :math:`f(x) = \sum_j a_j \sigma(w_j \cdot x)`.

    With :math:`\sigma = \sum_k c_k h_k`, unit weights and
    :math:`g_j = \sum_k k c_k T_k(m_j, \dots, m_j, \cdot)` the correlation loss gives

    .. math:: m_j' = a_j (g_j - \langle m_j, g_j \rangle m_j),

    and the squared loss adds
    :math:`-a_j \sum_i a_i \sum_k k c_k^2 Q_{ij}^{k-1} (m_i - Q_{ij} m_j)`, with Q following by the
    same field. A trained second layer follows
    :math:`\epsilon a_j' = \sum_k c_k \langle T_k, m_j^{\otimes k} \rangle
    - \sum_i a_i \sum_k c_k^2 Q_{ij}^k`. The system is closed and free of d, which enters by the law
    of the start alone: neurons uniform on the sphere, drawn exactly without arrays of size d
    (Simsek, Bendjeddou, Hsu 2024; Berthier, Montanari, Zhou 2023).

    The objective (``loss``) of the squared loss is :math:`\frac12 E (f - f^*)^2`. That of the
    correlation loss leaves out what neurons have in common,
    :math:`\frac12 \|f^*\|^2 + \frac12 \sum_j a_j^2 \|\sigma\|^2 - \langle f, f^* \rangle`; the
    population risk is then ``risk``. Where activation and link of a single neuron are the same it
    is the flow ``planted``.

    Parameters
    ----------
    neurons : int
        Number of neurons p; the student's rank.
    activation : str, mapping or tuple
        ``"erf"`` (of z / sqrt 2), ``"relu"``, ``"tanh"``, ``"sigmoid"``, ``"quadratic"``
        ((z^2 - 1) / 2), ``"h3"``, Hermite coefficients by degree, or their tuple from degree 0
        on. (A list is a sweep.)
    loss : str
        ``"squared"`` or ``"correlation"``.
    readout : str
        ``"fixed"`` or ``"trained"`` (squared loss only).
    epsilon : float, optional
        Time scale of a trained second layer; 1 if not given.
    second_layer : float, tuple or mapping of float
        The second layer, of all neurons or of each; that at the start if it is trained.
    norm : str
        ``"spherical"``: unit weights; ``"free"``: weights of any length, for polynomials, erf and
        relu.
    degree : int, optional
        Highest Hermite degree kept of an activation that is no polynomial, 24 if not given.
        `truncation_error` is what that leaves out.

    Raises
    ------
    InputError
        If a parameter is wrong, or loss and readout contradict each other.

    Examples
    --------
    >>> import mids
    >>> flow = TwoLayer(neurons=2, activation="h3", loss="correlation")
    >>> ds = mids.simulate("h3(z1) + h3(z2)", dim=1e4, runs=4, flow=flow).compute()
    >>> dict(ds.neuron_crossing_time.sizes)
    {'dim': 1, 'run': 4, 'neuron': 2, 'level': 3}
    """

    name: ClassVar[str] = "two-layer"
    fast_link: ClassVar[bool] = False
    orthonormal: ClassVar[bool] = False
    tensors: ClassVar[bool] = False
    neurons: int = 1
    activation: Any = "erf"
    loss: str = "squared"
    readout: str = "fixed"
    epsilon: float | None = None
    second_layer: Any = 1.0
    norm: str = "spherical"
    degree: int | None = None
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
                f"epsilon is the time scale of a trained readout, got {self.epsilon!r} with "
                'readout="fixed"; leave it out or pass readout="trained"'
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
        series, left_out = hermite_series(self.activation, self.degree)
        activation: Any = self.activation
        if not isinstance(activation, str):
            if self.degree is not None:
                raise InputError("degree is for activations that are no polynomials; leave it out")
            activation = tuple(series.tolist())
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
        """L2 norm of what the Hermite series of the activation leaves out; 0 for polynomials."""
        return self._left_out

    def student_rank(self, target: Target) -> int:
        """Return the number of neurons."""
        return self.neurons

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError if the student's rank is not the number of neurons, or no pull is left.

        The memory of a run is that of M and Q.
        """
        if student_rank != self.neurons:
            raise InputError(
                f"the flow {self.name!r} has neurons={self.neurons}, got student_rank="
                f"{student_rank}; leave student_rank out, or give as many neurons"
            )
        _monomials(target)
        common = min(target.degree, len(self._series) - 1)
        degrees = _monomials(target)[1]
        if not any(self._series[k] for k in np.unique(degrees) if 0 < k <= common):
            raise InputError(
                "activation and target have no Hermite degree in common (the activation has "
                f"{np.flatnonzero(self._series).tolist()}, the target {np.unique(degrees).tolist()}"
                "), so that neurons never see the target; choose another activation"
            )

    def planted_target(self, target: Target) -> Target | None:
        """Return the target of a single neuron whose activation is the link; else there is none."""
        if target.rank != 1 or self.neurons != 1 or self.epsilon is not None:
            return None
        link = np.zeros(target.degree + 1)
        link[target.modes[:, 0]] = target.coefficients
        layer = float(np.ravel(self.second_layer)[0])
        same = len(link) == len(self._series) and np.allclose(link, self._series, rtol=1e-12)
        return target if same and layer == 1.0 and self.norm == "spherical" else None

    def draw_initial(
        self, target: Target, student_rank: int, dim: int, runs: IntArray, seed: int
    ) -> FloatArray:
        """Correlations of neurons that are uniform on the sphere, shape (runs, rank, neurons)."""
        out = np.empty((len(runs), target.rank, student_rank))
        for row, run in enumerate(np.asarray(runs).tolist()):
            rng = stream(seed, dim, run)
            normal = rng.standard_normal((student_rank, target.rank))
            rest = rng.chisquare(dim - target.rank, student_rank)
            out[row] = (normal / np.sqrt((normal**2).sum(axis=1) + rest)[:, None]).T
        return out

    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Logarithmic grid that covers the escapes of all but one in a hundred neurons."""
        from scipy.stats import chi2

        layer = float(np.abs(self.second_layer).max()) or 1.0
        start = math.sqrt(float(chi2.ppf(LATE, target.rank)) / dim)
        last, fastest = 0.0, math.inf
        for pull in _pulls(target, self._series).values():
            durations = [
                _duration(start, k, layer * strength) for k, strength in pull.items() if strength
            ]
            if durations:
                last, fastest = max(last, min(durations)), min(fastest, *durations)
        slow = (self.epsilon or 0.0) / max(float(self._series @ self._series), 1e-300)
        first = 10.0 ** math.floor(math.log10(1e-3 * fastest))
        return logarithmic(first, 5.0 * (last + slow))

    def run_seconds(self, target: Target, dim: int, student_rank: int, time: FloatArray) -> float:
        """Rough work of one run in seconds."""
        p, rank = self.neurons, target.rank
        entry = 2e-9 * (p * p * len(self._series) + 3 * p * _monomials(target)[0][-1])
        return float((300 * 6 + len(time)) * (entry + 1e-9 * p * p * (rank + p)) + 1e-4)

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

    def _start(self, problem: Problem, run: int, row: int) -> FloatArray:
        """Return Q(0) of a run from its M(0): the directions orthogonal to the target are uniform.

        Shapes: returns (neurons, neurons).
        """
        M = problem.initial[row]
        rng = stream(problem.seed, problem.dim, run, branch=GRAM)
        return gram(M, problem.dim, rng)

    def integrate(self, problem: Problem) -> dict[str, Any]:
        """Trajectories of a block of runs."""
        from scipy.integrate import RK45

        from .neurons import Output, integrate, span_overlaps

        p, (runs, rank, _) = self.neurons, problem.initial.shape
        times, names = len(problem.time), self.variables(problem.target)
        net = self._network(problem.target)
        size = rank * p + p * p + p
        states = np.empty((times, size))
        layer = np.broadcast_to(np.asarray(self.second_layer, dtype=np.float64), (p,))
        levels = np.array(LEVELS)
        follow = "crossing_time" in names
        out: dict[str, Any] = {
            "loss": np.full((runs, times), np.nan),
            "risk": np.full((runs, times), np.nan),
            "overlap": np.full((runs, times, rank), np.nan),
            "gram0": np.empty((runs, rank, rank)),
            "initial": problem.initial,
            "crossing_time": np.full((runs, rank, len(levels)), np.nan),
            "neuron_crossing_time": np.full((runs, p, len(levels)), np.nan),
            "neuron_overlap": np.full((runs, times, p, rank), np.nan),
            "neuron_gram": np.full((runs, times, p, p), np.nan),
            "second_layer": np.full((runs, times, p), np.nan),
            "nearest": np.full((runs, p), -1, dtype=np.int64),
            "coverage": np.zeros(runs, dtype=np.int64),
            "status": np.zeros(runs, dtype=np.int8),
        }
        out = {name: array for name, array in out.items() if name in names or name in _ALWAYS}
        counts = np.zeros((runs, 2), dtype=np.int64)
        for row, run in enumerate(problem.runs.tolist()):
            Q = self._start(problem, run, row)
            M = problem.initial[row]
            states[:] = np.nan
            ended = np.zeros(1, dtype=np.int64)
            integrate(
                net,
                rank,
                p,
                np.concatenate([M.ravel(), Q.ravel(), layer]),
                problem.time,
                problem.rtol,
                levels,
                follow,
                np.ascontiguousarray(RK45.A),
                RK45.B,
                RK45.E,
                RK45.P,
                Output(
                    states,
                    out["loss"][row],
                    out["risk"][row],
                    out["neuron_crossing_time"][row],
                    out["crossing_time"][row],
                    counts[row],
                    ended,
                ),
            )
            path = states[:, : rank * p].reshape(times, rank, p)
            grams = states[:, rank * p : rank * p + p * p].reshape(times, p, p)
            values, vectors = np.linalg.eigh(Q)
            basis = M @ vectors / np.sqrt(values)
            out["gram0"][row] = basis @ basis.T
            done = int(np.isfinite(out["loss"][row]).sum())
            for k in range(done):
                out["overlap"][row, k] = span_overlaps(
                    np.ascontiguousarray(path[k]), np.ascontiguousarray(grams[k])
                )
            if "neuron_overlap" in out:
                out["neuron_overlap"][row] = path.swapaxes(1, 2)
            if "neuron_gram" in out:
                out["neuron_gram"][row] = grams
            out["second_layer"][row] = states[:, rank * p + p * p :]
            last = max(done - 1, 0)
            norms = np.diagonal(grams[last])
            out["nearest"][row], out["coverage"][row] = reached(
                problem.target, path[last] / np.sqrt(norms)
            )
            out["status"][row] = self._status(problem.target, out, row, path[last], ended[0], done)
        out["n_steps"], out["n_rhs"] = counts.T.copy()
        return {name: out[name] for name in names}

    def _network(self, target: Target) -> Any:
        """Constants of the network and the target for the compiled flow."""
        from .neurons import Network

        starts, degrees, axes, powers, weights, directions = _monomials(target)
        # Two more entries than the highest degree, for derivatives by the norm.
        count = max(len(self._series), int(degrees.max()) + 1)
        activation = np.zeros(count + 2)
        activation[: len(self._series)] = self._series
        power_law = self._left_out > 0 and self.activation in ("erf", "relu")
        scaling = 0 if self.norm == "spherical" else 2 if power_law else 1
        shift, power = (1.0, 0.0) if self.activation == "erf" else (0.0, 1.0)
        return Network(
            activation=activation,
            scaling=scaling,
            shift=shift,
            power=power,
            starts=np.concatenate([[0], starts]),
            axes=axes,
            powers=powers,
            weights=weights,
            degrees=degrees,
            directions=directions,
            identity=bool(np.array_equal(directions, np.eye(len(directions)))),
            squared=self.loss == "squared",
            readout_rate=0.0 if self.epsilon is None else 1.0 / self.epsilon,
            target_square=target.norm**2,
            activation_square=float(self._series @ self._series),
        )

    def _status(
        self,
        target: Target,
        out: Mapping[str, Any],
        row: int,
        M: FloatArray,
        ended: int,
        done: int,
    ) -> int:
        if ended == 2 or done < len(out["loss"][row]):
            return FAILED
        if self.loss == "squared":
            learned = out["loss"][row, -1] <= GLOBAL * target.norm**2
        else:
            learned = bool(((M**2).sum(axis=0) >= LEVELS[-1]).all())
        if learned:
            return CONVERGED
        return TRAPPED if ended == 1 else CENSORED


_ALWAYS = ("risk", "crossing_time", "overlap")


def gram(M: FloatArray, dim: int, rng: np.random.Generator) -> FloatArray:
    """Draw Q given M: parts orthogonal to the target point in independent uniform directions.

    Their Gram matrix comes from Bartlett's triangular factor, normalised. Shapes: M (rank, p);
    returns (p, p).
    """
    rank, p = M.shape
    rest = np.sqrt(np.maximum(1.0 - (M**2).sum(axis=0), 0.0))
    rows = directions_factor(p, dim - rank, rng) * rest[:, None]
    Q: FloatArray = M.T @ M + rows @ rows.T
    Q[np.diag_indices(p)] = 1.0
    return Q


def directions_factor(p: int, dim: int, rng: np.random.Generator) -> FloatArray:
    """Triangular factor of the Gram matrix of p uniform directions in R^dim, rows of norm 1."""
    factor = np.tril(rng.standard_normal((p, p)), -1)
    factor[np.diag_indices(p)] = np.sqrt([rng.chisquare(dim - j) for j in range(p)])
    unit: FloatArray = factor / np.sqrt((factor**2).sum(axis=1))[:, None]
    return unit


def reached(target: Target, cosines: FloatArray) -> tuple[IntArray, int]:
    """Nearest direction of every neuron, and how many directions have a neuron within 45 degrees.

    Directions are the axes of the link or the index vectors of an additive target; a neuron that is
    nearer than 45 degrees to none has -1. Shapes: cosines (rank, p); returns (p,).
    """
    if isinstance(target, AdditiveTarget):
        cosines = target.directions.T @ cosines
    squares = np.where(np.isfinite(cosines), cosines, 0.0) ** 2
    nearest = np.where(squares.max(axis=0) >= 0.5, squares.argmax(axis=0), -1)
    return nearest.astype(np.int64), len(np.unique(nearest[nearest >= 0]))


@functools.lru_cache(maxsize=8)
def _monomials(
    target: Target,
) -> tuple[IntArray, IntArray, IntArray, IntArray, FloatArray, FloatArray]:
    r"""Sparse polynomials ``<T_k, m^k> = sum alpha_beta sqrt(k! / beta!) m^beta`` of a target.

    Returns the ends of each mode's factors, degrees, axes, powers, weights and the directions whose
    products with m are the axes.
    """
    directions = np.eye(target.rank)
    if isinstance(target, AdditiveTarget) and not target.aligned:
        directions = target.directions.copy()  # writable, as numba compiles for one kind
        modes = [
            (k, i, c * a)
            for k, c in enumerate(target.series)
            if k and c
            for i, a in enumerate(target.weights)
        ]
        degrees = np.array([k for k, _, _ in modes], dtype=np.int64)
        axes = np.array([i for _, i, _ in modes], dtype=np.int64)
        weights = np.array([w for _, _, w in modes])
        constant = float(target.series[0] * target.weights.sum())
        ends = np.arange(1, len(modes) + 1)
        if constant:
            degrees, weights = np.append(degrees, 0), np.append(weights, constant)
            ends = np.append(ends, len(modes))
        powers = degrees[: len(axes)].copy()
        return ends.astype(np.int64), degrees, axes, powers, weights, directions
    rows, axes = np.nonzero(target.modes)
    degrees = target.modes.sum(axis=1)
    if degrees.max() > LARGEST_DEGREE:
        raise InputError(f"the target has degree {degrees.max()}, at most {LARGEST_DEGREE}")
    weights = target.coefficients * np.sqrt(multiplicities(target.modes))
    ends = np.cumsum(np.bincount(rows, minlength=len(degrees)))
    return ends, degrees, axes, target.modes[rows, axes], weights, directions


def _pulls(target: Target, series: FloatArray) -> dict[int, dict[int, float]]:
    """Strength ``|c_k alpha|`` of the modes that contain an axis, by axis and degree."""
    ends, degrees, axes, _, weights, directions = _monomials(target)
    pulls: dict[int, dict[int, float]] = {n: {} for n in range(directions.shape[1])}
    begin = 0
    for end, k, weight in zip(ends.tolist(), degrees.tolist(), weights.tolist(), strict=True):
        if 0 < k < len(series):
            for axis in axes[begin:end].tolist():
                found = abs(weight * series[k])
                pulls[axis][k] = max(pulls[axis].get(k, 0.0), found)
        begin = end
    return pulls


def _duration(start: float, exponent: int, strength: float) -> float:
    """Time in which ``m' = s c m^(s-1)`` leaves ``m = start``, and settles."""
    if exponent == 1:
        return 3.0 / strength
    if exponent == 2:
        return (math.log(1 / start) + 3.0) / (2 * strength)
    return (start ** (2 - exponent) / (exponent - 2) + 3.0) / (exponent * strength)
