package setup

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

// NewUndo says what setup added to the domain and how it would be taken away. The host-only network goes with the last
// domain on it, if setup made it.
func NewUndo(ctx context.Context, c *libvirt.Conn, domain, hostOnly string) (*Plan, error) {
	defer c.Bound(ctx, planLimit)()
	p, _, err := newPlan(c, domain)
	if err != nil {
		return nil, err
	}
	if p.after, p.detach, err = removeAdded(p.before); err != nil {
		return nil, fmt.Errorf("domain %s: %w", p.Domain, err)
	}
	for _, alias := range p.detach {
		p.Steps = append(p.Steps, "remove from "+p.Domain+": "+alias)
	}
	if p.after != p.before && len(p.Steps) == 0 {
		p.Steps = append(p.Steps, "remove from "+p.Domain+": the note of what setup added")
	}
	p.Diff = diffText("domain "+p.Domain, p.before, p.after)
	if hostOnly == "" {
		return p, nil
	}
	n, err := c.Network(hostOnly)
	if err != nil || !n.Ours {
		return p, err
	}
	nics, err := c.NICs()
	if err != nil {
		return nil, err
	}
	for _, u := range nics {
		if u.Network != hostOnly || u.UUID == p.UUID && !p.running && removedMAC(p, u.MAC) {
			continue
		}
		p.Notes = append(p.Notes, fmt.Sprintf("network %s stays: domain %s is on it", hostOnly, u.Domain))
		return p, nil
	}
	p.networks = append(p.networks, networkStep{name: hostOnly, remove: true})
	p.Steps = append(p.Steps, "remove network "+hostOnly+", which no other domain uses")
	return p, nil
}

// removedMAC reports whether the plan takes away the NIC with this MAC address.
func removedMAC(p *Plan, mac string) bool {
	return !strings.Contains(strings.ToLower(p.after), mac)
}

// removeAdded returns a definition without what setup added, and the aliases of the devices that went.
func removeAdded(text string) (after string, aliases []string, err error) {
	root, err := parseText(text)
	if err != nil {
		return "", nil, err
	}
	var edits []splice
	gone := map[*element]bool{}
	if devices := root.child("devices"); devices != nil {
		for _, e := range devices.children {
			if alias := e.child("alias").attr("name"); strings.HasPrefix(alias, libvirt.AliasPrefix) {
				aliases = append(aliases, alias)
				gone[e] = true
			}
		}
		noted := readNote(root)
		markControllers(devices, noted.controllers, gone)
		for _, e := range devices.children {
			if gone[e] {
				edits = append(edits, removal(text, e))
			} else if at := placeOf(e); slices.Contains(noted.shared, at) && aloneInSlot(devices, e, gone) {
				edits = append(edits, withoutMultifunction(text, e.child("address"))...)
			}
		}
	}
	if metadata := root.child("metadata"); metadata != nil {
		if i := slices.IndexFunc(metadata.children, isNote); i >= 0 {
			if len(metadata.children) == 1 {
				edits = append(edits, removal(text, metadata))
			} else {
				edits = append(edits, removal(text, metadata.children[i]))
			}
		}
	}
	return apply(text, edits), aliases, nil
}

// markControllers adds the noted controllers that nothing uses any more to what goes. A PCI controller goes only from the
// end of the numbering, because libvirt fills gaps.
func markControllers(devices *element, noted []controller, gone map[*element]bool) {
	for changed := true; changed; {
		changed = false
		for _, e := range devices.children {
			if e.name.Local != "controller" || gone[e] || !slices.Contains(noted, controllerOf(e)) || inUse(devices, e, gone) {
				continue
			}
			gone[e], changed = true, true
		}
	}
}

// inUse reports whether a device that stays is plugged into the controller, or a PCI controller of a higher number stays.
func inUse(devices, ctl *element, gone map[*element]bool) bool {
	kind := ctl.attr("type")
	index, err := strconv.ParseUint(ctl.attr("index"), 0, 32)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(devices.children, func(e *element) bool {
		if gone[e] || e == ctl {
			return false
		}
		if kind == "pci" && e.name.Local == "controller" && e.attr("type") == "pci" {
			if other, err := strconv.ParseUint(e.attr("index"), 0, 32); err != nil || other > index {
				return true
			}
		}
		address := e.child("address")
		plug := "controller"
		if kind == "pci" {
			plug = "bus"
		}
		at, err := strconv.ParseUint(address.attr(plug), 0, 32)
		return address.attr("type") == kind && (err != nil || at == index)
	})
}

// aloneInSlot reports whether no other device that stays is a function of the slot that e is in.
func aloneInSlot(devices, e *element, gone map[*element]bool) bool {
	slot := placeOf(e)
	slot.function = ""
	return !slices.ContainsFunc(devices.children, func(other *element) bool {
		at := placeOf(other)
		at.function = ""
		return other != e && !gone[other] && at == slot
	})
}

var multifunctionOn = regexp.MustCompile(`\s+multifunction\s*=\s*['"]on['"]`)

// withoutMultifunction is the edit that takes the attribute out of the tag of an address, if it has it.
func withoutMultifunction(text string, address *element) []splice {
	at := multifunctionOn.FindStringIndex(text[address.start:address.inner])
	if at == nil {
		return nil
	}
	return []splice{{address.start + at[0], address.start + at[1], ""}}
}
