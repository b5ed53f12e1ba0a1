package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// ip runs commands of ip(8) in a namespace.
func (ns *namespace) ip(t *testing.T, commands ...string) {
	t.Helper()
	ns.do(t, func() error {
		for _, args := range commands {
			if err := command("ip", strings.Fields(args)...); err != nil {
				return err
			}
		}
		return nil
	})
}

// contain connects a container to its machine by two interfaces with addresses in one
// network.
func (ns *namespace) contain(t *testing.T, container *namespace, device, at, inside string) {
	t.Helper()
	gateway, _, _ := strings.Cut(at, "/")
	ns.ip(t, fmt.Sprintf("link add %s type veth peer name eth0 netns /proc/%d/fd/%d", device, os.Getpid(), container.file.Fd()),
		"addr add "+at+" dev "+device, "link set "+device+" up")
	container.ip(t, "addr add "+inside+" dev eth0", "link set eth0 up", "route add default via "+gateway)
}

// TestAPortThatIsTranslatedToAContainerIsForwarded: containers are often published by a
// rule of the packet filter alone, and nothing in the guest listens.
func TestAPortThatIsTranslatedToAContainerIsForwarded(t *testing.T) {
	g, container := newGuest(t, "dev"), newNamespace(t)
	g.ip(t, "link add eth0 type veth peer name uplink", "link set uplink up", "addr add 192.0.2.7/24 dev eth0", "link set eth0 up")
	g.contain(t, container, "cni0", "10.4.0.1/24", "10.4.0.2/24")
	l := container.listen(t, "10.4.0.2:80")
	greet(l, "hello from the container")
	var udp net.PacketConn
	container.do(t, func() (err error) {
		udp, err = net.ListenPacket("udp4", "10.4.0.2:53")
		return err
	})
	t.Cleanup(func() { udp.Close() })
	go func() {
		for buf := make([]byte, 100); ; {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(buf[:n], from)
		}
	}()

	h := startHost(t, "", g)
	nft := func(script string) {
		t.Helper()
		g.do(t, func() error {
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("nft: %w: run: make deps\n%s", err, out)
			}
			return nil
		})
	}
	nft(`table ip nat {
		chain published { tcp dport 8080 dnat to 10.4.0.2:80; udp dport 5300 dnat to 10.4.0.2:53; }
		chain out { type nat hook output priority -100; ip daddr != 127.0.0.0/8 fib daddr type local jump published; }
	}`)
	f := h.awaitForward(t, "dev", 8080, "active", active)
	if f.Process != "dnat to 10.4.0.2:80" || len(f.Guest) != 1 || f.Guest[0] != "192.0.2.7:8080" {
		t.Errorf("%+v", f)
	}
	for _, addr := range []string{"127.0.0.1:8080", "[::1]:8080"} {
		if !answers(addr, "hello from the container") {
			t.Errorf("the container does not answer at %s", addr)
		}
	}
	answersUDP(t, "127.0.0.1:5300")

	// Something that listens on the port is that; and the rule may go.
	own := g.listen(t, "0.0.0.0:8080")
	h.awaitForward(t, "dev", 8080, "the listener", func(f status.Forward) bool {
		return active(f) && len(f.Guest) == 1 && f.Guest[0] == "0.0.0.0:8080"
	})
	own.Close()
	h.awaitForward(t, "dev", 8080, "the container", func(f status.Forward) bool { return active(f) && f.Guest[0] == "192.0.2.7:8080" })
	nft("delete table ip nat")
	eventually(t, "the port to be gone", func() bool {
		_, found := h.forward(t, "dev", 8080)
		return !found
	})
}
