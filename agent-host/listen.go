package hostagent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch"
)

// Listen opens a TCP listener for this agent's own page, as [forward.Table.Listen] says. The
// error says who has the address, as far as that can be found.
func (a *Agent) Listen(addr netip.AddrPort) (net.Listener, error) {
	l, err := a.table.Listen(addr)
	bind, _ := errors.AsType[*host.BindError](err)
	switch {
	case bind == nil:
	case errors.Is(err, unix.EADDRINUSE):
		err = errors.New(host.Why(bind.At, err))
		if name := a.holder("tcp", addr); name != "" {
			err = fmt.Errorf("%v is held by %s", addr, name)
		}
	case !errors.Is(err, os.ErrPermission) && !host.NoSuchAddress(err):
		err = errors.New(host.Why(bind.At, err))
	}
	if err != nil {
		return nil, err
	}
	a.ownMu.Lock()
	defer a.ownMu.Unlock()
	a.own = append(a.own, addr)
	return l, nil
}

// holder names who has an address of this host that is in use; "" where that cannot be found. What
// this process listens at and is no forward is its page, or for Prometheus.
func (a *Agent) holder(proto string, addr netip.AddrPort) string {
	name := portwatch.Holder(proto, addr)
	if !strings.HasSuffix(name, fmt.Sprintf("[%d]", os.Getpid())) {
		return libvirt.NameHolder(name)
	}
	a.ownMu.Lock()
	defer a.ownMu.Unlock()
	for _, own := range a.own {
		if own.Port() == addr.Port() && (own.Addr() == addr.Addr() || addr.Addr().IsUnspecified()) {
			return status.OwnPage
		}
	}
	return status.OwnMetrics
}
