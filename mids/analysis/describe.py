"""What a dataset holds, in a few lines, without computing anything lazy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import comb

import numpy as np
import xarray as xr

from .. import schema, validation
from ..errors import DatasetError, MidsError
from ..simulation.recipe import described
from ..targets.ladder import ladder
from ..targets.target import Target
from .compare import comparable

QUICK = 252  # monomials times their least degree squared, of a ladder found within 50 ms
TRAPPED = schema.STATUS.index("trapped")


def describe(ds: xr.Dataset) -> str:
    """Return what a dataset holds, in a few lines, without computing anything lazy.

    Parameters
    ----------
    ds : xarray.Dataset
        Any dataset.

    Returns
    -------
    str
        Target, flow, sizes, how the runs ended if that is in memory, and what to call next.

    Examples
    --------
    >>> from mids import simulate
    >>> print(describe(simulate("h1(z1) + h1(z1)*h3(z2)", dim=[100, 1e6], runs=8)))
    multi-index dataset (schema 2)
      target     <Target of rank 2, degree 4, norm 1.41421: h1(z1) + h1(z1)h3(z2)>
      leaps      1 -> 3: log d, d^2
      flow       two-timescale, student rank 2, rtol 1e-08, seed 0
      sweep      dim 100, 1e6; 8 runs; 435 times up to 1.2e+24
      variables  11, lazy, 0.5 MB: loss, overlap, gram, energy, gram0, ...
      next       .saddles() .compare() .scaling() .plot.loss() .to_netcdf()
    """
    validation.dataset(ds)
    title, rows = description(ds)
    return "\n".join([title, *(f"  {name:<9}  {text}" for name, text in rows)])


def _work(target: Target) -> int:
    """Return how much work the ladder of a target is, in the units of `QUICK`."""
    degrees = target.modes.sum(axis=1)
    least = int(degrees[degrees > 0].min(initial=target.degree))
    return comb(target.rank + target.degree, target.degree) * least**2


def description(ds: xr.Dataset) -> tuple[str, list[tuple[str, str]]]:
    """Return what `describe` says as a title and rows of a name and a text."""
    version = ds.attrs.get("mids_schema")
    if version is None:
        return "not a dataset of mids", [
            ("missing", "the attribute mids_schema"),
            (
                "next",
                "mids.simulate(...) and mids.open_dataset(...) give one; mids.plateaus takes any",
            ),
        ]
    rows = [*_origin(ds), ("sweep", _sweep(ds))]
    names = [str(name) for name in ds.data_vars]
    where = "in memory" if all(map(_in_memory, ds.data_vars.values())) else "lazy"
    listed = ", ".join([*names[:5], "..."] if len(names) > 5 else names)
    rows.append(("variables", f"{len(names)}, {where}, {in_memory(ds)}: {listed}"))
    if "status" in ds and ds["status"].dtype.kind in "iu" and _in_memory(ds["status"]):
        counts = np.bincount(ds["status"].values.ravel(), minlength=len(schema.STATUS))
        ended = zip(counts, schema.STATUS, strict=True)
        rows.append(("runs", ", ".join(f"{count} {meaning}" for count, meaning in ended if count)))
    rows.append(("next", " ".join(f".{name}()" for name in _next(ds))))
    return f"multi-index dataset (schema {version})", rows


def in_memory(ds: xr.Dataset) -> str:
    """Return how much memory a dataset takes once it is computed, as text."""
    return f"{ds.nbytes / 1e6:.1f} MB" if ds.nbytes >= 1e5 else f"{ds.nbytes / 1e3:.1f} kB"


def _origin(ds: xr.Dataset) -> Iterator[tuple[str, str]]:
    """Describe targets and flows, as far as the dataset says what they are."""
    try:
        recipes = described(ds)
    except DatasetError as error:
        if "recipe" in ds:
            yield "recipe", f"unknown: {error}"
        return
    targets = list(dict.fromkeys(recipe.target for recipe in recipes))
    if len(targets) == 1:
        yield "target", repr(targets[0])
        quick = targets[0].separable is not None or _work(targets[0]) <= QUICK
        if len(targets[0].modes):  # many oblique directions have no ladder
            found = repr(ladder(targets[0])) if quick else "mids.ladder(ds.mi.target) finds them"
            yield "leaps", found
    elif targets:
        yield "targets", f"{len(targets)}: {_listed(t.name or f'{t:.4g}' for t in targets)}"
    simulated = [recipe for recipe in recipes if recipe.flow is not None]
    if simulated:
        parts: dict[str, list[object]] = {}
        for recipe in simulated:
            assert recipe.flow is not None
            known = recipe.flow.to_dict()
            known |= {"student_rank": recipe.student_rank, "rtol": recipe.rtol, "seed": recipe.seed}
            for name, value in known.items():
                parts.setdefault(name, []).append(value)
        names = _listed(parts.pop("name"))
        if "success" in ds:
            parts.pop("rtol")
        # An option that is off or 0 says nothing, but a seed of 0 is a seed.
        always = ("student_rank", "rtol", "seed")
        shown = [
            f"{name.replace('_', ' ')} {_listed(values)}"
            for name, values in parts.items()
            if name not in ds.dims and (any(values) or name in always)
        ]
        yield "flow", ", ".join([names, *shown])
        notes = [r.flow.note for r in simulated if r.flow is not None and r.flow.note]
        if notes:
            yield "note", _listed(notes)
    if "success" in ds:
        exponent = ds.coords["ratio"].attrs.get("exponent", "s") if "ratio" in ds.coords else "s"
        yield (
            "success",
            f"all directions at an overlap of {ds['success'].attrs.get('level', 0.5):g}; "
            f"ratio is n / d^{exponent}",
        )


def _listed(values: Iterable[object]) -> str:
    different = list(dict.fromkeys(map(str, values)))
    return "; ".join([*different[:4], "..."] if len(different) > 4 else different)


def _sweep(ds: xr.Dataset) -> str:
    parts = []
    for name in ds["recipe"].dims if "recipe" in ds else ():
        if name not in ("dim", "run") and name in ds.coords:
            parts.append(f"{name} {', '.join(map(_value, ds[name].values.tolist()))}")
    if "dim" in ds.coords:
        parts.append(f"dim {', '.join(map(schema.dim_text, np.ravel(ds['dim'].values).tolist()))}")
    if "n" in ds.coords:
        parts.append(f"n {', '.join(map(str, np.atleast_1d(ds['n'].values)))}")
    runs = ds.sizes.get("run", 1)
    parts.append(f"{runs} run{'s' if runs != 1 else ''}")
    if "time" in ds.dims and "time" in ds.indexes:
        parts.append(f"{ds.sizes['time']} times up to {float(ds.indexes['time'].max()):.2g}")
    return "; ".join(parts)


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _next(ds: xr.Dataset) -> Iterator[str]:
    """Name what to call first, of what the dataset has enough for."""
    if "crossing_time" in ds or "loss" in ds:
        yield "saddles"
        if _comparable(ds):
            yield "compare"
        if ds.sizes.get("dim", 1) > 1:
            yield "scaling"
    if "status" in ds and _in_memory(ds["status"]) and (ds["status"] == TRAPPED).any():
        yield "traps"
    if "loss" in ds:
        yield "plot.loss"
    if "success" in ds:
        yield "plot.success"
    yield "to_netcdf"


def _comparable(ds: xr.Dataset) -> bool:
    try:
        return comparable(ds)
    except MidsError:  # the attributes are damaged
        return False


def _in_memory(array: xr.DataArray) -> bool:
    # xarray has no public test that tells an array read from a file from one still in it.
    return array.variable._in_memory
