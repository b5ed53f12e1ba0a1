package stream_test

import (
	"net"
	"os"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sys/unix"
)

// The kernel gives the number of a descriptor that is closed to the next that is opened. Here a connection is closed
// while its loop is told that there is something to read and room to write, and another takes its number at once.
func TestAConnectionThatIsClosedWhileItIsServedTouchesNoOther(t *testing.T) {
	const rounds, kept = 5000, 16
	var others [kept]bystander
	for round := range rounds {
		near, peer := socketPair(t)
		_ = unix.SetsockoptInt(near, unix.SOL_SOCKET, unix.SO_SNDBUF, 1) // the least there is
		c, err := stream.NewEndsConn(connOf(t, near), func(wire.EndMessage) bool { return true }, budget.New(budget.Link))
		if err != nil {
			t.Fatal(err)
		}
		record := wire.EndMessage{ID: 1, Kind: wire.EndComplete, Sent: 1}
		for range 256 {
			c.Tell(record) // more than there is room for
		}
		busy := make(chan struct{})
		go func() {
			var told [4096]byte
			_, _ = unix.Write(peer, record.AppendRecord(nil))
			close(busy)
			for range 4 {
				_, _ = unix.Read(peer, told[:])
				_, _ = unix.Write(peer, record.AppendRecord(nil))
			}
			_ = unix.Close(peer)
		}()
		<-busy
		c.Close()
		other := newBystander(t)
		others[round%kept].check(t)
		others[round%kept] = other
	}
	for i := range others {
		others[i].check(t)
	}
}

// bystander is a connection between two descriptors, with a byte that waits at either.
type bystander struct{ ends []int }

func newBystander(t *testing.T) bystander {
	t.Helper()
	one, two := socketPair(t)
	for _, end := range []int{one, two} {
		if n, err := unix.Write(end, []byte("!")); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	return bystander{[]int{one, two}}
}

// check tells whether it was left alone.
func (b bystander) check(t *testing.T) {
	t.Helper()
	for _, end := range b.ends {
		var got [64]byte
		n, err := unix.Read(end, got[:])
		if err != nil || string(got[:n]) != "!" {
			t.Errorf("a connection with nobody but its own two ends reads %q, %v; want what was sent on it", got[:max(n, 0)], err)
		}
	}
	for _, end := range b.ends {
		if err := unix.Close(end); err != nil {
			t.Errorf("a descriptor was closed by another's owner: %v", err)
		}
	}
}

func socketPair(t *testing.T) (one, two int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

func connOf(t *testing.T, fd int) net.Conn {
	t.Helper()
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
