"""A phantom cohort on disk: studies, reports, the truth beside them, and one manifest.

cohort.json                 seed and layout version; hospital, if another than the demo site
manifest.csv                one row a patient
dicom/PH000001/*.dcm        a study: localizer, the CT series, for some a thick reconstruction
nifti/PH000001.nii.gz       the same CT
reports/PH000001.txt
truth/PH000001.json         everything that is true of the patient; written last, so it marks the patient as complete
masks/PH000001/FINDING@REGION.nii.gz    if asked
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from medvl.errors import ConfigError
from medvl.files import replace_text, whole, write_json
from medvl.imaging.nifti import write_nifti
from medvl.imaging.phantom.dicom import write_dicom
from medvl.imaging.phantom.other_report import write_other
from medvl.imaging.phantom.render import lesion_masks, region_centers, render
from medvl.imaging.phantom.report import write_report
from medvl.imaging.phantom.site import DEMO, Site
from medvl.imaging.phantom.truth import Patient
from medvl.imaging.phantom.wording_dictated import STYLE as DICTATED
from medvl.imaging.phantom.wording_telegraphic import STYLE as TELEGRAPHIC
from medvl.records import Volume

FORMATS = ("dicom", "nifti")
LAYOUT = 1
STYLES = {"telegraphic": TELEGRAPHIC, "dictated": DICTATED}
SPLITS = {"train": 0.70, "validation": 0.15, "test": 0.15}
COLUMNS = (
    "patient_id",
    "split",
    "dicom",
    "nifti",
    "report",
    "truth",
    "coverage",
    "phase",
    "age_years",
    "sex",
    "bmi",
    "time_days",
    "event",
)
_REPORT_STREAM = 4


def split_of(seed: int, patient_id: str) -> str:
    """``train``, ``validation`` or ``test`` from a hash of cohort seed and patient, so that adding patients moves nobody."""
    digest = hashlib.sha256(f"{seed}/{patient_id}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    edge = 0.0
    for name, share in SPLITS.items():
        edge += share
        if point < edge:
            return name
    return "test"


def report_of(patient: Patient) -> str:
    """The patient's one report; always the same text for the same patient."""
    rng = np.random.default_rng([patient.seed, patient.number, _REPORT_STREAM])
    return write_report(patient, rng) if patient.voice == "plain" else write_other(patient, rng, STYLES[patient.voice])


def open_cohort(out: Path, seed: int, site: Site = DEMO) -> None:
    """Make the folder of a cohort, or check that it is one of this seed and site.

    Raises:
        ConfigError: it holds a cohort of another seed, site or layout.
    """
    out.mkdir(parents=True, exist_ok=True)
    marker = out / "cohort.json"
    mine: dict[str, Any] = {"seed": seed, "layout": LAYOUT}
    if site.name != DEMO.name:
        mine |= {"site": site.name, "profile": site.digest}
    if marker.exists():
        found = json.loads(marker.read_text(encoding="utf-8"))
        if found != mine:
            raise ConfigError(
                f"the folder holds a cohort made with {found}, not {mine}; give the same seed and site, or another folder"
            )
    else:
        replace_text(marker, json.dumps(mine) + "\n")


def is_written(out: Path, patient_id: str, formats: tuple[str, ...], masks: bool = False) -> bool:
    """True when an earlier run finished this patient with all of `formats` (and masks)."""
    wanted = {"dicom": out / "dicom" / patient_id, "nifti": out / "nifti" / f"{patient_id}.nii.gz"}
    complete = (out / "truth" / f"{patient_id}.json").exists() and all(wanted[name].exists() for name in formats)
    return complete and (not masks or (out / "masks" / patient_id).exists())


def write_patient(patient: Patient, out: Path, formats: tuple[str, ...] = ("dicom",), *, masks: bool = False) -> None:
    """Render one patient and write study, report and truth below `out`; each piece appears whole or not at all.

    Args:
        patient: the truth.
        out: the cohort folder.
        formats: of `FORMATS`.
        masks: also write a (D, H, W) uint8 NIfTI for each finding that the scan reaches.

    Raises:
        ConfigError: a format is unknown.
    """
    unknown = set(formats) - set(FORMATS)
    if unknown or not formats:
        raise ConfigError(f"unknown formats {sorted(unknown)}; choose from {', '.join(FORMATS)}")
    name, volume = patient.patient_id, render(patient)
    for folder in (*formats, "reports", "truth"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    if "dicom" in formats:
        _write_folder(out / "dicom" / name, lambda part: _write_study(volume, patient, part))
    if "nifti" in formats:
        write_nifti(volume, None, out / "nifti" / f"{name}.nii.gz")
    if masks:
        (out / "masks").mkdir(exist_ok=True)
        _write_folder(out / "masks" / name, lambda part: _write_masks(volume, patient, part))
    replace_text(out / "reports" / f"{name}.txt", report_of(patient))
    centers = {region: np.round(center, 3).tolist() for region, center in region_centers(patient).items()}
    truth = {**patient.as_dict(), "split": split_of(patient.seed, name), "region_centers_lps": centers}
    write_json(out / "truth" / f"{name}.json", truth)


def _write_study(volume: Volume, patient: Patient, folder: Path) -> None:
    thick = patient.number % 4 == 0
    write_dicom(volume, patient, folder, localizer=True, thick=thick)


def _write_masks(volume: Volume, patient: Patient, folder: Path) -> None:
    for name, mask in lesion_masks(patient, volume.geometry).items():
        if mask.any():
            write_nifti(mask, volume.geometry, folder / f"{name}.nii.gz")


def _write_folder(target: Path, fill: Any) -> None:
    """Fill a hidden neighbour folder, then put it in place of `target`."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    fill(part)
    if target.exists():
        shutil.rmtree(target)
    part.replace(target)


def write_manifest(out: Path) -> Path:
    """Rewrite `manifest.csv` from every finished patient; paths are relative to `out`, empty where a format was not written."""
    path = out / "manifest.csv"
    with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS)
        rows.writeheader()
        for truth in sorted((out / "truth").glob("[A-Z][A-Z]??????.json")):
            rows.writerow(_row(out, json.loads(truth.read_text(encoding="utf-8"))))
    return path


def _row(out: Path, truth: dict[str, Any]) -> dict[str, Any]:
    name = truth["patient_id"]
    places = {
        "dicom": f"dicom/{name}",
        "nifti": f"nifti/{name}.nii.gz",
        "report": f"reports/{name}.txt",
        "truth": f"truth/{name}.json",
    }
    return {
        **{key: place if (out / place).exists() else "" for key, place in places.items()},
        **{key: truth["scanner"][key] for key in ("coverage", "phase")},
        **{key: truth[key] for key in ("patient_id", "split", "age_years", "sex", "bmi", "time_days")},
        "event": int(truth["event"]),
    }
