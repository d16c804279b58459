r"""The ladder of saddles of a target: which directions are learned at which power of d.

The recursion of the paper (Theorems 1.4 and 3.25): with the directions of a subspace U learned, the
component of the target of least degree s >= 1 in the variables orthogonal to U (of any degree in
U) decides what is learned next; its span joins U, and the saddle is left after a time of order
d^(s - 1), or log d for s = 1.

In symbols, for delta on the orthogonal complement of U,

.. math:: h(P_U + \delta) - h(P_U) = \langle A, \delta^{\otimes s} A \rangle + O(\delta^{s + 1}),

where A collects the entries of the target's tensors with s indices orthogonal to U and the others
in U, those of degree n with the weight ``sqrt(comb(n, s))``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from .target import Target, as_target

__all__ = [
    "Ladder",
    "Leap",
    "critical_subspace",
    "ladder",
    "leading_component",
    "leaps",
    "rate",
    "relevant_directions",
    "tilt_growth",
]

Array = NDArray[np.float64]

# Relative to the norm of the target's non-constant part. A rotation of a target leaves about 1e-15
# where there was a zero; coefficients anyone means are far larger.
TOLERANCE = 1e-9
MAX_ASCENT = 20_000


def rate(exponent: int) -> str:
    """Name the order in d of the time at a saddle, ``d^(exponent - 1)`` or ``log d``."""
    return {1: "log d", 2: "d"}.get(exponent, f"d^{exponent - 1}")


@dataclass(frozen=True, eq=False)
class Leap:
    """One step of the ladder: a saddle, and what is learned on leaving it.

    Attributes
    ----------
    exponent : int
        Information exponent s relative to what is learned; the saddle takes ``d^(s - 1)`` (log d).
    subspace : ndarray, shape (rank, rank_before)
        Orthonormal basis of the critical subspace U at which the flow sits.
    learned : ndarray, shape (rank, rank_after - rank_before)
        Orthonormal basis of the span of the leading component, orthogonal to U.
    strength : float
        Largest leading strength ``c^2 = max_v <A, (v v^T)^{(x) s} A>`` over unit vectors v: the
        overlap of the direction learned first obeys ``lambda' = 2 s c^2 lambda^s (1 - lambda)``.
    weakest : float
        How strongly the component depends on the direction in `learned` on which it depends least:
        the smallest squared singular value of its unfolding. Where several directions are learned
        in one leap, it sets the scale of the last one's strength.
    loss : float
        Loss on the plateau, ``(|f|^2 - h(P_U)) / 2``.
    drift : float
        Largest angle (radians) by which U has turned away from the span that the recursion gives;
        0 where that span is critical by itself. See `critical_subspace`.
    stable : bool
        Whether small rotations of U die out, see `tilt_growth`. The recursion goes on from a
        subspace where they do if the exponent is 2 or more; with exponent 1 it is left within
        log d all the same.
    inside : tuple of int
        Exponents of the saddles inside the step, where it learns several directions one after the
        other, the strongest first: ``(2, 2)`` for ``h1(z1)h1(z2)h1(z3)``, whose own exponent is 3.
    turning : float
        Sum of 1 / K over the rotations, of growth rate K, by which U came to rest: as they start at
        an angle of order ``d^(-1/2)`` they take ``turning * log(d) / 2``. 0 where none grew.
    holds_to : float
        Of a target from samples: the dimension d from which on a component of lower order, so small
        that the samples cannot tell it from 0, might be learned first. Infinite where the target is
        known, and for exponent 1.
    """

    exponent: int
    subspace: Array
    learned: Array
    strength: float
    weakest: float
    loss: float
    drift: float
    stable: bool
    inside: tuple[int, ...] = ()
    turning: float = 0.0
    holds_to: float = np.inf

    @property
    def rank_before(self) -> int:
        """Number of directions learned when the flow arrives."""
        return int(self.subspace.shape[1])

    @property
    def rank_after(self) -> int:
        """Number of directions learned when the whole leading component is learned."""
        return int(self.rank_before + self.learned.shape[1])

    @property
    def rate(self) -> str:
        """Order in d of the time spent at this saddle."""
        return rate(self.exponent)

    def __repr__(self) -> str:
        """Summarise the step in one line."""
        return (
            f"<Leap rank {self.rank_before} -> {self.rank_after}: exponent {self.exponent}, "
            f"time ~ {self.rate}, loss {self.loss:.4g}, strength {self.strength:.4g}>"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Ladder:
    """The sequence of leaps of a target; see `ladder`.

    Attributes
    ----------
    steps : tuple of Leap
        In the order in which they are taken; empty for a constant target.
    loss : float
        Loss when everything is learned (zero up to rounding, unless the last subspace is not
        critical for a reason outside the recursion).
    """

    steps: tuple[Leap, ...]
    loss: float

    @cached_property
    def exponents(self) -> tuple[int, ...]:
        """Information exponents, one per step."""
        return tuple(step.exponent for step in self.steps)

    @property
    def rates(self) -> tuple[str, ...]:
        """Order in d of the time at each saddle."""
        return tuple(step.rate for step in self.steps)

    @property
    def holds_to(self) -> float:
        """Dimension up to which samples tell the exponents; see `Leap.holds_to`."""
        return min((step.holds_to for step in self.steps), default=np.inf)

    @property
    def rank(self) -> int:
        """Number of directions the target depends on."""
        return self.steps[-1].rank_after if self.steps else 0

    def __len__(self) -> int:
        """Count the steps."""
        return len(self.steps)

    def __iter__(self) -> Iterator[Leap]:
        """Iterate over the steps."""
        return iter(self.steps)

    def __getitem__(self, index: int) -> Leap:
        """Return one step."""
        return self.steps[index]

    def __repr__(self) -> str:
        """Exponents and rates, ``1 -> 2: log d, d``; ``3(-> 2 -> 2)`` with those inside."""
        if not self.steps:
            return "no leaps: the target is constant"
        names = []
        for step in self.steps:
            inside = " ".join(f"-> {s}" for s in step.inside[:7])
            inside += f" ... {len(step.inside) + 1} directions" if len(step.inside) > 7 else ""
            names.append(f"{step.exponent}({inside})" if inside else str(step.exponent))
        doubt = self.holds_to
        known = "" if doubt == np.inf else f" (samples tell it up to d = {doubt:.2g})"
        return f"{' -> '.join(names)}: {', '.join(self.rates)}{known}"


def ladder(target: Target | str) -> Ladder:
    """Work out the ladder of saddles of a target (paper Theorems 1.4 and 3.25).

    Starting from nothing learned, each step adds the span of the component of least degree in
    what is not learned yet. Where the span so reached is not critical for ``U -> h(P_U)``, the flow
    first turns it, at fixed rank and in a time of order one, into one that is. Where it is critical
    but small rotations of it grow, the flow leaves it by rotation within log d, for a maximum of
    ``h(P_U)``, though the exponent there may be 2 or more. In both cases the recursion goes on from
    where the subspace comes to rest; `Leap.drift` tells by how much it has turned.

    Several directions learned in one step may be learned one after the other, with plateaus
    between them whose times have ratios of order one: the number of plateaus can exceed the number
    of steps.

    Parameters
    ----------
    target : Target or str
        Any target, or text for `Target.parse`.

    Returns
    -------
    Ladder

    Examples
    --------
    >>> from mids.targets import Target
    >>> steps = ladder("h1(z1) + h1(z1)*h2(z2) + h2(z2)*h3(z3)")
    >>> steps
    1 -> 2 -> 3: log d, d, d^2
    >>> [step.rank_before for step in steps]
    [0, 1, 2]
    """
    return _ladder(as_target(target))


@lru_cache(maxsize=64)
def _ladder(target: Target) -> Ladder:
    if target.separable is not None:
        return _separable(*target.separable)
    tensors = target.tensors
    rank = target.rank
    total = sum(float(np.sum(tensor**2)) for tensor in tensors)
    subspace = np.zeros((rank, 0))
    drift = turning = 0.0
    steps: list[Leap] = []
    while True:
        frame = complete(subspace)
        k = subspace.shape[1]
        rotated = rotate(tensors, frame)
        loss = 0.5 * (total - _captured(rotated, k))
        found = leading_component(rotated, k)
        if found is None:
            return Ladder(tuple(steps), max(loss, 0.0))
        exponent, component = found
        span, sizes = _row_space(component, _scale(tensors))
        strength = _largest_strength(_restrict(component, span))
        learned = frame[:, k:] @ span
        rates = np.linalg.eigvalsh(tilt_growth(target, subspace))
        stable = bool(rates.max(initial=0.0) <= 1e-6 * _scale(tensors) ** 2)
        weakest = float(sizes[-1] ** 2)
        inside = _inside(target, subspace, learned) if learned.shape[1] > 1 else ()
        holds_to = _holds_to(target, frame, k, exponent, strength)
        steps.append(
            Leap(
                exponent,
                subspace,
                learned,
                strength,
                weakest,
                loss,
                drift,
                stable,
                inside,
                turning,
                holds_to,
            )
        )
        spanned = np.column_stack([subspace, learned])
        subspace, turning = _at_rest(target, spanned)
        drift = _largest_angle(spanned, subspace)


def _holds_to(target: Target, frame: Array, learned: int, exponent: int, strength: float) -> float:
    """Dimension up to which no component of lower order is first; see `Leap.holds_to`."""
    if target.estimate is None or exponent == 1:
        return np.inf
    lower = np.arange(1, exponent)
    hidden = [target.estimate.undetected(frame, learned, order) for order in lower.tolist()]
    with np.errstate(divide="ignore"):  # labels without noise hide nothing
        return float(np.min((strength / np.square(hidden)) ** (1.0 / (exponent - lower))))


def _separable(exponent: int, strengths: Array, directions: Array) -> Ladder:
    """Ladder of a sum of one link along orthonormal directions: one step learns them all.

    Shapes: strengths (n,); directions (rank, n).
    """
    rank, n = directions.shape
    order = np.argsort(-strengths, kind="stable")
    step = Leap(
        exponent=exponent,
        subspace=np.zeros((rank, 0)),
        learned=directions[:, order],
        strength=float(strengths.max()),
        weakest=float(strengths.min()),
        loss=0.5 * float(strengths.sum()),
        drift=0.0,
        stable=True,
        inside=(exponent,) * (n - 1),
    )
    return Ladder((step,), 0.0)


leaps = ladder
"""The name of `ladder` in version 0.1."""


def _at_rest(target: Target, subspace: Array) -> tuple[Array, float]:
    """Turn a subspace until it is critical and no rotation takes it away before the exponent.

    Returns it and the sum of 1 / K over the growth rates of the rotations.
    """
    scale = _scale(target.tensors)
    turning = 0.0
    subspace = critical_subspace(target, subspace)
    for _ in range(subspace.size):
        found = leading_component(rotate(target.tensors, complete(subspace)), subspace.shape[1])
        if found is None or found[0] == 1:  # it is left within log d all the same
            break
        rates, modes = np.linalg.eigh(tilt_growth(target, subspace))
        if not len(rates) or rates[-1] <= 1e-6 * scale**2:
            break
        k = subspace.shape[1]
        turning += float(1 / rates[-1])
        theta = 0.05 * modes[:, -1].reshape(-1, k)
        tilted = np.linalg.qr(subspace + complete(subspace)[:, k:] @ theta)[0]
        subspace = critical_subspace(target, tilted)
    return subspace, turning


def _inside(target: Target, subspace: Array, learned: Array) -> tuple[int, ...]:
    """Exponents after each direction of a step but the last, the strongest first."""
    found: list[int] = []
    whole = np.column_stack([subspace, learned])
    U = subspace
    for _ in range(learned.shape[1] - 1):
        k = U.shape[1]
        frame = complete(U)
        rotated = rotate(target.tensors, frame)
        leading = leading_component(rotated, k)
        if leading is None:
            break
        v = frame[:, k:] @ _strongest(leading[1])
        U, _ = _at_rest(target, np.linalg.qr(np.column_stack([U, v]))[0])
        after = leading_component(rotate(target.tensors, complete(U)), U.shape[1])
        beside = np.linalg.norm(U - whole @ (whole.T @ U))
        if after is None or beside > 1e-6:  # what is learned meanwhile belongs to a later step
            break
        found.append(after[0])
    return tuple(found)


def relevant_directions(target: Target) -> int:
    """Count the directions that a target depends on, which is the rank of its `leaps`."""
    if target.separable is not None:
        return len(target.separable[1])
    flat = [tensor.reshape(-1, target.rank) for tensor in target.tensors[1:]]
    if not flat:
        return 0
    return _row_space(np.concatenate(flat), _scale(target.tensors))[1].size


def critical_subspace(target: Target, subspace: Array) -> Array:
    """Turn a subspace at fixed rank until ``h(P_U)`` is critical.

    Once the directions of U are learned, what is left of the flow on matrices of that rank is
    ``U' = (I - P_U) H(P_U) U``, the gradient ascent of ``h(P_U)``. It stands still where H does not
    couple U and its complement; only there does the flow meet a saddle.

    Shapes: subspace (rank, k); returns (rank, k).
    """
    k = subspace.shape[1]
    if k in (0, target.rank):
        return subspace
    scale = _scale(target.tensors)
    tensors = tuple(tensor / scale for tensor in target.tensors)
    step = 0.5
    value, push = _ascent(tensors, subspace)
    for _ in range(MAX_ASCENT):
        if np.abs(push).max() <= 1e-12:
            break
        trial = np.linalg.qr(subspace + step * push)[0]
        # The same subspace in the basis nearest to the old one: QR may flip signs.
        left, _, right = np.linalg.svd(trial.T @ subspace)
        trial = trial @ (left @ right)
        trial_value, trial_push = _ascent(tensors, trial)
        if trial_value < value - 1e-14 or step * np.linalg.norm(push) > 0.3:
            step /= 2
            continue
        if np.linalg.norm(trial_push - push) < 0.5 * np.linalg.norm(push):
            step *= 1.5
        subspace, value, push = trial, trial_value, trial_push
    return subspace


def tilt_growth(target: Target, subspace: Array) -> Array:
    """Return the linear flow of small rotations of a subspace at fixed rank.

    With ``U -> U + V theta`` for a basis V of the complement, ``theta' = K theta`` near a critical
    subspace. A positive eigenvalue of K means that U is a saddle already among the subspaces of its
    rank: the flow leaves it, by rotation, in a time of order log d.

    Shapes: subspace (rank, k).
    """
    k = subspace.shape[1]
    m = target.rank - k
    growth = np.zeros((m, k, m, k))
    for n, tensor in enumerate(rotate(target.tensors, complete(subspace))):
        if n == 0 or not growth.size:
            continue
        first = tensor[(slice(None), *(slice(None, k),) * (n - 1))].reshape(target.rank, -1)
        inner = first @ first.T
        growth += n * np.einsum("uw,ab->aubw", np.eye(k), inner[k:, k:])
        growth -= n * np.einsum("uw,ab->aubw", inner[:k, :k], np.eye(m))
        if n > 1:
            second = tensor[(slice(None),) * 2 + (slice(None, k),) * (n - 2)]
            second = second.reshape(target.rank, target.rank, -1)
            learned, normal, mixed = second[:k, :k], second[k:, k:], second[k:, :k]
            growth += n * (n - 1) * np.einsum("abz,uwz->aubw", normal, learned)
            growth += n * (n - 1) * np.einsum("awz,buz->aubw", mixed, mixed)
    return growth.reshape(m * k, m * k)


def leading_component(
    rotated: tuple[Array, ...] | list[Array], k: int, tolerance: float = TOLERANCE
) -> tuple[int, Array] | None:
    """Return the component of least degree in the directions that are not learned.

    Shapes: returns (int, ndarray).
    """
    degree = len(rotated) - 1
    rank = rotated[1].shape[0] if degree else 0
    floor = tolerance * _scale(rotated)
    if k == rank:
        return None
    for s in range(1, degree + 1):
        parts = []
        for n in range(s, degree + 1):
            block = rotated[n][(slice(None, k),) * (n - s) + (slice(k, None),) * s]
            parts.append(np.sqrt(comb(n, s)) * block.reshape(k ** (n - s), *(rank - k,) * s))
        component = np.concatenate(parts)
        if np.linalg.norm(component) > floor:
            return s, component
    return None


def rotate(tensors: tuple[Array, ...] | list[Array], frame: Array) -> list[Array]:
    """Express tensors in a frame: every index is contracted with `frame`, shape (rank, n)."""
    out = []
    for tensor in tensors:
        result, done = tensor, 1
        for _ in range(tensor.ndim):
            done *= frame.shape[1]
            # The indices before, this one, those after.
            result = frame.T @ result.reshape(done // frame.shape[1], len(frame), -1)
        out.append(np.asarray(result).reshape((frame.shape[1],) * tensor.ndim))
    return out


def complete(subspace: Array) -> Array:
    """Extend an orthonormal basis, shape (rank, k), to one of the whole space, (rank, rank)."""
    rank, k = subspace.shape
    basis = np.linalg.qr(np.column_stack([subspace, np.eye(rank)]))[0]
    return np.column_stack([subspace, basis[:, k:]])


def _scale(tensors: tuple[Array, ...] | list[Array]) -> float:
    """Norm of the non-constant part."""
    return float(np.sqrt(sum(np.sum(tensor**2) for tensor in tensors[1:])))


def _captured(rotated: list[Array], k: int) -> float:
    """``h(P_U)``: the squared norm of the part of the target that lives on U."""
    return float(sum(np.sum(tensor[(slice(None, k),) * tensor.ndim] ** 2) for tensor in rotated))


def _ascent(tensors: tuple[Array, ...], subspace: Array) -> tuple[float, Array]:
    """``h(P_U)`` and its ascent direction ``(I - P_U) H U``."""
    value = 0.0
    gradient = np.zeros_like(subspace)
    for n, tensor in enumerate(tensors):
        part = tensor
        for _ in range(n - 1):
            part = np.tensordot(part, subspace, axes=(1, 0))
        if n:
            inner = np.tensordot(subspace, part, axes=(0, 0))
            flat = part.reshape(part.shape[0], -1)
            gradient += n * flat @ inner.reshape(inner.shape[0], -1).T
            part = inner
        value += float(np.sum(part**2))
    return value, gradient - subspace @ (subspace.T @ gradient)


def _row_space(component: Array, scale: float) -> tuple[Array, Array]:
    """Orthonormal basis, shape (rank - k, n), of what the component depends on, and how much."""
    _, sizes, rows = np.linalg.svd(component.reshape(-1, component.shape[-1]), full_matrices=False)
    kept = sizes > TOLERANCE * scale
    return rows[kept].T, sizes[kept]


def _restrict(component: Array, span: Array) -> Array:
    """Express the component's trailing axes in the basis `span`."""
    for axis in range(1, component.ndim):
        component = np.moveaxis(np.tensordot(component, span, axes=(axis, 0)), -1, axis)
    return component


def _largest_strength(component: Array) -> float:
    """``max_v sum_f A_f(v, ..., v)^2`` over unit vectors."""
    if component.ndim == 2:
        return float(np.linalg.norm(component, 2) ** 2)
    scale = float(np.abs(component).max())
    return float(_strength(component / scale, _strongest(component)[None])[0][0]) * scale**2


def _strongest(component: Array) -> Array:
    """Find the unit vector of the largest strength, by power iterations from many starts."""
    size = component.shape[-1]
    if component.ndim == 2:
        return np.asarray(np.linalg.svd(component)[2][0])
    scale = float(np.abs(component).max())  # products of slopes overflow where strengths do not
    component = component / scale
    starts = np.random.default_rng(0).standard_normal((32, size))
    rows = np.linalg.svd(component.reshape(-1, size), full_matrices=False)[2]
    v = _unit(np.concatenate([starts, rows]))
    # Undamped, the iteration circles between directions of opposite sign, as in h1(z1)h1(z2).
    damping = np.full((len(v), 1), 0.5)
    value, slope = _strength(component, v)
    for iteration in range(1000):
        if iteration == 50:  # the best of them go on alone
            best = np.argsort(-value)[:4]
            v, slope, value, damping = v[best], slope[best], value[best], damping[best]
        trial = _unit(_unit(slope) + damping * v)
        trial_value, trial_slope = _strength(component, trial)
        worse = trial_value < value
        damping[worse] = np.minimum(2 * damping[worse], 1e8)  # a start that no longer moves
        keep = worse[:, None]
        v, slope = np.where(keep, v, trial), np.where(keep, slope, trial_slope)
        value = np.where(worse, value, trial_value)
        # The error of the value is quadratic in what remains of the slope along the sphere.
        near = np.abs(slope - value[:, None] * v).max(axis=1) <= 1e-8 * value.max()
        if near.all() or (iteration > 50 and near[value.argmax()]):
            break
    return np.asarray(v[value.argmax()])


def _strength(component: Array, v: Array) -> tuple[Array, Array]:
    """Strength of each row of `v`, shape (n,), and half its gradient over s, shape (n, size)."""
    part = np.moveaxis(np.tensordot(component, v, axes=(-1, 1)), -1, 0)
    for _ in range(component.ndim - 3):
        part = np.einsum("n...j,nj->n...", part, v)
    inner = np.einsum("nfj,nj->nf", part, v)
    return np.sum(inner**2, axis=1), np.einsum("nfj,nf->nj", part, inner)


def _unit(v: Array) -> Array:
    norm = np.linalg.norm(v, axis=-1, keepdims=True)
    return v / np.where(norm > 0, norm, 1.0)


def _largest_angle(first: Array, second: Array) -> float:
    """Largest principal angle between two subspaces of the same rank, in radians."""
    if first.shape[1] == 0 or first is second:
        return 0.0
    off = second - first @ (first.T @ second)
    return float(np.arcsin(min(float(np.linalg.norm(off, 2)), 1.0)))
