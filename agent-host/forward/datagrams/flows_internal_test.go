package datagrams

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/udp"
)

// udpForward is a forward of a VM that nobody reaches, and its host socket.
func udpForward(t *testing.T) (*Flows, *serve.Service, *udp.Socket) {
	t.Helper()
	return udpForwardAt(t, "127.0.0.1:0")
}

func udpForwardAt(t *testing.T, host string) (*Flows, *serve.Service, *udp.Socket) {
	t.Helper()
	server := serve.New(slog.New(slog.DiscardHandler), func(string, netip.AddrPort) bool { return false })
	t.Cleanup(server.Close)
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(host)))
	if err != nil {
		t.Fatal(err)
	}
	socket, err := udp.NewSocket(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	guest := server.Guest("dev")
	f := guest.Service(policy.Key{Proto: "udp", Port: 53}, nil)
	f.Follow(&policy.Group{Guest: []portlist.Listener{{Proto: "udp", Addr: netip.MustParseAddrPort("127.0.0.1:53")}}})
	return New(guest), f, socket
}

// asks has a client send n bytes.
func asks(u *Flows, f *serve.Service, host *udp.Socket, from udp.Peer, n int) (id uint32, to netip.AddrPort) {
	return u.asks(f, host, from, make([]byte, n), n)
}

// fromGuest has an answer carried to a client, and reports whether it was of use.
func fromGuest(u *Flows, id uint32, answer string) bool {
	out := udp.NewBurst()
	useless := u.fromGuest(id, []byte(answer), len(answer), out)
	return useless+out.Flush() == 0
}

// TestALocalClientsFlowLivesAsLongAsItsSocket looks hours later: the flow of a client
// that has its socket open is there, others have gone.
func TestALocalClientsFlowLivesAsLongAsItsSocket(t *testing.T) {
	u, f, host := udpForward(t)
	begin := func(from string) uint32 {
		id, _ := asks(u, f, host, udp.Peer{Addr: netip.MustParseAddrPort(from)}, 5)
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
		u.expire(began.Add(c.after), look())
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
	far := udp.Peer{Addr: netip.MustParseAddrPort("192.0.2.7:1000")}
	id, _ := asks(u, f, host, far, 10)
	if got := given(id); got > amplificationFree {
		t.Errorf("one datagram of 10 bytes was answered with %d", got)
	}
	if again, _ := asks(u, f, host, far, 10); again != id {
		t.Fatal("another flow")
	}
	if got := given(id); got != 1000*1000 {
		t.Errorf("who had answered back got %d bytes", got)
	}
	near, _ := asks(u, f, host, udp.Peer{Addr: netip.MustParseAddrPort("127.0.0.1:1000")}, 10)
	if got := given(near); got != 1000*1000 {
		t.Errorf("a client of this host got %d bytes", got)
	}
}

// TestWhatAClientDoesNotReadIsOfNoUse: the guest that sends it is held back.
func TestWhatAClientDoesNotReadIsOfNoUse(t *testing.T) {
	const some = 4096 // datagrams
	useful := func(u *Flows, id uint32, after func()) (n int) {
		for range some {
			if fromGuest(u, id, "ten bytes.") {
				n++
			}
			after()
		}
		return n
	}
	for _, on := range []struct{ host, client string }{
		{"127.0.0.1:0", "127.0.0.1:0"}, {"0.0.0.0:0", "0.0.0.0:0"}, {"[::1]:0", "[::]:0"},
	} {
		t.Run(on.client, func(t *testing.T) {
			u, f, host := udpForwardAt(t, on.host)
			c, err := net.ListenPacket("udp", on.client)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.(*net.UDPConn).SetReadBuffer(1 << 16)
			loopback := netip.MustParseAddr("127.0.0.1")
			if host.LocalAddr().Addr().Is6() {
				loopback = netip.IPv6Loopback()
			}
			peer := udp.Peer{Addr: netip.AddrPortFrom(loopback, c.LocalAddr().(*net.UDPAddr).AddrPort().Port())}
			if host.LocalAddr().Addr().IsUnspecified() {
				peer.Local = loopback
			}
			id, _ := asks(u, f, host, peer, 1)
			buf := make([]byte, 100)
			read := func() { _, _, _ = c.ReadFrom(buf) }
			if n := useful(u, id, read); n != some {
				t.Errorf("of %d datagrams that were read, %d were of use", some, n)
			}
			if n := useful(u, id, func() {}); n > some*3/4 {
				t.Errorf("of %d datagrams that nobody read, %d were of use", some, n)
			}
			if n := useful(u, id, func() {}); n > 0 {
				t.Errorf("of another %d, %d were", some, n)
			}
			_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			for _, _, err = c.ReadFrom(buf); err == nil; _, _, err = c.ReadFrom(buf) {
			}
			_ = c.SetReadDeadline(time.Time{})
			useful(u, id, read)
			if n := useful(u, id, read); n != some {
				t.Errorf("of %d that were read again, %d were of use", some, n)
			}
			c.Close()
			useful(u, id, func() {})
			if n := useful(u, id, func() {}); n > 0 {
				t.Errorf("of %d for a socket that is closed, %d were of use", some, n)
			}
		})
	}
}

// TestToAClientOfTheNetworkAFewAnswersToEachDatagramAreOfUse: whether it reads them
// nobody here knows.
func TestToAClientOfTheNetworkAFewAnswersToEachDatagramAreOfUse(t *testing.T) {
	u, f, host := udpForward(t)
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer := udp.Peer{Addr: c.LocalAddr().(*net.UDPAddr).AddrPort()}
	id, _ := asks(u, f, host, peer, 1)
	u.mu.Lock()
	u.byID[id].local, u.byID[id].confirmed = false, true
	u.mu.Unlock()
	for range 3 {
		asks(u, f, host, peer, 1)
		n := 0
		for range 4 * answersPerDatagram {
			if fromGuest(u, id, "answer") {
				n++
			}
		}
		if n != answersPerDatagram {
			t.Errorf("%d answers to one datagram were of use, want %d", n, answersPerDatagram)
		}
	}
}

// TestTwoForgedDatagramsPassForAClient: a bound that docs/security.md admits.
func TestTwoForgedDatagramsPassForAClient(t *testing.T) {
	u, f, host := udpForward(t)
	victim := udp.Peer{Addr: netip.MustParseAddrPort("192.0.2.7:1000")}
	id, _ := asks(u, f, host, victim, 1)
	asks(u, f, host, victim, 1) // before any answer: no more than one
	if _, err := u.answer(id, amplificationFree); err != nil {
		t.Fatal(err)
	}
	if _, err := u.answer(id, 1); err == nil {
		t.Error("two datagrams at once lifted the bound")
	}
	asks(u, f, host, victim, 1)
	if _, err := u.answer(id, 1<<20); err != nil {
		t.Error(err)
	}
}

// Each link and the bridge have a stream of datagrams of their own.
func TestTheDatagramsOfAVMHaveOneBudget(t *testing.T) {
	u, _, _ := udpForward(t)
	if of := u.handler().Budget; of == nil || of != u.guest.DatagramBudget() {
		t.Errorf("the budget is %p, the VM's is %p", of, u.guest.DatagramBudget())
	}
	if u.guest.DatagramBudget() == u.guest.Budget() {
		t.Error("heartbeats wait for what datagrams cost")
	}
}
