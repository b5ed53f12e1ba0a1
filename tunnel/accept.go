package tunnel

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// acceptor accepts connections, and turns them away when the process is out of
// descriptors: left in the kernel's queue, they would look accepted to the
// other end, which would wait for an answer. It keeps a descriptor in reserve for
// that.
type acceptor struct {
	net.Listener
	reserve *os.File
}

func newAcceptor(l net.Listener) *acceptor {
	a := &acceptor{Listener: l}
	a.restock()
	return a
}

func (a *acceptor) restock() bool {
	f, err := os.Open(os.DevNull)
	if err == nil {
		a.reserve = f
	}
	return err == nil
}

// Accept returns an error of the listener, or EMFILE or ENFILE when it has
// turned a connection away.
func (a *acceptor) Accept() (net.Conn, error) {
	conn, err := a.Listener.Accept()
	if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) || a.reserve == nil {
		return conn, err
	}
	_ = a.reserve.Close()
	a.reserve = nil
	conn, again := a.Listener.Accept()
	if a.restock() || again != nil {
		return conn, again // descriptors have become free meanwhile
	}
	_ = conn.Close()
	a.restock()
	return nil, err
}

func (a *acceptor) Close() error {
	if a.reserve != nil {
		_ = a.reserve.Close()
	}
	return a.Listener.Close()
}
