package browser

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// probeTimeout bounds how long a service may take to show that it speaks TLS.
const probeTimeout = 2 * time.Second

// Place is where a port of a VM is open on this host.
type Place struct {
	Addr netip.AddrPort
	VM   string
	Port uint16 // in the VM
}

// Find returns where a port is open on this host: best on localhost, and best by that number.
func Find(st status.Status, port uint16) (best Place, ok bool) {
	rank := 0
	for _, vm := range st.VMs {
		for _, f := range vm.Forwards {
			if f.Proto == "udp" || f.Reverse {
				continue
			}
			for _, text := range f.Listening {
				addr, err := netip.ParseAddrPort(text)
				if err != nil {
					continue // a unix socket
				}
				r := 1
				if isLocalhost(addr.Addr()) {
					r += 2
				}
				if addr.Port() == port {
					r++
				}
				if r > rank {
					best, rank = Place{addr, vm.Name, f.Port}, r
				}
			}
		}
	}
	return best, rank > 0
}

// isLocalhost reports whether localhost leads to who listens there.
func isLocalhost(ip netip.Addr) bool {
	return ip.IsUnspecified() || slices.Contains([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, ip)
}

func hostOf(addr netip.AddrPort) string {
	if isLocalhost(addr.Addr()) {
		return fmt.Sprintf("localhost:%d", addr.Port())
	}
	return addr.String()
}

// URL is that of a service at an address of this host. Whether that speaks TLS it is asked over a connection that connect
// makes: no number of a port says so.
func URL(ctx context.Context, addr netip.AddrPort, connect func(context.Context) (net.Conn, error)) string {
	host, scheme := hostOf(addr), "http"
	if speaksTLS(ctx, host, connect) {
		scheme = "https"
	}
	return scheme + "://" + host + "/"
}

func speaksTLS(ctx context.Context, host string, connect func(context.Context) (net.Conn, error)) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c, err := connect(ctx)
	if err != nil {
		return false
	}
	defer c.Close()
	name, _, _ := net.SplitHostPort(host)
	err = tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true}).HandshakeContext(ctx) // whose it is, the browser asks
	op, ok := errors.AsType[*net.OpError](err)
	return err == nil || ok && op.Op == remoteAlert
}

// remoteAlert is what crypto/tls calls the receipt of an alert, whose type it has for itself: who sends
// one speaks TLS.
const remoteAlert = "remote error"
