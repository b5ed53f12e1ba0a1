package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/tunnel"
)

// candidates are the addresses to try in the guest, the best first: those of the
// address family that the client used. Servers know their clients by it: what
// comes from 127.0.0.1 on the host comes from 127.0.0.1 in the guest.
//
// A socket on :: takes both families, unless it says otherwise.
func candidates(guest []portwatch.Listener, clientIs4 bool) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(guest)+1)
	var both *portwatch.Listener
	for i, l := range guest {
		out = append(out, l.Addr)
		if l.Addr.Addr() == netip.IPv6Unspecified() && !l.V6Only {
			both = &guest[i]
		}
	}
	if both != nil && !slices.ContainsFunc(out, func(a netip.AddrPort) bool { return a.Addr().Is4() }) {
		out = append(out, netip.AddrPortFrom(loopback4, both.Addr.Port()))
	}
	slices.SortStableFunc(out, func(a, b netip.AddrPort) int {
		switch {
		case a.Addr().Is4() == b.Addr().Is4():
			return 0
		case a.Addr().Is4() == clientIs4:
			return -1
		}
		return 1
	})
	return out[:min(len(out), tunnel.MaxTargetAddrs)]
}

// onBridge tells why nothing that listens in the guest is reached at its bridge
// address; nil if something is.
func (f *forward) onBridge(bridge netip.Addr) error {
	if f.key.socket != "" {
		return errors.New("a unix socket of the guest cannot be reached over the bridge")
	}
	guest := *f.guest.Load()
	addrs := make([]netip.AddrPort, len(guest))
	for i, l := range guest {
		addrs[i] = l.Addr
		switch a := l.Addr.Addr(); {
		case a == bridge, a.IsUnspecified() && a.Is4() == bridge.Is4(), a.IsUnspecified() && a.Is6() && !l.V6Only:
			return nil
		}
	}
	return fmt.Errorf("the guest listens only on %v, which cannot be reached over the bridge", addrs)
}

// onInterface is the network interface that alone reaches what listens in the
// guest; "" if the guest's loopback does too. Connections that its agent makes
// come by loopback, whatever address they go to.
func (f *forward) onInterface() string {
	name := ""
	for _, l := range *f.guest.Load() {
		if l.Interface == "" || l.Interface == "lo" {
			return ""
		}
		name = l.Interface
	}
	return name
}
