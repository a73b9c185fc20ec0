"""Phantom volumes as CT Image Storage series: valid, geometry from the volume, deterministic, plainly fake identities.

The elements that all slices share are encoded once; a slice adds its own few elements and its pixels in one write.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless

from medvl.geometry import Geometry
from medvl.imaging.phantom.truth import Patient, Phase
from medvl.records import Volume

Syntax = Literal["explicit", "jpegls"]
STUDY_TIME = "120000"
THICK_MM = 10.0
_DELAY_S: dict[Phase, int] = {"noncontrast": 0, "arterial": 35, "portal_venous": 70, "delayed": 180}
_PHASE_NAMES: dict[Phase, str] = {
    "noncontrast": "native",
    "arterial": "arterial",
    "portal_venous": "portal venous",
    "delayed": "delayed",
}
_BODY_PART = {"chest": "CHEST", "abdomen": "ABDOMEN", "chest_abdomen": "CHESTABDOMEN"}
_INTERCEPT, _STORED_MAX = -1024, 4095


@dataclass(frozen=True)
class _SeriesPlan:
    """One series to write: its number, what it is called, its grid and (D, H, W) HU."""

    number: int
    description: str
    image_type: tuple[str, ...]
    thickness_mm: float
    geometry: Geometry
    hu: NDArray[Any]


def write_dicom(
    volume: Volume, patient: Patient, folder: Path, *, syntax: Syntax = "explicit", localizer: bool = False, thick: bool = False
) -> list[Path]:
    """Write a study of one CT series, and if asked a localizer and a thick reconstruction; returns the file paths in order.

    Args:
        volume: (D, H, W) int16 or float32 HU with its geometry; values are clipped to [-1024, 3071] and rounded.
        patient: says scanner, phase and identity; names and ids are made up ("Phantom^000123").
        folder: where files named SS-IIII.dcm (series, instance) go; made when missing.
        syntax: ``explicit`` VR little endian, or lossless ``jpegls``.
        localizer: adds a coronal mean projection of type LOCALIZER as series 1.
        thick: adds an axial series 3 of about 10 mm slabs.

    Raises:
        ValueError: an axis of the geometry is not at right angles to the others; DICOM planes cannot hold a shear.
    """
    if volume.geometry.shear_deg > 0.01:
        raise ValueError(f"the grid is sheared by {volume.geometry.shear_deg:.3f} degrees; resample it first")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for plan in _plans(volume, patient, localizer, thick):
        paths += _write_series(plan, patient, folder, syntax)
    return paths


def _plans(volume: Volume, patient: Patient, localizer: bool, thick: bool) -> list[_SeriesPlan]:
    scanner, geometry = patient.scanner, volume.geometry
    phase = scanner.protocol or _PHASE_NAMES[scanner.phase]
    axial = ("ORIGINAL", "PRIMARY", "AXIAL")
    plans = [_SeriesPlan(2, f"{phase} {scanner.thickness_mm:g} mm", axial, scanner.thickness_mm, geometry, volume.hu)]
    if localizer:
        plans.insert(0, _localizer(volume))
    n = max(2, round(THICK_MM / geometry.spacing_mm[0]))
    if thick and geometry.shape_dhw[0] >= 2 * n:
        depth = geometry.shape_dhw[0] // n
        slabs = volume.hu[: depth * n].reshape(depth, n, *volume.hu.shape[1:]).mean(axis=1, dtype=np.float32)
        affine = geometry.affine_lps.copy()
        affine[:3, 0] *= n
        affine[:3, 3] = geometry.to_lps(((n - 1) / 2, 0, 0))
        grid = Geometry((depth, *geometry.shape_dhw[1:]), affine)
        plans.append(_SeriesPlan(3, f"{phase} thick", ("DERIVED", "PRIMARY", "AXIAL"), n * geometry.spacing_mm[0], grid, slabs))
    return plans


def _localizer(volume: Volume) -> _SeriesPlan:
    """The mean along image columns, as one image whose rows run towards the feet."""
    geometry = volume.geometry
    image = volume.hu.mean(axis=1, dtype=np.float32)
    down = geometry.directions[2, 0] < 0
    start = 0 if down else geometry.shape_dhw[0] - 1
    affine = np.eye(4)
    affine[:3, 0] = geometry.affine_lps[:3, 1]
    affine[:3, 1] = geometry.affine_lps[:3, 0] * (1 if down else -1)
    affine[:3, 2] = geometry.affine_lps[:3, 2]
    affine[:3, 3] = geometry.to_lps((start, (geometry.shape_dhw[1] - 1) / 2, 0))
    grid = Geometry((1, geometry.shape_dhw[0], geometry.shape_dhw[2]), affine)
    pixels = (image if down else image[::-1])[np.newaxis]
    return _SeriesPlan(1, "localizer", ("ORIGINAL", "PRIMARY", "LOCALIZER"), geometry.extent_mm[1], grid, pixels)


def _uid(*parts: object) -> str:
    """A 43-character UID under 2.25 from a hash of the parts; equal parts give equal UIDs."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return f"2.25.{10**37 + int.from_bytes(digest[:20], 'big') % (9 * 10**37)}"


def _write_series(plan: _SeriesPlan, patient: Patient, folder: Path, syntax: Syntax) -> list[Path]:
    geometry, who = plan.geometry, (patient.seed, patient.patient_id)
    stored = (np.clip(np.rint(plan.hu), _INTERCEPT, _INTERCEPT + _STORED_MAX) - _INTERCEPT).astype("<u2")
    series_uid = _uid(*who, plan.number)
    chunks = _shared_chunks(plan, patient, series_uid)
    normal = np.cross(geometry.directions[:, 2], geometry.directions[:, 1])
    paths = []
    for d in range(geometry.shape_dhw[0]):
        uid = _uid(*who, plan.number, d)
        position = geometry.to_lps((d, 0, 0))
        own = {
            (0x0008, 0x0018): ("UI", uid),
            (0x0020, 0x0013): ("IS", str(d + 1)),
            (0x0020, 0x0032): ("DS", "\\".join(_decimal(x) for x in position)),
            (0x0020, 0x1041): ("DS", _decimal(float(position @ normal))),
        }
        body = b"".join(part if isinstance(part, bytes) else _element(part, *own[part]) for part in chunks)
        path = folder / f"{plan.number:02d}-{d + 1:04d}.dcm"
        path.write_bytes(_meta(uid, syntax) + body + _pixels(stored[d], syntax))
        paths.append(path)
    return paths


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters, to 1e-6 mm where it fits."""
    for digits in range(6, -1, -1):
        text = f"{value:.{digits}f}"
        if len(text) <= 16:
            return text
    return f"{value:.9e}"


def _element(tag: tuple[int, int], vr: str, text: str) -> bytes:
    """One short explicit little-endian element."""
    value = text.encode("ascii")
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", *tag, vr.encode(), len(value)) + value


def _meta(uid: str, syntax: Syntax) -> bytes:
    """Preamble and file meta information of an instance."""
    transfer = ExplicitVRLittleEndian if syntax == "explicit" else JPEGLSLossless
    body = struct.pack("<HH2sHI", 2, 1, b"OB", 0, 2) + b"\0\1"
    body += _element((2, 2), "UI", CTImageStorage) + _element((2, 3), "UI", uid) + _element((2, 0x10), "UI", transfer)
    body += _element((2, 0x12), "UI", _uid("medvl phantom")) + _element((2, 0x13), "SH", "MEDVL PHANTOM")
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body


def _pixels(plane: NDArray[np.uint16], syntax: Syntax) -> bytes:
    """The pixel data element of one (H, W) plane."""
    if syntax == "explicit":
        data = plane.tobytes()
        return struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, len(data)) + data
    import jpeg_ls

    frame = bytes(jpeg_ls.encode_buffer(plane.tobytes(), plane.shape[0], plane.shape[1], 1, 12))
    start = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    return start + encapsulate([frame]) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _shared_chunks(plan: _SeriesPlan, patient: Patient, series_uid: str) -> list[bytes | tuple[int, int]]:
    """Encoded runs of shared elements, with the tags of a slice's own elements in between, in order of tag."""
    shared = Dataset()
    for part in (_identity(patient, plan, series_uid), _acquisition(patient, plan), _image(plan)):
        shared.update(part)
    own = [(0x0008, 0x0018), (0x0020, 0x0013), (0x0020, 0x0032), (0x0020, 0x1041)]
    edges = [0, *(group << 16 | element for group, element in own), 0xFFFFFFFF]
    chunks: list[bytes | tuple[int, int]] = []
    for k, (low, high) in enumerate(pairwise(edges)):
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        run = Dataset({tag: shared[tag] for tag in shared.keys() if low < tag < high})  # noqa: SIM118 - a Dataset iterates elements
        write_dataset(buffer, run)
        chunks += [buffer.getvalue(), *own[k : k + 1]]
    return chunks


def _identity(patient: Patient, plan: _SeriesPlan, series_uid: str) -> Dataset:
    """Patient, study and series modules."""
    who = (patient.seed, patient.patient_id)
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = CTImageStorage
    ds.PatientName = f"Phantom^{patient.patient_id[2:]}"
    ds.PatientID = patient.patient_id
    ds.PatientBirthDate = ""
    ds.PatientSex = patient.sex
    ds.PatientAge = f"{int(patient.age_years):03d}Y"
    ds.StudyInstanceUID = _uid(*who)
    ds.SeriesInstanceUID = series_uid
    ds.FrameOfReferenceUID = _uid(*who, "frame")
    ds.PositionReferenceIndicator = ""
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = patient.study_date
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = STUDY_TIME
    ds.AccessionNumber, ds.ReferringPhysicianName = patient.accession, ""
    ds.StudyID = patient.patient_id[2:]
    ds.StudyDescription = f"Synthetic CT {patient.scanner.coverage.replace('_', ' ')}"
    ds.SeriesDescription = plan.description
    ds.SeriesNumber, ds.AcquisitionNumber = plan.number, 1
    ds.Modality = "CT"
    ds.BodyPartExamined = _BODY_PART[patient.scanner.coverage]
    ds.PatientPosition = "FFS" if patient.scanner.feet_first else "HFS"
    return ds


def _acquisition(patient: Patient, plan: _SeriesPlan) -> Dataset:
    """Equipment, CT and contrast attributes."""
    scanner, ds = patient.scanner, Dataset()
    ds.Manufacturer = scanner.manufacturer
    ds.ManufacturerModelName = scanner.model
    ds.DeviceSerialNumber = "0"
    ds.SoftwareVersions = "1"
    ds.KVP = str(scanner.kvp)
    known = "SOFT" if scanner.kernel_mm > 0.8 else "STANDARD" if scanner.kernel_mm > 0.55 else "SHARP"
    ds.ConvolutionKernel = scanner.kernel or known
    ds.GantryDetectorTilt = "0"
    ds.ImageType = list(plan.image_type)
    ds.BurnedInAnnotation = "NO"
    ds.ImageComments = "Synthetic phantom, not a patient"
    if scanner.phase != "noncontrast":
        ds.ContrastBolusAgent = "Iodinated contrast (synthetic)"
        ds.ContrastBolusRoute = "IV"
        seconds = 12 * 3600 - _DELAY_S[scanner.phase]
        ds.ContrastBolusStartTime = f"{seconds // 3600:02d}{seconds % 3600 // 60:02d}{seconds % 60:02d}"
    return ds


def _image(plan: _SeriesPlan) -> Dataset:
    """Plane and pixel attributes that all slices share."""
    geometry, ds = plan.geometry, Dataset()
    depth, height, width = geometry.spacing_mm
    axes = (*geometry.directions[:, 2], *geometry.directions[:, 1])
    ds.ImageOrientationPatient = [_decimal_cosine(x) for x in axes]
    ds.PixelSpacing = [_decimal(height), _decimal(width)]
    ds.SliceThickness = _decimal(plan.thickness_mm)
    if geometry.shape_dhw[0] > 1:
        ds.SpacingBetweenSlices = _decimal(depth)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = geometry.shape_dhw[1:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleIntercept, ds.RescaleSlope = str(_INTERCEPT), "1"
    if plan.image_type[2] != "LOCALIZER":
        ds.RescaleType = "HU"
    ds.WindowCenter, ds.WindowWidth = "40", "400"
    return ds


def _decimal_cosine(value: float) -> str:
    """A direction cosine in at most 16 characters; no negative zero."""
    return f"{value + 0.0:.12f}" if abs(value) >= 5e-13 else "0"
