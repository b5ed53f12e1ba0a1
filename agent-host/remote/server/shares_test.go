package server

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/remote/protocol"
	"github.com/rum-vm/rum-agent/tunnel/mux"
)

// guest is a VM whose agent serves each connection so, until the test ends.
func guest(t *testing.T, name string, serve func(net.Conn)) libvirt.Domain {
	t.Helper()
	socket := filepath.Join(t.TempDir(), name)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { defer c.Close(); serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return libvirt.Domain{Name: name, UUID: uuid.NewString(), State: libvirt.Running, Endpoint: "unix:" + socket}
}

func echoes(c net.Conn) { _, _ = io.Copy(c, c) }

// connect connects to the guest agent of a VM.
func (h *host) connect(t *testing.T, d libvirt.Domain) *mux.Conn {
	t.Helper()
	c, err := h.ask(t, protocol.Request{To: protocol.ToAgent, UUID: uuid.MustParse(d.UUID)}.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Time{})
	return c
}

// begin is connect for a guest that has nothing to say yet, of which the answer then comes with what it says first.
func (h *host) begin(t *testing.T, d libvirt.Domain) *mux.Conn {
	t.Helper()
	c, err := h.session.Open()
	if err == nil {
		_, err = c.Write(protocol.Request{To: protocol.ToAgent, UUID: uuid.MustParse(d.UUID)}.Append(nil))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// answer reads the answer of one that was begun.
func answer(c *mux.Conn) error {
	var a protocol.AnswerReader
	return a.Read(c)
}

func TestAVMThatDoesNotReadHasNoDataOfAnotherThrownAway(t *testing.T) {
	before := limits
	limits.Waiting = 8 << 20
	defer func() { limits = before }()
	end := make(chan struct{})
	stalled := guest(t, "stalled", func(net.Conn) { <-end })
	beginning := make(chan struct{})
	begin := sync.OnceFunc(func() { close(beginning) })
	defer begin()
	const sent, each = 1000 << 10, 700 << 10 // both fit into a window that has grown
	slow := guest(t, "slow", func(c net.Conn) {
		<-beginning
		n, _ := io.CopyN(io.Discard, c, sent)
		_, _ = c.Write([]byte{byte(n >> 10 & 0xff)})
	})
	echo := guest(t, "echo", echoes)
	h := serve(t, stalled, slow, echo)
	defer close(end)

	// Of the slow one's only connection more waits than of any of the stalled one's.
	waits := h.begin(t, slow)
	if _, err := waits.Write(make([]byte, sent)); err != nil {
		t.Fatal(err)
	}
	var reset atomic.Int32
	for range 8 * limits.Waiting / each {
		c := h.begin(t, stalled)
		if _, err := c.Write(make([]byte, each)); errors.Is(err, syscall.ECONNRESET) {
			reset.Add(1)
		}
		go func() { // which is told of a reset
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, syscall.ECONNRESET) {
				reset.Add(1)
			}
		}()
	}
	await(t, "a reset of what waits for the VM that does not read", func() bool { return reset.Load() > 0 })

	c := h.begin(t, echo)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if err := answer(c); err != nil {
		t.Fatalf("another VM beside it: %v", err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("another VM beside it: %v", err)
	}
	begin()
	_ = waits.SetReadDeadline(time.Now().Add(20 * time.Second))
	if err := answer(waits); err != nil {
		t.Fatalf("a VM that is slow beside it: %v", err)
	}
	if got, err := io.ReadAll(waits); err != nil || len(got) != 1 || got[0] != byte(sent>>10&0xff) {
		t.Errorf("a VM that is slow beside it read %v, %v", got, err)
	}
}

// await polls: what is waited for happens in the relay.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestAVMWithManyWritesThatWaitIsNotServedBeforeOneWithASingleOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shares
		hog, err1 := s.take(uuid.New(), 100)
		honest, err2 := s.take(uuid.New(), 100)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		for range mostUnderWay {
			hog.begin()
		}
		var order []string
		write := func(v *share, name string) {
			go func() {
				v.begin()
				order = append(order, name) // one at a time: each is ended below
			}()
			synctest.Wait()
		}
		const many = 40
		for range many {
			write(hog, "hog")
		}
		for range 2 {
			write(honest, "honest")
		}
		for range many + 2 {
			s.end()
			synctest.Wait()
		}
		for range mostUnderWay {
			s.end()
		}
		if len(order) != many+2 || order[1] != "honest" || order[3] != "honest" {
			t.Errorf("%d writes, the first of which are of %v", len(order), order[:min(len(order), 6)])
		}
		if s.under != 0 || len(s.turns) != 0 {
			t.Errorf("%d writes are under way and %d VMs wait at the end", s.under, len(s.turns))
		}
	})
}

func TestAVMThatFloodsHoldsUpNoOther(t *testing.T) {
	flood := guest(t, "flood", func(c net.Conn) {
		for b := make([]byte, 256<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	echo := guest(t, "echo", echoes)
	h := serve(t, flood, echo)
	for i := range 12 {
		c := h.connect(t, flood)
		if i%2 == 0 { // the others are not read here
			go func() { _, _ = io.Copy(io.Discard, c) }()
		}
	}
	c := h.begin(t, echo)
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	for i := range 100 {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := answer(c); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatalf("after %d answers: %v", i, err)
		}
	}
}

func TestSmallWritesOfAVMComeAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shares
		v, err := s.take(uuid.New(), 2)
		if err != nil {
			t.Fatal(err)
		}
		const seconds = 10
		writes := 0
		for began := time.Now(); time.Since(began) < seconds*time.Second; writes++ {
			if err := v.pay(1, nil); err != nil {
				t.Fatal(err)
			}
		}
		allowed := small.Burst + time.Duration(small.Share*seconds*float64(time.Second))
		if most := int(allowed/(smallCost*(smallest-1)/smallest)) + 2; writes > most {
			t.Errorf("%d writes in %d s, want at most %d", writes, seconds, most)
		}
	})
}

func TestAVMHasNoMoreConnectionsThanAreLeftForOthers(t *testing.T) {
	var s shares
	const limit = 1000
	most := func(id uuid.UUID) (n int) {
		for {
			if _, err := s.take(id, limit); err != nil {
				return n
			}
			n++
		}
	}
	hog := uuid.New()
	if n := most(hog); n != limit/2 {
		t.Errorf("one VM has %d connections of %d", n, limit)
	}
	if n := most(uuid.New()); n != limit/4 {
		t.Errorf("another has %d beside it", n)
	}
	if n := most(uuid.New()); n == 0 {
		t.Error("a third has none")
	}
	s.drop(hog)
	if _, err := s.take(uuid.New(), limit); err != nil {
		t.Error(err)
	}
}

func TestAConnectionToAVMThatDoesNotReadEndsWithItsClient(t *testing.T) {
	end := make(chan struct{})
	stalled := guest(t, "stalled", func(net.Conn) { <-end })
	h := serve(t, stalled)
	defer close(end)
	c := h.begin(t, stalled)
	if _, err := c.Write(make([]byte, 1000<<10)); err != nil {
		t.Fatal(err)
	}
	open := func() int {
		h.relay.shares.mu.Lock()
		defer h.relay.shares.mu.Unlock()
		return h.relay.shares.open
	}
	await(t, "the connection", func() bool { return open() == 1 })
	c.Abort()
	await(t, "the end of the connection", func() bool { return open() == 0 })
}
