// A palette: what colour each of the 65536 levels has, as a canvas wants it.

const LEVELS = 65536;
const OPAQUE = 0xff000000;

const known = new Map();

export function palette(name) {
  if (!known.has(name)) {
    const got = get(name);
    got.catch(() => known.delete(name));
    known.set(name, got);
  }
  return known.get(name);
}

async function get(name) {
  const response = await fetch(`palette/${name}`);
  if (!response.ok) throw new Error(`there is no palette ${name}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  const last = bytes.length / 3 - 1;
  const colours = new Uint32Array(LEVELS);
  for (let level = 0; level < LEVELS; level++) {
    const at = 3 * Math.round((level / (LEVELS - 1)) * last);
    colours[level] = (OPAQUE | (bytes[at + 2] << 16) | (bytes[at + 1] << 8) | bytes[at]) >>> 0;
  }
  return colours;
}
