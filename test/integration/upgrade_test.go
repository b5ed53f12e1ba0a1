package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// echoes has a service in the guest that sends back a byte.
func echoes(t *testing.T, g *guestVM, port int) net.Listener {
	t.Helper()
	l := g.listen(t, fmt.Sprintf("0.0.0.0:%d", port))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	return l
}

// asked connects, and has a byte sent back. connected is called in between.
func asked(network, addr string, connected func()) error {
	c, err := net.DialTimeout(network, addr, 20*time.Second)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	if connected != nil {
		connected()
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

// TestAnAgentThatIsReplacedRefusesNoConnection has 100 clients connect all the time, to a port and to a socket, while
// the host agent is killed, and while it is told to end, and another is started with what it kept. Who connects
// meanwhile is served.
func TestAnAgentThatIsReplacedRefusesNoConnection(t *testing.T) {
	const clients, port = 100, 18100
	g := newGuest(t, "dev")
	echoes(t, g, port)
	echoes(t, g, port+3)
	dir := t.TempDir()
	sock, config := filepath.Join(dir, "s"), filepath.Join(dir, "rum.toml")
	rules := fmt.Sprintf("[[forward]]\nguest = %d\nhost_socket = %q\n[[forward]]\nguest = %d\nstatic = true\nhost = %d\n", port+3, sock, port+1, port+2)
	if err := os.WriteFile(config, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newManager(t)
	args := []string{"--vm", g.vm(), "--config", config, "--http", "none"}
	h := m.start(t, args...)
	h.awaitForward(t, "dev", port, "active", active)
	echoes(t, g, port+1)
	where := []struct{ network, addr string }{
		{"tcp", fmt.Sprintf("127.0.0.1:%d", port)}, {"tcp", fmt.Sprintf("[::1]:%d", port)}, {"unix", sock}, {"tcp", fmt.Sprintf("127.0.0.1:%d", port+2)},
	}
	for _, w := range where {
		eventually(t, w.addr+" to answer", func() bool { return asked(w.network, w.addr, nil) == nil })
	}
	for _, way := range []struct {
		name string
		end  func()
	}{
		{"killed", func() { h.kill() }},
		{"told to end", func() { h.stop(t) }},
		{"killed again", func() { h.kill() }},
	} {
		eventually(t, "all listeners to be kept", func() bool { return m.listeners() == 7 })
		var asks, lost, connected, served, longest atomic.Int64
		over := make(chan struct{})
		var wg sync.WaitGroup
		for i := range clients {
			w := where[i%len(where)]
			wg.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
					}
					err := asked(w.network, w.addr, nil)
					asks.Add(1)
					if err != nil && strings.HasPrefix(err.Error(), "connect: ") {
						t.Errorf("%s: %s: %v", way.name, w.addr, err)
						return
					}
					if err != nil {
						lost.Add(1) // what was carried ends with the agent
					}
				}
			})
		}
		eventually(t, "clients to be served", func() bool { return asks.Load() >= 2*clients })
		way.end()
		for i := range clients {
			w := where[i%len(where)]
			wg.Go(func() {
				began := time.Now()
				if err := asked(w.network, w.addr, func() { connected.Add(1) }); err != nil {
					t.Errorf("%s: %s, while there is no agent: %v", way.name, w.addr, err)
					return
				}
				served.Add(1)
				longest.Store(max(longest.Load(), int64(time.Since(began))))
			})
		}
		eventually(t, "clients to connect while there is no agent", func() bool { return connected.Load() == clients })
		h = m.start(t, args...)
		eventually(t, "those to be served", func() bool { return served.Load() == clients })
		close(over)
		wg.Wait()
		t.Logf("%s: none of %d clients was refused that connected all the time, nor of %d that came while there was no agent, of which the last was served after %v; %d connections ended with the agent",
			way.name, clients, clients, time.Duration(longest.Load()).Round(time.Millisecond), lost.Load())
		h.awaitForward(t, "dev", port, "active", active)
	}
}

// TestADatagramThatComesWhileTheAgentIsReplacedIsAnswered: the socket is kept, with what is in its queue.
func TestADatagramThatComesWhileTheAgentIsReplacedIsAnswered(t *testing.T) {
	const port = 18110
	g := newGuest(t, "dev")
	var service net.PacketConn
	g.do(t, func() (err error) {
		service, err = net.ListenPacket("udp4", fmt.Sprintf("0.0.0.0:%d", port))
		return err
	})
	defer service.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := service.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = service.WriteTo(buf[:n], from)
		}
	}()
	m := newManager(t)
	args := []string{"--vm", g.vm(), "--config", emptyRules(t), "--http", "none"}
	h := m.start(t, args...)
	eventually(t, "the forward, kept", func() bool { return len(h.vm(t, "dev").Forwards) == 1 && m.listeners() >= 3 })
	h.kill()
	c, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	m.start(t, args...)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 100)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

func emptyRules(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rum.toml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWhatTheGuestHasNoMoreAtTheFirstSnapshotIsClosed resets who waits there, and keeps nothing of it.
func TestWhatTheGuestHasNoMoreAtTheFirstSnapshotIsClosed(t *testing.T) {
	const stays, goes = 18120, 18121
	g := newGuest(t, "dev")
	echoes(t, g, stays)
	gone := echoes(t, g, goes)
	m := newManager(t)
	args := []string{"--vm", g.vm(), "--config", emptyRules(t), "--http", "none"}
	h := m.start(t, args...)
	for _, port := range []int{stays, goes} {
		h.awaitForward(t, "dev", port, "active", active)
	}
	eventually(t, "all listeners to be kept", func() bool { return m.listeners() == 6 })
	h.kill()
	_ = gone.Close()
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", goes))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m.start(t, args...)
	_ = c.SetReadDeadline(time.Now().Add(8 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who waits where nothing listens any more: %v, want a reset", err)
	}
	if err := asked("tcp4", fmt.Sprintf("127.0.0.1:%d", stays), nil); err != nil {
		t.Errorf("the other port: %v", err)
	}
	if err := asked("tcp4", fmt.Sprintf("127.0.0.1:%d", goes), nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("its port: %v, want a refusal", err)
	}
	eventually(t, "what is gone to be kept no more", func() bool { return m.listeners() == 3 })
}

// TestWhoWaitsForAnAgentLongerThanTenSecondsIsReset has a VM that does not come back, and an address that another VM
// wants meanwhile, which has it after that and not before.
func TestWhoWaitsForAnAgentLongerThanTenSecondsIsReset(t *testing.T) {
	const port = 18130
	g, other := newGuest(t, "dev"), newGuest(t, "other")
	echoes(t, g, port)
	m := newManager(t)
	rules := emptyRules(t)
	h := m.start(t, "--vm", g.vm(), "--vm", other.vm(), "--config", rules, "--http", "none")
	h.awaitForward(t, "dev", port, "active", active)
	eventually(t, "all listeners to be kept", func() bool { return m.listeners() == 3 })
	h.kill()
	g.agent.kill()
	echoes(t, other, port)
	began := time.Now()
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h = m.start(t, "--vm", g.vm(), "--vm", other.vm(), "--config", rules, "--http", "none")
	f := h.awaitForward(t, "other", port, "a claim", func(f status.Forward) bool { return f.State == status.Claim })
	if !strings.Contains(f.Reason, "kept for VM dev") {
		t.Errorf("the other VM's claim says %q", f.Reason)
	}
	_ = c.SetReadDeadline(time.Now().Add(15 * time.Second))
	_, err = c.Read(make([]byte, 1))
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who waited: %v, want a reset", err)
	}
	t.Logf("reset after %v", time.Since(began).Round(time.Millisecond))
	h.awaitForward(t, "other", port, "active", active)
	eventually(t, "the other VM's listeners to be all that is kept", func() bool { return m.listeners() == 3 })
}

// TestWhoWaitsForAVMThatIsBackInTimeIsServed has the guest agent start after the host agent has tried it in vain.
func TestWhoWaitsForAVMThatIsBackInTimeIsServed(t *testing.T) {
	const port = 18140
	g := newGuest(t, "dev")
	echoes(t, g, port)
	m := newManager(t)
	args := []string{"--vm", g.vm(), "--config", emptyRules(t), "--http", "none"}
	h := m.start(t, args...)
	h.awaitForward(t, "dev", port, "active", active)
	eventually(t, "all listeners to be kept", func() bool { return m.listeners() == 3 })
	h.kill()
	g.agent.kill()
	began, connected, served := time.Now(), make(chan struct{}), make(chan error, 1)
	go func() {
		served <- asked("tcp4", fmt.Sprintf("127.0.0.1:%d", port), func() { close(connected) })
	}()
	<-connected
	h = m.start(t, args...)
	eventually(t, "an attempt in vain", func() bool { return h.vm(t, "dev").Error != "" })
	// A part of the ten seconds, in which nobody does anything.
	select {
	case err := <-served:
		t.Fatalf("the client waits no more, with neither a VM nor ten seconds over: %v", err)
	case <-time.After(3 * time.Second):
	}
	g.startAgent(t)
	if err := <-served; err != nil {
		t.Errorf("who waited: %v", err)
	}
	t.Logf("served after %v", time.Since(began).Round(time.Millisecond))
}

// TestNothingIsKeptOfPortsThatClose has 60 ports of each protocol come and go, and a port that moves between VMs.
func TestNothingIsKeptOfPortsThatClose(t *testing.T) {
	const first, ports = 18200, 60
	g, other := newGuest(t, "dev"), newGuest(t, "other")
	m := newManager(t)
	h := m.start(t, "--vm", g.vm(), "--vm", other.vm(), "--config", emptyRules(t), "--http", "none")
	var before int
	eventually(t, "the links", func() bool {
		before = h.descriptors(t)
		return h.vm(t, "dev").Generation > 0 && h.vm(t, "other").Generation > 0
	})
	open := func(g *guestVM) (all []io.Closer) {
		for i := range ports {
			at := netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(first+i)).String()
			all = append(all, g.listen(t, at))
			g.do(t, func() error {
				c, err := net.ListenPacket("udp4", at)
				all = append(all, c)
				return err
			})
		}
		return all
	}
	for range 2 {
		all := open(g)
		eventually(t, "all listeners to be kept", func() bool { return m.listeners() == 2*3*ports })
		names := make(map[string]int)
		for _, name := range m.names() {
			names[name]++
		}
		t.Logf("%d listeners in %d messages", m.listeners(), len(names)-1)
		// Half of those that came in one message.
		for i := 0; i < len(all); i += 4 {
			_, _ = all[i].Close(), all[i+1].Close()
		}
		eventually(t, "half of them to be kept", func() bool { return m.listeners() == 3*ports })
		if err := asked("tcp4", fmt.Sprintf("127.0.0.1:%d", first), nil); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a port that has closed: %v, want a refusal", err)
		}
		for _, l := range all {
			_ = l.Close()
		}
		eventually(t, "nothing to be kept", func() bool { return m.listeners() == 0 })
	}
	eventually(t, "as many descriptors as before", func() bool { return h.descriptors(t) <= before+10 })
	at := fmt.Sprintf("0.0.0.0:%d", first)
	var one, two net.PacketConn
	g.do(t, func() (err error) { one, err = net.ListenPacket("udp4", at); return err })
	udp := func(f status.Forward) bool { return f.Proto == "udp" && f.State == status.Active }
	has := func(vm string) func() bool {
		return func() bool { fs := h.vm(t, vm).Forwards; return len(fs) == 1 && udp(fs[0]) }
	}
	eventually(t, "the first VM to have the port", has("dev"))
	other.do(t, func() (err error) { two, err = net.ListenPacket("udp4", at); return err })
	defer two.Close()
	eventually(t, "the claim", func() bool { return len(h.vm(t, "other").Forwards) == 1 })
	began := time.Now()
	_ = one.Close()
	eventually(t, "the second VM to have it", func() bool {
		fs := h.vm(t, "other").Forwards
		if len(fs) == 1 && (strings.Contains(fs[0].Reason, "in use") || strings.Contains(fs[0].Reason, "just now")) {
			t.Errorf("what the store has still is taken for another program's: %s", fs[0].Reason)
		}
		return len(fs) == 1 && udp(fs[0])
	})
	t.Logf("a UDP port went to the next VM in %v", time.Since(began).Round(time.Millisecond))
}
