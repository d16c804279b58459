"""Online stochastic gradient descent of a two-layer network, of which `TwoLayer` is the limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import validation
from ..errors import InputError
from ..schema import LEVELS
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .base import Neurons, Problem, Swept
from .initial import frame, stream
from .network import NetworkFlow, Path
from .network_target import monomials
from .sampled import DATA, FRAME, MAX_DIM, Stepped

__all__ = ["TwoLayerSGD"]


@dataclass(frozen=True, kw_only=True)
class TwoLayerSGD(Stepped, NetworkFlow):
    r"""Online gradient descent of the network :math:`f(x) = \sum_j a_j \sigma(w_j \cdot x)` in R^d.

    Samples :math:`x \sim N(0, I_d)` have labels :math:`f^*(W^{*T} x)` and noise. After each batch
    the weights move against its gradient by `step`, along the sphere and back onto it by division
    (free norms: without either), and a trained second layer by ``step / epsilon``. Time is `step`
    times the number of steps. As `step` goes to 0 it follows `TwoLayer`, from the same M(0) and
    Q(0) for the same seed. At a finite step, with :math:`\delta = f - f^* - \text{noise}` (for the
    correlation loss :math:`-f^* - \text{noise}`), the division takes away

    .. math:: \frac{d \, \text{step}}{2 \, \text{batch}} \,
              a_j^2 \, E[\delta^2 \sigma'(w_j \cdot x)^2] \, m_j

    from :math:`m_j'`, and m_j fluctuates with the covariance of the gradient, ``step / batch``
    times it in a unit of time (Ben Arous, Gheissari, Jagannath 2021): to first order in the squared
    length of a single step, ``dim (step / batch)**2`` times that of a sample's factor, whose tails
    are heavy for activations and targets of high degree. Losses are those of `TwoLayer`, on the
    population, without the noise.

    Parameters
    ----------
    neurons, activation, loss, readout, epsilon, second_layer, norm, degree
        As for `TwoLayer`. Samples go through the activation itself; its Hermite series up to
        `degree` serves the losses alone.
    step : float
        Step of the descent on the weights, at most 1.
    batch : int
        Samples in a step.
    noise : float
        Standard deviation of the noise on the labels.
    reuse : int
        2 takes the gradient of a batch at the weights to which the same batch's gradient has led
        with a step of `lookahead`: directions are then found that no single pass sees (Arnaboldi,
        Dandi, Krzakala, Pesce, Stephan 2024). 1 uses it once.
    lookahead : float, optional
        Step of the first use; `step` if not given. It may be negative.
    smoothing : float
        Radius lambda of a sphere over which the correlation loss is averaged: that at
        ``(w + lambda v) / sqrt(1 + lambda^2)`` over unit v orthogonal to w (Damian, Nichani, Ge,
        Lee 2023, who take ``dim**0.25``). 0 for none.

    Raises
    ------
    InputError
        If a parameter is wrong, or parameters contradict each other.

    Examples
    --------
    >>> import mids
    >>> flow = TwoLayerSGD(activation="h2", loss="correlation", step=0.01, batch=64)
    >>> ds = mids.simulate("h2(z1)", dim=64, runs=2, flow=flow, time=[0.0, 1.0, 6.0]).compute()
    >>> ds.samples.values.tolist(), bool((ds.overlap[..., -1, 0] > 0.8).all())
    ([0, 6400, 38400], True)
    """

    name: ClassVar[str] = "two-layer-sgd"
    step: float | Swept = 1e-3
    reuse: int | Swept = 1
    lookahead: float | Swept | None = None
    smoothing: float | Swept = 0.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        reuse = validation.integer(self.reuse, "reuse", at_least=1)
        if reuse > 2:
            raise InputError(f"reuse is 1 or 2, how often a batch is used, got {reuse}")
        lookahead = self.lookahead
        if lookahead is not None:
            lookahead = validation.number(lookahead, "lookahead")
            if reuse == 1 or lookahead == 0.0:
                raise InputError(
                    f"lookahead is the step of a batch's first use and not 0, got {lookahead:g} "
                    f"with reuse={reuse}; pass reuse=2 with it, or leave it out"
                )
        smoothing = validation.number(self.smoothing, "smoothing", at_least=0.0)
        if smoothing and self.loss == "squared":
            raise InputError(
                f"smoothing is of the correlation loss, got {smoothing:g} with "
                'loss="squared"; pass loss="correlation" or smoothing=0'
            )
        values: dict[str, Any] = {
            **self._checked_steps(),
            "noise": validation.number(self.noise, "noise", at_least=0.0),
            "reuse": reuse,
            "lookahead": lookahead,
            "smoothing": smoothing,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:
        """Raise InputError if samples are too long or the network does not fit the target."""
        super().check(target, dims, student_rank)
        if dims.max() > MAX_DIM:
            raise InputError(
                f"the flow {self.name!r} draws samples of length dim, which must be at most "
                f"{MAX_DIM}, got {dims.max()}; the flow 'two-layer' has no such limit"
            )

    def neurons_of(self, target: Target) -> Neurons | None:
        """None on samples that are used twice, or smoothed."""
        return None if self.smoothing or self.reuse > 1 else super().neurons_of(target)

    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Grid of `TwoLayer` in whole steps, at most a million: pass ``time`` for longer runs."""
        return self.whole_steps(super().default_time(target, dim, student_rank, initial))

    def coordinates(self, time: FloatArray) -> dict[str, FloatArray | IntArray]:
        """Return the samples used by each time."""
        return NetworkFlow.coordinates(self, time) | Stepped.coordinates(self, time)

    def run_seconds(self, target: Target, dim: int, student_rank: int, time: FloatArray) -> float:
        """Rough work of one run in seconds."""
        samples = float(self.steps(time)[-1]) * self.batch * self.reuse
        sample = dim * (2.0 + self.neurons) + 20 * len(monomials(target).axes)
        return 1e-9 * samples * (sample + 2 * self.neurons * dim / self.batch) + 1e-4

    def variables(self, target: Target) -> tuple[str, ...]:
        """Those of `TwoLayer` but evaluations of a flow."""
        return tuple(name for name in super().variables(target) if name != "n_rhs")

    def integrate(self, problem: Problem) -> dict[str, Any]:
        """Trajectories of a block of runs."""
        net = self._network(problem.target)
        paths = [
            self._path(problem, net, run, np.ascontiguousarray(M.T))
            for run, M in zip(problem.runs.tolist(), problem.initial, strict=True)
        ]
        return self._observe(problem, net, paths)

    def _path(self, problem: Problem, net: Any, run: int, M0: FloatArray) -> Path:
        """Path of one run."""
        from .engine.neuron_descent import NetworkRates, descend

        (p, rank), times, dim = M0.shape, len(problem.time), problem.dim
        streams = (stream(problem.seed, dim, run, branch) for branch in (FRAME, DATA))
        rows, key = (
            self._rows(problem, run, M0, next(streams)),
            next(streams).integers(2**32, size=2, dtype=np.uint64),
        )
        smooth = sphere_nodes(dim, len(self._series)) if self.smoothing else None
        activation = self._activation(smooth, self.smoothing)
        ahead = 0.0 if self.reuse == 1 else self.step if self.lookahead is None else self.lookahead
        stride = max(1, p // (4 * self.batch))
        rates = NetworkRates(self.step, self.batch, self.noise, ahead, stride)
        state = self._start(problem, net, rows)
        M, Q = np.full((times, p, rank), np.nan), np.full((times, p, p), np.nan)
        layers = np.full((times, p), np.nan)
        alphas = monomials(problem.target).coefficients
        for row, stop in enumerate(self.steps(problem.time) * self.batch):
            descend(net, alphas, activation, rates, np.array(LEVELS), key, state, stop)
            if state.used[1]:
                break
            M[row], Q[row] = state.frame[:, :rank], state.frame @ state.frame.T
            layers[row] = state.layer
        counts = state.used // np.array([self.batch, 1])
        ended = 2 if state.used[1] else 0
        return Path(M, Q, layers, state.neuron_crossing, state.crossing, counts, ended)

    def _rows(
        self, problem: Problem, run: int, M0: FloatArray, rng: np.random.Generator
    ) -> FloatArray:
        """Weights with the M(0) and Q(0) of `TwoLayer`, shape (p, d)."""
        p, rank = M0.shape
        basis = frame(np.zeros((rank, p)), problem.dim, rng)[rank:]
        rest = np.sqrt(np.maximum(1.0 - (M0**2).sum(axis=1), 0.0))[:, None]
        return np.concatenate([M0, rest * self._beyond(problem, run) @ basis.T], axis=1)


def sphere_nodes(dim: int, count: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights for the first coordinate of a uniform unit vector of R^(dim - 1).

    Exact for polynomials of degree ``2 count - 1``: eigenvalues of Gegenbauer's recurrence.
    """
    from scipy.linalg import eigh_tridiagonal

    a = 0.5 * (dim - 3)
    n = np.arange(1, max(count, 2))
    beside = np.sqrt(n * (n + 2 * a - 1) / (4 * (n + a) * (n + a - 1)))
    nodes, vectors = eigh_tridiagonal(np.zeros(len(n) + 1), beside)
    return np.asarray(nodes, dtype=np.float64), np.ascontiguousarray(vectors[0] ** 2)
