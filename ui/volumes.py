"""Images and heat maps for drawing: read once, turned upright by flips and transposes only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvl.errors import InputError
from medvl.geometry import Geometry

from .pictures import Early, Picture, reading
from .results import source_of, study_file

if TYPE_CHECKING:
    from medvl.dicom.series import Series

DISPLAY_AXES = "SPL"
_PAIRS = {"R": "L", "L": "R", "A": "P", "P": "A", "I": "S", "S": "I"}
_GONE = "The images are no longer where they were read from. Findings are shown without them; put the study back to see it."
_UNREADABLE = "The images of this study could not be read again. Findings are shown without them."
_NO_HEAT = "The heat map of this finding is not in the results folder. Run this study again to see it."
_BAD_HEAT = "The heat map of this finding cannot be read"


def upright(array: NDArray[Any], geometry: Geometry) -> tuple[NDArray[Any], Geometry]:
    """A view of `array` whose nearest axes are SPL, and its geometry; voxels keep their place, nothing is resampled."""
    order, flips, place = _way_up(geometry)
    return np.flip(array.transpose(order), flips), place


def _way_up(geometry: Geometry) -> tuple[list[int], tuple[int, ...], Geometry]:
    """The order of the axes that makes them SPL, which of them are then flipped, and the geometry afterwards."""
    letters = geometry.axes
    order = [next(axis for axis in range(3) if letters[axis] in (want, _PAIRS[want])) for want in DISPLAY_AXES]
    shape = tuple(geometry.shape_dhw[axis] for axis in order)
    affine = geometry.affine_lps.copy()
    affine[:3, :3] = geometry.affine_lps[:3, order]
    flips = tuple(k for k, (axis, want) in enumerate(zip(order, DISPLAY_AXES, strict=True)) if letters[axis] != want)
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
        affine[:3, axis] *= -1
    return order, flips, Geometry((shape[0], shape[1], shape[2]), affine)


def image_picture(hu: NDArray[Any], geometry: Geometry) -> Picture:
    """(D, H, W) HU of any numeric dtype as an upright int16 picture; values beyond int16 are clipped."""
    view, grid = upright(hu, geometry)
    return Picture(_int16(view), grid)


def _int16(hu: NDArray[Any]) -> NDArray[Any]:
    if hu.dtype != np.int16:
        hu = np.clip(np.rint(np.nan_to_num(hu, nan=-1024.0)), -32768, 32767)
    return np.ascontiguousarray(hu, dtype="<i2")


def heat_picture(evidence: NDArray[Any], geometry: Geometry) -> Picture:
    """(D, H, W) evidence in 0..1, or uint8 in 0..255, as a uint8 picture on its own grid."""
    values = np.nan_to_num(np.asarray(evidence, dtype=np.float32))
    scale = 255.0 if float(values.max(initial=0.0)) < 1.001 else 1.0
    return Picture(np.ascontiguousarray(np.clip(np.rint(values * scale), 0, 255), dtype=np.uint8), geometry)


def index_map(source: Geometry, target: Geometry) -> NDArray[np.float64]:
    """(4, 4) matrix from voxel indices (d, h, w, 1) of `source` to those of `target`."""
    return np.asarray(np.linalg.inv(target.affine_lps) @ source.affine_lps)


def _read_nifti(path: Path) -> tuple[NDArray[Any], Geometry]:
    """(D, H, W) scaled values and geometry of a NIfTI file that medvl wrote."""
    import nibabel as nib

    image = nib.Nifti1Image.from_filename(path)
    i, j, k = image.shape[:3]
    return np.asanyarray(image.dataobj).reshape(i, j, k).transpose(2, 1, 0), Geometry.from_ras_ijk((i, j, k), image.affine)


def read_image(root: Path, case_id: str) -> Picture:
    """The study's image: `image.nii.gz` of its folder when there is one, else its source read again.

    Of DICOM only the headers are read here; the voxels come from a thread, and the picture gives single slices before.

    Raises:
        InputError: ``source_gone`` or ``source_unreadable``, with a message for the page.
    """
    stored = study_file(root, case_id, "image.nii.gz")
    source = None if stored.is_file() else source_of(root, case_id)
    if not stored.is_file() and (source is None or not source[0].exists()):
        raise InputError("source_gone", _GONE)
    try:
        return image_picture(*_read_nifti(stored)) if source is None else _source_picture(*source)
    except Exception as error:  # decoders raise many types, and their text may name the patient's folder
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> InputError:
    return InputError("source_unreadable", f"{_UNREADABLE} ({getattr(error, 'code', type(error).__name__)})")


def _source_picture(path: Path, series_key: str) -> Picture:
    """The series `series_key` at `path`, by the same reader that inference used."""
    from medvl.imaging.load import load

    loaded = load(path, verified=True)
    entries = [entry for study in loaded for entry in study.entries if entry.key == series_key]
    entry = entries[0] if entries else loaded.chosen if not series_key else None
    if entry is None:
        raise InputError("series_gone", "the series is not in its source any more")
    if entry.series is None or entry.geometry is None or entry.verdict != "volume":
        volume = entry.read()
        return image_picture(volume.hu, volume.geometry)

    def voxels() -> NDArray[Any]:
        try:
            volume = entry.read()
            return _int16(upright(volume.hu, volume.geometry)[0])
        except Exception as error:
            raise _unreadable(error) from error

    return Picture(reading(voxels), _way_up(entry.geometry)[2], early=_early(entry.series, entry.geometry))


def _early(series: Series, geometry: Geometry) -> Early | None:
    """Reads one axial slice as `upright` would turn it; None where it is not one image of the series as stored."""
    from medvl.dicom.read import read_frames

    if series.geometry != series.stored:
        return None
    order, flips, _ = _way_up(geometry)
    if order[0] != 0:
        return None

    def slice_of(k: int) -> NDArray[Any]:
        try:
            hu = read_frames([series.frames[len(series.frames) - 1 - k if 0 in flips else k]])[0]
        except Exception as error:
            raise _unreadable(error) from error
        return _int16(np.flip(hu.transpose(np.array(order[1:]) - 1), tuple(axis - 1 for axis in flips if axis)))

    return slice_of


def read_heatmap(root: Path, case_id: str, relative: str) -> Picture:
    """A heat map of one study on its own grid.

    Raises:
        InputError: ``heatmap_missing``, ``heatmap_unreadable`` or ``file_outside_study``, with a message for the page.
    """
    path = study_file(root, case_id, relative)
    if not path.is_file():
        raise InputError("heatmap_missing", _NO_HEAT)
    try:
        return heat_picture(*_read_nifti(path))
    except Exception as error:
        raise InputError(
            "heatmap_unreadable", f"The heat map of this finding cannot be read ({type(error).__name__})."
        ) from error
