// One plane of the three: draws its slice with the right aspect, and turns the pointer into voxels. A turned plane (`turned`, an
// Oblique) lies on the same millimetres of the screen as the straight one did.
import { SLABS, cut, span } from "./slab.js";
import { apply } from "./volume.js";

const OPPOSITE = { R: "L", L: "R", A: "P", P: "A", I: "S", S: "I" };
// normal: the axis scrolled through; column, row: axes across and down the screen; up: rows run against their axis;
// wheel: index change of one notch towards the reader (feet, back, left).
export const PLANES = [
  { name: "Axial", normal: 0, column: 2, row: 1, up: false, wheel: -1 },
  { name: "Coronal", normal: 1, column: 2, row: 0, up: true, wheel: 1 },
  { name: "Sagittal", normal: 2, column: 1, row: 0, up: true, wheel: 1 },
];

const CURSOR = "rgba(79, 179, 217, 0.75)", TURNED = "#e39ac6", HANDLE = 6;
const ratio = () => window.devicePixelRatio || 1;

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
    this.oblique = null;
    this.reset();
    for (const canvas of [this.slice, this.heat]) {
      canvas.width = volume.shape[this.column];
      canvas.height = volume.shape[this.row];
    }
    this.values = new Int16Array(this.slice.width * this.slice.height);
    this.image = new ImageData(this.slice.width, this.slice.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.held = this.heldHeat = null;
  }

  // The Oblique that is drawn in place of the straight slice.
  get turned() {
    return this.oblique?.turned ? this.oblique : null;
  }

  #name() {
    const { axes } = this.volume, across = axes[this.column], down = this.up ? OPPOSITE[axes[this.row]] : axes[this.row];
    const borders = this.turned?.borders ?? [OPPOSITE[across], across, OPPOSITE[down], down];
    borders.forEach((letter, k) => { this.letters[k].textContent = letter; });
    this.box.classList.toggle("oblique", Boolean(this.oblique));
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
    if (this.turned) this.#fitTurned(this.turned);
  }

  // A turned plane can be larger than the slice was.
  #fitTurned({ anchor, extent: [left, top, right, bottom] }) {
    const { width, height } = this.canvas, full = this.place().scale;
    this.zoom = Math.min(1, width / (right - left) / full, height / (bottom - top) / full);
    const { x, y, scale } = this.place();
    const middle = [anchor[0] + (left + right) / 2, anchor[1] + (top + bottom) / 2];
    this.pan = [width / 2 - x - scale * middle[0], height / 2 - y - scale * middle[1]];
  }

  get zoomed() {
    return Boolean(this.turned) || this.zoom !== 1 || this.pan[0] !== 0 || this.pan[1] !== 0;
  }

  // Where the slice lies on the canvas: its left and top edge, the pixels of one voxel across and down, and of a millimetre.
  place() {
    const { shape, spacing } = this.volume;
    const across = shape[this.column] * spacing[this.column], down = shape[this.row] * spacing[this.row];
    const scale = this.zoom * Math.min(this.canvas.width / across, this.canvas.height / down);
    return {
      x: (this.canvas.width - across * scale) / 2 + this.pan[0],
      y: (this.canvas.height - down * scale) / 2 + this.pan[1],
      dx: spacing[this.column] * scale,
      dy: spacing[this.row] * scale,
      scale,
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
    this.zoom = Math.max(this.turned ? Math.min(this.zoom, 0.5) : 1, Math.min(16, this.zoom * factor));
    const after = this.place();
    this.pan[0] += px - (after.x + ((px - before.x) / before.dx) * after.dx);
    this.pan[1] += py - (after.y + ((py - before.y) / before.dy) * after.dy);
    if (this.zoom === 1 && !this.turned) this.reset();
  }

  shift([x0, y0], [x1, y1]) {
    this.pan = [this.pan[0] + x1 - x0, this.pan[1] + y1 - y0];
  }

  // Canvas pixel of a voxel's middle.
  pin(index) {
    const { x, y, dx, dy, scale } = this.place();
    if (this.turned) {
      const [across, down] = this.turned.spot(apply(this.volume.toPatient, index));
      return [x + scale * across, y + scale * down];
    }
    const row = this.up ? this.volume.shape[this.row] - 1 - index[this.row] : index[this.row];
    return [x + dx * (index[this.column] + 0.5), y + dy * (row + 0.5)];
  }

  // The fractional voxel index under a canvas pixel of the slice that is shown, also outside the volume.
  unpin([px, py], cursor) {
    const { x, y, dx, dy, scale } = this.place(), index = [...cursor], row = (py - y) / dy - 0.5;
    if (this.turned) return this.turned.index([(px - x) / scale, (py - y) / scale]);
    index[this.column] = (px - x) / dx - 0.5;
    index[this.row] = this.up ? this.volume.shape[this.row] - 1 - row : row;
    return index;
  }

  // Brings the cursor to the middle when magnification has put it out of sight.
  reveal(cursor) {
    const [x, y] = this.pin(cursor), { width, height } = this.canvas;
    if (x < 0 || y < 0 || x > width || y > height) this.shift([x, y], [width / 2, height / 2]);
  }

  // Where a pointer event leads the cursor: a voxel of the slice that is shown, or the exact place in a turned plane.
  voxel(event, cursor) {
    if (this.turned) return this.turned.kept(this.unpin(this.pixel(event), cursor));
    const inside = (value, axis) => Math.max(0, Math.min(this.volume.shape[axis] - 1, Math.round(value)));
    return this.pointed(event, cursor).map(inside);
  }

  // The exact place under a pointer event on the slice that is shown, as a fractional voxel index inside the volume.
  pointed(event, cursor) {
    const index = this.unpin(this.pixel(event), cursor);
    if (this.turned) return index;
    return index.map((value, axis) => Math.max(-0.5, Math.min(this.volume.shape[axis] - 0.5, value)));
  }

  // First and last slice that the plane shows.
  span(cursor, slab) {
    const { shape, spacing } = this.volume;
    return span(cursor[this.normal], shape[this.normal], spacing[this.normal], SLABS[slab].mm);
  }

  // view: cursor, greys, overlay (or null), heats, slab, crossed, lines, oblique (or null), quick.
  draw(view) {
    this.fit();
    this.#name();
    const { cursor, overlay, lines } = view, context = this.canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    if (this.turned) this.#sheets(context, view);
    else this.#slices(context, view, overlay?.values ? overlay : null);
    this.#lines(context, view);
    lines.draw(context, this, cursor);
  }

  #slices(context, view, overlay) {
    const { x, y, dx, dy } = this.place();
    this.#paint(view);
    context.drawImage(this.slice, x, y, dx * this.slice.width, dy * this.slice.height);
    if (!overlay) return;
    this.#paintHeat(view.cursor[this.normal], overlay, view.heats);
    context.drawImage(this.heat, x, y, dx * this.heat.width, dy * this.heat.height);
  }

  #sheets(context, { greys, overlay, heats, quick }) {
    const { x, y, scale } = this.place(), { sheet, heat, anchor } = this.turned;
    const lay = (canvas, { left, top, pitch, width, height }) => {
      const [from, down] = [x + scale * (anchor[0] + left), y + scale * (anchor[1] + top)];
      context.drawImage(canvas, from, down, scale * pitch * width, scale * pitch * height);
    };
    lay(sheet, this.turned.paint(greys, quick));
    if (overlay?.values) lay(heat, this.turned.paintHeat(overlay, heats));
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

  // The cursor's lines, and the turned plane's with its two handles.
  #lines(context, { cursor, crossed, oblique }) {
    const wide = this.canvas.width, high = this.canvas.height, { turned } = this;
    const at = this.pin(turned ? apply(this.volume.fromPatient, turned.point) : cursor);
    const handled = oblique && oblique.plane !== this, seen = handled ? oblique.seen(this) : -1;
    const others = [this.row, this.column]; // normals of the other planes: across, then down the screen
    others.forEach((normal, k) => {
      if (!crossed || (handled && oblique.plane.normal === normal)) return;
      stroke(context, at, turned ? turned.crossing({ normal }) : [1 - k, k], wide + high, CURSOR);
    });
    if (!handled) return;
    const { middle, along } = this.trace(oblique, cursor);
    stroke(context, middle, along, wide + high, TURNED);
    for (const [x, y] of this.handles(oblique, cursor)) {
      context.beginPath();
      context.arc(x, y, HANDLE * ratio(), 0, 2 * Math.PI);
      context.fillStyle = oblique.angles[seen] ? TURNED : "rgba(0, 0, 0, 0.6)";
      context.fill();
      context.stroke();
    }
  }

  // The line of the oblique plane on this one: its middle on the canvas and its direction.
  trace(oblique, cursor) {
    const { index, direction } = oblique.trace(this, cursor), { dx, dy } = this.place();
    return { middle: this.pin(index), along: [direction[this.column] * dx, direction[this.row] * (this.up ? -dy : dy)] };
  }

  // Canvas pixels of the two handles of the oblique plane's line.
  handles(oblique, cursor) {
    const { middle: [x, y], along: [a, b] } = this.trace(oblique, cursor), { width, height } = this.canvas;
    const reach = (0.3 * Math.min(width, height)) / Math.hypot(a, b);
    return [-1, 1].map((sign) => [x + sign * reach * a, y + sign * reach * b]);
  }

  // Whether a canvas pixel is within reach of a handle.
  handled(oblique, cursor, [px, py]) {
    if (!oblique || oblique.plane === this) return false;
    return this.handles(oblique, cursor).some(([x, y]) => Math.hypot(x - px, y - py) <= 2 * HANDLE * ratio());
  }
}

// A line through a canvas pixel, which leaves its middle free, so that it does not hide what it points at.
function stroke(context, [x, y], [a, b], reach, colour) {
  const gap = 9 * ratio(), size = Math.hypot(a, b);
  context.strokeStyle = colour;
  context.lineWidth = Math.max(1, ratio());
  context.beginPath();
  for (const sign of [-1, 1]) {
    context.moveTo(x + (sign * gap * a) / size, y + (sign * gap * b) / size);
    context.lineTo(x + (sign * reach * a) / size, y + (sign * reach * b) / size);
  }
  context.stroke();
}
