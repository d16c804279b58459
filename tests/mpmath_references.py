"""Crossing times of two coupled, dense targets by Taylor series in 40 digits.

``python tests/mpmath_references.py`` prints the numbers that `test_two_timescale` holds the
integrator against.  ``M' = (I - G) H M`` is integrated as it stands, by the Taylor series of M in t
(coefficients by automatic differentiation of the polynomial right-hand side): nothing is shared
with the integrator, neither coordinates nor clock nor method.
"""

from __future__ import annotations

import itertools

import numpy as np
from mpmath import mp, mpf

from mids.targets.target import Target

CASES = {
    "rank 2, d = 1e4": ({(1, 0): 0.6, (0, 1): -0.3, (1, 1): 0.5, (2, 1): 0.4, (0, 3): 0.2}, 1e4),
    "rank 3, d = 1e6": (
        {
            (1, 0, 0): 0.7,
            (0, 1, 0): 0.2,
            (1, 1, 0): 0.4,
            (1, 0, 1): -0.3,
            (1, 1, 1): 0.3,
            (0, 2, 1): 0.35,
        },
        1e6,
    ),
}
ORDER = 30
DIGITS = 40


def case(name: str) -> tuple[Target, np.ndarray]:
    """Target turned by a rotation that mixes all axes, and M(0), of a size of d^(-1/2)."""
    modes, dim = CASES[name]
    rank = len(next(iter(modes)))
    rng = np.random.default_rng(rank)
    turn = np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    initial = rng.standard_normal((rank, rank)) / dim**0.5
    return Target(modes).rotate(turn), initial


def tensors(target: Target) -> list[tuple[int, dict[tuple[int, ...], mpf]]]:
    """Symmetric tensors by their entries."""
    found: dict[int, dict[tuple[int, ...], mpf]] = {}
    for beta, alpha in zip(target.modes.tolist(), target.coefficients.tolist(), strict=True):
        degree = sum(beta)
        words = set(
            itertools.permutations([i for i, count in enumerate(beta) for _ in range(count)])
        )
        entry = mpf(alpha) / mp.sqrt(len(words))
        found.setdefault(degree, {}).update(dict.fromkeys(words, entry))
    return [(degree, entries) for degree, entries in found.items() if degree]


def product(left: list[mpf], right: list[mpf], k: int) -> mpf:
    """Coefficient k of a product of two series."""
    return mp.fdot(left[: k + 1], right[k::-1])


def expand(target: Target, start: list[list[mpf]], order: int) -> list[list[list[mpf]]]:
    """Taylor coefficients of M at a point, entry by entry."""
    rank, students = len(start), len(start[0])
    axes = range(rank)
    matrix = [[[start[i][j]] for j in range(students)] for i in axes]
    gram = [[[] for _ in axes] for _ in axes]
    hessian = [[[] for _ in axes] for _ in axes]
    pushed = [[[] for _ in range(students)] for _ in axes]
    # G x ... x G contracted with T on all but one index, kept for every number of indices
    levels = [(degree, [{} for _ in range(degree)], entries) for degree, entries in tensors(target)]
    for k in range(order):
        for i in axes:
            for j in range(i + 1):
                value = mp.fsum(product(matrix[i][a], matrix[j][a], k) for a in range(students))
                gram[i][j].append(value)
                if i != j:
                    gram[j][i].append(value)
        total = [[mpf(0)] * rank for _ in axes]
        for degree, partial, entries in levels:
            # partial[m][word]: T with its last m indices multiplied by G
            for word, value in entries.items():
                partial[0].setdefault(word, []).append(value if k == 0 else mpf(0))
            for m in range(1, degree):
                place = degree - m
                for word in itertools.product(axes, repeat=degree):
                    value = mpf(0)
                    for a in axes:
                        source = partial[m - 1].get((*word[:place], a, *word[place + 1 :]))
                        if source is not None:
                            value += product(gram[word[place]][a], source, k)
                    partial[m].setdefault(word, []).append(value)
            for word, value in entries.items():
                for j in axes:
                    other = partial[degree - 1].get((j, *word[1:]))
                    if other is not None:
                        total[word[0]][j] += degree * value * other[k]
        for i in axes:
            for j in axes:
                hessian[i][j].append(total[i][j])
        for i in axes:
            for a in range(students):
                pushed[i][a].append(mp.fsum(product(hessian[i][j], matrix[j][a], k) for j in axes))
        for i in axes:
            for a in range(students):
                value = pushed[i][a][k] - mp.fsum(
                    product(gram[i][j], pushed[j][a], k) for j in axes
                )
                matrix[i][a].append(value / (k + 1))
    return matrix


def at(matrix: list[list[list[mpf]]], h: mpf) -> mp.matrix:
    return mp.matrix([[mp.polyval(terms[::-1], h) for terms in row] for row in matrix])


def overlaps(point: mp.matrix) -> list[mpf]:
    return sorted(mp.eigsy(point * point.T, eigvals_only=True), reverse=True)


def crossing_times(name: str) -> np.ndarray:
    """First times at which overlaps pass 0.1, 0.5 and 0.9, shape (rank, 3)."""
    mp.dps = DIGITS
    target, initial = case(name)
    rank = len(initial)
    point = mp.matrix(initial.tolist())
    time = mpf(0)
    times = np.full((rank, 3), np.nan)
    levels = [mpf(1) / 10, mpf(1) / 2, mpf(9) / 10]
    while np.isnan(times).any():
        matrix = expand(target, point.tolist(), ORDER)
        # the two last terms say where the remainder falls below 1e-20 of the entries
        scale = max(abs(x) for x in point)
        h = min(
            (mpf(10) ** -20 * scale / max(abs(t[k]) for row in matrix for t in row)) ** (mpf(1) / k)
            for k in (ORDER - 1, ORDER)
        )
        before, after = overlaps(point), overlaps(at(matrix, h))
        for i, j in np.ndindex(rank, 3):
            if np.isnan(times[i, j]) and before[i] < levels[j] <= after[i]:
                low, high = mpf(0), h
                for _ in range(60):
                    middle = (low + high) / 2
                    if overlaps(at(matrix, middle))[i] < levels[j]:
                        low = middle
                    else:
                        high = middle
                times[i, j] = float(time + high)
        point, time = at(matrix, h), time + h
    return times


if __name__ == "__main__":
    for name in CASES:
        print(name)
        for row in crossing_times(name):
            print("   ", [float(t) for t in row], ",")
