r"""Saddles of the flow at leading order: where they are and how they are left.

Near a critical subspace U, with a basis V of its complement, write ``P = [p (U + V theta), V L]``
with p large. The tilt theta and the unlearned odds ``delta = L L^T`` obey, to leading order,

.. math:: \theta' = K \theta, \qquad L' = H_s(\delta) L, \qquad
          H_s = \nabla_\delta \langle A, \delta^{\otimes s} A \rangle,

A being the leading component at U and s its exponent. H_s is homogeneous of degree s - 1: the
equation for L knows no d, and its solution from ``d delta(0)`` takes a time of order one, which
is the time at the saddle over d^(s - 1). For s = 1 it is linear. Tilts die out, unless U is a
saddle already among the subspaces of its rank; then they grow as the directions of exponent 1 do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..targets.averaging import gradient, loss
from ..targets.ladder import TOLERANCE, complete, leading_component, rotate, tilt_growth
from ..targets.target import Target
from .congruence import LARGEST, Stepper, graded

__all__ = ["SMALL", "CriticalPoint"]

Array = NDArray[np.float64]

SMALL = 1e-3
"""Squared size to which what grows linearly is followed; what is this close to 1 is learned."""
NEAR = 1e-3
"""Tangent of the angle within which a subspace counts as the critical one."""
MAX_STEPS = 2000
_NODES = 48


@dataclass(eq=False)
class CriticalPoint:
    """A critical subspace and the leading parts of the flow around it.

    Shapes: learned (rank, k); normal (rank, m); component (features, m, ..., m); turning (m k,
    m k).
    """

    learned: Array
    normal: Array
    loss: float
    exponent: int | None
    component: Array
    isolated: bool
    limit: float
    turning: Array
    # Growth rates and orthonormal modes (columns) of what grows linearly: of L, and of tilts.
    _growth: tuple[Array, Array]
    _tilting: tuple[Array, Array]
    # The same of the learned part, which grows without end.
    _learning: tuple[Array, Array]

    @classmethod
    def near(cls, target: Target, subspace: Array) -> CriticalPoint:
        """Analyse the critical subspace next to one that is nearly critical."""
        learned = _critical(target, subspace)
        k = learned.shape[1]
        frame = complete(learned)
        turning = tilt_growth(target, learned)
        rates, modes = np.linalg.eigh(turning)
        scale = float(np.sum(target.coefficients**2 * target.modes.sum(axis=1)))
        neutral = 1e-7 * scale
        grows = rates > neutral
        growth = np.zeros(0), np.zeros((target.rank - k, 0))
        exponent, component = leading_component(rotate(target.tensors, frame), k) or (None, None)
        if component is None:
            component = np.zeros((0, target.rank - k))
        else:
            flat = component.reshape(len(component), -1)
            if len(flat) > flat.shape[1]:  # fewer features with the same Gram matrix
                flat = np.linalg.qr(flat)[1]
            component = flat.reshape(-1, *component.shape[1:])
        if exponent == 1:
            values, vectors = np.linalg.eigh(component.T @ component)
            kept = values > TOLERANCE * values[-1]
            growth = values[kept], vectors[:, kept]
        # Where the growth is slow against the target's other parts, these take over earlier.
        fastest = max(growth[0].max(initial=0.0), rates.max(initial=0.0))
        push = learned.T @ gradient(target, learned @ learned.T) @ learned
        learning_rates, learning_modes = np.linalg.eigh(push)
        return cls(
            learned,
            frame[:, k:],
            float(loss(target, learned @ learned.T)),
            exponent,
            component,
            bool((np.abs(rates) > neutral).all()),
            SMALL * min(1.0, 4 * fastest / scale) if fastest > 0 else SMALL,
            turning,
            growth,
            (rates[grows], modes[:, grows]),
            (learning_rates, learning_modes),
        )

    def tilt(self, subspace: Array) -> Array:
        """Theta of a subspace ``U + V theta``, flattened; inf for one of another rank."""
        far: Array = np.full(1, np.inf)
        if subspace.shape[1] != self.learned.shape[1]:
            return far
        onto, off = self.learned.T @ subspace, self.normal.T @ subspace
        # Directions orthogonal to U make the first matrix singular: their tilt is infinite.
        if abs(np.linalg.det(onto)) < 0.1:
            return far
        return np.asarray(np.linalg.solve(onto.T, off.T), dtype=np.float64).T.ravel()

    def contains(self, tilt: Array) -> bool:
        """Tell whether a tilt is that of U, but for a small one of the kind that grows."""
        if np.isinf(tilt).any():
            return False
        growing = self._tilting[1].T @ tilt
        rest = np.abs(tilt - self._tilting[1] @ growing).max(initial=0.0)
        return bool(rest < NEAR and np.sum(growing**2) < 4 * self.limit)

    def turns(self, target: Target, tilt: Array) -> bool:
        """Tell whether a subspace of tilt theta, flattened, turns about as ``theta' = K theta``."""
        theta = tilt.reshape(self.normal.shape[1], -1)
        columns = self.learned + self.normal @ theta
        frame = np.linalg.qr(columns)[0]
        pushed = gradient(target, frame @ frame.T) @ columns
        turned = self.normal.T @ pushed - theta @ (self.learned.T @ pushed)
        linear = self.turning @ tilt
        return bool(np.linalg.norm(turned.ravel() - linear) < 0.5 * np.linalg.norm(linear))

    def split(self, factor: Array) -> tuple[Array, Array, Array]:
        """Read S, (k, k), theta, (m, k), and L, (m, c - k), off a factor P of shape (rank, c).

        ``P P^T = Q Q^T`` with ``Q = [(U + V theta) S, V L]``; ``L L^T`` is the Schur complement of
        ``P P^T`` with respect to U.
        """
        k = self.learned.shape[1]
        turn, size = np.linalg.qr((self.learned.T @ factor).T, mode="complete")
        rest = self.normal.T @ factor @ turn
        return size[:k].T, np.linalg.solve(size[:k], rest[:, :k].T).T, rest[:, k:]

    def joined(self, size: Array, tilt: Array, unlearned: Array) -> Array:
        """Put Q together again, shape (n, rank, c), from parts of shape (n, ...)."""
        return np.concatenate(
            [(self.learned + self.normal @ tilt) @ size, self.normal @ unlearned], axis=2
        )

    def learn(self, size: Array, time: Array) -> Array:
        """Grow S, shape (n, k, k), for the times, shape (n,), up to the largest odds."""
        rate, modes = self._learning
        # Beyond, products of large and small numbers would lose the small ones.
        growth = np.exp(np.minimum(np.multiply.outer(time, rate), 2 * np.log(LARGEST)))
        grown = np.einsum("ip,np,jp,njk->nik", modes, growth, modes, size)
        return _scaled(grown, lambda lengths: np.minimum(lengths, LARGEST)) if len(rate) else grown

    def holds(self, tilt: Array, unlearned: Array) -> bool:
        """Tell whether theta, (m, k), and L, (m, c - k), follow the leading parts for a while."""
        if self.exponent is None or not unlearned.shape[1]:
            return True
        size = self._linear_amplitudes(tilt[None], unlearned[None])[1]
        if np.exp(size).sum() > self.limit / 3:
            return False
        return self.exponent == 1 or bool(np.sum(unlearned**2) <= self._reach() / 3)

    def escape(self, tilt: Array, unlearned: Array) -> tuple[Array, Array]:
        """Follow the leading parts until the overlaps stop being small.

        Shapes: tilt (n, m, k); unlearned (n, m, c - k); returns (n,).
        """
        time, grown = self._escape_linear(tilt, unlearned)
        slow = np.flatnonzero(~np.isfinite(time))
        if len(slow) and self.exponent is not None and self.exponent > 1 and grown.shape[2]:
            time[slow], grown[slow] = self._escape_homogeneous(unlearned[slow])
        return time, grown

    def stay(
        self, size: Array, tilt: Array, unlearned: Array, time: float, end: Array
    ) -> tuple[Array, Array]:
        """Return times of a run's stay, shape (n,), and its Q then, dense where it changes.

        `size`, `tilt` and `unlearned` are the parts at the start, `end` is L at the end. Where the
        leading component is followed L is taken to grow as one direction would.
        """
        fastest = max(np.abs(self._learning[0]).max(initial=0.0), self._growth[0].max(initial=0.0))
        spread = np.log1p(10.0 * time * fastest)
        at = np.linspace(0.0, 1.0, _NODES)
        at = np.expm1(spread * at) / np.expm1(spread) if spread > 1e-6 else at
        times = time * at
        parts = [np.repeat(part[None], _NODES, axis=0) for part in (size, tilt, unlearned)]
        tilts, grown = self._grow(parts[1], parts[2], times)
        if self.exponent is not None and self.exponent > 1 and unlearned.size:
            s = self.exponent
            ratio = float(np.linalg.norm(unlearned)) / max(float(np.linalg.norm(end)), 1e-300)
            left = 1.0 - at[:-1] * (1.0 - min(ratio, 1.0) ** (2 * s - 2))
            grown[:-1] = parts[2][:-1] * (left ** (-0.5 / (s - 1)))[:, None, None]
        grown[-1] = end
        return times, self.joined(self.learn(parts[0], times), tilts, grown)

    def _linear_amplitudes(self, tilt: Array, unlearned: Array) -> tuple[Array, Array]:
        """Rates, shape (p,), and logarithms of the squared amplitudes, (n, p), of what grows."""
        modes = np.einsum("mp,nmc->npc", self._growth[1], unlearned)
        tilts = tilt.reshape(len(tilt), -1) @ self._tilting[1]
        squares = np.column_stack([np.sum(modes**2, axis=2), tilts**2])
        with np.errstate(divide="ignore"):
            return 2 * np.concatenate([self._growth[0], self._tilting[0]]), np.log(squares)

    def _escape_linear(self, tilt: Array, unlearned: Array) -> tuple[Array, Array]:
        """Grow what grows linearly until its squares sum to the limit, at once if they do so."""
        rates, start = self._linear_amplitudes(tilt, unlearned)
        moves = np.isfinite(start).any(axis=1)
        time = np.full(len(tilt), np.inf)
        # Newton's method for a convex increasing function, started where it is positive.
        t = np.min((np.log(self.limit) - start[moves]) / rates, axis=1, initial=np.inf)
        for _ in range(60):
            terms = start[moves] + rates * t[:, None]
            total = np.logaddexp.reduce(terms, axis=1)
            slope = np.exp(terms - total[:, None]) @ rates
            t = t - (total - np.log(self.limit)) / slope
        time[moves] = np.maximum(t, 0.0)
        return time, self._grow(tilt, unlearned, np.where(moves, time, 0.0))[1]

    def _grow(self, tilt: Array, unlearned: Array, time: Array) -> tuple[Array, Array]:
        """Theta and L after the times, shape (n,), by what grows linearly alone."""
        growth = time[:, None]
        rate, modes = self._growth
        unlearned = unlearned + np.einsum(
            "mp,np,qp,nqc->nmc", modes, np.expm1(growth * rate), modes, unlearned
        )
        rate, modes = self._tilting
        tilts = (tilt.reshape(len(tilt), -1) @ modes) * np.exp(growth * rate)
        return (tilts @ modes.T).reshape(tilt.shape), unlearned

    def _reach(self) -> float:
        """Overlap up to which the leading component is followed for s >= 2.

        What is left of the escape then takes some ten units of the orbit's own time.
        """
        s = self.component.ndim - 1
        return float((15 * s * (s - 1)) ** (-1 / (s - 1)))

    def _escape_homogeneous(self, unlearned: Array) -> tuple[Array, Array]:
        """Follow the limit flow until the overlaps sum to the reach, at once if they do so.

        Half the logarithm of that sum is the clock: the blow-up becomes a smooth problem, and the
        time is an integral along it.
        """
        s = self.component.ndim - 1
        flat = np.moveaxis(self.component, 0, -1).reshape(1, self.component.shape[1], -1)

        def flow(L: Array) -> tuple[Array, Array]:
            part = np.broadcast_to(flat, (len(L), *flat.shape[1:]))
            for _ in range(s - 1):  # contract the first index and put its image last
                part = (L.swapaxes(1, 2) @ part).swapaxes(1, 2).reshape(len(L), L.shape[1], -1)
            H = s * part @ part.swapaxes(1, 2)
            rate = np.sum(L**2, axis=(1, 2)) / np.sum(L * (H @ L), axis=(1, 2))
            return H * rate[:, None, None], rate

        # At finite d the overlaps are closer to the limit flow than their odds are.
        grown = _scaled(unlearned, lambda size: size / np.sqrt(1 + size**2))
        size = np.sum(grown**2, axis=(1, 2))
        remaining = np.log(np.maximum(self._reach(), size) / size) / 2
        time = np.zeros(len(unlearned))
        index = np.arange(len(unlearned))
        stepper = Stepper(flow, grown)
        for _ in range(MAX_STEPS):
            taken, elapsed = stepper.advance(remaining)
            remaining = remaining - taken
            time[index] += elapsed
            grown[index] = stepper.factor
            going = remaining > 1e-12
            if not going.all():
                stepper.keep(going)
                index, remaining = index[going], remaining[going]
            if not len(index):
                break
        time[index] = np.nan
        return time, _scaled(grown, lambda size: size / np.sqrt(1 - size**2))


def _scaled(factor: Array, function: Callable[[Array], Array]) -> Array:
    """Apply a function to the singular values of each factor, shape (n, m, c)."""
    turned, sizes, _ = graded(factor)
    return turned * (function(sizes) / sizes)[:, None, :]


def _critical(target: Target, subspace: Array) -> Array:
    """Critical subspace next to a given one, by Newton's method: it need not attract."""
    k = subspace.shape[1]
    if k in (0, target.rank):
        return subspace
    for _ in range(10):
        normal = complete(subspace)[:, k:]
        push = normal.T @ gradient(target, subspace @ subspace.T) @ subspace
        if np.abs(push).max() < 1e-13 * np.abs(target.coefficients).max() ** 2:
            break
        # Along a family of critical subspaces K is singular: the shortest way is taken.
        tilt = np.linalg.lstsq(-tilt_growth(target, subspace), push.ravel(), rcond=1e-6)[0]
        size = np.abs(tilt).max()
        tilt *= min(1.0, 0.1 / size) if size > 0 else 1.0
        subspace = np.linalg.qr(subspace + normal @ tilt.reshape(-1, k))[0]
    return subspace
