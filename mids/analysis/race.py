r"""The race: how often a run breaks the order of the ladder.

The ladder of a target is the order for :math:`d \to \infty`. At finite d a direction of a higher
exponent s' that starts large may overtake one of exponent s: with a probability that falls only as
:math:`d^{-(q/2) [(s'-1)/(s-1) - 1]}`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from .. import validation
from ..flows.initial import draw_runs
from ..targets.target import Target, as_target
from .coupled import Race
from .prediction import BETWEEN, SLOW, expected_steps


def race(
    target: Target | str,
    *,
    dim: float | Sequence[float] | ArrayLike,
    student_rank: int | None = None,
    runs: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Return the probability that runs break the order of a target's ladder.

    Runs are drawn and predicted one by one, see `theory`; nothing is simulated.

    Parameters
    ----------
    target : Target or str
    dim : float or sequence of float
        Ambient dimensions.
    student_rank : int, optional
        That of the target if not given.
    runs : int
        Runs drawn at each dimension.
    seed : int
        Seed of the draws; the runs are those that `mids.simulate` draws with it.

    Returns
    -------
    xarray.Dataset
        Over ``dim``: ``broken`` (probability that some direction is learned before one that comes
        earlier in the ladder), ``error`` (its standard error; at least 1 / runs), ``unclear`` (that
        it is not known for none seen to be so, a direction belonging to no single step of a ladder
        whose subspaces turn, or a time being too slow to be followed: add it for an upper bound)
        and over ``dim`` and ``saddle`` ``other``, the probability that
        what is learned at the saddle belongs to another step of the ladder than in its order.

    Raises
    ------
    InputError
        If the target cannot be read or a number is out of range.

    Examples
    --------
    >>> found = race("h3(z1) + h4(z2)", dim=[1e2, 1e4], runs=200)
    >>> bool(found.broken[0] > found.broken[1])
    True
    """
    given = as_target(target)
    q = given.rank if student_rank is None else student_rank
    q = validation.student_rank(q)
    runs = validation.integer(runs, "runs", at_least=1, at_most=10**8)
    dims = validation.dims(dim, given.rank, q)
    model = Race(given)
    expected = expected_steps(model.ladder, given.rank)
    broken, unclear, other = [], [], []
    for d in dims.tolist():
        if len(model.ladder) == 1:  # no order to break
            broken.append(0.0)
            unclear.append(0.0)
            other.append(np.zeros(given.rank))
            continue
        M = draw_runs(given.rank, q, int(d), range(runs), seed)
        found = model.predict(M @ M.swapaxes(1, 2))
        differs = (found.order != expected) & ~np.isnan(found.order)
        unknown = np.isnan(found.order) & np.isin(found.reason, (SLOW, BETWEEN))
        broken.append(differs.any(axis=1).mean())
        unclear.append((unknown.any(axis=1) & ~differs.any(axis=1)).mean())
        other.append(differs.mean(axis=0))
    p, n = np.array(broken), runs
    error = np.maximum(np.sqrt(p * (1 - p) / n), 1 / n)
    out = xr.Dataset(
        {
            "broken": ("dim", p, {"long_name": "probability that the order is broken"}),
            "error": ("dim", error, {"long_name": "standard error of that probability"}),
            "unclear": ("dim", unclear, {"long_name": "probability that the order is not known"}),
            "other": (
                ("dim", "saddle"),
                np.array(other),
                {"long_name": "probability that another step's direction is learned there"},
            ),
        },
        {"dim": dims, "saddle": np.arange(given.rank)},
        {"ladder": repr(model.ladder)},
    )
    for name in ("broken", "error", "unclear", "other"):
        out[name].attrs["units"] = "1"
    return out
