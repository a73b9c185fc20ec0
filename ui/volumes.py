"""Images and heat maps for drawing: read once, turned upright by flips and transposes only, kept in memory up to a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.errors import InputError
from medvl.geometry import Geometry

from .results import source_of, study_file

DISPLAY_AXES = "SPL"
_PAIRS = {"R": "L", "L": "R", "A": "P", "P": "A", "I": "S", "S": "I"}
_GONE = "The images are no longer where they were read from. Findings are shown without them; put the study back to see it."
_UNREADABLE = "The images of this study could not be read again. Findings are shown without them."
_NO_HEAT = "The heat map of this finding is not in the results folder. Run this study again to see it."
_BAD_HEAT = "The heat map of this finding cannot be read"


@dataclass(frozen=True, eq=False)
class Picture:
    """Voxels ready to send to the browser.

    Args:
        voxels: (D, H, W) read-only, C-contiguous; little-endian int16 HU for an image, uint8 0..255 for a heat map.
        geometry: where they lie; the nearest axes of an image are SPL.
        oblique_deg: largest angle between a grid axis and the patient axis it is named after, in degrees.
    """

    voxels: NDArray[Any]
    geometry: Geometry
    oblique_deg: float


def upright(array: NDArray[Any], geometry: Geometry) -> tuple[NDArray[Any], Geometry]:
    """A view of `array` whose nearest axes are SPL, and its geometry; voxels keep their place, nothing is resampled."""
    letters = geometry.axes
    order = [next(axis for axis in range(3) if letters[axis] in (want, _PAIRS[want])) for want in DISPLAY_AXES]
    affine = geometry.affine_lps.copy()
    affine[:3, :3] = geometry.affine_lps[:3, order]
    view = array.transpose(order)
    flips = [letters[axis] != want for axis, want in zip(order, DISPLAY_AXES, strict=True)]
    for axis in (axis for axis in range(3) if flips[axis]):
        affine[:3, 3] += affine[:3, axis] * (view.shape[axis] - 1)
        affine[:3, axis] *= -1
        view = np.flip(view, axis)
    d, h, w = view.shape
    return view, Geometry((d, h, w), affine)


def image_picture(hu: NDArray[Any], geometry: Geometry) -> Picture:
    """(D, H, W) HU of any numeric dtype as an upright int16 picture; values beyond int16 are clipped."""
    view, grid = upright(hu, geometry)
    if view.dtype != np.int16:
        view = np.clip(np.rint(np.nan_to_num(view, nan=-1024.0)), -32768, 32767)
    return _picture(np.ascontiguousarray(view, dtype="<i2"), grid)


def heat_picture(evidence: NDArray[Any], geometry: Geometry) -> Picture:
    """(D, H, W) evidence in 0..1, or uint8 in 0..255, as a uint8 picture on its own grid."""
    values = np.nan_to_num(np.asarray(evidence, dtype=np.float32))
    scale = 255.0 if float(values.max(initial=0.0)) <= 1.0 else 1.0
    return _picture(np.ascontiguousarray(np.clip(np.rint(values * scale), 0, 255), dtype=np.uint8), geometry)


def _picture(voxels: NDArray[Any], geometry: Geometry) -> Picture:
    voxels.setflags(write=False)
    best = np.abs(geometry.directions).max(axis=0)
    return Picture(voxels, geometry, float(np.degrees(np.arccos(np.clip(best, 0.0, 1.0))).max()))


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

    Raises:
        InputError: ``source_gone`` or ``source_unreadable``, with a message for the page.
    """
    stored = study_file(root, case_id, "image.nii.gz")
    source = None if stored.is_file() else source_of(root, case_id)
    if not stored.is_file() and (source is None or not source[0].exists()):
        raise InputError("source_gone", _GONE)
    try:
        hu, geometry = _read_nifti(stored) if source is None else _read_source(*source)
        return image_picture(hu, geometry)
    except Exception as error:  # decoders raise many types, and their text may name the patient's folder
        raise InputError("source_unreadable", f"{_UNREADABLE} ({getattr(error, 'code', type(error).__name__)})") from error


def _read_source(path: Path, series_key: str) -> tuple[NDArray[Any], Geometry]:
    """HU and geometry of the series `series_key` at `path`, by the same reader that inference used."""
    from medvl.imaging.load import load

    loaded = load(path)
    entries = [entry for study in loaded for entry in study.entries if entry.key == series_key]
    entry = entries[0] if entries else loaded.chosen if not series_key else None
    if entry is None:
        raise InputError("series_gone", "the series is not in its source any more")
    volume = entry.read()
    return volume.hu, volume.geometry


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


class PictureCache:
    """Pictures by key, least recently used dropped first once they hold more than `max_bytes`; safe for many threads.

    It is not a Streamlit cache because the image route, which runs outside any page script, shares it.
    """

    def __init__(self, max_bytes: int = 2 << 30) -> None:
        self._max_bytes = max_bytes
        self._items: OrderedDict[tuple[str, ...], Picture] = OrderedDict()
        self._locks: dict[tuple[str, ...], threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, key: tuple[str, ...], read: Callable[[], Picture]) -> Picture:
        """The picture under `key`, from `read` when it is not held; two askers at once read it once."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            with self._guard:
                if key in self._items:
                    self._items.move_to_end(key)
                    return self._items[key]
            picture = read()
            with self._guard:
                self._items[key] = picture
                self._drop()
            return picture

    def _drop(self) -> None:
        while len(self._items) > 1 and self.n_bytes > self._max_bytes:
            key, _ = self._items.popitem(last=False)
            self._locks.pop(key, None)

    @property
    def n_bytes(self) -> int:
        """Bytes held by all pictures."""
        return sum(picture.voxels.nbytes for picture in self._items.values())
