"""Default time grids: logarithmic, and long enough for the last escape."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import InputError
from ..targets.ladder import leaps
from ..targets.target import Target
from ..validation import FloatArray
from .initial import least_overlap

POINTS_PER_DECADE = 16
SHORT = 400  # times of growth in a grid that shows each of them
LATE = 1e-3  # fraction of runs that a default grid may leave on their last plateau


def chi_squared_quantile(probability: float, freedom: int) -> float:
    """Quantile of the chi-squared distribution, without the second that scipy.stats takes."""
    from scipy.special import gammaincinv

    return 2.0 * float(gammaincinv(freedom / 2, probability))


def logarithmic(start: float, stop: float) -> FloatArray:
    """Return 0, then 16 points per decade at the powers ``10^(k/16)``.

    Parameters
    ----------
    start, stop : float
        The grid covers them; 0 < start < stop.

    Returns
    -------
    (n,) float array

    Raises
    ------
    InputError
        If they are not in this order, as for a target of an extreme norm.

    Examples
    --------
    >>> logarithmic(0.01, 100.0)[[0, 1, 33, 65]].round(4).tolist()
    [0.0, 0.01, 1.0, 100.0]
    """
    if not 0 < start < math.inf:
        raise InputError(
            f"the default grid of this target would start at {start:g}, which is no time after 0; "
            "scale the target with .normalize(), or pass time="
        )
    if not start < stop < math.inf:
        raise InputError(
            f"the default grid would end at {stop:g}: the last escape, after a time of order "
            "overlap^(1 - exponent), is beyond the largest number (1.8e308); take a smaller dim or "
            "larger initial overlaps, scale the target up if its norm is small, or pass time="
        )
    first = math.floor(POINTS_PER_DECADE * math.log10(start))
    last = math.ceil(POINTS_PER_DECADE * math.log10(stop))
    points = 10.0 ** (np.arange(first, last + 1) / POINTS_PER_DECADE)
    return np.concatenate([[0.0], points])


def fast_link_duration(delta: float, exponent: int, strength: float) -> float:
    r"""Time in which ``lambda' = 2 s c^2 lambda^s (1 - lambda)`` leaves ``lambda = delta``.

    Parameters
    ----------
    delta : float
        Overlap at the start, positive.
    exponent : int
        s >= 1.
    strength : float
        ``c^2``.

    Returns
    -------
    float
        ``delta^(1 - s) / (2 s (s - 1) c^2)``, or ``log(1 / delta) / (2 c^2)`` for s = 1.

    Examples
    --------
    >>> fast_link_duration(1e-4, 2, 1.0)
    2500.0
    """
    if exponent == 1:
        return max(math.log(1 / delta), 0.0) / (2 * strength)
    return delta ** (1 - exponent) / (2 * exponent * (exponent - 1) * strength)


def beyond_escapes(
    target: Target,
    dim: int,
    student_rank: int,
    initial: FloatArray | None = None,
    *,
    duration: Callable[[float, int, float], float] = fast_link_duration,
    freedom: int | None = None,
    late: float = LATE,
    finer: int = 1,
) -> FloatArray:
    r"""Return a logarithmic time grid that covers the last escape.

    The saddle of exponent s and strength :math:`c^2` (for all but the first direction of a leap,
    that of its weakest) after j learned directions is left after ``duration(delta, s, c^2)``, where
    :math:`\delta \sim \chi^2_{q-j} / d` (the law of the overlaps' Schur complement); where it
    is reached by growing rotations (`Leap.turning`) these come first. The grid ends
    at twice the sum of these times at the quantiles of :math:`\delta` that a fraction `late` of
    the runs fall below.

    Parameters
    ----------
    target : Target
        The target whose correlation the flow climbs (`Flow.effective_target`).
    dim : int
        Ambient dimension d.
    student_rank : int
        Columns q of the student's frame.
    initial : ndarray, shape (..., rank, student_rank), optional
        Given initial conditions. Their smallest positive squared singular value then stands for
        :math:`\delta`.
    duration : callable, optional
        Time at a saddle; that of the fast link if not given.
    freedom : int, optional
        Degrees of freedom of every :math:`\delta`, instead of q - j.
    late : float, optional
        Fraction of runs that may be left on their last plateau; 0.001 if not given.
    finer : int, optional
        How many times as many points a decade there are from the time of the fastest growth to the
        escape of 0.95 of the runs.

    Returns
    -------
    ndarray
        The grid of `logarithmic`; where it ends within 400 times of the fastest growth, with steps
        of at most that time.

    Examples
    --------
    >>> from mids.targets import hermite
    >>> grid = beyond_escapes(hermite(1), 10**6, 1)
    >>> len(grid), grid[:2], bool(grid[-1] > np.log(10**6))
    (121, array([0.  , 0.01]), True)
    """
    steps = leaps(target).steps
    start = 0.01 / target.norm**2

    def last_escape(late: float) -> float:
        """Time by which all but a fraction of the runs have left their last saddle."""
        # Each direction may be the late one, so their probabilities add up.
        quantile = late / min(target.rank, student_rank)
        total = 0.0
        for step in steps:
            for learned in range(step.rank_before, min(step.rank_after, student_rank)):
                delta = (
                    chi_squared_quantile(quantile, freedom or student_rank - learned) / dim
                    if initial is None
                    else least_overlap(initial)
                )
                try:
                    # The directions of one leap may be learned one after the other.
                    first = learned == step.rank_before
                    strength = step.strength if first else step.weakest
                    total += duration(delta, step.exponent, strength)
                except OverflowError:
                    total = math.inf
                if first and step.turning:  # before the plateau
                    total += fast_link_duration(delta, 1, 1 / step.turning)
        # Growth from the saddle to an overlap of order one takes a few units of the fastest rate.
        return 2 * max(total, start) + 10 / min(step.weakest for step in steps)

    grid = logarithmic(
        10.0 ** math.floor(math.log10(start)) if start > 0 else 0.0, last_escape(late)
    )
    growth = 1 / (2 * max(step.strength for step in steps))
    if finer > 1:  # the falls are short, and sixteen points a decade draw them as slanted lines
        per_decade = finer * POINTS_PER_DECADE
        ends = (per_decade * np.log10([growth, last_escape(0.05)])).round()
        grid = np.union1d(grid, 10.0 ** (np.arange(*ends) / per_decade))
    count = math.ceil(float(grid[-1]) / growth) if grid[-1] < SHORT * growth else 0
    if count > 1:  # sixteen points a decade show the last escapes of a short ladder as polygons
        wide = np.searchsorted(np.diff(grid), grid[-1] / count)
        even = np.linspace(grid[-1] / count, grid[-1], count)
        grid = np.concatenate([grid[: wide + 1], even[even > grid[wide] * (1 + 1e-9)]])
    return grid
