"""Datasets of gradient flow on Gaussian multi-index models: simulate, analyse, share.

Importing the package registers the accessor ``mi`` on xarray Datasets. Compilers, dask, matplotlib
and netCDF are imported on first use.
"""

from . import catalog, errors, flows, plot, targets
from .accessor import accessor
from .analysis import (
    Recorder,
    compare,
    describe,
    exponents,
    from_trajectories,
    landscape,
    overlaps,
    plateaus,
    race,
    saddles,
    scaling,
    scaling_law,
    subspace,
    theory,
    traps,
)
from .catalog import open_catalog
from .schema import VERSION as __version__  # noqa: F401
from .schema import validate
from .simulation import combine_attrs, concat, phase_diagram, progress, replay, simulate
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
