package output

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// fitted is a status in so many lines as look has. Forwards that are well are left out first, and
// counted. What is too long even without any is cut at its end.
func fitted(st status.Status, look Look) string {
	text := statusText(st, look)
	if look.Height == 0 || lines(text) <= look.Height {
		return text
	}
	st.VMs = slices.Clone(st.VMs)
	for i := range st.VMs {
		vm := &st.VMs[i]
		vm.Forwards, vm.More = bySeverity(vm), maps.Clone(vm.More)
	}
	for over := lines(text) - look.Height; over > 0 && leaveOut(st.VMs); over = lines(text) - look.Height {
		for range over / 4 { // several at once, for there may be a thousand; not all, for one may take some lines
			leaveOut(st.VMs)
		}
		text = statusText(st, look)
	}
	all := slices.Collect(strings.Lines(text))
	return strings.Join(all[:min(len(all), look.Height)], "")
}

func lines(text string) int { return strings.Count(text, "\n") }

// bySeverity are the forwards of a VM, problems first.
func bySeverity(vm *status.VM) []status.Forward {
	all := slices.Clone(vm.Forwards)
	slices.SortStableFunc(all, func(a, b status.Forward) int { return cmp.Compare(urgency(vm, &a), urgency(vm, &b)) })
	return all
}

// leaveOut takes away the forward that is the least to be seen to: the last of a VM's, and of
// several VMs' of the one that shows most. It reports whether there was one.
func leaveOut(vms []status.VM) bool {
	var from *status.VM
	last := func(vm *status.VM) *status.Forward { return &vm.Forwards[len(vm.Forwards)-1] }
	for i := range vms {
		vm := &vms[i]
		if len(vm.Forwards) == 0 {
			continue
		}
		if from == nil || cmp.Or(cmp.Compare(urgency(vm, last(vm)), urgency(from, last(from))),
			cmp.Compare(len(vm.Forwards), len(from.Forwards))) > 0 {
			from = vm
		}
	}
	if from == nil {
		return false
	}
	if from.More == nil {
		from.More = make(map[string]int)
	}
	from.More[last(from).State]++
	from.Forwards = from.Forwards[:len(from.Forwards)-1]
	return true
}
