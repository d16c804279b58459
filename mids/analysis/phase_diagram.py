"""How many samples it takes: success of offline gradient descent over dimensions and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from .. import __version__, _validate, schema
from ..errors import InputError
from ..flows import Empirical
from ..ladder import leaps
from ..simulate import simulate
from ..targets import Target

__all__ = ["phase_diagram"]

PATIENCE = 8.0
"""A run is given this many times the default duration of its flow."""


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
        Time of the flow at which a run is judged; 8 times the flow's default at the largest
        dimension if not given. Runs whose gradient vanishes earlier are over earlier.
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
    level = _validate.number(level, "level", above=0.0, at_most=1.0)
    allowed = sorted(set(Empirical.__dataclass_fields__) - {"n"})
    for name in parameters:
        _validate.one_of(name, allowed, "parameter of the flow 'empirical'")
    target = Target.parse(target) if isinstance(target, str) else target
    flows = [Empirical(n=size, **parameters) for size in sizes]
    arguments: dict[str, Any] = {"dim": dim, "runs": runs, "seed": seed}
    arguments["student_rank"] = student_rank
    if duration is None:
        trial = simulate(target, flow=flows[0], **arguments)
        duration = PATIENCE * float(trial["time"][-1])
    duration = _validate.number(duration, "duration", above=0.0)
    sweeps = [simulate(target, flow=flow, time=[0.0, duration], **arguments) for flow in flows]
    first = sweeps[0]
    recipe = schema.spec(first)
    learnable = min(target.rank, recipe["student_rank"])
    s = max(step.exponent for step in leaps(target).steps)
    if exponent is not None:
        s = _validate.integer(exponent, "exponent", at_least=1)
    ends = [sweep[["overlap", "risk"]].isel(time=-1, drop=True) for sweep in sweeps]
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
            source=f"mids {__version__}",
            command=f"phase_diagram({text}, n={sizes.tolist()})",
        ),
    )


def _sizes(n: object) -> np.ndarray:
    values = [n] if np.ndim(n) == 0 else list(n)  # type: ignore[arg-type,call-overload]
    sizes = [_validate.integer(value, "n", at_least=1) for value in values]
    if not sizes or sorted(set(sizes)) != sizes:
        raise InputError(
            f"n must be numbers of samples that increase, got {_validate.shown(n)}; "
            "pass for example n=[100, 1000, 10000]"
        )
    return np.array(sizes, dtype=np.int64)
