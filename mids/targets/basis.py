r"""The orthonormal Hermite basis of :math:`L^2(\gamma_r)`, its quadrature, tensors and series.

:math:`h_k` is the probabilists' Hermite polynomial :math:`He_k` divided by :math:`\sqrt{k!}`, and
:math:`h_\beta(z) = \prod_i h_{\beta_i}(z_i)` for a multi-index :math:`\beta` (paper section 2).
The degree-:math:`k` part of a function is also held as the symmetric tensor :math:`T_k` whose
entry at an index word of content :math:`\beta` is :math:`\alpha_\beta / \sqrt{k! / \beta!}`, so
that :math:`\|T_k\|_F^2 = \sum_{|\beta| = k} \alpha_\beta^2` and a rotation of the variables acts
on every index of :math:`T_k`.
"""

from __future__ import annotations

import functools
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.polynomial.hermite_e import hermegauss, hermemul, poly2herme
from numpy.typing import ArrayLike

from .. import validation
from ..errors import InputError
from ..validation import FloatArray, IntArray

MAX_RANK = 8
MAX_DEGREE = 20
MAX_TENSOR_SIZE = 8**8  # entries of the largest dense tensor, 128 MiB
MAX_NODES = 256  # largest quadrature: beyond it the outermost weights underflow double precision
MAX_POINTS = 5_000_000  # points of the largest quadrature grid
PANELS, FURTHEST = 600, 14.0  # panels of one variable without a choice of nodes, and where they end
LARGEST_DEGREE = 60  # of a link of one variable
PRESENT = 1e-14  # coefficients of a quadrature below this are rounding
ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "erf": lambda z: np.vectorize(math.erf)(z / math.sqrt(2)),
    "quadratic": lambda z: (z**2 - 1) / 2,
    "relu": lambda z: np.maximum(z, 0.0),
    "sigmoid": lambda z: 0.5 * (1.0 + np.tanh(0.5 * z)),
    "tanh": np.tanh,
}
"""Links known by name, besides h1, h2, ..."""
_FACTORIALS = np.array([float(math.factorial(k)) for k in range(2 * MAX_DEGREE + 1)])


def check_size(rank: int, degree: int) -> None:
    """Raise an error if a target is too large."""
    if rank > MAX_RANK or degree > MAX_DEGREE or rank**degree > MAX_TENSOR_SIZE:
        raise InputError(
            f"a target has rank at most {MAX_RANK}, degree at most {MAX_DEGREE} and rank**degree "
            f"at most {MAX_TENSOR_SIZE}, a tensor of {8 * MAX_TENSOR_SIZE >> 20} MiB, got rank "
            f"{rank} and degree {degree}; take {fitting(rank)}"
        )


def fitting(rank: int) -> str:
    """Say which targets have tensors that fit in memory."""
    if rank > MAX_RANK:
        return f"a rank of at most {MAX_RANK}"
    most = max(k for k in range(1, MAX_DEGREE + 1) if rank**k <= MAX_TENSOR_SIZE)
    return f"degrees of at most {most}, or a lower rank"


def constant(given: object) -> InputError:
    """Return the error of a target without a non-constant part."""
    return InputError(
        f"a target needs a non-constant part, got {validation.shown(given)}; "
        "include a variable with a coefficient other than 0"
    )


def canonical(coefficients: Mapping[tuple[int, ...], float]) -> tuple[IntArray, FloatArray]:
    """Check coefficients and return modes and values in canonical order, without zeros."""
    if not isinstance(coefficients, Mapping):
        raise InputError(
            "a target is given by a mapping of multi-indices to coefficients such as "
            f"{{(1, 0): 0.6, (1, 3): 0.8}}, got {validation.shown(coefficients)}; "
            "use Target.parse for text and Target.from_function for functions"
        )
    terms: list[tuple[tuple[int, ...], float]] = []
    for key, value in coefficients.items():
        if not isinstance(key, tuple) or not key:
            raise InputError(
                f"a multi-index must be a non-empty tuple of degrees, got {validation.shown(key)}; "
                "write (2,) for h2(z1)"
            )
        beta = tuple(validation.integer(k, "a degree in a multi-index", at_least=0) for k in key)
        terms.append((beta, validation.number(value, f"the coefficient of {beta}")))
    ranks = {len(beta) for beta, _ in terms}
    if len(ranks) > 1:
        raise InputError(
            f"all multi-indices must have the same length, the rank, got lengths {sorted(ranks)}; "
            "pad the shorter ones with zeros"
        )
    terms = [(beta, value) for beta, value in terms if value]
    if not any(sum(beta) for beta, _ in terms):
        raise constant(dict(coefficients))
    check_size(ranks.pop(), max(sum(beta) for beta, _ in terms))
    terms.sort(key=lambda term: (sum(term[0]), [-k for k in term[0]]))
    norm = math.hypot(*(value for _, value in terms))
    if not 1e-100 <= norm <= 1e100:
        raise InputError(
            f"a target's norm must be between 1e-100 and 1e100, got {norm:g}; rescale it"
        )
    modes = np.array([beta for beta, _ in terms], dtype=np.int64)
    return modes, np.array([value for _, value in terms], dtype=np.float64)


def by_mode(modes: IntArray, coefficients: FloatArray) -> dict[tuple[int, ...], float]:
    """Coefficients by multi-index."""
    return dict(zip(map(tuple, modes.tolist()), coefficients.tolist(), strict=True))


def hermite_values(z: ArrayLike, degree: int) -> FloatArray:
    r"""Evaluate :math:`h_0, \dots, h_p` of z (...) by their recurrence, (..., degree + 1)."""
    points = np.asarray(z, dtype=np.float64)
    values = np.ones((*points.shape, degree + 1))
    if degree >= 1:
        values[..., 1] = points
    for k in range(1, degree):
        values[..., k + 1] = (
            points * values[..., k] - math.sqrt(k) * values[..., k - 1]
        ) / math.sqrt(k + 1)
    return values


def gauss_hermite(n: int) -> tuple[FloatArray, FloatArray]:
    """Return the Gauss quadrature of the standard normal law; returns (n,)."""
    nodes, weights = hermegauss(validation.integer(n, "n", at_least=1, at_most=MAX_NODES))
    return nodes, weights / math.sqrt(2 * math.pi)


def multi_indices(rank: int, degree: int) -> IntArray:
    """List all multi-indices up to a degree in the canonical order of modes; returns (n, rank)."""
    # Index words with letters in ascending order come in the order of modes.
    words = (
        np.array([*combinations_with_replacement(range(rank), k)])[:, :, None]
        for k in range(degree + 1)
    )
    return np.concatenate([(word == np.arange(rank)).sum(axis=1) for word in words])


def mode_label(exponents: Sequence[int]) -> str:
    """Return the readable name of a mode."""
    return "".join(f"h{k}(z{i})" for i, k in enumerate(exponents, start=1) if k) or "1"


def monomial_coefficients(power: int) -> FloatArray:
    """Expand a power of one variable in the Hermite basis, (power + 1,)."""
    return np.asarray(poly2herme([0] * power + [1]) * np.sqrt(_FACTORIALS[: power + 1]))


def product_coefficients(j: int, k: int) -> FloatArray:
    """Expand ``h_j h_k``, of the same variable, in the Hermite basis, (j + k + 1,)."""
    ratio = _FACTORIALS[: j + k + 1] / (_FACTORIALS[j] * _FACTORIALS[k])
    return np.asarray(hermemul([0] * j + [1], [0] * k + [1]) * np.sqrt(ratio))


def multiplicities(exponents: ArrayLike) -> FloatArray:
    r"""Numbers :math:`k! / \beta!` of index words of content :math:`\beta`, (n,)."""
    return np.array(
        [
            math.factorial(sum(beta)) / math.prod(map(math.factorial, beta))
            for beta in np.asarray(exponents).tolist()
        ]
    )


def symmetric_tensors(exponents: ArrayLike, coefficients: ArrayLike) -> tuple[FloatArray, ...]:
    r"""Symmetric tensors :math:`T_0, \dots, T_p` of modes (n, rank) with coefficients (n,)."""
    betas = np.asarray(exponents, dtype=np.int64)
    alphas = np.asarray(coefficients, dtype=np.float64)
    rank = betas.shape[1]
    degrees = betas.sum(axis=1)
    entries = alphas / np.sqrt(multiplicities(betas))
    tensors = []
    for k in range(int(degrees.max(initial=0)) + 1):
        chosen = degrees == k
        if not chosen.any():
            tensors.append(np.zeros((rank,) * k))
            continue
        # The content of an index word is the sum of its letters' keys, in base k + 1.
        letters = (k + 1) ** np.arange(rank, dtype=np.int64)
        words = np.zeros((), dtype=np.int64)
        for _ in range(k):
            words = words[..., np.newaxis] + letters
        keys = betas[chosen] @ letters
        order = np.argsort(keys)
        keys, values = keys[order], entries[chosen][order]
        found = np.minimum(np.searchsorted(keys, words), keys.size - 1)
        tensors.append(np.where(keys[found] == words, values[found], 0.0))
    return tuple(tensors)


def tensor_coefficients(tensors: Sequence[FloatArray]) -> tuple[IntArray, FloatArray]:
    """Return modes (n, rank) and coefficients (n,): the inverse of `symmetric_tensors`."""
    rank = tensors[1].shape[0]
    exponents = multi_indices(rank, len(tensors) - 1)
    degrees = exponents.sum(axis=1)
    values = [
        tensors[k][tuple(np.repeat(np.arange(rank), beta))]
        for k, beta in zip(degrees.tolist(), exponents, strict=True)
    ]
    return exponents, np.array(values) * np.sqrt(multiplicities(exponents))


def apply_to_indices(tensor: FloatArray, matrix: FloatArray) -> FloatArray:
    """Apply a matrix (q, r) to every index of a tensor (r, ..., r)."""
    for _ in range(tensor.ndim):  # each pass consumes the first axis and appends its image
        tensor = np.tensordot(tensor, matrix, axes=(0, 1))
    return tensor


def project(
    function: Callable[[Any], Any],
    rank: int,
    degree: int,
    nodes: int | None = None,
    frame: FloatArray | None = None,
) -> tuple[IntArray, FloatArray, float, float, float]:
    """Project a function, in R^d with a frame (d, rank), on polynomials up to a degree.

    Returns multi-indices (n, rank), coefficients (n,), the norm that is left out, the function's
    precision, and by how much that norm changes with a coarser rule.
    """
    if not callable(function):
        raise InputError(
            f"function must be a callable, got {validation.shown(function)}; pass for example "
            "lambda z: z[..., 0] ** 2"
        )
    most = max(n for n in range(1, MAX_NODES + 1) if n**rank <= MAX_POINTS)
    n = min(most, 100) if nodes is None else validation.integer(nodes, "nodes", at_least=1)
    if not degree < n <= most:
        raise InputError(
            f"nodes must be above degree = {degree} and, for rank {rank}, at most {most} "
            f"({MAX_POINTS:,} points in all), got {n}; pass nodes in between or a lower degree"
        )
    if nodes is None and rank <= 2:  # zero, where many functions have a kink, is an edge
        panels = PANELS // 10 ** (rank - 1)
        fine, coarse = piecewise(panels), piecewise(2 * (panels // 3))
    else:
        fine, coarse = gauss_hermite(n), gauss_hermite(max(3 * n // 4, degree + 1))
    # The change of the norm left out with a coarser rule estimates the error of the quadrature.
    exponents, coefficients, missed, precision = _projected(function, degree, frame, *fine, rank)
    error = abs(missed - _projected(function, degree, frame, *coarse, rank)[2])
    return exponents, coefficients, missed, precision, error


def piecewise(panels: int, end: float = FURTHEST) -> tuple[FloatArray, FloatArray]:
    """Gauss-Legendre rule on even panels, times the density of the standard normal law."""
    x, weights = np.polynomial.legendre.leggauss(8)
    width = 2 * end / panels
    nodes = (width * (np.arange(panels)[:, None] + (1 + x) / 2) - end).ravel()
    density = np.exp(-(nodes**2) / 2) / math.sqrt(2 * math.pi)
    return nodes, np.tile(weights * width / 2, panels) * density


def _projected(
    function: Callable[[Any], Any],
    degree: int,
    frame: FloatArray | None,
    x: FloatArray,
    weights: FloatArray,
    rank: int,
) -> tuple[IntArray, FloatArray, float, float]:
    """As `project`, with one rule on each axis."""
    grid = np.stack(np.meshgrid(*[x] * rank, indexing="ij"), axis=-1).reshape(-1, rank)
    values, precision = _evaluated(function, grid if frame is None else grid @ frame.T)
    if values.shape != grid.shape[:1]:
        raise InputError(
            f"the function must map points of shape {grid.shape} to values of shape "
            f"{grid.shape[:1]}, got {values.shape}; use its variables as z[..., 0], z[..., 1]"
        )
    # With the roots of the weights absorbed, the basis is orthonormal on the grid itself.
    roots = np.sqrt(weights)
    basis = roots[:, np.newaxis] * hermite_values(x, degree)
    values = values.reshape((len(x),) * rank) * functools.reduce(np.multiply.outer, [roots] * rank)
    exponents = multi_indices(rank, degree)
    kept = tuple(exponents.T)
    projection = np.zeros((degree + 1,) * rank)
    projection[kept] = apply_to_indices(values, basis.T)[kept]
    missed = np.linalg.norm(values - apply_to_indices(projection, basis))
    return exponents, projection[kept], float(missed), precision


def _evaluated(function: Callable[[Any], Any], points: FloatArray) -> tuple[FloatArray, float]:
    """Values at points (n, rank) of a function of arrays or torch's tensors, and its precision."""
    torch = sys.modules.get("torch")  # imported already if there are tensors
    given: Any = points
    if torch is not None and isinstance(function, torch.nn.Module):
        weights = next(function.parameters(), torch.zeros((), dtype=torch.float64))
        given = torch.as_tensor(points, dtype=weights.dtype, device=weights.device)
    try:
        try:
            found: Any = function(given)
        except (AttributeError, TypeError):
            # Functions of torch fail on arrays: once more with a tensor.
            if torch is None or given is not points:
                raise
            found = function(torch.as_tensor(points))
    except (TypeError, IndexError) as error:
        raise InputError(
            f"the function failed on points of shape {points.shape} ({error}); it is called with "
            "one array, whose variables are z[:, 0], z[:, 1], ..."
        ) from error
    precision = max(map(_precision, (given, found)))
    values = validation.finite_array(found, "the function's result")
    return (values[:, 0] if values.shape == (len(points), 1) else values), precision


def _precision(values: Any) -> float:
    """Relative rounding error of the type of an array or tensor of floats."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        return float(torch.finfo(values.dtype).eps) if values.is_floating_point() else 0.0
    kind = getattr(values, "dtype", None)
    return float(np.finfo(kind).eps) if getattr(kind, "kind", "") == "f" else 0.0


# -- links of one variable ---------------------------------------------------------------------


def hermite_series(link: object, degree: int | None) -> tuple[FloatArray, float]:
    """Hermite coefficients (degree + 1,) of a name, mapping or list, and the L2 norm left out."""
    kept = validation.integer(
        24 if degree is None else degree, "degree", at_least=1, at_most=LARGEST_DEGREE
    )
    if isinstance(link, str):
        named = re.fullmatch(r"h([0-9]{1,4})", link.strip())
        if named:
            order = int(named[1])
            if not 1 <= order <= LARGEST_DEGREE:
                raise InputError(f"h{order} is not between h1 and h{LARGEST_DEGREE}")
            return np.eye(order + 1)[order], 0.0
        return _named(validation.one_of(link.strip(), ACTIVATIONS, "link or activation"), kept)
    if isinstance(link, Mapping):
        orders = {
            validation.integer(_whole(k), "a degree of the link", at_least=0): k for k in link
        }
        if orders and max(orders) > LARGEST_DEGREE:
            raise InputError(f"degrees of a link are at most {LARGEST_DEGREE}, got {max(orders)}")
        series = np.zeros(max(orders, default=0) + 1)
        for order, key in orders.items():
            series[order] = validation.number(link[key], f"the coefficient of h{order}")
    else:
        series = np.atleast_1d(validation.finite_array(link, "link"))
    if series.ndim != 1 or len(series) > LARGEST_DEGREE + 1 or not series[1:].any():
        raise InputError(
            "a link is a name, a mapping of degrees to coefficients or a list of at most "
            f"{LARGEST_DEGREE + 1} Hermite coefficients that is not constant, got "
            f'{validation.shown(link)}; pass for example "erf", "h3" or {{1: 0.5, 3: 0.2}}'
        )
    return np.trim_zeros(series, "b"), 0.0


def _whole(key: object) -> object:
    return int(key) if isinstance(key, str) and key.isdigit() else key


@functools.lru_cache(maxsize=64)
def _named(name: str, degree: int) -> tuple[FloatArray, float]:
    """Coefficients of a named function, by a quadrature, and the L2 norm of the other degrees."""
    nodes, weights = piecewise(800, 20.0)  # exact for the kink of relu, an edge of panels
    values, basis = ACTIVATIONS[name](nodes), hermite_values(nodes, degree)
    series = basis.T @ (weights * values)
    missed = math.sqrt(weights @ (values - basis @ series) ** 2)
    series = np.trim_zeros(np.where(np.abs(series) < PRESENT, 0.0, series), "b")
    series.setflags(write=False)
    return series, missed if missed > PRESENT else 0.0
