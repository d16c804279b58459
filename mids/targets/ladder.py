r"""The ladder of saddles of a target: which directions are learned at which power of d.

The recursion of the paper (Theorems 1.4 and 3.25): with the directions of a subspace U learned, the
component of the target of least degree s >= 1 in the variables orthogonal to U (of any degree in
U) decides what is learned next; its span joins U, and the saddle is left after a time of order
d^(s - 1), or log d for s = 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from ..validation import FloatArray as Array
from .polynomial import polynomial
from .samples import Estimate
from .subspaces import (
    TOLERANCE,
    Component,
    complete,
    critical_subspace,
    tilt_growth,
    varying_norm,
)
from .target import Target, as_target


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
        0 where that span is critical by itself. See `mids.targets.subspaces`.
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
    target = as_target(target)
    return _ladder(target, target.estimate)


@lru_cache(maxsize=64)
def _ladder(target: Target, estimate: Estimate | None) -> Ladder:
    """Ladder of a target, kept for it and its samples, which equality of targets leaves out."""
    from scipy.linalg import subspace_angles

    if target.separable is not None:
        return _separable(*target.separable)
    subspace = np.zeros((target.rank, 0))
    drift = turning = 0.0
    steps: list[Leap] = []
    while True:
        found = Component.of(target, subspace)
        if found.exponent is None:
            return Ladder(tuple(steps), found.loss)
        learned = found.normal @ found.span
        rates = np.linalg.eigvalsh(tilt_growth(target, subspace))
        inside = _inside(target, subspace, learned) if learned.shape[1] > 1 else ()
        strength = float(found.strength(found.strongest()[None])[0][0])
        steps.append(
            Leap(
                exponent=found.exponent,
                subspace=subspace,
                learned=learned,
                strength=strength,
                weakest=float(found.sizes[-1] ** 2),
                loss=found.loss,
                drift=drift,
                stable=bool(rates.max(initial=0.0) <= 1e-6 * varying_norm(target) ** 2),
                inside=inside,
                turning=turning,
                holds_to=_holds_to(estimate, subspace, found.exponent, strength),
            )
        )
        spanned = np.column_stack([subspace, learned])
        subspace, turning = _at_rest(target, spanned)
        drift = float(subspace_angles(spanned, subspace).max()) if subspace is not spanned else 0.0


def _holds_to(estimate: Estimate | None, subspace: Array, exponent: int, strength: float) -> float:
    """Dimension up to which no component of lower order is first; see `Leap.holds_to`."""
    if estimate is None or exponent == 1:
        return np.inf
    lower = np.arange(1, exponent)
    frame, k = complete(subspace), subspace.shape[1]
    hidden = [estimate.undetected(frame, k, order) for order in lower.tolist()]
    # Beyond d with d^(j-1) / b_j^2 = d^(s-1) / c^2 a hidden part b_j of order j is first.
    with np.errstate(divide="ignore"):  # labels without noise hide nothing
        return float(np.min((strength / np.square(hidden)) ** (1.0 / (exponent - lower))))


def _separable(exponent: int, strengths: Array, directions: Array) -> Ladder:
    """Ladder of one link along orthonormal directions (rank, n): one step learns them all."""
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


leaps = ladder  # the name of `ladder` in version 0.1


def _at_rest(target: Target, subspace: Array) -> tuple[Array, float]:
    """Turn a subspace until it rests; also return the sum of 1 / K over the rotations."""
    turning = 0.0
    subspace = critical_subspace(target, subspace)
    for _ in range(subspace.size):
        if Component.of(target, subspace).exponent in (None, 1):  # left within log d all the same
            break
        rates, modes = np.linalg.eigh(tilt_growth(target, subspace))
        if not len(rates) or rates[-1] <= 1e-6 * varying_norm(target) ** 2:
            break
        k = subspace.shape[1]
        turning += float(1 / rates[-1])
        # Off the saddle along the rotation that grows fastest; the ascent does the rest.
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
        leading = Component.of(target, U)
        if leading.exponent is None:
            break
        v = leading.normal @ leading.strongest()
        U, _ = _at_rest(target, np.linalg.qr(np.column_stack([U, v]))[0])
        after = Component.of(target, U).exponent
        beside = np.linalg.norm(U - whole @ (whole.T @ U))
        if after is None or beside > 1e-6:  # what is learned meanwhile belongs to a later step
            break
        found.append(after)
    return tuple(found)


def relevant_directions(target: Target) -> int:
    """Count the directions that a target depends on, which is the rank of its `leaps`."""
    if target.separable is not None:
        return len(target.separable[1])
    if not target.modes.any():
        return 0
    # A target depends on the span of its gradient: count its dimensions.
    table, coefficients = polynomial(target)
    degree = table.lower.sum(axis=1) + 1
    rows = np.sqrt(table.root / degree)[:, None] * table.slopes(coefficients[:, None])[:, :, 0].T
    return int((np.linalg.svd(rows, compute_uv=False) > TOLERANCE * varying_norm(target)).sum())
