// Which tiles a view shows, and in which order they are wanted: a few coarse ones first, to have something everywhere,
// then those nearest the centre.

import { about } from "./about.js";

const COARSER = 3; // levels

const sideAt = (level) => about.span / 2 ** level;

export const nameOf = (level, column, row) => `${level}/${column}/${row}`;

// Where a tile is on the screen: its corner and its side, in pixels of the window.
export function placeOf(view, tile) {
  const side = sideAt(tile.level);
  return {
    x: (tile.column * side - view.re) / view.step + view.width / 2,
    y: (tile.row * side + view.im) / view.step + view.height / 2,
    side: side / view.step,
  };
}

// The tiles of LEVEL that VIEW shows a part of, each with its distance from the centre, in rings.
export function shown(view, level) {
  const side = sideAt(level);
  const last = (about.reach / about.span) * 2 ** level;
  const range = (centre, half) => [
    Math.max(-last, Math.floor((centre - half) / side)),
    Math.min(last - 1, Math.ceil((centre + half) / side) - 1),
  ];
  const halfWidth = (view.width / 2) * view.step;
  const halfHeight = (view.height / 2) * view.step;
  const furthest = Math.hypot(halfWidth, halfHeight) + side;
  const [left, right] = range(view.re, halfWidth);
  const [top, bottom] = range(-view.im, halfHeight);
  const tiles = [];
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column <= right; column++) {
      const distance = Math.hypot((column + 0.5) * side - view.re, (row + 0.5) * side + view.im) / furthest;
      const ring = Math.min(about.rings - 1, Math.floor(distance * about.rings));
      tiles.push({ name: nameOf(level, column, row), level, column, row, distance, ring });
    }
  }
  return tiles;
}

export function wanted(view, density) {
  const level = view.level(density);
  const nearest = (a, b) => a.distance - b.distance;
  const coarse = level >= COARSER ? shown(view, level - COARSER).map((tile) => ({ ...tile, ring: 0 })) : [];
  return [...coarse.sort(nearest), ...shown(view, level).sort(nearest)];
}
