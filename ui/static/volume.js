// Voxels in the browser: fetched once, the wanted axial slice first. Index order is (d, h, w) everywhere; patient mm are LPS.

export const AIR = -1024;

async function fetchPart(url, signal, range) {
  const response = await fetch(url, { signal, cache: "no-store", headers: range ? { Range: range } : {} });
  if (!response.ok) {
    const error = new Error((await response.text()).slice(0, 300) || `HTTP ${response.status}`);
    error.expired = response.status === 403;
    throw error;
  }
  return response;
}

export function apply(matrix, [d, h, w]) {
  const row = (k) => matrix[4 * k] * d + matrix[4 * k + 1] * h + matrix[4 * k + 2] * w + matrix[4 * k + 3];
  return [row(0), row(1), row(2)];
}

export class Volume {
  // shape: [D, H, W]; toPatient: row-major 4x4 from index to LPS mm, fromPatient: back; axes: where D, H, W grow, such as "SPL".
  constructor({ id, shape, toPatient, fromPatient, axes }) {
    Object.assign(this, { id, shape, toPatient, fromPatient, axes, received: 0 }); // received: changes with every part
    this.sliceLength = shape[1] * shape[2];
    this.hu = new Int16Array(shape[0] * this.sliceLength).fill(AIR);
    this.spacing = [0, 1, 2].map((axis) => Math.hypot(...[0, 1, 2].map((row) => toPatient[4 * row + axis])));
    this.loadedSlices = 0;
    this.early = -1;
  }

  get complete() {
    return this.loadedSlices >= this.shape[0];
  }

  has(slice) {
    return slice < this.loadedSlices || slice === this.early;
  }

  at([d, h, w]) {
    return this.hu[d * this.sliceLength + h * this.shape[2] + w];
  }

  // Fetches axial slice `first` alone, then everything in order; calls onData after the first slice and as more arrive.
  async load(url, first, onData, signal) {
    const bytes = new Uint8Array(this.hu.buffer);
    const size = 2 * this.sliceLength;
    const range = `bytes=${first * size}-${(first + 1) * size - 1}`;
    const slice = new Uint8Array(await (await fetchPart(url, signal, range)).arrayBuffer());
    if (slice.length !== size) throw new Error(`expected ${size} bytes of one slice, received ${slice.length}`);
    bytes.set(slice, first * size);
    this.early = first;
    this.received = size;
    onData(this);
    const reader = (await fetchPart(url, signal)).body.getReader();
    let offset = 0;
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (offset + part.value.length > bytes.length) throw new Error("received more voxels than the study has");
      bytes.set(part.value, offset);
      offset += part.value.length;
      this.received = size + offset;
      this.loadedSlices = Math.floor(offset / size);
      onData(this);
    }
    if (offset !== bytes.length) throw new Error(`expected ${bytes.length} bytes, received ${offset}`);
  }
}

export class Overlay {
  // A uint8 map on a grid of its own; fromVolume: row-major 4x4 from image index to map index.
  constructor({ id, shape, fromVolume }) {
    Object.assign(this, { id, shape, fromVolume, values: null });
  }

  async load(url, signal) {
    const values = new Uint8Array(await (await fetchPart(url, signal)).arrayBuffer());
    const [D, H, W] = this.shape;
    if (values.length !== D * H * W) throw new Error("the heat map does not have the size it states");
    this.values = values;
  }

  // Linear interpolation at map index (d, h, w); 0 outside the map.
  sample(d, h, w) {
    const [D, H, W] = this.shape;
    if (!(d > -0.5 && h > -0.5 && w > -0.5 && d < D - 0.5 && h < H - 0.5 && w < W - 0.5)) return 0;
    const d0 = Math.min(Math.max(d, 0), D - 1) | 0, h0 = Math.min(Math.max(h, 0), H - 1) | 0, w0 = Math.min(Math.max(w, 0), W - 1) | 0;
    const fd = Math.max(0, Math.min(1, d - d0)), fh = Math.max(0, Math.min(1, h - h0)), fw = Math.max(0, Math.min(1, w - w0));
    const d1 = Math.min(d0 + 1, D - 1), h1 = Math.min(h0 + 1, H - 1), w1 = Math.min(w0 + 1, W - 1);
    const line = (z, y) => {
      const at = (z * H + y) * W;
      return this.values[at + w0] * (1 - fw) + this.values[at + w1] * fw;
    };
    const near = line(d0, h0) * (1 - fh) + line(d0, h1) * fh;
    return near * (1 - fd) + (line(d1, h0) * (1 - fh) + line(d1, h1) * fh) * fd;
  }
}
