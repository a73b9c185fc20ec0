"""Manifests, small scans and planted identities for the tests of ingest."""

import csv
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from medvl.dataset.columns import map_columns
from medvl.dataset.ingest import Made, Options, ingest
from medvl.dataset.manifest import Manifest, Reader
from medvl.dataset.sheet import read_sheet
from medvl.geometry import Geometry
from medvl.imaging.nifti import write_nifti
from medvl.records import Volume

MASS = "FINDINGS: There is a 3.1 cm solid mass in the upper pole of the left kidney. The right kidney is normal."
NORMAL = "FINDINGS: Both kidneys are normal, without mass, stone or hydronephrosis."


def body(seed: int, shape: tuple[int, int, int] = (24, 40, 40)) -> np.ndarray:
    """(D, H, W) int16 HU: a body with blobs that the seed places."""
    rng = np.random.default_rng(seed)
    hu = np.full(shape, -1000, np.int16)
    hu[:, 4:-4, 3:-3] = 40
    for _ in range(25):
        z, y, x = (int(rng.integers(4, n - 4)) for n in shape)
        hu[z - 3 : z + 3, y - 3 : y + 3, x - 3 : x + 3] = rng.integers(-200, 400)
    return (hu + rng.integers(-12, 12, shape)).astype(np.int16)


def nifti(path: Path, seed: int) -> Path:
    """A scan of 4 x 4 x 4 mm as NIfTI."""
    hu = body(seed)
    write_nifti(Volume(hu, Geometry.centered((0, 0, 0), hu.shape, (4.0, 4.0, 4.0))), None, path)  # type: ignore[arg-type]
    return path


def dicom(folder: Path, seed: int, uid: str = "", **tags: Any) -> Path:
    """The same kind of scan as a DICOM series; `tags` by keyword."""
    folder.mkdir(parents=True, exist_ok=True)
    hu = body(seed)
    study = uid or f"1.2.826.0.1.{seed}"
    for k, plane in enumerate(hu):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, UID(f"{study}.5.{k + 1}")
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID = UID(study), UID(f"{study}.5")
        data.Modality, data.InstanceNumber, data.SeriesNumber = "CT", k + 1, 5
        data.Manufacturer, data.ManufacturerModelName, data.ConvolutionKernel = "Maker", "One", "B30f"
        data.SliceThickness, data.KVP = 4, 120
        data.Rows, data.Columns = plane.shape
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType, data.PixelSpacing = 1, 0, "HU", [4, 4]
        data.ImagePositionPatient, data.ImageOrientationPatient = [-80, -80, 4 * k], [1, 0, 0, 0, 1, 0]
        data.PixelData = plane.tobytes()
        for name, value in tags.items():
            setattr(data, name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)
    return folder


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], separator: str = ",") -> Path:
    """`rows` with the columns of all of them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(file, names, restval="", delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def lines_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def read(path: Path, **how: Any) -> Manifest:
    """A manifest whose columns speak for themselves."""
    sheet = read_sheet(path)
    return Reader(map_columns(sheet.columns), path.parent, **how).read(sheet)


def made(path: Path, out: Path, **options: Any) -> Made:
    """The dataset of a manifest, converted in this process and without a card unless told otherwise."""
    sheet = read_sheet(path)
    mapped = map_columns(sheet.columns)
    manifest = Reader(mapped, path.parent).read(sheet)
    return ingest(manifest, mapped, out, Options(path.parent, **{"workers": 0, "card": False, **options}))


def some(folder: Path, n: int = 4, **columns: Any) -> Path:
    """A manifest of `n` NIfTI scans of as many patients, reports in turn with and without a mass."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"patient_id": f"P{k}", "study": nifti(folder / f"s{k}.nii.gz", k).name, "report": (MASS, NORMAL)[k % 2], **columns}
        for k in range(n)
    ]
    return write_csv(folder / "manifest.csv", rows)
