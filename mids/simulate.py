"""Lazy datasets of simulated trajectories, and the way back from a dataset to its simulation."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from . import _graph, _phase_diagram, _sweep, _validate, schema
from .errors import DatasetError, FileError, InputError
from .flows import from_dict
from .flows.base import Flow
from .targets import Target

__all__ = ["differences", "flow_of", "from_spec", "read_spec", "replay", "simulate", "target_of"]


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
    """Return the lazy dataset that a mapping of `simulate`'s arguments describes.

    Parameters
    ----------
    spec : mapping
        Arguments of `simulate` by name, in types that JSON and TOML know: the target as text or as
        the dictionary of `Target.to_dict`, the flow as its name or as a dictionary with ``name``
        and its parameters.

    Returns
    -------
    xarray.Dataset
        What `simulate` returns.

    Raises
    ------
    InputError
        If a name is unknown, ``target`` or ``dim`` is missing, or a value is wrong.

    Examples
    --------
    >>> ds = from_spec({"target": "staircase(2)", "dim": [100], "runs": 2})
    >>> ds.loss.sizes["run"]
    2
    """
    for name in spec:
        _validate.one_of(name, _ARGUMENTS, "argument of a sweep")
    missing = [name for name in ("target", "dim") if name not in spec]
    if missing:
        raise InputError(
            f"a sweep needs {' and '.join(missing)}; got {_validate.shown(list(spec))}"
        )
    arguments = dict(spec)
    if isinstance(arguments["target"], Mapping):
        arguments["target"] = Target.from_dict(arguments["target"])
    if isinstance(arguments.get("flow"), Mapping):
        arguments["flow"] = from_dict(arguments["flow"])
    return simulate(**arguments)


_ARGUMENTS = tuple(name for name in simulate.__annotations__ if name != "return")


def read_spec(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the arguments of a sweep from a TOML file, for `from_spec`.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    dict

    Raises
    ------
    FileError
        If there is no such file or it is no TOML.

    Examples
    --------
    >>> read_spec("nowhere.toml")
    Traceback (most recent call last):
        ...
    mids.errors.FileError: cannot read nowhere.toml (No such file or directory); check the path
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot read {path} ({error.strerror}); check the path") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileError(f"{path} is no TOML file ({error}); see toml.io for the format") from None


def replay(ds: xr.Dataset) -> xr.Dataset:
    """Simulate a dataset again from its attribute ``mids_spec``.

    Parameters
    ----------
    ds : xarray.Dataset
        A dataset of `simulate` or `mids.phase_diagram`, in memory, lazy or from a file. Of a
        selection, such as ``ds.isel(run=[3, 5])``, only the selected dims, runs, times, sample
        sizes, directions and levels are simulated and returned.

    Returns
    -------
    xarray.Dataset
        Lazy; on the same machine with the same versions its numbers are those of `ds` bit by bit,
        which `differences` checks.

    Raises
    ------
    DatasetError
        If the dataset was made by neither, or needs a variable ``initial`` it has lost.

    Examples
    --------
    >>> ds = simulate("h1(z1)", dim=100, runs=2)
    >>> replay(ds.isel(run=1)).run.item()
    1
    """
    recipe = schema.spec(ds)
    if "phase_diagram" in recipe:
        return _phase_diagram.again(ds)
    if not all(name in recipe for name in _sweep.RECORDED):
        raise DatasetError(
            "mids_spec does not describe a simulation, so there is nothing to replay; "
            "replay needs a dataset that mids.simulate made"
        )
    arguments = {name: recipe[name] for name in _sweep.RECORDED}
    arguments |= {name: _sweep.restored(ds, recipe, name) for name in ("runs", "time", "initial")}
    if "dim" in ds.coords:
        arguments["dim"] = np.unique(ds["dim"])  # a resampled dataset has labels several times
    if "run" in ds.coords:
        arguments["runs"] = np.unique(ds["run"])
    again = from_spec(arguments)
    chosen = {
        name: ds[name]
        for name in ("dim", "run", "time", "direction", "level")
        if name in ds.coords and not ds[name].equals(again[name])
    }
    for name, labels in chosen.items():
        if not np.isin(labels, again[name]).all():
            raise DatasetError(
                f"{name} has values that were not simulated and cannot be replayed; replay the "
                "dataset as it was before they were changed"
            )
    return again.sel(chosen)


def differences(ds: xr.Dataset, other: xr.Dataset) -> list[str]:
    """Compare the schema's variables of two datasets bit by bit.

    Parameters
    ----------
    ds, other : xarray.Dataset
        For example a dataset and its `replay`. Lazy ones are computed, once. Where `ds` comes from
        a compact file, `other` is rounded in the same way.

    Returns
    -------
    list of str
        One sentence for each variable of `ds` that is missing from `other` or differs, and where;
        empty if there is none.

    Examples
    --------
    >>> ds = simulate("h1(z1)", dim=100, runs=2)
    >>> differences(ds, replay(ds))
    []
    """
    found: list[str] = []
    unequal: dict[str, xr.Variable] = {}
    for name in schema.VARIABLES:
        if name == "initial" or name not in ds.data_vars:  # `initial` is an argument, not a result
            continue
        if name not in other.data_vars:
            found.append(f"{name} is missing")
            continue
        one, two = ds.variables[name], other.variables[name]
        if one.dtype == schema.VARIABLES[name].compact:
            two = two.astype(one.dtype)
        if one.sizes != two.sizes or one.dtype != two.dtype:
            found.append(
                f"{name} has {one.dtype} of {dict(one.sizes)} against {two.dtype} of "
                f"{dict(two.sizes)}"
            )
            continue
        bits = xr.apply_ufunc(_bits_differ, one, two, dask="parallelized", output_dtypes=[bool])
        unequal[name] = bits.any([d for d in bits.dims if d not in ("dim", "run")])
    compared = xr.Dataset(unequal, {n: ds[n] for n in ("dim", "run") if n in ds.coords}).compute()
    for name in unequal:
        runs = compared[name]
        differing = np.argwhere(runs.values)
        if len(differing):
            first = runs[tuple(differing[0])]
            where = ", ".join(f"{n} {first[n].item()}" for n in ("dim", "run") if n in first.coords)
            found.append(
                f"{name} differs in {len(differing)} of {runs.size} runs, first at {where}"
            )
    return found


def target_of(ds: xr.Dataset) -> Target:
    """Return the target of a dataset.

    Parameters
    ----------
    ds : xarray.Dataset
        A dataset with ``mids_spec``, of `simulate` or `mids.phase_diagram`.

    Returns
    -------
    Target

    Raises
    ------
    DatasetError
        If the dataset does not say which target it has.

    Examples
    --------
    >>> target_of(simulate("h2(z1)", dim=100))
    <Target of rank 1, degree 2, norm 1: h2(z1)>
    """
    spec = schema.spec(ds)
    diagram = spec.get("phase_diagram")
    recorded = (diagram if isinstance(diagram, dict) else spec).get("target")
    if recorded is None:
        raise DatasetError("mids_spec names no target; start from a dataset of mids.simulate")
    return Target.from_dict(recorded)


def flow_of(ds: xr.Dataset) -> Flow:
    """Return the flow of a dataset, with its parameters.

    Parameters
    ----------
    ds : xarray.Dataset
        A dataset of `simulate`.

    Returns
    -------
    Flow

    Raises
    ------
    DatasetError
        If the dataset does not say which flow made it, or is a phase diagram, which has several.

    Examples
    --------
    >>> flow_of(simulate("h2(z1)", dim=100)).name
    'two-timescale'
    """
    spec = schema.spec(ds)
    if "phase_diagram" in spec:
        raise DatasetError(
            "a phase diagram has a flow for each n; make one of them with "
            "mids.flows.Empirical(n=..., ...) and the parameters that ds.mi.describe() shows"
        )
    recorded = spec.get("flow")
    if recorded is None:
        raise DatasetError("mids_spec names no flow: the trajectories come from outside mids")
    return from_dict(recorded)


def _bits_differ(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    unsigned = f"u{one.dtype.itemsize}"
    unequal: np.ndarray = one.view(unsigned) != two.view(unsigned)
    return unequal
