"""Takes a target and frames M; gives ``A_M f*`` and its derivatives by M, for all runs at once.

Each degree of the target is a homogeneous polynomial ``p(z) = <T_k, z x ... x z>``.  With the frame
at ``z = M y``, the flow needs ``p(M y)`` and the first and second derivatives of p there, as
polynomials in y.  All come from Euler's rule, from the constants of full order downwards:

    (d^a p)(M y) = 1 / (k - |a|) sum_i (M y)_i (d^(a + e_i) p)(M y).

Runs come last in every shape here.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations_with_replacement, product
from math import comb, factorial, prod

import numpy as np

from ...targets.target import Target
from ...validation import FloatArray

Exponents = tuple[int, ...]


class Contraction:
    """Sums ``out_o = sum_t factor_t x_l(t) y_r(t)`` over terms ``(o, l, r, factor)``."""

    def __init__(self, terms: list[tuple[int, int, int, float]], size: int) -> None:
        from scipy.sparse import csr_array

        out, left, right, factor = zip(*terms, strict=True) if terms else ((), (), (), ())
        self._left, self._right = np.array(left, dtype=np.int64), np.array(right, dtype=np.int64)
        places = np.array(out, dtype=np.int64), np.arange(len(terms))
        self._matrix = csr_array((np.array(factor), places), shape=(size, len(terms)))

    def __call__(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Shapes: x (m, n); y (k, n); returns (size, n)."""
        return np.asarray(self._matrix @ (x[self._left] * y[self._right]))


class LinkPolynomials:
    """A target of rank r seen by a student of rank q.

    A link on R^q is the vector of its orthonormal Hermite coefficients, degree by degree, only
    degrees that the target has.  Shapes: exponents (n_link, q); scale (n_link,), the norm of the
    target's part of that degree.
    """

    def __init__(self, target: Target, q: int) -> None:
        rank = target.rank
        self.shape = (rank, q)
        values = dict(zip(map(tuple, target.modes.tolist()), target.coefficients, strict=True))
        degrees = sorted({sum(beta) for beta in values})
        monomials = [_monomials(q, k) for k in range(degrees[-1] + 1)]
        none, axes = (0,) * rank, range(rank)
        once = [_raised(none, i) for i in axes]
        # Orders of derivatives that do not vanish, and rows (degree, order, monomial) by level.
        orders = {
            k: {a for b in values if sum(b) == k for a in product(*(range(n + 1) for n in b))}
            for k in degrees
        }
        row: dict[tuple[int, Exponents, Exponents], int] = {}
        self._ends: list[int] = []
        self._levels: list[Contraction] = []
        for level, group in enumerate(monomials):
            terms: list[tuple[int, int, int, float]] = []
            begin = len(row)
            for k in degrees:
                for a in sorted(a for a in orders[k] if k - sum(a) == level):
                    for gamma in group:
                        place = row.setdefault((k, a, gamma), len(row)) - begin
                        # Euler's rule; at level 0, the constants, no exponent is left to lower.
                        terms += [
                            (place, i * q + j, row[k, _raised(a, i), _lowered(gamma, j)], 1 / level)
                            for i, j in product(axes, range(q))
                            if _raised(a, i) in orders[k] and gamma[j] > 0
                        ]
            self._ends.append(len(row))
            self._levels.append(Contraction(terms, len(row) - begin))
        # d^a of a_a z^a is a! a_a, with a_a = alpha_a sqrt(k! / a!).
        self._constants = np.array(
            [
                values.get(a, 0.0) * (factorial(k) * _factorials(a)) ** 0.5
                for k, a, _ in list(row)[: self._ends[0]]
            ]
        )
        links = [(k, gamma) for k in degrees for gamma in monomials[k]]
        index = {gamma: n for n, (_, gamma) in enumerate(links)}
        self.exponents = np.array([gamma for _, gamma in links], dtype=np.int64)
        norms = {
            k: float(np.sqrt(sum(v**2 for beta, v in values.items() if sum(beta) == k)))
            for k in degrees
        }
        self.scale = np.array([norms[k] for k, _ in links])
        # From coefficients of monomials back to those of orthonormal Hermite polynomials.
        root = np.array([(_factorials(gamma) / factorial(k)) ** 0.5 for k, gamma in links])
        self._root = root[:, None]
        self._mean = np.array([row[k, none, gamma] for k, gamma in links])
        size, entries = len(links), rank * q
        # d p(M y) / d M_ij = y_j (d_i p)(M y): at gamma, the coefficient of d_i p at gamma - e_j.
        slopes = [
            ((i * q + j) * size + n, row[k, once[i], _lowered(gamma, j)], root[n])
            for n, (k, gamma) in enumerate(links)
            for i, j in product(axes, range(q))
            if once[i] in orders[k] and gamma[j] > 0
        ]
        self._slope_place, self._slope_row, self._slope_root = map(
            np.array, zip(*slopes, strict=True)
        )
        # d^2 p(M y) / d M_ij d M_ob = y_j y_b (d_i d_o p)(M y), against the coefficients of a link.
        bends = []
        for k in degrees:
            for i, other in product(axes, axes):
                if _raised(once[i], other) in orders[k]:
                    for gamma, j, b in product(monomials[k - 2], range(q), range(q)):
                        n = index[_raised(_raised(gamma, j), b)]
                        place = (i * q + j) * entries + other * q + b
                        bends.append((place, n, row[k, _raised(once[i], other), gamma], root[n]))
        self._bends = Contraction(bends, entries**2)

    def evaluate(self, M: FloatArray) -> FloatArray:
        """Coefficients of all derivatives; shapes: M (rank * q, n); returns (rows, n)."""
        out = np.empty((self._ends[-1], M.shape[1]))
        out[: self._ends[0]] = self._constants[:, None]
        # Each level reads only rows of the level below, which are filled by then.
        for begin, end, level in zip(self._ends, self._ends[1:], self._levels[1:], strict=False):
            out[begin:end] = level(M, out)
        return out

    def average(self, rows: FloatArray) -> FloatArray:
        """Hermite coefficients of ``A_M f*``, (n_link, n)."""
        return np.asarray(self._root * rows[self._mean])

    def coupling(self, rows: FloatArray) -> FloatArray:
        """Differentiate `average` by the entries of M, with runs first: (n, rank * q, n_link)."""
        entries, size, n = self.shape[0] * self.shape[1], len(self.scale), rows.shape[1]
        out = np.zeros((n, entries * size))
        out[:, self._slope_place] = (self._slope_root[:, None] * rows[self._slope_row]).T
        return out.reshape(n, entries, size)

    def bend(self, rows: FloatArray, link: FloatArray) -> FloatArray:
        """Second derivatives of ``<link, A_M f*>`` by the entries of M, with runs first.

        Shapes: link (n_link, n or 1); returns (n, rank * q, rank * q).
        """
        entries, n = self.shape[0] * self.shape[1], rows.shape[1]
        link = np.broadcast_to(link, (len(link), n))
        return np.ascontiguousarray(self._bends(link, rows).T).reshape(n, entries, entries)


def _monomials(variables: int, degree: int) -> list[Exponents]:
    words = combinations_with_replacement(range(variables), degree)
    return [tuple(word.count(i) for i in range(variables)) for word in words]


def _raised(exponents: Exponents, variable: int, by: int = 1) -> Exponents:
    return (*exponents[:variable], exponents[variable] + by, *exponents[variable + 1 :])


def _lowered(exponents: Exponents, variable: int) -> Exponents:
    return _raised(exponents, variable, -1)


def _factorials(exponents: Exponents) -> int:
    return prod(map(factorial, exponents))


def link_size(target: Target, student_rank: int) -> int:
    """Count the coefficients of a link."""
    return sum(comb(k + student_rank - 1, k) for k in np.unique(target.modes.sum(axis=1)).tolist())


@lru_cache(maxsize=64)
def link_polynomials(target: Target, student_rank: int) -> LinkPolynomials:
    """Polynomials of a target and a student's rank, remembered."""
    return LinkPolynomials(target, student_rank)
