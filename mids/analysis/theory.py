r"""Predicted saddles of every run, from its initial condition and the target, and their law.

With :math:`W(0)` uniform, :math:`X(0) = G (I - G)^{-1} = A^T B^{-1} A` for a Gaussian q x r matrix
A and an independent Wishart matrix B with d - r degrees of freedom. Successive Schur complements
are independent,

.. math:: x_j \sim \chi^2_{q - j} / \chi^2_{d - r - q + j + 1}, \qquad j = 0, 1, \dots

directions after j learned ones, about :math:`\chi^2_{q - j} / d`. Quantiles are those of the race
from starts spread evenly by a low-discrepancy sequence in the distribution functions of A and B.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from warnings import warn

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .. import flows, schema, validation
from ..errors import DatasetError, InputError
from ..simulation.by_recipe import by_recipe
from ..simulation.recipe import Recipe, described, only
from ..simulation.simulate import simulate
from ..targets.ladder import leaps
from ..targets.subspaces import TOLERANCE
from ..targets.target import Target
from ..validation import FloatArray as Array
from .coupled import Race, race_of
from .exits import exit_times, measured_exits
from .kernels import applied, labelled
from .known_frame import KnownFrame, KnownLink
from .many_directions import ManyDirections
from .neurons import found_directions, neuron_times, start_loss
from .prediction import ABSENT, KNOWN, METHODS, NEVER, REASONS, START, Prediction
from .saddles import with_saddles

__all__ = ["ONCE", "has_theory", "kind_of", "need_one_kind", "predictions", "theory"]

COLUMNS = {
    "visited": "whether the run visits the saddle",
    "exponent": "information exponent relative to them",
    "loss": "predicted loss on the plateau",
    "saddle_loss": "loss of the saddle",
    "escape_time": "predicted escape time",
    "learned": "axis along which the direction learned next mainly points",
    "order": "step of the ladder to which that direction belongs",
    "reason": "why an escape time is not finite, or the order unknown",
    "method": "how the escape time was found",
}
FURTHER = {
    "n_saddles": "number of saddles",
    "escape_time_leading_order": "escape time predicted by the component of least degree alone",
    "shared": "directions at equal cosines from which the neuron ends",
}
ONCE = {"neurons": (neuron_times, found_directions), "start": (exit_times, measured_exits)}
"""Prediction and measurement of what is left once, by `Flow.theory`."""
FLAGS = {"reason": REASONS, "method": METHODS}
_ROUNDING = 1e-6
SEED, POINTS = 2**31 - 1, 2**14  # of the starts; their number for one direction


def theory(
    ds: xr.Dataset | Target | str,
    *,
    dim: float | Sequence[float] | None = None,
    student_rank: int | None = None,
    flow: str | flows.Flow = "two-timescale",
    quantiles: Sequence[float] = (),
    samples: int = 2048,
    leading_order: bool = False,
) -> xr.Dataset:
    """Predict the saddles of each run from its own initial condition.

    At every saddle all directions that are not learned race, with all orders of their overlaps:
    whichever comes first is learned next. Hundreds of orthonormal directions of an additive target
    have quadratures where they do not meet, and are followed to a few per cent where they do.
    The flow is reduced to what is not learned, saddle by
    saddle. The simulator takes no part in it, and shares no code with it. For the planted flow,
    whose link is known, escape times are quadratures for targets of rank 1; for others the flow is
    reduced in the same way, and which direction comes first, or that none does (``escape_time``
    inf), follows from the signs in M(0).

    Parameters
    ----------
    ds : xarray.Dataset, Target or str
        A dataset with ``gram0`` and the recipes of its runs, which may differ; or a target, or its
        text, whose law of the escape times is worked out without a simulation.
    dim : number or sequence of numbers, optional
        Ambient dimensions, for a target.
    student_rank : int, optional
        Columns of the student's frame, for a target; its rank if not given.
    flow : str or Flow
        The flow, for a target.
    quantiles : sequence of float
        Probabilities for which the law of the escape times over initial conditions is worked out;
        for a target 0.1, 0.5 and 0.9 if not given.
    samples : int
        Initial conditions drawn for that at each dimension, for targets of rank 2 or more.
    leading_order : bool
        Also predict every escape time from the component of least degree at each saddle alone, the
        law for ``d -> infinity``: ``escape_time_leading_order``, to see what the others change.

    Returns
    -------
    xarray.Dataset
        Dims of the runs and ``saddle``, the number of directions learned there, NaN where the run
        does not visit it: ``visited``, ``exponent`` (relative to those learned), ``loss`` (on the
        plateau: where the predicted curve is flattest at the times of `ds`, as for `saddles`),
        ``saddle_loss`` (of the saddle itself; where a run passes several with the same number of
        directions learned, of the one where it spends most time),
        ``escape_time`` (overlap of the next direction 1/2; inf if never, NaN where
        it is too slow to be followed), ``reason`` (a flag for which of these), ``learned`` (the
        axis along which the direction learned next mainly points), ``order`` (the step of
        `mids.leaps` in which three quarters of it are learned, which tells whether the ladder's
        order is broken; NaN, with its ``reason``, where that is no step, as for subspaces that
        turn),
        ``method`` (a flag: a quadrature, the reduced flow at a subspace that stands still or at one
        that turns, or several directions learned at once); and
        ``n_saddles`` (0 where the initial condition is not known, or not one). As in `saddles`, a
        run that starts beyond a saddle, the next overlap being 0.1 or more, does not visit it, nor
        does one that begins to learn the next direction before the last one is learned. The
        attribute ``ladder`` names the leaps. Lazy where `ds` is. With `quantiles`,
        ``escape_time_quantile`` with the dims ``dim``, ``saddle`` and ``quantile``: the law for
        students whose frame is uniform, including runs that do not visit it.

        Neurons that do not act on each other (`TwoLayer` under the correlation loss, or one with a
        fixed second layer) have the one saddle of their start, each its own, over ``neuron``:
        ``escape_time`` (squared cosine with the nearest direction 1/2), ``learned`` (the direction
        it finds; NaN if none, or several alike) and ``shared`` (directions to which it is equally
        near at the end: 1, or all where it is their average). For index vectors at equal
        angles the attributes ``cosine`` and ``critical_cosine`` say which: neurons go to the
        average beyond the latter. Other networks with a fixed second layer and an activation
        without linear part, on a target of one direction, leave the saddle of their start when
        the population risk has fallen by a hundredth (on samples: for h2, ... alone, and in the
        mean over samples).

    Raises
    ------
    DatasetError
        If the dataset has no initial condition or does not name its target, or, with `quantiles`,
        neither the student's rank nor that its frame was drawn at random.
    InputError
        If a quantile is not between 0 and 1.

    Examples
    --------
    >>> import mids
    >>> predicted = theory(mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=1e4, runs=1))
    >>> predicted.attrs["ladder"], predicted.exponent.values.ravel().tolist()
    ('1 -> 3: log d, d^2', [1.0, 3.0])
    >>> theory("h2(z1)", dim=[100, 1e4]).escape_time_quantile.sel(quantile=0.5).dims
    ('dim', 'saddle')
    """
    quantiles = np.atleast_1d(validation.finite_array(quantiles, "quantiles")).tolist()
    if not isinstance(ds, xr.Dataset):
        if dim is None:
            raise InputError(
                "theory of a target needs dim=, the ambient dimensions; pass dim=[1e4]"
            )
        # Lazy, and never computed: it carries the recipe and the dims.
        lazy = simulate(ds, dim=dim, runs=1, student_rank=student_rank, flow=flow)
        found = theory(lazy, quantiles=quantiles or (0.1, 0.5, 0.9), samples=samples)
        kept = found[["escape_time_quantile"]].drop_vars("run", errors="ignore")
        return kept.compute().assign_attrs(found.attrs)
    if dim is not None or student_rank is not None:
        raise InputError("dim and student_rank are those of the dataset; leave them out")
    _need_start(ds)
    need_one_kind(ds)
    out = by_recipe(
        only(ds, "loss", "gram0", "initial"), partial(predictions, leading_order=leading_order)
    )
    if "visited" in out:
        here = out["visited"] | (out["reason"] != KNOWN)
        # In place: assigning an array along a stacked dim drops its levels.
        out["reason"].data = out["reason"].where(here, np.int8(ABSENT)).data
    if quantiles:
        levels = [validation.number(p, "quantile", above=0.0, at_most=1.0) for p in quantiles]
        law = partial(
            _law_of,
            quantiles=levels,
            samples=validation.integer(samples, "samples", at_least=1, at_most=10**7),
            lazy=ds["gram0"].chunks is not None,
        )
        out = out.assign(by_recipe(only(ds), law))
    return out


def _need_start(ds: xr.Dataset) -> None:
    if "gram0" not in ds:
        raise DatasetError(
            "theory needs the initial condition 'gram0' with dims (axis, axis_t), as mids.simulate "
            "and mids.from_trajectories(correlation=...), from time 0 on, write it"
        )


def predictions(
    ds: xr.Dataset,
    recipe: Recipe,
    *,
    crossing: xr.DataArray | None = None,
    leading_order: bool = False,
) -> xr.Dataset:
    """Return `theory` of one recipe, with levels at the times of the data."""
    _need_start(ds)
    if (kind := kind_of(recipe)) in ONCE:
        return _once(ds, recipe, kind)
    target = recipe.target
    model, weighted = _model(recipe)
    # With a ridge L = |f*|^2 / 2 - h_mu(G) / 2, but models count from the norm of f*_mu.
    constant = 0.5 * (target.norm**2 - weighted.norm**2)
    if isinstance(model, KnownLink):
        # With the link known signs decide, which G = M M^T no longer has.
        if "initial" not in ds:
            raise _no_initial(recipe.flow or flows.TwoTimescale())
        start, ladder = ds["initial"], model.ladder
    else:
        start, ladder = ds["gram0"], repr(leaps(weighted))
    axes = list(schema.VARIABLES[str(start.name)].dims[-2:])
    if not set(axes) <= set(start.dims):
        raise DatasetError(
            f"theory needs {start.name!r} with the dims {axes[0]} and {axes[1]}, but it has "
            f"{start.dims}; rename them with ds.rename(...)"
        )
    inputs, core = [start], [axes]
    if crossing is not None:
        # Measured crossings, to read both curves at the same part of a plateau
        inputs, core = [start, crossing], [axes, ["direction", "level"]]
    predict = partial(
        applied,
        _predict,
        out=[["column", "saddle"]],
        sizes={"column": len(COLUMNS), "saddle": target.rank},
    )
    columns = predict(*inputs, core=core, model=model, time=_times(ds))
    parts = {name: columns.isel(column=k, drop=True) for k, name in enumerate(COLUMNS)}
    visited = parts.pop("visited").notnull()
    for name in ("loss", "saddle_loss"):
        parts[name] = parts[name] + constant
    for name in FLAGS:
        parts[name] = parts[name].astype(np.int8)
    out = xr.Dataset({"visited": visited} | parts | {"n_saddles": visited.sum("saddle")})
    if leading_order and isinstance(model, Race):
        limit = predict(start, core=[axes], model=race_of(weighted, True), time=None)
        name = "escape_time_leading_order"
        out[name] = limit.isel(column=list(COLUMNS).index("escape_time"), drop=True)
    return _labelled(out).assign_attrs(ladder=ladder)


def _once(ds: xr.Dataset, recipe: Recipe, kind: str) -> xr.Dataset:
    """Return `predictions` of what is known of the saddle of the start alone."""
    flow = recipe.flow or flows.TwoTimescale()
    neurons = flow.neurons_of(recipe.target)
    assert neurons is not None
    if "initial" not in ds:
        raise _no_initial(flow)
    out = ONCE[kind][0](ds, recipe, neurons).expand_dims(saddle=1, axis=-1)
    known = out["escape_time"].notnull()
    reason = xr.where(np.isinf(out["escape_time"]), NEVER, KNOWN).where(known, START)
    loss = xr.full_like(
        out["escape_time"], start_loss(recipe.target, neurons, neurons.squared)
    ).where(known)
    parts = {"visited": known, "loss": loss, "saddle_loss": loss, "n_saddles": known.sum("saddle")}
    parts["reason"] = reason.astype(np.int8)
    out = out.assign({name: part.variable for name, part in parts.items()})
    return _labelled(out)


def _labelled(out: xr.Dataset) -> xr.Dataset:
    """Return predictions with what their variables are, and labels of the saddles."""
    out = labelled(out, COLUMNS | FURTHER)
    for name, meanings in FLAGS.items():
        out[name].attrs = {"long_name": COLUMNS[name], **schema.flags(*meanings)}
    return with_saddles(out.drop_vars(("axis", "axis_t", "student"), errors="ignore"))


def _no_initial(flow: flows.Flow) -> DatasetError:
    return DatasetError(
        f"theory of the flow {flow.name!r} needs the variable 'initial', M(0) with its sign, as "
        "mids.simulate writes it; start from the original file"
    )


def kind_of(recipe: Recipe) -> str:
    """Return what theory predicts of a recipe's runs: see `Flow.theory`."""
    return (recipe.flow or flows.TwoTimescale()).theory(recipe.target)


def need_one_kind(ds: xr.Dataset) -> None:
    """Raise DatasetError where the theories of runs are of different things."""
    if len({kind_of(recipe) for recipe in described(ds, ("flow",))} - {""}) > 1:
        raise DatasetError(
            "the theories of these runs are of different things: of saddles, of neurons that do "
            "not act on each other, or of the exit of those that do; select runs of one kind, for "
            "example with ds.isel(flow=0)"
        )


def _warn_of_small(target: Target) -> None:
    """Warn where the ladder rests on coefficients that others may hide."""
    degree = target.modes.sum(axis=1)
    sizes = np.abs(target.coefficients[degree > 0])
    sizes = sizes[sizes > 1e-13 * sizes.max(initial=0.0)]  # rotations leave less of a zero
    if len(sizes) and sizes.min() < 10 * TOLERANCE * sizes.max():
        warn(
            f"the smallest coefficient of the target is {sizes.min() / sizes.max():.1e} of the "
            f"largest: the theory counts what is below {TOLERANCE:.0e} as zero, and may take a "
            "later direction for the next one; leave it out, or make it larger",
            stacklevel=2,
        )


def _model(recipe: Recipe) -> tuple[Race | ManyDirections | KnownLink, Target]:
    """Return the theory of a recipe, and the target that its flow climbs."""
    flow = recipe.flow or flows.TwoTimescale()
    weighted = flow.effective_target(recipe.target)
    if flow.fast_link and weighted.separable is not None:
        return ManyDirections(weighted), weighted
    if flow.fast_link:
        _warn_of_small(weighted)
        return race_of(weighted), weighted
    planted = flow.planted_target(weighted)
    if planted is None:
        raise DatasetError(
            f"there is no theory of the flow {flow.name!r} with these parameters on this target, "
            "only of neurons that do not act on each other (correlation loss, or one of unit norm "
            "with a fixed second layer), and of the exit from the start on a target of one "
            "direction with an activation without linear part; look at mids.saddles and "
            "mids.plateaus"
        )
    return (KnownLink if planted.rank == 1 else KnownFrame)(planted), weighted


def has_theory(ds: xr.Dataset) -> bool:
    """Tell whether `theory` knows the saddles of all runs of a dataset."""
    if "gram0" not in ds or "recipe" not in ds:
        return False
    try:
        recipes = described(ds, ("flow",))
    except DatasetError:  # for example a flow that is defined elsewhere
        return False
    return all(map(_is_known, recipes)) and (
        "initial" in ds or all(r.flow is None or r.flow.fast_link for r in recipes)
    )


def _is_known(recipe: Recipe) -> bool:
    """Tell whether there is a theory for a target and flow."""
    target = recipe.target
    if recipe.flow is None or recipe.flow.fast_link:
        return target.dense or target.separable is not None
    return kind_of(recipe) == "saddles"


def _law_of(
    ds: xr.Dataset, recipe: Recipe, *, quantiles: Sequence[float], samples: int, lazy: bool
) -> xr.Dataset:
    """Quantiles of the escape times over uniform initial frames of the student."""
    if recipe.flow is not None and not recipe.flow.fast_link:
        raise DatasetError("quantiles are known for flows with a fast link; leave quantiles= out")
    model, _ = _model(recipe)
    if recipe.initial is not None or recipe.student_rank is None or "dim" not in ds.coords:
        raise DatasetError(
            "quantiles are those of runs whose initial frames are uniform, which the recipe does "
            "not say of these; leave quantiles= out"
        )
    assert not isinstance(model, KnownLink)
    dims = xr.DataArray(ds["dim"].values, dims=ds["dim"].dims)
    array: xr.DataArray = applied(
        _law,
        dims.chunk(dict.fromkeys(dims.dims, 1)) if lazy else dims,
        core=[()],
        out=[["saddle", "quantile"]],
        sizes={"saddle": model.rank, "quantile": len(quantiles)},
        model=model,
        student_rank=recipe.student_rank,
        quantiles=quantiles,
        samples=samples,
    )
    array = array.assign_coords(quantile=quantiles)
    array.attrs = {"long_name": "quantile of the escape time over initial conditions", "units": "1"}
    array["quantile"].attrs = {"long_name": "probability", "units": "1"}
    return with_saddles(xr.Dataset({"escape_time_quantile": array}))


def _times(ds: xr.Dataset) -> Array | None:
    """Return the times of a dataset; None where it has none that increase."""
    if "time" not in ds.coords or ds["time"].ndim != 1:
        return None
    time = ds["time"].values.astype(np.float64)
    return time if (np.diff(time) > 0).all() else None


def _predict(
    start: Array,
    crossing: Array | None = None,
    *,
    model: Race | ManyDirections | KnownLink,
    time: Array | None,
) -> Array:
    """Columns rank, exponent, losses and escape time at each number of directions learned."""
    rank, runs = start.shape[-2], start.shape[:-2]
    if crossing is not None:
        runs = np.broadcast_shapes(runs, crossing.shape[:-2])
        crossing = np.broadcast_to(crossing, (*runs, *crossing.shape[-2:]))
        crossing = crossing.reshape(-1, *crossing.shape[-2:])
    flat = np.broadcast_to(start, (*runs, *start.shape[-2:])).reshape(-1, *start.shape[-2:])
    usable = np.asarray(np.isfinite(flat).all((1, 2)))
    known = np.where(usable[:, None, None], flat, 0.0)
    # No correlation matrix has singular values above 1, no G negative eigenvalues.
    if isinstance(model, KnownLink):
        overlaps = np.linalg.svd(known, compute_uv=False) ** 2
    else:
        overlaps = np.linalg.eigvalsh(known)[:, ::-1]
    usable &= (overlaps[:, 0] <= 1 + _ROUNDING) & (overlaps[:, -1] >= -_ROUNDING)
    out = np.full((len(flat), len(COLUMNS), rank), np.nan)
    out[:, -1] = 0.0
    out[:, -2] = np.where(usable, KNOWN, START)[:, None]
    if usable.any():
        found: Prediction = model.predict(flat[usable])
        level = found.loss(time, None if crossing is None else crossing[usable])
        columns = (
            *(found.rank, found.exponent, level, found.saddle_loss, found.escape_time),
            *(found.learned, found.order, found.reason, found.method),
        )
        visited = found.visited(overlaps[usable])
        rows, order = np.nonzero(visited)
        learned = found.rank[rows, order].astype(np.int64)
        out[np.flatnonzero(usable)[rows], :, learned] = np.stack(columns, axis=1)[rows, :, order]
    return out.reshape(*runs, len(COLUMNS), rank)


def _law(
    dims: NDArray[np.int64],
    *,
    model: Race | ManyDirections,
    student_rank: int,
    quantiles: Sequence[float],
    samples: int,
) -> Array:
    """Quantiles of the escape times over initial conditions, shape (..., saddle, quantile)."""
    result = np.full((dims.size, model.rank, len(quantiles)), np.nan)
    for row, dim in zip(result, dims.ravel().tolist(), strict=True):
        gram0 = _starts(model.rank, student_rank, dim, samples)
        for saddle, times in enumerate(model.predict(gram0).escape_time.T):
            visited = times[~np.isnan(times)]
            if len(visited):
                # A time of the sample, as nothing lies between a finite and an infinite one.
                row[saddle] = np.quantile(visited, quantiles, method="inverted_cdf")
    return result.reshape(*dims.shape, *result.shape[1:])


def _starts(r: int, q: int, dim: int, points: int) -> Array:
    """Evenly spread draws of G(0), shape (points, r, r)."""
    from scipy.special import chdtri, fdtri, ndtri
    from scipy.stats import qmc

    if r == 1:  # by the distribution function of the odds
        # X(0) = chi^2_q / chi^2_(d - q), which is q / (d - q) times an F variable.
        odds = fdtri(q, dim - q, (np.arange(POINTS) + 0.5) / POINTS) * q / (dim - q)
        return np.asarray(odds / (1 + odds))[:, None, None]
    triangle = np.tril_indices(q, -1)
    # The draws of A and B by their distribution functions, from evenly spread numbers.
    sobol = qmc.Sobol(q * r + q + len(triangle[0]), rng=SEED)
    uniform = sobol.random_base2((points - 1).bit_length())[:points]
    A = ndtri(uniform[:, : q * r]).reshape(points, q, r)
    L = np.zeros((points, q, q))  # Bartlett's factor of B
    L[:, range(q), range(q)] = np.sqrt(
        chdtri(dim - r - np.arange(q), 1 - uniform[:, q * r : q * r + q])
    )
    L[:, triangle[0], triangle[1]] = ndtri(uniform[:, q * r + q :])
    scaled = np.linalg.solve(L, A)
    # X = Z^T Z with Z = L^-1 A, and so G = Z^T (I + Z Z^T)^-1 Z.
    gram = np.eye(q) + scaled @ scaled.swapaxes(1, 2)
    return np.asarray(scaled.swapaxes(1, 2) @ np.linalg.solve(gram, scaled))
