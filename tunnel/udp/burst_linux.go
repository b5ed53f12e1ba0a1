package udp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/relay/sockio"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const (
	// burstMessages is how many messages a burst has, and burstDatagrams how many datagrams.
	burstMessages  = 64
	burstDatagrams = 512
	// A message has several datagrams where the kernel divides it: at most
	// UDP_MAX_SEGMENTS (include/linux/udp.h), and no more bytes than a packet may have.
	maxSegments = 64
)

// Owner is whose datagrams a burst sends.
type Owner interface {
	// Sent is told what became of some of them, and returns how many were of no use.
	Sent(datagrams, bytes int, err error) (useless int)
}

// Burst is datagrams that leave by as few system calls as may be: those of one length to
// one peer as one message, which the kernel divides, and messages from one socket together.
// It keeps nothing of the datagrams, so that what they are in must not change before Flush.
type Burst struct {
	socket  *Socket
	count   int // of messages
	iovs    int
	useless int

	messages [burstMessages]sockio.Message
	parts    [burstMessages]part
	control  [burstMessages][controlSpace]byte // aligned as what is before it
	names    [burstMessages]unix.RawSockaddrInet6
	iovecs   [burstDatagrams]unix.Iovec
}

// part is what a message consists of.
type part struct {
	owner     Owner
	to        Peer
	first     int // of its iovecs
	datagrams int
	size      int // of each but the last
	bytes     int
	full      bool // the last one was shorter
	local     int  // of its control data, what is not about dividing it
}

var bursts = sync.Pool{New: func() any { return new(Burst) }}

// NewBurst returns one with nothing in it.
func NewBurst() *Burst { return bursts.Get().(*Burst) }

// free lets others have the burst, with which its owner is done.
func (b *Burst) free() { bursts.Put(b) }

// Add has a datagram sent from a socket to a peer, or, with none, to what the socket is
// connected to.
func (b *Burst) Add(s *Socket, to Peer, payload []byte, of Owner) {
	if b.socket != s || b.iovs == len(b.iovecs) {
		b.send()
		b.socket = s
	}
	iov := &b.iovecs[b.iovs]
	iov.Base, iov.Len = unsafe.SliceData(payload), 0
	iov.SetLen(len(payload))
	if b.count == 0 || !b.parts[b.count-1].takes(s, to, len(payload), of) {
		if b.count == len(b.messages) {
			last := *iov
			b.send()
			b.socket, b.iovecs[0] = s, last
		}
		b.parts[b.count] = part{owner: of, to: to, first: b.iovs, size: len(payload)}
		b.count++
	}
	p := &b.parts[b.count-1]
	p.datagrams++
	p.bytes += len(payload)
	p.full = len(payload) < p.size
	b.iovs++
}

// takes reports whether a message can have another datagram.
func (p *part) takes(s *Socket, to Peer, length int, of Owner) bool {
	return p.owner == of && p.to == to && !p.full && 0 < length && length <= p.size &&
		p.datagrams < maxSegments && p.bytes+length <= wire.MaxDatagram && !s.whole.Load()
}

// Flush sends what was added, and returns how many datagrams were of no use since it was
// last called.
func (b *Burst) Flush() (useless int) {
	b.send()
	useless, b.useless = b.useless, 0
	return useless
}

func (b *Burst) send() {
	for i := range b.count {
		b.prepare(i)
	}
	for i, refused := 0, false; i < b.count; {
		n, err := b.socket.fd.Messages(sockio.SendMany, b.messages[i:b.count])
		if err == nil {
			for range n {
				b.tell(i, b.parts[i].datagrams, b.parts[i].bytes, nil)
				i++
			}
			refused = false
			continue
		}
		switch {
		case err == unix.ECONNREFUSED && !refused:
			// This told of an earlier datagram; this one was not sent.
			refused = true
			continue
		case b.parts[i].datagrams > 1 && cannotDivide(err):
			b.socket.whole.Store(true)
			b.sendEach(i)
		default:
			b.tell(i, b.parts[i].datagrams, b.parts[i].bytes, err)
		}
		i, refused = i+1, false
	}
	clear(b.iovecs[:b.iovs])
	clear(b.parts[:b.count])
	b.count, b.iovs, b.socket = 0, 0, nil
}

// cannotDivide tells whether an error is one of those by which the kernel says that it
// does not divide a message (udp_send_skb in net/ipv4/udp.c): the way there takes only
// smaller packets, or computes no checksums.
func cannotDivide(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EIO) || errors.Is(err, unix.EOPNOTSUPP)
}

// sendEach sends the datagrams of a message one by one.
func (b *Burst) sendEach(i int) {
	m, p := &b.messages[i], &b.parts[i]
	m.SetIovlen(1)
	b.setControl(i, p.local)
	for at := range p.datagrams {
		m.Iov = &b.iovecs[p.first+at]
		_, err := b.socket.fd.Messages(sockio.SendMany, b.messages[i:i+1])
		b.tell(i, 1, int(m.Iov.Len), err)
	}
}

func (b *Burst) tell(i, datagrams, bytes int, err error) {
	b.useless += b.parts[i].owner.Sent(datagrams, bytes, err)
}

// prepare makes a message of a part.
func (b *Burst) prepare(i int) {
	m, p := &b.messages[i], &b.parts[i]
	m.Iov = &b.iovecs[p.first]
	m.SetIovlen(p.datagrams)
	m.Name, m.Namelen = nil, putAddr(&b.names[i], p.to.Addr)
	if m.Namelen > 0 {
		m.Name = (*byte)(unsafe.Pointer(&b.names[i]))
	}
	p.local = putLocal(b.control[i][:], p.to.Local)
	length := p.local
	if p.datagrams > 1 {
		data := putHeader(b.control[i][length:], unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(data, uint16(p.size))
		length += unix.CmsgSpace(2)
	}
	b.setControl(i, length)
}

func (b *Burst) setControl(i, length int) {
	m := &b.messages[i]
	if m.Control = nil; length > 0 {
		m.Control = &b.control[i][0]
	}
	m.SetControllen(length)
}

// controlSpace has room for an address to send from and the length of each datagram.
const controlSpace = 64

// putLocal has a datagram leave from an address; there may be none.
func putLocal(b []byte, local netip.Addr) (length int) {
	switch {
	case local.Is4():
		a := local.As4()
		copy(putHeader(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)[4:], a[:]) // ipi_spec_dst
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	case local.Is6():
		a := local.As16()
		copy(putHeader(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo), a[:])
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
	return 0
}

// putHeader begins a control message, and returns the room for its data, which is zero.
func putHeader(b []byte, level, kind int32, size int) []byte {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	data := b[unix.CmsgLen(0):unix.CmsgLen(size)]
	clear(data)
	return data
}
