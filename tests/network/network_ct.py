"""Small CT objects for the network tests."""

from __future__ import annotations

import secrets
import warnings
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian


def new_uid() -> str:
    """A random UID that leaves room for a suffix."""
    return f"2.25.{secrets.randbits(96)}"


def ct(number: int, study: str, series: str, *, sop: str = "", size: int = 32, modality: str = "CT") -> Dataset:
    """One slice of int16 noise that its number decides."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, UID(sop or f"{series}.{number}")
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = UID(study), UID(series)
    data.StudyDate, data.StudyTime, data.Modality, data.InstanceNumber = "20240117", "101500", modality, number
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Planted^Name", "PLANTED-ID", "19500101", "F"
    data.AccessionNumber = "PLANTED-ACC"
    data.Rows = data.Columns = size
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.RescaleSlope, data.RescaleIntercept, data.PixelSpacing = 1, 0, [1, 1]
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    data.PixelData = np.random.default_rng(number).integers(-1000, 1000, (size, size), dtype=np.int16).tobytes()
    return data


def write(folder: Path, n: int = 4, *, study: str = "", series: str = "", modality: str = "CT", size: int = 32) -> list[Path]:
    """A series of `n` slices as files."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series = study or new_uid(), series or new_uid()
    paths = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(1, n + 1):
            paths.append(folder / f"{modality}-{number:03d}")
            ct(number, study, series, modality=modality, size=size).save_as(paths[-1], enforce_file_format=True)
    return paths
