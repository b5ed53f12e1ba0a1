package forward

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/tunnel"
)

// udpForward is a forward of a VM that nobody reaches, and its host socket.
func udpForward(t *testing.T) (*udpFlows, *forward, *tunnel.UDPSocket) {
	t.Helper()
	vm := New(Config{Log: slog.New(slog.DiscardHandler)}).Add("dev")
	t.Cleanup(vm.table.Close)
	l, err := vm.table.listenUDP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f := &forward{vm: vm, key: key{proto: "udp", port: 53}}
	f.guest.Store(&[]portwatch.Listener{{Proto: "udp", Addr: netip.MustParseAddrPort("127.0.0.1:53")}})
	return vm.udp, f, l.Closer.(*tunnel.UDPSocket)
}

// TestALocalClientsFlowLivesAsLongAsItsSocket looks hours later: the flow of a client
// that has its socket open is there, others have gone.
func TestALocalClientsFlowLivesAsLongAsItsSocket(t *testing.T) {
	u, f, host := udpForward(t)
	begin := func(from string) uint32 {
		id, _ := u.asks(f, host, tunnel.UDPPeer{Addr: netip.MustParseAddrPort(from)}, 5)
		return id
	}
	client := func() (*net.UDPConn, uint32) {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(host.LocalAddr()))
		if err != nil {
			t.Fatal(err)
		}
		return c, begin(c.LocalAddr().String())
	}
	open, stays := client()
	defer open.Close()
	closed, goes := client()
	asked, answered := begin("192.0.2.7:1000"), begin("192.0.2.7:1001")
	if _, err := u.answer(answered, 5); err != nil {
		t.Fatal(err)
	}
	closed.Close()
	began := time.Now()
	for _, c := range []struct {
		after time.Duration
		want  map[uint32]bool
	}{
		{udpUnanswered - time.Second, map[uint32]bool{stays: true, goes: false, asked: true, answered: true}},
		{udpUnanswered + time.Second, map[uint32]bool{stays: true, goes: false, asked: false, answered: true}},
		{udpAnswered + time.Second, map[uint32]bool{stays: true, goes: false, asked: false, answered: false}},
		{5 * time.Hour, map[uint32]bool{stays: true}},
	} {
		// What the guest sends prolongs nothing.
		_, _ = u.answer(answered, 5)
		u.mu.Lock()
		u.expire(began.Add(c.after))
		for id, want := range c.want {
			if _, is := u.byID[id]; is != want {
				t.Errorf("after %v flow %d is there: %v, want %v", c.after, id, is, want)
			}
		}
		u.mu.Unlock()
	}
}

// TestAnswersToWhoHasNotAnsweredBackAreBounded: the address of a client of the network
// may be forged.
func TestAnswersToWhoHasNotAnsweredBackAreBounded(t *testing.T) {
	u, f, host := udpForward(t)
	given := func(id uint32) (bytes int) {
		for range 1000 {
			if _, err := u.answer(id, 1000); err == nil {
				bytes += 1000
			}
		}
		return bytes
	}
	far := tunnel.UDPPeer{Addr: netip.MustParseAddrPort("192.0.2.7:1000")}
	id, _ := u.asks(f, host, far, 10)
	if got := given(id); got > amplificationFree {
		t.Errorf("one datagram of 10 bytes was answered with %d", got)
	}
	if again, _ := u.asks(f, host, far, 10); again != id {
		t.Fatal("another flow")
	}
	if got := given(id); got != 1000*1000 {
		t.Errorf("who had answered back got %d bytes", got)
	}
	near, _ := u.asks(f, host, tunnel.UDPPeer{Addr: netip.MustParseAddrPort("127.0.0.1:1000")}, 10)
	if got := given(near); got != 1000*1000 {
		t.Errorf("a client of this host got %d bytes", got)
	}
}
