package wire

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// EndKind is what one side tells about a stream.
type EndKind uint8

// Values are on the wire.
const (
	// EndComplete: everything was sent, Sent bytes of it; nothing follows.
	EndComplete EndKind = 1
	// EndAborted: the connection behind the stream was reset, after Sent bytes.
	EndAborted EndKind = 2
	// EndStopped: nothing more will be read.
	EndStopped EndKind = 3
	// EndReleased, from the guest: the stream is over, and the raw connection
	// that carried it can carry another.
	EndReleased EndKind = 4
)

func (k EndKind) Valid() bool { return k >= EndComplete && k <= EndReleased }

// EndMessage tells how a stream ended: on the control stream, or on the
// connection beside it that is for this alone.
type EndMessage struct {
	ID   uint64
	Kind EndKind
	Sent uint64 // bytes, for endComplete and endAborted
}

func (*EndMessage) kind() messageKind { return kindEnd }

func (m *EndMessage) Encode(b *cryptobyte.Builder) {
	b.AddUint64(m.ID)
	b.AddUint8(uint8(m.Kind))
	b.AddUint64(m.Sent)
}

func (m *EndMessage) Decode(s *cryptobyte.String) error {
	if !s.ReadUint64(&m.ID) || !s.ReadUint8((*uint8)(&m.Kind)) || !s.ReadUint64(&m.Sent) {
		return errShort
	}
	if !m.Kind.Valid() {
		return fmt.Errorf("unknown end %d of stream %d", m.Kind, m.ID)
	}
	return nil
}
