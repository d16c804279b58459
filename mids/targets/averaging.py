r"""The averaging operator, the loss and its gradient, on Hermite tensors.

A student frame :math:`W` meets the target's frame in :math:`M = W^{*T} W` and
:math:`G = M M^T`. The averaging operator
:math:`(A_M f)(z) = E_y f(M z + (I - M M^T)^{1/2} y)` acts on the tensors of a link by
:math:`T_k \mapsto (M^T)^{\otimes k} T_k` (paper eq. 30), and with the fast link
:math:`A_M f^*` the loss is (paper eq. 31)

.. math:: L = \tfrac12 \|f^*\|^2 - \tfrac12 h(G), \qquad
          h(G) = \langle f^*, A_G f^* \rangle = \sum_k \langle T_k, G^{\otimes k} T_k \rangle .

A link is given as a `Target` or as its tensors :math:`T_0, \dots, T_p`. `G` may have any leading
axes, over times or runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from .. import validation
from ..errors import InputError
from ..validation import FloatArray
from .basis import apply_to_indices, multiplicities
from .target import Target

BLOCK_SIZE = 2**20  # entries of the largest intermediate array, unless a single tensor is larger

Link: TypeAlias = Target | Sequence[FloatArray]


def _over_matrices(
    function: Callable[[Sequence[FloatArray], FloatArray], FloatArray],
) -> Callable[[Link, ArrayLike], FloatArray]:
    """Make a function of tensors and G (n, r, r) one of a link and G (..., r, r), in blocks."""

    @wraps(function)
    def whole(link: Link, G: ArrayLike) -> FloatArray:
        tensors = link.tensors if isinstance(link, Target) else link
        rank = _rank(tensors)
        matrices = validation.matrices(G, "G", rank, rank)
        flat = matrices.reshape(-1, rank, rank)
        step = max(1, BLOCK_SIZE // max(tensor.size for tensor in tensors))
        parts = [function(tensors, flat[i : i + step]) for i in range(0, max(1, len(flat)), step)]
        result = np.concatenate(parts)
        return result.reshape(matrices.shape[:-2] + result.shape[1:])

    return whole


def average(tensors: Sequence[FloatArray], M: ArrayLike) -> tuple[FloatArray, ...]:
    """Apply the averaging operator :math:`A_M`, for M of shape (r, q), to a link on :math:`R^r`."""
    matrix = validation.matrix(M, "M", _rank(tensors), None)
    return tuple(apply_to_indices(tensor, matrix.T) for tensor in tensors)


@_over_matrices
def correlation(tensors: Sequence[FloatArray], G: FloatArray) -> FloatArray:
    r"""Return :math:`h(G) = \langle f^*, A_G f^* \rangle` (paper eq. 31) of G (..., r, r)."""
    total = np.full(len(G), np.square(tensors[0]))
    for k, tensor in enumerate(tensors[1:], start=1):
        total += _inner(tensor, _contract(tensor, G, k))
    return total


@_over_matrices
def _derivative(tensors: Sequence[FloatArray], M: FloatArray) -> FloatArray:
    total = np.zeros(M.shape)
    for k, tensor in enumerate(tensors[1:], start=1):
        total += k * (_contract(tensor, M, k - 1) @ tensor.reshape(len(tensor), -1).T)
    return total.swapaxes(-1, -2)


def gradient(link: Link, G: ArrayLike) -> FloatArray:
    r"""Return the gradient :math:`H = \nabla h(G)`, (..., r, r), of G (..., r, r).

    :math:`H_{ij} = \langle \partial_i f^*, A_G \partial_j f^* \rangle`: degree
    :math:`k` contributes :math:`k` times :math:`T_k` contracted with itself through `G` on all but
    one index of each side.
    """
    total = _derivative(link, G)
    return (total + total.swapaxes(-1, -2)) / 2


def planted_slope(link: Link, M: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """``M' = D - M sym(M^T D)`` of M (..., r, r), and D, the derivative of ``<f*, A_M f*>``."""
    matrices = np.asarray(M, dtype=np.float64)
    D = _derivative(link, matrices)
    inner = matrices.swapaxes(-1, -2) @ D
    return D - matrices @ (inner + inner.swapaxes(-1, -2)) / 2, D


@_over_matrices
def loss(tensors: Sequence[FloatArray], G: FloatArray) -> FloatArray:
    r"""Return :math:`L = \tfrac12 \|f^*\|^2 - \tfrac12 h(G)` (paper eq. 31) of G (..., r, r).

    It is summed without cancellation, so that it keeps its relative accuracy as far as
    :math:`I - G` does when the loss is small.
    """
    # I - G (x) ... (x) G telescopes into terms G (x) ... (x) (I - G) (x) ... (x) I of one sign.
    total = np.zeros(len(G))
    rest = np.eye(G.shape[-1]) - G
    for k, tensor in enumerate(tensors[1:], start=1):
        current = _contract(tensor, G, 0)
        for _ in range(k):
            total += _inner(tensor, rest @ current)
            current = _pass(current, G)
    return total / 2


def energy(target: Target, G: ArrayLike) -> FloatArray:
    r"""Return what each mode contributes to :math:`h(G)`: :math:`\alpha_\beta (A_G f^*)_\beta`."""
    weights = target.coefficients * np.sqrt(multiplicities(target.modes))
    degrees = target.modes.sum(axis=1)
    words = [np.repeat(np.arange(target.rank), beta) for beta in target.modes]

    @_over_matrices
    def energies(tensors: Sequence[FloatArray], matrices: FloatArray) -> FloatArray:
        result = np.full((len(matrices), len(words)), tensors[0])
        for k, tensor in enumerate(tensors[1:], start=1):
            averaged = _contract(tensor, matrices, k).reshape(len(matrices), *tensor.shape)
            for mode in np.flatnonzero(degrees == k):
                result[:, mode] = averaged[:, *words[mode]]
        return result * weights

    return energies(target, G)


def _contract(tensor: FloatArray, G: FloatArray, count: int) -> FloatArray:
    """Apply each G of (n, r, r) to `count` indices of a symmetric tensor; shape (n or 1, r, m)."""
    current = tensor.reshape(1, len(tensor), -1)
    for _ in range(count):
        current = _pass(current, G)
    return current


def _pass(current: FloatArray, G: FloatArray) -> FloatArray:
    """Apply G to the first index and move it last."""
    image = G @ current
    return image.swapaxes(-1, -2).reshape(image.shape)


def _inner(tensor: FloatArray, current: FloatArray) -> FloatArray:
    """Contract all indices; their cyclic order is immaterial since the tensor is symmetric."""
    result: FloatArray = np.einsum("nij,ij->n", current, tensor.reshape(len(tensor), -1))
    return result


def _rank(tensors: Sequence[FloatArray]) -> int:
    rank = len(tensors[1]) if len(tensors) > 1 and np.ndim(tensors[1]) == 1 else 0
    if rank == 0 or any(np.shape(t) != (rank,) * k for k, t in enumerate(tensors)):
        raise InputError(
            "tensors must be T_0, T_1, ... where T_k has k axes of the same size, got shapes "
            f"{validation.shown([np.shape(t) for t in tensors])}; pass target.tensors"
        )
    return rank
