// The bar above the planes, and what the keys do. All texts are set as textContent.
import { heatColour } from "./palette.js";
import { SLABS } from "./slab.js";

export const make = (tag, className, parent, text) => {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
};

const HINT = "wheel: slices   drag: cursor   right drag: window   Ctrl wheel: zoom   middle drag: pan   double click: one plane   ?: all keys";
const KEYS = [
  ["Up, Down, PageUp, PageDown", "one slice, ten slices"],
  ["1 to 4", "window presets"],
  ["M", "measure: drag a line, drag its ends"],
  ["Delete", "remove the marked line"],
  ["O", "turn this plane (oblique); again: straight"],
  ["Shift with the arrows", "turn the oblique plane by one degree"],
  ["0", "oblique plane straight again"],
  ["T", "next slab: single slice, average, MIP, MinIP"],
  ["I", "invert black and white"],
  ["C", "cursor lines on and off"],
  ["E", "evidence on and off"],
  ["F", "whole slices again"],
  ["L", "linked scrolling on and off, side by side"],
  ["R", "reset window, zoom, slab, inversion and oblique plane"],
  ["Shift with the wheel or left drag", "five slices; window"],
];

export class Tools {
  constructor(viewer, { presets, link }) {
    Object.assign(this, { viewer, presets });
    const { bar } = viewer;
    this.#presets(make("div", "group", bar));
    this.windowText = make("span", "window", bar);
    this.#heat(bar);
    const more = make("div", "group more", bar);
    this.measure = this.#button(more, "Measure", "Drag a line on a slice (key M)", () => viewer.toggleMeasure());
    this.#slab(more);
    this.#oblique(more);
    this.invert = this.#button(more, "Invert", "Black for bright (key I)", () => viewer.toggle("inverted"));
    this.cross = this.#button(more, "Cursor", "Cursor lines (key C)", () => viewer.toggle("crossed"));
    this.#button(more, "Reset", "First window, whole slices, single slice, straight planes (key R)", () => viewer.reset());
    if (link) this.link = this.#button(more, "Linked", "Scroll both studies together (key L)", () => viewer.toggleLink());
    this.#sometimes(more);
    make("div", "hint", viewer.pane, HINT);
    this.help = make("dl", "help", viewer.grid);
    this.help.hidden = true;
    for (const [key, what] of KEYS) {
      make("dt", "", this.help, key);
      make("dd", "", this.help, what);
    }
  }

  #button(parent, text, title, act) {
    const button = make("button", "", parent, text);
    button.title = title;
    button.addEventListener("click", act);
    return button;
  }

  // Those that come and go stand last and keep their room, so that nothing moves under the pointer.
  #sometimes(group) {
    const { viewer } = this;
    this.straighten = this.#button(group, "Straighten", "Oblique plane straight again (key 0)", () => viewer.turn([0, 0]));
    this.fit = this.#button(group, "Fit", "Whole slices again (key F)", () => viewer.fit());
    this.remove = this.#button(group, "Delete line", "Remove the marked line (key Delete)", () => viewer.removeLine());
  }

  #presets(group) {
    this.buttons = this.presets.map(({ label, window: [width, level] }, k) =>
      this.#button(group, label, `Width ${width}, level ${level} (key ${k + 1})`, () => this.viewer.setWindow(width, level)));
  }

  #slab(group) {
    this.slab = make("select", "", group);
    this.slab.title = "Join neighbouring slices (key T)";
    this.slab.setAttribute("aria-label", "Slab");
    SLABS.forEach(({ label }, k) => { make("option", "", this.slab, label).value = k; });
    this.slab.addEventListener("change", () => this.viewer.setSlab(Number(this.slab.value)));
  }

  #oblique(group) {
    const { viewer } = this;
    this.oblique = make("select", "", group);
    this.oblique.title = "Turn one plane about the cursor (key O): drag a handle of its line elsewhere, or Shift with the arrows";
    this.oblique.setAttribute("aria-label", "Oblique");
    make("option", "", this.oblique, "Straight planes").value = "";
    for (const { name } of viewer.planes) make("option", "", this.oblique, `Turn ${name.toLowerCase()}`).value = name;
    this.oblique.addEventListener("change", () => viewer.setOblique(this.oblique.value));
  }

  #heat(bar) {
    const { viewer } = this;
    this.heat = make("div", "group heat", bar);
    this.heat.hidden = true; // until a finding brings a map
    const label = make("label", "group", this.heat);
    this.heatBox = make("input", "", label);
    Object.assign(this.heatBox, { type: "checkbox", checked: true });
    this.heatBox.addEventListener("change", () => viewer.toggle("showHeat"));
    make("span", "", label, "Evidence");
    this.heat.title = "Key E";
    const slider = Object.assign(make("input", "", this.heat), { type: "range", min: 0, max: 100, value: 100 * viewer.opacity });
    slider.setAttribute("aria-label", "Opacity of the evidence map");
    slider.addEventListener("input", () => viewer.setOpacity(slider.value / 100));
    make("span", "small", this.heat, "weak");
    const scale = make("span", "scale", this.heat);
    scale.style.background = `linear-gradient(90deg, ${[0.2, 0.4, 0.6, 0.8, 1].map((x) => `rgb(${heatColour(x)})`).join()})`;
    make("span", "small", this.heat, "strong");
  }

  // Shows the viewer's state.
  update() {
    const { viewer } = this, pressed = (button, on) => button.setAttribute("aria-pressed", String(Boolean(on)));
    this.windowText.textContent = `W ${viewer.window[0]}  L ${viewer.window[1]}`;
    this.buttons.forEach((button, k) => pressed(button, this.presets[k].window.join() === viewer.window.join()));
    pressed(this.measure, viewer.measuring);
    pressed(this.invert, viewer.inverted);
    pressed(this.cross, viewer.crossed);
    if (this.link) pressed(this.link, viewer.linked);
    this.remove.hidden = !viewer.lines.list.length;
    this.fit.hidden = !viewer.planes.some((plane) => plane.zoomed);
    this.heatBox.checked = viewer.showHeat;
    this.slab.value = String(viewer.slab);
    this.oblique.value = viewer.oblique?.plane.name ?? "";
    this.straighten.hidden = !viewer.oblique?.turned;
  }

  // Shift with the arrows, in degrees of the two angles; nothing without an oblique plane.
  #turns({ key, target, ctrlKey, metaKey, altKey, shiftKey }) {
    const asked = shiftKey && !ctrlKey && !metaKey && !altKey && this.viewer.oblique && !target.matches("select, input");
    return asked ? { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key] : undefined;
  }

  // True when the key meant something here.
  // Letters with Shift, and Escape when nothing is to be left, belong to the page around.
  key(event, plane) {
    const { key, target, ctrlKey, metaKey, altKey, shiftKey } = event, { viewer } = this, turns = this.#turns(event);
    if (turns) viewer.turnBy(turns);
    if (turns) return true;
    const slices = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[key];
    if (ctrlKey || metaKey || altKey || (shiftKey && key !== "?") || (slices && target.matches("select, input"))) return false;
    if (key === "Escape" && this.help.hidden && !viewer.measuring) return false;
    const acts = {
      m: () => viewer.toggleMeasure(), i: () => viewer.toggle("inverted"), c: () => viewer.toggle("crossed"),
      e: () => viewer.toggle("showHeat"), f: () => viewer.fit(), r: () => viewer.reset(), l: () => viewer.toggleLink(),
      o: () => viewer.setOblique(viewer.oblique?.plane === plane ? "" : plane.name), 0: () => viewer.turn([0, 0]),
      t: () => viewer.setSlab((viewer.slab + 1) % SLABS.length), delete: () => viewer.removeLine(), backspace: () => viewer.removeLine(),
      "?": () => { this.help.hidden = !this.help.hidden; }, escape: () => { this.help.hidden = true; viewer.toggleMeasure(false); },
    };
    const preset = this.presets[Number(key) - 1], act = acts[key.toLowerCase()];
    if (slices) viewer.scroll(plane, slices);
    else if (preset) viewer.setWindow(...preset.window);
    else if (act) act();
    return Boolean(slices || preset || act);
  }
}
