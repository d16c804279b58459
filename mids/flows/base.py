"""What a flow is: parameters, a check, and trajectories for a block of runs."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np

from .. import validation
from ..errors import InputError
from ..targets.target import Target
from ..validation import FloatArray, IntArray
from .initial import draw_runs

Swept: TypeAlias = Any
"""Also the type of a parameter that is given as a list, one value for each flow of a sweep."""


@dataclass(frozen=True)
class Problem:
    """A block of runs of one dimension, all arguments checked.

    Attributes
    ----------
    target : Target
    dim : int
        Ambient dimension d.
    runs : (n,) int array
        Indices of the runs, which with `seed` and `dim` name their random streams.
    seed : int
    initial : (n, rank, student_rank) float array
        Initial correlation matrices M(0).
    time : (T,) float array
        Increasing, from 0.
    rtol : float
        Relative tolerance of crossing times.

    Examples
    --------
    >>> import numpy as np
    >>> from mids.flows import TwoTimescale
    >>> problem = Problem(
    ...     target=Target.parse("h2(z1)"),
    ...     dim=100,
    ...     runs=np.array([0]),
    ...     seed=0,
    ...     initial=np.array([[[0.1]]]),
    ...     time=np.array([0.0, 1.0, 100.0]),
    ...     rtol=1e-8,
    ... )
    >>> TwoTimescale().integrate(problem)["overlap"].round(3).ravel().tolist()
    [0.01, 0.01, 1.0]
    """

    target: Target
    dim: int
    runs: IntArray
    seed: int
    initial: FloatArray
    time: FloatArray
    rtol: float


class Neurons(NamedTuple):
    """Neurons of unit norm with a fixed second layer.

    Attributes
    ----------
    series : (degree + 1,) float array
        Hermite coefficients of their activation.
    layer : (neurons,) float array
        Second layer.
    squared : bool
        Whether the loss is the squared one.
    rate : float
        Step of descent on samples, over the samples in a batch; 0 for a flow.
    noise : float
        Standard deviation of the noise on the labels.

    Examples
    --------
    >>> from mids import Target, flows
    >>> flow = flows.TwoLayerSGD(activation="h2", step=0.01, batch=10)
    >>> flow.neurons_of(Target.parse("h2(z1)")).rate
    0.001
    """

    series: FloatArray
    layer: FloatArray
    squared: bool
    rate: float
    noise: float


@dataclass(frozen=True)
class Flow(ABC):
    """A gradient flow; subclasses are frozen dataclasses whose fields are its parameters.

    What the methods take and return is said here, once for all flows. Fields that take no part in
    comparisons (``field(compare=False)``), such as where a run keeps its state, are no part of the
    recipe: neither written by `to_dict` nor read by `from_dict`. A list instead of a value, such as
    ``TwoTimescale(ridge=[0, 0.1, 1])``, makes a `FlowSweep`, which `mids.simulate` takes.

    Attributes
    ----------
    name : str
        By which `mids.flows.get` knows it.
    fast_link : bool
        Whether the link is at its optimum, exactly or in a limit, so that the saddles of
        `mids.theory` are those of the flow.
    orthonormal : bool
        Whether the student is a frame of orthonormal columns, so that M(0) has singular values of
        at most 1; else its columns are unit vectors, independent of each other.
    tensors : bool
        Whether it needs the target's tensors, which sums of hundreds of directions do not have.

    Notes
    -----
    The methods have these arguments:

    target : Target
        What is learned.
    dim, dims : int and (n,) int array
        Ambient dimension, the largest one where there are several; all of them.
    student_rank : int
        Columns q of the student.
    runs, seed : (n,) int array and int
        Which name, with `dim`, the random streams.
    initial : (..., rank, student_rank) float array, optional
        Initial correlation matrices M(0), where they are given.
    time : (n,) float array
        The time grid, increasing from 0.
    problem : Problem
        All of these for a block of runs.
    exponent : float or array
        Information exponent of a saddle.
    parameters : mapping
        Fields by name.

    Examples
    --------
    >>> from mids import flows
    >>> flow = flows.get("joint")
    >>> isinstance(flow, Flow), flow.to_dict()["epsilon"], flow == flows.from_dict(flow.to_dict())
    (True, 0.01, True)
    """

    name: ClassVar[str]
    fast_link: ClassVar[bool] = True
    orthonormal: ClassVar[bool] = True
    tensors: ClassVar[bool] = True

    def student_rank(self, target: Target) -> int:
        """Columns of the student where a sweep does not say: the rank of the target.

        Examples
        --------
        >>> from mids import Target, flows
        >>> flows.get("planted").student_rank(Target.parse("h1(z1) + h3(z2)"))
        2
        """
        return target.rank

    def planted_target(self, target: Target) -> Target | None:
        """Target whose planted flow this is, by which its theory goes; None if it is none.

        Examples
        --------
        >>> from mids import Target, flows
        >>> target = Target.parse("h2(z1)")
        >>> flows.get("planted").planted_target(target) == target
        True
        >>> flows.get("two-timescale").planted_target(target) is None
        True
        """
        return None

    @property
    def note(self) -> str:
        """What to know of the flow beside its parameters; "" if nothing.

        Examples
        --------
        >>> from mids import flows
        >>> flows.TwoLayer(activation="relu").note
        'the Hermite series of relu up to degree 24 leaves out an L2 norm of 0.019'
        """
        return ""

    def theory(self, target: Target) -> str:
        """Tell what of a run theory predicts.

        ``"saddles"`` of the student's span; ``"neurons"``, when each of them finds a direction;
        ``"start"``, when the network leaves the plateau of its start; ``""`` if nothing.

        Examples
        --------
        >>> from mids import Target, flows
        >>> flows.get("planted").theory(Target.parse("h2(z1)"))
        'saddles'
        >>> flows.TwoLayer(neurons=2, loss="correlation").theory(Target.parse("h2(z1)"))
        'neurons'
        """
        return "saddles" if self.fast_link or self.planted_target(target) is not None else ""

    def neurons_of(self, target: Target) -> Neurons | None:
        """Neurons of unit norm with a fixed second layer, by which theory goes; None if none.

        Examples
        --------
        >>> from mids import Target, flows
        >>> flow = flows.TwoLayer(neurons=2, activation="h3", loss="correlation")
        >>> found = flow.neurons_of(Target.parse("h3(z1)"))
        >>> found.layer.tolist(), found.series.tolist()
        ([1.0, 1.0], [0.0, 0.0, 0.0, 1.0])
        >>> flows.get("planted").neurons_of(Target.parse("h3(z1)")) is None
        True
        """
        return None

    def draw_initial(
        self, target: Target, student_rank: int, dim: int, runs: IntArray, seed: int
    ) -> FloatArray:
        """Draw the matrices M(0) of runs, shape (n, rank, student_rank), each from its stream.

        Examples
        --------
        >>> import numpy as np
        >>> from mids import Target, flows
        >>> target = Target.parse("h1(z1) + h3(z2)")
        >>> flows.get("two-timescale").draw_initial(target, 2, 100, np.arange(8), seed=0).shape
        (8, 2, 2)
        """
        return draw_runs(target.rank, student_rank, dim, runs, seed)

    def __new__(cls, *values: Any, **parameters: Any) -> Any:
        """Make a flow, or flows where a parameter is a list."""
        names = [field.name for field in dataclasses.fields(cls)]
        given = dict(zip(names, values, strict=False)) | parameters
        accepted = inspect.signature(cls.__init__).parameters  # a subclass may have its own
        if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            for name in parameters:
                validation.one_of(name, [*accepted][1:], f"parameter of {cls.__name__}")
        if any(map(_is_list, given.values())):
            return FlowSweep(cls, given)
        return super().__new__(cls)

    def _set(self, **values: Any) -> None:
        """Replace parameters by their checked values, past the frozen dataclass."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def check(self, target: Target, dims: IntArray, student_rank: int) -> None:  # noqa: B027
        """Raise InputError if the flow cannot run on a target with a student of this rank.

        Examples
        --------
        >>> import numpy as np
        >>> from mids import Target, flows
        >>> flows.get("ambient").check(Target.parse("h2(z1)"), np.array([100]), 1)
        """

    @abstractmethod
    def default_time(
        self, target: Target, dim: int, student_rank: int, initial: FloatArray | None = None
    ) -> FloatArray:
        """Time grid of a sweep that names none; `mids.flows.time_grid` has building blocks.

        Examples
        --------
        >>> from mids import Target, flows
        >>> time = flows.get("two-timescale").default_time(Target.parse("h2(z1)"), 100, 1)
        >>> float(time[0]), bool(time[-1] > 100)
        (0.0, True)
        """

    def run_seconds(self, target: Target, dim: int, student_rank: int, time: FloatArray) -> float:
        """Rough work of one run in seconds, by which runs are put together into blocks.

        Examples
        --------
        >>> from mids import Target, flows
        >>> target, flow = Target.parse("h2(z1)"), flows.get("two-timescale")
        >>> 0 < flow.run_seconds(target, 100, 1, flow.default_time(target, 100, 1)) < 1
        True
        """
        return 5e-4 * target.rank**2

    def coordinates(self, time: FloatArray) -> dict[str, FloatArray | IntArray]:
        """Coordinates of the schema that the flow adds to those of every dataset, by name.

        Examples
        --------
        >>> import numpy as np
        >>> from mids import flows
        >>> flows.OnlineSGD(step=0.1, batch=10).coordinates(np.array([0.0, 1.0]))
        {'samples': array([  0, 100])}
        """
        return {}

    def delay(self, exponent: Any) -> Any:
        """Time by which a finite step delays a saddle, for each e-fold that a correlation grows.

        Examples
        --------
        >>> from mids import flows
        >>> flows.get("two-timescale").delay(2.0)
        0.0
        """
        return 0.0 * exponent

    def effective_target(self, target: Target) -> Target:
        """Target whose correlation ``h(G)`` the flow climbs; the target itself unless weighted.

        Examples
        --------
        >>> from mids import Target, flows
        >>> flows.TwoTimescale(ridge=1.0).effective_target(Target.parse("h2(z1)")).norm ** 2
        0.5000000000000001
        """
        return target

    def variables(self, target: Target) -> tuple[str, ...]:
        """Names of the schema's variables that `integrate` returns.

        Those of a flow on M(t) from M(0); flows that return more or less say so.

        Examples
        --------
        >>> from mids import Target, flows
        >>> flows.get("two-timescale").variables(Target.parse("h2(z1)"))[:2]
        ('loss', 'overlap')
        """
        return (
            "loss",
            "overlap",
            "energy",
            "gram0",
            "initial",
            "correlation",
            "crossing_time",
            "status",
            "n_steps",
            "n_rhs",
        )

    @abstractmethod
    def integrate(self, problem: Problem) -> dict[str, Any]:
        """Trajectories of runs: variables of the schema by name, without the axis ``dim``.

        Examples
        --------
        >>> import numpy as np
        >>> from mids import Target, flows
        >>> problem = flows.Problem(
        ...     target=Target.parse("h1(z1)"),
        ...     dim=100,
        ...     runs=np.array([0]),
        ...     seed=0,
        ...     initial=np.array([[[0.1]]]),
        ...     time=np.array([0.0, 100.0]),
        ...     rtol=1e-8,
        ... )
        >>> flows.get("planted").integrate(problem)["loss"].round(3).tolist()
        [[0.9, 0.0]]
        """

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters in types that JSON knows; `from_dict` reads it.

        Returns
        -------
        dict

        Examples
        --------
        >>> from mids import flows
        >>> flows.TwoTimescale(ridge=0.1).to_dict()
        {'name': 'two-timescale', 'ridge': 0.1, 'kernel': None}
        """
        plain = dataclasses.asdict(self)
        values = {field.name: getattr(self, field.name) for field in _recorded(type(self))}
        return {"name": self.name} | {
            name: value.to_dict() if hasattr(value, "to_dict") else plain[name]
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, parameters: Mapping[str, Any]) -> Self:
        """Flow of this class from its parameters by name.

        Raises
        ------
        InputError
            If a name or value is wrong, or a parameter without default is missing.

        Examples
        --------
        >>> from mids import flows
        >>> flows.TwoTimescale.from_dict({"ridge": 0.1})
        TwoTimescale(ridge=0.1, kernel=None)
        """
        fields = _recorded(cls)
        allowed = tuple(field.name for field in fields)
        for name in parameters:
            if not allowed:
                raise InputError(f"the flow {cls.name!r} has no parameters, got {name!r}")
            validation.one_of(name, allowed, f"parameter of the flow {cls.name!r}")
        for field in fields:
            if field.default is dataclasses.MISSING and field.name not in parameters:
                raise InputError(
                    f"the flow {cls.name!r} needs the parameter {field.name!r}, which has no "
                    f"default; pass mids.flows.{cls.__name__}({field.name}=...), on the command "
                    f"line --flow-option {field.name}=..."
                )
        return cls(**parameters)


@dataclass(frozen=True, eq=False)
class FlowSweep:
    """Flows of one class, for all combinations of the parameters that are given as lists.

    Attributes
    ----------
    flow : type of Flow
    parameters : dict
        By name; lists are swept over.
    axes : dict of str to list
        The parameters that are lists.
    flows : ndarray of Flow
        With an axis for each of `axes`.

    Raises
    ------
    InputError
        If a name or value is wrong, a list empty, or a value in it twice.

    Examples
    --------
    >>> from mids.flows import TwoTimescale
    >>> sweep = TwoTimescale(ridge=[0.0, 0.1])
    >>> sweep.axes, sweep.flows[1]
    ({'ridge': [0.0, 0.1]}, TwoTimescale(ridge=0.1, kernel=None))
    """

    flow: type[Flow]
    parameters: Mapping[str, Any]
    axes: dict[str, list[Any]] = dataclasses.field(init=False)
    flows: np.ndarray = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Make the flows."""
        axes = {
            name: validation.items(v, name) for name, v in self.parameters.items() if _is_list(v)
        }
        flows = np.empty([len(values) for values in axes.values()], dtype=object)
        if not flows.size:
            raise InputError(
                f"the flow {self.flow.name!r} got an empty list; give at least one value"
            )
        combinations = itertools.product(*axes.values())
        for at, values in zip(np.ndindex(flows.shape), combinations, strict=True):
            chosen = dict(zip(axes, values, strict=True))
            flows[at] = self.flow.from_dict({**self.parameters, **chosen})
        if len({str(flow.to_dict()) for flow in flows.flat}) < flows.size:
            raise InputError(
                f"{', '.join(axes)} of the flow {self.flow.name!r} has a value more than once; "
                "list each once"
            )
        self.__dict__.update(axes=axes, flows=flows)


def _is_list(value: object) -> bool:
    return isinstance(value, list | range) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _recorded(flow: type[Flow]) -> list[dataclasses.Field[Any]]:
    """Fields that are part of the recipe."""
    return [field for field in dataclasses.fields(flow) if field.compare]
