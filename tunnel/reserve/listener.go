package reserve

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
)

// Listener accepts connections, and turns them away when the process is out of
// descriptors. It keeps one of its own for that, and not the one of [LendLast]: an Accept
// may wait. Its methods may be called by several goroutines at once.
type Listener struct {
	net.Listener

	mu     sync.Mutex
	last   *os.File // nil for none
	closed bool
}

// NewListener returns a listener that accepts from l.
func NewListener(l net.Listener) *Listener {
	own := &Listener{Listener: l}
	own.restock()
	return own
}

func (l *Listener) restock() bool {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.last != nil {
		_ = f.Close()
		return true
	}
	l.last = f
	return true
}

// release closes the last descriptor, and reports whether there was one.
func (l *Listener) release() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.last
	l.last = nil
	return f != nil && f.Close() == nil
}

// Accept returns an error of the listener, or EMFILE or ENFILE when it has
// turned a connection away.
func (l *Listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) || !l.release() {
		return conn, err
	}
	conn, again := l.Listener.Accept()
	if l.restock() || again != nil {
		return conn, again // descriptors have become free meanwhile
	}
	_ = conn.Close()
	l.restock()
	return nil, err
}

// Close closes l, and the listener that it accepts from.
func (l *Listener) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.release()
	return l.Listener.Close()
}
