package epollwait

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waits is a waiter with something to wait for.
type waits struct {
	Waiter
	t            *testing.T
	epoll, event int
}

func newWaits(t *testing.T) *waits {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		t.Fatal(err)
	}
	w := &waits{t: t, epoll: epoll, event: event}
	t.Cleanup(func() {
		w.parking.close()
		_ = unix.Close(epoll)
		_ = unix.Close(event)
	})
	return w
}

// happens is the event, by any goroutine.
func (w *waits) happens() { _, _ = unix.Write(w.event, []byte{7: 1}) }

// seen waits until it is seen, and takes it. What does not come ends with the time that the
// test has.
func (w *waits) seen() {
	events := make([]unix.EpollEvent, 4)
	for {
		n, err := w.Wait(w.epoll, events)
		switch {
		case err != nil && err != unix.EINTR:
			w.t.Fatal(err)
		case n > 0:
			if _, err := unix.Read(w.event, make([]byte, 8)); err != nil {
				w.t.Fatalf("told of what had not happened: %v", err)
			}
			return
		}
	}
}

// The pauses are such that the waiter stays awake, sleeps and parks, and goes from each of
// them to the others.
func TestAWaiterSeesEachEventHoweverItWaits(t *testing.T) {
	w := newWaits(t)
	next := make(chan time.Duration)
	defer close(next)
	go func() {
		for pause := range next {
			time.Sleep(pause)
			w.happens()
		}
	}()
	for round := range 20 {
		for range 3 * briskMany {
			next <- 0
			w.seen()
		}
		for _, pause := range []time.Duration{awakeNear, awakeFor, 2 * awakeFor, briskWait / 2, briskWait, briskWait + time.Duration(round)*time.Millisecond/5, 2 * briskWait} {
			next <- pause
			w.seen()
		}
	}
}

func TestAWaiterThatWasToldOfNothingParks(t *testing.T) {
	w := newWaits(t)
	for w.Quiet() {
		w.happens() // before it waits, so that no other load of this machine delays it
		w.seen()
	}
	if n, err := w.Wait(w.epoll, make([]unix.EpollEvent, 4)); n > 0 || err != nil && err != unix.EINTR {
		t.Fatalf("%d events and %v, where nothing happens", n, err)
	}
	if !w.Quiet() || w.parking.file != nil {
		t.Error("a wait in which nothing came is not the last in epoll_wait")
	}
	go func() {
		time.Sleep(2 * briskWait)
		w.happens()
	}()
	w.seen()
	if w.parking.file == nil {
		t.Error("the wait after one in which nothing came is not in Go's poller")
	}
	for w.Quiet() {
		w.happens()
		w.seen()
	}
	if w.parking.file != nil {
		w.happens()
		w.seen()
	}
	if w.parking.file != nil {
		t.Error("Go's poller is told of each event of a loop that waits elsewhere")
	}
}

func TestAWaiterWithoutADescriptorToParkWithWaits(t *testing.T) {
	w := newWaits(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }()
	go func() {
		time.Sleep(2 * briskWait)
		w.happens()
	}()
	w.seen()
	if w.parking.file != nil {
		t.Error("there was a descriptor")
	}
}
