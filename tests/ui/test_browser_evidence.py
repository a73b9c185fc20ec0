"""A similar study laid beside the one being read, in a real Chromium."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser_page import opened, serving
from results_folder import DONE, finding, grid, image_hu, save_nifti, study_json, write_done, write_study
from safetensors.numpy import save_file

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
OTHER = "b2like"


@pytest.fixture
def pair_url(browser, tmp_path: Path) -> Iterator[str]:
    """A viewer on two studies whose right kidneys are alike; ask for it before `tab`, so that it outlives the page."""
    root = tmp_path / "results"
    write_done(root)
    write_study(root, study_json(OTHER, findings=[finding("renal_mass", "kidney_right", 0.8, "present")]))
    save_nifti(root / "studies" / OTHER / "image.nii.gz", image_hu(), grid())
    bundle = json.loads((root / "studies" / DONE / "findings.json").read_text())["bundle"]
    meta = {"model_sha256": bundle["sha256"], "contract_hash": bundle["contract"]}
    for case, vector in ((DONE, [1.0, 0.0]), (OTHER, [0.6, 0.8])):
        file = root / "studies" / case / "embeddings.safetensors"
        save_file({"kidney_right": np.array(vector, dtype=np.float32)}, file, metadata=meta)
    with serving(root, tmp_path / "server.log") as address:
        yield address


def test_a_similar_study_is_laid_beside(pair_url: str, tab) -> None:
    opened(tab, pair_url)
    tab.get_by_role("tab", name="Similar").click()
    sync_api.expect(tab.get_by_text("1 study compared.")).to_be_visible()
    sync_api.expect(tab.get_by_text("In both: Renal mass")).to_be_visible()
    tab.get_by_role("button", name="Side by side").click()
    sync_api.expect(tab.locator(".pane")).to_have_count(2)
    sync_api.expect(tab.get_by_text("Both start at the region and scroll together.")).to_be_visible()
    tab.get_by_role("button", name="Close").click()
    sync_api.expect(tab.locator(".pane")).to_have_count(1)
