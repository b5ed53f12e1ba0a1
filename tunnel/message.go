package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/rum-vm/rum-agent/portwatch"
	"golang.org/x/crypto/cryptobyte"
)

// Limits on what a peer can make us keep.
const (
	// maxMessage bounds a control message in bytes: a snapshot of
	// MaxListeners with the longest names fits.
	maxMessage = 1 << 20
	// MaxListeners is how many listeners a guest can announce.
	MaxListeners = 4096
	maxProcess   = 96
	maxInterface = 16
	maxName      = 255
)

// A message on the control stream. On the wire each is a 32-bit length, a kind
// and the body, all integers in network byte order.
type message interface {
	kind() messageKind
	encode(b *cryptobyte.Builder)
	decode(s *cryptobyte.String) error
}

type messageKind uint8

// Values are on the wire.
const (
	kindHello        messageKind = 1
	kindSnapshot     messageKind = 2
	kindDelta        messageKind = 3
	kindScanError    messageKind = 4
	kindPing         messageKind = 5
	kindPong         messageKind = 6
	kindEnd          messageKind = 7
	kindReverse      messageKind = 8
	kindReverseState messageKind = 9
)

func newMessage(k messageKind) message {
	switch k {
	case kindHello:
		return new(helloMessage)
	case kindSnapshot:
		return new(snapshotMessage)
	case kindDelta:
		return new(deltaMessage)
	case kindScanError:
		return new(scanErrorMessage)
	case kindPing:
		return new(pingMessage)
	case kindPong:
		return new(pongMessage)
	case kindEnd:
		return new(endMessage)
	case kindReverse:
		return new(reverseMessage)
	case kindReverseState:
		return new(reverseStateMessage)
	}
	return nil
}

// appendMessage adds the encoded message to b.
func appendMessage(b []byte, m message) []byte {
	builder := cryptobyte.NewBuilder(b)
	builder.AddUint32LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint8(uint8(m.kind()))
		m.encode(b)
	})
	return builder.BytesOrPanic() // our own values; a failure is a bug
}

// decodeMessage decodes a message without the length in front. It returns nil and no
// error for one that is to be skipped.
func decodeMessage(b []byte) (message, error) {
	s := cryptobyte.String(b)
	var k uint8
	if !s.ReadUint8(&k) {
		return nil, errors.New("control message without a kind")
	}
	m := newMessage(messageKind(k))
	if m == nil {
		return nil, unknown("control message", k)
	}
	if err := m.decode(&s); err != nil {
		return nil, fmt.Errorf("control message of kind %d: %w", k, err)
	}
	var known func(uint8, []byte) bool
	if m, ok := m.(*reverseMessage); ok {
		known = m.field
	}
	if err := readFields(&s, known); err != nil {
		return nil, fmt.Errorf("control message of kind %d: %w", k, err)
	}
	return m, nil
}

// messageReader reads messages into a buffer that grows only with what has
// really arrived.
type messageReader struct {
	r   io.Reader
	buf []byte
}

// next returns the next message as decodeMessage takes it, good until the one after it
// is read.
func (r *messageReader) next() ([]byte, error) {
	var hdr [4]byte
	if _, err := io.ReadFull(r.r, hdr[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(hdr[:]))
	if n < 1 || n > maxMessage {
		return nil, fmt.Errorf("control message of %d bytes, want 1 to %d", n, maxMessage)
	}
	const step = 64 << 10
	r.buf = r.buf[:0]
	for len(r.buf) < n {
		have := len(r.buf)
		r.buf = append(r.buf, make([]byte, min(step, n-have))...)
		if _, err := io.ReadFull(r.r, r.buf[have:]); err != nil {
			return nil, fmt.Errorf("control message is cut short: %w", err)
		}
	}
	return r.buf, nil
}

var errShort = errors.New("cut short")

// helloMessage is the first message in either direction.
type helloMessage struct {
	AgentVersion string
	Hostname     string
	BootID       string // /proc/sys/kernel/random/boot_id of the sender
}

func (*helloMessage) kind() messageKind { return kindHello }

func (m *helloMessage) encode(b *cryptobyte.Builder) {
	addString(b, m.AgentVersion, maxName)
	addString(b, m.Hostname, maxName)
	addString(b, m.BootID, maxName)
}

func (m *helloMessage) decode(s *cryptobyte.String) error {
	return errors.Join(
		readString(s, &m.AgentVersion, maxName),
		readString(s, &m.Hostname, maxName),
		readString(s, &m.BootID, maxName))
}

// snapshotMessage is all that listens in the guest.
type snapshotMessage struct {
	Generation uint64
	Listeners  []portwatch.Listener
	Skipped    []skippedItem
}

func (*snapshotMessage) kind() messageKind { return kindSnapshot }

func (m *snapshotMessage) encode(b *cryptobyte.Builder) {
	b.AddUint64(m.Generation)
	addListeners(b, m.Listeners, m.Skipped)
}

func (m *snapshotMessage) decode(s *cryptobyte.String) (err error) {
	if !s.ReadUint64(&m.Generation) {
		return errShort
	}
	m.Listeners, m.Skipped, err = readListeners(s)
	return err
}

// deltaMessage turns generation From into generation To. Of what is removed, only
// protocol and address are told.
type deltaMessage struct {
	From, To       uint64
	Removed, Added []portwatch.Listener
	// SkippedRemoved and SkippedAdded are what cannot be used of the two.
	SkippedRemoved, SkippedAdded []skippedItem
}

func (*deltaMessage) kind() messageKind { return kindDelta }

func (m *deltaMessage) encode(b *cryptobyte.Builder) {
	b.AddUint64(m.From)
	b.AddUint64(m.To)
	addListeners(b, keysOnly(m.Removed), m.SkippedRemoved)
	addListeners(b, m.Added, m.SkippedAdded)
}

func (m *deltaMessage) decode(s *cryptobyte.String) (err error) {
	if !s.ReadUint64(&m.From) || !s.ReadUint64(&m.To) {
		return errShort
	}
	if m.Removed, m.SkippedRemoved, err = readListeners(s); err != nil {
		return err
	}
	m.Removed = keysOnly(m.Removed)
	m.Added, m.SkippedAdded, err = readListeners(s)
	return err
}

// scanErrorMessage says that the guest cannot see its listeners at present, or
// with an empty text that it can again. What was announced before stands.
type scanErrorMessage struct{ Text string }

func (*scanErrorMessage) kind() messageKind { return kindScanError }

func (m *scanErrorMessage) encode(b *cryptobyte.Builder) { addString(b, m.Text, maxReason) }

func (m *scanErrorMessage) decode(s *cryptobyte.String) error {
	return readString(s, &m.Text, maxReason)
}

// pingMessage is the host's heartbeat, pongMessage the guest's reply to it.
type (
	pingMessage struct{ Seq uint64 }
	pongMessage struct{ Seq uint64 }
)

func (*pingMessage) kind() messageKind                   { return kindPing }
func (m *pingMessage) encode(b *cryptobyte.Builder)      { b.AddUint64(m.Seq) }
func (m *pingMessage) decode(s *cryptobyte.String) error { return readUint64(s, &m.Seq) }

func (*pongMessage) kind() messageKind                   { return kindPong }
func (m *pongMessage) encode(b *cryptobyte.Builder)      { b.AddUint64(m.Seq) }
func (m *pongMessage) decode(s *cryptobyte.String) error { return readUint64(s, &m.Seq) }

func readUint64(s *cryptobyte.String, v *uint64) error {
	if !s.ReadUint64(v) {
		return errShort
	}
	return nil
}
