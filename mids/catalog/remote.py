"""A catalog behind http(s): a static folder, fetched into a local cache.

The index is fetched when the catalog is opened, never from the cache, and only from the URL given;
pooch keeps the datasets, each used once its size and checksum are those of the index. Redirects
to another host are refused, and a server that is too slow or sends too much is given up.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from .. import validation
from ..errors import FileError, InputError, printable
from ..storage import foreign
from ..storage.files import file_lock
from .index import INDEX, LARGEST_INDEX, Entry, parse

if TYPE_CHECKING:
    from io import FileIO

    import requests

ATTEMPTS = 3
WAIT_SECONDS = 0.5
TIMEOUT_SECONDS = 10.0  # for a connection, and for the next bytes
PATIENCE_SECONDS, BYTES_PER_SECOND = 15.0, 2e4  # of all attempts; more for what arrives
REDIRECTS = 5
BLOCK = 2**16


def is_url(path: object) -> bool:
    """Tell whether a location is a URL and not a folder."""
    return isinstance(path, str) and re.match(r"https?://", path, re.IGNORECASE) is not None


class Remote:
    """The files of a catalog behind a URL."""

    def __init__(self, url: str, cache: str | os.PathLike[str] | None) -> None:
        url = url.removesuffix(INDEX)
        self.root = url if url.endswith("/") else f"{url}/"
        _origin(self.root)
        self._pooch = validation.package("pooch", "catalogs behind a URL need pooch", "catalog")
        self._pooch.get_logger().setLevel("WARNING")
        home = Path(cache) if cache else foreign.cache()
        self._cache = home / hashlib.sha256(self.root.encode("utf-8", "replace")).hexdigest()[:24]
        self._entries = self._fetch_index()

    def entries(self) -> dict[str, Entry]:
        """Return what the index said when it was fetched, by key."""
        return self._entries

    def file(self, entry: Entry) -> Path:
        """Return the file of an entry, fetched if it is not in the cache, and checked."""
        url = urljoin(self.root, entry.path)
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            if entry.bytes > shutil.disk_usage(self._cache).free / 2:
                raise FileError(
                    f"{url} has {entry.bytes} bytes, more than half of what is free for the cache "
                    f"{self._cache}; free some space, or pass cache=..."
                )
            # Two processes that want the same file fetch it once.
            with file_lock(self._cache / f".{entry.key}.lock"):
                path = self._pooch.retrieve(
                    url,
                    known_hash=f"sha256:{entry.sha256}",
                    fname=Path(entry.path).name,
                    path=self._cache / "data",
                    downloader=lambda url, output, _: download(url, Path(output), entry.bytes),
                )
        except ValueError as error:  # how pooch says that the checksum differs
            if isinstance(error, InputError) or "hash" not in str(error).lower():
                raise
            raise FileError(
                f"{url} is not the file of the index (sha256 differs): it is damaged or was "
                "replaced; ask its maintainer to check it"
            ) from None
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise FileError(
                f"cannot keep {entry.path} in the cache {self._cache} ({error.strerror}); check "
                "permissions and free space, or pass cache=..."
            ) from error
        return Path(path)

    def _fetch_index(self) -> dict[str, Entry]:
        url = urljoin(self.root, INDEX)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, INDEX)
            download(url, path, LARGEST_INDEX)
            try:
                return parse(path.read_bytes())
            except FileError as error:
                raise FileError(f"{url} is no index of a catalog: {error}") from None


def download(url: str, path: Path, most: int) -> None:
    """Download a file of at most `most` bytes from the host of its URL, or give up."""
    outcome: Future[None] = Future()
    ended = threading.Event()
    # Opened here and closed by the thread: once a server is left, nothing makes a file any more.
    file = path.open("wb", buffering=0)

    def work() -> None:
        try:
            with file:
                _attempts(url, file, most, ended)
            outcome.set_result(None)
        except BaseException as error:
            outcome.set_exception(error)

    # Only another thread ends a wait for headers that come byte by byte.
    threading.Thread(target=work, daemon=True).start()
    start, arrived = time.monotonic(), 0
    while not wait([outcome], 0.05).done:
        arrived = max(arrived, path.stat().st_size)
        waited = time.monotonic() - start
        if waited > PATIENCE_SECONDS + arrived / BYTES_PER_SECOND:
            ended.set()
            raise FileError(
                f"cannot fetch {url} ({arrived} bytes came in {waited:.0f} s); try again with a "
                "faster connection"
            )
    outcome.result()


def _attempts(url: str, file: FileIO, most: int, ended: threading.Event) -> None:
    """Download, again where it was cut off."""
    reason = ""
    for attempt in range(ATTEMPTS):
        time.sleep(WAIT_SECONDS * attempt)
        try:
            return _fetch(url, file, most, ended)
        except (FileError, InputError):
            raise
        except Exception as error:  # odd answers may raise anything in requests and below
            reason = " ".join(printable(error).split())[:300]
    raise FileError(
        f"cannot fetch {url} ({reason}; {ATTEMPTS} attempts); check the address and the "
        "connection, and try again"
    )


def _fetch(url: str, file: FileIO, most: int, ended: threading.Event) -> None:
    import requests

    file.seek(0)
    file.truncate()
    session = requests.Session()
    session.max_redirects = REDIRECTS
    session.hooks["response"] = [_check_redirect]
    # A compressed answer has another length than the index says, and may unpack to anything.
    session.headers["Accept-Encoding"] = "identity"
    with session, session.get(url, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        # Asking again does not help against a wrong address.
        if 400 <= answer.status_code < 500:
            raise FileError(
                f"cannot fetch {url} (status {answer.status_code} {answer.reason}); check the "
                "address"
            )
        answer.raise_for_status()
        came = 0
        while block := answer.raw.read1(BLOCK):
            came += len(block)
            if came > most or ended.is_set():
                raise FileError(f"{url} has more than the {most} bytes it may have")
            file.write(block)
        promised = answer.headers.get("Content-Length", str(came))
        if promised != str(came):
            raise OSError(f"only {came} of {promised} bytes came")


def _check_redirect(answer: requests.Response, **options: object) -> None:
    """Raise FileError if an answer sends to another host."""
    import requests

    target = requests.Session().get_redirect_target(answer) or ""
    if _origin(urljoin(answer.url, target)) != _origin(answer.url):
        raise FileError(
            f"{answer.url} sends to another host, {target}, which was not asked for; open the "
            "catalog there if you trust it"
        )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        return scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(scheme)
    except ValueError:
        raise InputError(f"{url} is no URL; pass for example https://example.org/catalog") from None
