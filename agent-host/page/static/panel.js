// What one forward is, why it answers or not, and what can be done about it; and the form that adds one.

import { ask, json } from "./api.js";
import { draw, size } from "./chart.js";
import { link, make, portName, say } from "./rows.js";

const panel = document.getElementById("panel");
const part = (selector) => panel.querySelector(selector);
let shown = null; // the VM and the row

/** hostPort is the port of this host that a forward has or wants; 0 for none. */
function hostPort(f) {
  for (const address of f.host) {
    const port = Number(address.slice(address.lastIndexOf(":") + 1));
    if (!address.startsWith("/") && port) return port;
  }
  return 0;
}

/** show opens the panel on a forward. */
export async function show(vm, row) {
  shown = { vm, row };
  const f = row.forward;
  say(part("h2"), `${vm.name} ${portName(f)}`);
  part(".open").replaceChildren(...(f.urls || []).filter((u) => u.startsWith("http://")).map(link));
  for (const address of f.listening) {
    if (f.proto === "tcp" && !address.startsWith("/")) part(".open").append(" ", link(`http://${address}/`));
  }
  say(part(".said"), "");
  part(".chains").replaceChildren();
  const release = part("#release");
  release.hidden = f.reverse || f.state === "ignored" || !hostPort(f);
  say(release, `Release port ${hostPort(f)}`);
  refresh();
  if (!panel.open) panel.showModal();
  if (f.reverse || !f.port) return;
  try {
    const chains = await json("/v1/explain", { vm: vm.name, proto: f.proto, port: f.port });
    if (shown && shown.row === row) part(".chains").replaceChildren(...chains.explanations.map(chain));
  } catch (error) {
    say(part(".said"), error.message);
  }
}

/** chain is an explanation as elements. */
function chain(e) {
  const steps = e.steps.map((s) => make("li", { class: s.ok ? "" : "fails" }, `${s.ok ? "✓" : "✗ fails:"} ${s.name}: ${s.text}`));
  const made = make("div", {}, make("p", {}, e.works ? "It works, as far as the agent knows." : "It does not work."), make("ol", {}, ...steps));
  if (e.remedy) made.append(make("p", { class: "remedy" }, "To do: " + e.remedy));
  return made;
}

/** refresh draws what the panel is about anew. */
export function refresh() {
  if (!shown) return;
  const { row } = shown;
  draw(part(".chart"), row.history);
  const f = row.forward;
  say(part(".legend"), `${f.connections_active} connections (the thin line), ${size(row.history.rate)} a second (the thick one); ` +
    `${size(f.bytes_in)} came from the VM, ${size(f.bytes_out)} went there`);
}

panel.addEventListener("close", () => {
  const row = shown && shown.row;
  shown = null;
  if (row && row.port.isConnected) row.port.focus();
});

part("#release").addEventListener("click", async () => {
  const { vm, row } = shown;
  const f = row.forward;
  try {
    await ask("/v1/release", { vm: vm.name, proto: f.proto === "udp" ? "udp" : "tcp", port: hostPort(f) }, "POST");
    panel.close();
  } catch (error) {
    say(part(".said"), error.message);
  }
});

const add = document.getElementById("add");
const form = document.getElementById("add-form");

/** adding opens the form, for the VMs of those names, and calls done after something was added. */
export function adding(names, done) {
  form.elements.vm.replaceChildren(...names.map((name) => make("option", {}, name)));
  say(form.querySelector(".said"), "");
  form.onsubmit = async (event) => {
    event.preventDefault();
    const { vm, guest, host, proto } = form.elements;
    try {
      await ask("/v1/forwards", { vm: vm.value, ports: (host.value ? host.value + ":" : "") + guest.value, proto: proto.value }, "POST");
      form.reset();
      add.close();
      done();
    } catch (error) {
      say(form.querySelector(".said"), error.message);
    }
  };
  add.showModal();
}

form.querySelector(".cancel").addEventListener("click", () => add.close());
