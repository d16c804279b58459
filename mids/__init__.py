"""Datasets of gradient flow on Gaussian multi-index models: simulate, analyse, share.

Importing the package registers the accessor ``mi`` on xarray Datasets. Compilers, dask, matplotlib
and netCDF are imported on first use.
"""

from typing import TYPE_CHECKING, Any

from . import catalog, errors, flows, plot, targets, validation
from .accessor import accessor
from .analysis.compare import compare
from .analysis.describe import describe
from .analysis.exponents import exponents
from .analysis.landscape import landscape
from .analysis.plateaus import plateaus
from .analysis.probabilities import race, traps
from .analysis.recorder import Recorder, overlaps
from .analysis.saddles import saddles
from .analysis.scaling import scaling, scaling_law
from .analysis.subspace import subspace
from .analysis.theory import theory
from .analysis.trajectories import from_trajectories
from .catalog import open_catalog
from .schema import VERSION as __version__  # noqa: F401
from .schema import validate
from .simulation.joining import combine_attrs, concat
from .simulation.phase_diagram import phase_diagram
from .simulation.progress import progress
from .simulation.simulate import replay, simulate
from .storage import generate, open_dataset, to_netcdf
from .targets import Target
from .targets.ladder import ladder, leaps

__all__ = [
    "Recorder",
    "Target",
    "accessor",
    "catalog",
    "combine_attrs",
    "compare",
    "concat",
    "describe",
    "errors",
    "exponents",
    "flows",
    "from_trajectories",
    "generate",
    "ladder",
    "landscape",
    "leaps",
    "open_catalog",
    "open_dataset",
    "overlaps",
    "phase_diagram",
    "plateaus",
    "plot",
    "progress",
    "race",
    "replay",
    "saddles",
    "scaling",
    "scaling_law",
    "simulate",
    "subspace",
    "targets",
    "theory",
    "to_netcdf",
    "traps",
    "validate",
]

if not TYPE_CHECKING:  # for whom every name would be there

    def __getattr__(name: str) -> Any:
        """Name what was meant, such as a flow, which is in `mids.flows`."""
        for module in (flows, targets, plot, errors, catalog):
            if name in module.__all__:
                raise AttributeError(f"mids has no {name!r}; it is {module.__name__}.{name}")
        raise validation.no_attribute("mids", name, __all__)
