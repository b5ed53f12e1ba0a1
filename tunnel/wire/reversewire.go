package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
)

// MaxReverse is how many listeners a host can have in a guest.
const MaxReverse = 1024

// ReverseMessage is the complete set of listeners that the host wants in the
// guest. One that stays has the ID it had.
type ReverseMessage struct {
	Listeners []ReverseSpec
	Proof     []byte // that it is the host's order
}

// ReverseSpec is one listener that the host wants.
type ReverseSpec struct {
	ID     uint64
	Listen Target // one address, or a path
}

func (*ReverseMessage) kind() messageKind { return kindReverse }

// Order is what the proof is of.
func (m *ReverseMessage) Order() []byte {
	b := cryptobyte.NewBuilder(nil)
	m.encodeListeners(b)
	return b.BytesOrPanic()
}

func (m *ReverseMessage) encode(b *cryptobyte.Builder) {
	m.encodeListeners(b)
	addField(b, fieldProof, m.Proof)
}

func (m *ReverseMessage) field(kind uint8, body []byte) bool {
	if kind == fieldProof {
		m.Proof = bytes.Clone(body)
	}
	return kind == fieldProof
}

func (m *ReverseMessage) encodeListeners(b *cryptobyte.Builder) {
	b.AddUint16(uint16(len(m.Listeners)))
	for _, l := range m.Listeners {
		b.AddUint64(l.ID)
		if l.Listen.Network == NetworkUnix {
			b.AddUint8(1)
			addPath(b, l.Listen.Path)
		} else {
			b.AddUint8(0)
			addAddrPort(b, l.Listen.Addrs[0])
		}
	}
}

func (m *ReverseMessage) decode(s *cryptobyte.String) error {
	var n uint16
	if !s.ReadUint16(&n) {
		return errShort
	}
	if n > MaxReverse {
		return fmt.Errorf("%d reverse listeners, at most %d are allowed", n, MaxReverse)
	}
	for range n {
		var (
			l    ReverseSpec
			path uint8
			addr netip.AddrPort
			err  error
		)
		if !s.ReadUint64(&l.ID) || !s.ReadUint8(&path) {
			return errShort
		}
		switch path {
		case 0:
			err = readAddrPort(s, &addr)
			l.Listen = Target{Network: NetworkTCP, Addrs: []netip.AddrPort{addr}}
		case 1:
			l.Listen.Network = NetworkUnix
			err = readPath(s, &l.Listen.Path)
		default:
			err = fmt.Errorf("unknown kind %d", path)
		}
		if err == nil {
			err = CheckListen(l.Listen)
		}
		if err != nil {
			return fmt.Errorf("reverse listener: %w", err)
		}
		m.Listeners = append(m.Listeners, l)
	}
	return nil
}

// CheckListen reports why nothing can listen on a target.
func CheckListen(t Target) error {
	if err := t.Check(); err != nil {
		return err
	}
	switch {
	case t.Network == NetworkUnix:
		return nil
	case t.Network != NetworkTCP || len(t.Addrs) != 1:
		return fmt.Errorf("%v: want one tcp address or a unix socket to listen on", t)
	case t.Addrs[0].Port() == 0 || t.Addrs[0].Addr().IsMulticast() || t.Addrs[0].Addr().Is4In6():
		return fmt.Errorf("%v is not an address to listen on", t.Addrs[0])
	}
	return nil
}

// ReverseState is how a listener in the guest is.
type ReverseState uint8

// States of listeners in the guest. Values are on the wire.
const (
	ReverseListening   ReverseState = 0
	ReverseInUse       ReverseState = 1 // something else has the address; it is tried again
	ReverseDenied      ReverseState = 2 // the guest's system forbids it; it is tried again
	ReverseUnavailable ReverseState = 3 // the guest has no such address; it is tried again
	ReverseFailed      ReverseState = 4 // anything else; it is tried again
)

// ReverseStateMessage tells how a listener is, first and whenever that changes.
type ReverseStateMessage struct {
	ID     uint64
	State  ReverseState
	Reason string
}

func (*ReverseStateMessage) kind() messageKind { return kindReverseState }

func (m *ReverseStateMessage) encode(b *cryptobyte.Builder) {
	b.AddUint64(m.ID)
	b.AddUint8(uint8(m.State))
	addString(b, m.Reason, MaxReason)
}

func (m *ReverseStateMessage) decode(s *cryptobyte.String) error {
	if !s.ReadUint64(&m.ID) || !s.ReadUint8((*uint8)(&m.State)) {
		return errShort
	}
	if m.State > ReverseFailed {
		return fmt.Errorf("unknown state %d of a reverse listener", m.State)
	}
	return readString(s, &m.Reason, MaxReason)
}

// GuestOpened marks the IDs of streams that the guest opens, so that both ends
// can choose IDs.
const GuestOpened = 1 << 63

// ReverseOpen is the first thing on a stream that the guest opens: the stream's
// ID, and of the listener that has accepted its connection. What that is connected
// to, the guest neither knows nor can say.
type ReverseOpen struct{ ID, Listener uint64 }

const reverseOpenLen = 16

// Append adds the request to b.
func (o ReverseOpen) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, o.ID)
	return binary.BigEndian.AppendUint64(b, o.Listener)
}

// ReadReverseOpen reads one request and not a byte more.
func ReadReverseOpen(r io.Reader) (o ReverseOpen, err error) {
	var b [reverseOpenLen]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return o, err
	}
	o.ID, o.Listener = binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])
	if o.ID&GuestOpened == 0 {
		return o, errors.New("the guest opened a stream under an ID of the host's")
	}
	return o, nil
}
