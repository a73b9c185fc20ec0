"""The whole way of a reader in a real headless Chromium: worklist, images, evidence, similar cases, signature, all kept.

Once with a phantom, once with a real DICOM study; no exception in the console of the browser or the log of the server.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from browser_page import BRIGHT, COLOURED, READY, mm, plane, position, serving, wheel
from results_folder import finding, save_nifti, study_json, write_study
from safetensors.numpy import save_file
from tiny import patient, scan_of

from medvl.geometry import Geometry
from medvl.review.desk import Reviews
from medvl_ui.volumes import read_image

pytestmark = [pytest.mark.browser, pytest.mark.slow]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
PHANTOM, REAL = "a0phantom", "e0real"
FIRST, SECOND = (0.7, 0.4, 0.3), (0.2, 0.6, 0.7)  # places of the evidence in shares of the upright grid
META = {"model_sha256": "0f" * 32, "contract_hash": "c0ffee"}


def add_evidence(root: Path, case: str, grid: Geometry, vector: list[float], **more: object) -> None:
    """Two findings with maps in the right front and the left back of a study, and the embedding of a region."""
    folder = root / "studies" / case
    findings = []
    for name, shares in (("renal_mass", FIRST), ("stone", SECOND)):
        lps = place(grid, shares)
        region = Geometry.centered(lps, (9, 11, 7), (4.0, 5.0, 6.0))
        heat = f"heatmaps/{name}.nii.gz"
        save_nifti(folder / heat, np.ones(region.shape_dhw, np.float32), region)
        findings.append(finding(name, "kidney_right", 0.9, "present", heatmap=heat, peak_lps=lps.tolist()))
    (folder / "findings.json").write_text(json.dumps(study_json(case, findings=findings, **more)))
    save_file({"kidney_right": np.array(vector, np.float32)}, folder / "embeddings.safetensors", metadata=META)


def place(grid: Geometry, shares: tuple[float, float, float]) -> np.ndarray:
    """LPS mm of the voxel at these shares of the grid."""
    return grid.to_lps([round(share * n) for share, n in zip(shares, grid.shape_dhw, strict=True)])


def write_phantom(root: Path) -> Geometry:
    """A phantom with a rod of metal in its right side; the grid that is shown."""
    scan = scan_of(patient(3))
    hu = scan.hu.astype(np.int16)
    rod = place(read_grid(root, PHANTOM, hu, scan.geometry), (0.5, FIRST[1], 0.25))
    away = np.linalg.norm(np.moveaxis(lps_of(scan.geometry), 0, -1)[..., :2] - rod[:2], axis=-1)
    hu[away < 8.0] = 3000
    save_nifti(root / "studies" / PHANTOM / "image.nii.gz", hu, scan.geometry)
    return read_image(root, PHANTOM).geometry


def read_grid(root: Path, case: str, hu: np.ndarray, grid: Geometry) -> Geometry:
    """The upright grid of an image that is written for it."""
    write_study(root, study_json(case))
    save_nifti(root / "studies" / case / "image.nii.gz", hu, grid)
    return read_image(root, case).geometry


def lps_of(grid: Geometry) -> np.ndarray:
    """(3, D, H, W) mm of every voxel."""
    index = np.stack([*np.indices(grid.shape_dhw), np.ones(grid.shape_dhw)])
    return np.tensordot(grid.affine_lps, index, 1)[:3]


@pytest.fixture(scope="module")
def station_of(browser, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[tuple]:
    """Address, results folder and grids of a phantom, a stranger like it, and the real study where there is one."""
    folder = tmp_path_factory.mktemp("whole")
    root = folder / "results"
    grids = {PHANTOM: write_phantom(root)}
    add_evidence(root, PHANTOM, grids[PHANTOM], [1.0, 0.0])
    write_study(root, study_json("b1stranger", findings=[finding("renal_mass", "kidney_right", 0.8, "present")]), image=True)
    save_file(
        {"kidney_right": np.array([0.6, 0.8], np.float32)}, root / "studies" / "b1stranger" / "embeddings.safetensors", META
    )
    dicom = None
    with suppress(pytest.skip.Exception):  # the test of the real study says so itself
        dicom = request.getfixturevalue("shared_data") / "dicom" / "abdomen_portal_venous_crlm1004" / "dicom"
    if dicom is not None:
        (root / "sources.json").write_text(json.dumps({REAL: {"path": str(dicom), "series_key": ""}}))
        write_study(root, study_json(REAL))
        grids[REAL] = read_image(root, REAL).geometry
        add_evidence(root, REAL, grids[REAL], [0.8, 0.6])
    with serving(root, folder / "server.log") as address:
        yield address, root, grids


def opened_from_the_table(tab: "sync_api.Page", url: str, case: str, n_slices: int) -> None:
    """The worklist as a table, back to the page, and the study of that case."""
    tab.goto(url)
    tab.wait_for_selector(READY)
    tab.keyboard.press("w")
    sync_api.expect(tab.get_by_text("Click the box before a row")).to_be_visible()
    tab.keyboard.press("w")
    tab.get_by_role("button", name=case).first.click()
    sync_api.expect(plane(tab, "axial").locator(".title")).to_contain_text(f"/ {n_slices}", timeout=30_000)
    tab.wait_for_selector(READY)


@pytest.mark.parametrize("case", [PHANTOM, pytest.param(REAL, marks=pytest.mark.data)])
def test_from_worklist_to_signature_and_back(station_of: tuple, tab: "sync_api.Page", case: str) -> None:
    url, root, grids = station_of
    if case not in grids:
        pytest.skip("no real study on this machine: put the shared data beside the checkout, or set MEDVL_SHARED_DATA")
    grid, axial = grids[case], plane(tab, "axial")
    opened_from_the_table(tab, url, case, grid.shape_dhw[0])
    first, second = place(grid, FIRST), place(grid, SECOND)
    sync_api.expect(axial.locator(".position")).to_have_text(mm(first[2], "S", "I"))
    tab.wait_for_timeout(300)
    assert axial.locator("canvas").evaluate(COLOURED) < 0.5  # evidence in the patient's right, on the screen's left
    wheel(tab, "axial", 3)
    assert position(tab, "axial") == mm(first[2] - 3 * grid.spacing_mm[0], "S", "I")
    tab.get_by_role("button", name="Lung").click()
    sync_api.expect(tab.locator(".window")).to_have_text("W 1500 L -600", timeout=10_000)
    if case == PHANTOM:
        tab.get_by_role("button", name="Bone").click()
        tab.get_by_label("Evidence", exact=True).uncheck()
        tab.wait_for_timeout(300)
        for name in ("axial", "coronal"):
            x, _ = plane(tab, name).locator("canvas").evaluate(BRIGHT, 253)
            assert x < 0.5, name  # metal in the phantom's right, on the screen's left
        tab.get_by_label("Evidence", exact=True).check()
    tab.get_by_role("button", name="Stone").first.click()
    sync_api.expect(axial.locator(".position")).to_have_text(mm(second[2], "S", "I"))
    tab.wait_for_selector(READY)
    tab.wait_for_timeout(300)
    assert axial.locator("canvas").evaluate(COLOURED) > 0.5  # the overlay has moved
    tab.get_by_role("tab", name="Similar").click()
    sync_api.expect(tab.get_by_text("studies compared.").or_(tab.get_by_text("study compared.")).first).to_be_visible()
    sync_api.expect(tab.get_by_text("In both: Renal mass").first).to_be_visible()
    signed_and_kept(tab, root, case)


def signed_and_kept(tab: "sync_api.Page", root: Path, case: str) -> None:
    """Both findings accepted, the study signed, the page loaded anew."""
    tab.get_by_role("tab", name="Sign-off").click()
    for k in (1, 2):
        tab.get_by_role("button", name="Accept").click()
        sync_api.expect(tab.get_by_text(f"{k} of 2 decided")).to_be_visible()
    tab.get_by_role("button", name="Sign", exact=False).first.click()
    sync_api.expect(tab.get_by_text("✓ signed")).to_be_visible()
    tab.reload()
    tab.wait_for_selector(READY)
    tab.get_by_role("button", name=case).first.click()
    sync_api.expect(tab.get_by_role("heading", name=case)).to_be_visible()
    tab.get_by_role("tab", name="Sign-off").click()
    sync_api.expect(tab.get_by_text("✓ signed")).to_be_visible()
    with Reviews(root) as desk:
        assert str(desk.review(case).status) == "signed"
        assert desk.verify().problems == ()
