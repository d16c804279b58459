"""Whether a file from elsewhere can be opened: tried in another process first.

HDF5 trusts what it reads, and a file made for it can crash the interpreter, fill the memory, or
name other files to read. A checksum only tells that it is the file the index means. So a file that
was not written here is opened and read once by `mids.catalog._probe`, a process under limits that
can be lost.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

from ..errors import FileError

__all__ = ["check", "vouch"]

SECONDS = 4.0
"""Time for a small file; larger ones have `BYTES_PER_SECOND` more."""
START_SECONDS = 60.0
BYTES_PER_SECOND = 5e6

_fine: set[str] = set()
_lock = threading.Lock()


def vouch(sha256: str) -> None:
    """Say that the file of this checksum was written here."""
    _fine.add(sha256)


def check(path: Path, sha256: str) -> None:
    """Raise FileError unless a file can be opened and read to its end."""
    if sha256 in _fine:
        return
    with _lock:
        problem = _prober().ask(path.absolute())
    if problem is not None:
        raise FileError(f"{path} cannot be used: {problem}")
    _fine.add(sha256)


class _Prober:
    """The other process, started when it is first needed and again when it is lost."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        atexit.register(self.stop)

    def ask(self, path: Path) -> str | None:
        """Return the problem with a file, or None."""
        process = self._process or self._start()
        seconds = SECONDS + path.stat().st_size / BYTES_PER_SECOND
        try:
            if process.stdin is None:
                raise OSError("no pipe")
            process.stdin.write(json.dumps(str(path)) + "\n")
            process.stdin.flush()
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.stop()
            return f"reading it takes more than {seconds:.0f} s"
        except OSError:
            answer = ""
        if not answer:
            self.stop()
            return "reading it crashes the NetCDF library"
        problem: str | None = json.loads(answer)
        return problem

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("HDF5_")
        }
        environment |= {"OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
        self._process = process = subprocess.Popen(
            [sys.executable, "-I", os.fspath(Path(__file__).with_name("_probe.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._answers = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(process, self._answers), daemon=True).start()
        process_in = process.stdin
        if process_in is not None:  # wait until it has started, apart from the time of a file
            process_in.write(json.dumps(os.devnull) + "\n")
            process_in.flush()
            self._answers.get(timeout=START_SECONDS)
        return process

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
        if process.stdout is not None:
            for line in process.stdout:
                answers.put(line)
        answers.put("")

    def stop(self) -> None:
        """End the other process."""
        process, self._process = self._process, None
        if process is not None and self.owner == os.getpid():
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


_current: _Prober | None = None


def _prober() -> _Prober:
    global _current
    if _current is None or _current.owner != os.getpid():  # forked: the other process is not ours
        _current = _Prober()
    return _current
