package hostagent

import (
	"fmt"
	"io/fs"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/explain"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Release gives a port of the host back, as [forward.Table.Release] says. The error wraps
// [fs.ErrNotExist] where there is no such VM, and where no forward has or wants the port.
func (a *Agent) Release(vm, proto string, port uint16) ([]status.GivenBack, error) {
	if names := a.Names(); vm != "" && !slices.Contains(names, vm) {
		return nil, a.noVM(vm)
	}
	all := a.table.Release(vm, proto, port)
	if len(all) == 0 {
		return nil, &notForwardedError{proto, port, a.twinOnHost(vm, proto, port)}
	}
	for _, f := range all {
		a.cfg.Log.Info("host port released", "vm", f.VM, "proto", f.Proto, "port", f.Port, "host", f.Host)
	}
	return all, nil
}

// twinOnHost reports whether a forward of the other protocol has or wants a port of the host.
func (a *Agent) twinOnHost(vm, proto string, port uint16) bool {
	for st := range a.VMs(status.Query{VM: vm, Port: port}) {
		for i := range st.Forwards {
			if f := &st.Forwards[i]; isTwin(f, proto) && f.State != status.Ignored && f.OnHost(port) {
				return true
			}
		}
	}
	return false
}

// notForwardedError says that a port of the host is nobody's.
type notForwardedError struct {
	proto string
	port  uint16
	twin  bool // the port of the other protocol is some forward's
}

func (e *notForwardedError) Error() string {
	text := fmt.Sprintf("no forward has the port %d/%s of this host, or wants it", e.port, e.proto)
	if e.twin {
		text += "; " + explain.TwinHint(e.proto, e.port)
	}
	return text
}

func (e *notForwardedError) Unwrap() error { return fs.ErrNotExist }
