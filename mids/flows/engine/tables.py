"""Index tables that turn a target into the arrays the compiled kernel works on.

A target is held as one homogeneous polynomial per degree,
``p_k(z) = <T_k, z x ... x z> = sum_beta a_beta z^beta`` with
``a_beta = alpha_beta sqrt(k! / beta!)``.  A change of basis ``z = B y`` is then plain
substitution, and for a Gram matrix ``G = B diag(F) B^T``

    B^T H(G) B = sum_gamma w_gamma F^gamma (grad a)_gamma (grad a)_gamma^T,
    w_gamma = gamma! / (|gamma| + 1)!,   (grad a)_{gamma, i} = (gamma_i + 1) a_{gamma + e_i},

which costs a few hundred operations instead of the ``r^k`` of a full tensor.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations_with_replacement
from math import comb, factorial, prod
from typing import NamedTuple

import numpy as np

from ...targets.target import Target


class Substitution(NamedTuple):
    """Horner's rule for ``y -> p(B y)`` over the prefix tree of the target's monomials."""

    node: np.ndarray
    value: np.ndarray
    successor: np.ndarray
    first: np.ndarray
    root: np.ndarray


class Derivative(NamedTuple):
    """What ``Ht`` and its derivatives need.

    Indices are unsigned: compiled code need not ask whether they count from the end.
    """

    shear_start: np.ndarray
    shear: np.ndarray
    shear_factor: np.ndarray
    power: np.ndarray
    gradient: np.ndarray
    gradient_factor: np.ndarray


class Tables(NamedTuple):
    """Arrays that describe one target."""

    substitution: Substitution
    derivative: Derivative
    weight: np.ndarray
    mode_row: np.ndarray
    mode_value: np.ndarray
    buffer: int
    norm: float


def _monomials(rank: int, degree: int) -> list[tuple[int, ...]]:
    words = combinations_with_replacement(range(rank), degree)
    return [tuple(word.count(i) for i in range(rank)) for word in words]


def _factorials(exponents: tuple[int, ...]) -> int:
    return prod(factorial(b) for b in exponents)


def _shift(exponents: tuple[int, ...], variable: int, by: int) -> tuple[int, ...]:
    return (*exponents[:variable], exponents[variable] + by, *exponents[variable + 1 :])


def _horner_nodes(
    polynomials: dict[int, dict[tuple[int, ...], float]], sizes: list[int]
) -> tuple[np.ndarray, np.ndarray, dict[int, int], int]:
    """Prefix tree of the monomials' sorted words: nodes, values, root offsets, buffer size."""
    nodes: list[tuple[int, tuple[int, ...], float]] = []
    for degree, polynomial in polynomials.items():
        seen: dict[tuple[int, ...], float] = {}
        for beta, value in polynomial.items():
            word = tuple(i for i, count in enumerate(beta) for _ in range(count))
            for depth in range(degree):
                seen.setdefault(word[:depth], 0.0)
            seen[word] = value
        nodes += [(degree, word, value) for word, value in seen.items()]
    # Longest words first: each node is complete before it is multiplied into its parent.
    nodes.sort(key=lambda node: -len(node[1]))
    position = {(degree, word): row for row, (degree, word, _) in enumerate(nodes)}
    # A word of n letters leaves a polynomial in y of degree k - n.
    held = [degree - len(word) for degree, word, _ in nodes]
    offset = np.concatenate([[0], np.cumsum([sizes[k] for k in held])])
    rows = [
        (position[degree, word[:-1]] if word else -1, word[-1] if word else -1, k, at)
        for (degree, word, _), k, at in zip(nodes, held, offset, strict=False)
    ]
    values = np.array([value for *_, value in nodes])
    roots = {k: int(offset[position[k, ()]]) for k in polynomials}
    return np.array(rows, dtype=np.int64), values, roots, int(offset[-1])


def _shears(
    monomials: list[tuple[int, ...]], row: dict[tuple[int, ...], int], rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In place: rows in increasing power of ``z_a``, so that a source is read before it changes."""
    start: list[int] = [0]
    entries: list[tuple[int, int, int]] = []
    factors: list[float] = []
    for b in range(rank):
        for a in range(b + 1, rank):
            for beta in sorted(monomials, key=lambda beta: beta[a]):
                for power in range(1, beta[b] + 1):
                    # z_a^n -> (z_a + t z_b)^n = ... + comb(n, power) t^power z_a^beta_a z_b^power
                    source = _shift(_shift(beta, a, power), b, -power)
                    entries.append((row[beta], row[source], power))
                    factors.append(float(comb(beta[a] + power, power)))
            start.append(len(entries))
    return (
        np.array(start, dtype=np.uint64),
        np.array(entries, dtype=np.uint64).reshape(-1, 3),
        np.array(factors),
    )


@lru_cache(maxsize=64)
def tables(target: Target) -> Tables:
    """Tables of a target, in the coordinates the target is given in."""
    rank, top = target.rank, target.degree
    modes = [tuple(int(b) for b in beta) for beta in target.modes]
    degrees = sorted({sum(beta) for beta in modes} - {0})
    by_degree = [_monomials(rank, k) for k in range(top + 1)]
    place = [{beta: i for i, beta in enumerate(group)} for group in by_degree]
    sizes = [len(group) for group in by_degree]
    monomials = [beta for k in degrees for beta in by_degree[k]]
    row = {beta: i for i, beta in enumerate(monomials)}
    # alpha_beta^2 = weight_beta a_beta^2; the constant feels no frame and has no row.
    weight = np.array([_factorials(beta) / factorial(sum(beta)) for beta in monomials])

    value = {
        beta: float(alpha) * (factorial(sum(beta)) / _factorials(beta)) ** 0.5
        for beta, alpha in zip(modes, target.coefficients, strict=True)
    }
    polynomials = {k: {b: v for b, v in value.items() if sum(b) == k} for k in degrees}
    node, node_value, roots, buffer = _horner_nodes(polynomials, sizes)
    start = np.concatenate([[0], np.cumsum([sizes[k] for k in degrees])])
    successor = [
        [place[k + 1][_shift(beta, j, 1)] for j in range(rank)]
        for k in range(top)
        for beta in by_degree[k]
    ]

    # Powers F^gamma: each from one of a degree less, by one multiplication.
    powers = [beta for k in range(top) for beta in by_degree[k]]
    power_row = {beta: i for i, beta in enumerate(powers)}
    variable = [next((i for i, b in enumerate(beta) if b), -1) for beta in powers]
    gammas = [beta for k in degrees for beta in by_degree[k - 1]]
    return Tables(
        substitution=Substitution(
            node=node,
            value=node_value,
            successor=np.array(successor, dtype=np.int64),
            first=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
            root=np.array(
                [(roots[k], start[i], sizes[k]) for i, k in enumerate(degrees)], dtype=np.int64
            ),
        ),
        derivative=Derivative(
            *_shears(monomials, row, rank),
            power=np.array(
                [
                    (power_row[_shift(beta, i, -1)], i) if i >= 0 else (0, 0)
                    for beta, i in zip(powers, variable, strict=True)
                ],
                dtype=np.uint64,
            ),
            gradient=np.array(
                [(*(row[_shift(g, i, 1)] for i in range(rank)), *g, power_row[g]) for g in gammas],
                dtype=np.uint64,
            ).T.copy(),
            # The root of w_gamma, as the gradient enters twice.
            gradient_factor=np.array(
                [
                    [(_factorials(g) / factorial(sum(g) + 1)) ** 0.5 * (b + 1) for b in g]
                    for g in gammas
                ]
            ).T.copy(),
        ),
        weight=weight,
        mode_row=np.array([row.get(beta, -1) for beta in modes], dtype=np.int64),
        mode_value=np.array([value[beta] for beta in modes]),
        buffer=buffer,
        norm=float(np.sqrt(np.sum(np.square(target.coefficients)))),
    )
