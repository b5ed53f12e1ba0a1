package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tellTheClient opens a TCP and a UDP server in the namespace that tell their
// clients which address they come from.
func (ns *namespace) tellTheClient(t *testing.T, family, addr string) {
	t.Helper()
	ns.do(t, func() error {
		l, err := net.Listen("tcp"+family, addr)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String() + "\n"))
				_ = c.Close()
			}
		}()
		u, err := net.ListenPacket("udp"+family, addr)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = u.Close() })
		go func() {
			for buf := make([]byte, 100); ; {
				_, from, err := u.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = u.WriteTo([]byte(from.(*net.UDPAddr).AddrPort().Addr().Unmap().String()), from)
			}
		}()
		return nil
	})
}

// toldBy is what such a server says to a client of the host, by UDP within a
// few questions: it is the client's affair to repeat one.
func toldBy(t *testing.T, network, addr string) string {
	t.Helper()
	c, err := net.DialTimeout(network, addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 100)
	if network == "tcp" {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Read(buf)
		if err != nil {
			return err.Error()
		}
		return string(buf[:n-1])
	}
	for range 5 {
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err = c.Write([]byte("who am I?")); err != nil {
			continue
		}
		n, rerr := c.Read(buf)
		if err = rerr; err == nil {
			return string(buf[:n])
		}
	}
	return err.Error()
}

// Servers tell localhost from other machines by the client's address: nginx's
// allow, MySQL's user@127.0.0.1, pg_hba.conf.
func TestAServerSeesTheAddressFamilyOfItsClient(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	g.tellTheClient(t, "", "[::]:7400")  // both families, as node listens
	g.tellTheClient(t, "6", "[::]:7401") // IPv6 only
	g.tellTheClient(t, "4", "0.0.0.0:7402")
	for port := 7400; port <= 7402; port++ {
		h.awaitForward(t, "dev", port, "active", active)
		h.udpForward(t, "dev", port, active)
	}
	for _, network := range []string{"tcp", "udp"} {
		for _, row := range []struct {
			port         int
			from4, from6 string
		}{{7400, "127.0.0.1", "::1"}, {7401, "::1", "::1"}, {7402, "127.0.0.1", "127.0.0.1"}} {
			for at, want := range map[string]string{"127.0.0.1": row.from4, "[::1]": row.from6} {
				addr := fmt.Sprintf("%s:%d", at, row.port)
				if got := toldBy(t, network, addr); got != want {
					t.Errorf("%s: a client of %s is seen as %s, want %s", network, addr, got, want)
				}
			}
		}
	}
}

func TestAServerOnBothFamiliesAnswersInAGuestWithoutIPv6(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	g.tellTheClient(t, "", "[::]:7400")
	g.do(t, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0) })
	h.awaitForward(t, "dev", 7400, "active", active)
	h.udpForward(t, "dev", 7400, active)
	for _, network := range []string{"tcp", "udp"} {
		for _, addr := range []string{"127.0.0.1:7400", "[::1]:7400"} {
			if got := toldBy(t, network, addr); got != "127.0.0.1" {
				t.Errorf("%s: a client of %s is told %q", network, addr, got)
			}
		}
	}
	if f := h.udpForward(t, "dev", 7400, active); f.Dropped > 0 {
		t.Errorf("datagrams were lost: %+v", f)
	}
}

func TestAServerForIPv6AloneIsActiveOnlyWhileTheGuestHasIPv6(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	ipv6 := func(off string) {
		t.Helper()
		g.do(t, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte(off), 0) })
	}
	g.tellTheClient(t, "6", "[::]:7401")
	g.tellTheClient(t, "6", "[::1]:7402")
	g.tellTheClient(t, "4", "0.0.0.0:7403")
	serve := func() {
		t.Helper()
		for _, port := range []int{7401, 7402} {
			h.awaitForward(t, "dev", port, "active", active)
			h.udpForward(t, "dev", port, active)
			for _, network := range []string{"tcp", "udp"} {
				if got := toldBy(t, network, fmt.Sprintf("127.0.0.1:%d", port)); got != "::1" {
					t.Errorf("%s port %d: a client is told %q", network, port, got)
				}
			}
		}
	}
	serve()
	ipv6("1")
	eventually(t, "what needs IPv6 is withdrawn", func() bool {
		forwards := h.vm(t, "dev").Forwards
		return len(forwards) == 2 && forwards[0].Port == 7403 && forwards[1].Port == 7403
	})
	var out []byte
	g.do(t, func() (err error) {
		out, err = exec.Command(filepath.Join(bin, "rum-guest-agent"), "ports").CombinedOutput()
		return err
	})
	if n := strings.Count(string(out), "not announced: IPv6 is switched off in the guest"); n != 4 {
		t.Errorf("the note is there %d times, want 4:\n%s", n, out)
	}
	ipv6("0")
	serve()
}
