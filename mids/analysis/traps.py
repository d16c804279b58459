"""How often runs are trapped, with confidence intervals."""

from __future__ import annotations

import numpy as np
import xarray as xr

from .. import validation
from ..errors import DatasetError
from ..schema import STATUS
from ..validation import FloatArray as Array


def traps(ds: xr.Dataset, *, confidence: float = 0.95) -> xr.Dataset:
    """Count how runs ended, and estimate the probability of being trapped.

    A run is trapped (status 2) if it sits at a local minimum of the loss that is not global, as
    the planted flow can, or at a saddle that it could leave only by a tilt below rounding, as the
    flow with the link learned can if the student has a lower rank than the target. Runs that are
    censored or failed have not been decided and do not enter the probability; how many there are
    is counted.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``status``.
    confidence : float
        Confidence level of the interval (Clopper-Pearson: it covers at least that often).

    Returns
    -------
    xarray.Dataset
        Without the dim ``run``: the counts ``converged``, ``censored``, ``trapped`` and ``failed``,
        and ``probability`` of being trapped with ``low`` and ``high``, NaN, 0 and 1 where no run is
        decided. Lazy where `ds` is.

    Raises
    ------
    DatasetError
        If there is no status over runs.
    InputError
        If the confidence level is not between 0 and 1.

    Examples
    --------
    >>> import mids
    >>> found = traps(mids.simulate("h3(z1)", dim=1e4, runs=40, flow="planted"))
    >>> bool(found.low < 0.5 < found.high), found.censored.values.item()
    (True, 0)
    """
    validation.dataset(ds)
    confidence = validation.number(confidence, "confidence", above=0.0, at_most=1.0)
    if "status" not in ds or "run" not in ds["status"].dims:
        raise DatasetError(
            "traps needs the variable 'status' with the dimension 'run', as mids.simulate writes "
            "it; select runs with a list, such as ds.isel(run=[3]), to keep the dimension"
        )
    status = ds["status"]
    out = xr.Dataset({name: (status == k).sum("run") for k, name in enumerate(STATUS)})
    bounds = xr.apply_ufunc(
        _interval,
        out["trapped"],
        out["converged"],
        output_core_dims=[["bound"]],
        dask="parallelized",
        kwargs={"confidence": confidence},
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"bound": 3}},
    )
    names = {
        "probability": "share of trapped among decided runs",
        "low": f"lower bound at confidence {confidence:g}",
        "high": f"upper bound at confidence {confidence:g}",
    }
    for k, name in enumerate(names):
        out[name] = bounds.isel(bound=k)
    for key, variable in out.data_vars.items():
        variable.attrs = {"long_name": names.get(str(key), f"{key} runs"), "units": "1"}
    return out


def _interval(trapped: Array, converged: Array, *, confidence: float) -> Array:
    """Share and its bounds along a new last axis."""
    from scipy.special import betaincinv

    trapped, converged = (np.asarray(n, dtype=np.float64) for n in (trapped, converged))
    tail = 0.5 * (1 - confidence)
    decided = trapped + converged
    share = np.divide(trapped, decided, out=np.full(decided.shape, np.nan), where=decided > 0)
    low = np.where(trapped > 0, betaincinv(np.maximum(trapped, 1), converged + 1, tail), 0.0)
    high = np.where(converged > 0, betaincinv(trapped + 1, np.maximum(converged, 1), 1 - tail), 1.0)
    return np.stack([share, low, high], axis=-1)
