"""A series whose headers are well and whose pixels are not, in a real headless Chromium."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser_page import serving
from results_folder import DONE, finding, study_json, write_study
from tiny import patient, scan_of

from medvl.imaging.phantom.dicom import write_dicom

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROKEN = "a0broken"


@pytest.mark.slow
def test_what_cannot_be_decoded_leaves_the_screen_and_the_next_study_is_shown(browser: "Browser", tmp_path: Path) -> None:
    results, who = tmp_path / "results", patient(3)
    files = write_dicom(scan_of(who), who, tmp_path / "whole", syntax="jpegls")
    broken = Path(shutil.copytree(tmp_path / "whole", tmp_path / "broken")) / files[1].name
    data = bytearray(broken.read_bytes())
    data[-400:-50] = b"\xff\xd8" * 175  # inside the coded image
    broken.write_bytes(data)
    for case in (BROKEN, DONE):
        write_study(results, study_json(case, findings=[finding("renal_stone", "kidney_left", 0.9, "present")]))
    places = {BROKEN: tmp_path / "broken", DONE: tmp_path / "whole"}
    (results / "sources.json").write_text(json.dumps({k: {"path": str(v), "series_key": ""} for k, v in places.items()}))
    with serving(results, tmp_path / "log") as url:
        tab, asked = browser.new_page(viewport={"width": 1366, "height": 768}), []
        tab.on("request", lambda request: asked.append(request.url) if "/picture/" in request.url else None)
        tab.goto(url)
        tab.get_by_role("button", name=BROKEN).click()
        sync_api.expect(tab.get_by_test_id("stAlert").get_by_text("could not be read again")).to_be_visible(timeout=20_000)
        sync_api.expect(tab.locator(".plane.axial, .axial").first).to_be_hidden()
        tab.wait_for_timeout(1500)
        assert len(asked) <= 6, "it is not asked for again and again"
        tab.get_by_role("button", name=DONE).click()
        sync_api.expect(tab.locator('.pane[data-ready="true"]')).to_be_visible(timeout=20_000)
        sync_api.expect(tab.get_by_text("could not be read again")).to_be_hidden()
        tab.close()
