"""Linear systems of the Rosenbrock steps."""

import numpy as np
import pytest

from mids.flows.engine.linear import factorise, solve


@pytest.mark.parametrize("size", [1, 2, 3, 6, 10])
def test_systems_are_solved_whatever_the_scales_of_their_rows(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(20):
        matrix, right = rng.standard_normal((size, size)), rng.standard_normal(size)
        scale = 10.0 ** rng.uniform(-35, 35, size)  # rows of the flow differ by 10^70
        if size > 1:
            matrix[0, 0], scale[0] = 1e-12, 1e35  # no pivot, however large beside the others
        expected = np.linalg.solve(matrix, right)
        factors, found = scale[:, None] * matrix, scale * right
        pivot = np.zeros(size, dtype=np.int64)
        factorise.py_func(factors, pivot, np.zeros(size), size)
        solve.py_func(factors, pivot, found, size)
        bound = 1e-14 * size * np.linalg.cond(matrix) * np.linalg.norm(expected)
        assert np.linalg.norm(found - expected) <= bound
