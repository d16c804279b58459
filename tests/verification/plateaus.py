"""Recall and precision of `mids.plateaus` beside peers: ``python -m tests.verification.plateaus``.

The constants of the estimator were chosen on other curves: of the same families (Hill functions,
logistic, tanh and sharp falls; exponentials and powers), with other widths, scales and seeds. So
seeds and parameters are held back here, the families are not; minibatch losses are new. A plateau
counts as found where its escape is within 0.15 decades of the truth. Peers: PELT of ruptures
(penalty 2 log n, the true size of the noise), and peaks of the slope of a smoothed curve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import mids

Array = NDArray[np.float64]
NEAR = 0.15
MOMENTS = (1.0, 10.0, 100.0)


def staircase(time: Array, levels: tuple[float, ...], shape: str) -> Array:
    """Curve that leaves levels at about 1, 10 and 100 and ends at zero."""
    drops = -np.diff([*levels, 0.0])
    out = np.full(len(time), levels[0])
    for drop, moment in zip(drops, MOMENTS, strict=True):
        x = time / moment
        if shape == "logistic":
            done = 1 / (1 + np.exp(-np.clip(12.0 * (x - 1.0), -50, 50)))
        elif shape == "tanh":
            done = 0.5 + 0.5 * np.tanh((x - 1.0) / 0.12)
        else:
            done = (x >= 1.0).astype(float)
        out = out - drop * done
    return out


FREE: dict[str, Callable[[Array, float], Array]] = {
    "exponential": lambda t, s: np.exp(-t / s),
    "exponential to a level": lambda t, s: 0.3 + 0.7 * np.exp(-t / s),
    "power law": lambda t, s: (1 + t / s) ** -0.7,
    "slow power law": lambda t, s: (1 + t / s) ** -0.2,
    "stretched exponential": lambda t, s: np.exp(-((t / s) ** 0.6)),
}


def noisy(curve: Array, kind: str, size: float, rng: np.random.Generator) -> Array:
    """Curve with additive, multiplicative or correlated noise."""
    noise = rng.standard_normal(len(curve))
    if kind == "multiplicative":
        return curve * (1 + size * noise)
    if kind == "correlated":
        from scipy.signal import lfilter

        noise[1:] *= 0.6
        noise = lfilter([1.0], [1.0, -0.8], noise)
    return curve + size * noise


def by_mids(time: Array, values: Array, size: float) -> Array:
    """Escape times that `mids.plateaus` finds."""
    found = mids.plateaus(xr.Dataset({"loss": ("time", values)}, {"time": time}))
    return np.asarray(found["halfway_time"].values[found["left"].values])


def by_slope(time: Array, values: Array, size: float) -> Array:
    """Peaks of the slope in log time of a smoothed curve."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks

    x = np.linspace(np.log(time[0]), np.log(time[-1]), 200)
    smooth = gaussian_filter1d(np.interp(x, np.log(time), values), 4.0)
    slope = -np.gradient(smooth, x)
    return np.exp(x[find_peaks(slope, prominence=0.2 * slope.max())[0]])


def by_pelt(time: Array, values: Array, size: float) -> Array:
    """Changes of the mean that PELT finds, at most 400 points, with the true size of the noise."""
    import ruptures  # type: ignore[import-untyped]

    thin = max(len(values) // 400, 1)
    t, v = time[::thin], values[::thin]
    cost = ruptures.Pelt(model="l2", min_size=2, jump=1).fit(v)
    ends = cost.predict(pen=2.0 * np.log(len(v)) * max(size, 1e-6) ** 2)
    return t[np.array(ends[:-1], dtype=int)] if len(ends) > 1 else np.empty(0)


METHODS = {"mids": by_mids, "slope": by_slope, "PELT": by_pelt}


def minibatch(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Minibatch losses of a diagonal linear network trained by SGD; escapes from its full loss."""
    strengths = np.array([3.0, 1.0, 0.3])
    u = np.full(3, 1e-3)
    steps, batch, rate = 30_000, 64, 2e-3
    losses, full = np.empty(steps), np.empty(steps)
    for step in range(steps):
        x = rng.standard_normal((batch, 3))
        error = x @ (u**2 - strengths)
        losses[step] = 0.5 * np.mean(error**2)
        full[step] = 0.5 * np.sum((u**2 - strengths) ** 2)
        u -= rate * 2 * u * (error @ x) / batch
    levels = 0.5 * np.cumsum(strengths[::-1] ** 2)[::-1]
    halves = 0.5 * (levels + np.append(levels[1:], 0.0))
    escapes = np.array([np.argmax(full < half) + 1.0 for half in halves])
    return np.arange(1.0, steps + 1), losses, escapes


def rows(curves: int, seed: int) -> Iterator[tuple[str, list[tuple[Array, Array, Array, float]]]]:
    """Name of a row and its curves: times, values, true escapes, size of the noise."""
    rng = np.random.default_rng([seed, 1_000_003])
    grids = {
        "log, 10 a decade": (np.logspace(-2, 3, 51), (0.01, 0.05, 0.1)),
        "log, 50 a decade": (np.logspace(-2, 3, 251), (0.05, 0.1)),
        "linear, 10 000 points": (np.linspace(0.05, 500, 10_000), (0.05, 0.1)),
    }
    shapes = ("logistic", "tanh", "step")
    for name, (time, sizes) in grids.items():
        for kind in ("additive", "multiplicative", "correlated"):
            for size in sizes:
                if kind == "correlated" and (name.startswith("log, 10") or size > 0.05):
                    continue
                made = []
                for k in range(curves):
                    curve = staircase(time, (1.0, 2 / 3, 1 / 3), shapes[k % 3])
                    made.append((time, noisy(curve, kind, size, rng), np.array(MOMENTS), size))
                yield f"{name}, {kind} {size:.0%}", made
    for per_decade in (10, 50):
        time = np.logspace(-2, 3, 5 * per_decade + 1)
        made = []
        for k in range(curves):
            curve = staircase(time, (34.0, 2.1, 0.125), shapes[k % 3])
            made.append((time, noisy(curve, "multiplicative", 0.01, rng), np.array(MOMENTS), 0.1))
        yield f"levels 34, 2.1, .125, {per_decade} a decade, 1%", made
    made = []
    for _ in range(max(curves // 10, 3)):
        time, values, escapes = minibatch(rng)
        made.append((time, values, escapes, 0.1))
    yield "minibatch losses of a diagonal linear network", made
    for name, (time, sizes) in grids.items():
        for kind in ("additive", "multiplicative"):
            for size in sizes:
                made = []
                for k in range(curves):
                    decay = list(FREE.values())[k % len(FREE)]
                    curve = decay(time, 10 ** rng.uniform(-0.5, 2.0))
                    made.append((time, noisy(curve, kind, size, rng), np.empty(0), size))
                yield f"no plateaus: {name}, {kind} {size:.0%}", made


@click.command()
@click.option("--curves", default=100, help="Curves in each row.")
@click.option("--seed", default=0, help="Seed of the curves.")
@click.option("--only", default="", help="Only rows whose names contain this text.")
def main(curves: int, seed: int, only: str) -> None:
    """Print precision / recall of each method in each row, or what it invents per curve."""
    click.echo("| curves | " + " | ".join(METHODS) + " |\n|---|" + "---|" * len(METHODS))
    for name, made in rows(curves, seed):
        if only not in name:
            continue
        cells = []
        for method in METHODS.values():
            right = found = true = 0
            for time, values, escapes, size in made:
                times = method(time, values, size)
                off = np.abs(np.log10(times[:, None] / escapes)) < NEAR
                right += int(off.any(axis=0).sum())
                found += len(times)
                true += len(escapes)
            cells.append(
                f"{right / max(found, 1):.2f} / {right / true:.2f}"
                if true
                else f"{found / len(made):.2f}"
            )
        click.echo(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
