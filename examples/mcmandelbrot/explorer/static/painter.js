// Draws what is here of a view. A tile that is not here yet is stood in for by a part of a coarser one, or by finer
// ones.

import { about } from "./about.js";
import { placeOf, shown } from "./tiles.js";

const GROUND = "#0a0b0e";
const COARSEST = 16; // levels up
const FRAME = 8; // milliseconds of a frame that may go into colouring

export class DrawingUniverse {
  #canvas;
  #context;
  #gallery;

  constructor(canvas, gallery) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { alpha: false });
    this.#gallery = gallery;
  }

  // Draw VIEW; true if something was left for the next frame.
  paint(view, density) {
    const width = Math.round(view.width * density);
    const height = Math.round(view.height * density);
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width;
      this.#canvas.height = height;
    }
    const context = this.#context;
    context.fillStyle = GROUND;
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "medium";
    const deadline = performance.now() + FRAME;
    let left = false;
    const late = () => {
      const isLate = performance.now() > deadline;
      left ||= isLate;
      return isLate;
    };
    for (const tile of shown(view, view.level(density))) {
      const place = placeOf(view, tile);
      const x = Math.round(place.x * density);
      const y = Math.round(place.y * density);
      const right = Math.round((place.x + place.side) * density);
      const bottom = Math.round((place.y + place.side) * density);
      this.#draw(tile, x, y, right - x, bottom - y, late);
    }
    return left;
  }

  #draw(tile, x, y, width, height, late) {
    const { level, column, row } = tile;
    const image = this.#gallery.image(level, column, row, late);
    if (image) {
      this.#context.drawImage(image, x, y, width, height);
      return;
    }
    this.#drawCoarser(tile, x, y, width, height, late);
    for (const [right, down] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
      const finer = this.#gallery.image(level + 1, 2 * column + right, 2 * row + down, late);
      if (finer) {
        this.#context.drawImage(finer, x + (right * width) / 2, y + (down * height) / 2, width / 2, height / 2);
      }
    }
  }

  #drawCoarser({ level, column, row }, x, y, width, height, late) {
    for (let up = 1; up <= Math.min(COARSEST, level); up++) {
      const parts = 2 ** up;
      const [left, top] = [Math.floor(column / parts), Math.floor(row / parts)];
      const image = this.#gallery.image(level - up, left, top, late);
      if (image) {
        const side = about.side / parts;
        const at = [(column - left * parts) * side, (row - top * parts) * side];
        this.#context.drawImage(image, ...at, side, side, x, y, width, height);
        return;
      }
    }
  }
}
