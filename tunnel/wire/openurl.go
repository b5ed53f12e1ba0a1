package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// MaxURL is the most that a URL has which a guest wants opened, in bytes.
const MaxURL = 8 << 10

// OpenURLMessage asks the host to open a URL in its user's browser. The URL is as a program in the guest
// gave it: whoever receives it checks it.
type OpenURLMessage struct {
	ID    uint64 // of the answer
	URL   string
	Proof []byte // that it is the guest agent's order
	// User is whose program in the guest asks, a user's subordinate IDs being his; 0 also where an older agent does
	// not say so. No proof is of it, since older hosts know none: it is for sharing what there is room for.
	User uint32
}

// fieldUser is the kind of the field that holds the user.
const fieldUser = 2

func (*OpenURLMessage) kind() messageKind { return kindOpenURL }

// Order is what the proof is of.
func (m *OpenURLMessage) Order() []byte {
	b := cryptobyte.NewBuilder(nil)
	m.encodeOrder(b)
	return b.BytesOrPanic()
}

func (m *OpenURLMessage) encodeOrder(b *cryptobyte.Builder) {
	b.AddUint64(m.ID)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(m.URL)) })
}

func (m *OpenURLMessage) encode(b *cryptobyte.Builder) {
	m.encodeOrder(b)
	addField(b, fieldProof, m.Proof)
	if m.User != 0 {
		addField(b, fieldUser, binary.BigEndian.AppendUint32(nil, m.User))
	}
}

func (m *OpenURLMessage) field(kind uint8, body []byte) bool {
	switch {
	case kind == fieldProof:
		m.Proof = bytes.Clone(body)
	case kind == fieldUser && len(body) == 4:
		m.User = binary.BigEndian.Uint32(body)
	default:
		return false
	}
	return true
}

func (m *OpenURLMessage) decode(s *cryptobyte.String) error {
	var url cryptobyte.String
	if !s.ReadUint64(&m.ID) || !s.ReadUint16LengthPrefixed(&url) {
		return errShort
	}
	if len(url) > MaxURL {
		return fmt.Errorf("URL of %d bytes, at most %d are allowed", len(url), MaxURL)
	}
	m.URL = string(url)
	return nil
}

// OpenOutcome is what became of a URL on the host.
type OpenOutcome uint8

// Outcomes for URLs. Values are on the wire; one that the guest does not know is a refusal.
const (
	OpenOpened     OpenOutcome = 1 // in the browser
	OpenAsked      OpenOutcome = 2 // the host's user is asked about it
	OpenRefused    OpenOutcome = 3
	OpenNotAllowed OpenOutcome = 4 // the host opens nothing for this guest; another one may
)

// OpenURLAnswerMessage answers an [OpenURLMessage].
type OpenURLAnswerMessage struct {
	ID      uint64
	Outcome OpenOutcome
	Reason  string // in words, whatever the outcome; may be empty
}

func (*OpenURLAnswerMessage) kind() messageKind { return kindOpenURLAnswer }

func (m *OpenURLAnswerMessage) encode(b *cryptobyte.Builder) {
	b.AddUint64(m.ID)
	b.AddUint8(uint8(m.Outcome))
	addString(b, m.Reason, MaxReason)
}

func (m *OpenURLAnswerMessage) decode(s *cryptobyte.String) error {
	if !s.ReadUint64(&m.ID) || !s.ReadUint8((*uint8)(&m.Outcome)) {
		return errShort
	}
	return readString(s, &m.Reason, MaxReason)
}
