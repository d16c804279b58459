"""A network in training: overlaps of its first layer, and recording of the loop as a dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from .. import schema, validation
from ..errors import InputError
from ..targets.basis import (
    apply_to_indices,
    by_mode,
    check_size,
    mode_label,
    multi_indices,
    project,
    symmetric_tensors,
    tensor_coefficients,
)
from ..targets.samples import estimate
from ..targets.target import Target, as_target
from ..validation import FloatArray
from .trajectories import from_trajectories

NODES = {1: 100, 2: 40, 3: 16}  # nodes of the quadrature in each of so many directions


class Recorder:
    r"""Loss, correlation matrix and link of a network at steps that are even in the logarithm.

    The link is what the network computes of the directions of the target, :math:`\hat f_\beta =
    E[f(x) h_\beta(W_*^T x)]`; once all is learned it equals the target's coefficients.

    Parameters
    ----------
    W_star : array_like
        Directions of the target, shape (d, r), orthonormal columns.
    rank : int, optional
        Directions of the first layer that are kept; r by default. See `overlaps`.
    per_decade : int
        Steps that are recorded in a factor of ten.
    target : Target or str, optional
        What is learned.
    degree : int, optional
        Highest degree of the link; the target's by default, or 4.

    Examples
    --------
    >>> import numpy as np
    >>> W = np.random.default_rng(0).standard_normal((50, 8))
    >>> recorder = Recorder(np.eye(50)[:, :1], target="h2(z1)")
    >>> for step in range(1000):
    ...     if recorder.wants(step):
    ...         recorder.record(step, 0.5, W)
    ...     W[0] += 0.01
    >>> ds = recorder.dataset(learning_rate=0.1)
    >>> dict(ds.sizes)["direction"], bool(ds.overlap[0, 0, -1, 0] > 0.5)
    (1, True)
    """

    def __init__(
        self,
        W_star: Any,
        *,
        rank: int | None = None,
        per_decade: int = 20,
        target: Target | str | None = None,
        degree: int | None = None,
    ) -> None:
        self.W_star = validation.orthonormal(W_star, "W_star")
        d, r = self.W_star.shape
        self.rank = r if rank is None else validation.integer(rank, "rank", at_least=1)
        if self.rank >= d:
            raise InputError(
                f"rank must be below the number of inputs, {d}, got {self.rank}: all frames of "
                "that many columns span everything; keep the leading directions, rank="
                f"{min(r, d - 1)}"
            )
        self.per_decade = validation.integer(per_decade, "per_decade", at_least=1)
        self.target = None if target is None else as_target(target)
        if self.target is not None and self.target.rank != r:
            raise InputError(
                f"W_star has {r} directions, but the target has rank {self.target.rank}; give one "
                "column for each of its variables"
            )
        usual = 4 if self.target is None else self.target.degree
        self.degree = usual if degree is None else validation.integer(degree, "degree", at_least=1)
        self._steps: list[int] = []
        self._loss: list[float] = []
        self._matrices: list[np.ndarray] = []
        self._discarded: list[float] = []
        self._links: list[FloatArray | None] = []

    def wants(self, step: int) -> bool:
        """Tell whether a step is one of those to be recorded; step 0 always is.

        Parameters
        ----------
        step : int
            The step of the training loop.

        Returns
        -------
        bool
            Whether `record` is due, as the last recorded step is long enough ago.

        Examples
        --------
        >>> import numpy as np
        >>> recorder = Recorder(np.eye(50)[:, :1], per_decade=2)
        >>> recorder.record(0, 0.5, np.ones((50, 3)))
        >>> recorder.record(10, 0.4, np.ones((50, 3)))
        >>> recorder.wants(11), recorder.wants(32)
        (False, True)
        """
        step = validation.integer(step, "step", at_least=0)
        if not self._steps or step == 0:
            return True
        last = self._steps[-1]
        return step > last and step >= last * 10.0 ** (1.0 / self.per_decade)

    def record(
        self,
        step: int,
        loss: Any,
        W: Any,
        *,
        weights: Any = None,
        network: Callable[[Any], Any] | None = None,
        samples: tuple[Any, Any] | None = None,
    ) -> None:
        """Keep the loss, the overlaps and the link of a network at a step.

        Parameters
        ----------
        step : int
            The step of the training loop, later than all before.
        loss : float or array_like
            One number; NaN where the run has diverged.
        W : array_like
            First layer, shape (d, neurons).
        weights : array_like, optional
            Weights of the neurons, shape (neurons,). See `overlaps`.
        network : callable, optional
            The network, from inputs (n, d) to outputs (n,) or (n, 1); a module of torch, or a
            function of arrays. Its link is found by quadrature over its leading directions, at
            most 3.
        samples : pair of array_like, optional
            Standard normal inputs, shape (n, d), and the network's outputs, shape (n,) or (n, 1):
            the link is found by regression, whatever the rank.

        Raises
        ------
        InputError
            If the step is not later than the last one, the loss is not one number, W is not
            finite, or its shape does not fit the directions of the target.

        Examples
        --------
        >>> import numpy as np
        >>> recorder = Recorder(np.eye(50)[:, :1], degree=2)
        >>> W = np.eye(50)[:, :1]
        >>> recorder.record(0, 0.5, W, network=lambda x: (x[:, 0] ** 2 - 1) / 2**0.5)
        >>> recorder.record(1, 0.4, W)
        >>> abs(recorder.dataset().link[0, 0, 0]).values.round(6).tolist()  # h2(z1)
        [0.0, 0.0, 1.0]
        """
        step = validation.integer(step, "step", at_least=0)
        if self._steps and step <= self._steps[-1]:
            raise InputError(
                f"step {step} comes after step {self._steps[-1]}; record steps in order, and a new "
                "run with a new Recorder"
            )
        value = np.asarray(validation.as_numpy(loss))
        if value.size != 1 or value.dtype.kind not in "fiu":
            raise InputError(
                f"loss must be one number, got {validation.shown(loss)} of shape {value.shape}; "
                "pass the mean over the batch"
            )
        layer = np.asarray(validation.as_numpy(W))
        if layer.dtype.kind == "f" and not np.isfinite(layer).all():
            raise InputError(
                f"W is no longer finite at step {step}, the run has diverged: leave the loop; "
                "dataset() has the steps before"
            )
        found = overlaps(W, self.W_star, rank=self.rank, weights=weights)
        link = self._link(W, weights, network, samples)
        self._steps.append(step)
        self._loss.append(float(value.ravel()[0]))
        self._matrices.append(found["correlation"].values)
        self._discarded.append(float(found["discarded"]))
        self._links.append(link)

    def _link(self, W: Any, weights: Any, network: Any, samples: Any) -> FloatArray | None:
        """Coefficients of what the network computes of the target's directions."""
        r = self.W_star.shape[1]
        if network is None and samples is None:
            return None
        check_size(r, self.degree)
        if network is not None:
            if samples is not None or not callable(network):
                raise InputError(
                    "the link is found from the network or from samples; pass network=net, a "
                    "function of inputs, or samples=(inputs, outputs)"
                )
            if self.rank not in NODES:
                raise InputError(
                    f"quadrature takes at most {max(NODES)} directions, and rank is {self.rank}; "
                    "pass samples=(inputs, outputs)"
                )
            frame = leading_directions(W, weights, self.rank)
            exponents, values, *_ = project(
                network, self.rank, self.degree, NODES[self.rank], frame=frame
            )
            # From the network's own directions to those of the target: tensors turn index by index.
            matrix = self.W_star.T @ frame
            tensors = symmetric_tensors(exponents, values)
            return tensor_coefficients([apply_to_indices(t, matrix) for t in tensors])[1]
        if not isinstance(samples, tuple | list) or len(samples) != 2:
            raise InputError(
                f"samples must be a pair (inputs, outputs), got {validation.shown(samples)}; pass "
                "samples=(x, net(x))"
            )
        inputs = validation.matrix(samples[0], "inputs", None, len(self.W_star))
        outputs = validation.finite_array(samples[1], "outputs").reshape(-1)
        if len(outputs) != len(inputs):
            raise InputError(
                f"there are {len(inputs)} inputs and {len(outputs)} outputs; pass one output for "
                "each input, samples=(x, net(x))"
            )
        return estimate(inputs @ self.W_star, outputs, self.degree, 0.99).coefficients

    def dataset(
        self, *, learning_rate: float | None = None, half: bool = False, run: int = 0
    ) -> xr.Dataset:
        """Return what was recorded as a dataset.

        Parameters
        ----------
        learning_rate : float, optional
            By which the steps are multiplied, to be times of a flow. See `from_trajectories`.
        half : bool
            Whether the loss lacks the factor 1/2, and is halved.
        run : int
            Index of the run, by which `concat` tells several apart.

        Returns
        -------
        xarray.Dataset
            One run, with ``loss``, ``correlation``, ``overlap``, ``crossing_time``, and where it
            was recorded ``link``, with the target also ``energy``, the target's coefficient times
            the link's; ``discarded``, over time, is the share of the first layer that the kept
            directions leave out.

        Raises
        ------
        InputError
            If fewer than two steps were recorded.

        Examples
        --------
        >>> import numpy as np
        >>> recorder = Recorder(np.eye(50)[:, :1])
        >>> for step, loss in enumerate([0.5, 0.4, 0.1]):
        ...     recorder.record(step, loss, np.eye(50)[:, :2])
        >>> recorder.dataset(learning_rate=0.01, half=True).loss[0, 0].to_series().to_dict()
        {0.0: 0.25, 0.01: 0.2, 0.02: 0.05}
        """
        if len(self._steps) < 2:
            raise InputError(
                f"{len(self._steps)} steps were recorded, but a trajectory needs at least 2; call "
                "record(step, loss, W) in the training loop"
            )
        ds = from_trajectories(
            time=np.array(self._steps, dtype=np.float64),
            loss=np.where(np.isfinite(self._loss), self._loss, np.nan),
            correlation=np.stack(self._matrices),
            dim=self.W_star.shape[0],
            run=run,
            target=self.target,
            learning_rate=learning_rate,
            half=half,
        )
        share = np.array(self._discarded)[None, None]
        ds["discarded"] = (
            ("dim", "run", "time"),
            share,
            {"long_name": "share of the first layer left out", "units": "1"},
        )
        return ds if all(link is None for link in self._links) else self._with_link(ds)

    def _with_link(self, ds: xr.Dataset) -> xr.Dataset:
        """Add the link, and its correlation with the target."""
        modes = multi_indices(self.W_star.shape[1], self.degree)
        unknown = np.full(len(modes), np.nan)
        link = np.array([unknown if row is None else row for row in self._links])[None, None]
        parts = {"link": link}
        if self.target is not None:
            known = by_mode(self.target.modes, self.target.coefficients)
            parts["energy"] = link * [known.get(tuple(beta), 0.0) for beta in modes.tolist()]
        coords = {
            "mode": np.array([mode_label(beta) for beta in modes.tolist()]),
            "degree": modes.sum(axis=1),
        }
        return ds.assign(
            {
                name: (schema.VARIABLES[name].dims, values, schema.VARIABLES[name].attributes)
                for name, values in parts.items()
            }
        ).assign_coords(
            {
                name: ("mode", values, schema.COORDINATES[name].attributes)
                for name, values in coords.items()
            }
        )


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
    # Fewer student than target directions leave overlaps of 0; rounding may exceed 1.
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
    squares = (singular / singular[0]) ** 2  # that of large and small values has no number
    return left[:, :rank], float(squares[:rank].sum() / squares.sum())
