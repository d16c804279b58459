"""Named families of targets; text such as ``staircase(3)`` names them too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import validation
from ..errors import InputError
from ._parser import FAMILIES
from .target import Target


def hermite(degree: int) -> Target:
    """Return the single-index target ``h_s(z1)``, of information exponent `degree`.

    Parameters
    ----------
    degree : int
        The degree s.

    Returns
    -------
    Target
        Of rank 1 and unit norm.

    Examples
    --------
    >>> hermite(3)
    <Target 'hermite(3)' of rank 1, degree 3, norm 1: h3(z1)>
    """
    return _named("hermite", degree)


def staircase(rank: int) -> Target:
    """Return the sum of ``z1``, ``z1 z2``, ``z1 z2 z3`` and so on: one direction at a time.

    Parameters
    ----------
    rank : int
        Number of variables.

    Returns
    -------
    Target
        Of unit norm.

    Examples
    --------
    >>> staircase(2)
    <Target 'staircase(2)' of rank 2, degree 2, norm 1: 0.707107 h1(z1) + 0.707107 h1(z1)h1(z2)>
    """
    return _named("staircase", rank)


def parity(rank: int) -> Target:
    """Return the product of all coordinates, of information exponent `rank`.

    Parameters
    ----------
    rank : int
        Number of variables.

    Returns
    -------
    Target
        Of unit norm.

    Examples
    --------
    >>> parity(3)
    <Target 'parity(3)' of rank 3, degree 3, norm 1: h1(z1)h1(z2)h1(z3)>
    """
    return _named("parity", rank)


def leaps(orders: Sequence[int]) -> Target:
    """Return a ladder with the given relative information exponents, one direction each.

    Term j is ``h_{s_1}(z1) ... h_{s_j}(zj)``: once the first j - 1 directions are learned, the next
    one has information exponent ``s_j``. ``leaps([1] * r)`` is ``staircase(r)``.

    Parameters
    ----------
    orders : sequence of int
        The exponents ``s_1, s_2, ...``, each at least 1.

    Returns
    -------
    Target
        Of unit norm, with equal coefficients.

    Examples
    --------
    >>> leaps([1, 3])
    <Target 'leaps(1,3)' of rank 2, degree 4, norm 1: 0.707107 h1(z1) + 0.707107 h1(z1)h3(z2)>
    """
    given = np.asarray(orders if validation.is_finite(orders) else 0)
    if given.ndim != 1 or not given.size:
        raise InputError(
            f"orders must be a non-empty sequence of integers, got {validation.shown(orders)}; "
            "pass for example leaps([1, 2, 3])"
        )
    return _named("leaps", *given.tolist())


def names() -> tuple[str, ...]:
    """Return the names of the families, which `Target.parse` also understands.

    Returns
    -------
    tuple of str
        Each is a function of this module.

    Examples
    --------
    >>> names()
    ('hermite', 'leaps', 'parity', 'staircase')
    """
    return tuple(FAMILIES)


def _named(name: str, *arguments: int) -> Target:
    """Return the target of a family, named by its call."""
    return Target(FAMILIES[name](*arguments), name=f"{name}({','.join(map(str, arguments))})")
