// Viewers of one page that scroll together. A group is a name; each viewer in it may bring an anchor, a point in its own
// patient's millimetres. With two anchors the planes keep the same distance from them; without, the same share of the volume.
import { apply } from "./volume.js";

const groups = new Map();

export function join(viewer, name) {
  if (viewer.group === name) return;
  leave(viewer);
  viewer.group = name;
  if (!groups.has(name)) groups.set(name, new Set());
  groups.get(name).add(viewer);
}

export function leave(viewer) {
  groups.get(viewer.group)?.delete(viewer);
  if (groups.get(viewer.group)?.size === 0) groups.delete(viewer.group);
  viewer.group = undefined;
}

// All viewers of the group that show an image, the asking one left out.
export function partners(viewer) {
  return [...(groups.get(viewer.group) ?? [])].filter((other) => other !== viewer && other.volume);
}

// The voxel of `to` that lies where `from` looks.
export function counterpart(from, to) {
  if (!from.anchor || !to.anchor) return from.cursor.map((n, axis) => ((n + 0.5) / from.volume.shape[axis]) * to.volume.shape[axis] - 0.5);
  const patient = apply(from.volume.toPatient, from.cursor);
  return apply(to.volume.fromPatient, patient.map((value, axis) => value - from.anchor[axis] + to.anchor[axis]));
}
