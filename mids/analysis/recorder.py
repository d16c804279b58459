"""Recording of a training loop as a dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .. import validation
from ..errors import InputError
from ..targets.target import Target
from .exports import as_numpy
from .overlaps import overlaps
from .trajectories import from_trajectories

__all__ = ["Recorder"]


class Recorder:
    """Loss and correlation matrix of a network at steps that are even in the logarithm.

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
    ) -> None:
        self.W_star = validation.finite_array(as_numpy(W_star), "W_star")
        overlaps(self.W_star, self.W_star)  # checks it
        self.rank = None if rank is None else validation.integer(rank, "rank", at_least=1)
        self.per_decade = validation.integer(per_decade, "per_decade", at_least=1)
        self.target = target
        self._steps: list[int] = []
        self._loss: list[float] = []
        self._matrices: list[np.ndarray] = []
        self._discarded: list[float] = []

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
        """
        step = validation.integer(step, "step", at_least=0)
        if not self._steps or step == 0:
            return True
        last = self._steps[-1]
        return step > last and step >= last * 10.0 ** (1.0 / self.per_decade)

    def record(self, step: int, loss: Any, W: Any, *, weights: Any = None) -> None:
        """Keep the loss and the overlaps of a network at a step.

        Parameters
        ----------
        step : int
            The step of the training loop, later than all before.
        loss : float or array_like
            One number.
        W : array_like
            First layer, shape (d, neurons).
        weights : array_like, optional
            Weights of the neurons, shape (neurons,). See `overlaps`.

        Raises
        ------
        InputError
            If the step is not later than the last one, the loss is not one number, or the shape of
            W does not fit the directions of the target.
        """
        step = validation.integer(step, "step", at_least=0)
        if self._steps and step <= self._steps[-1]:
            raise InputError(
                f"step {step} comes after step {self._steps[-1]}; record steps in order, and a new "
                "run with a new Recorder"
            )
        value = np.asarray(as_numpy(loss), dtype=np.float64)
        if value.size != 1:
            raise InputError(f"loss must be one number, got shape {value.shape}; pass its mean")
        found = overlaps(W, self.W_star, rank=self.rank, weights=weights)
        self._steps.append(step)
        self._loss.append(float(value.ravel()[0]))
        self._matrices.append(found["correlation"].values)
        self._discarded.append(float(found["discarded"]))

    def dataset(self, *, learning_rate: float | None = None, half: bool = False) -> xr.Dataset:
        """Return what was recorded as a dataset.

        Parameters
        ----------
        learning_rate : float, optional
            By which the steps are multiplied, to be times of a flow. See `from_trajectories`.
        half : bool
            Whether the loss lacks the factor 1/2, and is halved.

        Returns
        -------
        xarray.Dataset
            One run, with ``loss``, ``overlap`` and ``crossing_time``. The attribute ``discarded``
            is the largest share of a first layer that the kept directions leave out.

        Raises
        ------
        InputError
            If fewer than two steps were recorded.
        """
        if len(self._steps) < 2:
            raise InputError(
                f"{len(self._steps)} steps were recorded, but a trajectory needs at least 2; call "
                "record(step, loss, W) in the training loop"
            )
        ds = from_trajectories(
            time=np.array(self._steps, dtype=np.float64),
            loss=np.array(self._loss),
            correlation=np.stack(self._matrices),
            dim=self.W_star.shape[0],
            target=self.target,
            learning_rate=learning_rate,
            half=half,
        )
        ds.attrs["discarded"] = max(self._discarded)
        return ds
