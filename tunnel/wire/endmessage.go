package wire

import (
	"encoding/binary"
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

// Valid reports whether this version knows the kind.
func (k EndKind) Valid() bool { return k >= EndComplete && k <= EndReleased }

// EndMessage tells how a stream ended: on the control stream, or on the
// connection beside it that is for this alone.
type EndMessage struct {
	ID   uint64
	Kind EndKind
	Sent uint64 // bytes, for EndComplete and EndAborted
}

func (*EndMessage) kind() messageKind { return kindEnd }

func (m *EndMessage) encode(b *cryptobyte.Builder) {
	b.AddUint64(m.ID)
	b.AddUint8(uint8(m.Kind))
	b.AddUint64(m.Sent)
}

func (m *EndMessage) decode(s *cryptobyte.String) error {
	if !s.ReadUint64(&m.ID) || !s.ReadUint8((*uint8)(&m.Kind)) || !s.ReadUint64(&m.Sent) {
		return errShort
	}
	if !m.Kind.Valid() {
		return fmt.Errorf("unknown end %d of stream %d", m.Kind, m.ID)
	}
	return nil
}

// EndRecord is the length in bytes of an EndMessage on a connection for ends alone: ID,
// kind, bytes sent.
const EndRecord = 17

// AppendRecord adds the message to b as a record.
func (m *EndMessage) AppendRecord(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, m.ID)
	b = append(b, byte(m.Kind))
	return binary.BigEndian.AppendUint64(b, m.Sent)
}

// EndOf reads a record. An end of a kind that is not known is to be skipped.
func EndOf(record [EndRecord]byte) (m EndMessage, known bool, err error) {
	m = EndMessage{ID: binary.BigEndian.Uint64(record[:]), Kind: EndKind(record[8]), Sent: binary.BigEndian.Uint64(record[9:])}
	if !m.Kind.Valid() {
		return m, false, unknown("end of a stream", record[8])
	}
	return m, true, nil
}
