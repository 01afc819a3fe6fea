// The address bar says what is shown: centre, scale, iterations and palette. Whoever opens that address sees the same.

import { about } from "./about.js";
import { View } from "./view.js";

const PAUSE = 250; // milliseconds; browsers object to more than a few a second

export const AUTOMATIC = "auto";

// What LOCATION says, as far as it makes sense; WRONG if some of it does not.
export function read(location) {
  const text = new URLSearchParams(location.hash.slice(1));
  if (text.size === 0) return {};
  const [re, im, radius] = ["re", "im", "radius"].map((name) => (text.has(name) ? Number(text.get(name)) : NaN));
  const said = {};
  if (View.isPossible(re, im, radius)) said.place = { re, im, radius };
  const limit = text.get("limit") ?? AUTOMATIC;
  const isLimit = /^[0-9]{1,6}$/.test(limit) && limit >= about.minLimit && limit <= about.maxLimit;
  if (isLimit || limit === AUTOMATIC) said.limit = isLimit ? Number(limit) : limit;
  const palette = text.get("palette") ?? about.palettes[0];
  if (about.palettes.includes(palette)) said.palette = palette;
  said.wrong = !said.place || !said.limit || !said.palette;
  return said;
}

export class Permalink {
  #timer = 0;
  #written = "";

  // Soon, the address bar says that VIEW is shown with LIMIT in PALETTE.
  write(view, limit, palette) {
    const { re, im, radius } = view;
    this.#written = `#${new URLSearchParams({ re, im, radius, limit, palette })}`;
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      history.replaceState(null, "", this.#written);
    }, PAUSE);
  }

  // Whether HASH is other than what was written here.
  isNews(hash) {
    return hash !== this.#written;
  }
}
