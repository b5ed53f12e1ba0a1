package tunnel

import (
	"crypto/sha256"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

const (
	nonceSize = 32
	proofSize = sha256.Size
)

// handshakeStatus of proof and ready frames. Values are on the wire.
const (
	statusOK   = 0
	statusAuth = 1
	statusFull = 2 // the guest agent has as many links as it may
)

type helloFrame struct {
	min, max uint16
	hasKey   bool
	nonce    [nonceSize]byte
	features uint64
}

func (h *helloFrame) encode() []byte {
	b := cryptobyte.NewFixedBuilder(make([]byte, 0, 64))
	b.AddUint16(h.min)
	b.AddUint16(h.max)
	addBool(b, h.hasKey)
	b.AddBytes(h.nonce[:])
	b.AddUint64(h.features)
	return b.BytesOrPanic()
}

// decode reads what this version knows and leaves later additions alone. Version 1
// had no features.
func (h *helloFrame) decode(body []byte) bool {
	s := cryptobyte.String(body)
	ok := s.ReadUint16(&h.min) && s.ReadUint16(&h.max) && readBool(&s, &h.hasKey) && s.CopyBytes(h.nonce[:])
	if ok && !s.ReadUint64(&h.features) {
		h.features = 0
	}
	return ok
}

type replyFrame struct {
	version  uint16
	min, max uint16
	hasKey   bool
	instance [16]byte
	hello    [nonceSize]byte // the host's nonce, so that an old reply is told from ours
	nonce    [nonceSize]byte
	proof    [proofSize]byte
	// more is what follows the proof, which is covered by it too: the features,
	// and what later versions add.
	more []byte
}

// signed is the part that the proofs cover.
func (r *replyFrame) signed() []byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, 128))
	b.AddUint16(r.version)
	b.AddUint16(r.min)
	b.AddUint16(r.max)
	addBool(b, r.hasKey)
	b.AddBytes(r.instance[:])
	b.AddBytes(r.hello[:])
	b.AddBytes(r.nonce[:])
	b.AddBytes(r.more)
	return b.BytesOrPanic()
}

func (r *replyFrame) encode() []byte {
	signed := r.signed()
	fixed := len(signed) - len(r.more)
	return slices.Concat(signed[:fixed], r.proof[:], r.more)
}

// features are what the guest can do; none in version 1.
func (r *replyFrame) features() (f uint64) {
	s := cryptobyte.String(r.more)
	s.ReadUint64(&f)
	return f
}

func (r *replyFrame) decode(body []byte) bool {
	s := cryptobyte.String(body)
	ok := s.ReadUint16(&r.version) && s.ReadUint16(&r.min) && s.ReadUint16(&r.max) &&
		readBool(&s, &r.hasKey) && s.CopyBytes(r.instance[:]) && s.CopyBytes(r.hello[:]) &&
		s.CopyBytes(r.nonce[:]) && s.CopyBytes(r.proof[:])
	r.more = s
	return ok
}

// verdictFrame is the body of proof and ready.
type verdictFrame struct {
	nonce  [nonceSize]byte // the receiver's
	status uint8
	reason string
	proof  [proofSize]byte
}

func (v *verdictFrame) encode() []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddBytes(v.nonce[:])
	b.AddUint8(v.status)
	addString(b, v.reason, maxReason)
	b.AddBytes(v.proof[:])
	return b.BytesOrPanic()
}

func (v *verdictFrame) decode(body []byte) bool {
	s := cryptobyte.String(body)
	return s.CopyBytes(v.nonce[:]) && s.ReadUint8(&v.status) &&
		readString(&s, &v.reason, maxReason) == nil && s.CopyBytes(v.proof[:])
}

func addBool(b *cryptobyte.Builder, v bool) {
	if v {
		b.AddUint8(1)
	} else {
		b.AddUint8(0)
	}
}

func readBool(s *cryptobyte.String, v *bool) bool {
	var n uint8
	ok := s.ReadUint8(&n)
	*v = n != 0
	return ok && n <= 1
}
