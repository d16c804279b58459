"""Storage: NetCDF files to share, and stores for sweeps that are larger than memory."""

from .generation import generate
from .netcdf import open_dataset, to_netcdf

__all__ = ["generate", "open_dataset", "to_netcdf"]
