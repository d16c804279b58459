"""Predicted saddles of every run, from its initial condition and the target's leading parts."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .. import flows, schema
from ..errors import DatasetError
from ..ladder import leaps
from ..targets import Target
from .closed_form import ClosedForm
from .limit_flow import LimitFlow
from .prediction import Prediction

__all__ = ["theory"]

Array = NDArray[np.float64]


def theory(ds: xr.Dataset) -> xr.Dataset:
    """Predict the saddles of each run from its own initial condition.

    Where the leading parts of the target decouple the escape times are closed forms; otherwise
    they come from the limit flow, which knows the leading parts and the start d G(0) alone. The
    simulated flow takes no part in either.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``gram0`` and a target in ``mids_spec``.

    Returns
    -------
    xarray.Dataset
        Dims of the runs and ``saddle``, in the order of the visits, padded with NaN: ``rank``
        (directions learned), ``exponent`` (information exponent relative to them), ``loss``,
        ``escape_time`` (overlap of the next direction 1/2; inf where it never gets there); and
        ``n_saddles``. The attributes ``method`` ("closed-form" or "limit-flow") and ``ladder`` say
        how and for which leaps. Lazy where `ds` is.

    Raises
    ------
    DatasetError
        If the dataset has no initial condition or does not name its target.

    Examples
    --------
    >>> import mids
    >>> predicted = theory(mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=1e4, runs=1))
    >>> predicted.attrs["ladder"], predicted.exponent.values.ravel().tolist()
    ('1 -> 3: log d, d^2', [1.0, 3.0])
    """
    if "gram0" not in ds:
        raise DatasetError(
            "theory needs the initial condition 'gram0' with dims (axis, axis_t), as mids.simulate "
            "and mids.from_trajectories(correlation=...), from time 0 on, write it"
        )
    spec = schema.spec(ds)
    if "target" not in spec:
        raise DatasetError(
            "theory needs the target, which mids_spec does not name; simulate the dataset with "
            "mids.simulate or pass target= to mids.from_trajectories"
        )
    target = Target.from_dict(spec["target"])
    weighted, constant = target, 0.0
    if "flow" in spec:
        weighted = flows.from_dict(spec["flow"]).effective_target(target)
        constant = 0.5 * (target.norm**2 - weighted.norm**2)
    model = ClosedForm(weighted) if ClosedForm.applies(weighted) else LimitFlow(weighted)
    gram = ds["gram0"]
    if gram.chunks is not None:
        gram = gram.chunk(axis=-1, axis_t=-1)
    columns = xr.apply_ufunc(
        _predict,
        gram,
        input_core_dims=[["axis", "axis_t"]],
        output_core_dims=[["column", "saddle"]],
        dask="parallelized",
        kwargs={"model": model},
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"column": 4, "saddle": target.rank}},
    )
    names = {
        "rank": "directions learned at the saddle",
        "exponent": "information exponent relative to them",
        "loss": "predicted loss on the plateau",
        "escape_time": "predicted escape time",
    }
    parts = {name: columns.isel(column=k, drop=True) for k, name in enumerate(names)}
    parts["loss"] = parts["loss"] + constant
    out = xr.Dataset(parts | {"n_saddles": parts["rank"].notnull().sum("saddle")})
    for name, text in (names | {"n_saddles": "number of saddles"}).items():
        out[name].attrs = {"long_name": text, "units": "1"}
    return out.drop_vars(("axis", "axis_t"), errors="ignore").assign_attrs(
        method=model.method, ladder=repr(leaps(weighted))
    )


def _predict(gram: Array, *, model: ClosedForm | LimitFlow) -> Array:
    """Columns rank, exponent, loss and escape time of each saddle, for a block of runs."""
    rank = gram.shape[-1]
    flat = gram.reshape(-1, rank, rank)
    usable = np.isfinite(flat).all((1, 2))
    out = np.full((len(flat), 4, rank), np.nan)
    if usable.any():
        found: Prediction = model.predict(flat[usable])
        out[usable] = np.stack([found.rank, found.exponent, found.loss, found.escape_time], axis=1)[
            ..., :rank
        ]
    return out.reshape(*gram.shape[:-2], 4, rank)
