// One plane of the three turned about the crosshair. Its two angles are those of its line in the two other planes, in degrees,
// counter-clockwise on their screens. All geometry is in the patient's millimetres: grids may be unequal, oblique or sheared.
import { linear, nearest } from "./reslice.js";
import { apply } from "./volume.js";

export const STEEPEST = 80, STEP = 0.5; // degrees
const LARGEST = 2e6; // pixels of a sheet
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const plus = (a, by, b) => a.map((value, k) => value + by * b[k]); // a + by * b
const unit = (a) => plus([0, 0, 0], 1 / Math.hypot(...a), a);
const tangent = (degrees) => Math.tan((degrees * Math.PI) / 180);
const minus = (text) => text.replace("-", "\u2212");

// Letters of a direction in LPS, the largest part first, as DICOM writes them: LA is to the left and a little to the front.
export function letters(direction) {
  const parts = direction.map((value, axis) => [Math.abs(value), "RAILPS"[axis + (value > 0 ? 3 : 0)]]);
  const told = parts.filter(([size]) => size > 0.0087); // half a degree
  return told.sort((a, b) => b[0] - a[0]).map(([, letter]) => letter).join("");
}

const column = (matrix, k) => [matrix[k], matrix[4 + k], matrix[8 + k]];
const turnedBy = (matrix, v) => [0, 1, 2].map((k) => matrix[4 * k] * v[0] + matrix[4 * k + 1] * v[1] + matrix[4 * k + 2] * v[2]);

export class Oblique {
  constructor(volume, plane, cursor) {
    Object.assign(this, { volume, plane, angles: [0, 0] });
    [this.sheet, this.heat] = [0, 1].map(() => document.createElement("canvas"));
    const [right, row, through] = [plane.column, plane.row, plane.normal].map((axis) => column(volume.toPatient, axis));
    this.u = unit(right);
    const down = plus([0, 0, 0], plane.up ? -1 : 1, row);
    this.v = unit(plus(down, -dot(down, this.u), this.u));
    this.n = unit(plus(plus(through, -dot(through, this.u), this.u), -dot(through, this.v), this.v));
    this.follow(apply(volume.toPatient, cursor));
    this.turn([0, 0]);
  }

  get turned() {
    return this.angles.some((angle) => angle !== 0);
  }

  // Which of the two angles is seen in another plane.
  seen(other) {
    return other.normal === this.plane.row ? 0 : 1;
  }

  // +1 where the slope towards `n` runs counter-clockwise on the screen of the plane in which it is seen.
  #sense(k) {
    return k === 0 && this.plane.name === "Coronal" ? -1 : 1;
  }

  // To these angles about the crosshair, which stays where it is on the screen.
  turn(angles) {
    if (!this.turned) this.anchor = this.#home();
    this.angles = angles.map((angle) => Math.max(-STEEPEST, Math.min(STEEPEST, Math.round(angle / STEP) * STEP)) || 0);
    const [a, b] = this.angles.map((angle, k) => this.#sense(k) * tangent(angle)), { u, v, n } = this;
    this.normal = unit(plus(plus(n, -a, u), -b, v));
    const across = unit(plus(u, a, n)), along = unit(plus(v, b, n)); // its lines in the two other planes
    const sum = unit(plus(across, 1, along)), difference = unit(plus(across, -1, along)); // at right angles
    this.right = plus(plus([0, 0, 0], Math.SQRT1_2, sum), Math.SQRT1_2, difference);
    this.down = plus(plus([0, 0, 0], Math.SQRT1_2, sum), -Math.SQRT1_2, difference);
  }

  // The angles after the line seen as angle `k` was drawn through a point in patient mm.
  through(k, point) {
    const from = plus(point, -1, this.point), sides = [dot(from, this.u), dot(from, this.v)];
    const other = this.#sense(1 - k) * tangent(this.angles[1 - k]);
    const slope = Math.atan((dot(from, this.n) - other * sides[1 - k]) / sides[k]) * (180 / Math.PI);
    return k ? [this.angles[0], this.#sense(1) * slope] : [this.#sense(0) * slope, this.angles[1]];
  }

  // The crosshair's place on the straight slice, in mm from its left and top edge.
  #home() {
    const { volume, plane } = this, index = apply(volume.fromPatient, this.point);
    const row = plane.up ? volume.shape[plane.row] - 1 - index[plane.row] : index[plane.row];
    return [(index[plane.column] + 0.5) * volume.spacing[plane.column], (row + 0.5) * volume.spacing[plane.row]];
  }

  // Leads the plane through another point in patient mm; what it shows of the old place stays where it is on the screen.
  follow(point) {
    if (this.turned) this.anchor = this.spot(point);
    this.point = point;
  }

  // Millimetres across and down from the slice's left and top edge, for a point in patient mm, and back.
  spot(point) {
    const from = plus(point, -1, this.point);
    return [this.anchor[0] + dot(from, this.right), this.anchor[1] + dot(from, this.down)];
  }

  patient([x, y]) {
    return plus(plus(this.point, x - this.anchor[0], this.right), y - this.anchor[1], this.down);
  }

  index(spot) {
    return apply(this.volume.fromPatient, this.patient(spot));
  }

  // Whether a voxel index lies in the plane.
  holds(index) {
    return Math.abs(dot(plus(apply(this.volume.toPatient, index), -1, this.point), this.normal)) < 0.01;
  }

  // The point some notches further along the normal, about one voxel each; null outside the volume.
  further(notches) {
    const step = 1 / Math.hypot(...turnedBy(this.volume.fromPatient, this.normal));
    const point = plus(this.point, notches * step, this.normal), index = apply(this.volume.fromPatient, point);
    return this.inside(index) ? index : null;
  }

  inside(index) {
    return index.every((value, axis) => value >= -0.5 && value <= this.volume.shape[axis] - 0.5);
  }

  // The index nearest to `index` on the way from the crosshair that is still in the volume.
  kept(index) {
    const from = apply(this.volume.fromPatient, this.point);
    let share = 1;
    index.forEach((value, axis) => {
      const edge = value < -0.5 ? -0.5 : value > this.volume.shape[axis] - 0.5 ? this.volume.shape[axis] - 0.5 : value;
      if (edge !== value) share = Math.min(share, (edge - from[axis]) / (value - from[axis]));
    });
    return from.map((value, axis) => value + share * (index[axis] - value));
  }

  // Left, right, top and bottom of the screen.
  get borders() {
    const back = (v) => plus([0, 0, 0], -1, v);
    return [back(this.right), this.right, back(this.down), this.down].map(letters);
  }

  // The direction on its own screen of the line in which another plane crosses it.
  crossing(other) {
    const wall = [0, 1, 2].map((k) => this.volume.fromPatient[4 * other.normal + k]), line = cross(this.normal, wall);
    return [dot(line, this.right), dot(line, this.down)];
  }

  // The line in which it crosses the slice of another plane: a voxel index on it near `cursor`, and its direction as an index.
  trace(other, cursor) {
    const away = dot(plus(this.point, -1, apply(this.volume.toPatient, cursor)), this.normal);
    const rise = [0, 1, 2].map((axis) => dot(column(this.volume.toPatient, axis), this.normal)); // mm along the normal per voxel
    const { row, column: across } = other, steep = Math.abs(rise[row]) > Math.abs(rise[across]) ? row : across;
    const index = [...cursor], direction = [0, 0, 0];
    index[steep] += away / rise[steep];
    [direction[across], direction[row]] = [rise[row], -rise[across]];
    return { index, direction };
  }

  // What the title says of the angles.
  get text() {
    const names = { 0: "axial", 1: "coronal", 2: "sagittal" }, axes = [this.plane.row, this.plane.column];
    const parts = this.angles.map((angle, k) => (angle ? `${minus(String(angle))}° in ${names[axes[k]]}` : ""));
    return [`${this.plane.name}, turned`, ...parts.filter(Boolean)].join("\n");
  }

  // Left, top, right and bottom of what the plane cuts out of the volume, in mm from the crosshair.
  get extent() {
    const ends = this.volume.shape.map((n) => [-0.5, n - 0.5]), found = [];
    for (let axis = 0; axis < 3; axis++) {
      for (let corner = 0; corner < 4; corner++) {
        const side = (k) => (corner >> ((k - axis + 3) % 3 - 1)) & 1;
        const edge = [0, 1].map((end) => ends.map((both, k) => both[k === axis ? end : side(k)]));
        const [a, b] = edge.map((index) => plus(apply(this.volume.toPatient, index), -1, this.point));
        const [from, to] = [dot(a, this.normal), dot(b, this.normal)];
        if (from * to <= 0 && from !== to) found.push(plus(a, from / (from - to), plus(b, -1, a)));
      }
    }
    const [x, y] = [this.right, this.down].map((axis) => found.map((point) => dot(point, axis)));
    return [Math.min(...x), Math.min(...y), Math.max(...x), Math.max(...y)];
  }

  // Pixels as small as the smallest voxel side, one of them on the crosshair.
  #frame(matrix, coarse = 1) {
    const [left, top, right, bottom] = this.extent, area = (right - left) * (bottom - top);
    const pitch = Math.max(coarse * Math.min(...this.volume.spacing), Math.sqrt(area / LARGEST));
    const before = (mm) => Math.max(0, Math.ceil(mm / pitch - 0.5 - 1e-6)), [x, y] = [before(-left), before(-top)];
    const start = apply(matrix, plus(plus(this.point, -x * pitch, this.right), -y * pitch, this.down));
    const step = (axis) => plus([0, 0, 0], pitch, turnedBy(matrix, axis));
    const place = { left: -(x + 0.5) * pitch, top: -(y + 0.5) * pitch, pitch };
    const size = { width: x + 1 + before(right), height: y + 1 + before(bottom) };
    return { ...size, ...place, start, across: step(this.right), down: step(this.down) };
  }

  // Paints the plane's sheet where it is new; `quick` takes the nearest voxel. The frame tells where it lies.
  paint(greys, quick) {
    const wanted = [this.point, this.angles, this.volume.received, quick].join();
    const stale = this.held !== wanted;
    if (stale) {
      this.frame = this.#frame(this.volume.fromPatient);
      this.values = new Int16Array(this.frame.width * this.frame.height);
      this.runs = (quick ? nearest : linear)(this.volume.hu, this.volume.shape, this.frame, this.values);
    }
    if (stale || this.shown !== greys) this.#colour(this.sheet, this.frame, this.values, this.runs, greys, 32768);
    Object.assign(this, { held: wanted, shown: greys });
    return this.frame;
  }

  // The same for the evidence, whose own grid is coarser.
  paintHeat(overlay, heats) {
    const wanted = [this.point, this.angles].join();
    const { heldHeat: held } = this;
    if (held?.wanted === wanted && held.overlay === overlay && held.heats === heats) return this.heatFrame;
    const frame = this.#frame(chained(overlay.fromVolume, this.volume.fromPatient), 2);
    const values = new Uint8Array(frame.width * frame.height), runs = linear(overlay.values, overlay.shape, frame, values);
    this.#colour(this.heat, frame, values, runs, heats, 0);
    Object.assign(this, { heldHeat: { wanted, overlay, heats }, heatFrame: frame });
    return frame;
  }

  #colour(canvas, { width, height }, values, runs, table, offset) {
    Object.assign(canvas, { width, height });
    const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
    for (let k = 0; k < runs.length; k += 2) {
      for (let i = runs[k], end = runs[k + 1]; i < end; i++) pixels[i] = table[values[i] + offset];
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
}

// The 4x4 matrix that does `first`, then `then`.
function chained(then, first) {
  const entry = (row, column) => [0, 1, 2, 3].reduce((sum, m) => sum + then[4 * row + m] * first[4 * m + column], 0);
  return Array.from({ length: 16 }, (_, k) => entry(k >> 2, k & 3));
}
