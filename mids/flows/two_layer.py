r"""Networks with neurons: the gradient flow of a two-layer network, closed in its overlaps.

Takes a target, an activation and the number of neurons; gives the flow of the correlations
:math:`m_j = W^{*T} w_j`, the Gram matrix :math:`Q = W^T W` and the second layer :math:`a`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import validation
from ..errors import InputError
from ..schema import LEVELS
from ..targets.target import Target
from ..validation import FloatArray
from .base import Problem
from .initial import stream
from .network import NetworkFlow, Path, gram
from .network_target import monomials, pulls
from .sampled import DATA

__all__ = ["TwoLayer"]

LOOK = 0.02


@dataclass(frozen=True, kw_only=True)
class TwoLayer(NetworkFlow):
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
    step : float
        0 for the flow. Else the SDE to which descent on samples with this step tends, see
        `TwoLayerSGD`: the flow, what the division by the norm takes away, and fluctuations, in any
        d. It is followed by Euler-Maruyama steps that change no overlap by more than 2 % of the
        largest of its neuron.
    batch : int
        Samples in a step.
    noise : float
        Standard deviation of the noise on the labels.

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

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        values: dict[str, Any] = {
            "step": validation.number(self.step, "step", at_least=0.0, at_most=1.0),
            "batch": validation.integer(self.batch, "batch", at_least=1),
            "noise": validation.number(self.noise, "noise", at_least=0.0),
        }
        if not self.step and (self.batch != 1 or self.noise):
            raise InputError(
                "batch and noise are those of descent on samples, which the flow without a step "
                "has not; pass step= with them, or leave them out"
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters in types that JSON knows; without a step there are no samples."""
        data = super().to_dict()
        if not self.step:
            for name in ("step", "batch", "noise"):
                del data[name]
        return data

    def planted_target(self, target: Target) -> Target | None:
        """Return the target of a single neuron whose activation is the link; else there is none."""
        if target.rank != 1 or self.neurons != 1 or self.epsilon is not None or self.step:
            return None
        link = np.zeros(target.degree + 1)
        link[target.modes[:, 0]] = target.coefficients
        layer = float(np.ravel(self.second_layer)[0])
        same = len(link) == len(self._series) and np.allclose(link, self._series, rtol=1e-12)
        return target if same and layer == 1.0 and self.norm == "spherical" else None

    def run_seconds(self, target: Target, dim: int, student_rank: int, time: FloatArray) -> float:
        """Rough work of one run in seconds."""
        p, rank = self.neurons, target.rank
        entry = 5e-9 * p * len(monomials(target).axes)
        if self.loss == "squared":
            entry += 2e-9 * p * p * len(self._series) + 1e-9 * p * p * (rank + p)
        return float((300 * 6 + len(time)) * entry + 1e-4)

    def integrate(self, problem: Problem) -> dict[str, Any]:
        """Trajectories of a block of runs."""
        net = self._network(problem.target)
        paths = [
            (self._diffusion if self.step else self._path)(
                problem, net, run, np.ascontiguousarray(M.T), self._beyond(problem, run)
            )
            for run, M in zip(problem.runs.tolist(), problem.initial, strict=True)
        ]
        return self._observe(problem, net, paths)

    def _diffusion(
        self, problem: Problem, net: Any, run: int, M0: FloatArray, factor: FloatArray
    ) -> Path:
        """Path of one run of the SDE."""
        from .engine.neuron_diffusion import Diffusion, diffuse

        (p, rank), times = M0.shape, len(problem.time)
        rest = np.sqrt(np.maximum(1.0 - (M0**2).sum(axis=1), 0.0))[:, None]
        state = self._start(problem, net, np.concatenate([M0, rest * factor], axis=1))
        key = stream(problem.seed, problem.dim, run, DATA).integers(2**32, size=2, dtype=np.uint64)
        squares = np.arange(len(self._series)) ** 2
        seen = pulls(problem.target, self._series).values()
        rates = Diffusion(
            rate=self.step / self.batch,
            shortest=self.step,
            noise=self.noise,
            beyond=max(problem.dim - rank - p, 0),
            pull=max(sum(k * k * strength for k, strength in pull.items()) for pull in seen),
            mixing=float(squares @ self._series**2),
        )
        states = np.full((times, p * rank + p * p + p), np.nan)
        alphas = monomials(problem.target).coefficients
        diffuse(
            *(net, alphas, self._activation(), rates, np.array(LEVELS), key, state),
            *(problem.time, states),
        )
        return Path(
            *_parts(states, p, rank),
            state.neuron_crossing,
            state.crossing,
            np.array([state.used[0], state.used[0]]),
            2 if state.used[1] else 0,
        )

    def _path(
        self, problem: Problem, net: Any, run: int, M0: FloatArray, factor: FloatArray
    ) -> Path:
        """Path of one run; neurons do not interact under the correlation loss."""
        (p, rank), layer = M0.shape, self._layer
        if self.loss == "squared":
            start = np.concatenate([M0.ravel(), gram(M0, factor).ravel(), layer])
            follow = rank if "crossing_time" in self.variables(problem.target) else 0
            found, _ = _integrated(problem, net, p, start, follow)
            return Path(
                *_parts(found.states, p, rank),
                found.neuron_crossing,
                found.crossing,
                found.counts,
                int(found.ended[0]),
            )
        follow = "crossing_time" in self.variables(problem.target)
        alone = [
            _integrated(problem, net, 1, np.append(m, [1.0, a]), 0, keep=follow)
            for m, a in zip(M0, layer, strict=True)
        ]
        M = np.stack([one.states[:, :rank] for one, _ in alone], axis=1)
        ends = {int(one.ended[0]) for one, _ in alone}
        crossing = np.full((rank if follow else 0, len(LEVELS)), np.nan)
        if follow and 2 not in ends:
            crossing = span_crossings(net, [steps for _, steps in alone], M, factor)
        return Path(
            M,
            gram(M, factor),
            np.where(np.isnan(M[:, :, 0]), np.nan, layer),
            np.concatenate([one.neuron_crossing for one, _ in alone]),
            crossing,
            np.sum([one.counts for one, _ in alone], axis=0),
            2 if 2 in ends else min(ends),
        )


def _parts(states: FloatArray, p: int, rank: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """M (T, p, rank), Q (T, p, p) and second layer (T, p) of states (T, ...)."""
    M, Q, layer = np.split(states, [p * rank, p * rank + p * p], axis=1)
    return M.reshape(-1, p, rank), Q.reshape(-1, p, p), layer


def _integrated(
    problem: Problem, net: Any, p: int, start: FloatArray, follow: int, keep: bool = False
) -> tuple[Any, FloatArray]:
    """Path of p neurons, and its steps if they are to be kept."""
    from .engine.neuron_paths import Output, integrate

    levels = np.array(LEVELS)
    out = Output(
        states=np.full((len(problem.time), len(start)), np.nan),
        neuron_crossing=np.full((p, len(levels)), np.nan),
        crossing=np.full((follow, len(levels)), np.nan),
        counts=np.zeros(2, dtype=np.int64),
        ended=np.zeros(1, dtype=np.int64),
    )
    rank = problem.target.rank
    steps = integrate(net, rank, p, start, problem.time, problem.rtol, levels, keep, out)
    return out, steps


def span_crossings(
    net: Any, steps: list[FloatArray], M: FloatArray, factor: FloatArray
) -> FloatArray:
    """Find when the overlaps of the span of neurons with steps of their own reach the levels.

    Shapes: steps (n, 2 + 5 (rank + 2)) of each neuron; M (T, p, rank); returns (rank, levels).
    """
    from .engine.neuron_paths import span_between

    rank = M.shape[-1]
    together = np.concatenate(steps)
    ends = np.cumsum([0] + [len(own) for own in steps])
    # Between two looks no neuron's squared overlap with the target moves by more than `LOOK`.
    times = np.unique(np.append(together[:, 0], [own[-1, :2].sum() for own in steps]))
    moved = np.zeros(len(times))
    for own, m in zip(steps, M[-1], strict=True):
        squares = np.append((own[:, 2 : 2 + rank] ** 2).sum(axis=1), m @ m)
        ended = np.append(own[:, 0], own[-1, :2].sum())
        moved += np.abs(np.diff(np.interp(times, ended, squares), prepend=squares[0]))
    looks = np.diff(np.floor(np.cumsum(moved) / LOOK), append=np.inf, prepend=-1.0)
    times = times[(looks[:-1] > 0) | (looks[1:] > 0)]
    levels = np.array(LEVELS)
    crossing = np.full((rank, len(levels)), np.nan)
    of = together, ends, M[-1], factor @ factor.T
    span_between(net, rank, *of, times, levels, crossing)
    return crossing
