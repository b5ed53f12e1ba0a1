package page

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Named adds to what is told of VMs under which names their ports are found, while these are served.
func (p *Page) Named(vms iter.Seq[status.VM]) iter.Seq[status.VM] {
	if p.Status().State != status.Active {
		return vms
	}
	return func(yield func(status.VM) bool) {
		p.labels.follow(p.Names())
		for vm := range vms {
			if label := p.labels.label(vm.Name); label != "" { // which one that has just gone has not
				vm.WebName = label + p.suffix
				for i := range vm.Forwards {
					vm.Forwards[i].URLs = urls(&vm.Forwards[i], vm.WebName)
				}
			}
			if !yield(vm) {
				return
			}
		}
	}
}

// urls are those of a forward of a VM that has a name.
func urls(f *status.Forward, web string) (all []string) {
	if f.Proto == "udp" || f.Reverse || f.State != status.Active && f.State != status.Claim {
		return nil
	}
	if label := ruleLabel(f.Label); label != "" {
		all = append(all, fmt.Sprintf("http://%s.%s/", label, web))
	}
	if f.Port != 0 {
		all = append(all, fmt.Sprintf("http://%d.%s/", f.Port, web))
	}
	return all
}

// ruleLabel is what the label of a rule is in a name; empty where that is a number, which is a port's.
func ruleLabel(text string) string {
	label := labelOf(text)
	if _, err := strconv.Atoi(label); err == nil {
		return ""
	}
	return label
}

// service tells what a name means: what is before the first dot is a port or the label of a rule, and what is
// behind it a VM.
func (p *Page) service(name string) (vm string, meant func(port uint16, label string) bool, ok bool) {
	first, label, ok := strings.Cut(name, ".")
	if !ok {
		return "", nil, false
	}
	if vm, ok = p.labels.vm(label); !ok {
		p.labels.follow(p.Names())
		vm, ok = p.labels.vm(label)
	}
	// Only as it is usually written: each other spelling would be an origin of its own.
	if port, err := strconv.ParseUint(first, 10, 16); err == nil && strconv.FormatUint(port, 10) == first {
		return vm, func(p uint16, _ string) bool { return p == uint16(port) && port != 0 }, ok
	}
	return vm, func(_ uint16, l string) bool { return l != "" && ruleLabel(l) == first }, ok
}

// found are the VMs that a name may be meant for: the one that it ends with, or all.
func (p *Page) found(name string) []status.VM {
	of := name[strings.LastIndexByte(name, '.')+1:]
	q := status.Query{Rows: maxFound}
	if vm, ok := p.labels.vm(of); ok {
		q.VM = vm
	}
	return slices.Collect(p.Named(p.VMs(q)))
}

// maxFound is about how many ports the page for an unknown name shows.
const maxFound = 200
