"""What every browser test shares: a viewer process of its own, and what a reader does and sees in the image pane."""

import inspect
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from medvl_ui.launch import Door, command

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
READY = '.pane[data-ready="true"]'
# Mean position, as a fraction of the canvas, of the grey pixels brighter than a level; null when there are none.
BRIGHT = """(canvas, level) => {
  const { width, height } = canvas, data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let n = 0, x = 0, y = 0;
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = data.slice(4 * i, 4 * i + 3);
    if (r > level && r === g && g === b) { n += 1; x += i % width; y += Math.floor(i / width); }
  }
  return n ? [x / n / width, y / n / height] : null;
}"""
# Mean column, as a fraction of the canvas, of the pixels of the heat scale; null when there are none.
COLOURED = """(canvas) => {
  const { width, height } = canvas, data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let n = 0, x = 0;
  for (let i = 0; i < width * height; i++) if (data[4 * i] - data[4 * i + 2] > 60) { n += 1; x += i % width; }
  return n ? x / n / width : null;
}"""


@contextmanager
def serving(
    results: Path, log: Path, *, server: Path | None = None, door: Door | None = None, extras: Sequence[str] = ()
) -> Iterator[str]:
    """Address of a viewer of its own on the folder `results`; fails when its log holds an exception at the end.

    Args:
        results: the results folder.
        log: file for what the server prints.
        server: another entry script in place of the viewer's.
        door: who may come in; this machine without sign-in when left out.
        extras: further arguments, of `medvl_ui.extras.options`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [
        str(server) if server and part.endswith("viewer_server.py") else part
        for part in command(results, port=port, open_browser=False, door=door, extras=extras)
    ]
    with log.open("w") as out:
        process = subprocess.Popen(line, stdout=out, stderr=subprocess.STDOUT)
        try:
            _wait(f"http://127.0.0.1:{port}/_stcore/health")
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.wait(20)
    assert "Traceback" not in log.read_text()


def settles(told: Callable[[], object], seconds: float = 10.0) -> None:
    """Fails unless `told` comes true within some seconds; what cannot be read yet (null) is not yet true."""
    end = time.monotonic() + seconds
    while True:
        with suppress(TypeError):
            if told():
                return
        if time.monotonic() > end:
            pytest.fail(f"not so after {seconds:g} s: {inspect.getsource(told).strip()}")
        time.sleep(0.05)


def _wait(address: str) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(address, timeout=2).close()
        except OSError:
            time.sleep(0.25)
        else:
            return
    pytest.fail("the viewer did not start within a minute")


@contextmanager
def watched(browser: "Browser") -> Iterator["Page"]:
    """A fresh page of 1366 by 768 that may log no error and call no other machine."""
    tab, complaints = browser.new_page(viewport={"width": 1366, "height": 768}), []
    tab.set_default_timeout(60_000)
    own = re.compile(r"(http|ws)://127\.0\.0\.1|blob:|data:")
    tab.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: own.match(request.url) or complaints.append(request.url))
    yield tab
    tab.close()
    assert not complaints, complaints


def opened(tab: "Page", url: str) -> "Page":
    """The page with its first study's images complete."""
    tab.goto(url)
    tab.wait_for_selector(READY)
    return tab


def plane(tab: "Page", name: str) -> "Locator":
    """The axial, coronal or sagittal plane."""
    return tab.locator(f".plane.{name}")


def position(tab: "Page", name: str) -> str:
    """The slice position that a plane shows, such as ``S 285.5 mm``."""
    return plane(tab, name).locator(".position").inner_text()


def wheel(tab: "Page", name: str, notches: int) -> None:
    """Scroll a plane."""
    plane(tab, name).hover()
    for _ in range(abs(notches)):
        tab.mouse.wheel(0, 120 if notches > 0 else -120)
    tab.wait_for_timeout(200)


def mm(lps: float, positive: str, negative: str) -> str:
    """One patient coordinate as the viewer writes it."""
    return f"{positive if lps >= 0 else negative} {abs(lps):.1f} mm"
