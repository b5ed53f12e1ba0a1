package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"golang.org/x/crypto/cryptobyte"
)

// Limits on what a peer can make us keep.
const (
	// MaxMessage bounds a control message in bytes: a snapshot of
	// MaxListeners with the longest names fits, and so does a delta.
	MaxMessage = 1 << 20
	// MaxListeners is how many listeners a guest can announce.
	MaxListeners = 4096
	maxProcess   = 96
	maxInterface = 16
	maxName      = 255
)

// Message is a message on the control stream. On the wire each is a 32-bit length, a kind
// and the body, all integers in network byte order.
type Message interface {
	kind() messageKind
	encode(b *cryptobyte.Builder)
	decode(s *cryptobyte.String) error
}

type messageKind uint8

// Values are on the wire.
const (
	kindHello         messageKind = 1
	kindSnapshot      messageKind = 2
	kindDelta         messageKind = 3
	kindScanError     messageKind = 4
	kindPing          messageKind = 5
	kindPong          messageKind = 6
	kindEnd           messageKind = 7
	kindReverse       messageKind = 8
	kindReverseState  messageKind = 9
	kindPortStates    messageKind = 10
	kindOpenURL       messageKind = 11
	kindOpenURLAnswer messageKind = 12
)

func newMessage(k messageKind) Message {
	switch k {
	case kindHello:
		return new(HelloMessage)
	case kindSnapshot:
		return new(SnapshotMessage)
	case kindDelta:
		return new(DeltaMessage)
	case kindScanError:
		return new(ScanErrorMessage)
	case kindPing:
		return new(PingMessage)
	case kindPong:
		return new(PongMessage)
	case kindEnd:
		return new(EndMessage)
	case kindReverse:
		return new(ReverseMessage)
	case kindReverseState:
		return new(ReverseStateMessage)
	case kindPortStates:
		return new(PortStatesMessage)
	case kindOpenURL:
		return new(OpenURLMessage)
	case kindOpenURLAnswer:
		return new(OpenURLAnswerMessage)
	}
	return nil
}

// AppendMessage adds the encoded message to b.
func AppendMessage(b []byte, m Message) []byte {
	builder := cryptobyte.NewBuilder(b)
	builder.AddUint32LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint8(uint8(m.kind()))
		m.encode(b)
	})
	return builder.BytesOrPanic() // our own values; a failure is a bug
}

// DecodeMessage decodes a message without the length in front. It returns nil and no
// error for one that is to be skipped.
func DecodeMessage(b []byte) (Message, error) {
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
	switch m := m.(type) {
	case *HelloMessage:
		known = m.field
	case *ReverseMessage:
		known = m.field
	case *SnapshotMessage:
		known = programsOf(m.Listeners)
	case *DeltaMessage:
		known = programsOf(m.Added)
	case *PongMessage:
		known = m.field
	case *OpenURLMessage:
		known = m.field
	}
	if err := readFields(&s, known); err != nil {
		return nil, fmt.Errorf("control message of kind %d: %w", k, err)
	}
	return m, nil
}

// MessageReader reads messages into a buffer that grows only with what has
// really arrived.
type MessageReader struct {
	R   io.Reader
	Buf []byte // what it has read last
}

// Next returns the next message as [DecodeMessage] takes it, good until the one after it
// is read.
func (r *MessageReader) Next() ([]byte, error) {
	var hdr [4]byte
	if _, err := io.ReadFull(r.R, hdr[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(hdr[:]))
	if n < 1 || n > MaxMessage {
		return nil, fmt.Errorf("control message of %d bytes, want 1 to %d", n, MaxMessage)
	}
	const step = 64 << 10
	r.Buf = r.Buf[:0]
	for len(r.Buf) < n {
		have := len(r.Buf)
		r.Buf = append(r.Buf, make([]byte, min(step, n-have))...)
		if _, err := io.ReadFull(r.R, r.Buf[have:]); err != nil {
			return nil, fmt.Errorf("control message is cut short: %w", err)
		}
	}
	return r.Buf, nil
}

var errShort = errors.New("cut short")

// HelloMessage is the first message in either direction.
type HelloMessage struct {
	AgentVersion string
	Hostname     string
	BootID       string // /proc/sys/kernel/random/boot_id of the sender
	Arch         string // GOARCH of the sender; empty where it is not told
	Packager     string // the command of the package manager that the sender is from; empty for none
}

// Kinds of fields of a hello message.
const (
	fieldArch     = 1
	fieldPackager = 2
)

// maxArch is more than names of architectures and package managers have, in bytes.
const maxArch = 32

func (*HelloMessage) kind() messageKind { return kindHello }

func (m *HelloMessage) encode(b *cryptobyte.Builder) {
	addString(b, m.AgentVersion, maxName)
	addString(b, m.Hostname, maxName)
	addString(b, m.BootID, maxName)
	addField(b, fieldArch, []byte(Clean(m.Arch, maxArch)))
	addField(b, fieldPackager, []byte(Clean(m.Packager, maxArch)))
}

func (m *HelloMessage) field(kind uint8, body []byte) bool {
	to := map[uint8]*string{fieldArch: &m.Arch, fieldPackager: &m.Packager}[kind]
	if to == nil || len(body) > maxArch {
		return false
	}
	*to = Clean(string(body), maxArch)
	return true
}

func (m *HelloMessage) decode(s *cryptobyte.String) error {
	return errors.Join(
		readString(s, &m.AgentVersion, maxName),
		readString(s, &m.Hostname, maxName),
		readString(s, &m.BootID, maxName))
}

// SnapshotMessage is all that listens in the guest.
type SnapshotMessage struct {
	Generation uint64
	Listeners  []portlist.Listener
	Skipped    []SkippedItem
}

func (*SnapshotMessage) kind() messageKind { return kindSnapshot }

func (m *SnapshotMessage) encode(b *cryptobyte.Builder) {
	b.AddUint64(m.Generation)
	addListeners(b, m.Listeners, m.Skipped)
	addPrograms(b, m.Listeners)
}

func (m *SnapshotMessage) decode(s *cryptobyte.String) (err error) {
	if !s.ReadUint64(&m.Generation) {
		return errShort
	}
	m.Listeners, m.Skipped, err = readListeners(s)
	return err
}

// DeltaMessage turns generation From into generation To. Of what is removed, only
// protocol and address are told.
type DeltaMessage struct {
	From, To       uint64
	Removed, Added []portlist.Listener
	// SkippedRemoved and SkippedAdded are what cannot be used of the two.
	SkippedRemoved, SkippedAdded []SkippedItem
}

func (*DeltaMessage) kind() messageKind { return kindDelta }

func (m *DeltaMessage) encode(b *cryptobyte.Builder) {
	b.AddUint64(m.From)
	b.AddUint64(m.To)
	addListeners(b, keysOnly(m.Removed), m.SkippedRemoved)
	addListeners(b, m.Added, m.SkippedAdded)
	addPrograms(b, m.Added)
}

func (m *DeltaMessage) decode(s *cryptobyte.String) (err error) {
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

// ScanErrorMessage says that the guest cannot see its listeners at present, or
// with an empty text that it can again. What was announced before stands.
type ScanErrorMessage struct{ Text string }

func (*ScanErrorMessage) kind() messageKind { return kindScanError }

func (m *ScanErrorMessage) encode(b *cryptobyte.Builder) { addString(b, m.Text, MaxReason) }

func (m *ScanErrorMessage) decode(s *cryptobyte.String) error {
	return readString(s, &m.Text, MaxReason)
}

// PingMessage is the host's heartbeat.
type PingMessage struct{ Seq uint64 }

// PongMessage is the guest's reply to it, with the time on its clock: any number at all, of one that means ill.
type PongMessage struct {
	Seq uint64
	Now int64 // nanoseconds since 1970; 0 where it is not told
}

// fieldNow is the kind of the field that holds a time, in 8 bytes.
const fieldNow = 1

func (*PingMessage) kind() messageKind                   { return kindPing }
func (m *PingMessage) encode(b *cryptobyte.Builder)      { b.AddUint64(m.Seq) }
func (m *PingMessage) decode(s *cryptobyte.String) error { return readUint64(s, &m.Seq) }

func (*PongMessage) kind() messageKind                   { return kindPong }
func (m *PongMessage) decode(s *cryptobyte.String) error { return readUint64(s, &m.Seq) }

func (m *PongMessage) encode(b *cryptobyte.Builder) {
	b.AddUint64(m.Seq)
	if m.Now != 0 {
		addField(b, fieldNow, binary.BigEndian.AppendUint64(nil, uint64(m.Now)))
	}
}

func (m *PongMessage) field(kind uint8, body []byte) bool {
	if kind != fieldNow || len(body) != 8 {
		return false
	}
	m.Now = int64(binary.BigEndian.Uint64(body))
	return true
}

func readUint64(s *cryptobyte.String, v *uint64) error {
	if !s.ReadUint64(v) {
		return errShort
	}
	return nil
}
