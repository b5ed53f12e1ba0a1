package main

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/rum-vm/rum-agent/portwatch"
)

// checkPort makes sure that nobody on the host has the port, before minutes are
// spent on a guest whose page could not be shown.
func checkPort(port uint16) error {
	for _, host := range []string{"127.0.0.1", "::1"} {
		addr := netip.AddrPortFrom(netip.MustParseAddr(host), port)
		l, err := net.Listen("tcp", addr.String())
		if err == nil {
			_ = l.Close()
			continue
		}
		holder := portwatch.Holder("tcp", addr)
		if holder == "" {
			continue // no address of that family here; what else there is, the host agent says
		}
		return fmt.Errorf("port %d is held by %s, and the demo shows a page there: stop it, then run the demo again", port, holder)
	}
	return nil
}
