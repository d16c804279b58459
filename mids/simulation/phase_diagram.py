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
from . import sweep as _sweep

__all__ = ["again", "from_spec", "phase_diagram"]

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
    >>> ds = phase_diagram("h1(z1)", dim=[8, 16], n=[5, 400], runs=4, noise=0.5)
    >>> ds.success.dims, ds.ratio.values.tolist()
    (('dim', 'n', 'run'), [[0.625, 50.0], [0.3125, 25.0]])
    >>> ds.success.mean("run").sel(n=400).values.tolist()
    [1.0, 1.0]
    """
    sizes = _sizes(n)
    level = validation.number(level, "level", above=0.0, at_most=1.0)
    for name in parameters:
        validation.one_of(name, PARAMETERS, "parameter of the flow 'empirical'")
    flows = [Empirical(n=size, **parameters) for size in sizes]

    def checked(flow: Empirical, time: Sequence[float] | None) -> _sweep.Sweep:
        return _sweep.check(target, dim, runs, seed, flow, student_rank, None, time, 1e-8)

    if duration is None:
        duration = PATIENCE * float(checked(flows[0], None).time[-1])
    duration = validation.number(duration, "duration", above=0.0)
    sweeps = [checked(flow, [0.0, duration]) for flow in flows]
    target, recipe = sweeps[0].target, sweeps[0].spec
    learnable = min(relevant_directions(target), sweeps[0].student_rank)
    s = max(step.exponent for step in leaps(target).steps)
    if exponent is not None:
        s = validation.integer(exponent, "exponent", at_least=1)
    simulated = [_graph.dataset(sweep, _graph.block_size(sweep, "auto")) for sweep in sweeps]
    first = simulated[0]
    ends = [ds[["overlap", "risk"]].isel(time=-1, drop=True) for ds in simulated]
    joined = xr.concat(ends, dim=xr.Variable("n", sizes), join="exact").transpose("dim", "n", ...)
    final, names = joined["overlap"], ("success", "final_overlap", "final_risk")
    learned = (final.isel(direction=learnable - 1, drop=True) >= level).astype(np.int8)
    values = dict(zip(names, (learned, final, joined["risk"]), strict=True))
    ratio = sizes / first["dim"].values[:, None].astype(float) ** s
    coords = {"dim": first["dim"].values, "n": sizes, "run": first["run"].values, "ratio": ratio}
    coords["direction"] = first["direction"].values
    recorded = ("target", "dim", "runs", "seed", "student_rank", "versions")
    spec = {name: recipe[name] for name in recorded} | {
        "n": sizes.tolist(),
        "duration": duration,
        "level": level,
        "exponent": s,
        "flow": {k: v for k, v in recipe["flow"].items() if k != "n"},
    }
    text = target.name or str(target)
    return xr.Dataset(
        {
            name: (schema.VARIABLES[name].dims, array.data, schema.VARIABLES[name].attributes)
            for name, array in values.items()
        },
        {
            name: (schema.COORDINATES[name].dims, value, schema.COORDINATES[name].attributes)
            for name, value in coords.items()
        },
        schema.attributes(
            {"phase_diagram": spec},
            title=f"Success of gradient descent on n samples of the multi-index target {text}",
            summary=(
                f"Whether the gradient flow of the empirical loss has learned the target's "
                f"directions by time {duration:g}, over ambient dimensions d and numbers of "
                f"samples n; ratio is n / d^{s}."
            ),
            source=f"mids {schema.VERSION}",
            command=f"phase_diagram({text}, n={sizes.tolist()})",
        ),
    )


def from_spec(spec: Mapping[str, Any]) -> xr.Dataset:
    """Return the lazy phase diagram that a mapping of `phase_diagram`'s arguments describes."""
    arguments = dict(spec)
    flow = arguments.pop("flow", {})
    if not isinstance(flow, Mapping) or flow.get("name", Empirical.name) != Empirical.name:
        raise InputError(
            "flow of a phase diagram must be a table with parameters of the flow 'empirical', got "
            f"{validation.shown(flow)}; pass for example flow.noise = 0.5"
        )
    parameters = {name: value for name, value in flow.items() if name != "name"}
    for name in parameters:
        validation.one_of(name, PARAMETERS, "parameter of the flow 'empirical' in a phase diagram")
    for name in arguments:
        validation.one_of(name, (*ARGUMENTS, *PARAMETERS), "argument of a phase diagram")
    arguments |= parameters
    missing = [name for name in ("target", "dim", "n") if name not in arguments]
    if missing:
        raise InputError(
            f"a phase diagram needs {' and '.join(missing)}; got {validation.shown(list(spec))}"
        )
    if isinstance(arguments["target"], Mapping):
        arguments["target"] = Target.from_dict(arguments["target"])
    return phase_diagram(**arguments)


ARGUMENTS = tuple(
    name for name in phase_diagram.__annotations__ if name not in ("parameters", "return")
)


def again(ds: xr.Dataset) -> xr.Dataset:
    """Build a phase diagram again; of a selection only what is selected is simulated."""
    recipe = schema.spec(ds)["phase_diagram"]
    arguments = {name: value for name, value in recipe.items() if name != "versions"}
    arguments["runs"] = _sweep.restored(ds, recipe, "runs")
    for name, argument in (("dim", "dim"), ("n", "n"), ("run", "runs")):
        if name in ds.coords:
            arguments[argument] = np.unique(ds[name])
    whole = from_spec(arguments)
    return whole.sel({name: ds[name] for name in whole.dims if name in ds.coords})


def _sizes(n: object) -> np.ndarray:
    values = [n] if np.ndim(n) == 0 else list(n)  # type: ignore[arg-type,call-overload]
    sizes = [validation.integer(value, "n", at_least=1) for value in values]
    if not sizes or sorted(set(sizes)) != sizes or sizes[-1] >= 2**63:
        raise InputError(
            f"n must be numbers of samples that increase, below 2**63, got {validation.shown(n)}; "
            "pass for example n=[100, 1000, 10000]"
        )
    return np.array(sizes, dtype=np.int64)
