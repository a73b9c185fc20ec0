"""Takes the documentation's picture of the viewer: python docs/images/make_viewer_png.py RESULTS [--case ID] [--finding TEXT].

`oblique.png` is made with `--turn coronal --angles 25 -12 --out docs/images/oblique.png`.
RESULTS is what `medvl infer` wrote for phantom studies; pictures of real patients do not belong in the repository.
"""

import argparse
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from medvl_ui.launch import command

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    """Serve the folder, open the page in Chromium, click what was asked for, save the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("viewer.png"))
    parser.add_argument("--case", help="study to open; the first when left out")
    parser.add_argument("--finding", help="text of the finding to click; the top one when left out")
    parser.add_argument("--turn", choices=["axial", "coronal", "sagittal"], help="plane to turn about the cursor")
    parser.add_argument("--angles", type=int, nargs=2, default=(20, 0), help="of its lines in the two other planes, in degrees")
    parser.add_argument("--size", default="1440x860")
    asked = parser.parse_args()
    with served(asked.results) as url:
        _shoot(asked, url)


@contextmanager
def served(results: Path, extras: Sequence[str] = ()) -> Iterator[str]:
    """Address of a viewer on the folder, as long as the block runs; `extras` of `medvl_ui.extras.options`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(command(results, port=port, open_browser=False, extras=extras))
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health")
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


def _wait(url: str) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - loopback
        except OSError:
            time.sleep(0.25)
        else:
            return
    raise SystemExit("the viewer did not start within a minute")


def _shoot(asked: argparse.Namespace, url: str) -> None:
    width, height = (int(n) for n in asked.size.split("x"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.goto(url)
        for name in (asked.case, asked.finding):
            if name:
                tab.get_by_role("button", name=name).first.click()
                tab.wait_for_timeout(2000)
        tab.wait_for_selector('.pane[data-ready="true"]', timeout=60_000)
        if asked.turn:
            _turn(tab, asked.turn, asked.angles)
        tab.mouse.move(width - 5, height - 5)
        tab.wait_for_timeout(1500)
        tab.screenshot(path=asked.out)
        browser.close()


def _turn(tab: Page, name: str, angles: Sequence[int]) -> None:
    tab.get_by_label("Oblique", exact=True).select_option(f"Turn {name}")
    for angle, (more, less) in zip(angles, (("Left", "Right"), ("Up", "Down")), strict=True):
        for _ in range(abs(angle)):
            tab.locator(f".plane.{name} canvas").press(f"Shift+Arrow{more if angle > 0 else less}")


if __name__ == "__main__":
    main()
