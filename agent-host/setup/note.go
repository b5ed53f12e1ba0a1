package setup

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

// note is what setup writes into a domain's metadata: what libvirt changed for the devices of ours and no alias can mark.
type note struct {
	controllers []controller // that libvirt added
	shared      []place      // of a device that got multifunction='on', because libvirt put another beside it
}

// controller names a controller of a domain.
type controller struct{ kind, index string }

// place is a PCI address; the zero value is that of a device without one.
type place struct{ domain, bus, slot, function string }

func isNote(e *element) bool { return e.name.Space == libvirt.SetupNamespace }

// readNote reads what earlier setups noted.
func readNote(root *element) note {
	var n note
	metadata := root.child("metadata")
	if metadata == nil {
		return n
	}
	for _, e := range metadata.children {
		if !isNote(e) {
			continue
		}
		for _, c := range e.children {
			switch c.name.Local {
			case "controller":
				n.controllers = append(n.controllers, controllerOf(c))
			case "multifunction":
				n.shared = append(n.shared, place{c.attr("domain"), c.attr("bus"), c.attr("slot"), c.attr("function")})
			}
		}
	}
	return n
}

// noteOf is the metadata for what is in the definition after a change and was not before, together with what was noted
// earlier; empty for nothing.
func noteOf(before, after string) (string, error) {
	old, err := parseText(before)
	if err != nil {
		return "", err
	}
	now, err := parseText(after)
	if err != nil {
		return "", err
	}
	n := readNote(old)
	had := controllers(old)
	for _, ctl := range controllers(now) {
		if !slices.Contains(had, ctl) && !slices.Contains(n.controllers, ctl) {
			n.controllers = append(n.controllers, ctl)
		}
	}
	alone := places(old, "")
	for _, at := range places(now, "on") {
		if slices.Contains(alone, at) && !slices.Contains(n.shared, at) {
			n.shared = append(n.shared, at)
		}
	}
	if len(n.controllers)+len(n.shared) == 0 {
		return "", nil
	}
	var b strings.Builder
	b.WriteString("<setup>")
	for _, ctl := range n.controllers {
		fmt.Fprintf(&b, "<controller type='%s' index='%s'/>", ctl.kind, ctl.index)
	}
	for _, at := range n.shared {
		fmt.Fprintf(&b, "<multifunction domain='%s' bus='%s' slot='%s' function='%s'/>", at.domain, at.bus, at.slot, at.function)
	}
	b.WriteString("</setup>")
	return b.String(), nil
}

func controllers(root *element) []controller {
	var all []controller
	if devices := root.child("devices"); devices != nil {
		for _, e := range devices.children {
			if e.name.Local == "controller" {
				all = append(all, controllerOf(e))
			}
		}
	}
	return all
}

func controllerOf(e *element) controller {
	return controller{e.attr("type"), e.attr("index")}
}

// places are the PCI addresses whose attribute multifunction has this value, empty for those without it.
func places(root *element, multifunction string) []place {
	var all []place
	if devices := root.child("devices"); devices != nil {
		for _, e := range devices.children {
			if at := placeOf(e); at != (place{}) && e.child("address").attr("multifunction") == multifunction {
				all = append(all, at)
			}
		}
	}
	return all
}

func placeOf(e *element) place {
	a := e.child("address")
	if a.attr("type") != "pci" {
		return place{}
	}
	return place{a.attr("domain"), a.attr("bus"), a.attr("slot"), a.attr("function")}
}
