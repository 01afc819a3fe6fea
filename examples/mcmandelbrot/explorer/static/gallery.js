// The tiles that are here, as images: those used last are kept, and coloured anew when the palette changes.

import { about } from "./about.js";
import { nameOf } from "./tiles.js";

const KEPT = 320;

export class Gallery {
  #tiles = new Map(); // by name; the one used last comes last
  #colours = null;

  set colours(colours) {
    this.#colours = colours;
  }

  put(name, limit, levels) {
    this.#tiles.delete(name);
    this.#tiles.set(name, { limit, levels, image: null, colours: null });
  }

  // Forget what was used longest ago, but keep so many more than are NEEDED.
  tidy(needed) {
    const kept = Math.max(KEPT, 2 * needed);
    for (const name of this.#tiles.keys()) {
      if (this.#tiles.size <= kept) break;
      this.#tiles.delete(name);
    }
  }

  has(name, limit) {
    return this.#tiles.get(name)?.limit === limit;
  }

  // The image of a tile, if it is here. LATE says that there is no time to colour it now: then an old one will do.
  image(level, column, row, late) {
    const name = nameOf(level, column, row);
    const tile = this.#tiles.get(name);
    if (!tile || !this.#colours) return null;
    this.#tiles.delete(name);
    this.#tiles.set(name, tile);
    if (tile.colours !== this.#colours && !late()) {
      tile.image ??= new OffscreenCanvas(about.side, about.side);
      paint(tile.image, tile.levels, this.#colours);
      tile.colours = this.#colours;
    }
    return tile.image;
  }
}

function paint(canvas, levels, colours) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(about.side, about.side);
  const pixels = new Uint32Array(image.data.buffer);
  for (let n = 0; n < pixels.length; n++) pixels[n] = colours[levels[n]];
  context.putImageData(image, 0, 0);
}
