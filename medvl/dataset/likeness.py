"""Do two scans show the same body? A small picture of each, compared by correlation.

The scan, put upright (SPL) and clipped to -300..500 HU, is averaged to 24 x 24 x 24 boxes; what is the same within 5 boxes is
taken off, which all bodies share, and the length made one. Exports, flips, noise and thicker slices leave it nearly as it is;
another body does not give it. A scan cut shorter is another picture: it is not found.
"""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from medvl.geometry import Geometry

SIDE = 24
LOW_HU, HIGH_HU = -300.0, 500.0
BLUR = 5
_BLOCK = 512


def picture(hu: NDArray[np.int16], geometry: Geometry) -> str:
    """The small picture of a (D, H, W) scan as text: SIDE^3 int8, base64."""
    upright = _upright(hu, geometry.axes)
    averaged = _averaged(upright)
    values = averaged - uniform_filter(averaged, BLUR, mode="nearest")
    peak = float(np.abs(values).max())
    return base64.b64encode(np.rint(values * (127 / peak if peak else 0)).astype(np.int8).tobytes()).decode()


def unpacked(text: str) -> NDArray[np.float32]:
    """(SIDE^3,) of unit length, zeros for a scan without structure."""
    values = np.frombuffer(base64.b64decode(text), np.int8).astype(np.float32)
    values -= values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6), np.float32)


def near_pairs(pictures: NDArray[np.float32], least: float) -> list[tuple[int, int, float]]:
    """Pairs (i < j) of rows whose correlation is `least` or more, with it."""
    found = []
    for start in range(0, len(pictures), _BLOCK):
        part = pictures[start : start + _BLOCK] @ pictures.T
        for i, j in zip(*np.nonzero(part >= least), strict=True):
            if start + i < j:
                found.append((start + int(i), int(j), float(part[i, j])))
    return found


def _upright(hu: NDArray[np.int16], axes: str) -> NDArray[np.int16]:
    """Axes in the order S, P, L, each growing that way."""
    order, flips = [], []
    for wanted, other in (("S", "I"), ("P", "A"), ("L", "R")):
        k = next(i for i, letter in enumerate(axes) if letter in (wanted, other))
        order.append(k)
        flips.append(slice(None, None, 1 if axes[k] == wanted else -1))
    return hu.transpose(order)[tuple(flips)]


def _averaged(hu: NDArray[np.int16]) -> NDArray[np.float64]:
    """(SIDE, SIDE, SIDE) means over equal shares of each axis; voxels on a border count for both sides."""
    out = np.asarray(np.clip(hu, LOW_HU, HIGH_HU), np.float32)
    for axis in range(3):
        out = np.moveaxis(np.tensordot(_shares(out.shape[axis]), out, (1, axis)), 0, axis)
    return out.astype(np.float64)


def _shares(n: int) -> NDArray[np.float32]:
    """(SIDE, n) weights that average n samples over SIDE equal intervals; rows add to one."""
    edges = np.linspace(0, n, SIDE + 1)
    low, high = edges[:-1, None], edges[1:, None]
    cells = np.arange(n)[None]
    overlap = np.clip(np.minimum(high, cells + 1) - np.maximum(low, cells), 0, None)
    return np.asarray(overlap / overlap.sum(1, keepdims=True), np.float32)
