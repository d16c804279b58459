"""Features, links and their regression, in compiled code."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ..readout import Features
from .compile import entry as kept

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
# Sums may be split over the lanes of a vector register.
_VECTORISED = _OPTIONS | {"fastmath": {"contract", "reassoc", "nsz"}}
compiled = njit(**_OPTIONS)
vectorised = njit(**_VECTORISED)


entry = kept(_VECTORISED)


class Link(NamedTuple):
    """The target, and how labels are made from it.

    Shapes: modes (n, r); coefficients (n,).
    """

    modes: np.ndarray
    coefficients: np.ndarray
    noise: float


@compiled
def highest(exponents: np.ndarray) -> int:
    """Highest exponent of one variable, at least 1."""
    highest = 1
    for i in range(exponents.shape[0]):
        for j in range(exponents.shape[1]):
            highest = max(highest, exponents[i, j])
    return highest


@compiled
def _powers(z: np.ndarray, powers: np.ndarray) -> None:
    """Hermite polynomials of each variable."""
    for i in range(z.shape[0]):
        powers[i, 0] = 1.0
        powers[i, 1] = z[i]
        for k in range(1, powers.shape[1] - 1):
            # sqrt(k + 1) h_(k+1) = z h_k - sqrt(k) h_(k-1)
            powers[i, k + 1] = (z[i] * powers[i, k] - math.sqrt(k) * powers[i, k - 1]) / math.sqrt(
                k + 1.0
            )


@compiled
def label(target: Link, z: np.ndarray, powers: np.ndarray) -> float:
    """Value of the target's link function."""
    _powers(z, powers)
    total = 0.0
    for j in range(target.modes.shape[0]):
        term = target.coefficients[j]
        for i in range(target.modes.shape[1]):
            term *= powers[i, target.modes[j, i]]
        total += term
    return total


@vectorised
def wave(angles: np.ndarray, primes: np.ndarray, amplitude: float) -> None:
    """Replace angles by amplitude times their cosines; `primes` gets minus that of the sines.

    Cephes' polynomials on an eighth of a turn, without branches as in `normals`.
    """
    for j in range(angles.shape[0]):
        quarters = math.floor(angles[j] * (2.0 / math.pi) + 0.5)
        t = angles[j] - quarters * (math.pi / 2.0)
        z = t * t
        sine = 1.58962301576546568060e-10 * z - 2.50507477628578072866e-8
        sine = (sine * z + 2.75573136213857245213e-6) * z - 1.98412698295895385996e-4
        sine = (sine * z + 8.33333333332211858878e-3) * z - 1.66666666666666307295e-1
        sine = sine * z * t + t
        cosine = -1.13585365213876817300e-11 * z + 2.08757008419747316778e-9
        cosine = (cosine * z - 2.75573141792967388112e-7) * z + 2.48015872888517045348e-5
        cosine = (cosine * z - 1.38888888888730564116e-3) * z + 4.16666666666665929218e-2
        cosine = cosine * z * z - 0.5 * z + 1.0
        turns = 0.25 * quarters
        turns -= math.floor(turns)  # 0, 1/4, 1/2 or 3/4
        odd = turns == 0.25 or turns == 0.75
        first, second = (sine, cosine) if odd else (cosine, sine)
        # In the four quarters the cosine is c, -s, -c, s of t, and the sine s, c, -s, -c.
        angles[j] = amplitude * (-first if turns == 0.25 or turns == 0.5 else first)
        primes[j] = -amplitude * (-second if turns >= 0.5 else second)


@compiled
def evaluate(
    features: Features, z: np.ndarray, powers: np.ndarray, values: np.ndarray, primes: np.ndarray
) -> None:
    """Values of the features, and of what their derivatives are made from."""
    if features.phases.shape[0] > 0:
        # So the sum of the features' products tends to the Gaussian kernel (Rahimi, Recht 2007).
        amplitude = math.sqrt(2.0 / features.phases.shape[0])
        for j in range(values.shape[0]):
            angle = features.phases[j]
            for i in range(z.shape[0]):
                angle += features.frequencies[j, i] * z[i]
            values[j] = angle
        wave(values, primes, amplitude)
    else:
        _powers(z, powers)
        for j in range(values.shape[0]):
            term = 1.0
            for i in range(z.shape[0]):
                term *= powers[i, features.exponents[j, i]]
            values[j] = term
            primes[j] = term


@compiled
def differentiate(features: Features, link: np.ndarray, slopes: np.ndarray) -> None:
    """Coefficients of each partial derivative of the link in terms of `primes`."""
    for i in range(slopes.shape[0]):
        for j in range(link.shape[0]):
            slopes[i, j] = 0.0
        for j in range(link.shape[0]):
            if features.phases.shape[0] > 0:
                # d_i cos(u . z + a) = -u_i sin(u . z + a), where `primes` are -sin.
                slopes[i, j] = link[j] * features.frequencies[j, i]
            elif features.lower[j, i] >= 0:
                # d_i h_beta = sqrt(beta_i) h_(beta - e_i)
                root = math.sqrt(float(features.exponents[j, i]))
                slopes[i, features.lower[j, i]] += root * link[j]


@vectorised
def dot(one: np.ndarray, two: np.ndarray) -> float:
    total = 0.0
    for j in range(one.shape[0]):
        total += one[j] * two[j]
    return total


@vectorised
def project(frame: np.ndarray, x: np.ndarray, z: np.ndarray) -> None:
    """``z = W^T x`` in the precision of W."""
    for i in range(frame.shape[0]):
        row = frame[i]
        # Begun with a product: a sum begun with 0.0 would be in double precision.
        total = row[0] * x[0]
        for k in range(1, row.shape[0]):
            total += row[k] * x[k]
        z[i] = total


@vectorised
def add(factor: float | np.float32, x: np.ndarray, total: np.ndarray) -> None:
    """Add a multiple of x."""
    for k in range(x.shape[0]):
        total[k] += factor * x[k]


@vectorised
def accumulate(values: np.ndarray, label: float, gram: np.ndarray, moment: np.ndarray) -> None:
    """Add a sample to the sums of the regression."""
    for j in range(values.shape[0]):
        value = values[j]
        moment[j] += value * label
        row = gram[j]
        for k in range(j + 1):
            row[k] += value * values[k]


@vectorised
def fit(
    gram: np.ndarray,
    moment: np.ndarray,
    penalty: np.ndarray,
    ridge: float,
    factor: np.ndarray,
    link: np.ndarray,
) -> None:
    """Ridge regression from its sums, by Cholesky's factorisation."""
    size = link.shape[0]
    # (gram + ridge diag(penalty)) link = moment; only the lower half of gram is held.
    for i in range(size):
        for j in range(i + 1):
            total = gram[i, j]
            if i == j:
                total += ridge * penalty[i]
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            factor[i, j] = math.sqrt(total) if i == j else total / factor[j, j]
    for i in range(size):
        total = moment[i]
        for k in range(i):
            total -= factor[i, k] * link[k]
        link[i] = total / factor[i, i]
    for i in range(size - 1, -1, -1):
        total = link[i]
        for k in range(i + 1, size):
            total -= factor[k, i] * link[k]
        link[i] = total / factor[i, i]
