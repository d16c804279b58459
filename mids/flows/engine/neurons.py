"""Right-hand side of the flow of a two-layer network in its overlaps, in compiled code.

The state is one vector: the correlations of the neurons with the axes (neuron, axis), the products
of their weights (neuron, neuron) and the second layer (neuron).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .compile import compiled, inlined
from .features import compiled as allocating
from .linear import orthogonalise

SINGULAR = 1e-12
"""Squared part of a unit weight beyond the neurons before it at which its direction fades.

There it counts half, so that overlaps do not jump where neurons merge."""
ROUNDING = 1e-14
"""Such a part that is none."""


class Network(NamedTuple):
    """Constants of a network and its target.

    Shapes: activation (degree + 3,); starts (modes + 1,); axes, powers (factors,); weights, degrees
    (modes,); directions (terms, rank). The link's polynomials are products of powers of terms
    ``directions @ m``; mode n has the factors ``starts[n]`` to ``starts[n + 1]``.
    """

    activation: np.ndarray
    scaling: int  # 0: unit norms, 1: polynomial, 2: power law of (shift + norm^2)
    shift: float
    power: float
    starts: np.ndarray
    axes: np.ndarray
    powers: np.ndarray
    weights: np.ndarray
    degrees: np.ndarray
    directions: np.ndarray
    identity: bool
    squared: bool
    readout_rate: float  # 0: fixed
    target_square: float


class Work(NamedTuple):
    """Room for `slope`.

    Shapes: b, db (p, degree + 1); pull, basis (p, rank); mixing, half, lower (p, p); term, force
    (terms,); powers (terms, degree + 1); values, fitted, fades, value, first (p,);
    overlaps (rank,).
    """

    b: np.ndarray
    db: np.ndarray
    pull: np.ndarray
    mixing: np.ndarray
    half: np.ndarray
    term: np.ndarray
    force: np.ndarray
    powers: np.ndarray
    values: np.ndarray
    fitted: np.ndarray
    basis: np.ndarray
    lower: np.ndarray
    overlaps: np.ndarray
    fades: np.ndarray
    value: np.ndarray
    first: np.ndarray


@allocating
def workspace(net: Network, p: int) -> Work:
    """Room for `slope`; the coefficients of neurons of norm 1."""
    terms, rank = net.directions.shape
    count = len(net.activation) - 2
    b = np.empty((p, count))
    for j in range(p):
        for k in range(count):
            b[j, k] = net.activation[k]
    return Work(
        b,
        np.zeros((p, count)),
        np.empty((p, rank)),
        np.empty((p, p)),
        np.empty((p, p)),
        np.empty(terms),
        np.empty(terms),
        np.ones((terms, max(count, 2))),
        np.empty(p),
        np.empty(p),
        np.empty((p, rank)),
        np.empty((p, p)),
        np.empty(rank),
        np.empty(p),
        np.empty(p),
        np.empty(p),
    )


@inlined
def _coefficients(net: Network, square: float, b: np.ndarray, slope: np.ndarray) -> None:
    """Hermite coefficients of ``sigma(w x)`` over ``|w|^k``, and their derivatives by |w|^2."""
    c = net.activation
    count = len(b)
    if net.scaling == 1:  # heat equation: d b_k / d|w|^2 = sqrt((k + 1)(k + 2)) b_(k + 2) / 2
        # b_k = sum_j c_(k + 2j) sqrt((k + 2j)! / k!) (|w|^2 - 1)^j / (2^j j!).
        for k in range(count - 1, -1, -1):
            total, weight = 0.0, 1.0
            for j in range((count - 1 - k) // 2 + 1):
                if j > 0:
                    n = k + 2 * j
                    weight *= math.sqrt(n * (n - 1.0)) * (square - 1.0) / (2.0 * j)
                total += c[k + 2 * j] * weight
            b[k] = total
            slope[k] = 0.0
        for k in range(count - 2):
            slope[k] = 0.5 * math.sqrt((k + 1.0) * (k + 2.0)) * b[k + 2]
    elif net.scaling == 2:
        # erf and relu: b_k = c_k ((shift + |w|^2) / (shift + 1))^((power - k) / 2).
        ratio = (net.shift + square) / (net.shift + 1.0)
        factor, fall = ratio ** (0.5 * net.power), 1.0 / math.sqrt(ratio)
        for k in range(count):
            b[k] = c[k] * factor
            slope[k] = 0.5 * (net.power - k) * b[k] / (net.shift + square)
            factor *= fall


@inlined
def terms_of(net: Network, y: np.ndarray, begin: int, term: np.ndarray) -> None:
    """Products of the target's directions with the m that begins at an entry of y."""
    for n in range(len(term)):
        if net.identity:
            term[n] = y[begin + n]
        else:
            total = 0.0
            for i in range(net.directions.shape[1]):
                total += net.directions[n, i] * y[begin + i]
            term[n] = total


@inlined
def correlate(net: Network, work: Work, j: int) -> tuple[float, float]:
    """E f* sigma(w x) of a neuron, its derivative by |w|^2, and by the terms in `work.force`."""
    value, radial = 0.0, 0.0
    term, force, powers, b = work.term, work.force, work.powers, work.b
    highest = powers.shape[1]
    for n in range(len(term)):
        force[n] = 0.0
        product = 1.0
        for k in range(1, highest):
            product *= term[n]
            powers[n, k] = product
    for n in range(len(net.weights)):
        first, last = net.starts[n], net.starts[n + 1]
        factor = net.weights[n] * b[j, net.degrees[n]]
        product = 1.0
        # A mode of one factor is a power; one of none, the constant, keeps the product 1.
        if last == first + 1:
            axis, k = net.axes[first], net.powers[first]
            product = powers[axis, k]
            force[axis] += factor * k * powers[axis, k - 1]
        else:
            for i in range(first, last):
                product *= powers[net.axes[i], net.powers[i]]
            for i in range(first, last):
                # The product rule, without a division by the term, which may be 0.
                other = factor * net.powers[i]
                for k in range(first, last):
                    other *= powers[net.axes[k], net.powers[k] - (1 if k == i else 0)]
                force[net.axes[i]] += other
        value += factor * product
        radial += net.weights[n] * work.db[j, net.degrees[n]] * product
    return value, radial


@inlined
def _pairs(work: Work, y: np.ndarray, begin: int, j: int) -> None:
    """``sum_k b_ik b_jk Q_ij^k`` and its derivative for all i up to j, by Horner's rule.

    Row j of Q begins at an entry of y. They are written to `work.value` and `work.first`.
    """
    b, value, first = work.b, work.value, work.first
    for i in range(j + 1):
        value[i] = first[i] = 0.0
    # All i at once in the inner loop: these sums do not wait for each other.
    for k in range(b.shape[1] - 1, 0, -1):
        own = b[j, k]
        for i in range(j + 1):
            x, product = y[begin + i], b[i, k] * own
            first[i] = first[i] * x + k * product
            value[i] = value[i] * x + product
    for i in range(j + 1):
        value[i] = value[i] * y[begin + i] + b[i, 0] * b[j, 0]


@inlined
def _radial(net: Network, work: Work, x: float, square: float, i: int, j: int) -> float:
    """Return the derivative of ``sum_k b_ik b_jk x^k`` by the squared norm of j, x being fixed."""
    if net.scaling == 2:
        # sum_k (power - k) b_ik b_jk x^k / (2 (shift + |w|^2)), from the sums of `_pairs`.
        low = min(i, j)
        return 0.5 * (net.power * work.value[low] - x * work.first[low]) / (net.shift + square)
    total = 0.0
    for k in range(work.b.shape[1] - 1, -1, -1):
        total = total * x + work.b[i, k] * work.db[j, k]
    return total


@inlined
def losses(net: Network, own: float, interaction: float, linear: float) -> tuple[float, float]:
    """Objective and population risk from their sums."""
    # The correlation loss keeps the square of each neuron, not the products of different ones.
    risk = 0.5 * (net.target_square + interaction) - linear
    return (risk if net.squared else 0.5 * (net.target_square + own) - linear), risk


@compiled
def slope(
    net: Network, rank: int, p: int, y: np.ndarray, out: np.ndarray, work: Work
) -> tuple[float, float]:
    """Right-hand side of the flow; returns loss and risk at y."""
    mixing, pull, values, fitted = work.mixing, work.pull, work.values, work.fitted
    # Minus the gradient is w_j' = W* pull_j + sum_k mixing_jk w_k, which closes M and Q.
    at_Q, at_a = p * rank, p * rank + p * p
    own = interaction = linear = 0.0
    for j in range(p):
        a = y[at_a + j]
        if net.scaling != 0:
            _coefficients(net, y[at_Q + j * p + j], work.b[j], work.db[j])
        terms_of(net, y, j * rank, work.term)
        values[j], radial = correlate(net, work, j)
        linear += a * values[j]
        fitted[j] = 0.0
        for i in range(rank):
            if net.identity:
                pull[j, i] = a * work.force[i]
                continue
            pull[j, i] = 0.0
            for n in range(len(work.force)):
                pull[j, i] += a * work.force[n] * net.directions[n, i]
        for i in range(p):
            mixing[j, i] = 0.0
        # The gradient of |w|^2 is 2 w.
        mixing[j, j] = 2.0 * a * radial
    for j in range(p):
        a = y[at_a + j]
        # Each pair is visited once, and pulls on both of its neurons.
        _pairs(work, y, at_Q + j * p, j)
        for i in range(j + 1):
            value, first = work.value[i], work.first[i]
            fitted[j] += y[at_a + i] * value
            if i == j:
                own += a * a * value
            else:
                fitted[i] += a * value
            if net.squared:
                mixing[j, i] -= y[at_a + i] * a * first
                if i != j:
                    mixing[i, j] -= y[at_a + i] * a * first
                if net.scaling != 0:
                    x, both = y[at_Q + j * p + i], 2.0 * a * y[at_a + i]
                    mixing[j, j] -= both * _radial(net, work, x, y[at_Q + j * p + j], i, j)
                    if i != j:
                        mixing[i, i] -= both * _radial(net, work, x, y[at_Q + i * p + i], j, i)
    for j in range(p):
        interaction += y[at_a + j] * fitted[j]
        # a_j' = (E f* sigma_j - sum_i a_i E sigma_i sigma_j) / epsilon
        out[at_a + j] = net.readout_rate * (values[j] - fitted[j])
        if net.scaling == 0:  # the norms stay
            along = 0.0
            for i in range(rank):
                along += y[j * rank + i] * pull[j, i]
            for i in range(p):
                along += y[at_Q + j * p + i] * mixing[j, i]
            mixing[j, j] -= along
    # M' = pull + mixing M; with half_ji = w_j' . w_i, Q' = half + half^T.
    half = work.half
    for j in range(p):
        for i in range(rank):
            out[j * rank + i] = pull[j, i]
        for i in range(p):
            total = 0.0
            for k in range(rank):
                total += pull[j, k] * y[i * rank + k]
            half[j, i] = total
        for k in range(p):
            factor = mixing[j, k]
            # The correlation loss has a diagonal mixing: p^2 operations, not p^3.
            if factor != 0.0:
                for i in range(rank):
                    out[j * rank + i] += factor * y[k * rank + i]
                for i in range(p):
                    half[j, i] += factor * y[at_Q + k * p + i]
    for j in range(p):
        for i in range(p):
            out[at_Q + j * p + i] = half[j, i] + half[i, j]
        if net.scaling == 0:
            # It is 0 up to rounding, which would add up over the steps.
            out[at_Q + j * p + j] = 0.0
    return losses(net, own, interaction, linear)


@compiled
def span_overlaps(y: np.ndarray, rank: int, p: int, work: Work) -> None:
    """Eigenvalues of ``G = M^T Q^+ M``, the overlaps of the neurons' span, descending.

    They are written to `work.overlaps`.
    """
    basis, lower, out, fades = work.basis, work.lower, work.overlaps, work.fades
    at_Q = p * rank
    for j in range(p):  # Cholesky: the axes in an orthonormal basis of the span
        square = y[at_Q + j * p + j]
        rest = square
        # Q = lower lower^T; a neuron in the span of those before it has an empty column.
        for i in range(j):
            total = y[at_Q + j * p + i]
            for k in range(i):
                total -= lower[j, k] * lower[i, k]
            lower[j, i] = total / lower[i, i] if lower[i, i] > 0.0 else 0.0
            rest -= lower[j, i] ** 2
        new = rest > ROUNDING * square
        lower[j, j] = math.sqrt(rest) if new else 0.0
        fades[j] = math.sqrt(rest / (rest + SINGULAR * square)) if new else 0.0
        for n in range(rank):
            total = y[j * rank + n]
            for i in range(j):
                total -= lower[j, i] * basis[i, n]
            basis[j, n] = total / lower[j, j] if new else 0.0
    for j in range(p):
        for n in range(rank):
            basis[j, n] *= fades[j]
    # Singular values of lower^-1 M: small overlaps keep digits that forming G would round away.
    orthogonalise(basis, p, rank)
    for n in range(rank):
        total = 0.0
        for j in range(p):
            total += basis[j, n] ** 2
        place = n
        while place > 0 and out[place - 1] < total:
            out[place] = out[place - 1]
            place -= 1
        out[place] = min(total, 1.0)


@inlined
def neuron_overlap(net: Network, y: np.ndarray, begin: int, square: float) -> float:
    """Squared cosine with the nearest direction of the neuron whose m begins at an entry of y."""
    best = 0.0
    for n in range(net.directions.shape[0]):
        cosine = 0.0
        if net.identity:
            cosine = y[begin + n]
        else:
            for i in range(net.directions.shape[1]):
                cosine += net.directions[n, i] * y[begin + i]
        best = max(best, cosine * cosine)
    return best / square


@compiled
def may_cross(y: np.ndarray, rank: int, p: int, level: float) -> bool:
    """Tell whether an overlap of the span can have reached a level: a bound without eigenvalues."""
    # Gershgorin: no eigenvalue of Q is below `least`, so no overlap is above |M|^2 / least.
    least = np.inf
    for i in range(p):
        begin = p * rank + i * p
        row = y[begin + i]
        for j in range(p):
            if j != i:
                row -= abs(y[begin + j])
        least = min(least, row)
    total = 0.0
    for i in range(p * rank):
        total += y[i] * y[i]
    return least <= 0.0 or total >= level * least
