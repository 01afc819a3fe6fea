// The explorer: what is shown, and what follows when something else is to be.

import { Controls } from "./controls.js";
import { Gallery } from "./gallery.js";
import { Hand } from "./hand.js";
import { Loader } from "./loader.js";
import { DrawingUniverse } from "./painter.js";
import { palette as coloursOf } from "./palette.js";
import { Panel } from "./panel.js";
import { AUTOMATIC, Permalink, read } from "./permalink.js";
import { Status } from "./status.js";
import { nameOf, wanted } from "./tiles.js";
import { View } from "./view.js";
import { about } from "./about.js";

const GLIDE = 180; // milliseconds
const BREATH = 40; // milliseconds between one look at what is wanted and the next
const DENSEST = 2; // pixels of the screen to one of ours

const calm = matchMedia("(prefers-reduced-motion: reduce)");

class Explorer {
  #canvas = document.getElementById("set");
  #place = document.getElementById("place");
  #gallery = new Gallery();
  #painter = new DrawingUniverse(this.#canvas, this.#gallery);
  #loader = new Loader((tile, levels) => this.#arrived(tile, levels), (error) => this.#failed(error));
  #status = new Status(document.getElementById("status"));
  #permalink = new Permalink();
  #controls = new Controls(this);
  #frame = 0;
  #looking = 0;
  #glide = null;
  #limit = AUTOMATIC;

  constructor() {
    this.palette = about.palettes[0];
    this.view = this.target = View.whole(innerWidth, innerHeight);
    this.#follow();
    new Hand(this.#canvas, this);
    new Panel();
    new ResizeObserver(() => this.show(this.target.resized(innerWidth, innerHeight))).observe(this.#canvas);
    addEventListener("hashchange", () => this.#permalink.isNews(location.hash) && this.#follow());
    this.#canvas.focus({ preventScroll: true });
  }

  // How many iterations a point is followed for. A deep view needs more, and every eight levels there are.
  get limit() {
    if (this.#limit !== AUTOMATIC) return this.#limit;
    return Math.min(about.maxLimit, 500 * 2 ** Math.floor(this.target.level(this.#density) / 8));
  }

  // What is shown, now.
  show(view) {
    this.#glide = null;
    this.view = this.target = view;
    this.#changed();
  }

  // What is shown, soon.
  glide(target) {
    if (calm.matches) {
      this.show(target);
      return;
    }
    this.target = target;
    this.#glide = { from: this.view, since: performance.now() };
    this.#changed();
  }

  home() {
    this.glide(View.whole(innerWidth, innerHeight));
  }

  setLimit(limit) {
    this.#limit = limit;
    this.#changed();
  }

  changeLimit(places) {
    this.setLimit(Controls.further(this.#limit, places));
    this.#status.say(`${this.limit.toLocaleString("en")} iterations`);
  }

  async setPalette(name) {
    this.palette = name;
    this.#changed();
    try {
      const colours = await coloursOf(name);
      if (this.palette === name) this.#gallery.colours = colours;
      this.#paintSoon();
    } catch (error) {
      this.#failed(error);
    }
  }

  nextPalette() {
    const { palettes } = about;
    this.setPalette(palettes[(palettes.indexOf(this.palette) + 1) % palettes.length]);
    this.#status.say(`palette ${this.palette}`);
  }

  save() {
    this.#controls.save();
  }

  say(text) {
    this.#status.say(text);
  }

  get #density() {
    return Math.min(DENSEST, devicePixelRatio || 1);
  }

  // Show what the address bar says.
  #follow() {
    const said = read(location);
    this.#limit = said.limit ?? AUTOMATIC;
    const { re, im, radius } = said.place ?? View.whole(innerWidth, innerHeight);
    this.show(new View(re, im, radius, innerWidth, innerHeight));
    this.setPalette(said.palette ?? about.palettes[0]);
    if (said.wrong) this.#status.say("That address makes no sense in parts; this is what it does say.");
  }

  #changed() {
    this.#controls.show(this.palette, this.#limit);
    this.#permalink.write(this.target, this.#limit, this.palette);
    this.#canvas.setAttribute("aria-busy", "true");
    this.#place.textContent = describe(this.target);
    if (this.target.tooDeep) {
      this.#status.say("This is as deep as double precision goes: further in there is nothing but noise.");
    }
    this.#paintSoon();
    this.#looking ||= setTimeout(() => this.#look(), BREATH);
  }

  // See what is wanted.
  #look() {
    this.#looking = 0;
    const { limit } = this;
    const tiles = wanted(this.target, this.#density);
    const missing = tiles.filter((tile) => !this.#gallery.has(tile.name, limit));
    this.#gallery.tidy(tiles.length);
    this.#loader.want(missing.map((tile) => ({ ...tile, limit, address: `tile/${tile.name}?limit=${limit}` })));
    this.#settle();
  }

  #arrived(tile, levels) {
    this.#gallery.put(nameOf(tile.level, tile.column, tile.row), tile.limit, levels);
    this.#paintSoon();
    this.#settle();
  }

  #failed(error) {
    this.#status.say(`The server does not answer as it should; trying again. (${error.message})`);
  }

  #settle() {
    const isDone = this.#loader.idle && !this.#looking;
    this.#canvas.setAttribute("aria-busy", String(!isDone));
    if (isDone) {
      this.#canvas.setAttribute("aria-label", `The Mandelbrot set, ${describe(this.target)}`);
      this.#canvas.dataset.loaded = this.#loader.loaded;
      this.#canvas.dataset.cancelled = this.#loader.cancelled;
    }
  }

  #paintSoon() {
    this.#frame ||= requestAnimationFrame((now) => this.#paint(now));
  }

  #paint(now) {
    this.#frame = 0;
    if (this.#glide) {
      const share = Math.min(1, Math.max(0, (now - this.#glide.since) / GLIDE));
      const eased = 1 - (1 - share) ** 3;
      this.view = share < 1 ? this.#glide.from.towards(this.target, eased) : this.target;
      if (share === 1) this.#glide = null;
    }
    const isLeft = this.#painter.paint(this.view, this.#density);
    if (isLeft || this.#glide) this.#paintSoon();
  }
}

function describe(view) {
  const digits = Math.max(2, Math.ceil(2 - Math.log10(view.radius)));
  const sign = view.im < 0 ? "−" : "+";
  const re = view.re.toFixed(digits).replace("-", "−");
  const across = 2 * view.radius;
  const [mantissa, exponent] = across.toExponential(2).split("e");
  const size = across < 0.001 ? `${mantissa} × 10${raised(exponent)}` : across.toPrecision(3);
  return `${re} ${sign} ${Math.abs(view.im).toFixed(digits)} i, ${size} across`;
}

const raised = (exponent) => exponent.replaceAll(/./g, (digit) => (digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]));

if (Loader.isPossible()) {
  new Explorer();
} else {
  for (const id of ["panel", "controls", "place"]) document.getElementById(id).remove();
  document.getElementById("set").ariaBusy = "false";
  const text = "This browser is too old for the explorer: it cannot inflate what the server sends. A newer one can.";
  new Status(document.getElementById("status")).say(text, true);
}
