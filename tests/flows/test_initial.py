"""The law of M(0) against brute force, and streams that depend on their own run only."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mids.errors import InputError
from mids.flows import initial

RANKS = [(1, 1), (2, 2), (3, 2), (2, 3)]


def brute_force(rank, student_rank, dim, n, seed):
    """Take the top rows of orthonormal frames of Gaussian matrices."""
    gaussian = np.random.default_rng(seed).standard_normal((n, dim, student_rank))
    frames, triangular = np.linalg.qr(gaussian)
    signs = np.sign(np.diagonal(triangular, axis1=1, axis2=2))
    return (frames * signs[:, None, :])[:, :rank]


@pytest.mark.parametrize("dim", [20, "smallest"])
@pytest.mark.parametrize(("rank", "student_rank"), RANKS)
def test_law_equals_brute_force_qr(rank, student_rank, dim):
    n, dim = 4000, rank + student_rank if dim == "smallest" else dim
    exact = initial.draw_runs(rank, student_rank, dim, np.arange(n), seed=11)
    frames = brute_force(rank, student_rank, dim, n, seed=12)
    statistics = {
        **{
            f"M[{i},{j}]": lambda M, i=i, j=j: M[:, i, j]
            for i in range(rank)
            for j in range(student_rank)
        },
        "largest singular value": lambda M: np.linalg.norm(M, 2, axis=(1, 2)),
        "smallest singular value": lambda M: np.linalg.norm(M, -2, axis=(1, 2)),
        "product of the first row's ends": lambda M: M[:, 0, 0] * M[:, -1, -1],
    }
    for name, statistic in statistics.items():
        p = stats.ks_2samp(statistic(exact), statistic(frames)).pvalue
        assert p > 1e-3, f"{name}: p = {p:.2g}"


@pytest.mark.parametrize(("rank", "student_rank"), RANKS)
@pytest.mark.parametrize("dim", [20, 10**12])
def test_moments(rank, student_rank, dim):
    n = 4000
    M = initial.draw_runs(rank, student_rank, dim, np.arange(n), seed=3) * math.sqrt(dim)
    assert np.abs(M.mean(axis=0)).max() < 4 / math.sqrt(n)
    # E M_ij^2 = 1/d, E M_ij^4 = 3 / (d (d + 2)), distinct entries are uncorrelated.
    flat = M.reshape(n, -1)
    error = flat.T @ flat / n - np.eye(flat.shape[1])
    assert np.abs(error).max() < 5 * math.sqrt(2 / n)
    fourth = (flat**4).mean(axis=0)
    np.testing.assert_allclose(fourth, 3 * dim / (dim + 2), atol=5 * math.sqrt(96 / n))


@pytest.mark.parametrize("dim", [2, 3, 20])
def test_single_entry_follows_the_beta_law(dim):
    n = 5000
    squares = initial.draw_runs(1, 1, dim, np.arange(n), seed=5)[:, 0, 0] ** 2
    assert stats.kstest(squares, stats.beta(0.5, (dim - 1) / 2).cdf).pvalue > 1e-3


def test_learnable_directions_follow_the_chi_square_law_at_huge_dim():
    # At large d the smallest eigenvalue's Schur complement is chi^2_{q - j} / d with j = r - 1.
    dim, n, rank, student_rank = 10**12, 4000, 2, 3
    M = initial.draw_runs(rank, student_rank, dim, np.arange(n), seed=6)
    gram = M @ M.swapaxes(1, 2) * dim
    schur = gram[:, 1, 1] - gram[:, 1, 0] ** 2 / gram[:, 0, 0]
    assert stats.kstest(schur, stats.chi2(student_rank - 1).cdf).pvalue > 1e-3


@given(
    rank=st.integers(1, 6),
    student_rank=st.integers(1, 6),
    extra=st.sampled_from([0, 1, 5, 1000, 10**12]),
    seed=st.integers(0, 2**128),
)
def test_matrices_are_correlations(rank, student_rank, extra, seed):
    dim = rank + student_rank + extra
    M = initial.draw(rank, student_rank, dim, initial.stream(seed, dim, 0))
    assert M.shape == (rank, student_rank)
    assert np.linalg.norm(M, 2) <= 1 + 1e-13
    np.testing.assert_array_equal(initial.check_initial(M, rank, student_rank), M)


def test_bits_depend_on_the_own_run_only():
    arguments = {"rank": 3, "student_rank": 2, "dim": 10**6, "seed": 2**70}
    runs = np.append(np.arange(49), 2**40)
    together = initial.draw_runs(runs=runs, **arguments)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(initial.draw_runs(runs=runs[order], **arguments), together[order])
    more = initial.draw_runs(runs=range(80), **arguments)
    np.testing.assert_array_equal(more[:49], together[:49])
    for at in (0, 17, 49):
        alone = initial.draw(3, 2, 10**6, initial.stream(2**70, 10**6, int(runs[at])))
        np.testing.assert_array_equal(alone, together[at])


def test_no_runs_give_an_empty_array():
    assert initial.draw_runs(2, 3, 100, [], seed=0).shape == (0, 2, 3)


def test_streams_differ_in_every_argument():
    # Among them the pairs that collide when keys are not split into words of fixed number.
    keys = [
        (seed, dim, run)
        for seed in (0, 1, 7, 7 << 32, 2**32 + 1, 2**96, 2**128)
        for dim in (1, 2, 2**32, 2**32 + 1, 10**12)
        for run in (0, 1, 2**32, 2**32 + 1)
    ]
    first = {initial.stream(*key).integers(2**63) for key in keys}
    assert len(first) == len(keys)


def test_stream_is_the_documented_one():
    words = np.random.SeedSequence(5, spawn_key=(10**12 % 2**32, 10**12 // 2**32, 3, 0))
    expected = np.random.Generator(np.random.PCG64DXSM(words)).standard_normal(4)
    np.testing.assert_array_equal(initial.stream(5, 10**12, 3).standard_normal(4), expected)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((-1, 10, 0), "seed must be an integer of at least 0, got -1"),
        ((0.5, 10, 0), "seed must be"),
        ((None, 10, 0), "seed must be"),
        ((0, 0, 0), "dim must be"),
        ((0, 10, -1), "run must be"),
        ((0, 10, 2**64), "below 2"),
    ],
)
def test_stream_refuses(arguments, match):
    with pytest.raises(InputError, match=match):
        initial.stream(*arguments)


@pytest.mark.parametrize(
    ("rank", "student_rank", "dim", "match"),
    [
        (2, 2, 3, "rank \\+ student_rank = 2 \\+ 2 = 4"),
        (2, 2, 10.5, "got 10.5"),
        (0, 2, 10, "rank must be"),
        (2, 0, 10, "student_rank must be"),
    ],
)
def test_draw_refuses(rank, student_rank, dim, match):
    with pytest.raises(InputError, match=match):
        initial.draw_runs(rank, student_rank, dim, [0], seed=0)


def test_given_initial_conditions_are_copied():
    given_matrices = np.full((4, 2, 2), 0.1)
    checked = initial.check_initial(given_matrices, 2, 2)
    given_matrices[:] = 7
    assert (checked == 0.1).all()


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        ([[1.01, 0.0], [0.0, 0.0]], "singular values of at most 1, got 1.01"),
        ([[0.8, 0.8], [0.8, 0.8]], "got 1.6"),
        ([[0.1, np.nan], [0.0, 0.0]], "must be finite"),
        ([[0.1, 0.1, 0.1], [0.0, 0.0, 0.0]], r"shape \(..., 2, 2\), got \(2, 3\)"),
        ([0.1, 0.2], r"shape \(..., 2, 2\)"),
        ("identity", "array of real numbers"),
    ],
)
def test_given_initial_conditions_are_checked(matrix, match):
    with pytest.raises(InputError, match=match):
        initial.check_initial(matrix, 2, 2)
