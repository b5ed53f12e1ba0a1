package tunnel_test

import (
	"bytes"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A byte that is sent as urgent data is a byte of the stream, whichever way the
// others go: splice(2) alone would stop before it for good.
func TestUrgentDataArrivesInItsPlace(t *testing.T) {
	const half = 5 << 20
	want := randomBytes(2*half + 1)
	eachKind(t, func(t *testing.T, l *link) {
		t.Run("to the server", func(t *testing.T) {
			received := make(chan []byte, 1)
			c := through(t, l, service(t, func(c *net.TCPConn) {
				defer c.Close()
				all, _ := io.ReadAll(c)
				received <- all
			}))
			sendWithUrgent(t, c, want, half)
			if got := <-received; !bytes.Equal(got, want) {
				t.Errorf("%d of %d bytes arrived, or others", len(got), len(want))
			}
		})
		t.Run("to the client", func(t *testing.T) {
			c := through(t, l, service(t, func(c *net.TCPConn) {
				defer c.Close()
				sendWithUrgent(t, c, want, half)
			}))
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d of %d bytes arrived, or others: %v", len(got), len(want), err)
			}
		})
	})
}

// sendWithUrgent sends all of b, one byte of it as urgent, and the end.
func sendWithUrgent(t *testing.T, c *net.TCPConn, b []byte, urgent int) {
	raw, err := c.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := c.Write(b[:urgent]); err != nil {
		t.Error(err)
	}
	err = raw.Write(func(fd uintptr) bool {
		return unix.Send(int(fd), b[urgent:urgent+1], unix.MSG_OOB) != unix.EAGAIN
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := c.Write(b[urgent+1:]); err != nil {
		t.Error(err)
	}
	_ = c.CloseWrite()
}
