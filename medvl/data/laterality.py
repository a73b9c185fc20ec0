"""Left and right in names, and what has to change in the labels when an image is mirrored."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medvl.data.targets import UNKNOWN, KindTargets, Targets

_SIDE = re.compile(r"(?<![^\W_])(left|right)(?![^\W_])", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def mirrored(name: str) -> str:
    """`name` with left and right exchanged as whole words: kidney_left gives kidney_right, "left lower lobe" the right one."""

    def turn(match: re.Match[str]) -> str:
        other = _OTHER[match[0].lower()]
        return other.upper() if match[0].isupper() else other.capitalize() if match[0][0].isupper() else other

    return _SIDE.sub(turn, name)


def mirror_order(names: Sequence[str]) -> NDArray[np.int64]:
    """(N,) for each name the number of the one it becomes in a mirrored image; -1 when that is not among the names.

    A right middle lobe has no counterpart: what was known of it says nothing about any name in the mirrored image.
    """
    places = {name: number for number, name in enumerate(names)}
    return np.array([places.get(mirrored(name), -1) for name in names], np.int64)


def swap_sides(relations: NDArray[np.int8], anatomies: Sequence[str], findings: Sequence[str]) -> NDArray[np.int8]:
    """(..., A, F) relations as they are in the mirrored image; unknown (-1) for names without a counterpart."""
    rows, columns = mirror_order(anatomies), mirror_order(findings)
    swapped = relations[..., rows, :][..., columns]
    swapped[..., rows < 0, :] = UNKNOWN
    swapped[..., columns < 0] = UNKNOWN
    return swapped


def swap_targets(targets: Targets, kind: KindTargets) -> Targets:
    """Attributes as they are in the mirrored image; unknown for names without a counterpart.

    Attributes that name a side change places, and so do class names that do, such as left and right of one attribute; sizes are
    standardised anew.
    """
    binary = _columns(targets.binary, mirror_order(kind.binary))
    names, values = list(kind.classes), list(kind.classes.values())
    classes = np.full_like(targets.classes, UNKNOWN)
    for column, source in enumerate(mirror_order(names)):
        if source >= 0:
            codes = [values[column].index(v) if v in values[column] else UNKNOWN for v in map(mirrored, values[source])]
            classes[:, column] = np.array([*codes, UNKNOWN], np.int8)[targets.classes[:, source]]
    numbers = np.full_like(targets.numbers, np.nan)
    scales = list(kind.numbers.values())
    for column, source in enumerate(mirror_order(list(kind.numbers))):
        if source >= 0:
            (mean, spread), (old_mean, old_spread) = scales[column], scales[source]
            numbers[:, column] = targets.numbers[:, source] * (old_spread / spread) + (old_mean - mean) / spread
    return Targets(binary, classes, numbers)


def _columns(values: NDArray[np.int8], order: NDArray[np.int64]) -> NDArray[np.int8]:
    """Columns of (N, K) `values` in `order`, unknown where that is negative."""
    return np.where(order < 0, np.int8(UNKNOWN), values[:, order]).astype(np.int8)
