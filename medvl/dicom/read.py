"""From the files of a series to Hounsfield units: the one place where stored values become HU."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.dicom.frames import Frame
from medvl.dicom.header import DEFLATED
from medvl.dicom.pixels import clean, decode, frame_data
from medvl.dicom.series import Series
from medvl.dicom.source import Opener
from medvl.dicom.tilt import straighten
from medvl.dicom.values import check_values, sample_indices
from medvl.dicom.workers import decode_all, n_cores, worth_workers
from medvl.errors import InputError
from medvl.records import Volume

INT16 = (-32768, 32767)


class _Overflow(Exception):  # noqa: N818 - a signal, not an error
    """A value does not fit int16."""


def read(series: Series) -> Volume:
    """The volume of a series with verdict ``"volume"``.

    Slices ascend along row x column; rows and columns stay as stored; the affine says where that is. Rescale is applied slice
    by slice. Padding outside the field of view keeps its stored value (``facts["padding_hu"]``). A tilted stack is shifted to an
    orthogonal grid.

    Returns:
        Volume with (D, H, W) int16, or float32 where HU are not integers or do not fit int16.

    Raises:
        InputError: the code of the first reason when the series is refused, or ``truncated_file``, ``unreadable_file``,
            ``undecodable``, ``wrong_modality``, ``not_hounsfield``, ``rescaled_twice`` when only the pixels show it.
    """
    if series.verdict != "volume" or series.stored is None or series.geometry is None:
        reason = series.reasons[0]
        raise InputError(reason.code, f"series {series.key}: {reason.message}")
    values = read_values(series)
    refused = check_values(values[sample_indices(len(values))], series.facts.get("padding_hu"))
    if refused is not None:
        raise InputError(refused.code, f"series {series.key}: {refused.message}")
    if series.geometry != series.stored:
        values = straighten(values, series.stored)
    return Volume(values, series.geometry, series.reasons, dict(series.facts))


def read_values(series: Series) -> NDArray[Any]:
    """The rescaled values of a series of any modality and verdict, in the order of `series.frames`, tilt left as it is.

    Returns:
        (D, H, W) int16 where all values are integers that fit, else float32.

    Raises:
        InputError: ``truncated_file``, ``unreadable_file``, ``undecodable``, ``not_an_image``.
    """
    return read_frames(series.frames)


def read_frames(frames: Sequence[Frame]) -> NDArray[Any]:
    """(N, H, W) int16 or float32 rescaled values of grey frames of equal size; see `read_values`."""
    if not frames:
        raise InputError("not_an_image", "the series holds no images")
    if any(frame.encoding.samples != 1 for frame in frames):
        raise InputError("not_an_image", "the images are in colour; they hold no measured values")
    shape = (len(frames), frames[0].encoding.rows, frames[0].encoding.columns)
    if all(_integers(frame) for frame in frames):
        try:
            return _fill(frames, np.empty(shape, np.int16))
        except _Overflow:
            pass
    return _fill(frames, np.empty(shape, np.float32))


def _integers(frame: Frame) -> bool:
    encoding = frame.encoding
    whole = frame.slope.is_integer() and frame.intercept.is_integer()
    return whole and encoding.bits_allocated <= 16 and encoding.pixel_tag == 0x7FE00010


def _fill(frames: Sequence[Frame], out: NDArray[Any]) -> NDArray[Any]:
    """Read every frame into its plane of `out`, on all cores where the codec lets them run."""
    if worth_workers(frames):
        for k, raw in decode_all(frames):
            _store(raw, frames[k], out[k])
        return out
    with Opener() as opener, ThreadPoolExecutor(min(8, n_cores())) as pool:
        blocks = np.array_split(np.arange(len(frames)), min(len(frames), 4 * n_cores()))

        def read_block(block: NDArray[np.intp]) -> None:
            for k in block:
                _read_plane(frames[k], out[k], opener)

        list(pool.map(read_block, blocks))
    return out


def _read_plane(frame: Frame, plane: NDArray[Any], opener: Opener) -> None:
    encoding = frame.encoding
    direct = plane.dtype == np.int16 and encoding.native and encoding.bits_allocated == 16 and len(frame.chunks) == 1
    if not direct or encoding.transfer_syntax == DEFLATED:
        _store(decode(frame_data(frame, opener), encoding), frame, plane)
        return
    offset, length = frame.chunks[0]
    if opener.read_into(frame.item, offset, plane.data.cast("B")) != length:
        raise InputError("truncated_file", "a file became shorter while it was read; copy it again")
    if encoding.little_endian != (sys.byteorder == "little"):
        plane.byteswap(inplace=True)
    _rescale(clean(plane, encoding), frame, plane)


def _store(raw: NDArray[Any], frame: Frame, plane: NDArray[Any]) -> None:
    """Rescale stored values into a plane of the volume."""
    if plane.dtype == np.float32:
        plane[...] = raw.astype(np.float64) * frame.slope + frame.intercept
        return
    _rescale(raw, frame, plane)


def _rescale(raw: NDArray[Any], frame: Frame, plane: NDArray[Any]) -> None:
    """Integer rescale into an int16 plane, which may share memory with `raw`."""
    slope, intercept = int(frame.slope), int(frame.intercept)
    ends = sorted((int(raw.min()) * slope + intercept, int(raw.max()) * slope + intercept))
    if ends[0] < INT16[0] or ends[1] > INT16[1]:
        raise _Overflow
    if slope != 1:
        plane[...] = raw.astype(np.int32) * slope + intercept
        return
    if raw.dtype.itemsize == 2:
        words = raw.view(np.int16)  # sums wrap modulo 2^16, and the end points are known to fit
        if intercept or words.ctypes.data != plane.ctypes.data:
            np.add(words, np.uint16(intercept & 0xFFFF).astype(np.int16), out=plane)
        return
    plane[...] = raw.astype(np.int16) + np.int16(intercept)
