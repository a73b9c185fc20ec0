"""A real DICOM study beside made ones, from worklist to evidence, in a real headless Chromium."""

import json
from pathlib import Path

import numpy as np
import pytest
from browser_page import COLOURED, READY, mm, plane, position, serving, settles, watched, wheel
from results_folder import finding, save_nifti, study_json, write_results

from medvl.geometry import Geometry
from medvl_ui.volumes import read_image

pytestmark = [pytest.mark.browser, pytest.mark.data]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CASE = "e0real"


def write_real(root: Path, dicom: Path) -> Geometry:
    """Add a study whose source is `dicom`, with evidence in its right front and its left back; the grid that is shown."""
    write_results(root)
    sources = {CASE: {"path": str(dicom), "series_key": ""}}
    (root / "sources.json").write_text(json.dumps(sources))
    folder = root / "studies" / CASE
    folder.mkdir()
    shown = read_image(root, CASE).geometry
    d, h, w = shown.shape_dhw
    findings = []
    for name, peak in (("renal_mass", (0.7 * d, 0.4 * h, 0.3 * w)), ("stone", (0.2 * d, 0.6 * h, 0.7 * w))):
        lps = shown.to_lps([round(n) for n in peak])
        region = Geometry.centered(lps, (9, 11, 7), (4.0, 5.0, 6.0))
        heat = save_heat(folder, name, region)
        findings.append(finding(name, "kidney_right", 0.9, "present", heatmap=heat, peak_lps=lps.tolist()))
    (folder / "findings.json").write_text(json.dumps(study_json(CASE, findings=findings)))
    return shown


def save_heat(folder: Path, name: str, region: Geometry) -> str:
    save_nifti(folder / "heatmaps" / f"{name}.nii.gz", np.ones(region.shape_dhw, np.float32), region)
    return f"heatmaps/{name}.nii.gz"


def test_a_real_study_from_worklist_to_evidence(browser, shared_data: Path, tmp_path: Path) -> None:
    shown = write_real(tmp_path / "results", shared_data / "dicom" / "abdomen_portal_venous_crlm1004" / "dicom")
    d, h, w = shown.shape_dhw
    first = shown.to_lps([round(0.7 * d), round(0.4 * h), round(0.3 * w)])
    second = shown.to_lps([round(0.2 * d), round(0.6 * h), round(0.7 * w)])
    with serving(tmp_path / "results", tmp_path / "log") as url, watched(browser) as tab:
        tab.goto(url)
        tab.wait_for_selector(READY)
        tab.get_by_role("button", name=CASE).first.click()
        sync_api.expect(plane(tab, "axial").locator(".title")).to_contain_text(f"/ {d}", timeout=20_000)
        tab.wait_for_selector(READY)
        settles(lambda: position(tab, "axial") == mm(first[2], "S", "I"))
        tab.wait_for_timeout(200)
        settles(lambda: plane(tab, "axial").locator("canvas").evaluate(COLOURED) < 0.5)  # right is left
        wheel(tab, "axial", 3)
        settles(lambda: position(tab, "axial") == mm(first[2] - 3 * shown.spacing_mm[0], "S", "I"))
        tab.get_by_role("button", name="Lung").click()
        settles(lambda: tab.locator(".window").inner_text().split() == ["W", "1500", "L", "-600"])
        tab.get_by_role("button", name="Stone").first.click()
        sync_api.expect(plane(tab, "axial").locator(".position")).to_have_text(mm(second[2], "S", "I"))
        tab.wait_for_selector(READY)
        tab.wait_for_timeout(300)
        settles(lambda: plane(tab, "axial").locator("canvas").evaluate(COLOURED) > 0.5)
        settles(lambda: "HU" in tab.locator(".status").inner_text())
