r"""How escape times grow with the dimension, and how the loss of many directions falls with time.

Both are fitted, beside what the theory expects. With strengths that fall as
:math:`a_i = i^{-\beta}` direction i is learned at a time of order :math:`a_i^{-\kappa}` and takes
:math:`a_i^2 / 2` from the loss, so that between the first and the last escape
:math:`L(t) \sim t^{-(2 \beta - 1) / (\kappa \beta)}` (Ren, Nichani, Wu, Lee 2025).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from .. import flows, validation
from ..errors import DatasetError, InputError
from ..simulation.by_recipe import by_recipe
from ..simulation.recipe import Recipe, only
from ..targets.ladder import leaps, rate
from ..validation import FloatArray as Array
from .compare import as_dimension
from .kernels import applied, labelled
from .known_frame import order as known_order
from .plateaus import Scale
from .saddles import saddles

FEWEST = 8  # directions that a power law needs


def scaling(
    ds: xr.Dataset,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    scale: Scale | None = None,
    plateau_confidence: float = 0.95,
) -> xr.Dataset:
    """Fit the power of d with which the escape time of each saddle grows.

    The slope is that of the least-squares line through the logarithm of the median escape time
    over runs against log d. Censored runs count as later than all others; a dimension at which
    they are half or more has no median and is left out. Trapped runs never escape: the medians are
    those of the others. The interval is the percentile bootstrap
    over runs, drawn independently at each dimension.

    A saddle of relative exponent s takes a time of order ``d^(s - 1)``, or log d for s = 1 (paper
    Theorem 1.4), and the escape time is the sum of those so far: `expected` is the largest s - 1
    up to the saddle. For log d it is 0, which the slope approaches as slowly as 1 / log d; there
    the time itself is a line in log d, whose slope is given, too. Where the link is known (the
    planted flow) the powers are s / 2 - 1 instead.

    Parameters
    ----------
    ds : xarray.Dataset
        With what `saddles` needs, at two dimensions or more.
    resamples : int
        Bootstrap samples.
    confidence : float
        Confidence level of the interval.
    seed : int
        Of the bootstrap.
    scale, plateau_confidence
        ``scale`` and ``confidence`` of `plateaus`, for curves alone.

    Returns
    -------
    xarray.Dataset
        Dim ``saddle``, the number of directions learned there (where the dataset has no crossing
        times, the order of the levels by which `saddles` matches them): ``slope``, ``low``,
        ``high``; ``time_slope``, ``time_low``, ``time_high`` (of the time itself in log d);
        ``local_slope`` (with the dim ``dim``; NaN at the first); ``n_dims`` (dimensions
        in the fit), ``n_trapped``, ``n_censored`` (runs trapped or cut off there, at all
        dimensions),
        ``n_unvisited`` (runs that have no such saddle, and no part in its medians), ``n_failed``
        (runs that failed; they have none), on curves alone ``n_unmatched`` (plateaus whose level no
        other run shows), ``expected`` and ``rate`` such as "d^2". Where fewer
        than two dimensions are left the slope is NaN; so is `expected`, with an empty `rate`, where
        target or directions are unknown. Lazy where `ds` is.

    Raises
    ------
    DatasetError
        If there are fewer than two dimensions, no loss over time, or directions of the target are
        missing.
    InputError
        If a parameter is wrong.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=[1e4, 1e5, 1e6], runs=20)
    >>> fit = scaling(ds).compute()
    >>> fit.rate.values.tolist(), round(float(fit.slope[1])), float(fit.expected[1])
    (['log d', 'd^2'], 2, 2.0)
    """
    validation.dataset(ds)
    arguments: dict[str, Any] = {
        "resamples": validation.integer(resamples, "resamples", at_least=1, at_most=10**6),
        "confidence": validation.number(confidence, "confidence", above=0.0, at_most=1.0),
        "seed": validation.integer(seed, "seed", at_least=0),
    }
    if "dim" not in ds.coords:
        raise DatasetError("scaling needs the coordinate 'dim' with the dimensions d; assign it")
    for name in ("dim", "run"):
        ds = as_dimension(ds, name)
    size = ds.sizes["dim"]
    if size < 2:
        raise DatasetError(
            f"scaling needs at least two dimensions along 'dim', but the dataset has "
            f"{size}; simulate it with for example dim=[1e2, 1e4, 1e6]"
        )
    if ds.sizes.get("run") == 0:
        raise DatasetError("scaling needs at least one run, but the dataset has none; select one")
    found = saddles(ds, scale=scale, confidence=plateau_confidence).drop_vars(
        ["loss", "enter_time", "duration"]
    )
    size = found.sizes["saddle"]
    if "recipe" not in ds:
        return _labelled(
            _fitted(found, **arguments).assign(_expected(ds, None, size=size, known=False))
        )
    found, bare = found.assign(recipe=ds["recipe"]).assign_attrs(ds.attrs), ds[["recipe"]]
    of, over = ("flow",), ("dim", "run")
    expected = partial(_expected, size=size, known="visited" in found)
    out = by_recipe(found, partial(_fitted, **arguments), of=of, over=over)
    return _labelled(out.assign(by_recipe(bare, expected, of=of, over=over)))


COLUMNS = {
    "slope": "slope of log escape time in log d",
    "low": "lower end of the bootstrap interval",
    "high": "upper end of the bootstrap interval",
    "time_slope": "slope of escape time in log d",
    "time_low": "lower end of its bootstrap interval",
    "time_high": "upper end of its bootstrap interval",
    "n_dims": "dimensions in the fit",
}
NAMES = COLUMNS | {
    "local_slope": "slope of log escape time since the dimension before",
    "n_trapped": "runs trapped at the saddle",
    "n_censored": "runs cut off at the saddle",
    "n_unvisited": "runs without such a saddle",
    "n_failed": "runs that failed",
    "n_unmatched": "plateaus without a match",
    "expected": "exponent that the theory expects",
}


def _fitted(found: xr.Dataset, _: Recipe | None = None, **arguments: Any) -> xr.Dataset:
    """Fits to the saddles of one recipe, or of none."""
    escape = found["escape_time"].where(~found["censored"], np.inf)
    columns, local = applied(
        _fit,
        escape,
        np.log(found["dim"].astype(np.float64)),
        core=[["saddle", "dim", "run"], ["dim"]],
        out=[["saddle", "column"], ["saddle", "dim"]],
        sizes={"column": len(COLUMNS)},
        **arguments,
    )
    out = xr.Dataset({name: columns.isel(column=k, drop=True) for k, name in enumerate(COLUMNS)})
    out = out.assign(n_dims=out["n_dims"].astype(np.int64), local_slope=local)
    counted = {
        "n_trapped": found["trapped"],
        "n_censored": found["censored"],
        "n_unvisited": escape.isnull() & ~found["trapped"] & ~found["failed"],
        "n_failed": found["failed"],
        **{name: found[name] for name in ("n_unmatched",) if name in found},
    }
    for name, runs in counted.items():
        out[name] = runs.sum([along for along in runs.dims if along in ("dim", "run")])
    return out.assign_coords(saddle=np.arange(escape.sizes["saddle"]))


def _labelled(out: xr.Dataset) -> xr.Dataset:
    out = labelled(out, NAMES)
    out["rate"].attrs = {"long_name": "order of the escape time"}
    out["saddle"].attrs = {"long_name": "directions learned at the saddle", "units": "1"}
    return out


def _expected(_: xr.Dataset, recipe: Recipe | None, *, size: int, known: bool) -> xr.Dataset:
    """Largest power of d up to each saddle and its name; NaN where there is no theory for it."""
    if recipe is not None and known:
        size = min(size, recipe.target.rank)
    powers, names = np.full(size, np.nan), [""] * size
    nothing = xr.Dataset({"expected": ("saddle", powers), "rate": ("saddle", names)})
    if recipe is None or not known:
        return nothing
    target = recipe.target
    if size != target.rank:
        raise DatasetError(
            f"scaling needs all {target.rank} directions of the target, but the dataset has {size} "
            "along 'direction'; take them from the original dataset"
        )
    flow = recipe.flow or flows.TwoTimescale()
    if not flow.fast_link and flow.planted_target(target) is None:
        return nothing
    largest = 0
    for step in leaps(flow.effective_target(target)).steps:
        largest = max(largest, step.exponent)
        power, name = (largest - 1.0, rate(largest)) if flow.fast_link else known_order(largest)
        for j in range(step.rank_before, step.rank_after):
            powers[j], names[j] = power, name
    return xr.Dataset({"expected": ("saddle", powers), "rate": ("saddle", names)})


def _fit(
    escape: Array, log_dim: Array, *, resamples: int, confidence: float, seed: int
) -> tuple[Array, Array]:
    """Columns of `_fitted` from times (..., saddle, dim, run), and slopes between dimensions."""
    # Once a run is cut off it is late at all later saddles, too.
    cut = np.maximum.accumulate(np.isposinf(escape), axis=-3)
    escape = np.where(cut, np.inf, escape)
    slope, n_dims = _slope(escape, log_dim)
    rng = np.random.default_rng(seed)
    dims, runs = escape.shape[-2:]
    drawn = np.empty((resamples if np.isfinite(slope).any() else 1, *slope.shape))
    for sample in drawn:
        # Runs are drawn independently at each dimension, the same for all saddles.
        chosen = rng.integers(runs, size=(dims, runs))
        sample[...] = _slope(escape[..., np.arange(dims)[:, None], chosen], log_dim)[0]
    tail = 0.5 * (1.0 - confidence)
    ends = np.full((2, *slope.shape), np.nan)
    fitted = np.isfinite(drawn).any(axis=0)
    ends[:, fitted] = np.nanquantile(drawn[:, fitted], [tail, 1.0 - tail], axis=0)
    ends[:, np.isnan(slope)] = np.nan
    log_low, low = ends[0]
    log_high, high = ends[1]
    columns = (slope[0], log_low, log_high, slope[1], low, high, n_dims)  # as COLUMNS
    local = np.full(escape.shape[:-1], np.nan)
    further = np.diff(log_dim)
    rise = np.diff(np.log(_medians(escape)), axis=-1)
    local[..., 1:] = rise / np.where(further == 0, np.nan, further)
    return np.stack(columns, axis=-1), local


def _slope(escape: Array, log_dim: Array) -> tuple[Array, Array]:
    """Slopes through the medians, of logarithms and times, (2, ...), and how many are finite."""
    median = _medians(escape)
    usable = np.isfinite(median)
    n_dims = usable.sum(-1)
    known = np.where(usable, median, 1.0)
    y = np.stack([np.log(known), known])
    divisor = np.maximum(n_dims, 1)[..., None]
    # log d about its mean, so that the slope is sum x y / sum x^2
    x = np.where(usable, log_dim - (usable * log_dim).sum(-1, keepdims=True) / divisor, 0.0)
    spread = (x**2).sum(-1)
    slope = (x * y).sum(-1) / np.where(spread > 0, spread, 1.0)
    return np.where(n_dims >= 2, slope, np.nan), n_dims.astype(np.float64)


def _medians(escape: Array) -> Array:
    """Medians over runs; NaN where they are not finite and positive."""
    ordered = np.sort(escape, axis=-1)  # inf after all numbers, NaN after inf
    count = np.isfinite(ordered).sum(-1) + np.isposinf(ordered).sum(-1)
    middle = [
        np.take_along_axis(ordered, np.clip(at, 0, None)[..., None], axis=-1)[..., 0]
        for at in ((count - 1) // 2, count // 2)
    ]
    median = 0.5 * (middle[0] + middle[1])
    usable = (count > 0) & np.isfinite(median) & (median > 0)
    return np.where(usable, median, np.nan)


# -- the loss of many directions ----------------------------------------------------------------


def scaling_law(ds: xr.Dataset, *, first: int = 3, last: int | None = None) -> xr.Dataset:
    r"""Fit the power of time with which the loss falls, beside the one the plateaus predict.

    The fit is the least-squares line through log loss against log time, run by run, while the loss
    is between what is left after `first` and after `last` directions. Time is sampled evenly in its
    logarithm.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``loss`` over ``time``, of an additive target of at least 8 orthonormal directions.
    first, last : int
        Directions learned at the two ends of the fit; `last` a quarter of all if not given.

    Returns
    -------
    xarray.Dataset
        Over the dims of the runs: ``exponent`` (the slope; NaN where the loss does not pass both
        ends); over those but ``run``: ``median``, ``low`` and ``high`` (a tenth of the runs beyond
        each; NaN if a run has no slope), ``decay`` (beta, fitted to the sizes of the coefficients),
        ``expected``, that for infinitely many directions,
        ``-(2 beta - 1) / (kappa beta)``, and ``finite``, the slope
        of the sum of as many plateaus as there are over the same part of the loss. kappa is 2 for a
        fast link and for neurons whose fixed second layer goes with the target's coefficients; for
        other flows it is not known, and both are NaN. Lazy where `ds` is.

    Raises
    ------
    DatasetError
        If there is no loss over time, or a target is not such a sum.
    InputError
        If the ends are not 1 <= first < last <= directions.

    Examples
    --------
    >>> import mids
    >>> target = mids.targets.additive([i**-0.75 for i in range(1, 65)], "h2")
    >>> start = 0.01 * np.eye(64)
    >>> ds = mids.simulate(target, dim=1e4, runs=1, initial=start)
    >>> law = scaling_law(ds).compute()
    >>> law.expected.round(3).item(), bool((abs(law["median"] / law.finite - 1) < 0.1).all())
    (-0.333, True)
    """
    validation.dataset(ds)
    if "loss" not in ds or "time" not in ds["loss"].dims:
        raise DatasetError(
            "scaling_law needs a variable 'loss' with the dimension 'time', as mids.simulate "
            "writes it; start from the original dataset"
        )
    validation.integer(first, "first", at_least=1)
    found: xr.Dataset = by_recipe(
        only(ds, "loss"), lambda part, recipe: _law(part, recipe, first, last)
    )
    return found


def _law(ds: xr.Dataset, recipe: Recipe, first: int, last: int | None) -> xr.Dataset:
    target = recipe.target
    parts = [part for k in target.degrees if k and (part := target.along(int(k))) is not None]
    # Rank 1: the coefficients of all degrees are proportional, one link for every direction.
    one_link = len(parts) == np.count_nonzero(target.degrees) and np.linalg.matrix_rank(parts) == 1
    if not one_link or np.shape(parts)[1] < FEWEST or not target.orthonormal:
        raise DatasetError(
            "scaling_law is for sums of one link along at least 8 orthonormal directions, got "
            f"{target!r}; make the target with mids.targets.additive"
        )
    strengths = np.linalg.norm(parts, axis=0)
    sizes = np.sort(strengths)[::-1]
    n = len(sizes)
    last = max(n // 4, first + 1) if last is None else validation.integer(last, "last", at_least=1)
    if not first < last <= n:
        raise InputError(
            f"first and last must satisfy 1 <= first < last <= {n}, the number of directions, got "
            f"{first} and {last}"
        )
    # What is left of the loss after 0, 1, ... directions: half the squares of the others
    left = 0.5 * np.append(np.cumsum((sizes**2)[::-1])[::-1], 0.0)
    upper, lower = left[first] / left[0], left[last] / left[0]
    index = np.log(np.arange(1, n + 1))
    # Sizes fall as i^-beta: beta is the slope of a line in logarithms.
    decay = float(-np.polyfit(index, np.log(sizes), 1)[0])
    expected = finite = np.nan
    if _paired(recipe, strengths):
        expected = -(2 * decay - 1) / (2 * decay)
        # Direction i is learned at a time a_i^-2, with that of the largest as the unit.
        times = np.append(0.0, np.geomspace(1.0, sizes[-1] ** -2 * sizes[0] ** 2, 4000))
        plateaus = left[np.searchsorted(sizes**-2 * sizes[0] ** 2, times, side="right")]
        finite = float(_fall(plateaus[None], times, upper, lower)[0])
    core = [["time"], ["time"]]
    exponent = applied(_fall, ds["loss"], ds["time"], core=core, upper=upper, lower=lower)
    runs = exponent.chunk(run=-1) if exponent.chunks is not None else exponent
    low, median, high = (
        runs.quantile(q, "run", skipna=False).drop_vars("quantile") for q in (0.1, 0.5, 0.9)
    )
    out = xr.Dataset({"exponent": exponent, "median": median, "low": low, "high": high})
    for name, value in (("decay", decay), ("expected", expected), ("finite", finite)):
        out[name] = xr.full_like(median, value)
    names = {
        "exponent": "power of time with which the loss falls",
        "median": "median of the power over runs",
        "low": "power that a tenth of the runs fall below",
        "high": "power that a tenth of the runs exceed",
        "decay": "power with which the coefficients fall",
        "expected": "power for infinitely many directions",
        "finite": "power of the sum of all plateaus",
    }
    return labelled(out, names)


def _paired(recipe: Recipe, sizes: Array) -> bool:
    """Tell whether a direction's time goes with the square of its size."""
    flow = recipe.flow or flows.TwoTimescale()
    if flow.fast_link:
        return True
    found = flow.neurons_of(recipe.target)
    if found is None or len(found.layer) != len(sizes):
        return False
    # A neuron moves at second layer times coefficient: a_i^2 if the two are proportional.
    layer = np.abs(found.layer)
    return bool(np.allclose(layer / layer.max(), sizes / sizes.max()))


def _fall(loss: Array, time: Array, upper: float, lower: float) -> Array:
    """Slopes of log loss (..., T) against log time between two losses, relative to the first."""
    rows = loss.reshape(-1, loss.shape[-1])
    out = np.full(len(rows), np.nan)
    positive = time > 0
    x = np.log(time[positive])
    # Grids may be denser somewhere: even times in the logarithm weigh all parts alike.
    even = np.linspace(x[0], x[-1], max(400, len(x))) if len(x) else x
    for n, row in enumerate(rows):
        values = row[positive] / (row[0] if row[0] > 0 else 1.0)
        if len(x) < 2 or not np.isfinite(values).all() or values.min() > lower:
            continue
        y = np.interp(even, x, values)
        inside = np.flatnonzero((y <= upper) & (y >= lower) & (y > 0))
        # A curve that begins below the upper end has not been seen to pass it.
        if len(inside) >= 3 and y[0] > upper:
            out[n] = np.polyfit(even[inside], np.log(y[inside]), 1)[0]
    return out.reshape(loss.shape[:-1])
