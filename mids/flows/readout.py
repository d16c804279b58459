r"""Links that are fitted to samples: a linear combination of features of the student's coordinates.

A link is :math:`f_c(z) = \sum_j c_j \varphi_j(z)` on :math:`R^q`. The features are either all
Hermite polynomials up to a degree, or random features of the Gaussian kernel, the practical version
of an isotropic kernel (Rahimi, Recht 2007). For both, the population loss at a frame with
correlation matrix :math:`M` is a closed form in :math:`c` and :math:`M`,

.. math:: \tfrac12 E (f_c(W^T x) - F^*(x))^2
          = \tfrac12 c^T K c - c^T b(M) + \tfrac12 \|f^*\|^2,
          \quad K_{ij} = E \varphi_i \varphi_j, \quad b_j = \langle \varphi_j, A_M f^* \rangle .
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import validation
from ..errors import InputError
from ..targets.averaging import average, loss
from ..targets.basis import by_mode, hermite_values, multi_indices, tensor_coefficients
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .observables import link_on_modes
from .ridge import HermiteKernel
from .two_timescale import TwoTimescale

READOUTS = ("hermite-ridge", "random-features")
MAX_FEATURES = 2000


class Features(NamedTuple):
    """Features of a student's coordinates; unused arrays have no rows.

    Shapes: exponents (P, q); lower (P, q); frequencies (P, q); phases (P,); penalty (P,).
    """

    exponents: IntArray
    lower: IntArray
    frequencies: FloatArray
    phases: FloatArray
    penalty: FloatArray

    def evaluate(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n, P) at z (n, q), and those of which `slopes` makes derivatives."""
        if len(self.phases):
            angles = z @ self.frequencies.T + self.phases
            amplitude = _amplitude(self)
            return amplitude * np.cos(angles), -amplitude * np.sin(angles)
        powers = hermite_values(z, int(self.exponents.max(initial=1)))
        values = powers[:, 0, self.exponents[:, 0]]
        for i in range(1, z.shape[1]):
            values *= powers[:, i, self.exponents[:, i]]
        return values, values

    def slopes(self, link: FloatArray) -> FloatArray:
        """Coefficients of each partial derivative of a link, shape (P, q)."""
        if len(self.phases):
            # d cos(u . z + a) / dz_i = -u_i sin(u . z + a), with the sine in the second values.
            return np.asarray(link[:, None] * self.frequencies)
        out = np.zeros(self.lower.shape)
        # dh_k / dz = sqrt(k) h_(k-1).
        for i, lower in enumerate(self.lower.T):
            there = lower >= 0
            out[lower[there], i] = np.sqrt(self.exponents[there, i]) * link[there]
        return out


@dataclass(frozen=True)
class Readout:
    """How links are fitted, apart from the data."""

    readout: str
    ridge: float
    degree: int | None
    kernel: HermiteKernel | None
    features: int
    width: float

    def __post_init__(self) -> None:
        """Check the parameters against each other."""
        validation.one_of(self.readout, READOUTS, "readout")
        if self.readout == "random-features" and (self.kernel or self.degree) is not None:
            raise InputError(
                f"{'degree' if self.kernel is None else 'kernel'} belongs to readout "
                "'hermite-ridge'; random features have the Gaussian kernel of the given width"
            )
        if self.readout == "random-features" and self.ridge == 0:
            raise InputError(
                "random features need ridge > 0: they are nearly dependent; pass for example "
                "ridge=1e-4"
            )

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of the parameters that have no meaning for these features."""
        return ("degree", "kernel") if self.readout == "random-features" else ("features", "width")

    def highest_degree(self, target: Target) -> int:
        """Degree of Hermite features on a target."""
        return self.degree or target.degree

    def count(self, target: Target, student_rank: int) -> int:
        """Return the number of features P."""
        if self.readout == "random-features":
            count = self.features
        else:
            degree = self.highest_degree(target)
            count = math.comb(degree + student_rank, degree)
            if self.kernel is not None:
                self.kernel.of_degrees([degree])
        if count > MAX_FEATURES:
            raise InputError(
                f"the link would have {count} features, but at most {MAX_FEATURES} are fitted; "
                "lower its degree, the student's rank or the number of random features"
            )
        return count

    def effective_target(self, target: Target) -> Target:
        """Target whose correlation the population flow climbs with this link.

        Hermite features up to their degree only, each scaled by ``sqrt(q_k / (q_k + ridge))``
        (paper Prop. 3.3). For random features it is the target itself, which is right as their
        number grows and the ridge falls.
        """
        degrees = target.modes.sum(axis=1)
        seen = degrees <= self.highest_degree(target)
        if self.readout == "random-features":
            return target
        if not (degrees[seen] > 0).any():
            raise InputError(
                f"degree must be at least {degrees[degrees > 0].min()}, the lowest of the target, "
                f"got {self.degree}; a link of lower degree learns nothing of it"
            )
        if not seen.all():
            kept = by_mode(target.modes[seen], target.coefficients[seen])
            target = Target(kept, name=target.name)
        population = TwoTimescale(ridge=self.ridge, kernel=self.kernel)
        population.check(target, np.zeros(0, dtype=np.int64), target.rank)
        return population.effective_target(target)

    def build(self, target: Target, student_rank: int, rng: np.random.Generator) -> Features:
        """Return the features for compiled code."""
        count = self.count(target, student_rank)
        if self.readout == "random-features":
            return Features(
                exponents=np.zeros((0, student_rank), dtype=np.int64),
                lower=np.zeros((0, student_rank), dtype=np.int64),
                frequencies=rng.standard_normal((count, student_rank)) / self.width,
                phases=rng.uniform(0.0, 2.0 * np.pi, count),
                penalty=np.ones(count),
            )
        exponents = multi_indices(student_rank, self.highest_degree(target))
        row = {tuple(beta): j for j, beta in enumerate(exponents.tolist())}
        unit = np.eye(student_rank, dtype=np.int64)
        lower = [
            [row.get(tuple(beta - unit[i]), -1) for i in range(student_rank)] for beta in exponents
        ]
        degrees = exponents.sum(axis=1)
        penalty = np.ones(count) if self.kernel is None else 1.0 / self.kernel.of_degrees(degrees)
        return Features(
            exponents=exponents,
            lower=np.array(lower, dtype=np.int64),
            frequencies=np.zeros((0, student_rank)),
            phases=np.zeros(0),
            penalty=penalty,
        )

    def risk(
        self, target: Target, features: Features, links: FloatArray, correlations: FloatArray
    ) -> FloatArray:
        """Return the risk ``E (f(W^T x) - F*(x))^2 / 2`` of links (n, P) at M (n, r, q)."""
        exponents, wanted = _averages(target, correlations)
        gram = correlations @ correlations.swapaxes(1, 2)
        out_of_span = loss(target, gram)  # what no link on this frame explains
        if len(features.phases):
            # |f - A_M f*|^2 = c^T K c - 2 c^T m + |A_M f*|^2.
            moments = _moments(features, exponents)
            projection = np.einsum("nj,jm,nm->n", links, moments, wanted)
            squares = np.einsum("ni,ij,nj->n", links, _overlaps(features), links)
            explained: FloatArray = squares - 2 * projection + (wanted**2).sum(axis=1)
            return out_of_span + 0.5 * explained
        # Both bases are ordered by degree: the shorter one lacks the highest degrees.
        if len(features.exponents) >= len(exponents):
            wanted = np.pad(wanted, ((0, 0), (0, links.shape[1] - wanted.shape[1])))
        else:
            links = np.pad(links, ((0, 0), (0, wanted.shape[1] - links.shape[1])))
        missed: FloatArray = ((links - wanted) ** 2).sum(axis=1)
        return out_of_span + 0.5 * missed

    def on_modes(
        self, target: Target, features: Features, links: FloatArray, correlations: FloatArray
    ) -> FloatArray:
        """Coefficients (n, modes) of links (n, P) at M (n, r, q) on the modes of the target."""
        exponents = features.exponents
        if len(features.phases):
            exponents = multi_indices(features.frequencies.shape[1], target.degree)
            links = links @ _moments(features, exponents)
        return link_on_modes(target.modes, correlations, exponents, links)

    def objective(self, features: Features, links: FloatArray, risk: FloatArray) -> FloatArray:
        """Add the ridge's term ``ridge / 2 sum_j penalty_j c_j^2`` to the risk, (n,)."""
        term: FloatArray = links**2 @ features.penalty
        return risk + 0.5 * self.ridge * term


def _averages(target: Target, correlations: FloatArray) -> tuple[IntArray, FloatArray]:
    """Hermite coefficients of ``A_M f*`` for each M, on all multi-indices up to the degree."""
    rows = []
    for matrix in correlations:
        exponents, coefficients = tensor_coefficients(average(target.tensors, matrix))
        rows.append(coefficients)
    return exponents, np.array(rows)


def _moments(features: Features, exponents: IntArray) -> FloatArray:
    """``E cos(u . z + a) h_beta(z) = u^beta / sqrt(beta!) e^(-|u|^2 / 2) Re(i^|beta| e^(i a))``."""
    u = features.frequencies
    factorials = [math.prod(map(math.factorial, beta)) for beta in exponents.tolist()]
    powers = np.prod(u[:, None, :] ** exponents, axis=2) / np.sqrt(
        np.array(factorials, dtype=float)
    )
    turns = np.cos(features.phases[:, None] + 0.5 * np.pi * exponents.sum(axis=1))
    damping = np.exp(-0.5 * (u**2).sum(axis=1))
    moments: FloatArray = _amplitude(features) * damping[:, None] * powers * turns
    return moments


def _overlaps(features: Features) -> FloatArray:
    """``E cos(u . z + a) cos(v . z + b)`` from the sum and the difference of the arguments."""
    u, a = features.frequencies, features.phases
    total = np.zeros((len(a), len(a)))
    for sign in (1.0, -1.0):
        squares = ((u[:, None] + sign * u) ** 2).sum(axis=2)
        total += np.exp(-0.5 * squares) * np.cos(a[:, None] + sign * a)
    overlaps: FloatArray = 0.5 * _amplitude(features) ** 2 * total
    return overlaps


def _amplitude(features: Features) -> float:
    return math.sqrt(2.0 / len(features.phases))
