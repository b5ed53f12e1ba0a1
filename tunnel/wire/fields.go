package wire

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// RequiredKind is the bit of a kind that must be understood. Agents of different builds
// talk to each other. A message, a frame or a field of a
// kind that the receiver does not know is skipped, unless its kind has this bit: then
// the sender needs it to be understood, and the link or the stream ends.
//
// A field follows what a message has always had: its kind (1 byte), a length (2)
// and as many bytes.
const RequiredKind = 0x80

// fieldProof is the kind of the field that holds the proof of an order.
const fieldProof = RequiredKind | 1

// unknown is the error for something of a kind that nobody here knows, or nil if it
// is to be skipped.
func unknown(what string, kind uint8) error {
	if kind&RequiredKind == 0 {
		return nil
	}
	return fmt.Errorf("%s of kind %d, which this agent does not know and has to: upgrade the older agent", what, kind)
}

// readFields takes the fields off the end of a message. known, which may be nil, is
// given each and reports whether it knows it.
func readFields(s *cryptobyte.String, known func(kind uint8, body []byte) bool) error {
	for !s.Empty() {
		var (
			kind uint8
			body cryptobyte.String
		)
		if !s.ReadUint8(&kind) || !s.ReadUint16LengthPrefixed(&body) {
			return fmt.Errorf("field is %w", errShort)
		}
		if known != nil && known(kind, body) {
			continue
		}
		if err := unknown("field", kind); err != nil {
			return err
		}
	}
	return nil
}

// addField adds a field; none for an empty body.
func addField(b *cryptobyte.Builder, kind uint8, body []byte) {
	if len(body) == 0 {
		return
	}
	b.AddUint8(kind)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(body) })
}
