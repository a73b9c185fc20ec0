// Cuts what one plane shows out of the volume: a single slice, or several side by side joined by mean, maximum or minimum.

export const SLABS = [
  { label: "Single slice", mode: "single", mm: 0 },
  { label: "Average 5 mm", mode: "mean", mm: 5 },
  { label: "Average 10 mm", mode: "mean", mm: 10 },
  { label: "MIP 10 mm", mode: "max", mm: 10 },
  { label: "MIP 20 mm", mode: "max", mm: 20 },
  { label: "MinIP 10 mm", mode: "min", mm: 10 },
];

// First and last slice of the odd number of slices that comes nearest to `mm`, centred on `at`, kept inside `count`.
export function span(at, count, spacing, mm) {
  const half = mm > 0 ? Math.max(1, Math.round((mm / spacing - 1) / 2)) : 0;
  return [Math.max(0, at - half), Math.min(count - 1, at + half)];
}

// Fills `out` (rows x columns, int16) with slices first..last of the volume seen by a plane.
export function cut(volume, { normal, row, column, up }, [first, last], mode, out) {
  const strides = [volume.sliceLength, volume.shape[2], 1], { hu } = volume;
  const width = volume.shape[column], height = volume.shape[row], step = strides[column], count = last - first + 1;
  const line = new Int32Array(width);
  for (let r = 0; r < height; r++) {
    const start = (up ? height - 1 - r : r) * strides[row];
    for (let k = first; k <= last; k++) {
      let from = start + k * strides[normal];
      if (k === first) for (let c = 0; c < width; c++, from += step) line[c] = hu[from];
      else if (mode === "max") for (let c = 0; c < width; c++, from += step) { if (hu[from] > line[c]) line[c] = hu[from]; }
      else if (mode === "min") for (let c = 0; c < width; c++, from += step) { if (hu[from] < line[c]) line[c] = hu[from]; }
      else for (let c = 0; c < width; c++, from += step) line[c] += hu[from];
    }
    const base = r * width;
    if (mode === "mean" && count > 1) for (let c = 0; c < width; c++) out[base + c] = Math.round(line[c] / count);
    else out.set(line, base);
  }
}
