"""Count the runs that the theory misses: python -m tests.verification.counted.

Escape times of every run are held against the simulation, and those of random coupled targets
against an integrator of the whole equation that knows nothing of `mids`.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import pandas as pd
import xarray as xr
from scipy.integrate import solve_ivp

import mids
from mids import Target
from mids.analysis.coupled import Race
from mids.analysis.prediction import expected_steps, steps_of
from mids.flows.initial import draw_runs
from mids.schema import LEVELS
from mids.simulation.recipe import described
from mids.targets.basis import multi_indices

from .zoo import Case, races, zoo

__all__ = ["FAR", "brute_force", "count", "page", "random_targets", "simulated"]

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
    """Count the runs of one case whose escape times or orders the theory misses, by dimension.

    Parameters
    ----------
    ds : xarray.Dataset
        Of one case, as of `simulated`.
    flow : Flow
        That of the case.

    Returns
    -------
    pandas.DataFrame
        One row for each dimension, with numbers of runs: off by more than the values of `FAR` at
        some saddle, with the largest error and its run; ``one side``: some saddle is known to one
        side only, with ``reasons``, the runs by why a ratio is missing at some saddle; ``order``:
        what is learned at some saddle belongs to another step of the ladder than the theory says;
        ``unclear``: one of both says that it belongs to none; ``broken``: the order is not that of
        the ladder.
    """
    compared, predicted = mids.compare(ds), mids.theory(ds)
    off = np.abs(compared["ratio"].values - 1)
    off = np.where(np.isfinite(off), off, 0.0).max(axis=2)
    one = np.isfinite(compared["escape_time"].values) != np.isfinite(
        compared["escape_time_theory"].values
    )
    why = compared["reason"]
    names = why.attrs["flag_meanings"].split()
    ladder = mids.leaps(flow.effective_target(described(ds)[0].target))
    steps, order = _steps(ds, ladder), predicted["order"].values
    seen = predicted["visited"].values & np.isfinite(compared["escape_time"].values)
    known = seen & np.isfinite(steps) & np.isfinite(order)
    broken = seen & (order != expected_steps(ladder, order.shape[2])) & np.isfinite(order)
    rows = []
    for i, dim in enumerate(ds["dim"].values):
        worst = int(off[i].argmax())
        codes = [k for k in np.unique(why.values[i]).tolist() if k]
        rows.append(
            {
                "dim": dim,
                "runs": off.shape[1],
                **{f"> {far:.0%}": int((off[i] > far).sum()) for far in FAR},
                "worst": float(off[i, worst]),
                "run": worst,
                "one side": int(one[i].any(axis=1).sum()),
                "order": int((known[i] & (steps[i] != order[i])).any(axis=1).sum()),
                "unclear": int((seen[i] & ~known[i]).any(axis=1).sum()),
                "broken": int(broken[i].any(axis=1).sum()),
                "reasons": ", ".join(
                    f"{names[k].replace('_', ' ')} {(why.values[i] == k).any(axis=1).sum()}"
                    for k in codes
                ),
            }
        )
    return pd.DataFrame(rows)


def _steps(ds: xr.Dataset, ladder: mids.Ladder) -> np.ndarray:
    """Step of the ladder of what is learned at each saddle, (dim, run, saddle), NaN if unclear."""
    times = ds["time"].values
    crossing = ds["crossing_time"].sel(level=list(LEVELS)).values[..., LEVELS.index(0.5)]
    dims, runs, rank = crossing.shape
    gram = ds["gram"].transpose("dim", "run", "time", "axis", "axis_t").values
    directions = np.zeros((dims, runs, rank, gram.shape[-1]))
    for k in range(min(rank, gram.shape[-1])):
        at = np.searchsorted(times, np.nan_to_num(crossing[..., k], nan=np.inf))
        i, j = np.nonzero((at > 0) & (at < len(times)))
        (old, before), (new, after) = (np.linalg.eigh(gram[i, j, at[i, j] - one]) for one in (1, 0))
        # What is in the larger subspace, and not in the smaller one before the crossing.
        before, after = before[:, :, before.shape[2] - k :], after[:, :, -k - 1 :]
        beside = after - before @ (before.swapaxes(1, 2) @ after)
        apart = np.ones(len(i), dtype=bool)  # the grid tells neighbouring directions apart
        if k:
            apart &= old[:, -k] > 0.5
        if k + 1 < new.shape[1]:
            apart &= new[:, -2 - k] < 0.5
        directions[i, j, k] = np.where(apart[:, None], np.linalg.svd(beside)[0][:, :, 0], 0.0)
    return np.stack([steps_of(part, ladder) for part in directions])


def random_targets(n: int, seed: int) -> pd.DataFrame:
    """Runs of random coupled targets against LSODA on G, with H from the target's tensors."""
    rng = np.random.default_rng(seed)
    rows = []
    for case in range(n):
        rank, degree = int(rng.integers(2, 5)), int(rng.integers(2, 6))
        dim = int(10 ** rng.uniform(2, 4))
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
        rows.append(
            {
                "case": case,
                "dim": dim,
                "target": str(target),
                "off": np.abs(given[both] / exact[both] - 1).max(initial=0.0),
                "times": int(both.sum()),
                "missing": int((known & np.isnan(exact)).sum()),
                "unknown": int((~known & np.isfinite(exact)).sum()),
            }
        )
    return pd.DataFrame(rows)


def brute_force(target: Target, gram0: np.ndarray, end: float) -> np.ndarray:
    """Times at which the overlaps pass 1/2, by LSODA on G; NaN from where it takes too long."""
    rank = target.rank
    tensors = [(k, T, T.reshape(rank, -1)) for k, T in enumerate(target.tensors) if k and T.any()]
    deadline = time.process_time() + PATIENCE

    def flow(_: float, flat: np.ndarray) -> np.ndarray:
        if time.process_time() > deadline:
            raise TimeoutError
        G = flat.reshape(rank, rank)
        H = np.zeros((rank, rank))
        for k, tensor, unfolded in tensors:
            part = tensor
            for _ in range(k - 1):
                part = np.tensordot(part, G, axes=(1, 0))  # the second index goes last each time
            H += k * part.reshape(rank, -1) @ unfolded.T
        push = (np.eye(rank) - G) @ H @ G
        return np.asarray((push + push.T).ravel())

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
            method="LSODA",
            rtol=1e-10,
            atol=1e-15,
            events=[event(k) for k in range(rank)],
        )
    except TimeoutError:
        return np.full(rank, np.nan)
    return np.array([at[0] if len(at) else np.nan for at in found.t_events])


def page(tables: dict[str, pd.DataFrame], dense: pd.DataFrame, seconds: float) -> str:
    """Write the counts of all cases, and those of random targets, as Markdown."""
    every = pd.concat([table.assign(case=name) for name, table in tables.items()])
    numbers = [*(f"> {far:.0%}" for far in FAR), "one side", "order", "unclear", "broken"]
    total = every.groupby("dim")[["runs", *numbers]].sum().reset_index()
    total["worst"] = every.groupby("dim")["worst"].max().values
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "numba"))
    parts = [
        "# Theory against simulation, run by run\n",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, mids {mids.__version__}, {packages}, "
        f"{seconds / 60:.0f} minutes of CPU time. `python -m tests.verification.counted --runs "
        f"{every['runs'].iloc[0]} --random {len(dense)} -o tests/verification/REPORT.md` writes "
        "this page.\n",
        "Each run is predicted from its own initial condition alone. Numbers of runs: with an "
        "escape time off by more than 1, 5, 20 % at some saddle; the worst error; with a saddle "
        "that one side alone knows; with another order of the steps of the ladder than predicted; "
        "with a direction that, predicted or measured, belongs to no single step (the grid of "
        "times may not tell two apart); and in which the order of the ladder is broken.\n",
        "## All cases\n",
        _table(total),
        "\n## Cases\n",
        _table(every[["case", "dim", "runs", *numbers, "worst", "run", "reasons"]]),
    ]
    if len(dense):
        followed = dense[dense["times"] > 0]
        shares = ", ".join(f"{(followed['off'] > far).sum()} by more than {far:.0%}" for far in FAR)
        parts += [
            "\n## Random coupled targets\n",
            f"One run each of {len(dense)} targets of rank 2 to 4 and degree 2 to 5 at d = 1e2 to "
            "1e4 against LSODA on G with H from the tensors, which knows nothing of mids: "
            f"{len(followed)} followed, {followed['times'].sum()} escape times. Runs off: "
            f"{shares}; worst {followed['off'].max():.3g}. Of the predicted times "
            f"{dense['missing'].sum()} are not reached by the reference within {PATIENCE:.0f} s, "
            f"and {dense['unknown'].sum()} that it reaches are not predicted, with a reason.\n",
            _table(followed.nlargest(5, "off")[["case", "dim", "off", "target"]]),
        ]
    return "\n".join(parts) + "\n"


def _table(table: pd.DataFrame) -> str:
    """Table in Markdown."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(object).values.tolist()]
    return "\n".join(
        "| " + " | ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row) + " |"
        for row in rows
    )


@click.command()
@click.option("--dims", default="1e2,1e4,1e6,1e8", help="Ambient dimensions.")
@click.option("--runs", default=200, help="Runs at each dimension.")
@click.option("--seed", default=0, help="Seed of the first case; the next has the next seed.")
@click.option("--only", default="", help="Only cases whose names contain this text.")
@click.option("--random", default=0, help="Random coupled targets, a run each.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File for the page.")
def main(
    dims: str, runs: int, seed: int, only: str, random: int, output: Path | None = None
) -> None:
    """Count the runs that are off, and those whose order is."""
    tables: dict[str, pd.DataFrame] = {}
    began = time.process_time()
    for k, case in enumerate([*races(), *zoo()]):
        if only not in case.name:
            continue
        ds = simulated(case, [float(d) for d in dims.split(",")], runs, seed + k)
        tables[case.name] = count(ds, case.flow)
        click.echo(f"{case.name}: {time.process_time() - began:.0f} s", err=True)
    if not tables:
        raise click.UsageError(f"no case has {only!r} in its name")
    text = page(tables, random_targets(random, seed), time.process_time() - began)
    if output is None:
        click.echo(text)
    else:
        output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
