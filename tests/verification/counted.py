"""Count the runs that the theory misses: python -m tests.verification.counted.

Escape times of every run are held against the simulation, and those of random coupled targets
against an integrator of the whole equation that knows nothing of `mids`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
import numpy as np
import pandas as pd
import xarray as xr
from scipy.integrate import solve_ivp

import mids
from mids import Target
from mids.analysis.coupled import Race
from mids.flows.initial import draw_runs
from mids.schema import LEVELS
from mids.simulation.run_recipes import described
from mids.targets.basis import multi_indices

from .zoo import Case, races, zoo

__all__ = ["FAR", "brute_force", "count", "random_targets", "simulated"]

FAR = (0.01, 0.05, 0.2)
"""Relative errors of escape times beyond which runs are counted."""
PATIENCE = 10.0
"""Seconds for one run of the integrator that knows nothing of `mids`."""


def simulated(case: Case, dims: Sequence[float], runs: int, seed: int) -> xr.Dataset:
    """Simulate a case; the variables that are needed, in memory."""
    ds = mids.simulate(
        case.target,
        dim=dims,
        runs=runs,
        seed=seed,
        flow=case.flow,
        student_rank=case.student_rank,
    )
    return ds[["loss", "crossing_time", "gram", "gram0", "status", "recipe"]].compute()


def count(ds: xr.Dataset, flow: mids.flows.Flow) -> pd.DataFrame:
    """Errors of the escape times of all runs, by dimension.

    Parameters
    ----------
    ds : xarray.Dataset
        Of one case, as of `simulated`.
    flow : Flow
        That of the case.

    Returns
    -------
    pandas.DataFrame
        One row for each dimension, with shares of runs: off by more than the values of `FAR` at
        some saddle, the largest error; ``other``: some saddle is known to one side only;
        ``unknown``: it is visited, and the theory has no time; ``order``: what is learned at every
        saddle belongs to the step of the ladder that the theory says (of runs whose plateaus the
        grid resolves).
    """
    compared, predicted = mids.compare(ds), mids.theory(ds)
    measured = np.isfinite(compared["escape_time"].values)
    known = np.isfinite(compared["escape_time_theory"].values)
    censored = compared["censored"].values
    off = np.abs(compared["ratio"].values - 1)
    off = np.where(measured & known, off, 0.0).max(axis=2)
    unknown = (measured & np.isnan(predicted["escape_time"].values)) & (predicted["visited"].values)
    other = (measured != known) & ~censored & ~unknown
    steps = _steps(ds, flow.effective_target(described(ds)[0].target))
    both = np.isfinite(steps) & np.isfinite(predicted["order"].values)
    right = (~both | (steps == predicted["order"].values)).all(axis=2)
    rows = []
    for i, dim in enumerate(ds["dim"].values):
        worst = int(off[i].argmax())
        rows.append(
            {
                "dim": dim,
                "runs": off.shape[1],
                **{f"> {far:.0%}": float((off[i] > far).mean()) for far in FAR},
                "worst": float(off[i, worst]),
                "run": worst,
                "other": float(other[i].any(axis=1).mean()),
                "unknown": float(unknown[i].any(axis=1).mean()),
                "order": float(right[i].mean()),
                "broken": float((np.diff(predicted["order"].values[i], axis=1) < 0).any(1).mean()),
            }
        )
    return pd.DataFrame(rows)


def _steps(ds: xr.Dataset, target: Target) -> np.ndarray:
    """Step of the ladder of what is learned at each saddle, (dim, run, saddle), NaN if unclear."""
    ladder = mids.leaps(target)
    times = ds["time"].values
    crossing = ds["crossing_time"].sel(level=list(LEVELS)).values[..., LEVELS.index(0.5)]
    dims, runs, rank = crossing.shape
    steps = np.full((dims, runs, rank), np.nan)
    gram = ds["gram"].transpose("dim", "run", "time", "axis", "axis_t").values
    for i, j in np.ndindex(dims, runs):
        parts = np.zeros(len(ladder))
        for k in range(rank):
            if not np.isfinite(crossing[i, j, k]):
                break
            at = int(np.searchsorted(times, crossing[i, j, k]))
            if at == len(times):
                break
            values, vectors = np.linalg.eigh(gram[i, j, at])
            if k + 1 < rank and values[-2 - k] > 0.5:  # the next one came before the next time
                parts = np.full(len(ladder), np.nan)
                continue
            U = vectors[:, rank - 1 - k :]
            new = np.array([np.sum((step.learned.T @ U) ** 2) for step in ladder])
            if np.isfinite(parts).all():
                steps[i, j, k] = (new - parts).argmax()
            parts = new
    return steps


def random_targets(n: int, dim: int, seed: int) -> pd.DataFrame:
    """Runs of random coupled targets against DOP853 on G, with H from the target's tensors."""
    rng = np.random.default_rng(seed)
    rows = []
    for case in range(n):
        rank, degree = int(rng.integers(2, 5)), int(rng.integers(2, 6))
        modes = [beta for beta in map(tuple, multi_indices(rank, degree).tolist()) if any(beta)]
        if rng.integers(2):  # as dense as can be, or a few modes
            modes = [modes[k] for k in rng.permutation(len(modes))[: rank + 2]]
        target = Target({beta: float(rng.standard_normal()) for beta in modes}).normalize()
        M = draw_runs(target.rank, target.rank, dim, [0], case)
        gram0 = M @ M.swapaxes(1, 2)
        found = Race(target).predict(gram0)
        given = np.full(target.rank, np.nan)
        here = ~np.isnan(found.rank[0])
        given[found.rank[0, here].astype(int)] = found.escape_time[0, here]
        known = np.isfinite(given)
        exact = np.full(target.rank, np.nan)
        if known.any():
            exact = brute_force(target, gram0[0], 1.5 * given[known].max() + 10)
        both = np.isfinite(exact) & known
        off = np.abs(given[both] / exact[both] - 1).max(initial=0.0)
        rows.append(
            {
                "case": case,
                "target": str(target),
                "off": off,
                "missing": bool((known & np.isnan(exact)).any()),
                "followed": bool(both.any()),
            }
        )
    return pd.DataFrame(rows)


def brute_force(target: Target, gram0: np.ndarray, end: float) -> np.ndarray:
    """Times at which the overlaps pass 1/2, by DOP853 on G; NaN from where it takes too long."""
    tensors, rank = target.tensors, target.rank
    deadline = time.process_time() + PATIENCE

    def flow(_: float, flat: np.ndarray) -> np.ndarray:
        if time.process_time() > deadline:
            raise TimeoutError
        G = flat.reshape(rank, rank)
        H = np.zeros((rank, rank))
        for k, tensor in enumerate(tensors[1:], start=1):
            part = tensor
            for _ in range(k - 1):
                part = np.tensordot(part, G, axes=(1, 0))  # the second index goes last each time
            H += k * part.reshape(rank, -1) @ tensor.reshape(rank, -1).T
        push = (np.eye(rank) - G) @ H @ G
        return np.asarray((push + push.T).ravel())

    times = np.full(rank, np.nan)

    def event(k: int):
        def passes(t: float, flat: np.ndarray) -> float:
            value = np.linalg.eigvalsh(flat.reshape(rank, rank))[-1 - k] - 0.5
            return float(value)

        return passes

    try:
        found = solve_ivp(
            flow,
            (0, end),
            gram0.ravel(),
            method="DOP853",
            rtol=1e-9,
            atol=1e-13,
            events=[event(k) for k in range(rank)],
        )
    except TimeoutError:
        return times
    for k, at in enumerate(found.t_events):
        times[k] = at[0] if len(at) else np.nan
    return times


@click.command()
@click.option("--dims", default="1e2,1e4,1e6,1e8", help="Ambient dimensions.")
@click.option("--runs", default=200, help="Runs at each dimension.")
@click.option("--seed", default=0, help="Seed of the first case; the next has the next seed.")
@click.option("--only", default="", help="Only cases whose names contain this text.")
@click.option("--random", default=0, help="Runs of random coupled targets, at d = 1000.")
def main(dims: str, runs: int, seed: int, only: str, random: int) -> None:
    """Print the shares of runs that are off."""
    for k, case in enumerate([*races(), *zoo()]):
        if only not in case.name:
            continue
        began = time.process_time()
        ds = simulated(case, [float(d) for d in dims.split(",")], runs, seed + k)
        middle = time.process_time()
        table = count(ds, case.flow)
        ended = time.process_time()
        click.echo(
            f"{case.name}: simulated {middle - began:.1f} s, analysed {ended - middle:.1f} s\n"
            + table.to_string(index=False, float_format=lambda v: f"{v:.5g}")
        )
    if random:
        table = random_targets(random, 1000, seed)
        followed = table[table["followed"]]
        shares = ", ".join(f"{(followed['off'] > far).mean():.4f} by {far:.0%}" for far in FAR)
        click.echo(
            f"{len(followed)} of {len(table)} runs of random targets: off {shares}; worst "
            f"{followed['off'].max():.3g}; {table['missing'].sum()} with times that are not exact"
        )
        for row in followed[(followed["off"] > FAR[0])].to_dict("records"):
            click.echo(f"  case {row['case']}: {row['off']:.3g} {row['target']}")


if __name__ == "__main__":
    main()
