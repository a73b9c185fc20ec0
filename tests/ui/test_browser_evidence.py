"""A similar study laid beside the one being read, in a real Chromium."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser_page import BRIGHT, READY, opened, serving, settles
from results_folder import DONE, finding, grid, image_hu, save_nifti, study_json, write_done, write_study
from safetensors.numpy import save_file

from medvl.imaging.volume_file import write_volume
from medvl.records import Volume
from medvl.retrieval.entry import Entry, Space
from medvl.retrieval.store import Index
from medvl_ui.extras import options

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
OTHER, CACHED = "b2like", "0123456789ab"


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


@pytest.mark.slow
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


@pytest.fixture
def cohort_url(browser, tmp_path: Path) -> Iterator[str]:
    """A viewer on one study, with an index of one case whose image lies in a dataset."""
    root, dataset = tmp_path / "results", tmp_path / "dataset"
    write_done(root)
    bundle = json.loads((root / "studies" / DONE / "findings.json").read_text())["bundle"]
    meta = {"model_sha256": bundle["sha256"], "contract_hash": bundle["contract"]}
    mine, theirs = (np.array(vector, dtype=np.float32) for vector in ([1.0, 0.0], [0.6, 0.8]))
    save_file({"kidney_right": mine}, root / "studies" / DONE / "embeddings.safetensors", metadata=meta)
    space = Space(bundle["name"], bundle["sha256"], bundle["contract"], 2)
    with Index.create(tmp_path / "index", space, fields=("image",)) as index:
        index.add([Entry("P/kidney_right", "P", CACHED, "kidney_right")], {"image": theirs[None]}, space)
    (dataset / "volumes").mkdir(parents=True)
    write_volume(Volume(image_hu(), grid()), dataset / "volumes" / f"{CACHED}.mvol")
    with serving(
        root, tmp_path / "server.log", extras=options(tmp_path / "index", None, show_text=False, dataset=dataset)
    ) as address:
        yield address


@pytest.mark.slow
def test_a_case_of_the_index_is_laid_beside_from_the_dataset(cohort_url: str, tab) -> None:
    opened(tab, cohort_url)
    tab.get_by_role("tab", name="Similar").click()
    sync_api.expect(tab.get_by_text("1 case compared")).to_be_visible()
    sync_api.expect(tab.get_by_text("cannot be told: this result was made without a patient key")).to_be_visible()
    tab.get_by_role("button", name="Side by side").click()
    sync_api.expect(tab.locator(READY)).to_have_count(2, timeout=30_000)
    sync_api.expect(tab.get_by_text("both start equally far up and scroll together.")).to_be_visible()
    right = tab.locator(READY).nth(1).locator("canvas").first
    settles(lambda: right.evaluate(BRIGHT, 100))
    tab.get_by_role("button", name="Close").click()
    sync_api.expect(tab.locator(".pane")).to_have_count(1)
