"""Small DICOM series with one peculiarity each, written with pydicom: never cubes, never axis-aligned unless asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

SHAPE = (5, 7, 11)
SPACING = (2.5, 0.8, 0.7)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def oblique() -> tuple[float, ...]:
    """Direction cosines of a plane turned about all three axes."""
    a, b, c = 0.3, -0.2, 0.15
    turn_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    matrix = turn_z @ turn_y @ turn_x
    return (*matrix[:, 0], *matrix[:, 1])


def hu_volume(shape: tuple[int, int, int] = SHAPE, seed: int = 3) -> np.ndarray:
    """(D, H, W) int16 asymmetric values with air, fat and bone, different in every voxel row."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-1000, 900, shape).astype(np.int16)
    values[:, 0, :] = -1000
    values[0, 1, 2] = 1234
    return values


@dataclass
class Plan:
    """A series to write; every field may be changed by a test."""

    hu: np.ndarray = field(default_factory=hu_volume)
    orientation: Sequence[float] = AXIAL
    origin: Sequence[float] = (-12.0, 30.0, -55.0)
    step: np.ndarray | None = None  # default: along the normal
    slope: float = 1.0
    intercept: float = -1024.0
    signed: bool = False
    bits: int = 16
    syntax: str = ExplicitVRLittleEndian
    series_uid: str = field(default_factory=generate_uid)
    study_uid: str = field(default_factory=generate_uid)
    change: Callable[[Dataset, int], None] = lambda ds, k: None

    @property
    def step_vector(self) -> np.ndarray:
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return normal * SPACING[0] if self.step is None else np.asarray(self.step)

    def position(self, k: int) -> np.ndarray:
        return np.asarray(self.origin) + k * self.step_vector


def dataset(plan: Plan, k: int) -> FileDataset:
    """Slice k of the plan."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, plan.syntax
    little = plan.syntax != ExplicitVRBigEndian
    ds = FileDataset(
        "",
        Dataset(),
        file_meta=meta,
        preamble=b"\0" * 128,
        is_implicit_VR=plan.syntax == ImplicitVRLittleEndian,
        is_little_endian=little,
    )
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = plan.study_uid, plan.series_uid
    ds.PatientName, ds.PatientID, ds.Modality = "Secret^Name", "SECRET-ID", "CT"
    ds.ImageType, ds.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], k + 1
    ds.Rows, ds.Columns = plan.hu.shape[1:]
    ds.PixelSpacing, ds.SliceThickness = list(SPACING[1:]), SPACING[0]
    ds.ImageOrientationPatient = [round(float(x), 8) for x in plan.orientation]
    ds.ImagePositionPatient = [round(float(x), 6) for x in plan.position(k)]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, plan.bits, plan.bits - 1, int(plan.signed)
    ds.RescaleSlope, ds.RescaleIntercept = plan.slope, plan.intercept
    set_hu(ds, plan.hu[k])
    plan.change(ds, k)
    return ds


def set_hu(ds: FileDataset, hu: np.ndarray) -> None:
    """Store HU by the data set's own rescale."""
    stored = np.rint((hu - float(ds.RescaleIntercept)) / float(ds.RescaleSlope)).astype(np.int64)
    kept = stored & ((1 << ds.BitsStored) - 1)
    order = ">" if ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    ds.PixelData = kept.astype(f"{order}u2").tobytes()
    ds["PixelData"].VR = "OW"


def write(folder: Path, plan: Plan, *, slices: Sequence[int] | None = None, prefix: str = "") -> list[Path]:
    """Write the slices under shuffled names without suffix; the paths in slice order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(11).permutation(len(plan.hu))
    paths = []
    for k in range(len(plan.hu)) if slices is None else slices:
        path = folder / f"{prefix}I{names[k]:03d}"
        dataset(plan, k).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
