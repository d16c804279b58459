"""Overlaps of a network's first layer with the directions of a target."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .. import validation
from ..errors import InputError
from .exports import as_numpy

__all__ = ["overlaps"]

ORTHONORMAL = 1e-6


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
    first = validation.finite_array(as_numpy(W), "W")
    frame = validation.finite_array(as_numpy(W_star), "W_star")
    for name, array in (("W", first), ("W_star", frame)):
        if array.ndim != 2 or not array.size:
            raise InputError(
                f"{name} must have the shape (d, columns), got {array.shape}; one vector v is "
                "v[:, None]"
            )
    d, r = frame.shape
    if first.shape[0] != d:
        hint = "; pass W.T, torch keeps a row for each neuron" if first.shape[1] == d else ""
        raise InputError(
            f"W has {first.shape[0]} rows and W_star has {d}, but both need one for each "
            f"input{hint or '; pass matrices of the same network'}"
        )
    if r > d or np.abs(frame.T @ frame - np.eye(r)).max() > ORTHONORMAL:
        raise InputError(
            "the columns of W_star must be orthonormal; take those of numpy.linalg.qr(W_star)[0]"
        )
    if weights is not None:
        size = validation.finite_array(as_numpy(weights), "weights")
        if size.shape != (first.shape[1],):
            raise InputError(
                f"weights must have the shape ({first.shape[1]},), one for each column of W, got "
                f"{size.shape}; several readouts are summed as the root of their squares"
            )
        first = first * size
    most = min(first.shape)
    rank = validation.integer(r if rank is None else rank, "rank", at_least=1)
    if rank > most:
        raise InputError(
            f"rank must be at most {most}, as W has the shape {first.shape}, got {rank}"
        )
    left, singular, _ = np.linalg.svd(first, full_matrices=False)
    total = float((singular**2).sum())
    if total == 0:
        raise InputError("W is zero and spans no subspace; record it after its initialisation")
    if singular[rank - 1] <= 1e-12 * singular[0]:
        spanned = int((singular > 1e-12 * singular[0]).sum())
        raise InputError(f"W spans fewer than {rank} directions; pass rank={spanned}")
    matrix = frame.T @ left[:, :rank]
    values = np.linalg.svd(matrix, compute_uv=False) ** 2
    values = np.clip(np.pad(values, (0, r - len(values))), 0.0, 1.0)
    discarded = float((singular[rank:] ** 2).sum()) / total
    return xr.Dataset(
        {
            "correlation": (("axis", "student"), matrix, {"long_name": "correlation matrix"}),
            "overlap": ("direction", values, {"long_name": "overlap"}),
            "discarded": ((), discarded, {"long_name": "share of W left out"}),
        }
    )
