"""Overlaps of a network's first layer with the directions of a target."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .. import validation
from ..errors import InputError
from ..validation import FloatArray


def overlaps(W: Any, W_star: Any, *, rank: int | None = None, weights: Any = None) -> xr.Dataset:
    r"""Correlation matrix and overlaps of the subspace that a first layer spans.

    The columns of `W` are the weight vectors of the neurons. The subspace is that of its `rank`
    leading left singular vectors U, of ``W`` with its columns scaled by `weights` where given:
    :math:`M = W_*^T U`; the overlaps are the eigenvalues of ``M M^T``.

    Parameters
    ----------
    W : array_like
        Shape (d, neurons); NumPy, JAX, or a torch tensor of any type and on any device.
    W_star : array_like
        Directions of the target, shape (d, r), orthonormal columns.
    rank : int, optional
        Directions that are kept, at most d and the number of neurons; r by default.
    weights : array_like, optional
        Size of each neuron, shape (neurons,), as that of its readout or of its gradient.

    Returns
    -------
    xarray.Dataset
        ``correlation`` (axis, student), ``overlap`` (direction), in descending order, and
        ``discarded``: share of the squared singular values of the directions that are not kept.

    Raises
    ------
    InputError
        If shapes disagree, a value is not finite, `W_star` is not orthonormal, or `W` is zero.

    Examples
    --------
    >>> import numpy as np
    >>> found = overlaps(np.eye(10)[:, :3], np.eye(10)[:, :2], rank=2)
    >>> found.overlap.values.tolist(), round(float(found.discarded), 2)
    ([1.0, 1.0], 0.33)
    """
    first = validation.finite_array(W, "W")
    frame = validation.orthonormal(W_star, "W_star")
    if first.ndim != 2 or not first.size:
        raise InputError(
            f"W must have the shape (d, neurons), got {first.shape}; one vector v is v[:, None]"
        )
    d, r = frame.shape
    if first.shape[0] != d:
        hint = "; pass W.T, torch keeps a row for each neuron" if first.shape[1] == d else ""
        raise InputError(
            f"W has {first.shape[0]} rows and W_star has {d}, but both need one for each "
            f"input{hint or '; pass matrices of the same network'}"
        )
    rank = validation.integer(r if rank is None else rank, "rank", at_least=1)
    left, kept = _leading(first, weights, rank)
    matrix = frame.T @ left
    values = np.linalg.svd(matrix, compute_uv=False) ** 2
    values = np.clip(np.pad(values, (0, r - len(values))), 0.0, 1.0)
    return xr.Dataset(
        {
            "correlation": (("axis", "student"), matrix, {"long_name": "correlation matrix"}),
            "overlap": ("direction", values, {"long_name": "overlap"}),
            "discarded": ((), 1.0 - kept, {"long_name": "share of W left out"}),
        }
    )


def leading_directions(W: Any, weights: Any, rank: int) -> FloatArray:
    """Leading left singular vectors of a first layer (d, neurons), shape (d, rank)."""
    return _leading(validation.finite_array(W, "W"), weights, rank)[0]


def _leading(W: FloatArray, weights: Any, rank: int) -> tuple[FloatArray, float]:
    """Leading directions of W, its columns weighted, and their share of its squared norm."""
    if weights is not None:
        size = validation.finite_array(weights, "weights")
        if size.shape != (W.shape[1],):
            raise InputError(
                f"weights must have the shape ({W.shape[1]},), one for each column of W, got "
                f"{size.shape}; several readouts are summed as the root of their squares"
            )
        W = W * size
    if rank > min(W.shape):
        raise InputError(
            f"rank must be at most {min(W.shape)}, as W has the shape {W.shape}, got {rank}; pass "
            f"rank={min(W.shape)}"
        )
    left, singular, _ = np.linalg.svd(W, full_matrices=False)
    if not singular.any():
        raise InputError("W is zero and spans no subspace; record it after its initialisation")
    spanned = int((singular > 1e-12 * singular[0]).sum())
    if spanned < rank:
        raise InputError(f"W spans fewer than {rank} directions; pass rank={spanned}")
    squares = singular**2
    return left[:, :rank], float(squares[:rank].sum() / squares.sum())
