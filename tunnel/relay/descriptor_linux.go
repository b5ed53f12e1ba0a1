package relay

import (
	"io"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/relay/sockio"
)

// Descriptor is a connection that does not block, with the descriptor that it owns. The
// number never leaves this package. Any goroutine may call the methods: each holds the lock
// while it uses the number, so that none can meet another connection that has got the
// same one meanwhile. Once it has been closed, or handed over, they return [net.ErrClosed].
type Descriptor struct {
	mu    sync.Mutex
	fd    int    // -1 once closed, and while a pair has it
	watch *watch // nil where no loop watches
}

// watch is what a loop does for a descriptor. It is apart because most have none: there
// are two descriptors for each connection, and those are with a pair.
type watch struct {
	registration
	of *Descriptor

	handler Handler // needs the descriptor's lock
}

// Handler is told what can be done with a descriptor that a loop watches. It may be
// called once more when the descriptor has just been closed or is watched no more.
type Handler interface {
	// Ready is called by the loop's thread and must not wait. What it leaves to be
	// read or written, the kernel tells again. An end is something to read.
	Ready(l *Loop, read, write bool)
}

// NewDescriptor takes over the descriptor of a connection: Go's poller lets go of it. If
// it fails, the connection is left as it was.
func NewDescriptor(c io.Closer) (*Descriptor, error) {
	fd, err := takeDescriptor(c)
	if err != nil {
		return nil, err
	}
	return &Descriptor{fd: fd}, nil
}

// Receive reads what there is. It returns [io.EOF] at the end, and EAGAIN where nothing
// has come.
func (d *Descriptor) Receive(b []byte) (n int, err error) { return d.receive(b, sockio.Receive) }

// Peek is Receive that leaves what it reads to be read again.
func (d *Descriptor) Peek(b []byte) (n int, err error) { return d.receive(b, sockio.Peek) }

func (d *Descriptor) receive(b []byte, from func(int, []byte) (int, error)) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		return 0, net.ErrClosed
	}
	n, err = from(d.fd, b)
	switch {
	case err != nil:
		return 0, err
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// Send writes as much as there is room for, and returns EAGAIN where there is none.
func (d *Descriptor) Send(b []byte) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		return 0, net.ErrClosed
	}
	n, err = sockio.Send(d.fd, b)
	return max(n, 0), err
}

// Messages has package sockio, whose call it is, receive or send messages.
func (d *Descriptor) Messages(call sockio.MessagesCall, m []sockio.Message) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		return 0, net.ErrClosed
	}
	return call(d.fd, m)
}

// EndBursts has a UDP socket receive its datagrams one by one from now on (UDP_GRO in udp(7)).
func (d *Descriptor) EndBursts() {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = unix.SetsockoptInt(d.fd, unix.IPPROTO_UDP, unix.UDP_GRO, 0)
}

// Watch has a loop call h when there is something to read, or room to write, and when
// the connection has ended in any case. A loop that watches already watches for that
// from now on.
func (d *Descriptor) Watch(h Handler, read, write bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		return net.ErrClosed
	}
	var events uint32
	if read {
		events |= unix.EPOLLIN
	}
	if write {
		events |= unix.EPOLLOUT
	}
	if w := d.watch; w != nil {
		w.handler = h
		return w.loop.watch(&w.registration, d.fd, 0, unix.EPOLL_CTL_MOD, events)
	}
	w := &watch{of: d, handler: h}
	d.watch = w
	err := pickLoop().addFD(w, d.fd, events)
	if err != nil {
		d.watch = nil
	}
	return err
}

// Unwatch has no loop watch the descriptor any more.
func (d *Descriptor) Unwatch() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unwatch()
}

// unwatch needs d.mu.
func (d *Descriptor) unwatch() {
	if w := d.watch; w != nil {
		w.loop.remove(&w.registration)
		_ = w.loop.watch(&w.registration, d.fd, 0, unix.EPOLL_CTL_DEL, 0)
		d.watch = nil
	}
}

func (w *watch) handle(l *Loop, _ int, events uint32) {
	w.of.mu.Lock()
	h, current := w.handler, w.of.watch == w
	w.of.mu.Unlock()
	if current {
		h.Ready(l, events&^unix.EPOLLOUT != 0, events&unix.EPOLLOUT != 0)
	}
}

// Close closes the connection; closing it again does nothing.
func (d *Descriptor) Close() { d.close(nil) }

// Abort resets the connection where it can be, and closes it.
func (d *Descriptor) Abort() { d.close(resetOnClose) }

// end closes a connection whose directions have both ended: what was written still arrives.
func (d *Descriptor) end() { d.close(endOnClose) }

func (d *Descriptor) close(first func(fd int)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		return
	}
	if w := d.watch; w != nil {
		w.loop.remove(&w.registration) // the kernel forgets what is closed
		d.watch = nil
	}
	if first != nil {
		first(d.fd)
	}
	_ = unix.Close(d.fd)
	d.fd = -1
}

// take makes the number the caller's, who gives it back.
func (d *Descriptor) take() (fd int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		return -1, net.ErrClosed
	}
	d.unwatch()
	fd, d.fd = d.fd, -1
	return fd, nil
}

func (d *Descriptor) give(fd int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fd = fd
}

// to is where a connection that was accepted leads, the zero AddrPort if that is unknown.
func (d *Descriptor) to() netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	to, err := unix.Getsockname(d.fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrOf(to)
}
