"""Datasets of gradient flow on Gaussian multi-index models: simulate, analyse, share.

Everything listed in ``mids.__all__`` is imported on first use. Importing the package registers the
accessor ``mi`` on xarray objects.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

try:
    from . import accessor as accessor  # registers ``ds.mi``
    from .simulate import replay, simulate
except KeyboardInterrupt:
    if os.path.basename(sys.argv[0]).partition(".")[0] != "mids":
        raise
    print("interrupted", file=sys.stderr)  # the command has begun nothing yet
    sys.exit(130)

if TYPE_CHECKING:
    from . import catalog, errors, flows, plot, targets
    from ._against import against
    from ._phase_diagram import phase_diagram
    from .accessor import describe
    from .analysis.compare import compare
    from .analysis.plateaus import plateaus
    from .analysis.saddles import saddles
    from .analysis.scaling import scaling
    from .analysis.theory import theory
    from .analysis.traps import traps
    from .catalog import open_catalog
    from .generation import generate
    from .io import open_dataset, to_netcdf
    from .ladder import leaps
    from .schema import validate
    from .targets import Target
    from .trajectories import from_trajectories

__all__ = [
    "Target",
    "against",
    "catalog",
    "compare",
    "describe",
    "errors",
    "flows",
    "from_trajectories",
    "generate",
    "leaps",
    "open_catalog",
    "open_dataset",
    "phase_diagram",
    "plateaus",
    "plot",
    "replay",
    "saddles",
    "scaling",
    "simulate",
    "targets",
    "theory",
    "to_netcdf",
    "traps",
    "validate",
]

_MODULES = ("catalog", "errors", "flows", "plot", "targets")
_ORIGIN = {
    "Target": "targets",
    "against": "_against",
    "compare": "analysis",
    "describe": "accessor",
    "from_trajectories": "trajectories",
    "generate": "generation",
    "leaps": "ladder",
    "open_catalog": "catalog",
    "open_dataset": "io",
    "phase_diagram": "_phase_diagram",
    "plateaus": "analysis",
    "saddles": "analysis",
    "scaling": "analysis",
    "theory": "analysis",
    "to_netcdf": "io",
    "traps": "analysis",
    "validate": "schema",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _ORIGIN:
        value = getattr(importlib.import_module(f".{_ORIGIN[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
