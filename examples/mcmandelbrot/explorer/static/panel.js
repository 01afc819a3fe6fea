// The queue at work, as the server tells of it. It is not listened to while the page is hidden.

const element = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");

export class Panel {
  #events = null;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#listen());
    element("panel").open = window.innerWidth >= 640 && window.innerHeight >= 500;
    this.#listen();
  }

  #listen() {
    if (document.hidden) {
      this.#events?.close();
      this.#events = null;
    } else if (!this.#events) {
      this.#events = new EventSource("events");
      this.#events.onmessage = (event) => this.#show(JSON.parse(event.data));
    }
  }

  #show(reading) {
    for (const name of ["rate", "unfinished", "visitors"]) element(name).textContent = number.format(reading[name]);
    for (const name of ["drawn", "cancelled"]) {
      const all = number.format(reading[name]);
      const yours = number.format(reading.yours[name]);
      element(name).textContent = reading.visitors > 1 ? `${all}, ${yours} here` : all;
    }
    const mean = reading.workers.reduce((sum, { share }) => sum + share, 0) / Math.max(1, reading.workers.length);
    element("brief").textContent = `${Math.round(100 * mean)} %`;
    this.#showWorkers(reading.workers);
  }

  #showWorkers(workers) {
    const list = element("workers");
    while (list.children.length > workers.length) list.lastChild.remove();
    while (list.children.length < workers.length) {
      const item = document.createElement("li");
      const meter = document.createElement("div");
      meter.className = "meter";
      meter.role = "meter";
      meter.append(document.createElement("i"));
      item.append(meter, document.createElement("span"));
      list.append(item);
    }
    workers.forEach(({ name, share, connected }, n) => {
      const item = list.children[n];
      const [meter, text] = item.children;
      const percent = Math.round(100 * share);
      item.title = name;
      meter.ariaLabel = name;
      meter.ariaValueNow = percent;
      meter.ariaValueText = connected ? `${percent} %` : "disconnected";
      meter.firstChild.style.inlineSize = `${percent}%`;
      text.textContent = meter.ariaValueText;
    });
  }
}
