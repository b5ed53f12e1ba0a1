package relay

import (
	"net"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/clock"
	"golang.org/x/sys/unix"
)

// An exchange of messages leaves others their turn, also one that does not pause.
func TestAnExchangeThatDoesNotPauseLeavesOthersTheirTurn(t *testing.T) {
	e := newExchange(t)
	for range 4 * exchangeTurns {
		e.send(t, 0)
		e.send(t, 1)
	}
	e.run(0)
	if n := e.arrived(t, 0) + e.arrived(t, 1); n != exchangeTurns {
		t.Errorf("%d messages were carried without a look at the others, want %d", n, exchangeTurns)
	}
}

// Messages are carried whichever side they come from, one after the other or in turn.
func TestAnExchangeCarriesWhatComesFromEitherSide(t *testing.T) {
	for from := range 2 {
		e := newExchange(t)
		for range 5 {
			e.send(t, from)
		}
		e.run(from)
		if n := e.arrived(t, 1-from); n != 5 {
			t.Errorf("%d messages of 5 from side %d were carried", n, from)
		}
	}
}

// An end that comes during an exchange ends the connection.
func TestAnExchangeEndsWithTheConnection(t *testing.T) {
	for from := range 2 {
		e := newExchange(t)
		e.send(t, from)
		_ = unix.Close(e.ends[from])
		e.ends[from] = -1
		e.run(from)
		if n := e.arrived(t, 1-from); n != 1 {
			t.Errorf("%d messages arrived before the end, want 1", n)
		}
		if n, err := unix.Read(e.ends[1-from], make([]byte, 1)); n != 0 || err != nil {
			t.Errorf("after the end of side %d the other reads %d bytes, %v; want the end", from, n, err)
		}
	}
}

// Where others compute, or much is moved, there is no exchange: to yield would be to lose a slice.
func TestNoExchangeAmongOthersThatWork(t *testing.T) {
	for name, w := range map[string]waiter{
		"now and then":   {},
		"much moved":     {near: awakeMany, bulk: true},
		"others compute": {near: awakeMany, crowded: clock.Now() + crowdedFor},
	} {
		e := newExchange(t)
		e.loop.waiter = w
		e.send(t, 0)
		e.run(0)
		if n := e.arrived(t, 1); n != 0 {
			t.Errorf("%s: %d messages were carried unasked", name, n)
		}
	}
}

// An exchange is a pair between two sockets that keep messages apart, in a loop that does not run.
type exchange struct {
	loop *loop
	pair *Pair
	ends [2]int
}

func newExchange(t *testing.T) *exchange {
	t.Helper()
	e := &exchange{
		loop: &loop{epoll: -1, running: true, Buf: make([]byte, loopBuffer), waiter: waiter{near: awakeMany}},
		pair: &Pair{done: func(error) {}},
	}
	if err := e.loop.create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.pair.abort(net.ErrClosed)
		_ = unix.Close(e.loop.epoll)
		_ = unix.Close(e.loop.wake)
	})
	for i := range e.pair.sides {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		e.ends[i] = fds[0]
		t.Cleanup(func() {
			if e.ends[i] >= 0 {
				_ = unix.Close(e.ends[i])
			}
		})
		e.pair.sides[i] = side{conn: Socket{}, fd: fds[1], opened: true}
	}
	var n Counters
	e.pair.halves[0].count, e.pair.halves[1].count = &n.Out, &n.In
	if err := e.loop.add(e.pair); err != nil {
		t.Fatal(err)
	}
	return e
}

// run is what happens after a message from one side was handled.
func (e *exchange) run(from int) {
	e.loop.exchange(unix.EpollEvent{Fd: e.pair.slot<<1 | int32(from), Pad: e.pair.serial})
}

func (e *exchange) send(t *testing.T, from int) {
	t.Helper()
	if _, err := unix.Write(e.ends[from], []byte("message")); err != nil {
		t.Fatal(err)
	}
}

// arrived takes in what arrived at one side, and counts it.
func (e *exchange) arrived(t *testing.T, at int) (n int) {
	t.Helper()
	for {
		got, err := unix.Read(e.ends[at], make([]byte, 64))
		if err == unix.EAGAIN || got == 0 {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
}
