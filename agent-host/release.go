package hostagent

import (
	"fmt"
	"io/fs"
	"slices"

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
		return nil, &notForwardedError{proto, port}
	}
	for _, f := range all {
		a.cfg.Log.Info("host port released", "vm", f.VM, "proto", f.Proto, "port", f.Port, "host", f.Host)
	}
	return all, nil
}

// notForwardedError says that a port of the host is nobody's.
type notForwardedError struct {
	proto string
	port  uint16
}

func (e *notForwardedError) Error() string {
	return fmt.Sprintf("no forward has the port %d/%s of this host, or wants it", e.port, e.proto)
}

func (e *notForwardedError) Unwrap() error { return fs.ErrNotExist }
