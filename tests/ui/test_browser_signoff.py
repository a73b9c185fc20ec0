"""The sign-off pane in a real Chromium: decided by key, reloaded, still there; reading time comes from the page."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from browser_page import serving
from results_folder import DONE, write_results

from medvl_ui.reviews import reviews

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
MASS, STONE = "renal_mass@kidney_right", "stone@kidney_left"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("signoff") / "results")


@pytest.fixture(scope="module")
def url(browser: "sync_api.Browser", folder: Path) -> Iterator[str]:
    """A page of the pane alone; its results folder is named by the environment."""
    os.environ["SIGNOFF_RESULTS"] = str(folder)
    try:
        with serving(folder, folder.parent / "server.log", server=Path(__file__).with_name("signoff_page.py")) as address:
            yield address
    finally:
        del os.environ["SIGNOFF_RESULTS"]


def test_decided_by_key_reloaded_and_still_there(tab: "sync_api.Page", url: str, folder: Path) -> None:
    tab.goto(url)
    accept = tab.get_by_role("button", name="Accept")
    accept.wait_for()
    comment = tab.get_by_placeholder("Comment, saved with the decision")
    comment.fill("32 mm")
    comment.press("Tab")
    tab.locator("body").press("a")
    sync_api.expect(tab.get_by_text("1 of 2 decided")).to_be_visible()
    assert reviews(folder).review(DONE).decisions[MASS].decision.comment == "32 mm"
    sync_api.expect(tab.get_by_role("button", name="Reject", disabled=True)).to_be_visible()  # the stone, which is undecided
    tab.locator("body").press("a")
    sync_api.expect(tab.get_by_text("2 of 2 decided")).to_be_visible()
    tab.reload()
    sync_api.expect(tab.get_by_text("2 of 2 decided")).to_be_visible()
    tab.get_by_role("button", name="Sign", exact=False).first.click()
    sync_api.expect(tab.get_by_text("✓ signed")).to_be_visible()
    tab.reload()
    sync_api.expect(tab.get_by_text("✓ signed")).to_be_visible()
    assert tab.get_by_role("button", name="Accept").count() == 0
    told = [row["what"] for row in reviews(folder).events()]
    assert [what for what in told if what != "log begun"] == [
        "view opened", "decision saved", "finding viewed", "decision saved", "view opened", "signed", "view opened"]  # fmt: skip
    with tab.expect_download() as saved:
        tab.get_by_role("button", name="Export").click()
        tab.get_by_role("button", name="JSON").click()
    assert '"status": "signed"' in Path(saved.value.path()).read_text()


def test_the_page_tells_how_long_somebody_read(tab: "sync_api.Page", url: str, folder: Path) -> None:
    def read() -> float:
        with closing(sqlite3.connect(folder / "reviews.sqlite")) as db:
            return db.execute("SELECT coalesce(sum(seconds), 0) FROM times").fetchone()[0]

    before, begun = read(), time.monotonic()
    tab.goto(url)
    tab.get_by_role("button", name="Export").wait_for()
    tab.mouse.move(100, 100)
    tab.wait_for_timeout(3000)
    tab.evaluate(
        "Object.defineProperty(document, 'hidden', { value: true }); document.dispatchEvent(new Event('visibilitychange'))"
    )
    for _ in range(50):
        if read() > before:
            break
        tab.wait_for_timeout(100)
    assert 2 <= read() - before <= time.monotonic() - begun + 2
