// What was carried in the last ten minutes, as far as this page has seen it.

const step = 5000; // milliseconds that a point is for
const points = 120;

/** History is what one VM or forward has carried. */
export class History {
  rates = []; // bytes a second, in both directions
  conns = [];
  rate = 0; // between the last two looks
  #slot = 0;
  #first = null; // the counter when the point began
  #last = null;

  /** add takes in a look at a counter of bytes and at the connections there are. */
  add(now, bytes, conns) {
    if (this.#last) {
      const seconds = (now - this.#last.now) / 1000;
      this.rate = seconds > 0 && bytes >= this.#last.bytes ? (bytes - this.#last.bytes) / seconds : 0;
    }
    const slot = Math.floor(now / step);
    if (!this.#first) this.#first = { now, bytes };
    if (slot !== this.#slot) {
      const seconds = (now - this.#first.now) / 1000;
      if (seconds > 0) {
        const rate = Math.max(0, bytes - this.#first.bytes) / seconds;
        // A page in the background looks less often.
        for (let n = Math.min(points, slot - this.#slot); n > 0; n--) {
          this.rates.push(rate);
          this.conns.push(conns);
        }
        this.rates.splice(0, this.rates.length - points);
        this.conns.splice(0, this.conns.length - points);
        this.#first = { now, bytes };
      }
      this.#slot = slot;
    }
    this.#last = { now, bytes };
  }
}

/** line is the path of values in a box, the newest at its right. */
function line(values, width, height) {
  const most = Math.max(1, ...values);
  const from = points - values.length;
  return values.map((v, i) => {
    const x = (((from + i) / (points - 1)) * width).toFixed(1);
    const y = (height - 1 - (v / most) * (height - 2)).toFixed(1);
    return (i ? "L" : "M") + x + " " + y;
  }).join("");
}

/** draw draws a history into an SVG with a path for rates and one for connections. */
export function draw(svg, history) {
  const { width, height } = svg.viewBox.baseVal;
  svg.querySelector(".rate").setAttribute("d", line(history.rates, width, height));
  svg.querySelector(".conns").setAttribute("d", line(history.conns, width, height));
  const label = history.rates.length
    ? `last ten minutes: at most ${size(Math.max(...history.rates))} a second and ${Math.max(...history.conns)} connections`
    : "nothing was seen yet";
  if (svg.getAttribute("aria-label") !== label) svg.setAttribute("aria-label", label);
}

/** size is bytes as people write them. */
export function size(bytes) {
  for (const unit of ["B", "kB", "MB"]) {
    if (bytes < 1000) return `${Number(bytes.toPrecision(3))} ${unit}`;
    bytes /= 1000;
  }
  return `${Number(bytes.toPrecision(3))} GB`;
}
