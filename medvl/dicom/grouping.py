"""Which frames may lie on one grid: separation by shape, orientation and the tags that tell stacks apart; repeats."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from medvl.dicom import header as dcm
from medvl.dicom.frames import Frame
from medvl.dicom.pixels import decode, frame_data
from medvl.dicom.source import Opener
from medvl.dicom.stack import Planes, assess, place_groups
from medvl.errors import InputError

Part = tuple[list[Frame], str]
_TOLERANCE = 2e-3
_SCOUT = re.compile(r"LOCALI[SZ]ER|SCOUT")


def separate(frames: list[Frame], opener: Opener) -> list[Part]:
    """Parts of the frames of one series UID, each with the words for what set it apart; in a stable order."""
    boxes: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        boxes[_box(frame)].append(frame)
    parts: list[Part] = []
    for box in sorted(boxes, key=str):
        for group in _by_direction(boxes[box]):
            parts += _by_tags(group, opener)
    if len(parts) > 1:
        parts = [(part, split_by or "orientation, size or kind of image") for part, split_by in parts]
    return sorted(parts, key=lambda part: (-len(part[0]), min(frame.item.name for frame in part[0])))


def _box(frame: Frame) -> tuple[object, ...]:
    """What frames of one grid share exactly."""
    encoding = frame.encoding
    image_type = dcm.text(frame.tags, 0x00080008).upper()
    return (
        dcm.text(frame.tags, 0x00080016), dcm.text(frame.tags, 0x00080060), encoding.rows, encoding.columns, encoding.samples,
        frame.spacing is None, bool(_SCOUT.search(image_type)), frame.position is None, frame.orientation is None,
    )  # fmt: skip


def _by_direction(frames: list[Frame]) -> list[list[Frame]]:
    """Frames of parallel planes with parallel rows and equal pixels, to the precision of headers."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if close(frame.orientation, group[0].orientation) and close(frame.spacing, group[0].spacing):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _by_tags(frames: list[Frame], opener: Opener) -> list[Part]:
    """Stacks at the same places, told apart by acquisition, time, echo, heart phase, kernel... where such a tag does it."""
    if frames[0].orientation is None or frames[0].position is None or frames[0].spacing is None:
        return [(frames, "")]
    kept, _ = without_repeats(frames, opener)
    if len(kept) < 4 or _refusal(kept) not in ("conflicting_slices", "several_stacks"):
        return [(frames, "")]
    for name in dict.fromkeys(name for frame in kept for name in frame.split):
        groups: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            groups[frame.split.get(name, "")].append(frame)
        single = {value: without_repeats(group, opener)[0] for value, group in groups.items()}
        if 1 < len(groups) <= len(kept) // 2 and all(len(group) > 1 and not _refusal(group) for group in single.values()):
            return [(groups[value], name) for value in sorted(groups)]
    return [(frames, "")]


def close(one: tuple[float, ...] | None, other: tuple[float, ...] | None) -> bool:
    """True for equal numbers to the precision of headers, or when both are absent."""
    if one is None or other is None:
        return one is other
    return len(one) == len(other) and max(abs(a - b) for a, b in zip(one, other, strict=True)) < _TOLERANCE


def _refusal(frames: list[Frame]) -> str:
    """The code for which the frames, as one stack, make no grid; empty when they do."""
    planes = planes_of(frames)
    refused = assess(planes).refused if planes is not None else ()
    return refused[0].code if refused else ""


def planes_of(frames: list[Frame]) -> Planes | None:
    """The geometry of parallel frames, None when one of them has no place."""
    first = frames[0]
    cosines = np.array([frame.orientation for frame in frames if frame.orientation is not None], dtype=np.float64)
    positions = np.array([frame.position for frame in frames if frame.position is not None], dtype=np.float64)
    if first.spacing is None or len(cosines) < len(frames) or len(positions) < len(frames):
        return None
    mean = cosines.mean(axis=0)
    row = mean[:3] / np.linalg.norm(mean[:3])
    column = mean[3:] - row * float(mean[3:] @ row)
    return Planes(
        positions,
        row,
        column / np.linalg.norm(column),
        first.spacing,
        (first.encoding.rows, first.encoding.columns),
        dcm.number(first.tags, 0x00180050),
        dcm.number(first.tags, 0x00180088),
        dcm.number(first.tags, 0x00181120),
    )


def places_of(frames: list[Frame], reference: Frame) -> NDArray[np.float64]:
    """(N,) mm of frames with a position along the normal of the reference frame, which has an orientation."""
    assert reference.orientation is not None  # noqa: S101 - checked by the caller
    normal = np.cross(reference.orientation[:3], reference.orientation[3:])
    positions = np.array([frame.position for frame in frames], dtype=np.float64)
    return np.asarray(positions @ (normal / np.linalg.norm(normal)))


def without_repeats(frames: list[Frame], opener: Opener) -> tuple[list[Frame], int]:
    """The frames without copies of the same image at the same place, and how many copies were dropped.

    Only images that hold the same values after rescale count as copies; pixels are read for images that share a place.
    """
    if any(frame.position is None or frame.orientation is None for frame in frames) or len(frames) < 2:
        return frames, 0
    groups = place_groups(places_of(frames, frames[0]))
    if len(groups) == len(frames):
        return frames, 0
    kept: list[Frame] = []
    for group in groups:
        seen: set[tuple[object, ...]] = set()
        for k in sorted(group, key=lambda k: frames[k].item.name):
            print_ = _fingerprint(frames[k], opener) if len(group) > 1 else ()
            if print_ not in seen:
                seen.add(print_)
                kept.append(frames[k])
    return kept, len(frames) - len(kept)


def _fingerprint(frame: Frame, opener: Opener) -> tuple[object, ...]:
    """Equal for frames that show the same values at the same spot, whatever their compression."""
    assert frame.position is not None  # noqa: S101 - checked by the caller
    spot = tuple(round(x, 2) for x in frame.position)
    try:
        values = decode(frame_data(frame, opener), frame.encoding).astype(np.float64) * frame.slope + frame.intercept
        digest = hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()
    except InputError:
        digest = f"{frame.item.name} {frame.chunks}"
    return (*spot, digest)
