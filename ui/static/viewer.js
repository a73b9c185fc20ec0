// The reading pane: three linked planes, window, overlay and cursor. All texts are set as textContent.
import { greys, heatColour, heats } from "./palette.js";
import { PLANES, Plane } from "./planes.js";
import { Overlay, Volume, apply } from "./volume.js";

const viewers = new WeakMap();
const NOTCH = 50; // wheel delta of one slice
const HINT = "wheel: slices   drag: cursor   right drag: window   Ctrl wheel: zoom   middle drag: pan   double click: one plane";
const make = (tag, className, parent, text) => {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
};

export const millimetres = (value, positive, negative) => `${value < 0 ? negative : positive} ${Math.abs(value).toFixed(1)}`;
const SIGNS = [["L", "R"], ["P", "A"], ["S", "I"]]; // patient x, y, z of LPS

class Viewer {
  constructor(root, ask) {
    Object.assign(this, { ask, volume: null, overlay: null, cursor: [0, 0, 0], opacity: 0.6, showHeat: true, jumped: null, renewed: null });
    this.pane = make("div", "pane", root);
    this.bar = make("div", "bar", this.pane);
    this.grid = make("div", "grid", this.pane);
    this.status = make("div", "status", this.pane);
    make("div", "hint", this.pane, HINT);
    this.planes = PLANES.map((kind) => new Plane(kind, this.grid));
    this.planes.forEach((plane) => this.#listen(plane));
    this.resize = new ResizeObserver(() => this.redraw());
    this.planes.forEach((plane) => this.resize.observe(plane.box));
  }

  dispose() {
    this.resize.disconnect();
    this.loading?.abort();
    this.loadingHeat?.abort();
  }

  // Called at every change of the page's data: load what is new, keep what is already here.
  show(data) {
    if (!this.presets) this.#tools(data);
    if (this.volume?.id !== data.volume.id || this.failed) this.#open(data);
    if (this.overlay?.id !== data.overlay?.id) this.#openHeat(data.overlay);
    if (data.cursor && this.jumped !== data.cursor.id) {
      this.jumped = data.cursor.id;
      this.moveTo(data.cursor.index);
      this.planes.forEach((plane) => plane.reveal(this.cursor));
    }
    this.redraw();
  }

  #open(data) {
    this.loading?.abort();
    this.loading = new AbortController();
    this.failed = false;
    this.jumped = null;
    const volume = new Volume(data.volume);
    this.volume = volume;
    this.cursor = (data.cursor?.index ?? volume.shape.map((n) => n / 2)).map((n, axis) => this.#inside(n, axis));
    this.planes.forEach((plane) => plane.attach(volume));
    this.setWindow(...(this.window ?? this.presets.find((preset) => preset.id === data.preset).window));
    const fresh = (held) => { if (held === this.volume) this.redraw(); };
    volume.load(data.volume.url, this.cursor[0], fresh, this.loading.signal).catch((error) => this.#failed(error));
  }

  #openHeat(description) {
    this.loadingHeat?.abort();
    this.overlay = null;
    this.heatTools.hidden = !description;
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

  // Without the image there is nothing to draw: the page shows plain images instead.
  #failed(error) {
    if (error.name === "AbortError") return;
    this.failed = true;
    this.status.textContent = error.message;
    if (!this.#recovers(error)) this.ask.fail(error.message);
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

  #tools(data) {
    this.presets = data.presets;
    const group = make("div", "group", this.bar);
    this.presetButtons = this.presets.map((preset, k) => {
      const button = make("button", "", group, preset.label);
      button.title = `Width ${preset.window[0]}, level ${preset.window[1]} (key ${k + 1})`;
      button.addEventListener("click", () => this.setWindow(...preset.window));
      return button;
    });
    this.windowText = make("span", "window", this.bar);
    this.fitButton = make("button", "", this.bar, "Fit");
    this.fitButton.title = "Whole slices again (key F)";
    this.fitButton.addEventListener("click", () => this.fit());
    this.heatTools = make("div", "group heat", this.bar);
    this.heatTools.hidden = true; // until a finding brings a map
    const label = make("label", "group", this.heatTools);
    this.heatBox = make("input", "", label);
    Object.assign(this.heatBox, { type: "checkbox", checked: true });
    this.heatBox.addEventListener("change", () => this.toggleHeat());
    make("span", "", label, "Evidence");
    this.heatTools.title = "Key E";
    const slider = Object.assign(make("input", "", this.heatTools), { type: "range", min: 0, max: 100, value: 100 * this.opacity });
    slider.setAttribute("aria-label", "Opacity of the evidence map");
    slider.addEventListener("input", () => { this.opacity = slider.value / 100; this.redraw(); });
    make("span", "small", this.heatTools, "weak");
    const scale = make("span", "scale", this.heatTools);
    scale.style.background = `linear-gradient(90deg, ${[0.2, 0.4, 0.6, 0.8, 1].map((x) => `rgb(${heatColour(x)})`).join()})`;
    make("span", "small", this.heatTools, "strong");
  }

  #listen(plane) {
    const { canvas } = plane;
    let wheel = 0, drag = null;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (!this.volume) return;
      if (event.ctrlKey) {
        plane.magnify(Math.exp(-event.deltaY / 400), plane.pixel(event));
        this.redraw();
        return;
      }
      wheel += event.deltaMode === 1 ? event.deltaY * NOTCH : event.deltaY;
      const notches = Math.trunc(wheel / NOTCH);
      wheel -= notches * NOTCH;
      if (notches) this.scroll(plane, Math.sign(notches) * (event.shiftKey ? 5 : 1));
    }, { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.volume) return;
      canvas.setPointerCapture(event.pointerId);
      const act = event.button === 1 ? "pan" : event.button === 2 || event.shiftKey ? "window" : "cursor";
      drag = { act, x: event.clientX, y: event.clientY, from: this.window, at: plane.pixel(event) };
      if (event.button === 1) event.preventDefault();
      if (act === "cursor") this.moveTo(plane.voxel(event, this.cursor));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drag?.act === "cursor") this.moveTo(plane.voxel(event, this.cursor));
      if (drag?.act === "window") this.setWindow(drag.from[0] + 2 * (event.clientX - drag.x), drag.from[1] + 2 * (event.clientY - drag.y));
      if (drag?.act !== "pan") return;
      plane.shift(drag.at, plane.pixel(event));
      drag.at = plane.pixel(event);
      this.redraw();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { drag = null; });
    canvas.addEventListener("dblclick", () => {
      this.grid.dataset.only = this.grid.dataset.only === plane.name ? "" : plane.name;
      this.redraw();
    });
    canvas.addEventListener("keydown", (event) => this.#key(event, plane));
  }

  #key(event, plane) {
    const slices = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
    const preset = this.presets?.[Number(event.key) - 1];
    if (slices) this.scroll(plane, slices);
    else if (preset) this.setWindow(...preset.window);
    else if (event.key.toLowerCase() === "e") this.toggleHeat();
    else if (event.key.toLowerCase() === "f") this.fit();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #inside(n, axis) {
    return Math.max(0, Math.min(this.volume.shape[axis] - 1, Math.round(n)));
  }

  toggleHeat() {
    this.showHeat = !this.showHeat;
    this.heatBox.checked = this.showHeat;
    this.redraw();
  }

  fit() {
    this.planes.forEach((plane) => plane.reset());
    this.redraw();
  }

  scroll(plane, notches) {
    if (!this.volume) return;
    const cursor = [...this.cursor];
    cursor[plane.normal] += notches * plane.wheel;
    this.moveTo(cursor);
  }

  moveTo(index) {
    this.cursor = index.map((n, axis) => this.#inside(n, axis));
    this.redraw();
  }

  setWindow(width, level) {
    this.window = [Math.max(1, Math.min(8000, Math.round(width))), Math.max(-2000, Math.min(4000, Math.round(level)))];
    this.greys = greys(...this.window);
    this.windowText.textContent = `W ${this.window[0]}  L ${this.window[1]}`;
    this.presetButtons.forEach((button, k) => {
      button.setAttribute("aria-pressed", String(this.presets[k].window.join() === this.window.join()));
    });
    this.redraw();
  }

  // At most once per screen refresh, however many events ask.
  redraw() {
    if (!this.volume || !this.greys || this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.#draw(); });
  }

  #draw() {
    const heat = this.showHeat ? this.overlay : null, table = heats(this.opacity);
    const patient = apply(this.volume.toPatient, this.cursor);
    const texts = patient.map((value, axis) => millimetres(value, ...SIGNS[axis]));
    for (const plane of this.planes) {
      if (!plane.box.clientWidth) continue;
      plane.draw(this.cursor, this.greys, heat, table);
      const axis = { A: 1, P: 1, S: 2, I: 2, L: 0, R: 0 }[this.volume.axes[plane.normal]];
      plane.position.textContent = `${texts[axis]} mm`;
      plane.title.textContent = `${plane.name} ${this.cursor[plane.normal] + 1} / ${this.volume.shape[plane.normal]}`;
      plane.canvas.setAttribute("aria-label", `${plane.title.textContent}, ${plane.position.textContent}`);
    }
    this.fitButton.hidden = !this.planes.some((plane) => plane.zoomed);
    if (this.failed) return;
    const value = this.volume.complete || this.volume.has(this.cursor[0]) ? `${this.volume.at(this.cursor)} HU` : "";
    const done = Math.round((100 * this.volume.loadedSlices) / this.volume.shape[0]);
    this.status.textContent = [texts.join("   ") + " mm", value, this.overlay?.failure, this.volume.complete ? "" : `loading ${done} %`].filter(Boolean).join("   ·   ");
    this.pane.dataset.ready = String(this.volume.complete && (!this.overlay || this.overlay.values !== null || this.overlay.failure !== undefined));
  }
}

export default function mount({ data, parentElement, setStateValue, setTriggerValue }) {
  let viewer = viewers.get(parentElement);
  if (!viewer) {
    viewer = new Viewer(parentElement, {
      fail: (message) => setStateValue("failed", message),
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
