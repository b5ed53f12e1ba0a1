package host

import (
	"io"
	"net"
	"syscall"

	"github.com/rum-vm/rum-agent/agent-host/fdstore"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// socket is one that listens.
type socket interface {
	io.Closer
	syscall.Conn
}

func (h Addr) place() fdstore.Place { return fdstore.Place{Proto: h.Proto, At: h.String()} }

// ownedError says that an address is kept for who had it before this process was started.
type ownedError struct{ *fdstore.OwnedError }

func (e ownedError) Is(target error) bool { return target == ErrSettling }

// Obstacle is why an owner cannot have an address now, as far as that is known without trying: another had it
// in the process before, or what [Addresses.HeldByTenant] says.
func (as *Addresses) Obstacle(h Addr, owner string) error {
	if err, ok := as.store.For(h.place(), owner).(*fdstore.OwnedError); ok {
		return ownedError{err}
	}
	return as.HeldByTenant(h)
}

// takeKept is the owner's listener of the process before; nil for none.
func (as *Addresses) takeKept(h Addr, owner string) (l socket) {
	f, err := as.store.Take(h.place(), owner)
	if f == nil || err != nil {
		return nil
	}
	defer f.Close()
	switch h.Proto {
	case "udp":
		var c net.PacketConn
		if c, err = net.FilePacketConn(f); err == nil {
			l = c.(*net.UDPConn)
		}
	case policy.ProtoUnix:
		var s *endpoint.SocketListener
		if s, err = endpoint.AdoptSocket(f, h.Path); err == nil {
			l = s
		}
	default:
		var t net.Listener
		if t, err = net.FileListener(f); err == nil {
			l = t.(*net.TCPListener)
		}
	}
	if err != nil {
		fdstore.End(f)
		as.store.Drop(h.place())
		return nil
	}
	return l
}

// Leave has listeners that are kept go on without this process: from then on CloseAll closes them here alone.
func (as *Addresses) Leave() { as.leaving = true }

// close ends a listener, also for those that it is kept by, unless it is to be left to them.
func (as *Addresses) close(l Listener) {
	a, accepts := l.Closer.(*relay.Acceptor)
	switch {
	case l.kept && as.leaving && accepts:
		_ = a.Leave()
	case l.kept && as.leaving:
		_ = l.Close()
	default:
		_ = l.Close()
		if l.kept {
			as.store.Drop(l.at.place())
		}
	}
}

// Settle and Await are those of [fdstore.Store].
func (as *Addresses) Settle(owner string) { as.store.Settle(owner) }

// Await is the other half of Settle.
func (as *Addresses) Await(owner string, over func()) bool { return as.store.Await(owner, over) }
