"""Takes the pictures of the tutorial "Review a study": python docs/images/make_tutorial_png.py RESULTS [--only NAME ...].

RESULTS is what `medvl demo` or `medvl infer` wrote for phantoms; pictures of real patients do not belong in the repository.
Work on a copy: opening a study is recorded in the folder.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

from make_viewer_png import FLAGS, served
from playwright.sync_api import Page, sync_playwright

READY = '.pane[data-ready="true"]'


def worklist(tab: Page) -> None:
    """The table of all studies."""
    tab.get_by_role("button", name="Table").click()
    tab.locator('[data-testid="stDataFrame"] canvas').first.wait_for()


def measured(tab: Page) -> None:
    """A slab with a distance on the axial plane."""
    canvas = tab.locator(".plane.axial canvas")
    canvas.press("m")
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.45
    tab.mouse.move(*middle)
    tab.mouse.down()
    tab.mouse.move(middle[0] + 70, middle[1] + 40, steps=4)
    tab.mouse.up()
    tab.get_by_label("Slab", exact=True).select_option("Average 5 mm")


def similar(tab: Page) -> None:
    """The most similar other study beside this one."""
    tab.get_by_role("tab", name="Similar").click()
    tab.get_by_role("button", name="Side by side").first.click()
    tab.locator(READY).nth(1).wait_for(timeout=60_000)


SHOTS: dict[str, Callable[[Page], None]] = {"worklist": worklist, "measured": measured, "similar": similar}


def main() -> None:
    """Serve the folder, take every picture from a page of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("tutorial"))
    parser.add_argument("--only", nargs="*", choices=list(SHOTS), default=list(SHOTS))
    asked = parser.parse_args()
    asked.out.mkdir(exist_ok=True)
    with served(asked.results) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name in asked.only:
            tab = browser.new_page(viewport={"width": 1366, "height": 768})
            tab.set_default_timeout(60_000)
            tab.goto(url)
            tab.wait_for_selector(READY)
            SHOTS[name](tab)
            tab.wait_for_timeout(2500)
            tab.screenshot(path=asked.out / f"{name}.png")
            tab.close()
        browser.close()


if __name__ == "__main__":
    main()
