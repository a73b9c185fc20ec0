// Lookup tables as packed little-endian RGBA: grey by window, and a heat scale ordered by brightness, so that readers
// with any colour vision see the same order.

const HEAT = [[13, 8, 135], [106, 0, 168], [177, 42, 144], [225, 100, 98], [252, 166, 54], [240, 249, 33]];

export const pack = (r, g, b, a) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;

// 65536 greys; entry value + 32768 shows that HU under a window of `width` around `level`, bright for dense or the other way.
export function greys(width, level, inverted) {
  const table = new Uint32Array(65536);
  const low = level - width / 2;
  for (let i = 0; i < 65536; i++) {
    const bright = Math.max(0, Math.min(255, Math.round(((i - 32768 - low) / width) * 255))), grey = inverted ? 255 - bright : bright;
    table[i] = pack(grey, grey, grey, 255);
  }
  return table;
}

export function heatColour(fraction) {
  const x = Math.max(0, Math.min(1, fraction)) * (HEAT.length - 1);
  const k = Math.min(HEAT.length - 2, Math.floor(x));
  return HEAT[k].map((low, c) => Math.round(low + (HEAT[k + 1][c] - low) * (x - k)));
}

// 256 colours; weak evidence fades out instead of veiling the image.
export function heats(opacity) {
  const table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const fraction = i / 255;
    const ramp = Math.max(0, Math.min(1, (fraction - 0.1) / 0.4));
    table[i] = pack(...heatColour(fraction), Math.round(255 * opacity * ramp));
  }
  return table;
}
