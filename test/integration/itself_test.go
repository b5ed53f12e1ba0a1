package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"golang.org/x/sys/unix"
)

// clientPorts sets which ports the kernel gives to sockets that ask for none.
func (ns *namespace) clientPorts(t *testing.T, first, last int) {
	t.Helper()
	ns.do(t, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "%d %d", first, last), 0)
	})
}

// A guest that has one port for its clients gives that to whoever dials it.
func TestAPortThatClientsGetIsNeverConnectedToItself(t *testing.T) {
	const port = 20005
	g := newGuest(t, "dev")
	g.clientPorts(t, port, port)
	h := startHostRules(t, g, fmt.Sprintf("[[ports]]\nguest = %d\nstatic = true\nproto = \"any\"\n", port))
	h.awaitForward(t, "dev", port, "active", active)
	h.udpForward(t, "dev", port, active)
	for _, host := range []string{"127.0.0.1", "::1"} {
		at := net.JoinHostPort(host, strconv.Itoa(port))
		for range 5 {
			c, err := net.Dial("tcp", at)
			if errors.Is(err, unix.ECONNRESET) {
				continue // the refusal came before the dial was done
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = c.Write([]byte("mine"))
			if n, err := c.Read(make([]byte, 10)); n > 0 || isTimeout(err) {
				t.Fatalf("%s: nobody listens, and %d bytes came back (%v)", at, n, err)
			}
			_ = c.Close()
		}
		u := dialUDP(t, at)
		for range 2 {
			if err := asks(u, []byte("mine"), 200*time.Millisecond); err == nil {
				t.Fatalf("udp %s: nobody receives, and a datagram came back", at)
			}
		}
	}
	h.udpForward(t, "dev", port, func(f status.Forward) bool { return f.LastError != "" })
	// And the port is free for the server that comes, without SO_REUSEADDR.
	g.bind(t, unix.SOCK_STREAM, netip.AddrPortFrom(netip.IPv4Unspecified(), port), "")
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}
