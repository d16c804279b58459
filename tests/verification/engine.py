"""Random targets through the compiled integrator: python -m tests.verification.engine [CASES].

No run may fail, none may be censored on the default grid beyond the share that it promises, and
escape times must be those of an independent integrator (SciPy's DOP853 on M) where that one is
feasible.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import click
import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import logit
from scipy.stats import binom

from mids.flows import TwoTimescale
from mids.flows.base import Problem
from mids.flows.initial import draw_runs
from mids.flows.time_grid import LATE
from mids.targets import averaging as operators
from mids.targets.target import Target

RTOL = 1e-6
CENSORED, FAILED = 1, 3


@dataclass
class Counts:
    """What came out, over all cases."""

    runs: int = 0
    failed: int = 0
    censored: int = 0
    beyond: list[str] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


def random_case(rng: np.random.Generator) -> tuple[Target, int, int, str]:
    """A target, a dimension, a student rank, and in words what they are."""
    rank = int(rng.integers(1, 6))
    scale = 10 ** rng.uniform(-6, 6)
    modes: dict[tuple[int, ...], float] = {}
    for i in range(rank):  # every direction counts
        beta = np.zeros(rank, dtype=int)
        beta[i] = rng.integers(1, 8 if rank < 3 else 5)
        others = rng.permutation(rank)[: rng.integers(0, 2)]
        for j in others:
            if beta.sum() < 7:
                beta[j] += 1
        modes[tuple(map(int, beta))] = float(rng.choice([1.0, -1.0]) * 10 ** rng.uniform(-1.5, 0))
    target = Target(modes).normalize() * scale
    turned = bool(rng.integers(2)) and target.degree**target.rank < 3000
    if turned:
        target = target.rotate(np.linalg.qr(rng.standard_normal((rank, rank)))[0])
    students = max(1, rank + int(rng.integers(-1, 3)))
    dim = max(int(10 ** rng.uniform(1, 8)), rank + students)
    words = f"{modes} times {scale:.2g}{', rotated' if turned else ''}, q = {students}, d = {dim}"
    return target, dim, students, words


def error(target: Target, start: np.ndarray, crossing: np.ndarray, patience: float) -> float | None:
    """Largest relative error of the times at 1/2 against DOP853 on M; None if it takes too long."""
    rank, students = start.shape
    norm2 = target.norm**2
    order = np.argsort(crossing)
    order = order[np.isfinite(crossing[order]) & (crossing[order] > 0)]
    if not order.size:
        return None
    deadline = time.process_time() + patience

    def slope(_: float, flat: np.ndarray) -> np.ndarray:
        if time.process_time() > deadline:
            raise TimeoutError
        matrix = flat.reshape(rank, students)
        gram = matrix @ matrix.T
        push = operators.gradient(target, gram) / norm2 @ matrix
        return (push - gram @ push).ravel()

    at = crossing[order] * norm2
    moments, place = np.unique(at, return_inverse=True)  # directions may pass together
    try:
        solved = solve_ivp(
            slope, (0, at[-1]), start.ravel(), "DOP853", moments, rtol=1e-11, atol=1e-15
        )
    except TimeoutError:
        return None
    if solved.status != 0:
        return None
    worst = 0.0
    for i, flat, moment in zip(order, solved.y.T[place], at, strict=True):
        matrix = flat.reshape(rank, students)
        gram = matrix @ matrix.T
        values, vectors = np.linalg.eigh(gram)
        direction, overlap = vectors[:, -1 - i], values[-1 - i]
        growth = 2 * direction @ operators.gradient(target, gram) @ direction / norm2
        worst = max(worst, abs(logit(np.clip(overlap, 1e-9, 1 - 1e-9))) / (growth * moment))
    return float(worst)


@click.command()
@click.argument("cases", default=300)
@click.option("--runs", default=10, help="Runs of each case.")
@click.option("--seed", default=0, help="Seed of the cases.")
@click.option("--patience", default=5.0, help="Seconds for one run of DOP853.")
def main(cases: int, runs: int, seed: int, patience: float) -> None:
    """Count failed, censored and wrong runs over random targets."""
    rng = np.random.default_rng(seed)
    counts = Counts()
    for case in range(cases):
        target, dim, students, words = random_case(rng)
        initial = draw_runs(target.rank, students, dim, np.arange(runs), case)
        grid = TwoTimescale().default_time(target, dim, students)
        problem = Problem(target, dim, np.arange(runs), case, initial, grid, RTOL)
        out = TwoTimescale().integrate(problem)
        counts.runs += runs
        counts.failed += int((out["status"] == FAILED).sum())
        censored = int((out["status"] == CENSORED).sum())
        counts.censored += censored
        if (out["status"] == FAILED).any() or censored > 1:
            counts.beyond.append(f"status {np.bincount(out['status'], minlength=4)}: {words}")
        off = error(target, initial[0], out["crossing_time"][0, :, 1], patience)
        if off is not None:
            counts.errors.append(off)
            if off > 10 * RTOL:
                counts.beyond.append(f"error {off:.1e}: {words}")
    promised = int(binom.ppf(0.999, counts.runs, LATE))
    click.echo(
        f"{cases} targets, {counts.runs} runs: {counts.failed} failed, {counts.censored} censored "
        f"(promised: at most {promised})"
    )
    errors = np.array(counts.errors)
    click.echo(
        f"{errors.size} runs compared with DOP853: error of escape times {np.median(errors):.1e} "
        f"in the median, {errors.max(initial=0.0):.1e} at most, {(errors > 10 * RTOL).sum()} over "
        f"{10 * RTOL:.0e}"
    )
    for line in counts.beyond:
        click.echo(line)
    if counts.failed or counts.censored > promised or (errors > 10 * RTOL).any():
        raise SystemExit(1)


if __name__ == "__main__":
    main()
