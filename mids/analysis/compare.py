"""Measured saddles beside predicted ones."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .. import validation
from ..errors import DatasetError
from ..flows import Flow
from ..schema import LEVELS, OF_ONE_RUN, STATUS, flags
from ..simulation.by_recipe import by_recipe
from ..simulation.recipe import Recipe, described, only
from ..validation import FloatArray as Array
from .kernels import labelled
from .plateaus import Scale
from .prediction import KNOWN, NEVER, REASONS, SLOW, START
from .saddles import saddles
from .theory import ONCE, has_theory, kind_of, need_one_kind, predictions

NEEDED = (
    *("loss", "crossing_time", "status", "gram0", "initial"),
    *("neuron_crossing_time", "nearest", "risk"),
)
MEASURED = ("loss", "escape_time", "censored", "trapped")

WHY = (
    *REASONS,
    "run_failed",
    "run_is_trapped",
    "run_is_cut_off",
    "run_starts_beyond",
    "run_does_not_stay",
    "theory_does_not_stay",
    "neither_stays",
    "no_such_saddle",
)
"""Meanings of ``reason``: those of `theory`, and what else leaves a ratio without a value."""


NAMES = {
    "loss": "measured loss on the plateau",
    "loss_theory": "predicted loss on the plateau",
    "escape_time": "measured escape time",
    "escape_time_theory": "predicted escape time",
    "ratio": "measured over predicted escape time",
    "ratio_expected": "ratio expected of the flow's step",
    "exponent": "information exponent relative to them",
    "censored": "whether the run is cut off on the plateau",
    "trapped": "whether the run is trapped on the plateau",
    "match": "whether the saddle is both measured and predicted",
    "reason": "why there is no ratio",
    "failed": "whether the run failed",
    "nearest": "direction that the neuron has found",
    "nearest_theory": "direction that it is predicted to find",
}


def compare(ds: xr.Dataset) -> xr.Dataset:
    """Compare the measured saddles of each run with the predicted ones.

    Saddles are matched by the number of directions learned; saddles that only one side knows are
    kept, with NaN on the other. One that the theory says is never left, as where a run is trapped,
    is where the run ends and counts as none.

    Parameters
    ----------
    ds : xarray.Dataset
        With what `saddles` and `theory` need.

    Returns
    -------
    xarray.Dataset
        Dims of the runs and ``saddle``, the number of directions learned there: ``loss``,
        ``loss_theory`` (at the times of `ds`, equally far between the beginning and the end
        of the plateau), ``escape_time``, ``escape_time_theory``, ``ratio`` (measured / predicted),
        ``ratio_expected`` (1, and more where the flow has a finite step, see `Flow.delay`),
        ``exponent`` (information exponent), ``censored`` (the run is cut off there), ``trapped``
        (it ends there for good), ``match`` (in both), ``reason`` (a flag: why there is no ratio);
        and ``failed`` (dims of the runs: it has no saddles). Attributes as of `theory`. Lazy where
        `ds` is. For neurons that do not act on each other (see `theory`) also over ``neuron``, with
        ``nearest`` (the direction found, -1 if none) and ``nearest_theory`` (NaN if none); for them
        and for the exit of other networks the one saddle is that of the start.

    Raises
    ------
    DatasetError
        If the dataset lacks what either side needs.

    Warns
    -----
    UserWarning
        If measured runs that are in memory disagree with the theory by what looks like a factor of
        the learning rate, of 2 or of d.

    Examples
    --------
    >>> import mids
    >>> ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=1e4, runs=20)
    >>> compare(ds).ratio.median("run").round(2).values.tolist()
    [[1.0, 1.0]]
    """
    validation.dataset(ds)
    need_one_kind(ds)
    out: xr.Dataset = by_recipe(only(ds, *NEEDED), _compared)
    # A code of 0 without a ratio is padding, which joining has filled in.
    absent = out["ratio"].isnull() & (out["reason"] == KNOWN)
    reason = out["reason"].where(~absent, np.int8(WHY.index("no_such_saddle")))
    out = out.assign(reason=(reason.dims, reason.data, out["reason"].attrs))
    # Only runs from outside can be in wrong units; lazy ratios would have to be computed to look.
    if out["ratio"].chunks is None and all(r.flow is None for r in described(ds, ("flow",))):
        doubt = _doubt(ds, out)
        if doubt:
            warnings.warn(doubt, stacklevel=2)
    return out


def _compared(ds: xr.Dataset, recipe: Recipe) -> xr.Dataset:
    """`compare` for the runs of one recipe."""
    found, predicted = (_once if kind_of(recipe) in ONCE else _saddles)(ds, recipe)
    left = np.isfinite(predicted["escape_time"])
    parts = {name: found[name] for name in (*MEASURED, "failed")}
    for name in ("loss", "escape_time"):
        parts[f"{name}_theory"] = predicted[name].where(left)
    parts["exponent"] = predicted["exponent"].where(left)
    # What starts beyond the escape leaves at time 0 in theory, which gives no ratio.
    expected = parts["escape_time_theory"]
    parts["ratio"] = parts["escape_time"] / expected.where(expected > 0)
    parts["ratio_expected"] = _expected(ds, recipe.flow, predicted)
    parts["match"] = found["visited"] & predicted["visited"] & left
    reason = _reason(found, predicted).where(parts["ratio"].isnull(), KNOWN)
    parts["reason"] = reason.astype(np.int8)
    if "nearest" in found:
        parts |= {"nearest": found["nearest"], "nearest_theory": predicted["learned"]}
    out = labelled(xr.Dataset({name: parts[name] for name in NAMES if name in parts}), NAMES)
    out["reason"].attrs = {"long_name": NAMES["reason"], **flags(*WHY)}
    return out.transpose(..., "saddle", missing_dims="ignore").assign_attrs(predicted.attrs)


def _saddles(ds: xr.Dataset, recipe: Recipe) -> tuple[xr.Dataset, xr.Dataset]:
    """Measured and predicted saddles."""
    found, crossing = saddles(ds), ds.get("crossing_time")
    if crossing is not None:
        crossing = crossing.sel(level=list(LEVELS)).drop_vars(
            ["level", "direction"], errors="ignore"
        )
    predicted = predictions(ds, recipe, crossing=crossing)
    if crossing is None or "visited" not in found:
        raise DatasetError(
            "compare matches saddles by the directions learned, which need the variable "
            "'crossing_time', as mids.simulate and mids.from_trajectories(correlation=...) write it"
        )
    # An overlap that is beyond 0.1 at time 0 has no plateau to leave.
    begun = crossing.isel(level=0, drop=True).rename(direction="saddle") == 0
    return found.assign(begun=begun.variable), predicted  # a stacked dim keeps its levels


def _once(ds: xr.Dataset, recipe: Recipe) -> tuple[xr.Dataset, xr.Dataset]:
    """Measured and predicted saddles of the start, by the time at which it is left."""
    # The theory predicts all neurons; the data may hold a selection of them.
    found, predicted = xr.align(ONCE[kind_of(recipe)][1](ds), predictions(ds, recipe), join="inner")
    time = found["escape_time"].expand_dims(saddle=predicted["saddle"], axis=-1)
    failed, expected = ds["status"] == STATUS.index("failed"), predicted["escape_time"]
    stays = time.isnull() & ~failed
    parts = {
        "loss": ds["loss"].isel(time=0, drop=True).broadcast_like(time),
        "escape_time": time,
        "visited": time.notnull(),
        "begun": time == 0.0,
        "censored": stays & np.isfinite(expected),
        "trapped": stays & ~np.isfinite(expected),
        "failed": failed,
    }
    return found.assign(parts), predicted


def _reason(found: xr.Dataset, predicted: xr.Dataset) -> xr.DataArray:
    """Code in `WHY` of what leaves a ratio without a value, the first that is true."""
    ours, theirs, begin = found["visited"], predicted["visited"], found["begun"]
    # From the weakest reason to the strongest: each one overrules those before it.
    reason = xr.full_like(ours, WHY.index("neither_stays"), dtype=np.int8)
    for name, here in (
        ("theory_does_not_stay", ours & ~theirs),
        ("run_does_not_stay", theirs & ~ours),
        ("run_starts_beyond", begin & ~ours),
        ("run_is_cut_off", found["censored"]),
    ):
        reason = reason.where(~here, WHY.index(name))
    reason = reason.where(~(theirs & predicted["reason"].isin([NEVER, SLOW])), predicted["reason"])
    for name, here in (
        ("run_is_trapped", found["trapped"]),
        (REASONS[START], predicted["reason"] == START),
        ("run_failed", found["failed"]),
    ):
        reason = reason.where(~here, WHY.index(name))
    return reason


def _expected(ds: xr.Dataset, flow: Flow | None, predicted: xr.Dataset) -> xr.DataArray:
    """Ratio that the finite step of a flow lets expect, from an overlap of 1/d to 1/2."""
    one = xr.ones_like(predicted["escape_time"])
    if flow is None or flow.delay(1.0) == 0.0 or "dim" not in ds.coords:
        return one
    # A correlation grows from d^(-1/2) to (1/2)^(1/2): so many e-folds.
    growth = 0.5 * np.log(0.5 * ds["dim"].drop_vars("dim", errors="ignore"))
    exponents = predicted["exponent"]
    # Delays add up: a saddle is reached as late as all those before were left.
    late = (growth * flow.delay(exponents)).where(exponents.notnull(), 0.0).cumsum("saddle")
    ratio: xr.DataArray = one + late / predicted["escape_time"]
    return ratio


def _doubt(ds: xr.Dataset, out: xr.Dataset) -> str:
    """Say what is probably wrong with measured runs whose ratios cannot be right."""
    ratio = out["ratio"].values[np.isfinite(out["ratio"].values)]
    ratio = ratio[ratio > 0]
    levels = (out["loss"] / out["loss_theory"]).isel(saddle=0).values
    levels = levels[np.isfinite(levels)]
    found = []
    if len(levels):
        level = float(np.median(levels))
        if 1.9 < level < 2.1:
            found.append(
                f"the losses are {level:.2f} times the predicted ones: they probably lack the "
                "factor 1/2; pass half=True to from_trajectories"
            )
        elif not 0.67 < level < 1.5:
            found.append(
                f"the loss on the first plateau is {level:.3g} times the predicted one: the target "
                "probably has another norm than the labels; scale it, as with Target.normalize()"
            )
    if len(ratio):
        middle = float(np.exp(np.median(np.log(ratio))))
        # Wrong units multiply all times alike; most other errors scatter the ratios.
        alike = float(np.abs(np.log(ratio / middle)).max()) < 0.2
        dims = np.ravel(ds["dim"].values).astype(float) if "dim" in ds.coords else np.zeros(0)
        factor = max(middle, 1 / middle)
        time = ds["time"].values
        says = f"the measured times are {middle:.3g} times the predicted ones"
        if factor > 3.0 and (time == np.round(time)).all():
            found.append(
                f"{says} and whole numbers: they are probably steps; pass learning_rate= to "
                f"from_trajectories (about {1 / middle:.1g} would agree)"
            )
        elif len(dims) == 1 and alike and 0.7 < factor / dims[0] < 1.4:
            found.append(
                f"{says}, about {'d' if middle > 1 else '1/d'}: the learning rate, or the loss, "
                "is probably scaled with d; take that factor into learning_rate="
            )
        elif alike and 1.8 < factor < 2.2:
            why = "has half the size" if middle > 1 else "is that of a loss without the factor 1/2"
            cure = f"multiply learning_rate= by {'1/2' if middle > 1 else '2'}"
            found.append(f"{says}: the gradient probably {why}; {cure}")
        elif factor > 5.0:
            found.append(
                f"{says}: the time is probably no learning rate times steps, or the second layer "
                "is not fast; check learning_rate= and the scale of the first layer"
            )
    return "; ".join(found)


def comparable(ds: xr.Dataset) -> bool:
    """Tell whether a dataset has what `compare` needs: crossing times, start and target."""
    return "crossing_time" in ds and has_theory(ds)


def measured(ds: xr.Dataset, *, scale: Scale | None = None, confidence: float = 0.95) -> xr.Dataset:
    """Measured saddles alone, for `summary`: by directions learned, or by level if unknown."""
    found = saddles(ds, scale=scale, confidence=confidence)
    kept = [*MEASURED, "failed", *({"n_unmatched"} & found.keys())]
    return found[kept]


def as_dimension(ds: xr.Dataset, name: str) -> xr.Dataset:
    """Return a dataset that has a dimension, of one entry where it had a single value."""
    if name in ds.dims:
        return ds
    along = ds[name].dims if name in ds.coords else ()
    if along:
        other = str(along[0])
        several = isinstance(ds.indexes.get(other), pd.MultiIndex)
        how = f"unstack({other!r})" if several else f"swap_dims({{{other!r}: {name!r}}})"
        raise DatasetError(
            f"{name!r} must be a dimension, but is a coordinate along {other!r}; use ds.{how}"
        )
    return ds.expand_dims(name)


def summary(comparison: xr.Dataset) -> pd.DataFrame:
    """One row per dimension and saddle, and label of other dims; medians over runs."""
    for name in ("dim", "run"):
        comparison = as_dimension(comparison, name)
    for name in OF_ONE_RUN & comparison.sizes.keys():  # each has an escape of its own, as a run
        bare = comparison.drop_vars(["run", name], errors="ignore")
        pooled = bare.stack(each=("run", name), create_index=False).rename(each="run")
        return summary(pooled).rename(columns={"runs": f"{name}s"})
    alone = "escape_time_theory" not in comparison
    if alone:
        unknown = xr.full_like(comparison["loss"], np.nan)
        comparison = comparison.assign(dict.fromkeys(_THEORY, unknown))
    inner = ("dim", "run", "saddle")
    along = [*(str(name) for name in comparison.dims if name not in inner), "dim", "saddle"]
    rows = []
    for at in np.ndindex(*(comparison.sizes[name] for name in along)):
        here = comparison.isel(dict(zip(along, at, strict=True)))
        row = _of_saddle(here)
        labels = {
            name: here[name].item() if name in here.coords else np.nan if name == "dim" else k
            for name, k in zip(along, at, strict=True)
        }
        rows += [labels | row] if row else []
    table = pd.DataFrame(rows)
    absent = [*_THEORY, "unmatched", "reason"] if alone else []
    return table.drop(columns=absent, errors="ignore")


def _of_saddle(here: xr.Dataset) -> dict[str, Any]:
    """Medians over the runs at one saddle; nothing where no run has it."""
    censored, trapped = here["censored"].values, here["trapped"].values
    visited = censored | np.isfinite(here["escape_time"].values)
    expected = np.isfinite(here["escape_time_theory"].values)
    failed = here["failed"].values
    # Where every run failed the row stays, to say how many did.
    if not (visited | trapped | expected).any() and not failed.all():
        return {}
    return {
        "loss": _median(_known(here["loss"].values)),
        # Runs that are cut off are later than the others, so the median has to count them.
        "escape_time": _median(np.where(censored, np.inf, here["escape_time"].values)[visited]),
        "escape_time_theory": _median(here["escape_time_theory"].values[expected]),
        "ratio": _median(_known(here["ratio"].values)),
        "runs": int((visited | trapped | expected).sum()),
        "censored": int(censored.sum()),
        "trapped": int(trapped.sum()),
        "unmatched": int(((visited != expected) & ~failed).sum()),
        "failed": int(failed.sum()),
        "reason": _commonest(here),
    }


_THEORY = ("escape_time_theory", "ratio")


def _commonest(here: xr.Dataset) -> str:
    """Reason that most of the runs without a ratio have, in words; "" where there is none."""
    if "reason" not in here:
        return ""
    codes = here["reason"].values
    codes = codes[codes != KNOWN]
    return WHY[np.bincount(codes).argmax()].replace("_", " ") if len(codes) else ""


def _known(values: Array) -> Array:
    return values[np.isfinite(values)]


def _median(values: Array) -> float:
    """Median, NaN of nothing and where it is not finite."""
    middle = float(np.median(values)) if len(values) else np.nan
    return middle if np.isfinite(middle) else np.nan
