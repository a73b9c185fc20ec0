"""A finished study without a model: a results folder as `medvl infer` writes it, about any scan."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medvl.geometry import Geometry
from medvl.imaging.nifti import write_nifti
from medvl.records import RESEARCH_USE

SHAPE = (7, 9, 11)
NEAR = {"code": "near_threshold", "message": "score 0.44 lies between 0.41 and 0.48"}
NOT_FOUND = {"code": "region_not_found", "message": "the localiser is 0.04 sure of chest; at least 0.35 is needed"}


NAMES = {"PatientName": b"Doe^Jane", "PatientID": b"ID-1", "PatientSex": b"F", "StudyDate": b"20260101", "StudyTime": b"1200",
         "StudyID": b"S1", "AccessionNumber": b"A1"}  # fmt: skip


def series(folder: Path, charset: str | None = None, *, uid: str = "1.2.3.4", frame: str = "1.2.3.9", **raw: bytes) -> Path:
    """Five slices of 7 x 11 with patient and study as given, byte for byte.

    Args:
        charset: Specific Character Set, as it is to stand in the files; None for none.
        raw: bytes by keyword, over those of `NAMES`.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for k in range(5):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = f"{uid}.2.{k + 1}"
        ds = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=False, is_little_endian=True)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"{uid}.2.{k + 1}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{uid}.0", f"{uid}.1"
        if frame:
            ds.FrameOfReferenceUID = frame
        ds.Modality, ds.ImageType, ds.InstanceNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], k + 1
        ds.Rows, ds.Columns, ds.PixelSpacing, ds.SliceThickness = 7, 11, [0.8, 0.7], 2.5
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-12, 30, -55 + 2.5 * k]
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.RescaleSlope, ds.RescaleIntercept = 16, 16, 15, 1, -1024
        hu = rng.integers(-1000, 900, (7, 11))
        hu[0] = -1000
        ds.PixelData = (hu + 1024).astype("<u2").tobytes()
        ds["PixelData"].VR = "OW"
        words = {**NAMES, **raw, **({"SpecificCharacterSet": charset.encode()} if charset is not None else {})}
        for keyword, value in words.items():
            tag = Tag(tag_for_keyword(keyword))
            padded = value + b" " * (len(value) % 2)
            ds[tag] = RawDataElement(tag, dictionary_VR(tag), len(padded), padded, 0, False, True)
        ds.set_original_encoding(False, True, ds._character_set)  # bytes as they are
        ds.save_as(folder / f"I{k}", enforce_file_format=True)
    return folder


def grid_at(center: Any, tilt_deg: float = 0.0) -> Geometry:
    """No cube: 7 x 9 x 11 voxels of 3, 2.5 and 2 mm, turned about the patient's long axis."""
    turn = np.radians(tilt_deg)
    directions = np.array([[0, 0, 1.0], [0, 1.0, 0], [1.0, 0, 0]])
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ directions * np.array([3.0, 2.5, 2.0])
    affine[:3, 3] = np.asarray(center) - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return Geometry(SHAPE, affine)


def heat_map(seed: int = 0) -> np.ndarray:
    """(7, 9, 11) float32 in [0, 1], 1 at one voxel off the middle."""
    heat = np.random.default_rng(seed).random(SHAPE, dtype=np.float32) * np.float32(0.98)
    heat[2, 6, 3] = 1.0
    return heat


def answer(finding: str, label: str, region: str, verdict: str, score: float | None, **more: Any) -> dict[str, Any]:
    """One entry of `findings`."""
    cut = (
        {"threshold": 0.44, "threshold_low": 0.41, "threshold_high": 0.48}
        if score is not None
        else dict.fromkeys(("threshold", "threshold_low", "threshold_high"))
    )
    base = {
        "finding": finding, "label": label, "region": region, "score": score, "calibrated": score is not None, "verdict": verdict,
        **cut, "reasons": [], "prompts": {"present": [], "absent": []}, "heatmap": None, "peak_lps": None, "deletion": None,
        "interval": None, "spread": None, "margin": None, "percentile": None,
    }  # fmt: skip
    return {**base, **more}


def finished(folder: Path, center: Any, *, heat: bool = True, tilt_deg: float = 0.0, label: str = "Renal mass") -> Path:
    """A study's results folder: two regions with heat maps, one region that was not found, and a survival estimate."""
    study = folder / "studies" / "0123456789ab"
    (study / "heatmaps").mkdir(parents=True)
    grids = {"kidney_left": grid_at(center, tilt_deg), "kidney_right": grid_at(np.asarray(center) - [40, 0, 0])}
    regions = [
        {"name": name, "found": True, "center_lps": grid.center_lps.tolist(), "shape_dhw": list(grid.shape_dhw),
         "affine_lps": grid.affine_lps.tolist(), "reasons": []}
        for name, grid in grids.items()
    ]  # fmt: skip
    regions.append(
        {"name": "chest", "found": False, "center_lps": None, "shape_dhw": None, "affine_lps": None, "reasons": [NOT_FOUND]}
    )

    def hot(name: str, region: str, seed: int) -> dict[str, Any]:
        if not heat:
            return {}
        path = f"heatmaps/{name}_{region}.nii.gz"
        write_nifti(heat_map(seed), grids[region], study / path)
        peak = grids[region].to_lps((2, 6, 3)).round(2).tolist()
        return {"heatmap": path, "peak_lps": peak, "deletion": {"before": 0.9, "after": 0.31, "control": 0.88}}

    findings = [
        answer(
            "renal_mass",
            label,
            "kidney_left",
            "present",
            0.9012,
            margin=0.2,
            interval=[0.84, 0.95],
            **hot("renal_mass", "kidney_left", 1),
        ),
        answer(
            "mass_exophytic",
            "Exophytic mass",
            "kidney_left",
            "undecided",
            0.44,
            reasons=[NEAR],
            **hot("mass_exophytic", "kidney_left", 2),
        ),
        answer(
            "renal_cyst", "Renal cyst", "kidney_right", "present", 0.81, percentile=97.5, **hot("renal_cyst", "kidney_right", 3)
        ),
        answer("renal_mass", label, "kidney_right", "absent", 0.0123),
        answer("pleural_effusion_left", "Left pleural effusion", "chest", "undecided", None, reasons=[NOT_FOUND]),
    ]
    risk = {"endpoint": "overall survival (phantom)", "value": -0.3226, "percentile": 38.0,
            "survival": {"365": 0.899, "1095": 0.6894},
            "reasons": [{"code": "age_missing", "message": "age is not known"}]}  # fmt: skip
    record = {
        "schema": "medvl.findings/1", "case_id": "0123456789ab", "software": "medvl 0.1.0",
        "research_use": RESEARCH_USE,
        "bundle": {"name": "phantom-demo", "sha256": "ab" * 32, "contract": "cd" * 32},
        "asked": None, "status": "done", "reasons": [],
        "series": {"key": "ba9876543210"}, "regions": regions, "findings": findings, "risk": risk, "timings_s": {"encode": 0.1},
    }  # fmt: skip
    (study / "findings.json").write_text(json.dumps(record), encoding="utf-8")
    return study


def edited(study: Path, **changes: Any) -> None:
    """Change the record of a study."""
    path = study / "findings.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def conforms(path: Path) -> None:
    """No Error of dciodvfy, no Warning but of the private scheme and the source's own names; dcmtk reads it in silence."""
    for program in ("dciodvfy", "dcmdump"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: install dicom3tools and dcmtk")
    shown = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in (shown.stdout + shown.stderr).splitlines() if line.startswith(("Error", "Warning"))]
    wrong = [line for line in lines if line.startswith("Error")]
    assert wrong == [], wrong
    known = ("99MEDVL", "Retired Person Name form", "DICOMDIR")  # the private scheme, and what the source itself says
    assert [line for line in lines if line.startswith("Error") or not any(word in line for word in known)] == []
    reader = "dsrdump" if path.name == "sr.dcm" else "dcmdump"
    read = subprocess.run([reader, str(path)], capture_output=True, text=True, errors="replace", check=False)
    said = [line for line in read.stderr.splitlines() if "Character" not in line]  # it says which sets its checker does not know
    assert (read.returncode, said) == (0, [])
