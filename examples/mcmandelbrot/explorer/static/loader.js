// Gets what is wanted from the server, so many tiles at a time. What is no longer wanted is let go: closing the request
// is what tells the server.

const AT_ONCE = 5; // a browser has six connections to a server, and one is for the panel
const FORMAT = "deflate-raw";
const PATIENCE = 1000; // milliseconds between one that failed and the next

export class Loader {
  #wanted = [];
  #underWay = new Map();
  #resting = 0;
  #arrived;
  #failed;

  // ARRIVED is called with each tile and its levels, FAILED with the reason whenever something is wrong.
  constructor(arrived, failed) {
    this.#arrived = arrived;
    this.#failed = failed;
    this.loaded = 0;
    this.cancelled = 0;
  }

  // Whether this browser can read what the server sends.
  static isPossible() {
    try {
      return Boolean(new DecompressionStream(FORMAT));
    } catch {
      return false; // there are none, or none for that format
    }
  }

  get idle() {
    return this.#wanted.length === 0 && this.#underWay.size === 0;
  }

  // From now on TILES are wanted, in this order, and nothing else.
  want(tiles) {
    const addresses = new Set(tiles.map((tile) => tile.address));
    for (const [address, request] of this.#underWay) {
      if (!addresses.has(address)) {
        request.abort();
        this.#underWay.delete(address);
        this.cancelled++;
      }
    }
    this.#wanted = tiles.filter((tile) => !this.#underWay.has(tile.address));
    this.#proceed();
  }

  #proceed() {
    while (!this.#resting && this.#underWay.size < AT_ONCE && this.#wanted.length) {
      this.#load(this.#wanted.shift());
    }
  }

  async #load(tile) {
    const request = new AbortController();
    this.#underWay.set(tile.address, request);
    try {
      const response = await fetch(`${tile.address}&ring=${tile.ring}`, { signal: request.signal });
      if (!response.ok) throw new Error((await response.text()).trim() || response.statusText);
      const levels = response.body.pipeThrough(new DecompressionStream(FORMAT));
      const content = await new Response(levels).arrayBuffer();
      this.#underWay.delete(tile.address);
      this.loaded++;
      this.#arrived(tile, new Uint16Array(content));
    } catch (error) {
      if (request.signal.aborted) return;
      this.#underWay.delete(tile.address);
      this.#wanted.unshift(tile);
      this.#rest();
      this.#failed(error);
    }
    this.#proceed();
  }

  #rest() {
    clearTimeout(this.#resting);
    this.#resting = setTimeout(() => {
      this.#resting = 0;
      this.#proceed();
    }, PATIENCE);
  }
}
