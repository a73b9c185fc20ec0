"""Results folders made by code: an asymmetric volume with a bright marker on the patient's right, and every awkward case."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medvl.geometry import Geometry

SHAPE, SPACING, CENTER = (40, 56, 48), (3.0, 1.2, 1.1), (4.0, -12.0, 250.0)
MARKER_DHW = (30, 20, 8)  # low column in an SPL grid: the patient's right, towards the front, towards the head
SECOND_DHW = (8, 36, 38)  # the patient's left, towards the back, towards the feet
SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
DONE = "a1b2c3d4e5f6"


def grid() -> Geometry:
    """The image's upright grid."""
    return Geometry.centered(CENTER, SHAPE, SPACING)


def save_nifti(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Write a (D, H, W) array with its place in the patient."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), geometry.affine_ras_ijk), path)


def image_hu() -> np.ndarray:
    """(40, 56, 48) int16 HU: an ellipse of soft tissue in air, a marker of 1000 HU right, a lesion of 200 HU left."""
    d, h, w = np.indices(SHAPE)
    body = ((h - 28) / 24) ** 2 + ((w - 24) / 22) ** 2 < 1
    hu = np.where(body, 40 + d // 4, -1000).astype(np.int16)
    for (z, y, x), value, half in ((MARKER_DHW, 1000, 3), (SECOND_DHW, 200, 4)):
        hu[z - 2 : z + 3, y - half : y + half + 1, x - half : x + half + 1] = value
    return hu


def finding(name: str, region: str, score: float, verdict: str, **more: Any) -> dict[str, Any]:
    """One entry of `findings`."""
    entry = {
        "finding": name,
        "label": name.replace("_", " ").capitalize(),
        "region": region,
        "score": score,
        "calibrated": True,
        "verdict": verdict,
        "threshold_low": 0.4,
        "threshold_high": 0.6,
        "reasons": [],
        "prompts": {"present": [f"There is a {name.replace('_', ' ')}."], "absent": [f"No {name.replace('_', ' ')} is seen."]},
        "heatmap": None,
        "peak_lps": None,
        "deletion": None,
    }
    return entry | more


def heatmap_of(folder: Path, name: str, peak_dhw: tuple[int, int, int]) -> dict[str, Any]:
    """Write a heat map on a coarser region grid around a voxel; the finding's fields that name it."""
    peak = grid().to_lps(peak_dhw)
    region = Geometry.centered(peak, (9, 11, 7), (4.0, 3.0, 3.5))
    d, h, w = np.indices(region.shape_dhw)
    values = np.exp(-(((d - 4) / 2) ** 2 + ((h - 5) / 2) ** 2 + ((w - 3) / 2) ** 2)).astype(np.float32)
    save_nifti(folder / "heatmaps" / f"{name}.nii.gz", values, region)
    return {"heatmap": f"heatmaps/{name}.nii.gz", "peak_lps": peak.tolist(), "deletion": {"before": 0.93, "after": 0.21}}


def study_json(case_id: str, **more: Any) -> dict[str, Any]:
    """A complete findings.json of a study that was read."""
    entry = {
        "schema": "medvl.findings/1",
        "case_id": case_id,
        "software": "medvl 0.1.0",
        "research_use": "Research software.",
        "bundle": {"name": "phantom", "sha256": "0f" * 32, "contract": "c0ffee"},
        "status": "done",
        "reasons": [],
        "series": {
            "key": "3f9a",
            "modality": "CT",
            "verdict": "volume",
            "reasons": [{"code": "tilt_resampled", "message": "The gantry was tilted by 12 degrees."}],
            "shape_dhw": list(SHAPE),
            "spacing_mm": list(SPACING),
            "affine_lps": grid().affine_lps.tolist(),
            "why": "the thinnest soft-tissue series",
        },
        "regions": [
            {"name": "kidney_right", "found": True, "center_lps": grid().to_lps(MARKER_DHW).tolist(), "confidence": 0.97,
             "source": "localiser", "covered": 0.98, "reasons": [], "ood": {"distance": 1.2, "limit": 3.4, "out": False}},
            {"name": "kidney_left", "found": True, "center_lps": grid().to_lps(SECOND_DHW).tolist(), "confidence": 0.61,
             "source": "localiser", "covered": 1.0, "reasons": [], "ood": {"distance": 5.2, "limit": 3.4, "out": True}},
        ],
        "findings": [],
        "risk": None,
        "timings_s": {},
    }  # fmt: skip
    return entry | more


def write_study(root: Path, study: dict[str, Any] | str, *, case_id: str | None = None, image: bool = False) -> Path:
    """Write findings.json (text is written as it is) and, on wish, the image; the study's folder."""
    folder = root / "studies" / (case_id or study["case_id"])
    folder.mkdir(parents=True)
    (folder / "findings.json").write_text(study if isinstance(study, str) else json.dumps(study))
    if image:
        save_nifti(folder / "image.nii.gz", image_hu(), grid())
    return folder


def write_done(root: Path) -> None:
    """The study with images, three findings on the patient's right and left, and a risk."""
    folder = root / "studies" / DONE
    unlike = [{"code": "out_of_distribution", "message": "The left kidney looks unlike the training data."}]
    findings = [
        finding("renal_mass", "kidney_right", 0.93, "present", **heatmap_of(folder, "renal_mass_kidney_right", MARKER_DHW)),
        finding("stone", "kidney_left", 0.55, "undecided", calibrated=False, reasons=unlike,
                **heatmap_of(folder, "stone_kidney_left", SECOND_DHW)),
        finding("hydronephrosis", "kidney_left", 0.03, "absent", heatmap="heatmaps/gone.nii.gz"),
    ]  # fmt: skip
    risk = {"endpoint": "overall survival", "value": 1.4, "percentile": 71, "reasons": []}
    (folder / "findings.json").write_text(json.dumps(study_json(DONE, findings=findings, risk=risk)))
    save_nifti(folder / "image.nii.gz", image_hu(), grid())


def write_results(root: Path) -> Path:
    """A results folder with a read, a skipped, a failed, a hostile, a sourceless and a corrupt study."""
    write_done(root)
    skipped = [{"code": "missing_slice", "message": "One gap of 5.0 mm among 2.5 mm; a slice is missing; re-export the series."}]
    write_study(root, study_json("b0skipped", status="skipped", reasons=skipped))
    write_study(
        root, study_json("b1failed", status="failed", reasons=[{"code": "crash", "message": "The model ran out of memory."}])
    )
    hostile = finding("cyst", "kidney_left", 0.7, "present", label=SCRIPT, prompts={"present": [SCRIPT], "absent": [SCRIPT]})
    hostile["heatmap"] = "../../../secret.nii.gz"
    write_study(root, study_json("c0hostile", findings=[hostile], reasons=[{"code": "note", "message": SCRIPT}]), image=True)
    write_study(root, study_json("c1sourceless", findings=[finding("cyst", "kidney_left", 0.7, "present")]))
    write_study(root, '{"schema": "medvl.findings/1", "case_id": ', case_id="d0corrupt")
    return root
