"""A browser without a window, which opens pages at the widths of a telephone and of a desk."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager

import pytest

SWITCHES = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync"
)
SCRIPT = """return {
    inner: window.innerWidth, scroll: document.documentElement.scrollWidth,
    pictures: [...document.images].map(i => [i.complete && i.naturalWidth > 0, i.width]),
    size: parseFloat(getComputedStyle(document.body).fontSize)}"""


@contextmanager
def browser():
    """Yield a function that opens a page, and returns what a script finds there and the console."""
    program, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if program is None or chromium is None:
        pytest.skip("needs chromium and chromium-driver")
    with subprocess.Popen([program, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        port = next(
            m[1] for line in process.stdout if (m := re.search(r"successfully on port (\d+)", line))
        )

        def send(method, path, data=None):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}{path}",
                None if data is None else json.dumps(data).encode(),
                {"Content-Type": "application/json"},
                method=method,
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]

        def look(url, width, profile):
            options = {
                "args": [f"--{name}" for name in SWITCHES.split()] + [f"--user-data-dir={profile}"],
                "mobileEmulation": {
                    "deviceMetrics": {"width": width, "height": 900, "pixelRatio": 1.0}
                },
            }
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            started = send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            session = f"/session/{started['sessionId']}"
            try:
                seen = []
                for one in url if isinstance(url, list) else [url]:
                    send("POST", f"{session}/url", {"url": one})
                    time.sleep(0.05)
                    found = send("POST", f"{session}/execute/sync", {"script": SCRIPT, "args": []})
                    seen.append((found, send("POST", f"{session}/se/log", {"type": "browser"})))
            finally:
                send("DELETE", session)
            return seen if isinstance(url, list) else seen[0]

        yield look
        process.terminate()
        process.stdout.read()
