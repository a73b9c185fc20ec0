"""NIfTI in and out: CT volumes in HU, label maps, and the affine that places them.

Which affine counts: the sform where its code is positive, else the qform; a file with neither is refused, because an identity
affine would be an invention. Where both are given and disagree about spacing, mirror or direction the file is refused; where
they disagree about position only, the sform is used and the volume says so. See `docs/explanation/preprocessing.md`.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medvl.errors import InputError
from medvl.files import whole
from medvl.geometry import Geometry
from medvl.imaging.hounsfield import hu_check
from medvl.imaging.preprocess import to_hu_grid
from medvl.imaging.resample import resample
from medvl.records import Reason, Volume

MAX_VOXELS = 1 << 31
MAX_RATIO, RATIO_FREE_BYTES = 200, 256 << 20  # a CT of noise packs to a third, a bomb to a thousandth
MAX_CORNER_MM = 0.5
MAX_ANGLE_DEG = 1.0
MAX_SPACING_RATIO = 1.01
MAX_SHEAR_DEG = 0.1
NAN_FILL_HU = -1024.0
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units; 0 says nothing and is taken as mm
_GZIP_LEVEL = 4
_BROKEN = (EOFError, OSError, zlib.error, ValueError)


def read_nifti(path: str | os.PathLike[str], *, check_hu: bool = True) -> Volume:
    """The CT volume in a .nii or .nii.gz file.

    Args:
        path: of the file.
        check_hu: refuse values that cannot be HU.

    Returns:
        int16 where every value is a whole number that fits, else float32. Axis order and flips stay as stored and are told by
        the geometry. Warnings: ``single_frame_4d``, ``affine_disagreement``, ``shear_resampled``, ``nan_filled``.

    Raises:
        InputError: ``unreadable_file``, ``truncated_file``, ``several_frames``, ``not_a_volume``, ``not_grayscale``,
            ``too_large``, ``missing_geometry``, ``bad_geometry``, ``affine_disagreement``, ``nan_voxels``,
            ``not_hounsfield``, ``rescaled_twice`` or ``rescale_missing``.
    """
    image = _open(Path(path))
    shape, frame_reasons = _shape(image)
    geometry, reasons = _geometry(image, shape)
    _refuse_bomb(image, shape, Path(path).stat().st_size)
    stored = _stored(image, shape)
    if stored.dtype.kind not in "iuf":
        raise InputError("not_grayscale", f"voxels are {_kind(stored.dtype)}, not one number each; give the CT itself")
    bits = 8 * stored.dtype.itemsize if stored.dtype.kind in "iu" else None
    values, nan_reasons = _scaled(stored, image)
    del stored
    if check_hu:
        for reason in hu_check(values, stored_bits=bits):
            raise InputError(reason.code, reason.message)
    volume = Volume(values, geometry, frame_reasons + reasons + nan_reasons)
    return _upright(volume) if geometry.shear_deg > MAX_SHEAR_DEG else volume


def read_labels(path: str | os.PathLike[str]) -> tuple[NDArray[Any], Geometry]:
    """The label map in a .nii or .nii.gz file and its place.

    Returns:
        (D, H, W) of the smallest unsigned dtype, uint8, uint16 or uint32, that holds every label.

    Raises:
        InputError: as `read_nifti`, and ``not_labels`` where a value is negative or not a whole number.
    """
    image = _open(Path(path))
    shape, _ = _shape(image)
    geometry, _ = _geometry(image, shape)
    stored = _stored(image, shape)
    if stored.dtype.kind not in "iuf":
        raise InputError("not_labels", f"voxels are {_kind(stored.dtype)}, not whole numbers; give a label map")
    slope, intercept = _scaling(image)
    values = stored if (slope, intercept) == (1.0, 0.0) else stored * slope + intercept
    low, high = float(values.min()), float(values.max())
    whole = values.dtype.kind in "iu" or bool(np.isfinite(values).all() and (np.rint(values) == values).all())
    if not whole or low < 0 or high > np.iinfo(np.uint32).max:
        raise InputError("not_labels", f"values run from {low:.4g} to {high:.4g}; labels are whole numbers from 0; give a mask")
    return values.astype(np.min_scalar_type(int(high))), geometry


def write_nifti(
    data: Volume | NDArray[Any], geometry: Geometry | None, path: str | os.PathLike[str], *, scale: float = 1.0
) -> None:
    """Write `data` so that it is either there whole or not at all; equal data gives equal bytes.

    The header holds geometry and nothing else: no description, no names. sform is set, and qform too where the grid is
    orthogonal (it cannot hold shear), both with code 1, scanner.

    Args:
        data: a volume, or (D, H, W) int16, float32, uint8 or bool (written as uint8).
        geometry: where `data` lies; None takes that of the volume.
        path: ending in .nii or .nii.gz; its folder must exist.
        scale: what a stored step stands for; readers multiply by it.

    Raises:
        ValueError: another dtype or suffix, an array without geometry, or one that does not fit it.
    """
    path = Path(path)
    array = data.hu if isinstance(data, Volume) else np.asarray(data)
    place = data.geometry if geometry is None and isinstance(data, Volume) else geometry
    array = array.view(np.uint8) if array.dtype == np.bool_ else array
    if place is None or array.shape != place.shape_dhw:
        raise ValueError(f"array {array.shape} needs a geometry of its shape, got {place and place.shape_dhw}")
    if array.dtype not in (np.dtype(np.int16), np.dtype(np.float32), np.dtype(np.uint8)):
        raise ValueError(f"NIfTI data must be int16, float32 or uint8, got {array.dtype}")
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError("the file name must end in .nii or .nii.gz")
    with whole(path) as part, part.open("xb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, cast(BinaryIO, file), mtime=0) as packed:
                _write_body(packed.write, array, place, scale)
        else:
            _write_body(file.write, array, place, scale)


def _write_body(write: Callable[[Any], Any], array: NDArray[Any], geometry: Geometry, scale: float) -> None:
    """Header, empty extension block and voxels, slice by slice."""
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape[::-1])
    header.set_xyzt_units("mm")
    affine = geometry.affine_ras_ijk
    header.set_sform(affine, code=1)
    if geometry.shear_deg < 0.01:
        header.set_qform(affine, code=1)
    else:
        header["pixdim"][1:4] = geometry.spacing_mm[::-1]
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    header["scl_slope"], header["scl_inter"] = scale, 0.0
    write(header.binaryblock + bytes(4))
    little = array.dtype.newbyteorder("<")
    for plane in array:
        write(np.ascontiguousarray(plane, dtype=little).tobytes())


def _open(path: Path) -> nib.Nifti1Image:
    """The image with its header read and its voxels still on disk."""
    try:
        image = nib.load(path, mmap=False)
    except FileNotFoundError as error:
        raise InputError("unreadable_file", "there is no such file; check the path") from error
    except (EOFError, zlib.error) as error:
        raise InputError("truncated_file", f"the file ends inside its header ({error}); copy it again") from error
    except (ImageFileError, HeaderDataError, OSError, ValueError) as error:
        raise InputError("unreadable_file", f"not a readable NIfTI file ({type(error).__name__}); convert it again") from error
    if not isinstance(image, nib.Nifti1Image):
        raise InputError("unreadable_file", f"the file is {type(image).__name__}, not NIfTI; convert it to .nii.gz")
    return image


def _shape(image: nib.Nifti1Image) -> tuple[tuple[int, int, int], tuple[Reason, ...]]:
    """(i, j, k) of the one frame, with a warning where the file has more than three axes."""
    shape = tuple(int(n) for n in image.shape)
    if len(shape) < 3 or min(shape) < 1:
        raise InputError("not_a_volume", f"the file has shape {shape}; a volume has three axes; give the whole series")
    frames = int(np.prod(shape[3:], dtype=np.int64))
    if frames > 1:
        raise InputError("several_frames", f"the file has shape {shape}, {frames} frames; split it and give one frame")
    if int(np.prod(shape[:3], dtype=np.int64)) > MAX_VOXELS:
        raise InputError("too_large", f"the header asks for {shape} voxels, more than {MAX_VOXELS}; the header is likely damaged")
    reasons = (
        (Reason("single_frame_4d", f"shape {shape} holds one frame; its extra axes were dropped"),) if len(shape) > 3 else ()
    )
    return (shape[0], shape[1], shape[2]), reasons


def _refuse_bomb(image: nib.Nifti1Image, shape: tuple[int, int, int], packed: int) -> None:
    """Refuse a small file that would unpack to a huge volume."""
    unpacked = math.prod(shape) * image.get_data_dtype().itemsize
    if unpacked > RATIO_FREE_BYTES and unpacked > MAX_RATIO * packed:
        message = f"the file would unpack to {unpacked / 2**20:.0f} MiB, {unpacked / max(1, packed):.0f} times its size"
        raise InputError("too_large", f"{message}; no CT packs so well, convert the DICOM again")


def _geometry(image: nib.Nifti1Image, shape: tuple[int, int, int]) -> tuple[Geometry, tuple[Reason, ...]]:
    """Where the transposed (D, H, W) array lies; refuses rather than guesses."""
    header = image.header
    scale = np.diag([_MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)] * 3 + [1.0])
    try:
        candidates = [image.get_sform(coded=True)[0], image.get_qform(coded=True)[0]]
    except (HeaderDataError, ValueError) as error:
        raise InputError("bad_geometry", f"the qform quaternion is not a rotation ({error}); convert the DICOM again") from error
    affines = [scale @ affine for affine in candidates if affine is not None]
    if not affines:
        raise InputError(
            "missing_geometry",
            "sform and qform codes are both 0: position, direction and sides are unknown; convert the DICOM again",
        )
    try:
        places = [Geometry.from_ras_ijk(shape, affine) for affine in affines]
    except ValueError as error:
        raise InputError("bad_geometry", f"{error}; convert the DICOM again") from error
    reasons = _disagreement(places[0], places[1]) if len(places) == 2 else ()
    if not all(0.01 <= spacing <= 100.0 for spacing in places[0].spacing_mm):
        raise InputError("bad_geometry", f"spacing {places[0].spacing_mm} mm is not that of a CT; check the header's units")
    return places[0], reasons


def _disagreement(sform: Geometry, qform: Geometry) -> tuple[Reason, ...]:
    """A warning where only the positions differ; refuses where spacing, mirror or direction do."""
    ratios = np.array(sform.spacing_mm) / np.array(qform.spacing_mm)
    cosines = np.clip((sform.directions * qform.directions).sum(axis=0), -1.0, 1.0)
    angle = float(np.degrees(np.arccos(cosines)).max())
    ratio = float(np.maximum(ratios, 1 / ratios).max())
    if angle > MAX_ANGLE_DEG or ratio > MAX_SPACING_RATIO:
        raise InputError(
            "affine_disagreement",
            f"sform {sform.axes} and qform {qform.axes} differ by {angle:.1f} degrees and a spacing ratio of {ratio:.3f}; "
            "either could be right: remove the wrong one or convert the DICOM again",
        )
    corners = np.array(np.meshgrid(*((0, n - 1) for n in sform.shape_dhw))).reshape(3, -1).T
    distance = float(np.linalg.norm(sform.to_lps(corners) - qform.to_lps(corners), axis=1).max())
    if distance <= MAX_CORNER_MM:
        return ()
    return (Reason("affine_disagreement", f"sform and qform lie up to {distance:.1f} mm apart; the sform was used"),)


def _stored(image: nib.Nifti1Image, shape: tuple[int, int, int]) -> NDArray[Any]:
    """(D, H, W) stored numbers in native byte order, before scaling."""
    try:
        raw = np.asarray(_proxy(image).get_unscaled())
    except MemoryError as error:
        raise InputError("too_large", f"{shape} voxels do not fit in memory; crop the file or use a larger machine") from error
    except _BROKEN as error:
        raise InputError("truncated_file", f"the file ends before its {shape} voxels do; copy it again") from error
    array = raw.reshape(shape, order="F").transpose(2, 1, 0)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _scaling(image: nib.Nifti1Image) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or not a number means none, as the format says."""
    return float(_proxy(image).slope), float(_proxy(image).inter)


def _proxy(image: nib.Nifti1Image) -> ArrayProxy:
    """The handle of voxels that are still on disk."""
    return cast(ArrayProxy, image.dataobj)


def _scaled(stored: NDArray[Any], image: nib.Nifti1Image) -> tuple[NDArray[Any], tuple[Reason, ...]]:
    """int16 where exact, else float32, after slope and intercept; NaN becomes air unless there is too much of it."""
    slope, intercept = _scaling(image)
    if stored.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        limits = int(stored.min()) * slope + intercept, int(stored.max()) * slope + intercept
        if min(limits) >= -32768 and max(limits) <= 32767:
            plain = (slope, intercept) == (1.0, 0.0)
            return (stored if plain else stored * slope + intercept).astype(np.int16, copy=False), ()
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = stored if (slope, intercept) == (1.0, 0.0) else stored * slope + intercept
        values = scaled.astype(np.float32)
    bad = ~np.isfinite(values)
    reasons: tuple[Reason, ...] = ()
    if bad.any():
        share = float(bad.mean())
        if share > 0.5:
            raise InputError("nan_voxels", f"{share:.0%} of the voxels are not numbers; convert the DICOM again")
        values[bad] = NAN_FILL_HU
        reasons = (Reason("nan_filled", f"{share:.2%} of the voxels were not numbers and became {NAN_FILL_HU:.0f} HU"),)
    if values.min() >= -32768 and values.max() <= 32767 and all((np.rint(plane) == plane).all() for plane in values):
        return values.astype(np.int16), reasons
    return values, reasons


def _upright(volume: Volume) -> Volume:
    """A sheared volume resampled to the orthogonal grid that shares its rows and columns and covers it."""
    source = volume.geometry
    columns = source.directions[:, 2]
    rows = source.directions[:, 1] - (source.directions[:, 1] @ columns) * columns
    rows /= np.linalg.norm(rows)
    normal = np.cross(columns, rows)
    normal *= np.sign(normal @ source.directions[:, 0])
    frame = np.stack([normal, rows, columns], axis=1)
    spacing = np.abs((frame * source.affine_lps[:3, :3]).sum(axis=0))
    corners = source.to_lps(np.array(np.meshgrid(*((0, n - 1) for n in source.shape_dhw))).reshape(3, -1).T) @ frame
    shape = np.rint((corners.max(axis=0) - corners.min(axis=0)) / spacing).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = frame * spacing
    affine[:3, 3] = frame @ corners.min(axis=0)
    target = Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)
    hu = to_hu_grid(volume, target) if volume.hu.dtype == np.int16 else resample(volume, target)
    reason = Reason(
        "shear_resampled", f"axes {source.shear_deg:.1f} degrees off a right angle were resampled to an orthogonal grid"
    )
    return Volume(hu, target, (*volume.reasons, reason), volume.facts)


def _kind(dtype: np.dtype[Any]) -> str:
    """What a stored type that is no plain number is called."""
    return {"c": "complex numbers", "V": "colours (RGB)"}.get(dtype.kind, str(dtype))
