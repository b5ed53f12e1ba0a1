package udp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/relay/sockio"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const (
	// atOnce is how many datagrams, or bursts that were sent as one, are received by one
	// system call.
	atOnce = 16
	// maxErrors is after how many errors in a row, and nothing else, a
	// socket is given up.
	maxErrors = 64
)

var (
	errTooLong           = fmt.Errorf("a datagram is longer than %d bytes", wire.MaxDatagram)
	errReceiveBufferFull = errors.New("the socket's receive buffer was full")
)

// Receiver is told what comes to a socket. Its functions are called by the thread of a
// loop, one at a time, and must not wait.
type Receiver struct {
	// Handle is given a datagram, or several of one peer: [Split] divides b, of which
	// nothing must be kept but by what is added to out. It returns how many are known to be of no use.
	Handle func(b []byte, size int, from Peer, out *Burst) (useless int)
	// Trouble is how many datagrams have been lost, and why. On a connected socket, and
	// on one with a peer, it is also that the peer refused one.
	Trouble func(lost uint32, err error)
	// Done is called when what came at once has been handed over and out was sent, with how
	// many datagrams were of no use, and how long it took. It may say that it is enough.
	Done func(useless int, took time.Duration) (enough bool)
}

// Split yields the datagrams that b consists of: they have size bytes each, and the last
// one may have fewer.
func Split(b []byte, size int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for {
			n := min(size, len(b))
			if !yield(b[:n:n]) {
				return
			}
			if b = b[n:]; len(b) == 0 {
				return
			}
		}
	}
}

// Count is how many datagrams b consists of, as [Split] divides it.
func Count(b []byte, size int) uint32 {
	if len(b) == 0 {
		return 1
	}
	return uint32((len(b) + size - 1) / size)
}

type receiving struct {
	Receiver
	failed int
	over   chan error // has room for one
}

// Receive has a loop hand over what arrives, until the socket is closed or fails for good,
// or until there is enough, which is no error. Nothing is handed over once it has returned.
func (s *Socket) Receive(on Receiver) error {
	r := &receiving{Receiver: on, over: make(chan error, 1)}
	s.handing.Lock()
	s.to = r
	s.handing.Unlock()
	err := s.fd.Watch(s, true, false)
	if err == nil {
		select {
		case err = <-r.over:
		case <-s.ended:
			err = net.ErrClosed
		}
	}
	s.handing.Lock()
	s.to = nil
	s.handing.Unlock()
	return err
}

// Ready is of [relay.Handler].
func (s *Socket) Ready(*relay.Loop, bool, bool) {
	s.handing.Lock()
	defer s.handing.Unlock()
	r := s.to
	if r == nil {
		return
	}
	in := arrivals.Get().(*arriving)
	defer arrivals.Put(in)
	n, err := s.fd.Messages(sockio.ReceiveMany, in.messages[:])
	switch {
	case err == nil:
		r.failed = 0
		if s.handOver(r, in, n) {
			s.stop(r, nil)
		}
	case err == net.ErrClosed:
	case err == unix.EAGAIN:
		// A send was told what the network said, or nobody was yet.
		if err = s.takeErrors(in); err != nil {
			r.Trouble(0, err)
		}
	default:
		if r.failed++; r.failed >= maxErrors {
			s.stop(r, err)
			return
		}
		_ = s.takeErrors(in)
		r.Trouble(0, err)
	}
}

// stop ends a Receive.
func (s *Socket) stop(r *receiving, err error) {
	s.to = nil
	s.fd.Unwatch()
	r.over <- err
}

// handOver hands over what has come, and reports whether it is enough.
func (s *Socket) handOver(r *receiving, in *arriving, n int) (enough bool) {
	out := NewBurst()
	defer out.free()
	began, useless := clock.Now(), 0
	for i := range n {
		m := &in.messages[i]
		peer, size, lost := s.readControl(in.control[i][:m.Controllen])
		peer.Addr = addrOf(&in.names[i], m.Namelen)
		length := int(m.N)
		in.reset(i)
		if size == 0 {
			size = length
		}
		if lost > 0 {
			// The kernel counts a burst as one, and does not say how long it was: as long as this one.
			r.Trouble(lost*Count(in.buffers[i][:length], size), errReceiveBufferFull)
		}
		if length > wire.MaxDatagram {
			r.Trouble(1, errTooLong)
			continue
		}
		useless += r.Handle(in.buffers[i][:length], size, peer, out)
	}
	useless += out.Flush()
	return r.Done(useless, clock.Now()-began)
}

// takeErrors empties the queue of what the network said about datagrams, which a
// socket that is not connected has to have to be told at all (IP_RECVERR, ip(7)), and
// returns the last of it.
func (s *Socket) takeErrors(in *arriving) (said error) {
	for {
		n, err := s.fd.Messages(sockio.ReceiveErrors, in.messages[:])
		if err != nil {
			return said
		}
		for i := range n {
			_, data, _, err := unix.ParseOneSocketControlMessage(in.control[i][:in.messages[i].Controllen])
			if err == nil && len(data) >= 4 { // ee_errno of struct sock_extended_err
				said = unix.Errno(binary.NativeEndian.Uint32(data))
			}
			in.reset(i)
		}
	}
}

// readControl takes in what the kernel says beside a datagram: to which address it was sent,
// how long each is of several, and how many were dropped since the last one, a burst that was sent as one being one.
func (s *Socket) readControl(oob []byte) (peer Peer, size int, lost uint32) {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		oob = rest
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			total := binary.NativeEndian.Uint32(data)
			lost = total - s.dropped.Swap(total)
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			size = int(binary.NativeEndian.Uint32(data))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			peer.Local = netip.AddrFrom4([4]byte(data[4:8])) // ipi_spec_dst
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			peer.Local = netip.AddrFrom16([16]byte(data[:16]))
		}
	}
	return peer, size, lost
}

// arriving is what one system call receives into. Only what datagrams fill of it takes memory.
type arriving struct {
	messages [atOnce]sockio.Message
	iovecs   [atOnce]unix.Iovec
	control  [atOnce][128]byte // aligned as what is before it
	names    [atOnce]unix.RawSockaddrInet6
	// One byte more than can be carried, to see that a datagram is too long.
	buffers [atOnce][wire.MaxDatagram + 1]byte
}

var arrivals = sync.Pool{New: func() any {
	in := new(arriving)
	for i := range in.messages {
		m := &in.messages[i]
		in.iovecs[i].Base = &in.buffers[i][0]
		in.iovecs[i].SetLen(len(in.buffers[i]))
		m.Iov = &in.iovecs[i]
		m.SetIovlen(1)
		m.Control = &in.control[i][0]
		m.Name = (*byte)(unsafe.Pointer(&in.names[i]))
		in.reset(i)
	}
	return in
}}

// reset makes room for another message.
func (in *arriving) reset(i int) {
	m := &in.messages[i]
	m.Namelen = unix.SizeofSockaddrInet6
	m.SetControllen(len(in.control[i]))
}
