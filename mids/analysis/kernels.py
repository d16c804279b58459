"""Functions of arrays, applied to labelled data; the labels of what they return."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

Dims = Sequence[Hashable]


def applied(
    kernel: Callable[..., Any],
    *arrays: Any,
    core: Sequence[Dims],
    out: Sequence[Dims] = ((),),
    sizes: Mapping[str, int] | None = None,
    **arguments: Any,
) -> Any:
    """Apply a function of arrays over all dims but the `core` ones, lazily where data are lazy.

    The core dims of each array come last, those of each result are `out`, floats all of them;
    `sizes` are the sizes of new dims. Chunks along core dims are joined.
    """
    return xr.apply_ufunc(
        kernel,
        *arrays,
        input_core_dims=core,
        output_core_dims=out,
        kwargs=arguments,
        dask="parallelized",
        output_dtypes=[np.float64] * len(out),
        dask_gufunc_kwargs={"output_sizes": sizes or {}, "allow_rechunk": True},
    )


def labelled(ds: xr.Dataset, names: Mapping[str, str]) -> xr.Dataset:
    """Say what the variables of a dataset are, all of them dimensionless."""
    for name in ds.data_vars.keys() & names.keys():
        ds[name].attrs = {"long_name": names[str(name)], "units": "1"}
    return ds
