"""Showing a catalog to others over http: its index and datasets, nothing else."""

from __future__ import annotations

import os
import re
import shutil
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import FileError, InputError
from .folder import Folder
from .index import DERIVED, INDEX

__all__ = ["server"]

TYPES = {".nc": "application/x-netcdf", ".json": "application/json", ".csv": "text/csv"}


def server(folder: Folder, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server for a catalog, whose ``serve_forever`` runs it.

    Any static file server does the same; this one gives out no other file of the folder, and
    continues interrupted downloads.
    """
    folder.entries()
    try:
        return ThreadingHTTPServer((host, port), partial(_Handler, folder=folder))
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot serve at {host} port {port} ({error}); choose another, for example 0"
        ) from None


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, *given: object, folder: Folder) -> None:
        self.folder = folder
        super().__init__(*given)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Send a file, or its end."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Describe a file."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self._file()
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = self._start(size)
            self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("Content-Type", TYPES[path.suffix if path.suffix in TYPES else ".nc"])
            self.send_header("Content-Length", str(size - start))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if body:
                file.seek(start)
                shutil.copyfileobj(file, self.wfile)

    def _file(self) -> Path | None:
        name = unquote(urlsplit(self.path).path).lstrip("/")
        try:
            if name in (INDEX, *DERIVED):
                return self.folder.root / name
            for entry in self.folder.entries().values():
                if entry.path == name:
                    return self.folder.file(entry)
        except FileError:
            pass
        return None

    def _start(self, size: int) -> int:
        match = re.fullmatch(r"bytes=(\d{1,18})-", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        return start if start < size else 0

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal quiet."""
