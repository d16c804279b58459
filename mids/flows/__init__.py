"""Gradient flows on Gaussian multi-index models, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import validation
from ..errors import InputError
from .ambient import Ambient
from .base import Flow, FlowSweep, Neurons, Problem
from .empirical import Empirical
from .joint import Joint
from .online_sgd import OnlineSGD
from .planted import Planted
from .ridge import HermiteKernel
from .two_layer import TwoLayer
from .two_layer_sgd import TwoLayerSGD
from .two_timescale import TwoTimescale

__all__ = [
    "Ambient",
    "Empirical",
    "Flow",
    "FlowSweep",
    "HermiteKernel",
    "Joint",
    "Neurons",
    "OnlineSGD",
    "Planted",
    "Problem",
    "TwoLayer",
    "TwoLayerSGD",
    "TwoTimescale",
    "classes",
    "from_dict",
    "get",
    "names",
]

_FLOWS: dict[str, type[Flow]] = {
    flow.name: flow
    for flow in (
        *(TwoTimescale, Planted, Joint, Ambient, OnlineSGD, Empirical),
        *(TwoLayer, TwoLayerSGD),
    )
}


def names() -> tuple[str, ...]:
    """Names of the flows.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> names()[-2:]
    ('two-layer', 'two-layer-sgd')
    """
    return tuple(_FLOWS)


def classes() -> tuple[type[Flow], ...]:
    """Classes of the flows, in the order of `names`.

    Returns
    -------
    tuple of type

    Examples
    --------
    >>> classes()[0]()
    TwoTimescale(ridge=0.0, kernel=None)
    """
    return tuple(_FLOWS.values())


def get(flow: str | Flow) -> Flow:
    """Return a flow by name, with default parameters; return a flow as it is.

    Parameters
    ----------
    flow : str or Flow

    Returns
    -------
    Flow

    Raises
    ------
    InputError
        If there is no such flow, or it has a parameter without default.

    Examples
    --------
    >>> get("two-timescale")
    TwoTimescale(ridge=0.0, kernel=None)
    """
    if isinstance(flow, Flow):
        return flow
    if not isinstance(flow, str):
        made = isinstance(flow, type) and issubclass(flow, Flow)
        raise InputError(
            f"flow must be a name or a flow, got the class {flow.__name__}; pass {flow.__name__}()"
            if made
            else f"flow must be a name or a flow, got {validation.shown(flow)}; "
            f"the names are {', '.join(names())}"
        )
    return _FLOWS[validation.one_of(flow, names(), "flow")].from_dict({})


def from_dict(data: Mapping[str, Any]) -> Flow:
    """Inverse of `Flow.to_dict`.

    Parameters
    ----------
    data : mapping
        ``name`` and parameters. A flow of your own is known once its module has been imported.

    Returns
    -------
    Flow

    Raises
    ------
    InputError
        If the name or a parameter is wrong.

    Examples
    --------
    >>> from_dict({"name": "two-timescale", "ridge": 0.5})
    TwoTimescale(ridge=0.5, kernel=None)
    """
    if not isinstance(data, Mapping):
        raise InputError(f"a flow must be a mapping with a name, got {validation.shown(data)}")
    parameters = {key: value for key, value in data.items() if key != "name"}
    name = data.get("name")
    own = [flow for flow in _subclasses(Flow) if isinstance(vars(flow).get("name"), str)]
    own = [flow for flow in own if flow.name == name]
    if name not in names() and own:
        return own[-1].from_dict(parameters)
    try:
        validation.one_of(name, names(), "flow name")
    except InputError as error:
        raise InputError(f"{error}; if it is a flow of your own, import its module") from None
    return _FLOWS[str(name)].from_dict(parameters)


def _subclasses(flow: type[Any]) -> list[type[Flow]]:
    """Return all flows that have been defined, the last ones last."""
    return [each for child in flow.__subclasses__() for each in (child, *_subclasses(child))]
