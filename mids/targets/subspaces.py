r"""A learned subspace U: what is left to learn beside it, where it comes to rest, and its tilts.

For delta on the orthogonal complement of U,

.. math:: h(P_U + \delta) - h(P_U) = \langle A, \delta^{\otimes s} A \rangle + O(\delta^{s + 1}),

where A, the leading component, collects the entries of the target's tensors with s indices
orthogonal to U and the others in U, those of degree n with the weight ``sqrt(comb(n, s))``.

Once the directions of U are learned, what is left of the flow on matrices of that rank is
``U' = (I - P_U) H(P_U) U``, the gradient ascent of ``h(P_U)``. It stands still where H does not
couple U and its complement; only there does the flow meet a saddle. Near it, with
``U -> U + V theta``, ``theta' = K theta``: along a positive eigenvalue of K the flow leaves by
rotation, in a time of order log d.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np

from ..validation import FloatArray as Array
from ..validation import IntArray as Index
from .polynomial import hessian, polynomial, powers, response, tilted
from .target import Target

# Relative to the norm of the target's non-constant part. A rotation of a target leaves about 1e-15
# where there was a zero; coefficients anyone means are far larger.
TOLERANCE = 1e-9
MAX_ASCENT = 20_000


def critical_subspace(target: Target, subspace: Array) -> Array:
    """Turn a subspace (rank, k) at fixed rank until ``h(P_U)`` is critical."""
    k = subspace.shape[1]
    if k in (0, target.rank):
        return subspace
    scale = varying_norm(target) ** 2
    table, coefficients = polynomial(target)
    rows, near = table.near(k)
    frame, D = complete(subspace), np.zeros((target.rank - k, target.rank - k, 1))
    here = table.substitute(coefficients[:, None], frame[None])
    # h(P_U), but for its constant: squared norm of the part in the variables of U alone.
    inner = ~table.modes[:, k:].any(axis=1)

    def value(coefficients: Array) -> float:
        return float(table.weight[inner] @ coefficients[inner, 0] ** 2)

    time = 10.0 / scale
    for _ in range(MAX_ASCENT):
        push = hessian(near, here[rows], D)[1]
        if np.abs(push).max() <= 1e-12 * scale:
            break
        K = response(near, here[rows], D)[0]
        rates, modes = np.linalg.eigh((K + K.T) / 2)
        # The linear flow after some time: steps of its own size, and Newton's next to a maximum.
        rates = np.where(np.abs(rates) > 1e-9 * scale, rates, 1e-9 * scale)
        gain = np.expm1(np.clip(rates * time, -50.0, 5.0)) / rates
        theta = (modes @ (gain * (modes.T @ push.ravel()))).reshape(push.shape)
        theta *= min(1.0, 0.3 / float(np.linalg.norm(theta)))
        turn = tilted(theta)
        trial = table.substitute(here, turn)
        # The flow climbs h(P_U): a trial that loses was too long a step.
        if value(trial) < value(here) - 1e-14 * scale:
            time /= 4
            continue
        here, frame = trial, frame @ turn[0]
        time = min(5 * time, 1e9 / scale)
    return np.asarray(frame[:, :k])


def tilt_growth(target: Target, subspace: Array) -> Array:
    """Return K, the linear flow of small rotations of a subspace (rank, k) at fixed rank."""
    k, m = subspace.shape[1], target.rank - subspace.shape[1]
    if not k * m:
        return np.zeros((0, 0))
    table, coefficients = polynomial(target)
    rows, near = table.near(k)
    here = table.substitute(coefficients[:, None], complete(subspace)[None])[rows]
    return np.asarray(response(near, here, np.zeros((m, m, 1)))[0])


@dataclass(frozen=True)
class Component:
    """The component of least degree in the directions V that are not learned.

    Shapes: normal (rank, m), a basis V; rows (g, m), its unfolding; span (m, n), what it depends
    on, and sizes (n,), how much; parts (u, b), factors of ``v^powers``, powers (b, m).
    """

    exponent: int | None
    loss: float
    normal: Array
    rows: Array
    span: Array
    sizes: Array
    parts: Array
    powers: Index

    @classmethod
    def of(cls, target: Target, subspace: Array) -> Component:
        """Analyse what is left to learn beside a subspace (rank, k)."""
        k, frame = subspace.shape[1], complete(subspace)
        table, coefficients = polynomial(target)
        here = table.substitute(coefficients[:, None], frame[None])[:, 0]
        degree = table.modes[:, k:].sum(axis=1)
        sizes, scale = table.weight * here**2, varying_norm(target)
        norms = np.bincount(degree, sizes)
        exponent = next(
            (s for s in range(1, len(norms)) if norms[s] > (TOLERANCE * scale) ** 2), None
        )
        s = exponent or 1
        # Rows of the unfolding: derivatives of the leading component by each direction in V.
        own = table.lower[:, k:].sum(axis=1) == s - 1
        rows = np.sqrt(table.root[own, None] / s) * table.slopes(here[:, None])[k:, own, 0].T
        _, strengths, span = np.linalg.svd(rows, full_matrices=False)
        kept = strengths > TOLERANCE * scale
        chosen = (degree == s) & (sizes > (1e-15 * scale) ** 2)
        modes = table.modes[chosen]
        # Monomials with the same factor in U add up before they are squared.
        known, of = np.unique(modes[:, :k], axis=0, return_inverse=True)
        factorials = np.array([float(factorial(n)) for n in range(target.degree + 1)])
        weight = factorials[modes[:, :k]].prod(1) * factorials[s] / factorials[modes.sum(axis=1)]
        parts = np.zeros((len(known), len(modes)))
        parts[of.ravel(), np.arange(len(modes))] = np.sqrt(weight) * here[chosen]
        return cls(
            exponent=exponent,
            loss=0.5 * float(norms[1:].sum()),
            normal=frame[:, k:],
            rows=rows,
            span=span[kept].T,
            sizes=strengths[kept],
            parts=parts,
            powers=modes[:, k:],
        )

    def strength(self, v: Array) -> tuple[Array, Array]:
        """Strengths ``<A, (v v^T)^s A>`` of rows v, (n,), and half their gradients over s."""
        inner = self.parts @ powers(v.T, self.powers)
        outer = self.parts.T @ inner / max(self.powers[0].sum(), 1)
        slope = np.empty(v.shape)
        for j in range(v.shape[1]):
            less = self.powers - (np.arange(v.shape[1]) == j)
            here = less[:, j] >= 0
            factor = self.powers[here, j, None] * outer[here]
            slope[:, j] = np.sum(factor * powers(v.T, less[here]), axis=0)
        return np.sum(inner**2, axis=0), slope

    def strongest(self) -> Array:
        """Find the unit vector of the largest strength, by power iterations from many starts."""
        if self.exponent == 1:
            return np.asarray(self.span[:, 0])
        starts = np.random.default_rng(0).standard_normal((32, self.span.shape[1]))
        v = _unit(np.concatenate([starts @ self.span.T, self.span.T]))
        # Undamped, the iteration circles between directions of opposite sign, as in h1(z1)h1(z2).
        damping = np.full((len(v), 1), 0.5)
        value, slope = self.strength(v)
        for iteration in range(1000):
            if iteration == 50:  # the best of them go on alone
                best = np.argsort(-value)[:4]
                v, slope, value, damping = v[best], slope[best], value[best], damping[best]
            trial = _unit(_unit(slope) + damping * v)
            trial_value, trial_slope = self.strength(trial)
            worse = trial_value < value
            damping[worse] = np.minimum(2 * damping[worse], 1e8)  # a start that no longer moves
            keep = worse[:, None]
            v, slope = np.where(keep, v, trial), np.where(keep, slope, trial_slope)
            value = np.where(worse, value, trial_value)
            # The error of the value is quadratic in what remains of the slope along the sphere.
            near = np.abs(slope - value[:, None] * v).max(axis=1) <= 1e-8 * value.max()
            if near.all() or (iteration > 50 and near[value.argmax()]):
                break
        return np.asarray(v[value.argmax()])


def complete(subspace: Array) -> Array:
    """Extend an orthonormal basis, shape (rank, k), to one of the whole space, (rank, rank)."""
    rank, k = subspace.shape
    basis = np.linalg.qr(np.column_stack([subspace, np.eye(rank)]))[0]
    return np.column_stack([subspace, basis[:, k:]])


def varying_norm(target: Target) -> float:
    """Norm of the non-constant part."""
    return float(np.linalg.norm(target.coefficients[target.modes.any(axis=1)]))


def _unit(v: Array) -> Array:
    norm = np.linalg.norm(v, axis=-1, keepdims=True)
    return v / np.where(norm > 0, norm, 1.0)
