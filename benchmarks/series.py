"""Write the synthetic CT series that the ingest benchmark reads: 512 x 512 x N, uncompressed and JPEG-LS.

    python benchmarks/series.py OUT --slices 300

makes OUT/uncompressed and OUT/jpegls with the same values: an elliptic body with organs, scanner-like noise and air around it,
0.7 x 0.7 x 1.0 mm, 16-bit signed words with intercept -1024, some 190 header elements like a real scanner's, file names in
random order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

SIZE = 512
INTERCEPT = -1024


def body_slice(rng: np.random.Generator, z: float) -> NDArray[np.int16]:
    """(512, 512) int16 HU of a slice at the relative height z in [0, 1]."""
    rows, columns = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j].astype(np.float32)
    hu = np.full((SIZE, SIZE), -1000.0, np.float32)
    organs = ((0, 0, 0.62, 0.85, -90), (0, 0, 0.56, 0.79, 45), (0.4, 0, 0.11, 0.11, 320), (-0.05, -0.4, 0.35, 0.3, 95))
    for row, column, high, wide, value in (*organs, (0.25, 0.35, 0.12 + 0.1 * z, 0.1, 180), (0.1, 0.05, 0.05, 0.05, 220)):
        hu[((rows - row) / high) ** 2 + ((columns - column) / wide) ** 2 < 1] = value
    hu += rng.normal(0, 14, hu.shape).astype(np.float32) * (1 - 0.6 * (hu < -500))
    return np.rint(hu.clip(-1024, 3071)).astype(np.int16)


def header(series_uid: str, syntax: str) -> FileDataset:
    """A CT image data set without pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, syntax
    ds = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SeriesInstanceUID, ds.StudyInstanceUID = (
        CTImageStorage,
        series_uid,
        generate_uid(entropy_srcs=[series_uid]),
    )
    ds.FrameOfReferenceUID, ds.Modality, ds.Manufacturer = (
        generate_uid(entropy_srcs=[series_uid, "frame"]),
        "CT",
        "medvl benchmark",
    )
    ds.PatientName, ds.PatientID, ds.StudyDate, ds.SeriesNumber = "BENCHMARK", "BENCHMARK", "20260101", 2
    ds.ImageType, ds.PatientPosition, ds.ConvolutionKernel = ["ORIGINAL", "PRIMARY", "AXIAL"], "HFS", "STANDARD"
    ds.Rows = ds.Columns = SIZE
    ds.PixelSpacing, ds.SliceThickness, ds.KVP = [0.7, 0.7], 1.0, 120
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    for group in (0x0009, 0x0019, 0x0021, 0x0027, 0x0043):  # as many private elements as a real scanner writes
        block = ds.private_block(group, "BENCHMARK_01", create=True)
        for element in range(28):
            block.add_new(element, "DS" if element % 2 else "LO", f"{element * 1.25:.6f}")
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, INTERCEPT, "HU"
    return ds


def write_series(out: Path, n_slices: int, *, seed: int = 7) -> None:
    """Write both series below `out`."""
    import jpeg_ls

    rng = np.random.default_rng(seed)
    names = rng.permutation(n_slices)
    folders = {ExplicitVRLittleEndian: out / "uncompressed", JPEGLSLossless: out / "jpegls"}
    uids = {syntax: generate_uid() for syntax in folders}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for k in range(n_slices):
        stored = body_slice(rng, k / max(1, n_slices - 1)) - INTERCEPT
        for syntax, folder in folders.items():
            ds = header(uids[syntax], syntax)
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            ds.InstanceNumber, ds.ImagePositionPatient = k + 1, [-179.2, -179.2, -150.0 + k]
            if syntax == ExplicitVRLittleEndian:
                ds.PixelData = stored.astype("<i2").tobytes()
            else:
                ds.PixelData = encapsulate([bytes(jpeg_ls.encode_array(stored.astype(np.uint16)))])
                ds["PixelData"].is_undefined_length = True
            ds["PixelData"].VR = "OW" if syntax == ExplicitVRLittleEndian else "OB"
            ds.save_as(folder / f"IM{names[k]:05d}", enforce_file_format=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--slices", type=int, default=300)
    given = parser.parse_args()
    write_series(given.out, given.slices)
