// Values of a grid at the pixels of any plane through it, by linear interpolation or from the nearest voxel.
// A frame says where: { width, height, start, across, down } with the index (d, h, w) of pixel 0 and the steps of one pixel.

const EDGE = 0.5 - 1e-6; // a voxel reaches half a step around its middle

// First and last + 1 of the `count` steps from `start` that lie in the grid; the grid is convex, so they are one run.
function run(shape, start, step, count) {
  let first = 0, last = count - 1;
  for (let axis = 0; axis < 3; axis++) {
    const low = -EDGE - start[axis], high = shape[axis] - 1 + EDGE - start[axis], by = step[axis];
    if (Math.abs(by) < 1e-9) {
      if (low > 0 || high < 0) return [0, 0];
      continue;
    }
    first = Math.max(first, Math.ceil(Math.min(low / by, high / by)));
    last = Math.min(last, Math.floor(Math.max(low / by, high / by)));
  }
  return last < first ? [0, 0] : [first, last + 1];
}

// Fills `out` by `line`(start index of the run, its first and last + 1 place in `out`); the runs as pairs of places, row by row.
function rows(shape, { width, height, start, across, down }, line) {
  const runs = new Int32Array(2 * height);
  for (let r = 0; r < height; r++) {
    const begin = start.map((value, axis) => value + r * down[axis]), [first, last] = run(shape, begin, across, width);
    runs[2 * r] = r * width + first;
    runs[2 * r + 1] = r * width + last;
    if (last > first) line(begin.map((value, axis) => value + first * across[axis]), runs[2 * r], runs[2 * r + 1]);
  }
  return runs;
}

export function nearest(values, shape, frame, out) {
  const [, H, W] = shape, [sd, sh, sw] = frame.across;
  return rows(shape, frame, ([d, h, w], from, to) => {
    for (let k = from, z = d + 0.5, y = h + 0.5, x = w + 0.5; k < to; k++, z += sd, y += sh, x += sw) {
      out[k] = values[((z | 0) * H + (y | 0)) * W + (x | 0)];
    }
  });
}

// Beyond the middle of the outermost voxels their own value.
export function linear(values, shape, frame, out) {
  const [D, H, W] = shape, [sd, sh, sw] = frame.across, slice = H * W;
  return rows(shape, frame, ([d, h, w], from, to) => {
    for (let k = from; k < to; k++, d += sd, h += sh, w += sw) {
      const z = d < 0 ? 0 : d > D - 1 ? D - 1 : d, y = h < 0 ? 0 : h > H - 1 ? H - 1 : h, x = w < 0 ? 0 : w > W - 1 ? W - 1 : w;
      const z0 = z | 0, y0 = y | 0, x0 = x | 0, fz = z - z0, fy = y - y0, fx = x - x0;
      const a = z0 * slice + y0 * W + x0, right = x0 < W - 1 ? 1 : 0, b = a + (y0 < H - 1 ? W : 0), deep = z0 < D - 1 ? slice : 0;
      const c = a + deep, e = b + deep;
      const near = (values[a] + (values[a + right] - values[a]) * fx) * (1 - fy) + (values[b] + (values[b + right] - values[b]) * fx) * fy;
      const far = (values[c] + (values[c + right] - values[c]) * fx) * (1 - fy) + (values[e] + (values[e + right] - values[e]) * fx) * fy;
      out[k] = Math.round(near + (far - near) * fz);
    }
  });
}
