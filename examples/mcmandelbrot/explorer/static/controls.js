// The buttons and lists at the bottom.

import { about } from "./about.js";
import { AUTOMATIC } from "./permalink.js";

const LIMITS = [AUTOMATIC, 250, 500, 1000, 2000, 5000, 10000, 20000, 50000];
const HIGHEST = 16384; // pixels across or down

const element = (id) => document.getElementById(id);
const option = (value, text) => new Option(text, value);

export class Controls {
  // EXPLORER does what they say.
  constructor(explorer) {
    element("palette").append(...about.palettes.map((name) => option(name, name)));
    element("limit").append(...LIMITS.map((limit) => option(limit, limit.toLocaleString("en"))));
    element("palette").addEventListener("change", (event) => explorer.setPalette(event.target.value));
    element("limit").addEventListener("change", (event) => explorer.setLimit(limitOf(event.target.value)));
    element("in").addEventListener("click", () => explorer.glide(explorer.target.zoomed(2)));
    element("out").addEventListener("click", () => explorer.glide(explorer.target.zoomed(0.5)));
    element("home").addEventListener("click", () => explorer.home());
    element("save").addEventListener("click", (event) => {
      event.preventDefault();
      save(explorer);
    });
    element("controls").addEventListener("submit", (event) => event.preventDefault());
  }

  show(palette, limit) {
    const limits = element("limit");
    if (![...limits.options].some((each) => each.value === String(limit))) {
      limits.append(option(limit, limit.toLocaleString("en")));
    }
    limits.value = limit;
    element("palette").value = palette;
  }

  // The limit that is so many places further in the list than LIMIT.
  static further(limit, places) {
    const at = LIMITS.findLastIndex((each) => each === limit || each < limit);
    return LIMITS[Math.min(LIMITS.length - 1, Math.max(0, at + places))];
  }

  save() {
    element("save").click();
  }
}

const limitOf = (value) => (value === AUTOMATIC ? value : Number(value));

// Have the browser save an image of what EXPLORER shows. It would not say why the server refuses one, so ask first.
async function save(explorer) {
  const query = queryOf(explorer);
  try {
    const answer = await fetch(`picture?${query}`);
    if (!answer.ok) throw new Error((await answer.text()).trim() || answer.statusText);
    Object.assign(document.createElement("a"), { href: `picture.png?${query}`, download: "mandelbrot.png" }).click();
  } catch (error) {
    explorer.say(`This cannot be saved now: ${error.message}`);
  }
}

// What has to be asked for to get an image of what is shown.
function queryOf({ target: view, limit, palette }) {
  const [across, down] = [view.width * view.step, view.height * view.step];
  const width = Math.min(Number(element("width").value), Math.floor((HIGHEST * across) / down));
  return new URLSearchParams({ re: view.re, im: view.im, across, down, width, limit, palette });
}
