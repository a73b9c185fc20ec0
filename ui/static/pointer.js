// What wheel and pointer do on a plane: slices, cursor, window, zoom, pan, distances, turning, one plane large.
// The plane under the pointer takes the keys, unless the reader is writing somewhere.

const NOTCH = 50; // wheel delta of one slice

function wheel(viewer, plane) {
  let moved = 0;
  plane.canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (!viewer.volume) return;
    if (event.ctrlKey) {
      plane.magnify(Math.exp(-event.deltaY / 400), plane.pixel(event));
      viewer.redraw();
      return;
    }
    moved += event.deltaMode === 1 ? event.deltaY * NOTCH : event.deltaY;
    const notches = Math.trunc(moved / NOTCH);
    moved -= notches * NOTCH;
    if (notches) viewer.scroll(plane, Math.sign(notches) * (event.shiftKey ? 5 : 1));
  }, { passive: false });
}

// What a press starts: pan, window, the turn of the oblique plane, a new or an old line, or the cursor.
function grip(viewer, plane, event) {
  const drag = { act: "cursor", x: event.clientX, y: event.clientY, from: viewer.window, at: plane.pixel(event) };
  if (event.button === 1) return { ...drag, act: "pan" };
  if (event.button === 2 || event.shiftKey) return { ...drag, act: "window" };
  if (plane.handled(viewer.oblique, viewer.cursor, drag.at)) return { ...drag, act: "turn" };
  const held = viewer.lines.grab(plane, viewer.cursor, drag.at);
  if (held) return { ...drag, act: "line", held };
  if (viewer.measuring) return { ...drag, act: "line", held: viewer.lines.begin(plane, plane.pointed(event, viewer.cursor)) };
  return drag;
}

function pull(viewer, plane, drag, event) {
  if (drag.act === "cursor") viewer.moveTo(plane.voxel(event, viewer.cursor), { exact: Boolean(plane.turned) });
  if (drag.act === "turn") viewer.turnThrough(plane, plane.unpin(plane.pixel(event), viewer.cursor));
  if (drag.act === "window") viewer.setWindow(drag.from[0] + 2 * (event.clientX - drag.x), drag.from[1] + 2 * (event.clientY - drag.y));
  if (drag.act === "line") drag.held.line.ends[drag.held.end] = plane.pointed(event, viewer.cursor);
  if (drag.act === "pan") {
    plane.shift(drag.at, plane.pixel(event));
    drag.at = plane.pixel(event);
  }
  viewer.redraw();
}

export function listen(viewer, plane) {
  const { canvas } = plane;
  let drag = null;
  wheel(viewer, plane);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerenter", () => {
    viewer.active = plane;
    if (!document.activeElement?.matches("input, textarea, select, [contenteditable]")) canvas.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointerdown", (event) => {
    if (!viewer.volume) return;
    canvas.setPointerCapture(event.pointerId);
    if (event.button === 1) event.preventDefault();
    drag = grip(viewer, plane, event);
    viewer.quick = drag.act === "turn" || (drag.act === "cursor" && !plane.turned);
    if (drag.act === "cursor") pull(viewer, plane, drag, event);
    viewer.redraw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) pull(viewer, plane, drag, event);
    else canvas.classList.toggle("handle", plane.handled(viewer.oblique, viewer.cursor, plane.pixel(event)));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (drag?.act === "line") viewer.lines.end(plane, drag.held);
      drag = null;
      viewer.quick = false;
      viewer.redraw();
    });
  }
  canvas.addEventListener("dblclick", () => { if (!viewer.measuring) viewer.setOnly(viewer.grid.dataset.only === plane.name ? "" : plane.name); });
}
