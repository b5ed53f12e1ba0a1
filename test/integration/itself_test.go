package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/control"
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
	h.udpForward(t, "dev", port, func(f control.Forward) bool { return f.LastError != "" })
	// And the port is free for the server that comes, without SO_REUSEADDR.
	g.bind(t, unix.SOCK_STREAM, netip.AddrPortFrom(netip.IPv4Unspecified(), port), "")
}

// A bridge address that a VM has given up may be this host's own by now.
func TestTheBridgeNeverConnectsAClientToItself(t *testing.T) {
	const port = 20005
	g := newGuest(t, "dev")
	g.joined(t) // the host has 192.0.2.1 there
	file := filepath.Join(t.TempDir(), "rum.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "[[ports]]\nguest = %d\nhost = 20007\nstatic = true\nproto = \"any\"\n", port), 0o600); err != nil {
		t.Fatal(err)
	}
	const nobody = "=unix:/nonexistent/rum.sock,bridge=192.0.2.1"
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
	h.program = start(t, "rum-host-agent", "run", "--config", file, "--socket", h.socket, "--vm", "dev"+nobody)
	eventually(t, "the agent", func() bool {
		_, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil
	})
	h.awaitForward(t, "dev", port, "active", active)
	h.udpForward(t, "dev", port, active)
	const setting = "/proc/sys/net/ipv4/ip_local_port_range"
	was, err := os.ReadFile(setting)
	if err == nil {
		err = os.WriteFile(setting, fmt.Appendf(nil, "%d %d", port, port), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.WriteFile(setting, was, 0) }()
	for _, network := range []string{"tcp", "udp"} {
		from := net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 20006})
		if network == "udp" {
			from = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 20006}
		}
		c, err := (&net.Dialer{LocalAddr: from}).Dial(network, net.JoinHostPort("127.0.0.1", "20007"))
		if errors.Is(err, unix.ECONNRESET) {
			continue // before the dial has returned
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
		_, _ = c.Write([]byte("mine"))
		if n, _ := c.Read(make([]byte, 10)); n > 0 {
			t.Errorf("%s: %d bytes came back", network, n)
		}
		_ = c.Close()
	}
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}
