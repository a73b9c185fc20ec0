"""The final verdict of a CT series: what its pixels say after the headers said "volume"."""

from __future__ import annotations

from dataclasses import replace

from medvl.dicom.read import read_frames
from medvl.dicom.series import Series
from medvl.dicom.values import check_values, sample_indices
from medvl.errors import InputError
from medvl.records import Reason

FULL_DECODE_BYTES = 48 << 20


def verify(series: Series) -> Series:
    """The series with a verdict that `read` will keep.

    Reads the seven slices by which `read` judges the values; a compressed series of up to 48 MiB is decoded whole, so that one
    broken frame is found here as well. A series that is already refused comes back as it is.
    """
    if series.verdict != "volume":
        return series
    frames = series.frames
    chosen = sample_indices(len(frames))
    stored_bytes = sum(length for frame in frames for _, length in frame.chunks)
    whole = not frames[0].encoding.native and stored_bytes <= FULL_DECODE_BYTES
    try:
        values = read_frames(frames if whole else [frames[k] for k in chosen])
    except InputError as error:
        return _refuse(series, Reason(error.code, error.message))
    reason = check_values(values[chosen] if whole else values, series.facts.get("padding_hu"))
    return series if reason is None else _refuse(series, reason)


def _refuse(series: Series, reason: Reason) -> Series:
    return replace(series, verdict="refused", reasons=(reason, *series.reasons))
