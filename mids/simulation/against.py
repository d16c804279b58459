"""The same runs under several flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from .. import validation
from ..errors import InputError
from ..flows import get
from ..flows.base import Flow
from ..targets.target import Target
from .simulate import simulate

__all__ = ["against"]


def against(
    target: Target | str,
    flows: Sequence[str | Flow] | Mapping[str, str | Flow],
    **arguments: Any,
) -> xr.DataTree:
    """Simulate the same runs under several flows, from the same initial conditions.

    Parameters
    ----------
    target : Target or str
        As for `mids.simulate`.
    flows : sequence or mapping of str or Flow
        The flows to hold against each other; a mapping names them, a sequence takes their own
        names, which must then differ.
    **arguments
        The other arguments of `mids.simulate`. Streams depend on the seed, the dimension and the
        run only, so that each run starts from the same M(0) in all flows. If no time is given, the
        default grid that ends last is the grid of all.

    Returns
    -------
    xarray.DataTree
        One lazy dataset of `mids.simulate` for each flow, on one time grid. `mids.plot.against`
        draws it; ``tree["planted"].to_dataset()`` is a dataset like any other.

    Raises
    ------
    InputError
        If an argument is wrong.

    Examples
    --------
    >>> tree = against("h3(z1)", ["two-timescale", "planted"], dim=1e4, runs=20)
    >>> list(tree), tree["planted"].sizes["run"]
    (['two-timescale', 'planted'], 20)
    >>> fast, known = (tree[name].ds.compute() for name in tree)
    >>> bool((fast.gram0 == known.gram0).all())
    True
    >>> int((fast.status == 2).sum()), int((known.status == 2).sum()) > 3
    (0, True)
    """
    named = _named(flows)
    if "flow" in arguments:
        raise InputError("against takes flows=[...], not flow=; list every flow there")
    datasets = {name: simulate(target, flow=flow, **arguments) for name, flow in named.items()}
    if arguments.get("time") is None:
        longest = max((ds.indexes["time"] for ds in datasets.values()), key=lambda time: time[-1])
        arguments["time"] = longest.to_numpy()
        datasets = {name: simulate(target, flow=flow, **arguments) for name, flow in named.items()}
    return xr.DataTree.from_dict(dict(datasets))


def _named(flows: Sequence[str | Flow] | Mapping[str, str | Flow]) -> dict[str, Flow]:
    if isinstance(flows, Mapping):
        for name in flows:
            if not isinstance(name, str) or "/" in name or not name:
                raise InputError(
                    f"names of flows must be texts without a slash, got {validation.shown(name)}; "
                    'pass for example {"known link": "planted"}'
                )
        return {name: get(flow) for name, flow in flows.items()}
    if isinstance(flows, str) or not isinstance(flows, Sequence) or not flows:
        raise InputError(
            f"flows must be a list or a mapping of flows, got {validation.shown(flows)}; "
            'pass for example ["two-timescale", "planted"]'
        )
    found = [get(flow) for flow in flows]
    names = [flow.name for flow in found]
    if len(set(names)) < len(names):
        raise InputError(
            f"flows has {validation.shown(names)}, but names must differ; name them, for example "
            '{"fast": Joint(epsilon=1e-3), "slow": Joint(epsilon=1)}'
        )
    return dict(zip(names, found, strict=True))
