package integration

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// TestWhatListensInContainersIsForwardedByChoice: in network namespaces of the guest that
// have an address on one of its networks, and without anything being published.
func TestWhatListensInContainersIsForwardedByChoice(t *testing.T) {
	g, first, second := newGuest(t, "dev", "--netns", "all"), newNamespace(t), newNamespace(t)
	g.contain(t, first, "cni0", "10.4.0.1/24", "10.4.0.2/24")
	g.contain(t, second, "cni1", "10.5.0.1/24", "10.5.0.2/24")
	first.echo(t, "10.4.0.2:7000") // and so the first is the older
	first.echo(t, "127.0.0.1:7001")
	h := startHost(t, "", g)
	at := func(guest string) func(status.Forward) bool {
		return func(f status.Forward) bool { return active(f) && len(f.Guest) == 1 && f.Guest[0] == guest }
	}
	f := h.awaitForward(t, "dev", 7000, "the container's listener", at("10.4.0.2:7000"))
	answersEcho(t, "127.0.0.1:7000")
	eventually(t, "the name of the program", func() bool {
		f, _ = h.forward(t, "dev", 7000)
		return strings.Contains(f.Process, "exe[")
	})

	// Listeners on all addresses; the port that both have is the older one's until that goes.
	stop := first.echoUntil(t, "0.0.0.0:7002")
	h.awaitForward(t, "dev", 7002, "the first container", at("10.4.0.2:7002"))
	second.echo(t, "[::]:7002")
	second.echo(t, "0.0.0.0:7003")
	h.awaitForward(t, "dev", 7003, "the second container", at("10.5.0.2:7003"))
	h.awaitForward(t, "dev", 7002, "the first container still", at("10.4.0.2:7002"))
	stop()
	h.awaitForward(t, "dev", 7002, "the second container", at("10.5.0.2:7002"))
	answersEcho(t, "127.0.0.1:7002")

	// What listens in the guest itself comes before, and what listens on a container's
	// loopback is out of reach.
	own := g.listen(t, "127.0.0.1:7003")
	h.awaitForward(t, "dev", 7003, "the guest's own", at("127.0.0.1:7003"))
	own.Close()
	h.awaitForward(t, "dev", 7003, "the container's again", at("10.5.0.2:7003"))
	if f, found := h.forward(t, "dev", 7001); found {
		t.Errorf("what nobody reaches is forwarded: %+v", f)
	}

	var udp *net.UDPConn
	first.do(t, func() (err error) {
		udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 4, 0, 2), Port: 5300})
		return err
	})
	defer udp.Close()
	// It is a socket of this process, which is in another namespace: only sockets of
	// namespaces that have a process are found, and the container has one.
	echoUDP(udp)
	h.udpForward(t, "dev", 5300, at("10.4.0.2:5300"))
	answersUDP(t, "127.0.0.1:5300")
}

// TestAContainerIsNotAnnouncedAtAnAddressOfAnotherMachine: whoever may do so in his container
// gives himself any address of the guest's network, and the guest agent would lead there.
func TestAContainerIsNotAnnouncedAtAnAddressOfAnotherMachine(t *testing.T) {
	g, container := newGuest(t, "dev", "--netns", "all"), newNamespace(t)
	g.ip(t, "addr add 192.0.2.7/24 dev lo") // loopback is no interface that a program has made, as a card is none
	g.contain(t, container, "cni0", "10.4.0.1/24", "10.4.0.2/24")
	container.ip(t, "addr add 192.0.2.9/32 dev lo")
	container.echo(t, "192.0.2.9:7000")
	container.echo(t, "10.4.0.2:7001")
	h := startHost(t, "", g)
	h.awaitForward(t, "dev", 7001, "the container's listener", active)
	if f, found := h.forward(t, "dev", 7000); found {
		t.Errorf("what claims to be another machine is forwarded: %+v", f)
	}
}

// TestWhatListensInContainersStaysThereUnlessAskedFor: the default.
func TestWhatListensInContainersStaysThereUnlessAskedFor(t *testing.T) {
	g, container := newGuest(t, "dev"), newNamespace(t)
	g.contain(t, container, "cni0", "10.4.0.1/24", "10.4.0.2/24")
	container.echo(t, "0.0.0.0:7000")
	g.echo(t, "127.0.0.1:7001")
	h := startHost(t, "", g)
	h.awaitForward(t, "dev", 7001, "what listens in the guest itself", active)
	if f, found := h.forward(t, "dev", 7000); found {
		t.Errorf("a container's port is forwarded: %+v", f)
	}
}

func answersUDP(t *testing.T, addr string) {
	t.Helper()
	eventually(t, "an answer over UDP at "+addr, func() bool {
		c, err := net.Dial("udp", addr)
		if err != nil {
			return false
		}
		defer c.Close()
		return asks(c, []byte("who is there?"), time.Second) == nil
	})
}

func answersEcho(t *testing.T, addr string) {
	t.Helper()
	eventually(t, "an answer at "+addr, func() bool {
		c, err := echoed(addr)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	})
}
