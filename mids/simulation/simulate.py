"""Lazy datasets of simulated trajectories, and the way back from a dataset to its simulation."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import xarray as xr
from numpy.typing import ArrayLike

from .. import validation
from ..errors import FileError, InputError
from ..flows import from_dict
from ..flows.base import Flow
from ..targets.target import Target
from . import graph as _graph
from . import sweep as _sweep

__all__ = ["from_spec", "read_spec", "simulate"]


def simulate(
    target: Target | str,
    *,
    dim: float | Sequence[float] | ArrayLike,
    runs: int | Sequence[int] = 64,
    seed: int = 0,
    flow: str | Flow = "two-timescale",
    student_rank: int | None = None,
    initial: ArrayLike | xr.DataArray | None = None,
    time: ArrayLike | None = None,
    rtol: float = 1e-8,
    chunks: int | Literal["auto"] = "auto",
) -> xr.Dataset:
    """Return a lazy dataset of gradient-flow trajectories on a Gaussian multi-index model.

    All arguments are checked at once; nothing is simulated before the dataset is computed. The
    random stream of a run depends on ``(seed, dim, run)`` only, so that its numbers do not change
    with `chunks`, the scheduler, or the other dims and runs.

    Parameters
    ----------
    target : Target or str
        The target, or text for `Target.parse`, which is not scaled to unit norm.
    dim : number or sequence of numbers
        Ambient dimensions d, distinct, at least ``rank + student_rank`` each. 1e4 and 10000 are
        both accepted.
    runs : int or sequence of int
        How many runs, or the indices of the runs.
    seed : int
        Any non-negative integer.
    flow : str or Flow
        Name of a flow (`mids.flows.names`) or a flow with its parameters.
    student_rank : int, optional
        Columns q of the student's frame; the target's rank, or that of `initial`, if not given.
    initial : array_like or DataArray, optional
        Initial correlation matrices M(0) of shape (..., rank, student_rank) that broadcast over
        (dim, run). A DataArray may have the dims ``dim`` and ``run`` in any order, matched by
        label where it has coordinates. If not given, M(0) is drawn from its exact law.
    time : array_like, optional
        1-D grid that starts at 0 and increases. If not given, `Flow.default_time`.
    rtol : float
        Relative tolerance of the integrator, 1e-12 to 1e-2.
    chunks : int or "auto"
        Runs in one task. ``"auto"`` bounds the work and memory of a task.

    Returns
    -------
    xarray.Dataset
        With the variables of `mids.schema` that the flow yields, as dask arrays.

    Raises
    ------
    InputError
        If an argument is wrong; the message says what is allowed.

    Examples
    --------
    >>> ds = simulate("h1(z1) + h1(z1)*h3(z2)", dim=[1e2, 1e4], runs=3)
    >>> dict(ds.sizes)["run"], ds.loss.chunks is not None
    (3, True)
    >>> ds.crossing_time.dims
    ('dim', 'run', 'direction', 'level')
    """
    sweep = _sweep.check(target, dim, runs, seed, flow, student_rank, initial, time, rtol)
    return _graph.dataset(sweep, _graph.block_size(sweep, chunks))


def from_spec(spec: Mapping[str, Any]) -> xr.Dataset:
    """Return the lazy dataset that a mapping of `simulate`'s arguments describes."""
    for name in spec:
        validation.one_of(name, _ARGUMENTS, "argument of a sweep")
    missing = [name for name in ("target", "dim") if name not in spec]
    if missing:
        raise InputError(
            f"a sweep needs {' and '.join(missing)}; got {validation.shown(list(spec))}"
        )
    arguments = dict(spec)
    if isinstance(arguments["target"], Mapping):
        arguments["target"] = Target.from_dict(arguments["target"])
    if isinstance(arguments.get("flow"), Mapping):
        arguments["flow"] = from_dict(arguments["flow"])
    return simulate(**arguments)


_ARGUMENTS = tuple(name for name in simulate.__annotations__ if name != "return")


def read_spec(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the arguments of a sweep from a TOML file, for `from_spec`."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot read {path} ({error.strerror}); check the path") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileError(f"{path} is no TOML file ({error}); see toml.io for the format") from None
