"""Fixtures of the viewer's tests. Browser tests: `tab` is a watched page, `url` the viewer it can open."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser_page import CHROMIUM, FLAGS, serving, watched
from results_folder import write_results

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with a read, a skipped, a failed, a hostile, a sourceless and a corrupt study."""
    return write_results(tmp_path / "results")


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """One headless Chromium for a module's tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install the chromium package to run the browser tests")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a viewer of the module's own on the folder of all cases."""
    folder = tmp_path_factory.mktemp("viewer")
    with serving(write_results(folder / "results"), folder / "server.log") as address:
        yield address


@pytest.fixture
def tab(browser: "Browser") -> "Iterator[Page]":
    """A fresh page that may log no error and call no other machine."""
    with watched(browser) as page:
        yield page
