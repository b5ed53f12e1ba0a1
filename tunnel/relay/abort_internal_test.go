package relay

import (
	"net"
	"testing"
	"time"
)

// tcpConn is a connection to be relayed, and the program's end of it.
func tcpConn(t *testing.T, l net.Listener) (Conn, net.Conn) {
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return TCP(s.(*net.TCPConn)), c
}

func TestAbortWhileAPairTakesOverEndsThePair(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 1000 {
		a, aPeer := tcpConn(t, l)
		b, bPeer := tcpConn(t, l)
		done, aborted, start := make(chan error, 1), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(aborted)
			<-start
			// From before the descriptor is handed over to after it.
			for began := time.Now(); time.Since(began) < time.Duration(i%40)*500*time.Nanosecond; {
			}
			a.Abort()
		}()
		close(start)
		Relay(a, b, new(Counters), func(err error) { done <- err })
		<-aborted
		select {
		case err := <-done:
			if err == nil {
				t.Fatal("an aborted pair has ended well")
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("round %d: the pair lives on", i)
		}
		_ = aPeer.Close()
		_ = bPeer.Close()
	}
}
