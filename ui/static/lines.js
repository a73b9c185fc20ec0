// Distances: lines drawn on a slice, kept where they lie in the volume, with their length in the patient's millimetres.
import { apply } from "./volume.js";

const REACH = 9, RADIUS = 4, COLOUR = "#ffd24a"; // pixels of the page
const TURNED = -1; // no axis of the volume is the normal of a turned plane
const kept = new Map(); // by volume, for the whole page: a study keeps its lines while another is open
const ratio = () => window.devicePixelRatio || 1;

export class Lines {
  constructor() {
    this.list = [];
    this.chosen = null;
  }

  open(volume) {
    if (!kept.has(volume.id)) kept.set(volume.id, []);
    this.volume = volume;
    this.list = kept.get(volume.id);
    this.chosen = null;
  }

  // Those of the slice that the plane shows; of a turned plane, as long as it lies where they were drawn.
  on(plane, cursor) {
    const { turned } = plane;
    if (turned) return this.list.filter(({ normal, ends }) => normal === TURNED && ends.every((end) => turned.holds(end)));
    return this.list.filter((line) => line.normal === plane.normal && line.ends[0][plane.normal] === cursor[plane.normal]);
  }

  begin(plane, index) {
    this.chosen = { normal: plane.turned ? TURNED : plane.normal, ends: [index, index] };
    this.list.push(this.chosen);
    return { line: this.chosen, end: 1 };
  }

  // The line end within reach of a canvas pixel.
  grab(plane, cursor, [px, py]) {
    let best = null, least = REACH * ratio();
    for (const line of this.on(plane, cursor)) {
      for (const end of [0, 1]) {
        const [x, y] = plane.pin(line.ends[end]), distance = Math.hypot(x - px, y - py);
        if (distance <= least) [best, least] = [{ line, end }, distance];
      }
    }
    if (best) this.chosen = best.line;
    return best;
  }

  // A click without a drag leaves no line behind.
  end(plane, { line }) {
    const [[x0, y0], [x1, y1]] = line.ends.map((end) => plane.pin(end));
    if (Math.hypot(x1 - x0, y1 - y0) < 3 * ratio()) this.remove(line);
  }

  remove(line) {
    const at = this.list.indexOf(line);
    if (at >= 0) this.list.splice(at, 1);
    this.chosen = this.list.at(-1) ?? null;
  }

  // In mm, from the geometry: right for oblique and sheared grids too.
  length({ ends }) {
    const [a, b] = ends.map((end) => apply(this.volume.toPatient, end));
    return Math.hypot(...a.map((value, axis) => value - b[axis]));
  }

  draw(context, plane, cursor) {
    const scale = ratio();
    context.font = `600 ${13 * scale}px system-ui, "DejaVu Sans", sans-serif`;
    for (const line of this.on(plane, cursor)) {
      const [[x0, y0], [x1, y1]] = line.ends.map((end) => plane.pin(end));
      context.lineWidth = (line === this.chosen ? 2 : 1.25) * scale;
      context.strokeStyle = COLOUR;
      context.beginPath();
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
      for (const [x, y] of [[x0, y0], [x1, y1]]) {
        context.moveTo(x + RADIUS * scale, y);
        context.arc(x, y, RADIUS * scale, 0, 2 * Math.PI);
      }
      context.stroke();
      this.#label(context, `${this.length(line).toFixed(1)} mm`, x0 > x1 ? [x0, y0] : [x1, y1], scale);
    }
  }

  // Beside the right end, kept on the canvas.
  #label(context, text, [x, y], scale) {
    const wide = context.measureText(text).width + 8 * scale, high = 18 * scale, { width, height } = context.canvas;
    const left = Math.max(0, Math.min(width - wide, x + 9 * scale)), top = Math.max(0, Math.min(height - high, y - high / 2));
    context.fillStyle = "rgba(0, 0, 0, 0.65)";
    context.fillRect(left, top, wide, high);
    context.fillStyle = COLOUR;
    context.textBaseline = "middle";
    context.fillText(text, left + 4 * scale, top + high / 2);
  }
}
