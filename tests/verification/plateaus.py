"""Recall and precision of `mids.plateaus` beside peers: ``python -m tests.verification.plateaus``.

The curves fall as error functions, as exp(-t^8) and as the flow u' = u^2 (1 - u), and those without
plateaus are mixtures, powers and stretched exponentials with random exponents. Networks are
trained by SGD; their escapes are peaks of the slope of the noise-free population loss. A plateau
counts as found where its escape is within 0.15 decades of the truth. Peers: PELT of ruptures
(penalty 2 log n, given the true size of the noise), and peaks of the slope of a smoothed curve.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial

import click
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import erf

import mids

Array = NDArray[np.float64]
NEAR = 0.15


def flow(x: Array) -> Array:
    """Rise of u' = u^2 (1 - u), which passes 1/2 at x = 1, from 1/9."""
    from scipy.interpolate import PchipInterpolator

    u = 1.0 / (1.0 + np.exp(np.linspace(np.log(8.0), -30.0, 2000)))
    time = np.log(u / (1.0 - u)) - 1.0 / u
    time = (time - time[0]) / (np.interp(0.5, u, time) - time[0])
    return np.asarray(np.where(x < time[-1], PchipInterpolator(time, u, extrapolate=False)(x), 1.0))


SHAPES: dict[str, Callable[[Array], Array]] = {
    "error function": lambda x: 0.5 + 0.5 * erf(np.log(x) / 0.2),
    "sharp": lambda x: -np.expm1(-np.log(2.0) * np.minimum(x, 5.0) ** 8),
    "flow": flow,
}


def staircase(time: Array, levels: tuple[float, ...], shape: str, moments: Array) -> Array:
    """Curve that leaves levels at given times and ends at zero."""
    drops = -np.diff([*levels, 0.0])
    falls = [d * SHAPES[shape](time / t) for d, t in zip(drops, moments, strict=True)]
    return np.asarray(levels[0] - np.sum(falls, axis=0))


def decay(time: Array, kind: int, rng: np.random.Generator) -> Array:
    """Curve without plateaus, of one of five kinds."""
    x = time / 10 ** rng.uniform(-0.5, 2.0)
    if kind == 0:
        share = rng.uniform(0.2, 0.8)
        return share * np.exp(-x) + (1.0 - share) * np.exp(-x / rng.uniform(2.0, 30.0))
    if kind == 1:
        return 0.2 + 0.8 * np.exp(-x)
    if kind == 2:
        return (1.0 + x) ** -rng.uniform(0.15, 2.0)
    if kind == 3:
        return np.exp(-(x ** rng.uniform(0.4, 0.9)))
    return 1.0 / (1.0 + np.log1p(x))


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
    search = ruptures.KernelCPD(kernel="linear", min_size=2).fit(v)  # PELT in C, least squares
    ends = search.predict(pen=2.0 * np.log(len(v)) * max(size, 1e-6) ** 2)
    return t[np.array(ends[:-1], dtype=int)] if len(ends) > 1 else np.empty(0)


METHODS = {"mids": by_mids, "slope": by_slope, "PELT": by_pelt}


Curves = list[tuple[Array, Array, Array, float]]
"""Times, values, true escapes, and the size of the noise."""


def diagonal(runs: int, rng: np.random.Generator) -> Curves:
    """Minibatch losses of diagonal linear networks trained by SGD."""
    strengths = np.array([3.0, 1.0, 0.3])
    u = np.full((runs, 3), 1e-3) * rng.uniform(0.5, 2.0, (runs, 1))
    steps, batch, rate = 20_000, 64, 2e-3
    losses, full = np.empty((runs, steps)), np.empty((runs, steps))
    for step in range(steps):
        x = rng.standard_normal((runs, batch, 3))
        error = (x @ (u**2 - strengths)[:, :, None])[..., 0]
        losses[:, step] = 0.5 * np.mean(error**2, axis=1)
        full[:, step] = 0.5 * np.sum((u**2 - strengths) ** 2, axis=1)
        u -= rate * 2 * u * (error[:, None] @ x)[:, 0] / batch
    time = np.arange(1.0, steps + 1)
    return [(time, loss, turns(time, known), 0.1) for loss, known in zip(losses, full, strict=True)]


def network(runs: int, rng: np.random.Generator) -> Curves:
    """Minibatch losses of two-layer ReLU networks that learn three ReLU neurons by SGD."""
    teacher, dim, width, batch, rate, steps = np.array([3.0, -1.0, 0.4]), 6, 12, 32, 0.05, 6000
    w = 1e-4 * rng.standard_normal((runs, width, dim))
    a = np.linalg.norm(w, axis=-1) * rng.choice([-1.0, 1.0], (runs, width))
    at = np.unique(np.geomspace(1, steps, 400).astype(int))
    frame = np.broadcast_to(np.eye(dim)[: len(teacher)], (runs, len(teacher), dim))
    losses, full = np.empty((runs, steps)), []
    for step in range(steps):
        if step + 1 in at:
            both = np.concatenate([a, np.broadcast_to(-teacher, (runs, len(teacher)))], axis=1)
            product = relu_product(np.concatenate([w, frame], axis=1))
            full.append(0.5 * np.einsum("ri,rj,rij->r", both, both, product))
        x = rng.standard_normal((runs, batch, dim))
        hidden = np.maximum(x @ w.swapaxes(1, 2), 0.0)
        error = (hidden @ a[:, :, None])[..., 0]
        error -= np.maximum(x[..., : len(teacher)], 0.0) @ teacher
        losses[:, step] = 0.5 * np.mean(error**2, axis=1)
        slope = (error[:, None] @ hidden)[:, 0] / batch
        back = error[:, :, None] * (hidden > 0) * a[:, None]
        w -= rate * (back.swapaxes(1, 2) @ x) / batch
        a -= rate * slope
    time = np.arange(1.0, steps + 1)
    return [
        (time, loss, turns(at, known), 0.1)
        for loss, known in zip(losses, np.transpose(full), strict=True)
    ]


def relu_product(w: Array) -> Array:
    """Means (runs, n, n) of products of relu(w x) over normal x, for weights (runs, n, dim)."""
    norm = np.linalg.norm(w, axis=-1)
    size = norm[..., :, None] * norm[..., None, :]
    c = np.clip((w @ w.swapaxes(1, 2)) / size, -1.0, 1.0)
    return np.asarray(size * (np.sqrt(1.0 - c**2) + (np.pi - np.arccos(c)) * c) / (2.0 * np.pi))


def turns(time: Array, loss: Array) -> Array:
    """Peaks of the slope in log time of a loss without noise, each a fall of a tenth or more."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks

    x = np.linspace(0.0, np.log(time[-1]), 1000)
    smooth = gaussian_filter1d(np.interp(x, np.log(time), loss), 5.0)
    slope = -np.gradient(smooth, x)
    peaks, found = find_peaks(slope, prominence=0.0)
    large = found["prominences"] > np.maximum(0.3 * smooth[peaks], 5e-3 * smooth[0])
    return np.asarray(np.exp(x[peaks[large]]))


def rows(curves: int, seed: int) -> Iterator[tuple[str, Callable[[], Curves]]]:
    """Name of a row and what makes its curves."""
    grids = {
        "log, 10 a decade": (np.logspace(-2, 3, 51), (0.01, 0.05, 0.1)),
        "log, 50 a decade": (np.logspace(-2, 3, 251), (0.05, 0.1)),
        "linear, 10 000 points": (np.linspace(0.05, 500, 10_000), (0.05, 0.1)),
    }

    def stairs(name: str, time: Array, kind: str, size: float, levels: tuple[float, ...]) -> Curves:
        rng = np.random.default_rng([seed, *name.encode()])
        made = []
        for k in range(curves):
            moments = np.array([1.0, 10.0, 100.0]) * 10 ** rng.uniform(-0.1, 0.1, 3)
            curve = staircase(time, levels, list(SHAPES)[k % len(SHAPES)], moments)
            made.append((time, noisy(curve, kind, size, rng), moments, size))
        return made

    def free(name: str, time: Array, kind: str, size: float) -> Curves:
        rng = np.random.default_rng([seed, *name.encode()])
        return [
            (time, noisy(decay(time, k % 5, rng), kind, size, rng), np.empty(0), size)
            for k in range(curves)
        ]

    three, wide = (1.0, 2 / 3, 1 / 3), (34.0, 2.1, 0.125)
    for grid, (time, sizes) in grids.items():
        for kind in ("additive", "multiplicative", "correlated"):
            for size in sizes[-2:] if kind == "correlated" else sizes:
                if kind == "correlated" and size > 0.05:
                    continue
                name = f"{grid}, {kind} {size:.0%}"
                yield name, partial(stairs, name, time, kind, size, three)
    for per_decade in (10, 50):
        time = np.logspace(-2, 3, 5 * per_decade + 1)
        name = f"levels 34, 2.1, .125, {per_decade} a decade, multiplicative 1%"
        yield name, partial(stairs, name, time, "multiplicative", 0.01, wide)
    for make in (diagonal, network):
        what = "diagonal linear" if make is diagonal else "two-layer ReLU"
        rng = np.random.default_rng([seed, len(what)])
        yield f"minibatch losses, {what} network", partial(make, curves, rng)
    for grid, (time, sizes) in grids.items():
        for kind in ("additive", "multiplicative", "correlated"):
            for size in sizes:
                if kind == "correlated" and size != 0.05:
                    continue
                name = f"no plateaus: {grid}, {kind} {size:.0%}"
                yield name, partial(free, name, time, kind, size)


@click.command()
@click.option("--curves", default=100, help="Curves in each row.")
@click.option("--seed", default=0, help="Seed of the curves.")
@click.option("--only", default="", help="Only rows whose names match this pattern.")
def main(curves: int, seed: int, only: str) -> None:
    """Print precision / recall of each method in each row, or what it invents per curve."""
    click.echo("| curves | " + " | ".join(METHODS) + " |\n|---|" + "---|" * len(METHODS))
    for name, make in rows(curves, seed):
        if not re.search(only, name):
            continue
        made = make()
        cells = []
        for method in METHODS.values():
            right = found = true = 0
            for time, values, escapes, size in made:
                times = method(time, values, size)
                near = np.abs(np.log10(times[:, None] / escapes)) < NEAR
                right += int(near[linear_sum_assignment(near, maximize=True)].sum())
                found += len(times)
                true += len(escapes)
            cells.append(
                f"{right / max(found, 1):.2f} / {right / true:.2f}"
                if true
                else f"{found / len(made):.2f}"
            )
        click.echo(f"| {name} | {' | '.join(cells)} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
