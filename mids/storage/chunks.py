"""The chunks of a store, checked whenever one is read: a lost or changed one is an error."""

from __future__ import annotations

from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Blosc
from zarr.storage import WrapperStore

from ..errors import FileError

REMEDY = "call mids.generate with the same arguments to check the store and simulate what is lost"


class CheckedChunks(WrapperStore[Any]):
    """A Zarr store that names a missing or damaged chunk, which Zarr would read as NaN."""

    def __init__(self, store: Any, url: str = "") -> None:
        super().__init__(store)
        self.url = url

    def _with_store(self, store: Any) -> CheckedChunks:
        return CheckedChunks(store, self.url)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Read an object; all chunks end with their checksum."""
        content = await self._store.get(key, prototype, byte_range)
        # Headers have no checksum of their own; `mids.json` has a digest of the one that is read.
        if not key.endswith("zarr.json"):
            if content is None:
                raise FileError(f"{self.url}/{key} is missing; {REMEDY}")
            # Part of a chunk cannot be checked: the checksum covers the whole.
            if byte_range is None and not intact(content.to_bytes()):
                raise FileError(f"{self.url}/{key} is damaged (its checksum differs); {REMEDY}")
        return content


def intact(content: bytes) -> bool:
    """Tell whether a chunk ends with the checksum of what is before."""
    # As Zarr's codec appends it: CRC-32C of the content in four bytes, lowest first.
    return int(google_crc32c.value(content[:-4])).to_bytes(4, "little") == content[-4:]


def decoded(content: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Return the values of an intact chunk; ValueError if it has another shape."""
    return np.frombuffer(Blosc().decode(content[:-4]), dtype).reshape(shape)
