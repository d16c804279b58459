"""How many samples it takes: success of offline gradient descent over dimensions and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .. import schema, validation
from ..errors import InputError
from ..flows import Empirical
from ..targets.ladder import leaps, relevant_directions
from ..targets.target import Target
from . import graph as _graph
from .plan import Plan, check

PATIENCE = 64.0
"""A run is given this many times the default duration of its flow, which is that of a typical run:
where times are inversely proportional to the overlap at the start, 1 in 15 takes longer."""

PARAMETERS = tuple(field for field in Empirical.__dataclass_fields__ if field != "n")


def phase_diagram(
    target: Target | str,
    *,
    dim: float | Sequence[float],
    n: int | Sequence[int],
    runs: int | Sequence[int] = 32,
    seed: int = 0,
    student_rank: int | None = None,
    duration: float | None = None,
    level: float = 0.5,
    exponent: int | None = None,
    **parameters: Any,
) -> xr.Dataset:
    """Simulate the empirical flow over dimensions and numbers of samples, lazily.

    The paper's heuristic (section 5) is that n samples are enough once n is large against d^s. The
    coordinate ``ratio`` is n / d^s, in which the success fractions of different dimensions should
    come together. A run succeeds if at its end it has learned all directions that the student can
    hold. The samples of a run with larger n begin with those of smaller n.

    Parameters
    ----------
    target : Target or str
        As for `mids.simulate`.
    dim : number or sequence of numbers
        Ambient dimensions.
    n : int or sequence of int
        Numbers of samples, increasing.
    runs : int or sequence of int
        How many runs, or the indices of the runs.
    seed : int
        Of the random streams.
    student_rank : int, optional
        As for `mids.simulate`.
    duration : float, optional
        Time of the flow at which a run is judged; 64 times the flow's default at the largest
        dimension if not given. Runs that sit at a minimum earlier are over earlier.
    level : float
        Overlap with the target at which a direction counts as learned.
    exponent : int, optional
        The exponent s; the largest leap of the target if not given.
    **parameters
        Parameters of `mids.flows.Empirical` besides n.

    Returns
    -------
    xarray.Dataset
        Dims (dim, n, run): ``success`` (0 or 1), ``final_overlap`` (also along ``direction``) and
        ``final_risk``, lazy, with the coordinate ``ratio`` (dim, n).

    Raises
    ------
    InputError
        If an argument is wrong.

    Examples
    --------
    >>> ds = phase_diagram("h1(z1)", dim=[8, 16], n=[5, 400], runs=2, noise=0.5, duration=10)
    >>> ds.success.dims, ds.ratio.values.tolist()
    (('dim', 'n', 'run'), [[0.625, 50.0], [0.3125, 25.0]])
    >>> ds.success.mean("run").sel(n=400).values.tolist()
    [1.0, 1.0]
    """
    sizes = _sizes(n)
    level = validation.number(level, "level", above=0.0, at_most=1.0)
    if exponent is not None:
        exponent = validation.integer(exponent, "exponent", at_least=1)
    for name in parameters:
        validation.one_of(name, PARAMETERS, "parameter of the flow 'empirical'")

    def planned(flow: Any, time: Any) -> Plan:
        return check(target, dim, runs, seed, flow, student_rank, None, time, 1e-8)

    if duration is None:
        first = Empirical(n=sizes[0], **parameters)
        duration = PATIENCE * float(planned(first, None).time[-1])
    duration = validation.number(duration, "duration", above=0.0)
    # Only the end counts: a grid of two times keeps no trajectories.
    plan = planned(Empirical(n=sizes, **parameters), [0.0, duration])
    simulated = _graph.dataset(plan, _graph.block_sizes(plan, "auto"))
    ds = outcomes(simulated, plan, level, exponent).transpose(
        ..., "dim", "n", "run", "direction", "byte"
    )
    ds.attrs["title"] = ds.attrs["title"].replace(
        "Gradient flow (empirical)", "Success of gradient descent on n samples"
    )
    ds.attrs["summary"] = (
        "Whether the gradient flow of the empirical loss has learned the target's directions by "
        f"time {duration:g}, over ambient dimensions d and numbers of samples n; ratio is n / d^s."
    )
    return ds


def outcomes(ds: xr.Dataset, plan: Plan, level: float, exponent: int | None) -> xr.Dataset:
    """Return what is left of a simulation at its end: whether the runs succeed."""
    last = ds[["overlap", "risk", "recipe"]].isel(time=-1, drop=True)

    def over_axes(values: list[int]) -> xr.DataArray:
        return xr.DataArray(np.reshape(values, plan.recipes.shape), dims=list(plan.axes))

    recipes = list(plan.recipes.flat)
    # Success asks for as many directions as both the target and the student have.
    learnable = over_axes([min(relevant_directions(r.target), r.student_rank) for r in recipes])
    needed = xr.DataArray(np.arange(last.sizes["direction"]), dims="direction") < learnable
    learned = ((last["overlap"] >= level) | ~needed).all("direction").astype(np.int8)
    out = last.rename(overlap="final_overlap", risk="final_risk").assign(success=learned)
    out = out[["success", "final_overlap", "final_risk", "recipe"]]
    for name in ("success", "final_overlap", "final_risk"):
        out[name].attrs = schema.VARIABLES[name].attributes
    out["success"].attrs["level"] = level
    if "n" in plan.axes:
        # The hardest saddle decides how many samples are needed.
        largest = {
            target: exponent or max(step.exponent for step in leaps(target).steps)
            for target in dict.fromkeys(r.target for r in recipes)
        }
        attrs = schema.COORDINATES["ratio"].attributes
        s = over_axes([largest[r.target] for r in recipes])
        if len({*largest.values()}) == 1:
            s = xr.DataArray(s.values.flat[0])
            attrs["exponent"] = int(s)
        n, d = (out[name].reset_coords(drop=True) for name in ("n", "dim"))
        ratio = (n / d ** s.astype(float)).transpose(..., "dim", "n")
        out = out.assign_coords(ratio=ratio.assign_attrs(attrs))
    return out.assign_attrs(ds.attrs)


def from_spec(spec: Mapping[str, Any]) -> xr.Dataset:
    """Return the lazy phase diagram that a mapping of `phase_diagram`'s arguments describes."""
    arguments = dict(spec)
    flow = arguments.pop("flow", {})
    if not isinstance(flow, Mapping) or flow.get("name", Empirical.name) != Empirical.name:
        raise InputError(
            "flow of a phase diagram must be a table with parameters of the flow 'empirical', got "
            f"{validation.shown(flow)}; pass for example flow.noise = 0.5"
        )
    known = (*ARGUMENTS, *PARAMETERS)
    validation.entries(arguments, ("target", "dim", "n"), known, "a phase diagram")
    parameters = {name: value for name, value in flow.items() if name != "name"}
    for name in parameters:  # n is no parameter here, but an argument
        validation.one_of(name, PARAMETERS, "parameter of the flow 'empirical' in a phase diagram")
    return phase_diagram(**arguments | parameters)


ARGUMENTS = tuple(
    name for name in phase_diagram.__annotations__ if name not in ("parameters", "return")
)


def _sizes(n: object) -> list[int]:
    values = [n] if not validation.shape(n) else list(n)  # type: ignore[call-overload]
    sizes = [validation.integer(value, "n", at_least=1) for value in values]
    if not sizes or sorted(set(sizes)) != sizes or sizes[-1] >= 2**63:
        raise InputError(
            f"n must be numbers of samples that increase, below 2**63, got {validation.shown(n)}; "
            "pass for example n=[100, 1000, 10000]"
        )
    return sizes
