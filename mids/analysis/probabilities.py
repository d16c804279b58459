r"""How often runs are trapped, and how often they break the order of the ladder.

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
from ..errors import DatasetError
from ..flows.initial import draw_runs
from ..schema import STATUS
from ..targets.target import Target, as_target
from ..validation import FloatArray as Array
from .coupled import Race
from .kernels import applied, labelled
from .prediction import BETWEEN, SLOW, expected_steps


def traps(ds: xr.Dataset, *, confidence: float = 0.95) -> xr.Dataset:
    """Count how runs ended, and estimate the probability of being trapped.

    A run is trapped (status 2) if it sits at a local minimum of the loss that is not global, as
    the planted flow can, or at a saddle that it could leave only by a tilt below rounding, as the
    flow with the link learned can if the student has a lower rank than the target. Runs that are
    censored or failed have not been decided and do not enter the probability; how many there are
    is counted.

    Parameters
    ----------
    ds : xarray.Dataset
        With the variable ``status``.
    confidence : float
        Confidence level of the interval (Clopper-Pearson: it covers at least that often).

    Returns
    -------
    xarray.Dataset
        Without the dim ``run``: the counts ``converged``, ``censored``, ``trapped`` and ``failed``,
        and ``probability`` of being trapped with ``low`` and ``high``, NaN, 0 and 1 where no run is
        decided. Lazy where `ds` is.

    Raises
    ------
    DatasetError
        If there is no status over runs.
    InputError
        If the confidence level is not between 0 and 1.

    Examples
    --------
    >>> import mids
    >>> found = traps(mids.simulate("h3(z1)", dim=1e4, runs=40, flow="planted"))
    >>> bool(found.low < 0.5 < found.high), found.censored.values.item()
    (True, 0)
    """
    validation.dataset(ds)
    confidence = validation.number(confidence, "confidence", above=0.0, at_most=1.0)
    if "status" not in ds or "run" not in ds["status"].dims:
        raise DatasetError(
            "traps needs the variable 'status' with the dimension 'run', as mids.simulate writes "
            "it; select runs with a list, such as ds.isel(run=[3]), to keep the dimension"
        )
    status = ds["status"]
    out = xr.Dataset({name: (status == k).sum("run") for k, name in enumerate(STATUS)})
    bounds = applied(
        _interval,
        out["trapped"],
        out["converged"],
        core=((), ()),
        out=(["bound"],),
        sizes={"bound": 3},
        confidence=confidence,
    )
    names = {name: f"{name} runs" for name in STATUS} | {
        "probability": "share of trapped among decided runs",
        "low": f"lower bound at confidence {confidence:g}",
        "high": f"upper bound at confidence {confidence:g}",
    }
    for k, name in enumerate(("probability", "low", "high")):
        out[name] = bounds.isel(bound=k)
    return labelled(out, names)


def _interval(trapped: Array, converged: Array, *, confidence: float) -> Array:
    """Share and its bounds along a new last axis."""
    from scipy.special import betaincinv

    trapped, converged = (np.asarray(n, dtype=np.float64) for n in (trapped, converged))
    tail = 0.5 * (1 - confidence)
    decided = trapped + converged
    share = np.divide(trapped, decided, out=np.full(decided.shape, np.nan), where=decided > 0)
    # Quantiles of beta distributions; the ends are 0 and 1 where one of the counts is 0.
    low = np.where(trapped > 0, betaincinv(np.maximum(trapped, 1), converged + 1, tail), 0.0)
    high = np.where(converged > 0, betaincinv(trapped + 1, np.maximum(converged, 1), 1 - tail), 1.0)
    return np.stack([share, low, high], axis=-1)


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
    out = xr.Dataset(
        {
            "broken": ("dim", p),
            # None seen among n does not mean never.
            "error": ("dim", np.maximum(np.sqrt(p * (1 - p) / n), 1 / n)),
            "unclear": ("dim", unclear),
            "other": (("dim", "saddle"), np.array(other)),
        },
        {"dim": dims, "saddle": np.arange(given.rank)},
        {"ladder": repr(model.ladder)},
    )
    names = {
        "broken": "probability that the order is broken",
        "error": "standard error of that probability",
        "unclear": "probability that the order is not known",
        "other": "probability that another step's direction is learned there",
    }
    return labelled(out, names)
