package tunnel

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// endKind is what one side tells about a stream.
type endKind uint8

// Values are on the wire.
const (
	// endComplete: everything was sent, Sent bytes of it; nothing follows.
	endComplete endKind = 1
	// endAborted: the connection behind the stream was reset, after Sent bytes.
	endAborted endKind = 2
	// endStopped: nothing more will be read.
	endStopped endKind = 3
	// endReleased, from the guest: the stream is over, and the raw connection
	// that carried it can carry another.
	endReleased endKind = 4
)

func (k endKind) valid() bool { return k >= endComplete && k <= endReleased }

// endMessage tells how a stream ended: on the control stream, or on the
// connection beside it that is for this alone.
type endMessage struct {
	ID   uint64
	Kind endKind
	Sent uint64 // bytes, for endComplete and endAborted
}

func (*endMessage) kind() messageKind { return kindEnd }

func (m *endMessage) encode(b *cryptobyte.Builder) {
	b.AddUint64(m.ID)
	b.AddUint8(uint8(m.Kind))
	b.AddUint64(m.Sent)
}

func (m *endMessage) decode(s *cryptobyte.String) error {
	if !s.ReadUint64(&m.ID) || !s.ReadUint8((*uint8)(&m.Kind)) || !s.ReadUint64(&m.Sent) {
		return errShort
	}
	if !m.Kind.valid() {
		return fmt.Errorf("unknown end %d of stream %d", m.Kind, m.ID)
	}
	return nil
}
