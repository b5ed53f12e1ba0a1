package tunnel_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"golang.org/x/net/nettest"
)

// TestStreamIsANetConn holds streams to what every net.Conn promises. The two
// ends are the host's stream and, behind the guest's dial, a TCP connection that
// a relay joins to the guest's stream; so deadlines and concurrency are tested on
// the host's stream, and everything on the path.
func TestStreamIsANetConn(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
			accepted := make(chan *net.TCPConn, 1)
			target := service(t, func(c *net.TCPConn) { accepted <- c })
			s, err := l.Open(t.Context(), target, nil)
			if err != nil {
				return nil, nil, nil, err
			}
			server := <-accepted
			return s, server, sync.OnceFunc(func() { _ = s.Close(); _ = server.Close() }), nil
		})
	})
}

func TestCloseDeliversWhatWasWritten(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		const size = 1 << 20
		received := make(chan int64, 1)
		target := service(t, func(c *net.TCPConn) {
			defer c.Close()
			n, _ := io.Copy(io.Discard, c)
			received <- n
		})
		s, err := l.Open(t.Context(), target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		if n := <-received; n != size {
			t.Fatalf("%d of %d bytes arrived", n, size)
		}
	})
}

func TestStreamsThatAreOpenedAtOnceAreAllTaken(t *testing.T) {
	l := startLink(t, startGuest(t, stream.PathMux, tunnel.Config{}), tunnel.Config{})
	target := service(t, echo)
	var opened sync.WaitGroup
	for range 100 {
		opened.Go(func() {
			s, err := l.Open(t.Context(), target, []byte("x"))
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Abort()
			if _, err := s.Read(make([]byte, 1)); err != nil {
				t.Error(err)
			}
		})
	}
	opened.Wait()
}
