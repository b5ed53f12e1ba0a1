// The VMs and their forwards as elements. What a guest says is put in as text and as nothing else.

import { History, draw, size } from "./chart.js";

/** make makes an element. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** say puts a text into an element, if it is another than what is there. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const svgNamespace = "http://www.w3.org/2000/svg";

function spark() {
  const svg = document.createElementNS(svgNamespace, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 120 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  for (const name of ["conns", "rate"]) {
    const path = document.createElementNS(svgNamespace, "path");
    path.setAttribute("class", name);
    svg.append(path);
  }
  return svg;
}

const seen = new IntersectionObserver((entries) => {
  for (const e of entries) e.target.vm.visible = e.isIntersecting;
});

/** urgency is lower for what should be seen to. */
export function urgency(f) {
  if (f.state === "claim" || f.state === "denied" || failsNow(f)) return 0;
  return f.state === "ignored" ? 2 : 1;
}

const failing = 600_000;

function failsNow(f) {
  return !!f.last_error && f.last_error_at && Date.now() - Date.parse(f.last_error_at) < failing;
}

/** trouble is lower for VMs that should be seen to. */
export function trouble(vm) {
  if (vm.state === "down" || vm.state === "incompatible") return 0;
  if (vm.state === "paused" || vm.error) return 1;
  return vm.forwards.some((f) => urgency(f) === 0) ? 2 : 3;
}

/** keysOf tells the forwards of a VM apart, of which several may have one port. */
function keysOf(forwards) {
  const used = new Map();
  return forwards.map((f) => {
    const key = [f.proto, f.port || f.guest[0], f.reverse].join(" ");
    const n = used.get(key) || 0;
    used.set(key, n + 1);
    return key + " " + n;
  });
}

export function portName(f) {
  return (f.port ? `${f.port}/${f.proto}` : "socket") + (f.reverse ? " rev" : "");
}

/** Row is one forward. */
class Row {
  history = new History();

  constructor(vm, explain) {
    const cell = (name, is) => make("td", { class: "c-" + name, "data-is": is, role: "cell" });
    this.port = make("button", { type: "button", class: "port", "aria-haspopup": "dialog" });
    this.port.addEventListener("click", () => explain(vm, this));
    this.state = make("span", { class: "state" });
    this.reason = make("span", { class: "reason" });
    this.links = make("span");
    this.host = make("span");
    this.process = cell("process", "process");
    this.conns = cell("conns", "connections");
    this.rate = cell("rate", "carries");
    const port = cell("port", "port"), state = cell("state", "is"), where = cell("where", "at");
    port.append(this.port);
    state.append(this.state);
    where.append(this.links, this.host, this.reason);
    this.element = make("tr", { role: "row" }, port, state, where, this.process, this.conns, this.rate);
  }

  update(f, now) {
    this.forward = f;
    this.history.add(now, f.bytes_in + f.bytes_out, f.connections_active);
    say(this.port, portName(f) + (f.label ? " " + f.label : ""));
    say(this.state, f.state);
    this.state.className = "state " + f.state;
    const urls = (f.urls || []).filter((u) => u.startsWith("http://")).join(" ");
    if (this.urls !== urls) {
      this.urls = urls;
      this.links.replaceChildren(...(urls ? urls.split(" ").map(link) : []));
    }
    say(this.host, f.host.join(" "));
    say(this.reason, f.reason || (failsNow(f) ? "last error: " + f.last_error : ""));
    say(this.process, f.process || "–");
    say(this.conns, `${f.connections_active}/${f.connections_total}`);
    say(this.rate, this.history.rate >= 1 ? size(this.history.rate) + "/s" : "–");
    this.text = [portName(f), f.label, f.process, f.state, ...f.host].join(" ").toLowerCase();
  }
}

/** link is one that opens a port in a tab of its own. */
export function link(url) {
  return make("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, url.replace(/^http:\/\/|\/$/g, ""));
}

/** Vm is one VM. */
export class Vm {
  history = new History();
  rows = new Map();
  visible = false;

  constructor(name, explain) {
    this.name = name;
    this.explain = explain;
    this.title = make("h2");
    this.state = make("span", { class: "state" });
    this.what = make("p", { class: "what" });
    this.spark = spark();
    this.error = make("p", { class: "error", hidden: "" });
    this.more = make("p", { class: "more", hidden: "" });
    this.body = make("tbody", { role: "rowgroup" });
    const names = [["port", "Port"], ["state", "State"], ["where", "Where"], ["process", "Process"], ["conns", "Conns"], ["rate", "Carries"]];
    const head = make("tr", { role: "row" }, ...names.map(([c, text]) => make("th", { scope: "col", role: "columnheader", class: "c-" + c }, text)));
    this.table = make("table", { role: "table" }, make("thead", { role: "rowgroup" }, head), this.body);
    this.element = make("section", { class: "vm" }, make("header", {}, this.title, make("p", {}, this.state), this.what, this.spark), this.error, this.table, this.more);
    this.element.vm = this;
    say(this.title, name);
    this.element.setAttribute("aria-label", "VM " + name);
    this.table.setAttribute("aria-label", "Forwards of " + name);
    seen.observe(this.element);
  }

  /** update takes in what is told of the VM, row by row, so that others come in between. */
  *update(vm, now, fresh) {
    this.vm = vm;
    say(this.state, vm.state);
    this.state.className = "state " + vm.state;
    const parts = [vm.endpoint, vm.auth && "auth " + vm.auth, vm.agent_version && "agent " + vm.agent_version, vm.loopback, vm.web_name && "name " + vm.web_name];
    say(this.what, parts.filter(Boolean).join(" · "));
    const error = [vm.error, vm.remedy, vm.warning, vm.config && vm.config.error].filter(Boolean).join("; ");
    say(this.error, error);
    this.error.hidden = !error;
    const more = Object.entries(vm.more || {}).map(([state, n]) => `${n} ${state}`).join(", ");
    say(this.more, more && `and more: ${more}; rum-host-agent status shows them`);
    this.more.hidden = !more;
    this.table.hidden = vm.forwards.length === 0;
    let bytes = 0, conns = 0;
    const left = new Set(this.rows.keys());
    const order = [];
    const keys = keysOf(vm.forwards);
    const keyed = vm.forwards.map((f, i) => [f, keys[i]]);
    for (const [f, key] of keyed.sort(([a], [b]) => urgency(a) - urgency(b))) {
      left.delete(key);
      let row = this.rows.get(key);
      if (!row) {
        row = new Row(this, this.explain);
        this.rows.set(key, row);
        if (!fresh) row.element.classList.add("new");
      }
      row.update(f, now);
      order.push(row.element);
      bytes += f.bytes_in + f.bytes_out;
      conns += f.connections_active;
      yield;
    }
    for (const key of left) {
      this.rows.get(key).element.remove();
      this.rows.delete(key);
    }
    arrange(this.body, order);
    this.history.add(now, bytes, conns);
    if (this.visible || fresh) draw(this.spark, this.history);
  }

  /** find shows the rows that have a text, and the VM if it has one. */
  find(text) {
    let any = !text || this.name.toLowerCase().includes(text);
    const all = any;
    for (const row of this.rows.values()) {
      const shown = all || row.text.includes(text);
      if (row.element.hidden === shown) row.element.hidden = !shown;
      any ||= shown;
    }
    this.element.hidden = !any;
  }

  remove() {
    seen.unobserve(this.element);
    this.element.remove();
  }
}

/** arrange puts children into an order, and touches none that is in its place. Who has the focus keeps it. */
export function arrange(parent, order) {
  const focused = document.activeElement;
  let at = parent.firstElementChild;
  for (const child of order) {
    if (child === at) {
      at = at.nextElementSibling;
    } else {
      parent.insertBefore(child, at);
    }
  }
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}
