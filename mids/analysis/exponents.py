r"""Exponents of a target at its saddles, and the times and sample sizes that go by them.

Three notions, each with saddles of its own: U grows by what the notion learns there. With the
coordinates :math:`z_U` learned and :math:`z_p` not, y the label,

* information: the least degree in :math:`z_p` of a component of the target (paper eq. 58), at the
  saddles of `mids.ladder`;
* isotropic leap: the same at spans that do not turn, which is the least degree of new variables of
  the monomials in reach, in the worst orthonormal coordinates (Abbe, Boix-Adsera, Misiakiewicz);
* generative: the least k with :math:`E \| E[h_k(z_p) \mid y, z_U] \|^2 > 0`, that is the least
  information exponent over all transforms of the label (Damian, Pillaud-Vivien, Lee, Bruna).

The last one is an integral over the law of y: it is computed at random :math:`z_U` with scrambled
Sobol points of :math:`z_p`, from products of conditional means of independent point sets, so that
zero comes out as zero within an error that is known. What algebra decides is not left to it: the
label itself is one transform, links that are even in :math:`z_p` have no odd orders, and for a
polynomial order 2 is there at the latest, as large labels need large coordinates (Chen, Meka 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from .. import validation
from ..errors import InputError
from ..simulation.by_recipe import by_recipe
from ..simulation.recipe import Recipe, only, recipes_of
from ..simulation.simulate import target_of
from ..targets.basis import gauss_hermite, symmetric_tensors
from ..targets.ladder import leaps, rate
from ..targets.polynomial import monomials
from ..targets.polynomial import polynomial as polynomial_of
from ..targets.samples import features
from ..targets.subspaces import Component, complete
from ..targets.target import Target, as_target
from ..validation import FloatArray as Array
from .kernels import labelled
from .known_frame import order as known_order

Function = Callable[[Array], ArrayLike]

HIGHEST = 6  # order up to which a generative exponent is looked for
DRAWS, POINTS = 8, 2**13  # values of z_U; points of z_p in each of four sets
TAIL = 2.0 ** np.arange(-11, -6)
PROBABILITIES = np.concatenate([TAIL, np.arange(1, 64) / 64, 1 - TAIL[::-1]])
"""Of the label, at the edges of its cells."""
CELLS = len(PROBABILITIES) + 1
NODES = 1e5  # quadrature nodes for powers of the label
CERTAIN = 6.0  # standard errors by which a share must exceed zero

BOUND, BOTH = "upper bound", "upper bound, lower bound but for logarithms"
SCALES = {
    "two-timescale, time": (
        "information",
        f"{BOUND}; the law for one direction",
        "Bietti, Bruna, Pillaud-Vivien 2025, Theorems 1.4 and 3.25",
    ),
    "planted, time": (
        "information",
        "the law for one direction",
        "Bietti, Bruna, Pillaud-Vivien 2025, section 5 and Theorem 4.1",
    ),
    "online SGD, samples": (
        "information",
        BOTH,
        "Ben Arous, Gheissari, Jagannath 2021, arXiv 2003.10409",
    ),
    "smoothed SGD, samples": (
        "information",
        f"{BOUND}; lower bound for correlational queries",
        "Damian, Nichani, Ge, Lee 2023, arXiv 2305.10633",
    ),
    "layerwise SGD, samples": (
        "isotropic",
        "conjecture; proved for a class of targets",
        "Abbe, Boix-Adsera, Misiakiewicz 2023, arXiv 2302.11055",
    ),
    "any transform, samples": (
        "generative",
        f"{BOUND}; lower bound for statistical queries and low degree",
        "Damian, Pillaud-Vivien, Lee, Bruna 2024, arXiv 2403.05529; Damian, Lee, Bruna 2025, "
        "arXiv 2506.05500",
    ),
}
"""What grows with d: the exponent it goes by, what is known, and the source."""


def exponents(
    target: xr.Dataset | Target | str | Function,
    *,
    rank: int | None = None,
    degree: int | None = None,
) -> xr.Dataset:
    r"""Return the exponents of a target at its saddles, and the rates in d that follow from them.

    Parameters
    ----------
    target : xarray.Dataset, Target, str or callable
        Of a dataset, the targets of its runs, one by one. A callable takes points (n, `rank`). Its
        generative exponents are those of the function itself, the others those of its expansion up
        to `degree`, as for `mids.simulate`.
    rank, degree : int, optional
        For a callable only.

    Returns
    -------
    xarray.Dataset
        Over ``saddle``, the number of directions learned there: ``information``, ``isotropic``
        and ``generative``, NaN where the notion has no saddle with so many; ``share``, what
        transforms that are constant on 74 cells of the label see of
        :math:`E \| E[h_k(z_p) \mid y, z_U] \|^2` at the generative exponent k, a lower bound of
        it, with its standard error ``share_error``; ``missed``, the largest share that a lower
        order could have unseen; and ``bound``, whether the generative exponent is an upper bound
        for that reason (where `missed` is 0 it is exact). Over ``saddle`` and ``scale``: ``rate``
        as text ("d^2", "log d"; "<= " in front of bounds) and as numbers, ``power`` of d times
        ``log_power`` of log d. Over ``scale``: ``exponent``, ``statement`` and ``source``.
        Attributes ``ladder`` and, for each
        notion, the largest exponent met, its leap. A dataset of several targets has their dims as
        well, and ``ladder`` as a variable.

    Raises
    ------
    InputError
        If the target cannot be read.
    DatasetError
        If a dataset does not name its targets.

    Notes
    -----
    The rates are for d to infinity, with constants that depend on the target. Samples of online
    SGD, for one, are its steps: :math:`d^{s-1}`, :math:`d \log d` for s = 2 and d for s = 1.

    Examples
    --------
    >>> found = exponents("h1(z1) + h1(z1)*h3(z2)")
    >>> found.information.values.tolist(), found.generative.values.tolist()
    ([1.0, 3.0], [1.0, nan])
    >>> found.rate.sel(saddle=1, scale="planted, time").item()
    'd^0.5'
    """
    if isinstance(target, xr.Dataset) and len(recipes_of(target, ())[1]) > 1:
        return _of_several(target)
    function, known = _read(target, rank, degree)
    polynomial = known if function is known else None
    ladder = leaps(known)
    columns = np.full((6, known.rank), np.nan)
    columns[5] = 0.0
    for step in ladder:
        columns[0, step.rank_before] = step.exponent
    U = np.zeros((known.rank, 0))
    # Where no subspace turns the two notions have the same saddles.
    if not any(step.drift for step in ladder):
        columns[1] = columns[0]
    else:
        while (found := Component.of(known, U)).exponent is not None:
            columns[1, U.shape[1]] = found.exponent
            U = np.column_stack([U, found.normal @ found.span])
    U, tilt = np.zeros((known.rank, 0)), 0.0
    # A callable may depend on directions that its expansion does not see.
    while U.shape[1] < (ladder.rank if polynomial else known.rank):
        k, share, error, missed, rows, tilt = _generative(function, polynomial, U, tilt)
        columns[2:, U.shape[1]] = k, share, error, missed
        if np.isnan(k):
            break
        U = _grown(U, rows)
    return _table(columns, known, repr(ladder))


def _of_several(ds: xr.Dataset) -> xr.Dataset:
    """Exponents along the dims of the targets, and ``ladder``, their ladders as text."""

    def of_one(_: xr.Dataset, recipe: Recipe) -> xr.Dataset:
        found = exponents(recipe.target)
        return found.assign(ladder=((), found.attrs["ladder"]))

    found = by_recipe(only(ds), of_one, of=())
    for name in ("exponent", "statement", "source"):
        dims = set(found[name].dims) - {"scale"}
        found[name] = found[name].isel(dict.fromkeys(dims, 0), drop=True)
    coords = ds.coords.to_dataset()
    return found.assign_coords(
        {n: c for n, c in coords.coords.items() if {*c.dims} <= {*found["ladder"].dims}}
    )


def _read(
    target: xr.Dataset | Target | str | Function, rank: int | None, degree: int | None
) -> tuple[Function, Target]:
    """Return the link as a function, and its expansion; the same object where it is exact."""
    if isinstance(target, xr.Dataset):
        target = target_of(target)
    if isinstance(target, Target) or not callable(target):
        known = as_target(target)
        return known, known
    if rank is None:
        raise InputError("exponents of a callable needs rank=, the number of its variables")
    given = validation.integer(rank, "rank", at_least=1)
    return target, Target.from_function(target, given, 6 if degree is None else degree)


def _grown(U: Array, rows: Array) -> Array:
    """Add what rows in the coordinates of the complement of U span."""
    _, sizes, span = np.linalg.svd(rows, full_matrices=False)
    return np.column_stack([U, complete(U)[:, U.shape[1] :] @ span[sizes > 0].T])


def _generative(
    function: Function, polynomial: Target | None, U: Array, tilt: float
) -> tuple[float, float, float, float, Array, float]:
    """Exponent at U, share, error, share of lower orders, what is learned, and its uncertainty."""
    missed = 0.0
    cells = _cells(function, U)
    for order in range(1, HIGHEST + 1):
        rows = np.zeros((0, len(U) - U.shape[1]))
        if polynomial is not None:
            # Symmetry says that the means are exactly zero, which no sample could.
            if order == 1 and _symmetric(polynomial, U):
                continue
            rows = _seen_by_powers(polynomial, U, order)
        share, noise, kernel = _share(cells, order)
        # What counts must exceed the noise, and what an error of U, squared, could feign.
        least = CERTAIN * noise + tilt**2
        sizes, vectors = np.linalg.eigh(kernel)
        clear = vectors[:, sizes > least].T
        # What sampling sees beyond the directions that powers of the label see exactly.
        rest = clear - (clear @ np.linalg.pinv(rows)) @ rows
        others = np.linalg.svd(rest)[2][: int((np.linalg.svd(rest)[1] > 0.3).sum())]
        if len(others):
            rows = np.concatenate([rows, others])
            # Noise over the least eigenvalue kept: the angle by which what they span may be off.
            tilt = max(tilt, noise / float(sizes[sizes > least].min()))
        if polynomial is not None and order == 2 and not len(rows):
            rows = np.eye(len(kernel))  # some of it is seen, but too weakly to say which
        if len(rows):
            return order, share, noise, missed, rows, tilt
        missed = max(missed, share + least)
    return np.nan, np.nan, np.nan, missed, rows, tilt


def _symmetric(target: Target, U: Array) -> bool:
    """Whether changes of sign that keep the link and z_U exclude every mean of z_p."""
    table, coefficients = polynomial_of(target)
    alphas = table.substitute(coefficients[:, None], complete(U)[None])[:, 0] * np.sqrt(
        table.weight
    )
    odd = table.modes[np.abs(alphas) > 1e-10 * target.norm, U.shape[1] :] % 2
    flips = np.array(list(product((0, 1), repeat=odd.shape[1])))
    # A flip of signs keeps a mode if it meets an even number of odd powers.
    kept = ((odd @ flips.T) % 2 == 0).all(axis=0)
    # Each z_i is flipped by one that keeps the link, so that E[z_i | y, z_U] = 0.
    return bool(flips[kept].any(axis=0).all())


def _seen_by_powers(target: Target, U: Array, order: int) -> Array:
    """Orthonormal rows that ``E[h_beta(z_p) h_gamma(z_U) y^n]`` span, beta of the order: exact."""
    rank, k = U.shape
    frame = complete(U)
    leading = Component.of(target, U)
    found = [leading.rows if leading.exponent == order else np.zeros((0, rank - k))]
    nodes = min(int(NODES ** (1 / rank)), 48)
    # The quadrature is exact up to degree 2 nodes - 1, and a power of the label has so many.
    powers = min((2 * nodes - 1 - order - k) // target.degree, 4)
    if powers > 1:
        x, weights = gauss_hermite(nodes)
        z = np.stack(np.meshgrid(*[x] * rank, indexing="ij"), axis=-1).reshape(-1, rank)
        weight = np.prod(np.meshgrid(*[weights] * rank, indexing="ij"), axis=0).ravel()
        y = target(z @ frame.T) / target.norm
        known = np.stack([np.prod(z[:, :k] ** a, axis=1) for a in product((0, 1), repeat=k)])
        betas = monomials(rank - k, (order,)).modes
        modes = features(z[:, k:], betas, order)
        for n in range(1, powers + 1):
            # Powers of the label at unit norm, so that one tolerance serves all of them.
            size = np.sqrt(weight @ y ** (2 * n))
            moments = (known * (weight * y**n / size)) @ modes
            tensors = [symmetric_tensors(betas, row)[order] for row in moments]
            found += [tensor.reshape(-1, rank - k) for tensor in tensors]
    rows = np.concatenate(found)
    _, sizes, span = np.linalg.svd(rows, full_matrices=False)
    return span[sizes > 1e-9 * max(1.0, target.norm)]


def _cells(function: Function, U: Array) -> list[list[tuple[Array, NDArray[np.int64]]]]:
    """Four sets of z_p, (n, m), with the cell of the label of each, for each draw of z_U."""
    from scipy.special import ndtri
    from scipy.stats.qmc import Sobol

    rank, k = U.shape
    normal = complete(U)[:, k:]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS):
        learned = U @ rng.standard_normal(k)
        sets, edges = [], np.zeros(0)
        for _ in range(4):
            uniform = Sobol(rank - k, rng=rng).random(POINTS)
            z = ndtri(np.clip(uniform, 1e-15, 1 - 1e-15))
            y = np.asarray(function(learned + z @ normal.T), dtype=np.float64)
            # All four sets have the cells of the first, as their means are multiplied cell by cell.
            if not len(edges):
                edges = np.quantile(y, PROBABILITIES)
            # Labels that differ by rounding only are the same.
            close = 1e-12 * np.abs(y).max()
            sets.append((z, np.searchsorted(edges - close, y, side="right")))
        found.append(sets)
    return found


def _share(
    cells: list[list[tuple[Array, NDArray[np.int64]]]], order: int
) -> tuple[float, float, Array]:
    """``E |E[h_k(z_p) | cell of y, z_U]|^2``, its error, and a matrix (m, m) of that trace."""
    m = cells[0][0][0].shape[1]
    betas = monomials(m, (order,)).modes
    basis = np.stack([symmetric_tensors([b], [1.0])[order].reshape(m, -1) for b in betas])
    shares = np.zeros((len(cells), 2))
    kernel = np.zeros((m, m))
    for draw, sets in enumerate(cells):
        sums, counts = np.zeros((4, CELLS, len(betas))), np.zeros((4, CELLS))
        for part, (z, cell) in enumerate(sets):
            counts[part] = np.bincount(cell, minlength=CELLS) / POINTS
            for b, weights in enumerate(features(z, betas, order).T):
                sums[part, :, b] = np.bincount(cell, weights, CELLS) / POINTS
        # Products of means over independent point sets are free of the bias of a square.
        first, second = (np.einsum("pcb,bij->pcij", sums[k::2], basis) for k in (0, 1))
        size = np.maximum((counts[0::2] + counts[1::2]) / 2, 1e-300)
        both = np.einsum("pcij,pckj,pc->pik", first, second, 1 / size)
        kernel += both.sum(axis=0)
        shares[draw] = np.trace(both, axis1=1, axis2=2)
    # Two independent estimates at each draw of z_U: their differences tell the error.
    noise = np.sqrt(np.mean(np.diff(shares, axis=1) ** 2) / (4 * len(cells))) + 1e-12
    return float(shares.mean()), float(noise), (kernel + kernel.T) / (4 * len(cells))


NAMES = {
    "information": "information exponent, link not transformed",
    "isotropic": "least degree of new variables in reach",
    "generative": "least information exponent over transforms of the label",
    "share": "E |E[h_k(z_p) | cell of y, z_U]|^2 at the generative exponent k",
    "share_error": "its standard error",
    "missed": "largest share that a lower order could have",
    "power": "power of d",
    "log_power": "power of log d",
}


def _table(columns: Array, target: Target, ladder: str) -> xr.Dataset:
    """Label the columns, and add the rates that follow from them."""
    out = xr.Dataset(
        {name: ("saddle", column) for name, column in zip(NAMES, columns, strict=False)},
        {"saddle": np.arange(target.rank), "scale": list(SCALES)},
        {"ladder": ladder, "target": target.name or f"{target:.6g}"},
    )
    visited = out["generative"].notnull()
    out["missed"] = out["missed"].where(visited | (out["missed"] > 0))
    out["bound"] = visited & (out["missed"] > 0)
    power, logs = np.full((2, target.rank, len(SCALES)), np.nan)
    text = np.full(power.shape, "", dtype=object)
    for j, (scale, (notion, _, _)) in enumerate(SCALES.items()):
        for i in np.flatnonzero(np.isfinite(out[notion].values)):
            power[i, j], logs[i, j], text[i, j] = _rate(scale, int(out[notion].values[i]))
            if notion == "generative" and out["bound"].values[i]:
                text[i, j] = f"<= {text[i, j]}"
    dims = ("saddle", "scale")
    out["rate"] = dims, text.astype(str), {"long_name": "growth with d"}
    out["power"], out["log_power"] = (dims, power), (dims, logs)
    titles = {"exponent": "by which it goes", "statement": "what is known", "source": "source"}
    for (name, title), values in zip(
        titles.items(), zip(*SCALES.values(), strict=True), strict=True
    ):
        out[name] = "scale", list(values), {"long_name": title}
    out["bound"].attrs = {"long_name": "whether the generative exponent is an upper bound"}
    out["saddle"].attrs = {"long_name": "directions learned at the saddle", "units": "1"}
    for name in ("information", "isotropic", "generative"):
        out.attrs[f"{name}_leap"] = float(out[name].max())
    return labelled(out, NAMES)


def _rate(scale: str, s: int) -> tuple[float, float, str]:
    """Power of d, power of log d, and both as text."""
    if scale == "two-timescale, time":
        return (s - 1.0, float(s == 1), rate(s))
    if scale == "planted, time":
        power, text = known_order(s)
        return power, float(s == 2), "1" if s == 1 else text
    half = scale in ("smoothed SGD, samples", "any transform, samples")
    # Smoothing and transforms of the label halve the exponent; d samples are the least.
    power = max(s / 2 if half else s - 1.0, 1.0)
    logs = float(scale.startswith("online") and s == 2)
    return power, logs, ("d" if power == 1 else f"d^{power:g}") + (" log d" if logs else "")
