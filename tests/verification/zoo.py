"""The targets, students and flows of the verification."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mids import Target, flows
from mids.flows.base import Flow
from mids.targets.basis import multi_indices

__all__ = ["Case", "races", "zoo"]


@dataclass(frozen=True)
class Case:
    """One line of the verification.

    Attributes
    ----------
    name : str
    target : Target
    student_rank : int, optional
        That of the target if not given.
    flow : Flow
    """

    name: str
    target: Target
    student_rank: int | None = None
    flow: Flow = field(default_factory=flows.TwoTimescale)

    @property
    def converges(self) -> bool:
        """Whether the paper's global convergence applies: the student has enough directions."""
        return self.student_rank is None or self.student_rank >= self.target.rank


def zoo() -> Iterator[Case]:
    """Yield the cases, the plain ones first."""
    texts = {
        **{f"h{s}": f"h{s}(z1)" for s in (1, 2, 3, 4, 5)},
        **{f"staircase {r}": f"staircase({r})" for r in (2, 3, 4, 5)},
        "parity 2": "parity(2)",
        "parity 3": "parity(3)",
        "ladder 1-2-3": "h1(z1) + h1(z1)*h2(z2) + h2(z2)*h3(z3)",
        "ladder 3-2-1": "h3(z1) + h1(z1)*h2(z2) + h2(z2)*h1(z3)",
        "ladder 1-3": "h1(z1) + h1(z1)*h3(z2)",
        "ladder 2-1": "h2(z1) + h2(z1)*h1(z2)",
        "ladder 2-2": "h2(z1) + h1(z1)*h2(z2)",
        "separable 1+2+3": "h1(z1) + h2(z2) + h3(z3)",
        "equal exponents": "h2(z1) + 0.8*h2(z2) + 0.6*h2(z3)",
        "opposite signs": "0.6*h2(z1) - 0.8*h2(z2)",
        "coupled cubes": "h3(z1) + 0.5*h2(z1)*h1(z2) + 0.7*h3(z2)",
        "drift": "h1(z1) + h2(z1) + 1/2*h1(z1)*h1(z2)",
    }
    for name, text in texts.items():
        yield Case(name, Target.parse(text).normalize())
    yield Case("dense, rank 3, degree 4", dense(3, 4, 0))
    for name in ("ladder 1-2-3", "ladder 2-2", "parity 3", "drift"):
        target = Target.parse(texts[name]).normalize()
        yield Case(f"{name}, rotated", target.rotate(rotation(target.rank)))
    ladder = Target.parse(texts["ladder 1-2-3"]).normalize()
    yield Case("ladder 1-2-3, q = 1", ladder, 1)
    yield Case("ladder 1-2-3, q = 2", ladder, 2)
    yield Case("ladder 1-2-3, q = 5", ladder, 5)
    yield Case("parity 3, q = 2", Target.parse("parity(3)").normalize(), 2)
    yield Case("parity 3, q = 5", Target.parse("parity(3)").normalize(), 5)
    ridge = flows.TwoTimescale(ridge=0.5, kernel=flows.HermiteKernel(polynomial=2))
    yield Case("ladder 1-3, ridge", Target.parse(texts["ladder 1-3"]).normalize(), flow=ridge)
    yield Case("drift, ridge", Target.parse(texts["drift"]).normalize(), flow=ridge)


def races() -> Iterator[Case]:
    """Yield cases in which a direction of a higher exponent may win, or subspaces are unstable."""
    two = {
        **{f"{c} h2 + h3": f"{c}*h2(z1) + h3(z2)" for c in (0.03, 0.1, 0.3, 1, 3)},
        "h3 + h4": "h3(z1) + h4(z2)",
        "h4 + h5": "h4(z1) + h5(z2)",
        **{f"h2 + {c} h1h2": f"h2(z1) + {c}*h1(z1)*h2(z2)" for c in (0.03, 0.3, 1, 3)},
        **{f"h2 + {c} h2h1": f"h2(z1) + {c}*h2(z1)*h1(z2)" for c in (0.03, 0.3, 3)},
        **{f"drift {c}": f"h1(z1) + h2(z1) + {c}*h1(z1)*h1(z2)" for c in (0.03, 0.1, 0.3, 1, 3)},
        **{f"tilts {c}": f"h1(z1) + h2(z1) + {c}*h2(z2)" for c in (0.3, 1.4, 1.6, 2, 3)},
        "weak": "0.03*h2(z1) + h3(z1) + 0.2*h2(z1)*h1(z2)",
        "0.1 weak": "0.1*h2(z1) + h3(z1) + 0.2*h2(z1)*h1(z2)",
        "mixed": "(z1+z2)^2 + 0.3*z1*z2^2",
        "0.1 h1h1 + h2h2": "0.1*h1(z1)*h1(z2) + h2(z1)*h2(z2)",
        "0.001 h1h1 + h2h2": "0.001*h1(z1)*h1(z2) + h2(z1)*h2(z2)",
        "0.035 h2": "h2(z1) + 0.035*h2(z2)",
        "three h2": "0.3671*h2(z1) + 0.7135*h1(z1)*h1(z2) + 0.5967*h2(z2)",
        "three races": "h2(z1) + h3(z2) + h4(z3)",
    }
    targets = {name: Target.parse(text).normalize() for name, text in two.items()}
    for name, target in targets.items():
        yield Case(name, target)
    for name in ("1 h2 + h3", "h2 + 1 h1h2", "tilts 1.6", "weak", "mixed", "0.035 h2"):
        yield Case(f"{name}, rotated", targets[name].rotate(rotation(2)))
    for name in ("1 h2 + h3", "h4 + h5", "tilts 1.6", "weak", "mixed"):
        yield Case(f"{name}, q = 1", targets[name], 1)
        yield Case(f"{name}, q = 4", targets[name], 4)
    ridge = flows.TwoTimescale(ridge=0.5, kernel=flows.HermiteKernel(polynomial=2))
    for name in ("1 h2 + h3", "tilts 3", "weak", "mixed"):
        yield Case(f"{name}, ridge", targets[name], flow=ridge)


def dense(rank: int, degree: int, seed: int) -> Target:
    """Target with a random coefficient on every mode."""
    rng = np.random.default_rng(seed)
    modes = map(tuple, multi_indices(rank, degree).tolist())
    return Target({beta: float(rng.standard_normal()) for beta in modes}).normalize()


def rotation(rank: int) -> np.ndarray:
    """Return a fixed rotation without zeros."""
    return np.linalg.qr(np.random.default_rng(5).standard_normal((rank, rank)))[0]
