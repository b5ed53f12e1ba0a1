package page

import (
	"fmt"
	"strings"
	"sync"
)

// maxLabel is the most that a part of a name may have (RFC 1035, 2.3.4).
const maxLabel = 63

// labelOf is a part of a name made of any text: in lower case, with a dash for whatever has no place there.
// Empty where nothing is left.
func labelOf(text string) string {
	mapped := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(text))
	label := strings.Trim(mapped[:min(len(mapped), maxLabel)], "-")
	// Two dashes in the third and fourth place, as in xn--, are for other alphabets (RFC 5890, 2.3.1).
	if len(label) > 4 && label[2:4] == "--" {
		label = label[:3] + strings.TrimLeft(label[3:], "-")
	}
	return label
}

// labels are what VMs are called in names of ports. A VM whose name is a label has that one; of others, who came first
// keeps its own for as long as it is there.
type labels struct {
	mu  sync.Mutex
	of  map[string]string // by VM
	vms map[string]string // by label
}

// follow takes in which VMs there are.
func (l *labels) follow(vms []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	there := make(map[string]bool, len(vms))
	for _, vm := range vms {
		there[vm] = true
	}
	for vm, label := range l.of {
		if !there[vm] {
			delete(l.of, vm)
			delete(l.vms, label)
		}
	}
	if l.of == nil {
		l.of, l.vms = make(map[string]string), make(map[string]string)
	}
	for _, vm := range vms {
		if other, taken := l.vms[vm]; labelOf(vm) == vm && other != vm {
			if taken {
				delete(l.of, other)
			}
			l.of[vm], l.vms[vm] = vm, vm
		}
	}
	for _, vm := range vms {
		if _, has := l.of[vm]; !has {
			label := l.free(vm)
			l.of[vm], l.vms[label] = label, vm
		}
	}
}

// free is a label for a VM that no other has.
func (l *labels) free(vm string) string {
	first := labelOf(vm)
	if first == "" {
		first = "vm"
	}
	label := first
	for n := 2; ; n++ {
		if _, taken := l.vms[label]; !taken {
			return label
		}
		number := fmt.Sprintf("-%d", n)
		label = first[:min(len(first), maxLabel-len(number))] + number
	}
}

// label is what a VM is called; "" for one that is not there.
func (l *labels) label(vm string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[vm]
}

// vm is which one is called so.
func (l *labels) vm(label string) (vm string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	vm, ok = l.vms[label]
	return vm, ok
}
