package output

import (
	"cmp"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// host is one that has VMs: another one, with a heading, or this one without.
type host struct {
	from *status.Discovery // nil for this one
	vms  []status.VM
}

// trouble is lower for hosts that should be seen to.
func (h *host) trouble() int {
	if h.from != nil && h.from.Error != "" {
		return 0
	}
	least := 2
	for _, vm := range h.vms {
		least = min(least, trouble(vm))
	}
	return least
}

// hosts are the VMs by the host that has them, what should be seen to first.
func hosts(st status.Status) []*host {
	here := &host{}
	all := []*host{here}
	by := map[string]*host{"": here}
	for i := range st.Discovery {
		if d := &st.Discovery[i]; d.Host != "" {
			by[d.Host] = &host{from: d}
			all = append(all, by[d.Host])
		}
	}
	for _, vm := range st.VMs {
		h := cmp.Or(by[vm.Host], here)
		h.vms = append(h.vms, vm)
	}
	for _, h := range all {
		slices.SortStableFunc(h.vms, func(a, b status.VM) int { return cmp.Compare(trouble(a), trouble(b)) })
	}
	slices.SortStableFunc(all, func(a, b *host) int { return cmp.Compare(a.trouble(), b.trouble()) })
	return all
}

// writeHosts writes the VMs by host. A host that is well has no heading where its VMs are not what is asked for.
func writeHosts(b *strings.Builder, st status.Status, look Look) {
	began := b.Len()
	gap := func() {
		if b.Len() > began {
			b.WriteByte('\n')
		}
	}
	for _, h := range hosts(st) {
		if d := h.from; d != nil && (d.Error != "" || len(h.vms) > 0 || look.None == "") {
			gap()
			writeHost(b, *d, len(h.vms), look)
		}
		for i, vm := range h.vms {
			if i > 0 || h.from == nil {
				gap()
			}
			writeVM(b, vm, look)
		}
	}
	if len(st.VMs) == 0 {
		gap()
		b.WriteString(wrapped(cmp.Or(look.None, "no VMs"), "", look.Width))
	}
}

// writeHost writes the heading of another host.
func writeHost(b *strings.Builder, d status.Discovery, vms int, look Look) {
	text := Clean(d.Source) + "  "
	switch {
	case d.Error != "":
		text += "error: " + CleanError(d.Error)
	case vms == 0 && d.State == status.Connected:
		text += "no VMs"
	default:
		text += Clean(d.State)
	}
	b.WriteString(wrapped(text, "", look.Width))
}
