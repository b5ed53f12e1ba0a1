package ask

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// probeTimeout bounds how long a service may take to show that it speaks TLS.
const probeTimeout = 2 * time.Second

// Open opens a port in the user's browser or, with print, writes its URL.
func (o *Port) Open(ctx context.Context, stdout, stderr io.Writer, socket, port string, print bool) error {
	t, err := o.target(port)
	if err != nil {
		return err
	}
	st, err := Status(ctx, socket, status.Query{VM: o.VM, Port: t.Port})
	switch {
	case err != nil:
		return err
	case o.VM != "" && len(st.VMs) == 0:
		return NoVM(ctx, socket, o.VM)
	}
	addr, ok := openAddress(st, t.Port)
	if !ok {
		explain := "rum-host-agent explain " + port
		if o.VM != "" {
			explain += " --vm " + output.Clean(o.VM)
		}
		return output.Advise(fmt.Errorf("no port %d of a VM is open on this host", t.Port), "see why with: "+explain)
	}
	url := urlOf(ctx, addr)
	if print {
		_, err := fmt.Fprintln(stdout, url)
		return err
	}
	browser := exec.CommandContext(ctx, "xdg-open", url)
	browser.Stdout, browser.Stderr = stderr, stderr
	err = browser.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return output.Advise(err, "install xdg-utils; the address is "+url)
	case err != nil:
		return output.Advise(fmt.Errorf("xdg-open: %w", err), "the address is "+url)
	}
	return nil
}

// openAddress is where a port is open on this host: best on localhost, and best by that number.
func openAddress(st status.Status, port uint16) (best netip.AddrPort, ok bool) {
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
					best, rank = addr, r
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

// urlOf is the URL of a service. Whether that speaks TLS it is asked: no number of a port says so.
func urlOf(ctx context.Context, addr netip.AddrPort) string {
	host, scheme := addr.String(), "http"
	if isLocalhost(addr.Addr()) {
		host = fmt.Sprintf("localhost:%d", addr.Port())
	}
	if speaksTLS(ctx, host) {
		scheme = "https"
	}
	return scheme + "://" + host + "/"
}

func speaksTLS(ctx context.Context, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	d := tls.Dialer{NetDialer: new(net.Dialer), Config: &tls.Config{InsecureSkipVerify: true}} // whose it is, the browser asks
	c, err := d.DialContext(ctx, "tcp", host)
	if err == nil {
		_ = c.Close()
		return true
	}
	_, alert := errors.AsType[tls.AlertError](err)
	return alert
}
