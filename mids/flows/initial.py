r"""The initial correlation matrix :math:`M(0) = W^{*T} W(0)` and the random streams.

:math:`W(0)` is uniform on the Stiefel manifold (paper section 2). Its correlation with the
target's frame is drawn exactly, without any array of size :math:`d`:
:math:`M(0)^T = L^{-1} A` with :math:`A \sim N(0, 1)^{q \times r}`, :math:`L` lower triangular,
:math:`L L^T = A A^T + B` and :math:`B \sim \mathrm{Wishart}_q(d - r)` given by Bartlett's
triangular factor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import validation
from ..errors import InputError
from ..validation import FloatArray, IntArray

_WORD = 2**32
SMALLEST = 1e-150  # least norm of columns that are not 0: their squares are no denormals


def stream(seed: int, dim: int, run: int, branch: int = 0) -> np.random.Generator:
    """Return the random stream of a run, which depends on these arguments alone."""
    seed = validation.integer(seed, "seed", at_least=0)
    key = []
    for value in (
        validation.integer(dim, "dim", at_least=1),
        validation.integer(run, "run", at_least=0),
    ):
        if value >= _WORD**2:
            raise InputError(f"dim and run must be below 2**64, got {validation.shown(value)}")
        # Two words each: a spawn key with entries beyond 32 bits collides with a longer key.
        key += [value % _WORD, value // _WORD]
    if branch:
        key.append(branch)
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=key)))


class _Words(np.random.bit_generator.ISeedSequence):
    """A seed sequence whose state is known."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        return self.words


def _streams(seed: int, dim: int, runs: IntArray) -> Iterator[np.random.Generator]:
    """Streams of runs as `stream` makes them: NumPy's `SeedSequence` for all of them at once."""
    common = np.random.SeedSequence(seed, spawn_key=(dim % _WORD, dim // _WORD))
    pool: list[np.ndarray] = [np.full(len(runs), word) for word in common.pool]
    # NumPy's hash multiplies its constant 16 times for the pool, and 4 for each further word.
    extra = max(0, -(-seed.bit_length() // 32) - 4) + 2
    constant = 0x43B0D7E5 * pow(0x931E8875, 16 + 4 * extra, _WORD) % _WORD
    for word in (runs % _WORD, runs // _WORD):
        for i, old in enumerate(pool):
            constant, new = _hashed(word.astype(np.uint32), constant, 0x931E8875)
            mixed: np.ndarray = np.uint32(0xCA01F9DD) * old - np.uint32(0x4973F715) * new
            pool[i] = mixed ^ mixed >> np.uint32(16)
    state = np.empty((len(runs), 8), dtype=np.uint32)
    constant = 0x8B51F9DD
    for i in range(8):
        constant, state[:, i] = _hashed(pool[i % 4], constant, 0x58F38DED)
    for words in state.view(np.uint64):
        known: Any = _Words(words)
        yield np.random.Generator(np.random.PCG64DXSM(known))


def _hashed(word: np.ndarray, constant: int, factor: int) -> tuple[int, np.ndarray]:
    """Next constant, and the hash of words, of `SeedSequence`."""
    following = constant * factor % _WORD
    product = (word ^ np.uint32(constant)) * np.uint32(following)
    return following, product ^ product >> np.uint32(16)


def draw(rank: int, student_rank: int, dim: int, rng: np.random.Generator) -> FloatArray:
    """Draw one initial correlation matrix; returns (rank, student_rank)."""
    rank, student_rank, dim = _check_sizes(rank, student_rank, dim)
    correlation: FloatArray = _correlations(rank, student_rank, dim, 1, [rng])[0]
    return correlation


def draw_runs(rank: int, student_rank: int, dim: int, runs: ArrayLike, seed: int) -> FloatArray:
    """Draw M(0) of several runs, each from its own stream; (n, rank, student_rank)."""
    rank, student_rank, dim = _check_sizes(rank, student_rank, dim)
    seed = validation.integer(seed, "seed", at_least=0)
    indices = [validation.integer(run, "run", at_least=0) for run in np.ravel(runs).tolist()]
    streams = _streams(seed, dim, np.array(indices, dtype=np.uint64))
    return _correlations(rank, student_rank, dim, len(indices), streams)


def check_initial(
    initial: ArrayLike, rank: int, student_rank: int, *, orthonormal: bool = True
) -> FloatArray:
    """Check given M(0), (..., rank, student_rank), of frames or of independent unit vectors."""
    matrices = validation.matrices(initial, "initial", rank, student_rank)
    if not orthonormal:
        longest = float(np.linalg.norm(matrices, axis=-2).max(initial=0.0))
        if longest > 1 + 1e-12:
            raise InputError(
                f"initial must have columns of norm at most 1, got {longest:.6g}; they are the "
                "correlations of unit vectors with the target's frame"
            )
        return matrices.copy()
    largest = float(np.linalg.norm(matrices, ord=2, axis=(-2, -1)).max(initial=0.0))
    if largest > 1 + 1e-12:
        raise InputError(
            f"initial must have singular values of at most 1, got {largest:.6g}; "
            "M(0) = W*^T W(0) needs frames with orthonormal columns"
        )
    least = np.linalg.norm(matrices, axis=-2)
    if ((least > 0) & (least < SMALLEST)).any():
        raise InputError(
            f"initial has a column of norm {least[least > 0].min():.3g}; its square, an "
            f"overlap, is too small for floating point: take {SMALLEST:g} or more, or exactly 0"
        )
    return matrices.copy()


def independent(initial: FloatArray) -> tuple[FloatArray, IntArray]:
    """Factors of ``M M^T`` that are graded by columns, and their ranks.

    A small singular value is meant if it is that of a small column or row, and rounding if it is
    left over by large ones that cancel: ranks are those with columns scaled to norm 1.

    Shapes: initial (..., rank, m); returns (..., rank, m or rank), (...).
    """
    factor = np.array(initial, dtype=float)
    if factor.shape[-1] > factor.shape[-2]:  # any factor will do: keep the square one
        factor = _triangular(factor)
    rank = np.full(factor.shape[:-2], min(factor.shape[-2:]))
    # Columns of length 1 that are nearly dependent have a Gram determinant near 0.
    unit = _unit_columns(factor)
    doubtful = ~(np.linalg.det(unit.swapaxes(-1, -2) @ unit) > 1e-8)
    if doubtful.any():
        rank[doubtful] = _numerical_rank(factor[doubtful])
        # The triangular factor of a matrix graded by rows is graded by columns.
        turned = np.zeros_like(factor[doubtful])
        triangular = _triangular(factor[doubtful])[..., : factor.shape[-1]]
        turned[..., : triangular.shape[-1]] = triangular
        better = _numerical_rank(factor[doubtful].swapaxes(-1, -2))
        graded = (better > rank[doubtful])[:, None, None]
        factor[doubtful] = np.where(graded, turned, factor[doubtful])
        rank[doubtful] = np.maximum(rank[doubtful], better)
    return factor, rank


def least_overlap(initial: FloatArray) -> float:
    """Lower bound of the smallest eigenvalue of ``M M^T`` that is not 0, or 1; M (..., rank, m)."""
    factor, rank = independent(initial)
    norms = np.linalg.norm(factor, axis=-2)
    # The least singular value of unit columns times their least norm is a lower bound.
    sizes = np.linalg.svd(_unit_columns(factor), compute_uv=False)
    sizes = np.where(np.arange(sizes.shape[-1]) < rank[..., None], sizes, np.inf).min(axis=-1)
    norms = np.where(norms > 0, norms, np.inf).min(axis=-1)
    return float(np.min((norms * sizes) ** 2, initial=1.0))


def _triangular(factor: FloatArray) -> FloatArray:
    """Lower triangular factor of ``M M^T``; rows keep their own relative accuracy."""
    # M^T = QR gives M M^T = R^T R.
    upper = np.asarray(np.linalg.qr(factor.swapaxes(-1, -2), mode="r"))
    return np.ascontiguousarray(upper.swapaxes(-1, -2))


def _unit_columns(factor: FloatArray) -> FloatArray:
    norms = np.linalg.norm(factor, axis=-2, keepdims=True)
    return np.asarray(factor / np.where(norms > 0, norms, 1.0))


def _numerical_rank(factor: FloatArray) -> IntArray:
    sizes = np.linalg.svd(_unit_columns(factor), compute_uv=False)
    return np.asarray((sizes > 8 * factor.shape[-2] * np.finfo(float).eps).sum(axis=-1))


def frame(M: ArrayLike, dim: int, rng: np.random.Generator) -> FloatArray:
    """Draw a frame W (dim, q) uniformly among those with M (rank, q), for W* of unit vectors."""
    matrix = validation.matrix(M, "M", None, None)
    rank, student_rank, dim = _check_sizes(len(matrix), len(matrix.T), dim)
    matrix = check_initial(matrix, rank, student_rank)
    rest = rng.standard_normal((dim - rank, student_rank))
    for _ in range(2):  # Gram-Schmidt, without a matrix library: see `_correlations`
        for j in range(student_rank):
            for k in range(j):
                rest[:, j] -= (rest[:, j] * rest[:, k]).sum() * rest[:, k]
            rest[:, j] /= np.sqrt((rest[:, j] ** 2).sum())
    # W = (M, W_perp (I - M^T M)^(1/2)) has orthonormal columns.
    values, vectors = np.linalg.eigh(np.eye(student_rank) - matrix.T @ matrix)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    return np.concatenate([matrix, (rest[:, :, None] * root).sum(axis=1)])


def _check_sizes(rank: int, student_rank: int, dim: int) -> tuple[int, int, int]:
    rank = validation.integer(rank, "rank", at_least=1)
    student_rank = validation.student_rank(student_rank)
    return rank, student_rank, int(validation.dims(dim, rank, student_rank)[0])


def _correlations(
    r: int, q: int, dim: int, n: int, streams: Iterable[np.random.Generator]
) -> FloatArray:
    """Draw one M(0) from each stream, shape (n, r, q)."""
    normal = np.empty((n, q * r + q * (q - 1) // 2))
    chi_square = np.empty((n, q))
    for i, rng in enumerate(streams):
        rng.standard_normal(out=normal[i])
        chi_square[i] = [rng.chisquare(dim - r - k) for k in range(q)]
    # Element by element, without a matrix library: a run's bits do not depend on other runs.
    A = normal[:, : q * r].reshape(n, q, r)
    L = np.zeros((n, q, q))  # Bartlett's factor of B
    rows, columns = np.tril_indices(q, -1)
    L[:, rows, columns] = normal[:, q * r :]
    L[:, range(q), range(q)] = np.sqrt(chi_square)
    for j in range(r):  # L L^T + a a^T for each column a of A, by plane rotations
        a = A[:, :, j].copy()
        for k in range(q):
            diagonal = np.sqrt(L[:, k, k] ** 2 + a[:, k] ** 2)
            c, s = L[:, k, k] / diagonal, a[:, k] / diagonal
            below = L[:, k + 1 :, k].copy()
            L[:, k, k] = diagonal
            L[:, k + 1 :, k] = c[:, None] * below + s[:, None] * a[:, k + 1 :]
            a[:, k + 1 :] = c[:, None] * a[:, k + 1 :] - s[:, None] * below
    M = np.empty((n, r, q))
    for k in range(q):  # forward substitution in L M^T = A
        rest = A[:, k].copy()
        for j in range(k):
            rest -= L[:, k, j, None] * M[:, :, j]
        M[:, :, k] = rest / L[:, k, k, None]
    return M
