r"""The target of a Gaussian multi-index model, by the Hermite coefficients of its link function.

A target is :math:`F^*(x) = f^*(W^{*T} x)` with :math:`x \sim N(0, I_d)` and a link
:math:`f^* = \sum_\beta \alpha_\beta h_\beta` on :math:`R^r` (paper section 2). `Target` holds the
coefficients :math:`\alpha_\beta`; neither the frame :math:`W^*` nor the dimension :math:`d`
belongs to it.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike

from .. import validation
from ..errors import InputError
from ..validation import FloatArray, IntArray
from ._parser import expand
from .basis import (
    apply_to_indices,
    by_mode,
    canonical,
    check_size,
    constant,
    hermite_values,
    mode_label,
    project,
    symmetric_tensors,
    tensor_coefficients,
)
from .polynomial import polynomial
from .samples import Estimate, estimate, read_samples

ROUNDING = 1e-14  # relative size of coefficients that are dropped where arithmetic creates them
UNIT = 1e-10  # accuracy of unit and orthogonal directions
RESOLUTION = 1e-10
"""A component below this fraction of its degree's norm counts as absent, a singular value below
this fraction of the largest as zero."""


class Target:
    r"""A link function :math:`f^* = \sum_\beta \alpha_\beta h_\beta`, immutable.

    Parameters
    ----------
    coefficients : mapping of tuple of int to float
        Orthonormal Hermite coefficients :math:`\alpha_\beta` by multi-index :math:`\beta`. All
        keys have the same length, the rank. Zeros are left out.
    name : str, optional
        A label for tables and plots. It takes no part in comparisons.

    Attributes
    ----------
    rank : int
        Number of variables :math:`r`, 1 to 8.
    degree : int
        Highest total degree, at most 20, with ``rank**degree`` at most ``8**8``.
    modes : numpy.ndarray of int64, shape (n, rank)
        Multi-indices with a non-zero coefficient, in the order of
        `mids.targets.basis.multi_indices`.
    coefficients : numpy.ndarray, shape (n,)
        Their coefficients.
    name : str or None
        The label.
    missed_norm : float
        :math:`L^2` norm of what a projection left out; 0 for targets given by coefficients.
    estimate : Estimate or None
        What samples say of all modes, with standard errors, where it is made `from_samples`. It
        takes no part in comparisons and is not written to files.

    Raises
    ------
    InputError
        If there is no non-constant part, a coefficient is not finite, a multi-index is malformed,
        or the rank or degree is too large.

    Examples
    --------
    >>> target = Target({(1, 0): 0.6, (1, 3): 0.8})
    >>> target
    <Target of rank 2, degree 4, norm 1: 0.6 h1(z1) + 0.8 h1(z1)h3(z2)>
    >>> target.information_exponent(), target.information_exponent([[1.0], [0.0]])
    (1, 3)
    """

    kinds: ClassVar[dict[str, tuple[Callable[..., Target], Callable[[str], Target]]]] = {}
    """Other classes of targets by the key of their `to_dict` and the name their text begins with:
    how they are made from the dictionary, and from the text."""

    name: str | None
    missed_norm: float
    estimate: Estimate | None
    rank: int
    degree: int
    modes: IntArray
    coefficients: FloatArray

    def __init__(
        self, coefficients: Mapping[tuple[int, ...], float], *, name: str | None = None
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise InputError(f"name must be a string or None, got {validation.shown(name)}")
        modes, values = canonical(coefficients)
        modes.setflags(write=False)
        values.setflags(write=False)
        self._with(modes=modes, coefficients=values, name=name, missed_norm=0.0, estimate=None)
        self._with(rank=modes.shape[1], degree=int(modes.sum(axis=1).max()))

    def _with(self, **attributes: Any) -> Self:
        """Return this new target with some attributes."""
        self.__dict__.update(attributes)
        return self

    def __setattr__(self, attribute: str, value: object) -> None:
        """Refuse to change: targets are immutable."""
        raise AttributeError(f"a Target is immutable; build another one to change {attribute!r}")

    # -- other ways to build one ----------------------------------------------------------------

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a target from an expression.

        Parameters
        ----------
        text : str
            Sums, products and powers of numbers, variables ``z1``, ``z2``, ..., orthonormal
            Hermite polynomials ``h3(z1)`` or probabilists' ``He3(z1)``, which have the norm
            ``sqrt(6)`` (``sqrt(k!)``), ``sqrt(2)`` and named families such as
            ``staircase(3)`` or ``leaps(1,2,3)``. All is expanded in the Hermite basis and nothing
            is rescaled (see `normalize`). What cancels down to rounding level is dropped.

        Returns
        -------
        Target
            Its rank is the largest variable index used.

        Raises
        ------
        TargetSyntaxError
            If the text cannot be read; the message says where.
        InputError
            If the expression has no non-constant part.

        Examples
        --------
        >>> Target.parse("h1(z1) + 1/2*h1(z1)*h3(z2)")
        <Target of rank 2, degree 4, norm 1.11803: h1(z1) + 0.5 h1(z1)h3(z2)>
        >>> Target.parse("(z1**2 - 1)/sqrt(2)") == Target.parse("h2(z1)")
        True
        >>> round(Target.parse("He3(z1)").norm ** 2, 12)
        6.0
        """
        if not isinstance(text, str):
            raise InputError(
                f"a target's text must be a string, got {validation.shown(text)}; "
                'pass for example "h1(z1) + h1(z1)*h3(z2)"'
            )
        for kind, (_, read) in cls.kinds.items():
            if text.lstrip().startswith(f"{kind}("):
                return read(text)
        coefficients, name = expand(text)
        if not any(map(any, coefficients)):
            raise constant(text)
        return cls(coefficients, name=name)

    @classmethod
    def from_function(
        cls,
        function: Callable[[FloatArray], ArrayLike],
        rank: int,
        degree: int,
        *,
        nodes: int | None = None,
        name: str | None = None,
    ) -> Target:
        r"""Project a function on the Hermite polynomials up to a degree.

        The coefficients :math:`E[f(z) h_\beta(z)]` are computed by Gauss-Hermite quadrature, which
        is exact for polynomials of degree up to ``2 * nodes - 1 - degree``; without `nodes`, for
        one or two variables, by one that is piecewise and exact also for kinks and jumps at zero.
        What the projection leaves out is measured on the same nodes, kept as `missed_norm`.

        Parameters
        ----------
        function : callable
            Takes points of shape (n, rank) and returns values of shape (n,) or (n, 1). It may be a
            module of torch, or a function of tensors.
        rank : int
            Number of variables.
        degree : int
            Highest total degree kept.
        nodes : int, optional
            Nodes of Gauss and Hermite per variable, more than `degree`. By default, for three
            variables or more, as many as fit in five million points, at most 100.
        name : str, optional
            A label.

        Returns
        -------
        Target
            Without the coefficients below 1e-14 of the largest, 1e-5 of functions in single
            precision.

        Warns
        -----
        UserWarning
            If `missed_norm` changes by more than 1 % with fewer nodes; the message says by how
            much.

        Raises
        ------
        InputError
            If the function returns another shape or values that are not finite, or if the grid
            would be too small for the degree or too large.

        Examples
        --------
        >>> Target.from_function(lambda z: z[:, 0] ** 2 + z[:, 1], rank=2, degree=1)
        <Target of rank 2, degree 1, norm 1.41421, missed norm 1.41421: 1 + h1(z2)>
        """
        rank = validation.integer(rank, "rank", at_least=1)
        degree = validation.integer(degree, "degree", at_least=1)
        check_size(rank, degree)
        exponents, coefficients, missed, precision, error = project(function, rank, degree, nodes)
        size = float(np.linalg.norm(coefficients))
        # Where a coarser rule finds another norm left out, neither resolves the function.
        if error > max(0.01 * missed, max(1e-9, 100 * precision) * size):
            warn(
                f"the norm of what is left out, {missed:.4g}, is known to {error:.1g} only, the "
                "function not being smooth; pass other nodes= and compare",
                stacklevel=2,
            )
        return _rounded(
            exponents,
            coefficients,
            name=name,
            missed_norm=missed,
            rounding=max(ROUNDING, 100 * precision),
        )

    @classmethod
    def from_samples(
        cls,
        z: ArrayLike,
        y: ArrayLike,
        frame: ArrayLike | None = None,
        *,
        degree: int = 4,
        confidence: float = 0.99,
        name: str | None = None,
    ) -> Target:
        r"""Estimate the Hermite coefficients from inputs and labels, with standard errors.

        Labels are regressed on all polynomials up to a degree, so that labels without noise of
        that degree give their coefficients exactly. The target keeps the modes that differ from 0;
        what the samples say of all is in `Target.estimate`, a table with standard errors that hold
        for any noise. `mids.ladder` of the target says up to which dimension d its exponents are
        safe from components that the samples cannot tell from 0 (`Leap.holds_to`).

        Parameters
        ----------
        z : array_like, shape (n, rank)
            Inputs in the coordinates of the link, standard normal; with `frame`, all inputs X of
            shape (n, d).
        y : array_like, shape (n,)
            Labels.
        frame : array_like, shape (d, rank), optional
            Directions :math:`W_*`, orthonormal columns: then :math:`z = X W_*`.
        degree : int
            Highest total degree.
        confidence : float
            Probability that no mode is kept whose coefficient is 0.
        name : str, optional
            A label.

        Returns
        -------
        Target
            `missed_norm` is the norm of what the degree leaves out, noise included.

        Raises
        ------
        InputError
            If shapes disagree, samples are too few, the inputs are not standard normal, or no mode
            differs from 0.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> z = rng.standard_normal((20_000, 2))
        >>> y = z[:, 0] + 0.5 * z[:, 0] * z[:, 1] + 0.3 * rng.standard_normal(20_000)
        >>> target = Target.from_samples(z, y, degree=3)
        >>> target.labels, round(float(target.estimate.table["standard_error"][1]), 3)
        (('h1(z1)', 'h1(z1)h1(z2)'), 0.002)
        """
        points, labels = read_samples(z, y, frame)
        degree = validation.integer(degree, "degree", at_least=1)
        check_size(points.shape[1], degree)
        confidence = validation.number(confidence, "confidence", above=0.0, at_most=1 - 1e-12)
        found = estimate(points, labels, degree, confidence)
        kept = found.kept
        if not kept[1:].any():
            raise InputError(
                f"no coefficient up to degree {degree} differs from 0 with {len(points)} samples; "
                "pass more samples, a higher degree, or a lower confidence"
            )
        target = cls(by_mode(found.modes[kept], found.coefficients[kept]), name=name)
        return target._with(missed_norm=found.noise, estimate=found)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Target:
        """Build a target from the dictionary that `to_dict` returns.

        Parameters
        ----------
        data : mapping
            With ``modes``, ``coefficients`` and optionally ``name`` and ``missed_norm``.

        Returns
        -------
        Target
            Equal to the one that was written, bit by bit.

        Raises
        ------
        InputError
            If an entry is missing, unknown or malformed.

        Examples
        --------
        >>> Target.from_dict({"modes": [[2]], "coefficients": [1.0], "name": "square"})
        <Target 'square' of rank 1, degree 2, norm 1: h2(z1)>
        """
        for kind, (restore, _) in cls.kinds.items():
            if isinstance(data, Mapping) and kind in data:
                return restore(data)
        required, optional = {"modes", "coefficients"}, {"name", "missed_norm"}
        if not isinstance(data, Mapping) or not required <= set(data) <= required | optional:
            raise InputError(
                "a stored target is a mapping with modes, coefficients and optionally name and "
                f"missed_norm, got {validation.shown(data)}; write it with Target.to_dict, and "
                "take the target of a dataset from ds.mi.target"
            )
        modes, values = data["modes"], data["coefficients"]
        try:
            coefficients = dict(zip(map(tuple, modes), values, strict=True))
        except (TypeError, ValueError):
            coefficients = {}
        # Equal modes have overwritten each other in the mapping.
        if not coefficients or len(coefficients) < len(values):
            raise InputError(
                "a stored target has a list of distinct modes and as many coefficients, got modes "
                f"{validation.shown(modes)} and coefficients {validation.shown(values)}; "
                "write it with Target.to_dict"
            )
        missed = validation.number(data.get("missed_norm", 0.0), "missed_norm", at_least=0)
        return cls(coefficients, name=data.get("name"))._with(missed_norm=missed)

    @classmethod
    def from_json(cls, text: str) -> Target:
        """Build a target from the string that `to_json` returns.

        Parameters
        ----------
        text : str
            JSON text.

        Returns
        -------
        Target
            Equal to the one that was written, bit by bit.

        Raises
        ------
        InputError
            If the text is not JSON or does not describe a target.

        Examples
        --------
        >>> Target.from_json('{"modes": [[1, 1]], "coefficients": [1.0]}')
        <Target of rank 2, degree 2, norm 1: h1(z1)h1(z2)>
        """
        try:
            data = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"a stored target must be JSON text, got {validation.shown(text)} ({error}); "
                "write it with Target.to_json"
            ) from None
        return cls.from_dict(data)

    def to_dict(self) -> dict[str, Any]:
        """Return the target as a dictionary of lists, floats and strings.

        Returns
        -------
        dict
            The input of `from_dict`. ``name`` and ``missed_norm`` are left out when empty.

        Examples
        --------
        >>> Target.parse("parity(2)").to_dict()
        {'modes': [[1, 1]], 'coefficients': [1.0], 'name': 'parity(2)'}
        """
        further = {"name": self.name, "missed_norm": self.missed_norm or None}
        return self._content() | {key: v for key, v in further.items() if v is not None}

    def _content(self) -> dict[str, Any]:
        """Return what defines the function."""
        return {"modes": self.modes.tolist(), "coefficients": self.coefficients.tolist()}

    def to_json(self) -> str:
        """Return the target as JSON text; `from_json` restores it bit by bit.

        Returns
        -------
        str
            One line.

        Examples
        --------
        >>> Target({(1,): 0.1}).to_json()
        '{"modes": [[1]], "coefficients": [0.1]}'
        """
        return json.dumps(self.to_dict())

    # -- what it is -----------------------------------------------------------------------------

    @property
    def labels(self) -> tuple[str, ...]:
        """Readable names of the modes, such as ``"h1(z1)h3(z2)"``.

        Examples
        --------
        >>> Target.parse("h1(z1) + h1(z1)*h3(z2)").labels
        ('h1(z1)', 'h1(z1)h3(z2)')
        """
        return tuple(mode_label(beta) for beta in self.modes.tolist())

    @property
    def norm(self) -> float:
        r"""The norm :math:`\|f^*\|` in :math:`L^2(\gamma_r)`, constant included.

        Examples
        --------
        >>> Target.parse("3*h1(z1) + 4*h2(z1)").norm
        5.0
        """
        return math.hypot(*self.coefficients.tolist())

    @property
    def dense(self) -> bool:
        """Whether the target is small enough for tensors, and so for every flow.

        Examples
        --------
        >>> from mids.targets import additive
        >>> Target.parse("h3(z1)").dense, additive([1.0] * 64, "h3").dense
        (True, False)
        """
        return True

    @property
    def separable(self) -> tuple[int, FloatArray, FloatArray] | None:
        """Exponent, strengths and directions where these are many and learned one by one.

        That is, of additive targets without tensors: their directions are orthonormal, and the link
        has no h1, which all would share.

        Examples
        --------
        >>> from mids.targets import additive
        >>> Target.parse("h2(z1) + h2(z2)").separable is None
        True
        >>> exponent, strengths, directions = additive([1.0] * 64, "h3").separable
        >>> exponent, strengths.shape, directions.shape
        (3, (64,), (64, 64))
        """
        return None

    @functools.cached_property
    def directions(self) -> FloatArray:
        """Unit vectors that neurons may find, (rank, n): the axes, or those of additive targets.

        Examples
        --------
        >>> Target.parse("h3(z1) + h3(z2)").directions
        array([[1., 0.],
               [0., 1.]])
        """
        return np.eye(self.rank)

    @property
    def orthonormal(self) -> bool:
        """Whether `directions` are orthonormal.

        Examples
        --------
        >>> Target.parse("h3(z1) + h3(z2)").orthonormal
        True
        """
        gram = self.directions.T @ self.directions
        return bool(np.abs(gram - np.eye(len(gram))).max() <= UNIT)

    @property
    def degrees(self) -> IntArray:
        """Total degrees that the target has, increasing.

        Examples
        --------
        >>> Target.parse("1 + h1(z1)*h3(z2)").degrees
        array([0, 4])
        """
        return np.unique(self.modes.sum(axis=1))

    def along(self, degree: int) -> FloatArray | None:
        r"""Coefficients :math:`\alpha_i` of a part :math:`\sum_i \alpha_i h_k(v_i \cdot z)`.

        Parameters
        ----------
        degree : int
            The degree k; a constant counts for the first direction.

        Returns
        -------
        (n,) float array or None
            One for each of `directions`; None where the part of degree k is no such sum.

        Examples
        --------
        >>> target = Target.parse("2*h2(z2) + h1(z1)*h2(z2)")
        >>> target.along(2), target.along(3)
        (array([0., 2.]), None)
        """
        seen = self.modes.sum(axis=1) == degree
        if ((self.modes[seen] > 0).sum(axis=1) > 1).any():
            return None
        out = np.zeros(self.rank)
        out[self.modes[seen].argmax(axis=1)] = self.coefficients[seen]
        return out

    @functools.cached_property
    def tensors(self) -> tuple[FloatArray, ...]:
        r"""Symmetric tensors :math:`T_0, \dots, T_p`; read-only, see `mids.targets.basis`.

        Examples
        --------
        >>> [tensor.shape for tensor in Target.parse("z1*z2").tensors]
        [(), (2,), (2, 2)]
        """
        tensors = symmetric_tensors(self.modes, self.coefficients)
        for tensor in tensors:
            tensor.setflags(write=False)
        return tensors

    def __call__(self, z: ArrayLike) -> FloatArray:
        """Evaluate the link function; z (..., rank); returns (...)."""
        points = self._points(z)
        powers = hermite_values(points, int(self.modes.max()))
        values = np.zeros(points.shape[:-1])
        for beta, coefficient in zip(self.modes.tolist(), self.coefficients.tolist(), strict=True):
            factors = (powers[..., i, k] for i, k in enumerate(beta) if k)
            values += functools.reduce(np.multiply, factors, coefficient)
        return values

    def _points(self, z: ArrayLike) -> FloatArray:
        """Check points (..., rank)."""
        points = validation.finite_array(z, "z")
        if points.ndim == 0 or points.shape[-1] != self.rank:
            raise InputError(
                f"z must have shape (..., rank) = (..., {self.rank}), got {points.shape}; "
                "put the variables on the last axis"
            )
        return points

    def information_exponent(self, subspace: ArrayLike | None = None) -> int | None:
        r"""Return the information exponent, relative to a learned subspace if one is given.

        Without a subspace it is :math:`\min\{|\beta| > 0 : \alpha_\beta \ne 0\}` (paper eq. 58).
        Relative to :math:`U` it is the least :math:`k \ge 1` such that the components of the link
        of degree :math:`k` in the variables of :math:`U^\perp`, of any degree in those of
        :math:`U`, do not vanish. It does not change when target and subspace are rotated together.

        Parameters
        ----------
        subspace : array_like of float, shape (rank, k), optional
            Columns that span :math:`U`; they need be neither orthonormal nor independent.

        Returns
        -------
        int or None
            None if the link does not depend on :math:`U^\perp`. A component counts as absent
            below 1e-10 of the norm of its total degree, a spanning direction below 1e-10 of the
            largest.

        Raises
        ------
        InputError
            If `subspace` is not finite or has another number of rows than the rank.

        Examples
        --------
        >>> target = Target.parse("h1(z1) + h1(z1)*h3(z2)")
        >>> target.information_exponent(), target.information_exponent([[1], [0]])
        (1, 3)
        """
        degrees = self.modes.sum(axis=1)
        if subspace is None:
            return int(degrees[degrees > 0].min())
        span = validation.matrix(subspace, "subspace", self.rank, None)
        # In a frame whose first vectors span U, degrees in the others are those in U-perp.
        frame, sizes, _ = np.linalg.svd(span)
        learned = int((sizes > RESOLUTION * sizes.max(initial=0.0)).sum())
        table, coefficients = polynomial(self)
        moved = table.substitute(coefficients[:, None], frame[None])[:, 0]
        total, unlearned = table.modes.sum(axis=1), table.modes[:, learned:].sum(axis=1)
        weights = np.zeros((self.degree + 1, self.degree + 1))
        np.add.at(weights, (total, unlearned), table.weight * moved**2)
        present = (weights > RESOLUTION**2 * weights.sum(axis=1, keepdims=True)).any(axis=0)[1:]
        return int(present.argmax()) + 1 if present.any() else None

    # -- changes --------------------------------------------------------------------------------

    def normalize(self) -> Target:
        """Return the target scaled to unit norm.

        Returns
        -------
        Target
            With the same name; `missed_norm` is scaled too.

        Examples
        --------
        >>> Target.parse("3*h1(z1) + 4*h2(z1)").normalize()
        <Target of rank 1, degree 2, norm 1: 0.6 h1(z1) + 0.8 h2(z1)>
        """
        scaled = Target(by_mode(self.modes, self.coefficients / self.norm), name=self.name)
        return scaled._with(missed_norm=self.missed_norm / self.norm)

    def rotate(self, rotation: ArrayLike) -> Target:
        r"""Return the rotated target :math:`z \mapsto f^*(Q^T z)`.

        :math:`Q` acts on every index of the tensors, and the flow commutes with
        :math:`G \to Q G Q^T`, :math:`M \to Q M`.

        Parameters
        ----------
        rotation : array_like of float, shape (rank, rank)
            The orthogonal matrix :math:`Q`.

        Returns
        -------
        Target
            Without a name, and without the coefficients below 1e-14 of the largest.

        Raises
        ------
        InputError
            If the matrix is not orthogonal to 1e-10 or has another shape.

        Examples
        --------
        >>> Target.parse("h1(z1)").rotate([[-1.0]])
        <Target of rank 1, degree 1, norm 1: -h1(z1)>
        """
        # By tensors: the shears of polynomials add errors of 1e-13, which grow at the largest dims.
        Q = self._rotation(rotation)
        tensors = [apply_to_indices(tensor, Q) for tensor in self.tensors]
        return _rounded(*tensor_coefficients(tensors), name=None, missed_norm=self.missed_norm)

    def _rotation(self, rotation: ArrayLike) -> FloatArray:
        """Check an orthogonal matrix (rank, rank)."""
        Q = validation.matrix(rotation, "rotation", self.rank, self.rank)
        deviation = np.abs(Q.T @ Q - np.eye(self.rank)).max()
        if deviation > 1e-10:
            raise InputError(
                f"rotation must be orthogonal, got {validation.shown(Q.tolist())} with entries of "
                f"Q^T Q - I up to {deviation:.1e}; make it so, for example by np.linalg.qr(Q)[0]"
            )
        return Q

    def __add__(self, other: object) -> Target:
        """Add another target, of any rank; what cancels is dropped, missed norms add up."""
        if not isinstance(other, Target):
            return NotImplemented
        rank = max(self.rank, other.rank)
        total: dict[tuple[int, ...], list[float]] = {}
        for target in (self, other):
            if not len(target.modes):
                _ = target.tensors  # says which targets have them
            for beta, value in by_mode(target.modes, target.coefficients).items():
                total.setdefault((*beta, *(0,) * (rank - len(beta))), []).append(value)
        kept = {
            beta: sum(values)
            for beta, values in total.items()
            if abs(sum(values)) > ROUNDING * max(map(abs, values))
        }
        return Target(kept)._with(missed_norm=self.missed_norm + other.missed_norm)

    def __mul__(self, factor: object) -> Target:
        """Multiply by a number."""
        if isinstance(factor, bool) or not isinstance(factor, int | float | np.number):
            return NotImplemented
        factor = validation.number(float(factor), "factor")
        target = Target(by_mode(self.modes, self.coefficients * factor))
        return target._with(missed_norm=self.missed_norm * abs(factor))

    __rmul__ = __mul__

    # -- comparison and display -----------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """Compare modes and coefficients exactly; names do not matter."""
        if not isinstance(other, Target):
            return NotImplemented
        return np.array_equal(self.modes, other.modes) and np.array_equal(
            self.coefficients, other.coefficients
        )

    def __hash__(self) -> int:
        """Return a hash of modes and coefficients."""
        return hash((self.rank, self.modes.tobytes(), self.coefficients.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as `to_dict` and its samples, without cached tensors."""
        return Target.from_dict, (self.to_dict(),), self.estimate and {"estimate": self.estimate}

    def _expansion(self, count: int, number: Callable[[float], str], times: str) -> str:
        terms = []
        for c, beta in zip(self.coefficients[:count].tolist(), self.modes.tolist(), strict=False):
            label = mode_label(beta)
            sign = "-" if c < 0 else "+"
            size = number(abs(c))
            if label == "1":
                terms.append(f"{sign} {size}")
            else:
                terms.append(
                    f"{sign} {label}" if float(size) == 1 else f"{sign} {size}{times}{label}"
                )
        terms[0] = terms[0].removeprefix("+ ").replace("- ", "-")
        return " ".join(terms)

    def __str__(self) -> str:
        """Return the expansion as an expression that `parse` reads back exactly."""
        text = self._expansion(len(self.modes), repr, "*")
        # Text that does not name the last variable would be read as a target of lower rank.
        return text if self.modes[:, -1].any() else f"{text} + 0*z{self.rank}"

    def __format__(self, spec: str) -> str:
        """Return the expansion with the coefficients in a format such as ``.6g``."""
        if not spec:
            return str(self)
        return self._expansion(len(self.modes), lambda size: format(size, spec), "*")

    def __repr__(self) -> str:
        """Return name, sizes and the first terms."""
        name = "" if self.name is None else f" {self.name!r}"
        missed = f", missed norm {self.missed_norm:.6g}" if self.missed_norm else ""
        return (
            f"<{type(self).__name__}{name} of rank {self.rank}, degree {self.degree}, "
            f"norm {self.norm:.6g}{missed}: {self._described}>"
        )

    @property
    def _described(self) -> str:
        more = f" + ... ({len(self.modes)} modes)" if len(self.modes) > 5 else ""
        return self._expansion(5, "{:.6g}".format, " ") + more


def _rounded(
    exponents: IntArray,
    coefficients: FloatArray,
    *,
    name: str | None,
    missed_norm: float,
    rounding: float = ROUNDING,
) -> Target:
    """Build a target from computed coefficients, without those at rounding level."""
    kept = np.abs(coefficients) > rounding * np.abs(coefficients).max()
    target = Target(by_mode(exponents[kept], coefficients[kept]), name=name)
    return target._with(missed_norm=missed_norm)


def as_target(target: object) -> Target:
    """Return a target, or read its text."""
    if isinstance(target, str):
        return Target.parse(target)
    if isinstance(target, Mapping) and not hasattr(target, "data_vars"):  # no dataset
        return Target.from_dict(target)
    if isinstance(target, Target):
        return target
    cure = 'pass for example "h1(z1) + h1(z1)*h3(z2)"'
    if callable(target):
        cure = "pass mids.Target.from_function(function, rank=1, degree=10)"
    elif hasattr(target, "data_vars"):
        cure = "pass ds.mi.target, the target of a dataset"
    raise InputError(f"target must be a Target or its text, got {validation.shown(target)}; {cure}")
