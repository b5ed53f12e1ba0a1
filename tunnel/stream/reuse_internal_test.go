package stream

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sys/unix"
)

// socketPair returns two ends of a connection; the second is closed at the end of
// the test.
func socketPair(t *testing.T) (*relay.Descriptor, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fds[1]) })
	near, err := relay.NewDescriptor(os.NewFile(uintptr(fds[0]), "near end"))
	if err != nil {
		t.Fatal(err)
	}
	return near, fds[1]
}

// isClosed tells whether the far end of a connection is no more.
func isClosed(fd int) bool {
	n, err := unix.Read(fd, make([]byte, 1))
	return err == nil && n == 0
}

// TestAGuestCannotReleaseWhatItDoesNotHave has a guest release raw connections at
// the wrong time, twice, and never. Those in use stay in use, each comes back
// once, and how many wait is bounded.
func TestAGuestCannotReleaseWhatItDoesNotHave(t *testing.T) {
	var back []*relay.Descriptor
	e := &Ends{
		Tell:      func(wire.EndMessage) {},
		KeepEarly: func(uint64) bool { return false },
		Reuse:     func(c Carrier) { back = append(back, c.Descriptor()) },
	}
	release := func(id uint64) { e.Deliver(wire.EndMessage{ID: id, Kind: wire.EndReleased}) }

	release(1) // of a stream that is still to come
	s := New(1, e)
	if err := e.Add(s); err != nil {
		t.Fatal(err)
	}
	release(1) // of one that has not ended
	if len(back) > 0 {
		t.Fatal("the connection of a stream that has not ended came back")
	}
	ours, _ := socketPair(t)
	e.AwaitRelease(s, Carrier{raw: ours})
	release(1)
	release(1)
	if len(back) != 1 || back[0] != ours {
		t.Fatalf("%d came back, want the one alone", len(back))
	}

	var theirs []int
	const more = 10
	for id := range uint64(maxPending + more) {
		s := New(id+2, e)
		if err := e.Add(s); err != nil {
			t.Fatal(err)
		}
		near, far := socketPair(t)
		e.AwaitRelease(s, Carrier{raw: near})
		theirs = append(theirs, far)
	}
	for i, fd := range theirs {
		if want := i < more; isClosed(fd) != want {
			t.Fatalf("connection %d that was never released: closed is %v, want %v", i, !want, want)
		}
	}
	e.FailAll(unix.ECONNRESET)
	for i, fd := range theirs {
		if !isClosed(fd) {
			t.Fatalf("connection %d outlived the link", i)
		}
	}
	ours.Close()
}

// An end that is reported late is none to the guest, which closes the connection and
// releases nothing.
func TestParkedConnectionsThatAreNeverReleasedGoAndReuseGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reused := 0
		e := &Ends{
			Tell:      func(wire.EndMessage) {},
			KeepEarly: func(uint64) bool { return false },
			Reuse:     func(c Carrier) { reused++; c.Close() },
		}
		park := func(id uint64) (far int) {
			s := New(id, e)
			if err := e.Add(s); err != nil {
				t.Fatal(err)
			}
			near, far := socketPair(t)
			e.AwaitRelease(s, Carrier{raw: near})
			return far
		}
		var theirs []int
		for id := range uint64(maxPending) {
			theirs = append(theirs, park(id+1))
		}
		park(1000)
		e.Deliver(wire.EndMessage{ID: 1000, Kind: wire.EndReleased})
		if reused != 1 {
			t.Error("a connection that was released is not used again while others are not released")
		}
		time.Sleep(2 * releaseWithin)
		synctest.Wait()
		for i, fd := range theirs {
			if !isClosed(fd) {
				t.Fatalf("connection %d is parked after %v", i, 2*releaseWithin)
			}
		}
		e.Deliver(wire.EndMessage{ID: 7, Kind: wire.EndReleased}) // too late
		park(2000)
		e.Deliver(wire.EndMessage{ID: 2000, Kind: wire.EndReleased})
		if reused != 2 {
			t.Errorf("%d connections were used again, want 2", reused)
		}
		e.FailAll(unix.ECONNRESET)
		time.Sleep(releaseWithin)
	})
}
