// A line that says what there is to know, and goes away; a screen reader reads it out.

const SHOWN = 4000; // milliseconds

export class Status {
  #element;
  #timer = 0;
  #fading = 0;

  constructor(element) {
    this.#element = element;
  }

  // TEXT is shown for a while, or, if it LASTS, until there is something else to say.
  say(text, lasts = false) {
    clearTimeout(this.#timer);
    clearTimeout(this.#fading);
    this.#element.classList.remove("quiet");
    if (this.#element.textContent !== text) this.#element.textContent = text;
    if (!lasts) this.#timer = setTimeout(() => this.clear(), SHOWN);
  }

  clear() {
    clearTimeout(this.#timer);
    this.#element.classList.add("quiet");
    this.#fading = setTimeout(() => (this.#element.textContent = ""), 500);
  }
}
