"""Hermite coefficients estimated from samples, with their standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .. import validation
from ..errors import InputError
from ..validation import FloatArray, IntArray
from .basis import hermite_values, mode_label, multi_indices

TOLERATED = 0.05  # moment by which inputs may differ from normal ones, beyond chance


@dataclass(frozen=True, eq=False)
class Estimate:
    """What samples say about every mode up to a degree, whether it is kept or not.

    Attributes
    ----------
    samples : int
        Their number.
    confidence : float
        With which a mode that is kept differs from 0, all modes counted.
    noise : float
        Standard deviation of what the modes leave unexplained: noise, and higher degrees.
    modes : ndarray of int, shape (n, rank)
    coefficients : ndarray, shape (n,)
    covariance : ndarray, shape (n, n)
        Of the coefficients, whatever the law of the noise (White's, with leverages: HC3).
    """

    samples: int
    confidence: float
    noise: float
    modes: IntArray
    coefficients: FloatArray
    covariance: FloatArray

    @property
    def standard_errors(self) -> FloatArray:
        """Standard errors of the coefficients."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def kept(self) -> np.ndarray:
        """Which modes differ from 0 at the confidence, by Bonferroni's bound over all of them."""
        from scipy.special import ndtri

        bound = -ndtri((1.0 - self.confidence) / (2.0 * len(self.modes)))
        size = np.abs(self.coefficients)
        rounding = 1e-12 * size.max()
        return np.asarray(size > bound * self.standard_errors + rounding)

    @property
    def table(self) -> np.ndarray:
        """One row for each mode: its name, degree, coefficient, standard error, whether kept.

        A structured array; ``pandas.DataFrame(target.estimate.table)`` shows it.
        """
        columns = {
            "mode": np.array([mode_label(beta) for beta in self.modes.tolist()]),
            "degree": self.modes.sum(axis=1),
            "coefficient": self.coefficients,
            "standard_error": self.standard_errors,
            "kept": self.kept,
        }
        out = np.empty(len(self.modes), [(name, col.dtype) for name, col in columns.items()])
        for name, values in columns.items():
            out[name] = values
        return out

    def undetected(self, frame: FloatArray, learned: int, order: int) -> float:
        """Most that the component of an order beside what is learned may have unseen."""
        from scipy.special import gammaincinv

        degree = int(self.modes.sum(axis=1).max())
        rng = np.random.default_rng(0)  # any points: the identity of polynomials is exact
        points = rng.standard_normal((4 * len(self.modes), len(frame)))
        turned = np.linalg.lstsq(
            features(points @ frame, self.modes, degree),
            features(points, self.modes, degree),
            rcond=None,
        )[0][self.modes[:, learned:].sum(axis=1) == order]
        spread = turned @ self.covariance @ turned.T
        trace, squares = float(np.trace(spread)), float(np.sum(spread**2))
        found = float(np.linalg.norm(turned @ self.coefficients))
        if squares == 0.0:
            return found
        # The squared error is about a multiple of chi^2 with the same mean and variance.
        freedom, scale = trace**2 / squares, squares / trace
        return found + float(np.sqrt(2.0 * scale * gammaincinv(0.5 * freedom, self.confidence)))


def features(z: FloatArray, modes: IntArray, degree: int) -> FloatArray:
    """Hermite polynomials of points (n, rank), (n, m): a column for each of the modes (m, rank)."""
    values = hermite_values(z, degree)
    out = np.ones((len(z), len(modes)))
    for i in range(z.shape[1]):
        out *= values[:, i, modes[:, i]]
    return out


def read_samples(
    z: ArrayLike, y: ArrayLike, frame: ArrayLike | None
) -> tuple[FloatArray, FloatArray]:
    """Check inputs (n, rank), or (n, d) with a frame (d, rank), and labels (n,) or (n, 1)."""
    points = validation.matrix(z, "z" if frame is None else "X", None, None)
    if frame is not None:
        directions = validation.orthonormal(frame, "frame")
        if points.shape[1] != len(directions):
            raise InputError(
                f"X has {points.shape[1]} columns and frame {len(directions)} rows, but both "
                "need one for each input; pass the matrices of the same network"
            )
        points = points @ directions
    labels = validation.finite_array(y, "y")
    if labels.shape not in {(len(points),), (len(points), 1)}:
        raise InputError(
            f"y must have a label for each of the {len(points)} samples, got shape "
            f"{labels.shape}; pass an array of shape ({len(points)},)"
        )
    return points, labels.ravel()


def estimate(z: FloatArray, y: FloatArray, degree: int, confidence: float) -> Estimate:
    """Regress labels (n,) on all Hermite polynomials of z (n, rank) up to a degree.

    Means of products would spread by what the regression explains, exactly where nothing is noise.
    """
    n, rank = z.shape
    modes = multi_indices(rank, degree)
    if n < 2 * len(modes):
        raise InputError(
            f"{n} samples are too few for the {len(modes)} coefficients of degree {degree} in "
            f"{rank} variables; pass at least {2 * len(modes)}, or a lower degree"
        )
    _check_normal(z)
    # By QR: the normal equations would square the condition number.
    basis, upper = np.linalg.qr(features(z, modes, degree))
    sizes = np.abs(np.diag(upper))
    if sizes.min() < 1e-10 * sizes.max():
        raise InputError(
            f"the inputs take too few values to tell the {len(modes)} coefficients of degree "
            f"{degree} apart, so they are not standard normal; pass others, or a lower degree"
        )
    projected = basis.T @ y
    coefficients = np.linalg.solve(upper, projected)
    rest = y - basis @ projected
    leverage = np.minimum((basis**2).sum(axis=1), 1.0 - 1e-6)
    # HC3: each residual is that of a fit without its own sample.
    inner = basis * (rest / (1.0 - leverage))[:, None]
    # Covariance R^(-1) Q^T diag(e^2) Q R^(-T) of coefficients R^(-1) Q^T y.
    half = np.linalg.solve(upper, inner.T)
    noise = float(np.sqrt((rest**2).sum() / (n - len(modes))))
    return Estimate(n, confidence, noise, modes, coefficients, half @ half.T)


def _check_normal(z: FloatArray) -> None:
    """Refuse inputs that are not standard normal, whose coefficients mean something else."""
    n, rank = z.shape
    low = multi_indices(rank, 2)[1:]
    single = np.eye(rank, dtype=np.int64)
    modes = np.concatenate([low, 3 * single, 4 * single])
    moments = features(z, modes, 4).mean(axis=0)
    worst = int(np.abs(moments).argmax())
    # Six standard errors beside what is tolerated: chance alone hardly ever refuses a sample.
    if abs(moments[worst]) > TOLERATED + 6.0 / np.sqrt(n):
        raise InputError(
            f"the inputs are not standard normal: the mean of {mode_label(modes[worst].tolist())} "
            f"over the samples is {moments[worst]:.3g} instead of 0, and Hermite coefficients say "
            "what is learned on normal inputs alone; subtract the mean and multiply by the inverse "
            "root of the covariance, or sample inputs with numpy.random.Generator.standard_normal"
        )
