package hostagent

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/added"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// AddForward adds a rule to those of a VM, before all others and until the agent ends: ports
// as [config.ParseMapping] reads them. An empty name is the only VM. The error wraps
// [fs.ErrNotExist] where there is no such VM, and [fs.ErrExist] as [added.Set.Add] says.
func (a *Agent) AddForward(vm, ports, proto string, hold time.Duration) (status.Added, error) {
	f, err := a.added(vm, ports, proto)
	if err != nil {
		return status.Added{}, err
	}
	f.Hold, f.At = hold, time.Now()
	began := a.cfg.Events.Now()
	if err := a.changeAdded(func() error { return a.adds.Add(f) }); err != nil {
		return status.Added{}, err
	}
	a.cfg.Log.Info("forward added", "vm", f.VM, "forward", f.Mapping)
	st := a.statusOf(f, a.forwardsOf(f.VM))
	if st.State == status.Claim {
		a.awaitHolder(f, began)
		st = a.statusOf(f, a.forwardsOf(f.VM))
	}
	return st, nil
}

// holderWait bounds how long it may take to find out which program has a host port.
const holderWait = 2 * time.Second

// awaitHolder waits until it is known what a forward that was added waits for, which is when a
// claim is told of.
func (a *Agent) awaitHolder(f added.Forward, began uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), holderWait)
	defer cancel()
	_ = a.cfg.Events.Follow(ctx, began, func(all []events.Event) error {
		if slices.ContainsFunc(all, func(e events.Event) bool { return e.VM == f.VM && e.Rule == f.RuleName() }) {
			return errHappened
		}
		return nil
	})
}

// RemoveForward takes back what AddForward has added. The error wraps
// [fs.ErrNotExist] where it has not, and where there is no such VM.
func (a *Agent) RemoveForward(vm, ports, proto string) (status.Added, error) {
	f, err := a.added(vm, ports, proto)
	if err != nil {
		return status.Added{}, err
	}
	for _, there := range a.adds.List(f.VM) {
		if there.Mapping == f.Mapping {
			f = there
		}
	}
	was := a.statusOf(f, a.forwardsOf(f.VM))
	if err := a.changeAdded(func() error { return a.adds.Remove(f.VM, f.Mapping) }); err != nil {
		if r := f.Written(a.rulesOf(f.VM), f.VM); r != nil {
			err = fmt.Errorf("%w; %s has it, and is where it is taken out", err, r.Name)
		}
		return status.Added{}, err
	}
	a.cfg.Log.Info("forward taken back", "vm", f.VM, "forward", f.Mapping)
	return was, nil
}

// changeAdded uses the rules of what is added after a change that succeeds.
func (a *Agent) changeAdded(change func() error) error {
	a.rulesMu.Lock()
	defer a.rulesMu.Unlock()
	if err := change(); err != nil {
		return err
	}
	a.rules.added = a.adds.Rules()
	a.useRules()
	return nil
}

// AddedForwards are those of a VM, or with an empty name of all, and what has become of them. The
// error wraps [fs.ErrNotExist] where there is no such VM, and nothing was added to one.
func (a *Agent) AddedForwards(vm string) ([]status.Added, error) {
	all := []status.Added{}
	forwards := make(map[string][]status.Forward)
	for _, f := range a.adds.List(vm) {
		if _, known := forwards[f.VM]; !known {
			forwards[f.VM] = a.forwardsOf(f.VM)
		}
		all = append(all, a.statusOf(f, forwards[f.VM]))
	}
	if len(all) == 0 && vm != "" && !slices.Contains(a.Names(), vm) {
		return nil, a.noVM(vm)
	}
	return all, nil
}

// added reads what a command says of a forward. The VM has to be there.
func (a *Agent) added(vm, ports, proto string) (f added.Forward, err error) {
	switch names := a.Names(); {
	case vm == "" && len(names) == 1:
		vm = names[0]
	case vm == "" && len(names) > 1:
		return f, fmt.Errorf("for which VM? %s", a.serves())
	case !slices.Contains(names, vm):
		return f, a.noVM(vm)
	}
	f.VM = vm
	f.Mapping, err = config.ParseMapping(ports, config.Proto(proto))
	return f, err
}

// maxNamed bounds how many VMs an error names.
const maxNamed = 20

// serves says which VMs there are.
func (a *Agent) serves() string {
	names := a.Names()
	if len(names) == 0 {
		return "the agent serves none"
	}
	slices.Sort(names)
	return "the agent serves " + strings.Join(names[:min(len(names), maxNamed)], ", ")
}

func (a *Agent) noVM(name string) error { return &noVMError{name, a.serves()} }

// noVMError says that there is no VM of a name, and which there are.
type noVMError struct{ name, serves string }

func (e *noVMError) Error() string { return fmt.Sprintf("there is no VM %q; %s", e.name, e.serves) }
func (e *noVMError) Unwrap() error { return fs.ErrNotExist }

// forwardsOf are those of a VM, by protocol and port; nil where that is not there.
func (a *Agent) forwardsOf(vm string) []status.Forward {
	a.mu.Lock()
	v := a.find(vm)
	a.mu.Unlock()
	if v == nil {
		return nil
	}
	return append([]status.Forward{}, v.forwards.Status()...)
}

// statusOf tells what has become of a forward that was added, among those of its VM.
func (a *Agent) statusOf(f added.Forward, forwards []status.Forward) status.Added {
	st := status.Added{VM: f.VM, Proto: string(f.Proto), Host: f.Host.String(), Guest: f.Guest.String(), Rule: f.RuleName(), AddedAt: f.At}
	if f.Hold > 0 {
		st.Hold = f.Hold.String()
	}
	if forwards == nil {
		st.Reason = "the VM is not there now"
		return st
	}
	first, _ := slices.BinarySearchFunc(forwards, st.Proto, func(row status.Forward, proto string) int {
		return cmp.Or(cmp.Compare(row.Proto, proto), cmp.Compare(row.Port, f.Guest.First), 1) // before the first of the port
	})
	for _, row := range forwards[first:] {
		if row.Proto != st.Proto || !f.Guest.Has(row.Port) {
			break
		}
		of := row.Rule == st.Rule && row.OnHost(f.Host.First+row.Port-f.Guest.First)
		if of && (st.State == "" || st.State == status.Active) {
			st.State, st.Reason = row.State, row.Reason
		}
	}
	if st.State == "" && !a.linked(f.VM) {
		st.Reason = "the guest agent does not answer now; it is forwarded as soon as that does, and something listens there"
	}
	behind, before := f.Around(a.rulesOf(f.VM), f.VM, st.Rule)
	for _, r := range behind {
		st.InPlaceOf = append(st.InPlaceOf, placeOf(r))
	}
	if len(before) > 0 && (st.State == "" || st.State == status.Active) {
		st.Reason = "what was added later takes ports of it: " + placeOf(before[0])
	}
	return st
}

// linked reports whether the guest agent of a VM answers.
func (a *Agent) linked(vm string) bool {
	a.mu.Lock()
	v := a.find(vm)
	a.mu.Unlock()
	return v != nil && v.linked()
}

// placeOf names a rule, and for one that no file has what it says.
func placeOf(r *config.Rule) string {
	if strings.HasPrefix(r.Name, status.AddedPrefix) {
		return fmt.Sprintf("%v:%v (%s)", r.Host, r.Guest, r.Name)
	}
	return r.Name
}
