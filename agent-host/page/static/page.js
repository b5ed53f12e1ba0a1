// The page: it asks for a status now and then, for rates, and of a VM to which something happens at once. What is told
// becomes elements in the frames that the browser draws, a few milliseconds of work in each.

import { NoSession, ask, begin, events, json } from "./api.js";
import { adding, refresh, show } from "./panel.js";
import { Vm, arrange, make, portName, say, trouble, urgency } from "./rows.js";

const rows = 4000; // about so many forwards are asked for
const few = 500; // up to so many, they are looked at every second
const everySecond = 1000, everyFew = 5000;
const frameTime = 8; // milliseconds of work in a frame
const gather = 50; // milliseconds in which what happens is gathered
const manyVMs = 8; // from so many on, all are asked for at once
const maxHappened = 100;
const settling = 1000; // no page is opened by who clicks sooner: it was meant for what was there before

const element = (id) => document.getElementById(id);
const vms = new Map();
let status = null;

/* What is to be drawn: a generator for each VM, of which a newer one takes the place of an older. */

const work = new Map();
let drawing = false;

function draw(name, steps) {
  work.set(name, steps);
  if (!drawing) {
    drawing = true;
    soon();
  }
}

/** soon calls frame with the next frame, or within a second where the browser draws none, as for a tab that nobody sees. */
function soon() {
  const next = requestAnimationFrame(() => {
    clearTimeout(timer);
    frame();
  });
  const timer = setTimeout(() => {
    cancelAnimationFrame(next);
    frame();
  }, everySecond);
}

function frame() {
  const end = performance.now() + frameTime;
  for (const [name, steps] of work) {
    let done = false;
    while (!done && performance.now() < end) done = steps.next().done;
    if (!done) break;
    work.delete(name);
  }
  if (work.size) {
    soon();
    return;
  }
  drawing = false;
  refresh();
}

/* What is told. */

function take(told, whole) {
  const now = performance.now();
  const fresh = vms.size === 0;
  for (const vm of told.vms) {
    let one = vms.get(vm.name);
    if (!one) {
      one = new Vm(vm.name, show);
      vms.set(vm.name, one);
    }
    one.told = vm;
    draw(vm.name, one.update(vm, now, fresh || !one.element.isConnected));
  }
  if (whole) {
    const names = new Set(told.vms.map((vm) => vm.name));
    for (const [name, one] of vms) {
      if (names.has(name)) continue;
      one.remove();
      vms.delete(name);
      work.delete(name);
    }
    status = told;
  }
  draw("", finish()); // behind the VMs
}

/** finish sets what is above and around the VMs, when these are drawn. */
function* finish() {
  const all = [...vms.values()].sort((a, b) => trouble(a.told) - trouble(b.told) || a.name.localeCompare(b.name));
  yield;
  arrange(element("vms"), byHost(all));
  yield;
  find();
  yield;
  let forwards = 0;
  const problems = [];
  for (const { name, told } of all) {
    if (trouble(told) < 2) problems.push(`${name} is ${told.state}${told.error ? ": " + told.error : ""}`);
    for (const f of told.forwards) {
      if (f.state === "active") forwards++;
      else if (urgency(f) === 0) problems.push(`${name} ${portName(f)}: ${f.reason}`);
    }
  }
  if (status) problems.unshift(...troubles(status));
  say(element("summary"), `${all.length} VMs, ${forwards} ports forwarded, ${problems.length} to be seen to`);
  const shown = problems.slice(0, 20);
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more, which come first below`);
  list("problems", shown, (text) => make("li", {}, text));
}

const headings = new Map(); // of other hosts, by name

/** byHost are the elements of VMs, those of other hosts behind this one's and each below a heading. */
function byHost(all) {
  const hosts = ((status && status.discovery) || []).filter((d) => d.host);
  const names = new Set(hosts.map((d) => d.host));
  const order = all.filter((one) => !names.has(one.told.host)).map((one) => one.element);
  for (const d of hosts) {
    if (!headings.has(d.host)) headings.set(d.host, make("h2", { class: "host" }));
    const heading = headings.get(d.host);
    say(heading, `${d.source}  ${d.error || d.state}`);
    order.push(heading, ...all.filter((one) => one.told.host === d.host).map((one) => one.element));
  }
  return order;
}

/** troubles are those of the agent itself. */
function troubles(st) {
  const all = [st.warning, st.config && st.config.error];
  for (const p of st.projects || []) all.push(p.error && `${p.file}: ${p.error}`);
  for (const r of st.refused_projects || []) all.push(`${r.path}: ${r.reason}; ${r.remedy}`);
  for (const d of st.discovery || []) all.push(d.error && `${d.source}: ${d.error}`);
  for (const s of st.setups || []) all.push(s.error && `${s.domain}: ${s.error}`);
  return all.filter(Boolean);
}

/** list fills a section with items, and hides it where there are none. It returns whether they are others than before. */
function list(id, items, item) {
  const section = element(id);
  section.hidden = items.length === 0;
  const key = JSON.stringify(items);
  if (section.told === key) return false;
  section.told = key;
  section.querySelector("ul").replaceChildren(...items.map(item));
  return true;
}

function find() {
  const text = element("find").value.trim().toLowerCase();
  for (const one of vms.values()) one.find(text);
}

async function lookAtAll() {
  take(await json("/v1/status", { rows }), true);
  await lookAtAsked();
  const { forwards } = await json("/v1/forwards", {});
  list("added", forwards || [], (f) => {
    const until = f.ends_at ? `, for the answer of a page, until ${new Date(f.ends_at).toLocaleTimeString()}` : "";
    const text = `${f.host}:${f.guest}/${f.proto} of ${f.vm}: ${f.state || f.reason || "nothing listens there"}${until}`;
    const remove = make("button", { type: "button" }, "Remove");
    remove.setAttribute("aria-label", `Remove ${text}`);
    remove.addEventListener("click", async () => {
      try {
        await ask("/v1/forwards", { vm: f.vm, ports: `${f.host}:${f.guest}`, proto: f.proto }, "DELETE");
        await lookAtAll();
      } catch (error) {
        failed(error);
      }
    });
    return make("li", {}, text + " ", remove);
  });
}

/** lookAtAsked shows the pages that VMs ask to open: the host of each before all that its URL may hide that in. */
async function lookAtAsked() {
  const { requests } = await json("/v1/requests", {});
  const others = list("asked", requests || [], (r) => {
    const url = make("code", {}, r.url);
    const text = make("p", {}, `${r.vm} asks to open a page of `, make("strong", {}, r.host), r.place ? `, which is on ${r.place}: ` : ": ", url);
    const said = make("p", { class: "said", role: "status" });
    const answer = (name, value) => {
      const button = make("button", { type: "button", class: value }, name);
      button.setAttribute("aria-label", `${name} the page of ${r.host} that ${r.vm} asks for`);
      button.addEventListener("click", async () => {
        if (button.getAttribute("aria-disabled") === "true") return;
        try {
          await ask("/v1/requests", { id: r.id, answer: value }, "POST");
          await lookAtAsked();
        } catch (error) {
          say(said, error.message);
        }
      });
      return button;
    };
    return make("li", {}, text, answer("Open", "open"), " ", answer("Refuse", "refuse"), said);
  });
  if (others) settle();
}

let settled; // the timer that has pages opened again

/**
 * settle has no page opened for a moment, since a VM decides when something comes to be under the user's pointer, and a
 * site when its window over this one goes. A button that is disabled for ARIA alone keeps the focus.
 */
function settle() {
  const disable = (disabled) => {
    for (const button of element("asked").querySelectorAll("button.open")) button.setAttribute("aria-disabled", disabled);
  };
  clearTimeout(settled);
  disable(true);
  settled = setTimeout(disable, settling, false);
}

/* What happens. */

const happened = new Set(); // the VMs to which something has
let gathering = false;

async function lookAtHappened() {
  const names = [...happened];
  happened.clear();
  try {
    if (names.length > manyVMs) {
      await lookAtAll();
    } else {
      const told = await Promise.all(names.map((vm) => json("/v1/status", { vm, rows })));
      for (const one of told) take(one, false);
      if (told.some((one) => one.vms.length === 0)) await lookAtAll(); // that VM has gone
    }
  } catch (error) {
    failed(error);
  }
  gathering = happened.size > 0;
  if (gathering) setTimeout(lookAtHappened, gather);
}

function happens(all) {
  for (const e of all) {
    if (e.vm) happened.add(e.vm);
  }
  if (!gathering && happened.size) {
    gathering = true;
    setTimeout(lookAtHappened, gather);
  }
  if (all.some((e) => e.kind.startsWith("page_"))) lookAtAsked().catch(failed);
  const log = element("happened").querySelector("ol");
  const items = all.slice(-maxHappened).reverse().map((e) => {
    const port = e.port || e.socket ? portName({ port: e.port, proto: e.proto }) : "";
    const parts = [new Date(e.time).toLocaleTimeString(), e.kind.replaceAll("_", " "), e.vm, port, (e.host || []).join(" "), e.process, e.words];
    return make("li", {}, parts.filter(Boolean).join("  "));
  });
  log.prepend(...items);
  while (log.childElementCount > maxHappened) log.lastElementChild.remove();
}

/* What goes wrong. */

function notice(text) {
  say(element("notice"), text);
  element("notice").hidden = !text;
}

/** failed tells of an error, and whether there is a session to go on with. */
function failed(error) {
  if (error instanceof NoSession) {
    notice("This page needs a link, which holds once: open it with rum-host-agent dashboard");
    return false;
  }
  notice(`The agent does not answer: ${error.message}. It is asked again.`);
  return true;
}

const pause = (time) => new Promise((done) => setTimeout(done, time));

async function watch() {
  for (let since = "10m"; ; await pause(everySecond)) {
    try {
      for await (const all of events(since)) {
        since = String(all.at(-1).cursor);
        happens(all);
      }
    } catch (error) {
      if (!failed(error)) return;
    }
  }
}

async function look() {
  for (;;) {
    let wait = everySecond;
    try {
      await lookAtAll();
      notice("");
      const count = status.vms.reduce((n, vm) => n + vm.forwards.length, 0);
      if (count > few) wait = everyFew;
    } catch (error) {
      if (!failed(error)) return;
    }
    await pause(wait);
  }
}

window.addEventListener("focus", settle);
element("find").addEventListener("input", find);
element("add-open").addEventListener("click", () => adding([...vms.keys()], lookAtAll));

await begin().catch(failed);
look();
watch();
