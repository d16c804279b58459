r"""Critical points of the loss: subspaces for a fast link, correlation matrices for a known one.

At a critical subspace U of rank k, with a basis V of its complement, a run whose learned odds are
infinite has :math:`G = P_U + V D V^T`, and what is left of the flow is of the same kind with fewer
directions,

.. math:: L' = H_U(D) L, \qquad D = Y (I + Y)^{-1}, \qquad Y = L L^T, \qquad
          H_U = \nabla_D h(P_U + V D V^T).

The parts of h of a degree in D below the exponent of U vanish, and are left out, so that small D
keep their relative accuracy. Y at the beginning is the Schur complement of X with respect to U. U
is taken to stand still: what turns it is of the order of ``D^s``, the square of which counts
(`CriticalPoint.straight` where it vanishes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from .. import flows, validation
from ..errors import InputError
from ..simulation.simulate import simulate
from ..targets.averaging import correlation, gradient, loss, planted_slope
from ..targets.ladder import leaps
from ..targets.polynomial import Monomials, criticals, polynomial
from ..targets.subspaces import TOLERANCE, complete, tilt_growth
from ..targets.target import Target, as_target
from ..validation import FloatArray as Array
from .kernels import labelled

SAME = 1e-4  # of losses and rates, relative to the target: differences of points that are alike
FLAT = 1e-4
"""Growth rates below this, relative to the target, count as zero: where the Hessian vanishes
Newton's method comes only so close."""
TRACE = 5e-5  # change of log Y by a tilt that dies out, up to which it is left out
NEAR = 1e-6  # tangent of the angle within which two subspaces are the same critical one


def landscape(
    target: Target | str,
    *,
    flow: str | flows.Flow = "two-timescale",
    starts: int = 32,
    dim: float = 1e4,
    runs: int = 100,
    seed: int = 0,
) -> xr.Dataset:
    r"""List the critical points of the loss, found by Newton's method from random starts.

    With a fast link they are the subspaces U at which :math:`h(P_U)` is critical, of every rank.
    Each is left sooner or later by what is not learned: only the whole is a minimum (paper Theorem
    3.25). With the link known they are correlation matrices M of the planted flow, some of which
    may be local minima that hold a share of all runs.

    Points of the same loss and the same growth rates, such as copies by a symmetry of the target,
    are one row. Points that no start has led to are missing: more `starts` find more.

    Parameters
    ----------
    target : Target or str
    flow : str or Flow
        One with a fast link, or "planted".
    starts : int
        Random starts, for each rank.
    dim, runs : float, int
        For the planted flow: runs simulated at this dimension to see where they end; 0 for none.
    seed : int
        Seed of the starts and of the runs.

    Returns
    -------
    xarray.Dataset
        Over ``point``, by decreasing loss: ``loss``; ``index``, the number of independent
        perturbations that grow at an exponential rate (fast link: tilts of U at fixed rank; link
        known: changes of M), and ``growth``, the largest of their rates; ``neutral``, of those that
        do neither grow nor die out, and ``isolated``, whether there are none: otherwise the point
        may be one of a family; ``copies``, how many different ones were found, 0 where it is not
        isolated. With a fast link also ``learned`` (directions), ``exponent`` (relative to U, NaN
        where nothing is left), ``minimum``, ``ladder`` (whether the ladder of `mids.ladder` stops
        there) and ``gram``, the projector on U. With the link known ``overlap``, ``correlation``
        (M) and ``basin``, the share of the runs that end there, with its ``basin_error``.

    Raises
    ------
    InputError
        If the target cannot be read, the flow has neither, or a number is out of range.

    Examples
    --------
    >>> found = landscape("h1(z1) + h1(z1)*h3(z2)")
    >>> found.loss.round(3).values.tolist(), found.exponent.values.tolist()
    ([1.0, 1.0, 0.625, 0.5, 0.0], [1.0, 1.0, 1.0, 3.0, nan])
    >>> landscape("h3(z1)", flow="planted", runs=0).loss.round(3).values.tolist()
    [2.0, 1.0, 0.0]
    """
    given = as_target(target)
    starts = validation.integer(starts, "starts", at_least=1)
    runs = validation.integer(runs, "runs", at_least=0)
    rng = np.random.default_rng(validation.integer(seed, "seed", at_least=0))
    chosen = flows.get(flow)
    if chosen.fast_link:
        return _subspaces(chosen.effective_target(given), starts, rng)
    if not isinstance(chosen, flows.Planted):
        raise InputError(
            f"landscape knows flows with a fast link and 'planted', got {chosen.name!r}"
        )
    return _matrices(given, starts, rng, dim, runs, seed)


def _subspaces(target: Target, starts: int, rng: np.random.Generator) -> xr.Dataset:
    """Critical subspaces of every rank."""
    rank, size, steps = target.rank, _size(target), list(leaps(target))
    points: list[CriticalPoint] = []
    stops: list[int] = []  # those of the ladder
    for k in range(rank + 1):
        first = [step.subspace for step in steps if step.rank_before == k]
        tried = 1 if k in (0, rank) else starts
        frames = [np.linalg.qr(rng.standard_normal((rank, k)))[0] for _ in range(tried)]
        for n, frame in enumerate([*first, *frames]):
            U = critical(target, frame, 60)
            # Newton's method may not have converged: at a critical subspace V^T H U = 0.
            push = complete(U)[:, k:].T @ gradient(target, U @ U.T) @ U
            if np.abs(push).max(initial=0.0) <= 1e-9 * size:
                stops += [len(points)] if n < len(first) else []
                points.append(CriticalPoint.near(target, U))
    learned = [point.learned.shape[1] for point in points]
    gram = [point.learned @ point.learned.T for point in points]
    exponent = np.array([point.exponent or np.nan for point in points])
    loss, rates = np.array([point.loss for point in points]), [point.rates for point in points]
    kinds = [(k, point.exponent) for k, point in zip(learned, points, strict=True)]
    groups, out = _table(loss, rates, gram, size, kinds)
    at = [group[0] for group in groups]
    # The ladder ends with all learned, which is before none of its steps.
    visited = [bool({*group} & {*stops}) or kinds[group[0]] == (rank, None) for group in groups]
    out["learned"] = "point", np.array(learned)[at]
    out["exponent"] = "point", exponent[at]
    out["minimum"] = out["exponent"].isnull() & (out["index"] == 0)
    out["ladder"] = "point", visited
    out["gram"] = ("point", "axis", "axis_t"), np.array(gram)[at]
    return labelled(out, NAMES)


def _size(target: Target) -> float:
    """Scale of the slopes of h."""
    return float(np.sum(target.coefficients**2 * target.modes.sum(axis=1)))


def _table(
    loss: Array, rates: Any, matrices: Any, size: float, kinds: Sequence[Any]
) -> tuple[list[list[int]], xr.Dataset]:
    """Put points of one kind, loss and rates together, by decreasing loss, and tell of them."""
    groups: list[list[int]] = []
    for i in range(len(loss)):
        alike = (
            k
            for k, (first, *_) in enumerate(groups)
            if kinds[first] == kinds[i]
            and np.abs(rates[first] - rates[i]).max(initial=0.0) + abs(loss[first] - loss[i])
            < SAME * size
        )
        at = next(alike, None)
        if at is None:
            groups.append([i])
        # Starts that led to the same place are no copies.
        elif all(np.abs(matrices[k] - matrices[i]).max() > 1e-3 for k in groups[at]):
            groups[at].append(i)
    groups.sort(key=lambda group: -loss[group[0]])
    here = [rates[group[0]] for group in groups]
    neutral = np.array([(np.abs(each) <= FLAT * size).sum() for each in here])
    grows = [each[each > FLAT * size] for each in here]
    parts = {
        "loss": [max(loss[group[0]], 0.0) for group in groups],
        "index": [len(each) for each in grows],
        "growth": [each.max(initial=0.0) for each in grows],
        "neutral": neutral,
        "isolated": neutral == 0,
        "copies": np.where(neutral == 0, [len(group) for group in groups], 0),
    }
    return groups, xr.Dataset({name: ("point", values) for name, values in parts.items()})


def _matrices(
    target: Target, starts: int, rng: np.random.Generator, dim: float, runs: int, seed: int
) -> xr.Dataset:
    """Critical points of the planted flow, and where its runs end."""
    r, size = target.rank, _size(target)
    # Of any rank, and with directions that are learned: inside the ball and on all its faces.
    scales = np.clip(rng.uniform(-0.5, 1.5, (starts * r, r)), 0.0, 1.0)
    left, _, right = np.linalg.svd(rng.standard_normal((len(scales), r, r)))
    M = np.concatenate([(left * scales[:, None, :]) @ right, np.zeros((1, r, r))])
    if runs:
        ds = simulate(target, dim=dim, runs=runs, seed=seed, flow="planted").compute()
        status, last = ds["status"].values.ravel(), ds["loss"].values.reshape(runs, -1)[:, -1]
        ends = np.where((status == 0) | (status == 2), last, np.nan)  # decided
        # Newton's method from the ends finds what holds them.
        reached = ds["correlation"].values.reshape(runs, -1, r, r)[:, -1]
        M = np.concatenate([M, reached[np.isfinite(ends)]])
    for _ in range(80):
        slope, jacobian = linearised(target, M)
        # The pseudo-inverse leaves symmetries alone, along which the Jacobian vanishes.
        step = -np.linalg.pinv(jacobian, rcond=1e-8) @ slope.reshape(len(M), -1, 1)
        # Far from its goal Newton's method would jump: no entry moves by more than 0.2.
        length = np.abs(step).max(axis=(1, 2), keepdims=True)
        M = M + (step * np.minimum(1.0, 0.2 / np.maximum(length, 1e-300))).reshape(M.shape)
    slope, jacobian = linearised(target, M)
    inside = np.linalg.norm(M, 2, axis=(1, 2)) < 1 + 1e-7  # no frame has others
    held = (np.abs(slope).max(axis=(1, 2)) < 1e-10 * size) & inside
    M, rates = M[held], np.sort(np.linalg.eigvals(jacobian[held]).real, axis=1)
    level = target.norm**2 - correlation(target, M)
    groups, out = _table(level, rates, M, size, [None] * len(M))
    first = [group[0] for group in groups]
    share = np.full(len(first), np.nan)
    if runs:
        # Where a run has ended is told by its loss, which copies of a point have in common.
        nearest = np.abs(ends[:, None] - level[first]).argmin(axis=1)
        share = np.bincount(nearest[np.isfinite(ends)], minlength=len(first)) / runs
    out["basin"] = "point", share
    out["basin_error"] = "point", np.sqrt(share * (1 - share) / max(runs, 1))
    out["overlap"] = ("point", "direction"), np.linalg.svd(M[first], compute_uv=False) ** 2
    out["correlation"] = ("point", "axis", "student"), M[first]
    return labelled(out, NAMES)


def linearised(target: Target, M: Array) -> tuple[Array, Array]:
    """Return the slope of the planted flow and its Jacobian, shape (n, r * r, r * r)."""
    n, r, _ = M.shape
    units = 1e-5 * np.eye(r * r).reshape(r * r, 1, r, r)
    ends = (planted_slope(target, M + sign * units)[0] for sign in (1, -1))
    jacobian = np.subtract(*ends).reshape(r * r, n, r * r) / 2e-5
    return planted_slope(target, M)[0], np.moveaxis(jacobian, 0, -1)


NAMES = {
    "loss": "loss at the critical point",
    "learned": "directions learned",
    "index": "perturbations that grow",
    "growth": "largest growth rate",
    "neutral": "perturbations that neither grow nor die out",
    "isolated": "whether no perturbation leads to another critical point",
    "copies": "different points of the same kind that were found",
    "exponent": "information exponent relative to what is learned",
    "minimum": "whether nothing leads away",
    "ladder": "whether the ladder stops there",
    "gram": "projector on what is learned",
    "basin": "share of runs that end there",
    "basin_error": "standard error of that share",
    "overlap": "squared singular values of M",
    "correlation": "correlation matrix",
}


# -- critical subspaces, one by one -------------------------------------------------------------


@dataclass(eq=False)
class CriticalPoint:
    """A critical subspace (rank, k), its complement (rank, m), and the polynomial around it."""

    learned: Array
    normal: Array
    loss: float
    exponent: int | None
    coefficients: Array
    rates: Array  # of tilts, ascending
    neutral: float  # below which a rate counts as zero
    target: Target

    @classmethod
    def near(cls, target: Target, subspace: Array, *, leading: bool = False) -> CriticalPoint:
        """Analyse the critical subspace next to one that is nearly critical."""
        k = subspace.shape[1]
        U = critical(target, subspace)
        # One basis, wherever the search began: no run's numbers depend on another run.
        learned = np.linalg.eigh(np.round(U @ U.T, 12))[1][:, target.rank - k :]
        frame = complete(learned)
        rates: Array = np.linalg.eigvalsh(tilt_growth(target, learned)).astype(np.float64)
        table, coefficients = polynomial(target)
        coefficients = table.substitute(coefficients[:, None], frame[None])
        degree = table.modes[:, k:].sum(axis=1)
        exponent = _exponents(table, coefficients, k)[0]
        # The part of least degree alone is the law for d to infinity.
        kept = (degree == exponent) if leading else (degree >= exponent)
        coefficients = np.where(kept, coefficients[:, 0], 0.0)
        level = float(loss(target, learned @ learned.T))
        known = int(exponent) if exponent <= degree.max() else None
        neutral = 1e-7 * _size(target)
        return cls(learned, frame[:, k:], level, known, coefficients, rates, neutral, target)

    @cached_property
    def frame(self) -> Array:
        """Basis (rank, rank) of both."""
        return np.concatenate([self.learned, self.normal], axis=1)

    @property
    def stable(self) -> bool:
        """Whether no tilt grows."""
        return bool(self.rates.max(initial=-1.0) <= self.neutral)

    @property
    def isolated(self) -> bool:
        """Whether no tilt leads to another critical subspace."""
        return bool((np.abs(self.rates) > self.neutral).all())

    @cached_property
    def straight(self) -> bool:
        """Whether U stands still, however far the directions beside it are learned."""
        k, m = self.learned.shape[1], self.normal.shape[1]
        if not k or not m:
            return True
        draws = np.random.default_rng(0).standard_normal((3, m, m))
        D = draws @ draws.swapaxes(1, 2)
        D /= np.linalg.norm(D, axis=(1, 2))[:, None, None]
        G = self.learned @ self.learned.T + self.normal @ D @ self.normal.T
        push = self.normal.T @ gradient(self.target, G) @ self.learned
        # V^T H U is a polynomial in D, which is zero if it vanishes at random ones.
        return bool(np.abs(push).max() < self.neutral)

    @cached_property
    def basin(self) -> float:
        """Largest tilt that dies out without a trace; 0 if some do not, however small."""
        k, scale = self.learned.shape[1], self.neutral / 1e-7
        # What a tilt that dies out at a rate K changes meanwhile is of order theta^2 / K.
        slow = -self.rates[self.rates < -self.neutral]
        most = min(0.1, float(np.sqrt(TRACE * slow.min(initial=scale) / scale)))
        modes = np.linalg.eigh(tilt_growth(self.target, self.learned))[1]
        # Only tilts that hardly fade may lead elsewhere.
        modes = modes[:, self.rates > -0.01 * scale].T.reshape(-1, self.normal.shape[1], k)
        if not modes.size:
            return most
        for size in (0.1, 0.03, 0.01, 0.003):  # where rates nearly vanish higher orders count
            theta = size * np.concatenate([modes, -modes])
            # The ascent leads back where the loss still grows along the tilt.
            losses = []
            for part in (0.9, 1.0):
                U = np.linalg.qr(self.learned + part * (self.normal @ theta))[0]
                losses.append(loss(self.target, U @ U.swapaxes(1, 2)))
            if (losses[1] >= losses[0] - 1e-13 * scale).all():
                return min(size, most)
        return 0.0

    def tilts(self, subspaces: Array) -> Array:
        """Largest entry of theta for subspaces ``U + V theta``; inf for those far away."""
        onto, off = self.learned.T @ subspaces, self.normal.T @ subspaces
        # theta = (V^T S) (U^T S)^-1 for a subspace S, if U^T S can be inverted.
        far = np.abs(np.linalg.det(onto)) < 0.1
        onto = np.where(far[..., None, None], np.eye(onto.shape[-1]), onto)
        theta = np.linalg.solve(onto.swapaxes(-1, -2), off.swapaxes(-1, -2))
        return np.where(far, np.inf, np.abs(theta).max(axis=(-2, -1), initial=0.0))

    def tilt(self, subspace: Array) -> float:
        """`tilts` of one."""
        return float(self.tilts(subspace)) if subspace.shape == self.learned.shape else np.inf

    def split(self, P: Array) -> Array:
        """Schur factor L, (n, m, c - k), of P, (n, rank, c): what lies beside U."""
        k = self.learned.shape[1]
        # Columns turned so that the first k hold all of P along U: X has the complement L L^T.
        turn = np.linalg.qr((self.learned.T @ P).swapaxes(1, 2), mode="complete")[0]
        return np.asarray((self.normal.T @ P @ turn)[:, :, k:])


def critical(target: Target, subspace: Array, iterations: int = 10) -> Array:
    """Critical subspace next to a given one, by Newton's method: it need not attract."""
    k = subspace.shape[1]
    if k in (0, target.rank):
        return subspace
    return criticals(*polynomial(target), complete(subspace)[None], k, iterations)[0, :, :k]


def critical_values(target: Target, frames: Array, k: int) -> tuple[Array, Array]:
    """Exponents (NaN if all is learned) and losses of critical subspaces near frames."""
    table, coefficients = polynomial(target)
    whole = np.linalg.qr(frames[:, :, :k], mode="complete")[0]
    if 0 < k < target.rank:
        whole = criticals(table, coefficients, whole, k, 12)
    exponents = _exponents(table, table.substitute(coefficients[:, None], whole), k)
    U = whole[:, :, :k]
    exponents = np.where(exponents <= max(table.degrees), exponents, np.nan)
    return exponents, loss(target, U @ U.swapaxes(1, 2))


def _exponents(table: Monomials, coefficients: Array, k: int) -> Array:
    """Least degrees in the variables from k on of coefficients (n, runs); one too many if none."""
    degree = table.modes[:, k:].sum(axis=1)
    parts = table.weight[:, None] * coefficients**2
    sizes = np.stack([parts[degree == s].sum(axis=0) for s in range(max(table.degrees) + 1)])
    floor = TOLERANCE**2 * sizes.sum(axis=0)
    seen = np.concatenate([sizes[1:] > floor, np.ones((1, sizes.shape[1]), dtype=bool)])
    return np.asarray(1.0 + seen.argmax(axis=0))
