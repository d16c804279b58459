"""A catalog behind http(s): a static folder, fetched through pooch into a local cache.

The index is fetched when the catalog is opened, never from the cache, and only from the URL given;
a dataset is used once its size and checksum are those of the index. Another host is never asked,
also if the server says so.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from ..errors import FileError, InputError, MissingDependencyError
from . import files
from .entry import Entry
from .index import INDEX, LARGEST_INDEX, parse
from .lock import FileLock

if TYPE_CHECKING:
    import requests

__all__ = ["Remote", "is_url"]

ATTEMPTS = 4
WAIT_SECONDS = 0.2
"""Before the second attempt, doubled for each further one."""
TIMEOUT_SECONDS = (10.0, 30.0)
REDIRECTS = 5
BLOCK = 2**12
"""Bytes that are lost at most where a connection is cut."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Tell whether a location is a URL and not a folder."""
    return isinstance(path, str) and re.match(r"https?://", path, re.IGNORECASE) is not None


class Remote:
    """The files of a catalog behind a URL."""

    def __init__(self, url: str, cache: str | os.PathLike[str] | None) -> None:
        pooch = _pooch()
        url = url.removesuffix(INDEX)
        self.root = url if url.endswith("/") else f"{url}/"
        self._origin = _origin(self.root)
        home = Path(cache or os.environ.get("MIDS_CACHE") or pooch.os_cache("mids"))
        self._cache = home / hashlib.sha256(self.root.encode()).hexdigest()[:24]
        self._entries = self._fetch_index()
        self._pooch = pooch.create(
            path=self._cache,
            base_url=self.root,
            registry={e.path: f"sha256:{e.sha256}" for e in self._entries.values()},
        )

    def entries(self) -> dict[str, Entry]:
        """Return what the index said when it was fetched, by key."""
        return self._entries

    def file(self, entry: Entry) -> Path:
        """Return the file of an entry, fetched if it is not in the cache, and checked."""
        path = self._cache / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._cache / f".{entry.key}.lock"):
            try:
                with _quiet():
                    self._pooch.fetch(entry.path, downloader=_Download(self, entry.bytes))
            except ValueError as error:  # how pooch says that the checksum differs
                if "hash" not in str(error).lower():
                    raise
                _partial(path).unlink(missing_ok=True)
                raise FileError(
                    f"{urljoin(self.root, entry.path)} is not the file of the index (sha256 "
                    "differs): it is damaged or was replaced; ask whoever serves it"
                ) from None
            except OSError as error:
                if isinstance(error, FileError):
                    raise
                raise FileError(
                    f"cannot keep {entry.path} in the cache {self._cache} ({error}); check "
                    "permissions and free space, or pass cache=..."
                ) from error
            files.check(path, size=entry.bytes, sha256=entry.sha256)
        return path

    def _fetch_index(self) -> dict[str, Entry]:
        url = urljoin(self.root, INDEX)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, INDEX)
            self.download(url, path, LARGEST_INDEX, exact=False)
            try:
                return parse(path.read_bytes())
            except FileError as error:
                raise FileError(f"{url} is no index of a catalog: {error}") from None

    def download(self, url: str, path: Path, size: int, *, exact: bool = True) -> None:
        """Bring a file from the catalog's own host, again or further where it was cut off."""
        import requests

        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(WAIT_SECONDS * 2 ** (attempt - 1))
            try:
                with requests.Session() as session:
                    self._attempt(session, url, path, size)
            except (requests.RequestException, OSError) as error:
                if isinstance(error, FileError):
                    raise
                problem = " ".join(str(error).split())[:300]
                continue
            arrived = path.stat().st_size
            if not exact or arrived == size:
                return
            problem = f"only {arrived} of {size} bytes came"
        raise FileError(
            f"cannot fetch {url} ({problem}; {ATTEMPTS} attempts); check the address and the "
            "connection, and try again: what has arrived is kept"
        )

    def _attempt(self, session: requests.Session, url: str, path: Path, size: int) -> None:
        have = path.stat().st_size if path.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        response = self._get(session, url, headers)
        with response:
            if response.status_code == 416 or (
                response.status_code == 206
                and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            ):
                path.unlink(missing_ok=True)  # what is there is no beginning of it
                raise OSError("the server has no such part of the file")
            if 400 <= response.status_code < 500:
                raise FileError(
                    f"cannot fetch {url} (status {response.status_code} {response.reason}); check "
                    "the address"
                )
            response.raise_for_status()
            if not have or response.status_code != 206:
                have = 0
            with path.open("ab" if have else "wb") as file:
                for block in response.iter_content(BLOCK):
                    have += len(block)
                    if have > size:
                        file.close()
                        path.unlink()
                        raise FileError(
                            f"{url} has more than the {size} bytes it may have; nothing was kept"
                        )
                    file.write(block)

    def _get(
        self, session: requests.Session, url: str, headers: dict[str, str]
    ) -> requests.Response:
        """Ask for a URL and follow redirects within its origin only."""
        for _ in range(REDIRECTS):
            if _origin(url) != self._origin:
                raise FileError(
                    f"{self.root} sends to another host, {url}, which was not asked for; open the "
                    "catalog there if you trust it"
                )
            response = session.get(
                url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS, allow_redirects=False
            )
            if not response.is_redirect:
                return response
            url = urljoin(url, response.headers["Location"])
            response.close()
        raise FileError(f"{self.root} redirects more than {REDIRECTS} times; check the address")


class _Download:
    """What pooch calls to bring a file that is missing or stale in the cache."""

    def __init__(self, remote: Remote, size: int) -> None:
        self._remote = remote
        self._size = size

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        final = Path(pooch.path) / url.removeprefix(pooch.base_url)
        partial = _partial(final)  # outlives the interruption that pooch's own file does not
        self._remote.download(url, partial, self._size)
        os.replace(partial, output_file)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InputError(f"{url} is no URL; pass for example https://example.org/catalog") from None
    scheme = parts.scheme.lower()
    return scheme, parts.hostname, port or {"http": 80, "https": 443}.get(scheme)


@contextmanager
def _quiet() -> Iterator[None]:
    logger = _pooch().get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def _pooch() -> Any:
    try:
        import pooch
    except ImportError:
        raise MissingDependencyError(
            "catalogs behind a URL need pooch; install it with: python -m pip install "
            "'mids[catalog]'"
        ) from None
    return pooch
