"""Index tables of the flows in which link and frame move apart, for the compiled code.

Each degree of the target is a homogeneous polynomial ``p(z) = <T_k, z x ... x z>``.  With the frame
at ``z = M y``, the flow needs ``p(M y)`` and the first and second derivatives of p there, as
polynomials in y.  All come from Euler's rule, from the constants of full order downwards:

    (d^a p)(M y) = 1 / (k - |a|) sum_i (M y)_i (d^(a + e_i) p)(M y).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations_with_replacement, product
from math import factorial, prod
from typing import NamedTuple

import numpy as np

from ...targets.target import Target

__all__ = ["LinkTables", "link_size", "link_tables"]

Exponents = tuple[int, ...]


class LinkTables(NamedTuple):
    """A target of rank r seen by a student of rank q.

    A link on R^q is the vector of its orthonormal Hermite coefficients, degree by degree, only
    degrees that the target has.
    """

    node: np.ndarray
    child: np.ndarray
    constant: np.ndarray
    successor: np.ndarray
    first: np.ndarray
    size: np.ndarray
    family: np.ndarray
    slope: np.ndarray
    bend: np.ndarray
    root: np.ndarray
    exponents: np.ndarray
    scale: np.ndarray
    buffer: int


def _monomials(variables: int, degree: int) -> list[Exponents]:
    words = combinations_with_replacement(range(variables), degree)
    return [tuple(word.count(i) for i in range(variables)) for word in words]


def _raised(exponents: Exponents, variable: int) -> Exponents:
    return (*exponents[:variable], exponents[variable] + 1, *exponents[variable + 1 :])


def _factorials(exponents: Exponents) -> int:
    return prod(factorial(e) for e in exponents)


def link_size(target: Target, student_rank: int) -> int:
    """Count the coefficients of a link."""
    degrees = np.unique(target.modes.sum(axis=1)).tolist()
    return sum(
        factorial(k + student_rank - 1) // (factorial(k) * factorial(student_rank - 1))
        for k in degrees
    )


@lru_cache(maxsize=64)
def link_tables(target: Target, student_rank: int) -> LinkTables:
    """Tables of a target and a student's rank."""
    rank, top = target.rank, target.degree
    by_degree = [_monomials(student_rank, k) for k in range(top + 1)]
    place = [{gamma: i for i, gamma in enumerate(group)} for group in by_degree]
    size = np.array([len(group) for group in by_degree], dtype=np.int64)
    values = {
        tuple(int(b) for b in beta): float(alpha)
        for beta, alpha in zip(target.modes, target.coefficients, strict=True)
    }
    nodes: list[tuple[int, int]] = []
    children: list[list[int]] = []
    constants: list[float] = []
    families, slopes, bends = [], [], []
    links: list[tuple[Exponents, float]] = []
    buffer = 0
    for degree in sorted({sum(beta) for beta in values}):
        modes = {beta: alpha for beta, alpha in values.items() if sum(beta) == degree}
        # k-th derivatives of p: alpha sqrt(k! beta!)
        full = {b: a * (factorial(degree) * _factorials(b)) ** 0.5 for b, a in modes.items()}
        row: dict[Exponents, int] = {}
        lower = {a for beta in modes for a in product(*(range(b + 1) for b in beta))}
        for order in sorted(lower, key=lambda a: (-sum(a), a)):
            row[order] = len(nodes)
            nodes.append((degree - sum(order), buffer))
            children.append([row.get(_raised(order, i), -1) for i in range(rank)])
            constants.append(full.get(order, 0.0))
            buffer += int(size[degree - sum(order)])
        none = (0,) * rank
        families.append((degree, len(links), row[none]))
        once = [_raised(none, i) for i in range(rank)]
        slopes.append([row.get(a, -1) for a in once])
        bends.append([[row.get(_raised(a, i), -1) for i in range(rank)] for a in once])
        norm = float(np.sqrt(sum(alpha**2 for alpha in modes.values())))
        links += [(gamma, norm) for gamma in by_degree[degree]]
    exponents = np.array([gamma for gamma, _ in links], dtype=np.int64)
    return LinkTables(
        node=np.array(nodes, dtype=np.int64),
        child=np.array(children, dtype=np.int64),
        constant=np.array(constants),
        successor=np.array(
            [
                [place[k + 1][_raised(gamma, j)] for j in range(student_rank)]
                for k in range(top)
                for gamma in by_degree[k]
            ],
            dtype=np.int64,
        ).reshape(-1, student_rank),
        first=np.concatenate([[0], np.cumsum(size)[:-1]]).astype(np.int64),
        size=size,
        family=np.array(families, dtype=np.int64),
        slope=np.array(slopes, dtype=np.int64),
        bend=np.array(bends, dtype=np.int64),
        root=np.array([(_factorials(g) / factorial(sum(g))) ** 0.5 for g, _ in links]),
        exponents=exponents,
        scale=np.array([norm for _, norm in links]),
        buffer=buffer,
    )
