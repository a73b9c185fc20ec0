"""One resampling from a source grid straight to a target grid, at true world positions, antialiased when it shrinks.

Source: written for medvl. The kernel along an axis is linear interpolation averaged over a triangle of half-width
``sqrt(step^2 - 1)`` source voxels, where ``step`` is the target spacing in source voxels. It is plain linear interpolation
where the target is as fine as the source or finer, has the spread of a triangle of half-width ``step`` where it is coarser, and
keeps constants and straight ramps exactly at every ratio.

Borders: a target centre up to half a voxel outside the outermost source centres sees the border voxel repeated; a centre further
out is outside the scan and gets `fill`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.geometry import Geometry
from medvl.records import Volume

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_DRIFT_VOXELS = 0.02  # sideways drift over the whole target below which two grids count as aligned
_BORDER = 0.5 + 1e-4  # half a voxel, with room for rounding of affines
_BLOCK = 16  # target samples that share one dense block of the banded weight matrix
_PRODUCT = 1 << 18  # multiplications per matrix product; OpenBLAS wakes other threads above this, which costs more than it saves
_CHUNK_VOXELS = 1 << 19  # source voxels turned into float32 at a time (2 MiB)


def resample(volume: Volume, target: Geometry, *, fill: float = -1024.0) -> Float32:
    """Values of `volume` on the `target` grid.

    Args:
        volume: source in HU, int16 or float32; never copied to float as a whole.
        target: any grid: finer, coarser, flipped, permuted or oblique to the source.
        fill: HU for target centres outside the source grid by more than half a voxel.

    Returns:
        (D, H, W) float32 HU of ``target.shape_dhw``, C-contiguous. The same input gives the same bytes.
    """
    out = np.full(target.shape_dhw, fill, dtype=np.float32)
    step, start = _index_map(volume.geometry, target)
    match = _aligned_axes(step, target.shape_dhw)
    if match is None:
        _resample_oblique(volume.hu, step, start, out)
        return out
    lines = _lines(step, start, match, volume.hu.shape, target.shape_dhw)
    if lines is not None:
        weights = tuple(_band(line) for line in lines)
        block = _contract_all(volume.hu, weights)
        order = tuple(match.index(axis) for axis in range(3))
        inside = tuple(lines[source].targets for source in order)
        out[inside] = block.transpose(order)
    return out


def resample_label(labels: NDArray[Any], source: Geometry, target: Geometry, *, fill: int = 0) -> NDArray[Any]:
    """Nearest label of `labels` on the `target` grid.

    Args:
        labels: (D, H, W) of any integer or boolean dtype, on `source`.
        source: where the labels lie.
        target: the wanted grid.
        fill: label for target centres outside the source grid by more than half a voxel.

    Returns:
        (D, H, W) of ``target.shape_dhw`` in the dtype of `labels`.

    Raises:
        ValueError: the array does not fit `source`.
    """
    if labels.shape != source.shape_dhw:
        raise ValueError(f"labels {labels.shape} do not fit their geometry {source.shape_dhw}")
    out = np.full(target.shape_dhw, fill, dtype=labels.dtype)
    step, start = _index_map(source, target)
    match = _aligned_axes(step, target.shape_dhw)
    if match is None:
        plane = _plane_offsets(step, target.shape_dhw)
        for d in range(target.shape_dhw[0]):
            index = plane + (start + step[:, 0] * d)[:, None, None]
            inside = _is_inside(index, labels.shape)
            nearest = [_nearest(index[axis][inside], labels.shape[axis]) for axis in range(3)]
            out[d][inside] = labels[nearest[0], nearest[1], nearest[2]]
        return out
    lines = _lines(step, start, match, labels.shape, target.shape_dhw)
    if lines is not None:
        picked = labels[np.ix_(*(_nearest(line.centers, line.n_source) for line in lines))]
        order = tuple(match.index(axis) for axis in range(3))
        out[tuple(lines[source_axis].targets for source_axis in order)] = picked.transpose(order)
    return out


def covered_fraction(source: Geometry, target: Geometry) -> float:
    """Fraction in [0, 1] of the target's voxel centres that lie inside the source grid, half a border voxel included."""
    step, start = _index_map(source, target)
    match = _aligned_axes(step, target.shape_dhw)
    if match is not None:
        lines = _lines(step, start, match, source.shape_dhw, target.shape_dhw)
        return 0.0 if lines is None else math.prod(len(line.centers) for line in lines) / math.prod(target.shape_dhw)
    plane = _plane_offsets(step, target.shape_dhw)
    shifts = (start + step[:, 0] * d for d in range(target.shape_dhw[0]))
    n_inside = sum(int(_is_inside(plane + shift[:, None, None], source.shape_dhw).sum()) for shift in shifts)
    return float(n_inside / math.prod(target.shape_dhw))


@dataclass(frozen=True)
class _Line:
    """Where the target samples of one source axis fall: `centers` in source voxels, of the `targets` inside the source."""

    centers: Float64
    step: float
    n_source: int
    targets: slice


@dataclass(frozen=True)
class _Band:
    """Weights of one axis as dense blocks of a band: rows `targets` of the result from `sources` of the input."""

    blocks: tuple[tuple[slice, slice, Float32], ...]
    sources: slice
    n_targets: int

    @property
    def shrink(self) -> float:
        """Samples out per sample in."""
        return float(self.n_targets / (self.sources.stop - self.sources.start))


def _index_map(source: Geometry, target: Geometry) -> tuple[Float64, Float64]:
    """(3, 3) source voxels per target voxel and the (3,) source index of target voxel 0."""
    step: Float64 = np.linalg.inv(source.affine_lps[:3, :3]) @ target.affine_lps[:3, :3]
    return step, source.to_index(target.affine_lps[:3, 3])


def _aligned_axes(step: Float64, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """For each source axis the one target axis that runs along it, or None where the grids are oblique."""
    reach = np.abs(step) * np.maximum(np.array(shape) - 1, 1)
    match = tuple(int(axis) for axis in np.argmax(np.abs(step) / np.abs(step).max(axis=0), axis=1))
    if len(set(match)) < 3:
        return None
    sideways = reach.copy()
    sideways[np.arange(3), match] = 0.0
    return None if sideways.sum(axis=1).max() > _DRIFT_VOXELS else (match[0], match[1], match[2])


def _lines(
    step: Float64, start: Float64, match: tuple[int, int, int], source_shape: tuple[int, ...], shape: tuple[int, int, int]
) -> tuple[_Line, _Line, _Line] | None:
    """One `_Line` per source axis of two aligned grids; None where they do not meet."""
    lines = []
    middle = (np.array(shape) - 1) / 2
    for axis, along in enumerate(match):
        offset = start[axis] + sum(step[axis, other] * middle[other] for other in range(3) if other != along)
        centers = offset + step[axis, along] * np.arange(shape[along])
        inside = np.flatnonzero((centers >= -_BORDER) & (centers <= source_shape[axis] - 1 + _BORDER))
        if inside.size == 0:
            return None
        targets = slice(int(inside[0]), int(inside[-1]) + 1)
        lines.append(_Line(centers[targets], abs(float(step[axis, along])), source_shape[axis], targets))
    return lines[0], lines[1], lines[2]


def _kernel(distance: Float64, step: float) -> Float64:
    """Weight of source voxels at `distance` voxels from a target centre: a hat convolved with the antialiasing triangle."""
    if step <= 1.0 + 1e-6:
        return np.maximum(0.0, 1.0 - np.abs(distance))
    width = float(np.sqrt(step * step - 1.0))
    total = np.zeros_like(distance)
    for (hat, hat_sign), (tri, tri_sign) in product(((-1.0, 1), (0.0, -2), (1.0, 1)), ((-width, 1), (0.0, -2), (width, 1))):
        total += hat_sign * tri_sign * np.abs(distance + hat + tri) ** 3
    total /= 12.0 * width * width
    return np.where(np.abs(distance) < width + 1.0, np.maximum(total, 0.0), 0.0)


def _band(line: _Line) -> _Band:
    """Normalised weights of one axis; taps beyond the border fall on the border voxel."""
    reach = 1.0 + float(np.sqrt(max(0.0, line.step * line.step - 1.0)))
    last = line.n_source - 1
    low = np.clip(np.floor(line.centers - reach), 0, last).astype(int)
    high = np.clip(np.ceil(line.centers + reach), 0, last).astype(int)
    origin = int(low.min())
    blocks = []
    for first in range(0, len(line.centers), _BLOCK):
        rows = slice(first, min(first + _BLOCK, len(line.centers)))
        begin, end = int(low[rows].min()), int(high[rows].max()) + 1
        taps = np.arange(int(np.floor(line.centers[rows].min() - reach)), int(np.ceil(line.centers[rows].max() + reach)) + 1)
        weights = _kernel(taps[None, :] - line.centers[rows][:, None], line.step)
        dense = np.zeros((rows.stop - rows.start, end - begin))
        for column, tap in zip(np.clip(taps, begin, end - 1) - begin, range(len(taps)), strict=True):
            dense[:, column] += weights[:, tap]
        dense /= dense.sum(axis=1, keepdims=True)
        blocks.append((rows, slice(begin - origin, end - origin), dense.astype(np.float32)))
    return _Band(tuple(blocks), slice(origin, int(high.max()) + 1), len(line.centers))


def _contract(values: Float32, band: _Band, axis: int) -> Float32:
    """(D, H, W) float32 with `axis` taken from source to target samples."""
    shape = list(values.shape)
    shape[axis] = band.n_targets
    out = np.empty(shape, dtype=np.float32)
    source, made = (values.swapaxes(0, 1), out.swapaxes(0, 1)) if axis == 0 else (values, out)
    side = made.shape[1 if axis == 2 else 2]
    for targets, sources, dense in band.blocks:
        width = -(-side // -(-side * dense.size // _PRODUCT))
        for begin in range(0, side, width):
            part = slice(begin, begin + width)
            if axis == 2:
                np.matmul(source[:, part, sources], dense.T, out=made[:, part, targets])
            else:
                np.matmul(dense, source[:, sources, part], out=made[:, targets, part])
    return out


def _contract_all(hu: NDArray[Any], bands: tuple[_Band, ...]) -> Float32:
    """All three axes of the needed slab, in source axis order; float32 copies are made of one thin chunk at a time."""
    slab = hu[tuple(band.sources for band in bands)]
    last = 0 if bands[0].shrink >= bands[1].shrink else 1
    first, second = sorted((axis for axis in range(3) if axis != last), key=lambda axis: bands[axis].shrink)
    shape = [band.n_targets for band in bands]
    shape[last] = slab.shape[last]
    partial = np.empty(shape, dtype=np.float32)
    thickness = max(1, _CHUNK_VOXELS * slab.shape[last] // slab.size)
    for begin in range(0, slab.shape[last], thickness):
        chunk: list[slice] = [slice(None)] * 3
        chunk[last] = slice(begin, begin + thickness)
        values = slab[tuple(chunk)].astype(np.float32, order="C")
        partial[tuple(chunk)] = _contract(_contract(values, bands[first], first), bands[second], second)
    return _contract(partial, bands[last], last)


def _plane_offsets(step: Float64, shape: tuple[int, int, int]) -> Float64:
    """(3, H, W) source index of a target plane, less that of its first voxel."""
    rows, columns = np.arange(shape[1])[:, None], np.arange(shape[2])[None, :]
    return step[:, 1, None, None] * rows + step[:, 2, None, None] * columns


def _is_inside(index: Float64, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """(...) True where (3, ...) source indices lie inside the grid, half a border voxel included."""
    limits = np.array(shape).reshape(3, *(1,) * (index.ndim - 1)) - 1 + _BORDER
    return np.asarray(((index >= -_BORDER) & (index <= limits)).all(axis=0))


def _nearest(centers: Float64, n_source: int) -> NDArray[np.intp]:
    """Index of the nearest source voxel; a tie goes up."""
    return np.clip(np.floor(centers + 0.5), 0, n_source - 1).astype(np.intp)


def _resample_oblique(hu: NDArray[Any], step: Float64, start: Float64, out: Float32) -> None:
    """Write the inside of an oblique target into `out`: blur the needed block where it shrinks, then interpolate linearly."""
    from scipy import ndimage  # slow to import, and aligned grids do not need it

    shape = np.array(hu.shape)
    corners = np.array(list(product(*((0, n - 1) for n in out.shape)))) @ step.T + start
    spread = np.sqrt(np.maximum((step**2).sum(axis=1) - 1.0, 0.0) / 6.0)  # Gaussian SD that a triangle of that step has
    margin = np.ceil(3 * spread) + 1
    low = np.clip(np.floor(corners.min(axis=0) - margin), 0, shape - 1).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0) + margin), 0, shape - 1).astype(int) + 1
    if (corners.max(axis=0) < -_BORDER).any() or (corners.min(axis=0) > shape - 1 + _BORDER).any():
        return
    block = hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.float32)
    for axis in range(3):
        if spread[axis] > 0.1:
            block = ndimage.gaussian_filter1d(block, spread[axis], axis=axis, mode="nearest", truncate=3.0)
    values = ndimage.affine_transform(
        block, step, offset=start - low, output_shape=out.shape, output=np.float32, order=1, mode="nearest"
    )
    plane = _plane_offsets(step, out.shape)  # type: ignore[arg-type]
    for d in range(out.shape[0]):
        inside = _is_inside(plane + (start + step[:, 0] * d)[:, None, None], hu.shape)
        out[d][inside] = values[d][inside]
