// One plane of the three: draws its slice with the right aspect, and turns the pointer into voxels.
import { SLABS, cut, span } from "./slab.js";

const OPPOSITE = { R: "L", L: "R", A: "P", P: "A", I: "S", S: "I" };
// normal: the axis scrolled through; column, row: axes across and down the screen; up: rows run against their axis;
// wheel: index change of one notch towards the reader (feet, back, left).
export const PLANES = [
  { name: "Axial", normal: 0, column: 2, row: 1, up: false, wheel: -1 },
  { name: "Coronal", normal: 1, column: 2, row: 0, up: true, wheel: 1 },
  { name: "Sagittal", normal: 2, column: 1, row: 0, up: true, wheel: 1 },
];

const element = (tag, className, parent) => {
  const made = document.createElement(tag);
  made.className = className;
  parent.append(made);
  return made;
};

export class Plane {
  constructor(kind, parent) {
    Object.assign(this, kind);
    this.box = element("div", `plane ${this.name.toLowerCase()}`, parent);
    this.canvas = element("canvas", "", this.box);
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.letters = ["left", "right", "top", "bottom"].map((side) => element("span", `letter ${side}`, this.box));
    this.title = element("span", "title", this.box);
    this.position = element("span", "position", this.box);
    this.slice = document.createElement("canvas");
    this.heat = document.createElement("canvas");
  }

  attach(volume) {
    this.volume = volume;
    this.reset();
    for (const canvas of [this.slice, this.heat]) {
      canvas.width = volume.shape[this.column];
      canvas.height = volume.shape[this.row];
    }
    this.values = new Int16Array(this.slice.width * this.slice.height);
    this.image = new ImageData(this.slice.width, this.slice.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.held = this.heldHeat = null;
    const across = volume.axes[this.column], down = this.up ? OPPOSITE[volume.axes[this.row]] : volume.axes[this.row];
    [OPPOSITE[across], across, OPPOSITE[down], down].forEach((letter, k) => { this.letters[k].textContent = letter; });
  }

  fit() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(this.box.clientWidth * ratio)), height = Math.max(1, Math.round(this.box.clientHeight * ratio));
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
  }

  // The whole slice in the middle.
  reset() {
    this.zoom = 1;
    this.pan = [0, 0];
  }

  get zoomed() {
    return this.zoom !== 1 || this.pan[0] !== 0 || this.pan[1] !== 0;
  }

  // Where the slice lies on the canvas: its left and top edge and the pixels of one voxel across and down.
  place() {
    const { shape, spacing } = this.volume;
    const across = shape[this.column] * spacing[this.column], down = shape[this.row] * spacing[this.row];
    const scale = this.zoom * Math.min(this.canvas.width / across, this.canvas.height / down);
    return {
      x: (this.canvas.width - across * scale) / 2 + this.pan[0],
      y: (this.canvas.height - down * scale) / 2 + this.pan[1],
      dx: spacing[this.column] * scale,
      dy: spacing[this.row] * scale,
    };
  }

  // A pointer event in canvas pixels.
  pixel(event) {
    const bounds = this.canvas.getBoundingClientRect(), ratio = this.canvas.width / bounds.width;
    return [(event.clientX - bounds.left) * ratio, (event.clientY - bounds.top) * ratio];
  }

  // Magnifies by `factor`, keeping what lies under the canvas pixel (px, py) where it is.
  magnify(factor, [px, py]) {
    const before = this.place();
    this.zoom = Math.max(1, Math.min(16, this.zoom * factor));
    const after = this.place();
    this.pan[0] += px - (after.x + ((px - before.x) / before.dx) * after.dx);
    this.pan[1] += py - (after.y + ((py - before.y) / before.dy) * after.dy);
    if (this.zoom === 1) this.reset();
  }

  shift([x0, y0], [x1, y1]) {
    this.pan = [this.pan[0] + x1 - x0, this.pan[1] + y1 - y0];
  }

  // Canvas pixel of the cursor's voxel.
  pin(cursor) {
    const { x, y, dx, dy } = this.place();
    const row = this.up ? this.volume.shape[this.row] - 1 - cursor[this.row] : cursor[this.row];
    return [x + dx * (cursor[this.column] + 0.5), y + dy * (row + 0.5)];
  }

  // Brings the cursor to the middle when magnification has put it out of sight.
  reveal(cursor) {
    const [x, y] = this.pin(cursor), { width, height } = this.canvas;
    if (x < 0 || y < 0 || x > width || y > height) this.shift([x, y], [width / 2, height / 2]);
  }

  // Voxel under a pointer event, kept inside the volume, on the slice that is shown.
  voxel(event, cursor) {
    const [px, py] = this.pixel(event), { x, y, dx, dy } = this.place();
    const clamp = (value, axis) => Math.max(0, Math.min(this.volume.shape[axis] - 1, Math.floor(value)));
    const index = [...cursor];
    const row = clamp((py - y) / dy, this.row);
    index[this.column] = clamp((px - x) / dx, this.column);
    index[this.row] = this.up ? this.volume.shape[this.row] - 1 - row : row;
    return index;
  }

  // The exact place under a pointer event on the slice that is shown, as a fractional voxel index inside the volume.
  pointed(event, cursor) {
    const [px, py] = this.pixel(event), { x, y, dx, dy } = this.place(), index = [...cursor];
    const clamp = (value, axis) => Math.max(-0.5, Math.min(this.volume.shape[axis] - 0.5, value - 0.5));
    const row = clamp((py - y) / dy, this.row);
    index[this.column] = clamp((px - x) / dx, this.column);
    index[this.row] = this.up ? this.volume.shape[this.row] - 1 - row : row;
    return index;
  }

  // First and last slice that the plane shows.
  span(cursor, slab) {
    const { shape, spacing } = this.volume;
    return span(cursor[this.normal], shape[this.normal], spacing[this.normal], SLABS[slab].mm);
  }

  // view: cursor, greys, overlay (or null), heats, slab, crossed, lines.
  draw(view) {
    this.fit();
    const { cursor, overlay, lines } = view, context = this.canvas.getContext("2d"), { x, y, dx, dy } = this.place();
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.#paint(view);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.slice, x, y, dx * this.slice.width, dy * this.slice.height);
    if (overlay?.values) {
      this.#paintHeat(cursor[this.normal], overlay, view.heats);
      context.drawImage(this.heat, x, y, dx * this.heat.width, dy * this.heat.height);
    }
    if (view.crossed) this.#cross(context, ...this.pin(cursor));
    lines.draw(context, this, cursor);
  }

  // Cuts anew only what is new: scrolling one plane leaves the two others as they are.
  #paint({ cursor, slab, greys }) {
    const { width, height } = this.slice, range = this.span(cursor, slab), wanted = [...range, slab, this.volume.received].join();
    const stale = this.held !== wanted;
    if (stale) cut(this.volume, this, range, SLABS[slab].mode, this.values);
    if (!stale && this.shown === greys) return;
    this.held = wanted;
    this.shown = greys;
    for (let i = 0, n = width * height; i < n; i++) this.pixels[i] = greys[this.values[i] + 32768];
    this.slice.getContext("2d").putImageData(this.image, 0, 0);
  }

  #paintHeat(at, overlay, heats) {
    if (this.heldHeat?.overlay === overlay && this.heldHeat.at === at && this.heldHeat.heats === heats) return;
    this.heldHeat = { overlay, at, heats };
    const { width, height } = this.heat, context = this.heat.getContext("2d");
    const image = context.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
    const m = overlay.fromVolume, [n, row, column] = [this.normal, this.row, this.column];
    for (let r = 0, out = 0; r < height; r++) {
      const line = this.up ? height - 1 - r : r;
      let d = m[n] * at + m[row] * line + m[3], h = m[4 + n] * at + m[4 + row] * line + m[7], w = m[8 + n] * at + m[8 + row] * line + m[11];
      for (let c = 0; c < width; c++, d += m[column], h += m[4 + column], w += m[8 + column]) pixels[out++] = heats[overlay.sample(d, h, w) | 0];
    }
    context.putImageData(image, 0, 0);
  }

  // Lines that leave the middle free, so that they do not hide what they point at.
  #cross(context, x, y) {
    const gap = 9 * (window.devicePixelRatio || 1), { width, height } = this.canvas;
    context.strokeStyle = "rgba(79, 179, 217, 0.75)";
    context.lineWidth = Math.max(1, window.devicePixelRatio || 1);
    context.beginPath();
    for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, width, y], [x, 0, x, y - gap], [x, y + gap, x, height]]) {
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
    }
    context.stroke();
  }
}
