"""The learned subspace: eigenvectors of G(t), followed along time."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .. import validation
from ..errors import DatasetError
from ..simulation.by_recipe import by_recipe
from ..simulation.recipe import Recipe, has_recipes, only
from ..validation import FloatArray as Array
from .kernels import applied


def subspace(ds: xr.Dataset, *, time: Any = None) -> xr.DataArray:
    """Return the directions that each run has learned, in the coordinates of the target's link.

    They are the eigenvectors of G(t) = M(t) M(t)^T, in the order of `overlap`. Signs are fixed:
    the largest component of each is positive at the first time, and from then on the sign changes
    least.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``gram``, or ``correlation``, over ``time``.
    time : number or sequence of numbers, optional
        Only at the times of `ds` that are nearest to these.

    Returns
    -------
    xarray.DataArray
        Dims of the runs, ``time``, ``axis`` and ``direction``; columns have unit length. NaN where
        G is unknown. Lazy where `ds` is.

    Raises
    ------
    InputError
        If `ds` is no dataset.
    DatasetError
        If the dataset has neither.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=1e4, runs=1).compute()
    >>> abs(subspace(ds, time=1e3).sel(direction=0)).round(2).values.ravel().tolist()
    [1.0, 0.0]
    """
    validation.dataset(ds)
    if "gram" not in ds and "correlation" not in ds:
        raise DatasetError(
            "subspace needs the variable 'gram' or 'correlation', which mids.simulate writes since "
            "version 0.2; simulate the dataset again with mids.replay"
        )
    if has_recipes(ds):  # axes that a target lacks are no directions
        needed = only(ds, "gram", "correlation")
        found = by_recipe(needed, _subspace, of=("flow", "student_rank"))["subspace"]
    else:
        found = _subspace(ds)["subspace"]
    if time is None:
        return found
    times = validation.finite_array(time, "time")
    return found.sel(time=times if times.ndim else float(times), method="nearest")


def _subspace(ds: xr.Dataset, recipe: Recipe | None = None) -> xr.Dataset:
    """`subspace` of one recipe, or of none."""
    flow = None if recipe is None else recipe.flow
    # Joined datasets may have 'gram' for other flows, where this one has M alone.
    without = flow is not None and recipe and "gram" not in flow.variables(recipe.target)
    gram, axes = ds.get("gram"), ["axis", "axis_t"]
    if gram is None or ("correlation" in ds and without):
        gram, axes = ds["correlation"], ["axis", "student"]
    if "time" not in gram.dims:
        gram = gram.expand_dims("time")
    size = gram.sizes["axis"]
    found: xr.DataArray = applied(
        _directions,
        gram,
        core=[["time", *axes]],
        out=[["time", "axis", "direction"]],
        sizes={"direction": size},
        symmetric=axes[1] == "axis_t",
    )
    found = found.assign_coords(direction=np.arange(size))
    found.attrs = {"long_name": "component of the learned direction", "units": "1"}
    return found.to_dataset(name="subspace")


def _directions(matrices: Array, *, symmetric: bool) -> Array:
    """Eigenvectors or left singular vectors of (..., time, r, q), the largest value first."""
    known = np.asarray(np.isfinite(matrices).all((-2, -1)))[..., None, None]
    # LAPACK may refuse NaN.
    filled = np.where(known, matrices, 0.0)
    vectors = np.linalg.eigh(filled)[1][..., ::-1] if symmetric else np.linalg.svd(filled)[0]
    return _signed(np.where(known, vectors, np.nan))


def _signed(vectors: Array) -> Array:
    """Fix the signs of columns (..., time, r, r): they change least along time."""
    first = vectors[..., :1, :, :]
    largest = np.abs(np.nan_to_num(first)).argmax(-2, keepdims=True)
    turned = np.take_along_axis(first, largest, -2)[..., 0, :] < 0
    # An eigenvector has no sign: it keeps that of the time before.
    again = (vectors[..., 1:, :, :] * vectors[..., :-1, :, :]).sum(-2) < 0
    # A turn at one time turns all later ones.
    signs = np.cumprod(np.where(np.concatenate([turned, again], axis=-2), -1.0, 1.0), axis=-2)
    return vectors * signs[..., None, :]
