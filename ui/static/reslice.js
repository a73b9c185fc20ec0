// Values of a grid at the pixels of any plane through it, by linear interpolation or from the nearest voxel.
// A frame says where: { width, height, start, across, down } with the index (d, h, w) of pixel 0 and the steps of one pixel.

const REACH = 0.5 - 1e-6; // a voxel reaches half a step around its middle

// First and last + 1 of the `count` steps from `start` that keep to the grid, `margin` steps beyond the middle of its outermost
// voxels at most; the grid is convex, so they are one run.
function run(shape, start, step, count, margin) {
  let first = 0, last = count - 1;
  for (let axis = 0; axis < 3; axis++) {
    const low = -margin - start[axis], high = shape[axis] - 1 + margin - start[axis], by = step[axis];
    if (Math.abs(by) < 1e-9) {
      if (low > 0 || high < 0) return [0, 0];
      continue;
    }
    first = Math.max(first, Math.ceil(Math.min(low / by, high / by)));
    last = Math.min(last, Math.floor(Math.max(low / by, high / by)));
  }
  return last < first ? [0, 0] : [first, last + 1];
}

// Fills `out` by `line`(index of the row's pixel 0, its place in `out`, first and last + 1 pixel in the grid); tells the places
// of those runs in pairs, row by row.
function rows(shape, { width, height, start, across, down }, line) {
  const runs = new Int32Array(2 * height);
  for (let r = 0; r < height; r++) {
    const begin = start.map((value, axis) => value + r * down[axis]);
    const [first, last] = run(shape, begin, across, width, REACH);
    runs[2 * r] = r * width + first;
    runs[2 * r + 1] = r * width + last;
    if (last > first) line(begin, r * width, first, last);
  }
  return runs;
}

export function nearest(values, shape, frame, out) {
  const [, H, W] = shape, [sd, sh, sw] = frame.across;
  return rows(shape, frame, ([d, h, w], at, first, last) => {
    let z = d + first * sd + 0.5, y = h + first * sh + 0.5, x = w + first * sw + 0.5;
    for (let k = at + first, end = at + last; k < end; k++, z += sd, y += sh, x += sw) {
      out[k] = values[((z | 0) * H + (y | 0)) * W + (x | 0)];
    }
  });
}

// Beyond the middle of the outermost voxels their own value.
export function linear(values, shape, frame, out) {
  const { across, width } = frame;
  return rows(shape, frame, (begin, at, first, last) => {
    const [from, to] = run(shape, begin, across, width, -1e-6); // here all eight neighbours are in the grid
    if (to <= from) return edges(values, shape, begin, across, out, at, first, last);
    edges(values, shape, begin, across, out, at, first, from);
    inner(values, shape, begin, across, out, at, from, to);
    edges(values, shape, begin, across, out, at, to, last);
  });
}

function inner(values, [, H, W], [d, h, w], [sd, sh, sw], out, at, first, last) {
  const slice = H * W;
  for (let k = first; k < last; k++) {
    const z = d + k * sd, y = h + k * sh, x = w + k * sw, z0 = z | 0, y0 = y | 0, x0 = x | 0;
    const fz = z - z0, fy = y - y0, fx = x - x0;
    const a = z0 * slice + y0 * W + x0, b = a + W, c = a + slice, e = c + W;
    const p = values[a], q = values[b], r = values[c], s = values[e];
    const top = p + (values[a + 1] - p) * fx, low = q + (values[b + 1] - q) * fx;
    const back = r + (values[c + 1] - r) * fx, deep = s + (values[e + 1] - s) * fx, near = top + (low - top) * fy;
    out[at + k] = Math.round(near + (back + (deep - back) * fy - near) * fz);
  }
}

function edges(values, shape, start, step, out, at, first, last) {
  const index = [0, 0, 0], [, H, W] = shape;
  for (let k = first; k < last; k++) {
    for (let axis = 0; axis < 3; axis++) index[axis] = Math.max(0, Math.min(shape[axis] - 1, start[axis] + k * step[axis]));
    const low = index.map(Math.floor), [fz, fy, fx] = index.map((value, axis) => value - low[axis]);
    let sum = 0;
    for (let corner = 0; corner < 8; corner++) {
      const z = corner >> 2, y = (corner >> 1) & 1, x = corner & 1;
      const share = (z ? fz : 1 - fz) * (y ? fy : 1 - fy) * (x ? fx : 1 - fx);
      if (share) sum += share * values[((low[0] + z) * H + low[1] + y) * W + low[2] + x];
    }
    out[at + k] = Math.round(sum);
  }
}
