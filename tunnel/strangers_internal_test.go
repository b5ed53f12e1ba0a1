package tunnel

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/strangers"
)

// floodListener accepts connections without end, each of which says something that is no
// protocol of ours.
type floodListener struct {
	accepted int
	closed   chan struct{}
}

func (l *floodListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	l.accepted++
	time.Sleep(time.Microsecond) // the clock of the test goes on when all sleep
	ours, theirs := net.Pipe()
	go func() { _, _ = theirs.Write([]byte("no protocol of ours")); _ = theirs.Close() }()
	return ours, nil
}

func (l *floodListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}
func (l *floodListener) Addr() net.Addr { return &net.UnixAddr{} }

func TestConnectionsThatComeToNothingCostABoundedShareOfAProcessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const seconds = 5
		s := &Server{}
		l := &floodListener{closed: make(chan struct{})}
		ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
		defer cancel()
		if err := s.Serve(ctx, l); err != nil {
			t.Fatal(err)
		}
		allowed := strangers.Budget.Burst + time.Duration(strangers.Budget.Share*seconds*float64(time.Second))
		most := int(allowed/strangers.Cost) + strangers.Max // which may be under way
		if l.accepted > most || l.accepted < most/4 {
			t.Errorf("%d connections in %d s, at most %d are allowed", l.accepted, seconds, most)
		}
	})
}
