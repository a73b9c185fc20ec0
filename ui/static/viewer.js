// The reading pane: three linked planes, window, slab, overlay, distances and cursor. All texts are set as textContent.
import { Lines } from "./lines.js";
import { counterpart, join, leave, partners } from "./links.js";
import { Oblique } from "./oblique.js";
import { greys, heats } from "./palette.js";
import { PLANES, Plane } from "./planes.js";
import { listen } from "./pointer.js";
import { SLABS } from "./slab.js";
import { Tools, make } from "./tools.js";
import { Overlay, Volume, apply } from "./volume.js";

const viewers = new WeakMap();
export const millimetres = (value, positive, negative) => `${value < 0 ? negative : positive} ${Math.abs(value).toFixed(1)}`;
const SIGNS = [["L", "R"], ["P", "A"], ["S", "I"]]; // patient x, y, z of LPS
const START = { slab: 0, inverted: false, crossed: true };

class Viewer {
  constructor(root, ask) {
    Object.assign(this, { ask, volume: null, overlay: null, cursor: [0, 0, 0], opacity: 0.6, showHeat: true, jumped: null, renewed: null });
    Object.assign(this, START, { oblique: null, quick: false }); // quick: a drag is on, nearest voxels will do
    Object.assign(this, { measuring: false, linked: true, anchor: null, opened: 0, lines: new Lines(), heats: heats(0.6) });
    this.pane = make("div", "pane", root);
    this.heading = make("div", "heading", this.pane);
    this.bar = make("div", "bar", this.pane);
    this.grid = make("div", "grid", this.pane);
    this.status = make("div", "status", this.pane);
    this.planes = PLANES.map((kind) => new Plane(kind, this.grid));
    this.planes.forEach((plane) => listen(this, plane));
    this.active = this.planes[0];
    this.pane.addEventListener("keydown", (event) => this.#key(event));
    this.resize = new ResizeObserver(() => this.redraw());
    this.planes.forEach((plane) => this.resize.observe(plane.box));
  }

  dispose() {
    leave(this);
    this.resize.disconnect();
    this.loading?.abort();
    this.loadingHeat?.abort();
  }

  // Called at every change of the page's data: load what is new, keep what is already here.
  show(data) {
    this.data = data;
    if (!this.tools) this.#begin(data);
    this.heading.textContent = data.title ?? "";
    if (this.volume?.id !== data.volume.id || this.failed === "for now") this.#open(data);
    if (this.overlay?.id !== data.overlay?.id) this.#openHeat(data.overlay);
    if (data.cursor && this.jumped !== data.cursor.id) {
      this.jumped = data.cursor.id;
      this.moveTo(data.cursor.index);
      this.planes.forEach((plane) => plane.reveal(this.cursor));
    }
    this.redraw();
  }

  #begin(data) {
    this.tools = new Tools(this, data);
    this.window = this.#firstWindow();
    this.pane.classList.toggle("compact", Boolean(data.link));
    if (!data.link) return;
    join(this, data.link.group);
    this.grid.dataset.only = "Axial"; // two studies share the width of one
  }

  #firstWindow() {
    return this.data.presets.find((preset) => preset.id === this.data.preset).window;
  }

  #open(data) {
    this.loading?.abort();
    this.loading = new AbortController();
    this.failed = "";
    this.jumped = null;
    const volume = new Volume(data.volume);
    this.volume = volume;
    this.anchor = data.link?.anchor ?? null;
    this.pane.dataset.opened = ++this.opened;
    this.pane.dataset.shown = this.pane.dataset.ready = this.pane.dataset.failed = "false";
    const [beside] = this.group ? partners(this) : [];
    const start = data.cursor?.index ?? (beside ? counterpart(beside, this) : volume.shape.map((n) => n / 2));
    this.cursor = start.map((n, axis) => this.#inside(n, axis));
    this.lines.open(volume);
    this.oblique = null;
    this.planes.forEach((plane) => plane.attach(volume));
    this.#setGreys();
    const fresh = (held) => { if (held === this.volume) this.redraw(); };
    volume.load(data.volume.url, this.cursor[0], fresh, this.loading.signal).catch((error) => this.#failed(error));
  }

  #openHeat(description) {
    this.loadingHeat?.abort();
    this.overlay = null;
    this.tools.heat.hidden = !description;
    if (!description) return;
    const overlay = new Overlay(description);
    this.overlay = overlay;
    this.loadingHeat = new AbortController();
    const shown = () => { if (overlay === this.overlay) this.redraw(); };
    overlay.load(description.url, this.loadingHeat.signal).then(shown, (error) => {
      overlay.failure = error.message;
      if (!this.#recovers(error)) shown();
    });
  }

  // Without the image there is nothing to draw: the page shows plain images instead, or says why it has none.
  #failed(error) {
    if (error.name === "AbortError") return;
    this.status.textContent = error.message;
    this.failed = this.#recovers(error) ? "for now" : "for good";
    if (this.failed === "for now") return;
    this.pane.dataset.failed = "true"; // one slice may have come before the others failed
    this.ask.fail(this.volume.id);
  }

  // True for a dropped request, and for an expired link, which is asked for anew once per study.
  #recovers(error) {
    if (error.name === "AbortError") return true;
    if (!error.expired || this.renewed === this.volume.id) return false;
    this.renewed = this.volume.id;
    this.overlay = null;
    this.ask.renew();
    return true;
  }

  #key(event) {
    const focused = this.planes.find((plane) => plane.canvas === event.target);
    if (!this.volume || !this.tools.key(event, focused ?? this.active)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  #inside(n, axis) {
    return Math.max(0, Math.min(this.volume.shape[axis] - 1, Math.round(n)));
  }

  // Flips one of showHeat, inverted, crossed.
  toggle(what) {
    this[what] = !this[what];
    if (what === "inverted") this.#setGreys();
    this.redraw();
  }

  toggleMeasure(on = !this.measuring) {
    this.measuring = on;
    this.grid.classList.toggle("measuring", on);
    this.redraw();
  }

  removeLine() {
    if (this.lines.chosen ?? this.lines.list.at(-1)) this.lines.remove(this.lines.chosen ?? this.lines.list.at(-1));
    this.redraw();
  }

  setSlab(slab, tell = true) {
    this.slab = slab;
    if (tell) this.#tell((other) => other.setSlab(slab, false));
    this.redraw();
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    this.heats = heats(opacity);
    this.redraw();
  }

  setOnly(name, tell = true) {
    this.grid.dataset.only = name;
    if (tell) this.#tell((other) => other.setOnly(name, false));
    this.redraw();
  }

  fit() {
    this.planes.forEach((plane) => plane.reset());
    this.redraw();
  }

  // Lets the reader turn the plane of that name about the cursor; all planes are straight when there is none.
  setOblique(name) {
    const plane = this.planes.find((one) => one.name === name);
    if (this.oblique?.plane === plane) return;
    this.#straight();
    this.oblique = plane ? new Oblique(this.volume, plane, this.cursor) : null;
    if (plane) plane.oblique = this.oblique;
    this.redraw();
  }

  #straight() {
    const plane = this.oblique?.plane;
    this.oblique = null;
    if (!plane) return;
    plane.oblique = null;
    if (plane.zoom < 1) plane.reset();
  }

  // Gives the oblique plane its two angles in degrees.
  turn(angles) {
    const { oblique } = this;
    if (!oblique) return;
    oblique.turn(angles);
    if (!oblique.turned) {
      oblique.follow(apply(this.volume.toPatient, this.cursor)); // the straight slice of the cursor's voxel
      if (oblique.plane.zoom < 1) oblique.plane.reset();
    }
    this.redraw();
  }

  // Turns it so that its line on `plane` runs through a voxel index there.
  turnThrough(plane, index) {
    this.turn(this.oblique.through(this.oblique.seen(plane), apply(this.volume.toPatient, index)));
  }

  turnBy(steps) {
    this.turn(this.oblique.angles.map((angle, k) => angle + steps[k]));
  }

  // As the study was opened, but where the reader is; lines stay.
  reset() {
    Object.assign(this, START);
    this.setOblique("");
    this.setSlab(START.slab);
    this.setWindow(...this.#firstWindow());
    this.fit();
  }

  // Off: each study scrolls alone. On again: what both show now belongs together.
  toggleLink() {
    if (!this.group) return;
    const linked = !this.linked, all = [this, ...partners(this)];
    for (const viewer of all) {
      viewer.linked = linked;
      if (linked) viewer.anchor = apply(viewer.volume.toPatient, viewer.cursor);
      viewer.redraw();
    }
  }

  #tell(act) {
    if (this.group && this.linked) partners(this).filter((other) => other.linked).forEach(act);
  }

  scroll(plane, notches) {
    if (!this.volume) return;
    const cursor = [...this.cursor], further = plane.turned?.further(notches * plane.wheel);
    if (further) this.moveTo(further, { exact: true });
    if (plane.turned) return;
    cursor[plane.normal] += notches * plane.wheel;
    this.moveTo(cursor);
  }

  // To the nearest voxel; the oblique plane to its middle, or to the `exact` place.
  moveTo(index, { tell = true, exact = false } = {}) {
    this.cursor = index.map((n, axis) => this.#inside(n, axis));
    this.oblique?.follow(apply(this.volume.toPatient, exact ? index : this.cursor));
    if (tell) this.#tell((other) => other.moveTo(counterpart(this, other), { tell: false }));
    this.redraw();
  }

  setWindow(width, level, tell = true) {
    this.window = [Math.max(1, Math.min(8000, Math.round(width))), Math.max(-2000, Math.min(4000, Math.round(level)))];
    this.#setGreys();
    if (tell) this.#tell((other) => other.setWindow(...this.window, false));
    this.redraw();
  }

  #setGreys() {
    this.greys = greys(...this.window, this.inverted);
  }

  // At most once per screen refresh, however many events ask.
  redraw() {
    if (!this.volume || !this.greys || this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.#draw(); });
  }

  #draw() {
    const told = (patient) => patient.map((value, axis) => millimetres(value, ...SIGNS[axis]));
    const texts = told(apply(this.volume.toPatient, this.cursor)), exact = this.oblique ? told(this.oblique.point) : texts;
    const { cursor, greys, heats, slab, crossed, lines, oblique, quick } = this, overlay = this.showHeat ? this.overlay : null;
    const view = { cursor, greys, overlay, heats, slab, crossed, lines, oblique, quick };
    for (const plane of this.planes) {
      if (!plane.box.clientWidth) continue;
      plane.draw(view);
      const axis = { A: 1, P: 1, S: 2, I: 2, L: 0, R: 0 }[this.volume.axes[plane.normal]];
      plane.position.textContent = plane.turned ? `cursor ${exact[axis]} mm` : `${texts[axis]} mm`;
      plane.title.textContent = plane.turned ? this.#turnedText(plane.turned) : this.#straightText(plane);
      plane.canvas.setAttribute("aria-label", `${plane.title.textContent}, ${plane.position.textContent}`);
    }
    this.tools.update();
    if (!this.failed) this.#tellStatus(exact);
  }

  #straightText(plane) {
    const ask = plane.oblique ? "\nto turn: drag a handle,\nor Shift and an arrow" : "";
    return `${plane.name} ${this.cursor[plane.normal] + 1} / ${this.volume.shape[plane.normal]}${this.#slabText(plane)}${ask}`;
  }

  #turnedText({ text }) {
    return this.slab ? `${text}\nno slab while turned` : text;
  }

  // The thickness that is really joined: whole slices, fewer at the border.
  #slabText(plane) {
    if (!this.slab) return "";
    const [first, last] = plane.span(this.cursor, this.slab), mm = (last - first + 1) * this.volume.spacing[plane.normal];
    return `\n${SLABS[this.slab].label.split(" ")[0]} ${mm.toFixed(1)} mm`;
  }

  #tellStatus(texts) {
    const { volume } = this, here = volume.complete || volume.has(this.cursor[0]);
    const value = here ? `${volume.at(this.cursor)} HU` : "", done = Math.round((100 * volume.loadedSlices) / volume.shape[0]);
    const lines = this.planes.flatMap((plane) => this.lines.on(plane, this.cursor)).map((line) => `${this.lines.length(line).toFixed(1)} mm`);
    const measured = lines.length ? `measured here ${lines.join(", ")}` : "";
    this.status.textContent = [texts.join("   ") + " mm", value, measured, this.overlay?.failure, volume.complete ? "" : `loading ${done} %`].filter(Boolean).join("   ·   ");
    this.pane.dataset.shown = String(here);
    this.pane.dataset.ready = String(volume.complete && (!this.overlay || this.overlay.values !== null || this.overlay.failure !== undefined));
  }
}

export default function mount({ data, parentElement, setStateValue, setTriggerValue }) {
  let viewer = viewers.get(parentElement);
  if (!viewer) {
    viewer = new Viewer(parentElement, {
      fail: (id) => setStateValue("failed", id),
      renew: () => setTriggerValue("renew", true),
    });
    viewers.set(parentElement, viewer);
  }
  viewer.show(data);
  return () => {
    if ((parentElement.host ?? parentElement).isConnected) return; // a newer call took over
    viewer.dispose();
    viewers.delete(parentElement);
  };
}
