"""Tables, reports and small scans on disk for the tests of the table route."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medvl.geometry import Geometry
from medvl.imaging.nifti import write_nifti
from medvl.imaging.phantom.sample import sample_patient
from medvl.imaging.phantom.write import write_manifest, write_patient
from medvl.imaging.preprocess import Contract, RegionSpec
from medvl.records import Volume

WINDOWS = ((-150.0, 250.0),)
CONTRACT = Contract(
    (
        RegionSpec("kidney_left", (16, 16, 16), (6.0, 5.0, 5.0), WINDOWS),
        RegionSpec("kidney_right", (16, 16, 16), (6.0, 5.0, 5.0), WINDOWS),
        RegionSpec("chest", (16, 16, 16), (9.0, 12.0, 12.0), WINDOWS),
    )
)
REPORT = "FINDINGS: There is a 3.1 cm solid mass in the upper pole of the left kidney. The right kidney is normal.\n"


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """`rows` as CSV with the columns of all of them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def small_scan(path: Path, value: float = 40.0) -> Path:
    """A NIfTI scan of 200 mm a side around the origin: fat with a block of `value` HU to the patient's left."""
    grid = Geometry.centered((0, 0, 0), (50, 50, 50), (4.0, 4.0, 4.0))
    hu = np.full(grid.shape_dhw, -100, np.int16)
    x = grid.to_lps(np.stack([np.zeros(50), np.zeros(50), np.arange(50)], axis=1))[:, 0]
    hu[20:30, 20:30] = np.where((x > 20) & (x < 60), value, -100)
    hu[:, :, :2] = -1000
    write_nifti(Volume(hu, grid), None, path)
    return path


def phantom_table(folder: Path, seed: int, numbers: Sequence[int]) -> Path:
    """Phantoms as DICOM and the table of them, made from their manifest, with the true centres of their regions."""
    for number in numbers:
        write_patient(sample_patient(seed, number), folder)
    with write_manifest(folder).open(encoding="utf-8", newline="") as file:
        manifest = list(csv.DictReader(file))
    rows = []
    for line in manifest:
        centers = json.loads((folder / line["truth"]).read_text(encoding="utf-8"))["region_centers_lps"]
        places = {f"{name}_{axis}_mm": c for name, center in centers.items() for axis, c in zip("xyz", center, strict=True)}
        kept = {name: line[name] for name in ("patient_id", "split", "age_years", "sex", "bmi", "time_days", "event", "phase")}
        rows.append({**kept, "study": line["dicom"], "report_file": line["report"], **places})
    return write_csv(folder / "table.csv", rows)
