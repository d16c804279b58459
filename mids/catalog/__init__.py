"""Catalogs: folders of datasets that explain themselves, with an index that other tools open."""

from .catalog import Catalog, open_catalog, reindex
from .verify import Verification

__all__ = ["Catalog", "Verification", "open_catalog", "reindex"]
