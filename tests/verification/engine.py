"""Random targets through the compiled integrator: python -m tests.verification.engine [CASES].

No run may fail, none may be censored on the default grid beyond the share that it promises, and
escape times must be those of an independent integrator where that one is feasible: Dormand and
Prince's method of order 8 on M, compiled, with the correlation written as a polynomial in G. They
may be off by 10 rtol, or by as much as changes of M(0) by rtol, relative to each entry, move them:
where what one direction is left with after an escape nearly cancels, that is more. Cases are kept
in a log as they are done; the same command goes on after the last of them.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import click
import numba
import numpy as np
from scipy.integrate import DOP853
from scipy.special import logit
from scipy.stats import binom

from mids.flows import TwoTimescale
from mids.flows.base import Problem
from mids.flows.initial import draw_runs
from mids.flows.time_grid import LATE
from mids.targets.target import Target

RTOL = 1e-6
ALLOWED = 10.0  # times rtol
DRAWS, CHANGE = 20, 1e-5  # changes of M(0), and how large they are
CENSORED, FAILED = 1, 3
STAGES, WEIGHTS, THIRD, FIFTH = DOP853.A, DOP853.B, DOP853.E3, DOP853.E5


def random_case(rng: np.random.Generator) -> tuple[Target, np.ndarray, int, int]:
    """A target of sparse modes, the rotation of its coordinates, a student rank, a dimension."""
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
    rotation = np.eye(rank)
    if rng.integers(2) and target.degree**rank < 3000:
        rotation = np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    students = max(1, rank + int(rng.integers(-1, 3)))
    dim = max(int(10 ** rng.uniform(1, 8)), rank + students)
    return target, rotation, students, dim


def tables(rows: tuple[int, ...], columns: tuple[int, ...]) -> Any:
    """Matrices of natural numbers with these sums of rows and columns, as tuples of rows."""
    if not rows:
        if not any(columns):
            yield ()
        return
    for row in itertools.product(*(range(min(rows[0], c) + 1) for c in columns)):
        if sum(row) == rows[0]:
            rest = tuple(c - n for c, n in zip(columns, row, strict=True))
            yield from ((row, *below) for below in tables(rows[1:], rest))


def polynomial(target: Target) -> tuple[np.ndarray, np.ndarray]:
    """The correlation ``<f, A_G f>`` over ``|f|^2`` as factors (n,) and powers of G (n, r^2).

    ``<h_b, A_G h_c>`` is ``sqrt(b! c!)`` times the sum of ``prod_ij G_ij^N_ij / N_ij!`` over the
    matrices N of natural numbers with row sums b and column sums c.
    """
    factors, powers = [], []
    pairs = list(zip(target.modes.tolist(), target.coefficients, strict=True))
    for (left, a), (right, b) in itertools.product(pairs, repeat=2):
        if sum(left) == sum(right) > 0:
            factorials = math.prod(map(math.factorial, left + right))
            for table in tables(tuple(left), tuple(right)):
                flat = list(itertools.chain(*table))
                below = math.prod(map(math.factorial, flat))
                factors.append(a * b * math.sqrt(factorials) / below)
                powers.append(flat)
    return np.array(factors) / target.norm**2, np.array(powers)


@numba.njit
def gradient(factors: np.ndarray, powers: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Symmetric gradient of the polynomial."""
    rank = len(gram)
    entries = gram.ravel()
    slope = np.zeros(rank * rank)
    for n in range(len(factors)):
        for i in range(rank * rank):
            if powers[n, i]:
                term = factors[n] * powers[n, i]
                for j in range(rank * rank):
                    for _ in range(powers[n, j] - (i == j)):
                        term *= entries[j]
                slope[i] += term
    square = slope.reshape(rank, rank)
    return (square + square.T) / 2


@numba.njit
def path(
    factors: np.ndarray, powers: np.ndarray, start: np.ndarray, moments: np.ndarray, most: int
) -> np.ndarray:
    """M at some moments, to 1e-11 relative; fewer where more than `most` steps are needed."""
    stage = np.zeros((13, *start.shape))
    found = np.zeros((len(moments), *start.shape))
    matrix, now, width, done = start.copy(), 0.0, 1e-3, 0
    for _ in range(most):
        if done == len(moments):
            break
        step = min(width, moments[done] - now)
        new = matrix
        for i in range(13):
            if i:
                new = matrix.copy()
                for j in range(i):
                    new += step * (STAGES[i, j] if i < 12 else WEIGHTS[j]) * stage[j]
            gram = new @ new.T
            push = gradient(factors, powers, gram) @ new
            stage[i] = push - gram @ push
        third = fifth = 0.0
        for k in np.ndindex(*start.shape):
            scale = 1e-15 + 1e-11 * max(abs(matrix[k]), abs(new[k]))
            three = five = 0.0
            for i in range(13):
                three += THIRD[i] * stage[i][k]
                five += FIFTH[i] * stage[i][k]
            third += (three / scale) ** 2
            fifth += (five / scale) ** 2
        bottom = math.sqrt((fifth + 0.01 * third) * start.size)
        off = step * fifth / bottom if bottom > 0 else 0.0
        factor = min(6.0, max(0.333, 0.9 * (off + 1e-30) ** -0.125))
        if off < 1:
            matrix = new
            if step < width:
                found[done] = matrix
                now, done = moments[done], done + 1
            else:
                now, width = now + step, width * factor
        else:
            width = step * factor
    return found[:done]


def error(
    target: Target, rotation: np.ndarray, start: np.ndarray, crossing: np.ndarray, most: int
) -> float | None:
    """Largest relative error of the times at 1/2; None if the reference takes too many steps."""
    order = np.argsort(crossing)
    order = order[np.isfinite(crossing[order]) & (crossing[order] > 0)]
    if not order.size:
        return None
    at = crossing[order] * target.norm**2
    factors, powers = polynomial(target)
    moments, place = np.unique(at, return_inverse=True)  # directions may pass together
    found = path(factors, powers, rotation.T @ start, moments, most)
    if len(found) < len(moments):
        return None
    worst = 0.0
    for i, matrix, moment in zip(order, found[place], at, strict=True):
        gram = matrix @ matrix.T
        values, vectors = np.linalg.eigh(gram)
        direction, overlap = vectors[:, -1 - i], values[-1 - i]
        growth = 2 * direction @ gradient(factors, powers, gram) @ direction
        worst = max(worst, abs(logit(np.clip(overlap, 1e-9, 1 - 1e-9))) / (growth * moment))
    return float(worst)


def condition(
    target: Target, rotation: np.ndarray, start: np.ndarray, crossing: np.ndarray, most: int
) -> float:
    """Largest relative change of an escape time over that of M(0), among some that are random."""
    normals = np.random.default_rng(0).standard_normal((DRAWS, *start.shape))
    moved = [start * (1 + CHANGE * normal) for normal in normals]
    return max(error(target, rotation, M, crossing, most) or 0.0 for M in moved) / CHANGE


def measure(case: int, runs: int, seed: int, most: int) -> dict[str, Any]:
    """What came out of one case, and in words what it is."""
    target, rotation, students, dim = random_case(np.random.default_rng([seed, case]))
    turned = not np.array_equal(rotation, np.eye(target.rank))
    shown = target.rotate(rotation) if turned else target
    begun = time.process_time()
    initial = draw_runs(target.rank, students, dim, np.arange(runs), case)
    grid = TwoTimescale().default_time(shown, dim, students)
    out = TwoTimescale().integrate(Problem(shown, dim, np.arange(runs), case, initial, grid, RTOL))
    middle = time.process_time()
    crossing = out["crossing_time"][0, :, 1]
    compared = (target, rotation, initial[0], crossing, most)
    off = error(*compared)
    over = off is not None and off > ALLOWED * RTOL
    return {
        "case": case,
        "status": np.bincount(out["status"], minlength=4).tolist(),
        "error": off,
        "condition": condition(*compared) if over else None,
        "seconds": [round(middle - begun, 3), round(time.process_time() - middle, 3)],
        "words": f"case {case}: {target!r}{', rotated' if turned else ''}, q = {students}, "
        f"d = {dim}",
    }


@click.command()
@click.argument("cases", default=300)
@click.option("--runs", default=10, help="Runs of each case.")
@click.option("--seed", default=0, help="Seed of the cases.")
@click.option("--steps", default=20_000, help="Most steps of the reference for one run.")
@click.option(
    "--log", type=click.Path(path_type=Path), default=Path("engine-cases.jsonl"), show_default=True
)
def main(cases: int, runs: int, seed: int, steps: int, log: Path) -> None:
    """Count failed, censored and wrong runs over random targets."""
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    with log.open("a") as file:
        for case in range(len(done), cases):
            done.append(measure(case, runs, seed, steps))
            print(json.dumps(done[-1]), file=file, flush=True)
    statuses = np.array([row["status"] for row in done])
    errors = np.array([row["error"] for row in done if row["error"] is not None])
    failed, censored = statuses[:, FAILED], statuses[:, CENSORED]
    promised = int(binom.ppf(0.999, statuses.sum(), LATE))
    click.echo(
        f"{len(done)} targets, {statuses.sum()} runs: {failed.sum()} failed, {censored.sum()} "
        f"censored (promised: at most {promised})"
    )
    over = [row for row in done if (row["error"] or 0.0) > ALLOWED * RTOL]
    wrong = [row for row in over if row["error"] > row["condition"] * RTOL]
    click.echo(
        f"{errors.size} runs compared with the reference: error of escape times "
        f"{np.median(errors):.1e} in the median, {errors.max(initial=0.0):.1e} at most; "
        f"{len(over)} over {ALLOWED * RTOL:.0e}, {len(wrong)} of them over what changes of M(0) "
        "by rtol make"
    )
    for row in done:
        if row["status"][FAILED] or row["status"][CENSORED] or row in over:
            click.echo(
                f"status {row['status']}, error {row['error']}, condition {row['condition']}: "
                f"{row['words']}"
            )
    if failed.any() or censored.sum() > promised or wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
