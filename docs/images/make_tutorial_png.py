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

from medvl_ui.extras import options

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
    tab.get_by_text("This folder", exact=True).click()
    tab.get_by_role("button", name="Side by side").first.click()
    tab.locator(READY).nth(1).wait_for(timeout=60_000)


def prompt(tab: Page) -> None:
    """The reader's own words as a map over the image."""
    tab.get_by_role("tab", name="Prompts").click()
    tab.get_by_role("textbox", name="Finding", exact=True).fill("a stone in the kidney")
    tab.get_by_role("button", name="Ask").click()
    tab.get_by_role("button", name="Hide the map").wait_for()
    tab.get_by_test_id("stMetricValue").wait_for()
    tab.wait_for_timeout(5000)  # the map arrives
    tab.get_by_text("Fitting these words best").scroll_into_view_if_needed()


def draft(tab: Page) -> None:
    """The report text, edited by a person."""
    tab.get_by_role("tab", name="Draft").click()
    field = tab.get_by_role("textbox", name="Report text")
    field.fill(
        field.input_value().replace("There is a kidney stone in the left kidney.", "Left kidney stone of 9 mm, not obstructing.")
    )
    field.press("Control+Enter")
    tab.get_by_text("saved by").wait_for()
    tab.get_by_role("button", name="Save as a file").scroll_into_view_if_needed()


def decided(tab: Page) -> None:
    """Two findings decided, the third in focus."""
    tab.get_by_role("tab", name="Sign-off").click()
    for k in (1, 2):
        tab.get_by_role("button", name="Accept").first.click()
        tab.get_by_text(f"{k} of ").wait_for()
        tab.wait_for_timeout(1500)
    tab.get_by_text("Before signing, decide").scroll_into_view_if_needed()


def signed(tab: Page) -> None:
    """A study whose findings are all decided and which is signed."""
    tab.get_by_role("tab", name="Sign-off").click()
    for _ in range(40):
        if tab.get_by_role("button", name="Sign", exact=False).first.is_enabled():
            break
        tab.get_by_role("button", name="Accept").first.click()
        tab.wait_for_timeout(1200)
    tab.get_by_role("button", name="Sign", exact=False).first.click()
    tab.get_by_text("✓ signed").first.wait_for()


def prognosis(tab: Page) -> None:
    """The predicted curve beside the groups, and what another age would change."""
    tab.get_by_role("tab", name="Prognosis").click()
    tab.get_by_role("spinbutton", name="What if the age were").fill("80")
    tab.keyboard.press("Enter")
    tab.get_by_text("At 80 years").wait_for()
    tab.get_by_text("At 80 years").scroll_into_view_if_needed()


def followed(tab: Page) -> None:
    """The neighbours of an index and what became of them."""
    tab.get_by_role("tab", name="Similar").click()
    tab.get_by_text("Index", exact=True).click()
    tab.get_by_text("Kaplan-Meier with").wait_for()
    tab.get_by_text("Kaplan-Meier with").scroll_into_view_if_needed()


SHOTS: dict[str, Callable[[Page], None]] = {
    "worklist": worklist,
    "measured": measured,
    "similar": similar,
    "prompt": prompt,
    "prognosis": prognosis,
    "draft": draft,
    "decided": decided,
    "signed": signed,
    "followed": followed,
}
NEEDS_INDEX = ("followed",)


def main() -> None:
    """Serve the folder, take every picture from a page of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("tutorial"))
    parser.add_argument("--only", nargs="*", choices=list(SHOTS), default=list(SHOTS))
    parser.add_argument("--bundle", type=Path, help="folder of the results' bundle, for prompts, drafts and other ages")
    parser.add_argument("--index", type=Path, help="of medvl index build, for the neighbours' curve")
    asked = parser.parse_args()
    asked.out.mkdir(exist_ok=True)
    with served(asked.results, options(asked.index, asked.bundle, show_text=False)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name in (name for name in asked.only if asked.index or name not in NEEDS_INDEX):
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
