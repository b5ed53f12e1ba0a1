package hostagent

import (
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/explain"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Explain tells step by step why a port answers or does not, for each forward that has it in
// the guest or on the host, in the VM of that name or, if that is empty, in all. Where nothing
// is known of the port it tells why, for each of those VMs. A name that nobody knows is no VM.
func (a *Agent) Explain(vm, proto string, port uint16) []status.Explanation {
	var found, absent []status.Explanation
	for st := range a.VMs(status.Query{VM: vm, Port: port}) {
		facts := explain.Facts{VM: st, Proto: proto, Port: port, Now: time.Now()}
		known := len(found)
		for i := range st.Forwards {
			f := &st.Forwards[i]
			if (f.Proto == proto || f.Proto == "unix" && proto == "tcp") && !f.Reverse {
				facts.Forward = f
				found = append(found, explain.Port(facts))
			}
		}
		if len(found) > known {
			continue
		}
		facts.Own = a.ownListener(st.Name, proto, port)
		if e, ok := a.Events().Last(st.Name, proto, port, events.Stopped); ok {
			facts.Stopped, facts.Process = e.Time, e.Process
		}
		absent = append(absent, explain.Port(facts))
	}
	if len(found) > 0 {
		return found
	}
	for _, name := range a.offNames() {
		if vm == name {
			absent = append(absent, explain.Port(explain.Facts{VM: status.VM{Name: name}, Off: true, Proto: proto, Port: port, Now: time.Now()}))
		}
	}
	return absent
}

func (a *Agent) ownListener(vm, proto string, port uint16) bool {
	a.mu.Lock()
	v := a.find(vm)
	a.mu.Unlock()
	return v != nil && v.forwards.OwnListener(proto, port)
}

// setOff says which VMs of a source do not run.
func (a *Agent) setOff(source string, names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.off == nil {
		a.off = make(map[string][]string)
	}
	a.off[source] = names
}

// offNames are the names of VMs that do not run.
func (a *Agent) offNames() (all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, names := range a.off {
		all = append(all, names...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
