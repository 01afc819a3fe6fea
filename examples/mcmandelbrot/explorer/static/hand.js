// What a hand does to the view: drag, wheel, pinch, double click or tap, and keys.

const WHEEL = 0.0016; // how much a pixel of the wheel zooms
const LINE = 32; // pixels, where a wheel counts lines
const STRIDE = 1 / 5; // of a screen, by an arrow
const DOUBLE = { time: 350, distance: 24 }; // milliseconds and pixels between two clicks that are one

export class Hand {
  #pointers = new Map();
  #last = { time: -Infinity, x: 0, y: 0 };
  #travelled = 0;
  #explorer;

  // CANVAS is what is touched; EXPLORER has a `view`, and is told to `show` others and to `glide` to them.
  constructor(canvas, explorer) {
    this.#explorer = explorer;
    canvas.addEventListener("pointerdown", (event) => this.#down(canvas, event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#up(event));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  #down(canvas, event) {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.#travelled = this.#pointers.size > 1 ? Infinity : 0;
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.#pointers.set(event.pointerId, now);
    this.#travelled += Math.hypot(now.x - before.x, now.y - before.y);
    const { view } = this.#explorer;
    if (other) {
      const apart = (p) => Math.max(1, Math.hypot(p.x - other.x, p.y - other.y));
      const middle = (p) => [(p.x + other.x) / 2, (p.y + other.y) / 2];
      const [[x, y], [beforeX, beforeY]] = [middle(now), middle(before)];
      this.#explorer.show(view.moved(beforeX - x, beforeY - y).zoomed(apart(now) / apart(before), x, y));
    } else {
      this.#explorer.show(view.moved(before.x - now.x, before.y - now.y));
    }
  }

  #up(event) {
    if (!this.#pointers.delete(event.pointerId) || event.type !== "pointerup") return;
    if (this.#travelled > DOUBLE.distance) return;
    const { timeStamp: time, clientX: x, clientY: y } = event;
    const near = Math.hypot(x - this.#last.x, y - this.#last.y) < DOUBLE.distance;
    const isSecond = near && time - this.#last.time < DOUBLE.time;
    this.#last = { time: isSecond ? -Infinity : time, x, y };
    if (isSecond) this.#explorer.glide(this.#explorer.target.zoomed(event.shiftKey ? 0.5 : 2, x, y));
  }

  #wheel(event) {
    event.preventDefault();
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : event.deltaY * LINE;
    const pinch = event.ctrlKey ? 5 : 1; // a touchpad's pinch comes as a wheel, in small steps
    const factor = Math.exp(-Math.max(-300, Math.min(300, pixels * pinch)) * WHEEL);
    this.#explorer.show(this.#explorer.view.zoomed(factor, event.clientX, event.clientY));
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input")) return;
    const { target } = this.#explorer;
    const stride = event.shiftKey ? 1 : STRIDE;
    const deeds = {
      ArrowLeft: () => this.#explorer.glide(target.moved(-stride * target.width, 0)),
      ArrowRight: () => this.#explorer.glide(target.moved(stride * target.width, 0)),
      ArrowUp: () => this.#explorer.glide(target.moved(0, -stride * target.height)),
      ArrowDown: () => this.#explorer.glide(target.moved(0, stride * target.height)),
      "+": () => this.#explorer.glide(target.zoomed(2)),
      "=": () => this.#explorer.glide(target.zoomed(2)),
      "-": () => this.#explorer.glide(target.zoomed(0.5)),
      0: () => this.#explorer.home(),
      Home: () => this.#explorer.home(),
      p: () => this.#explorer.nextPalette(),
      "[": () => this.#explorer.changeLimit(-1),
      "]": () => this.#explorer.changeLimit(1),
      s: () => this.#explorer.save(),
    };
    const deed = Object.hasOwn(deeds, event.key) ? deeds[event.key] : undefined;
    if (deed) {
      event.preventDefault();
      deed();
    }
  }
}
