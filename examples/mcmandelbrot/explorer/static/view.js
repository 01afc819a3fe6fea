// What is looked at: a centre, a radius (half the shorter side of the window, in the plane) and the window's size in
// pixels. A view never changes; what moves gives another. No view is deeper than double precision, or off the plane.

import { about } from "./about.js";

const FINEST = about.span / about.side / 2 ** about.maxLevel;
const FURTHEST = 0.75 * about.reach;
const WIDEST = about.reach;

const within = (value, limit) => Math.min(limit, Math.max(-limit, value));

export class View {
  constructor(re, im, radius, width, height) {
    this.width = Math.max(1, width);
    this.height = Math.max(1, height);
    this.re = within(re, FURTHEST);
    this.im = within(im, FURTHEST);
    const shorter = Math.min(this.width, this.height);
    this.radius = Math.min(WIDEST, Math.max((FINEST * shorter) / 2, radius));
    this.tooDeep = radius < this.radius;
    this.step = (2 * this.radius) / shorter;
    Object.freeze(this);
  }

  static whole(width, height) {
    const shorter = Math.min(width, height);
    return new View(-0.65, 0, Math.max(1.25, (1.5 * shorter) / width), width, height);
  }

  static isPossible(re, im, radius) {
    return Number.isFinite(re) && Number.isFinite(im) && Number.isFinite(radius) && radius > 0;
  }

  resized(width, height) {
    return new View(this.re, this.im, this.radius, width, height);
  }

  moved(right, down) {
    const { re, im, radius, step, width, height } = this;
    return new View(re + right * step, im - down * step, radius, width, height);
  }

  // The point at pixel (x, y) stays where it is.
  zoomed(factor, x = this.width / 2, y = this.height / 2) {
    const right = x - this.width / 2;
    const down = y - this.height / 2;
    const { width, height } = this;
    const scaled = new View(this.re, this.im, this.radius / factor, width, height);
    const gone = this.step - scaled.step;
    const next = new View(this.re + right * gone, this.im - down * gone, scaled.radius, width, height);
    return scaled.tooDeep ? next.refused() : next;
  }

  // The same, but known to be less than was asked for.
  refused() {
    return Object.freeze(Object.assign(Object.create(View.prototype), this, { tooDeep: true }));
  }

  // On the way to OTHER, by a SHARE from 0 to 1; evenly to the eye.
  towards(other, share) {
    const radius = this.radius * (other.radius / this.radius) ** share;
    const along = other.radius === this.radius ? share : (radius - this.radius) / (other.radius - this.radius);
    const re = this.re + (other.re - this.re) * along;
    const im = this.im + (other.im - this.im) * along;
    return new View(re, im, radius, other.width, other.height);
  }

  // The level whose tiles are about as fine as the screen is, with so many of its pixels to one of ours.
  level(density) {
    const ideal = Math.log2(about.span / about.side / (this.step / density));
    return Math.min(about.maxLevel, Math.max(0, Math.ceil(ideal - 0.35)));
  }
}
