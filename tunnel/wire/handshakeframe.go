package wire

import (
	"crypto/sha256"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// Lengths in bytes of what each end gives to the other.
const (
	NonceSize = 32
	proofSize = sha256.Size
)

// Status of a VerdictFrame. Values are on the wire.
const (
	StatusOK   = 0
	StatusAuth = 1 // the key was not proved
	StatusFull = 2 // the guest agent has as many links as it may
)

// HelloFrame is the body of hello, by which the host begins.
type HelloFrame struct {
	Min, Max uint16
	HasKey   bool
	Nonce    [NonceSize]byte
	Features uint64
}

// Encode returns the body.
func (h *HelloFrame) Encode() []byte {
	b := cryptobyte.NewFixedBuilder(make([]byte, 0, 64))
	b.AddUint16(h.Min)
	b.AddUint16(h.Max)
	addBool(b, h.HasKey)
	b.AddBytes(h.Nonce[:])
	b.AddUint64(h.Features)
	return b.BytesOrPanic()
}

// Decode reads what this version knows and leaves later additions alone. Version 1
// had no features.
func (h *HelloFrame) Decode(body []byte) bool {
	s := cryptobyte.String(body)
	ok := s.ReadUint16(&h.Min) && s.ReadUint16(&h.Max) && readBool(&s, &h.HasKey) && s.CopyBytes(h.Nonce[:])
	if ok && !s.ReadUint64(&h.Features) {
		h.Features = 0
	}
	return ok
}

// ReplyFrame is the body of reply, the guest's answer to a hello.
type ReplyFrame struct {
	Version  uint16
	Min, Max uint16
	HasKey   bool
	Instance [16]byte
	Hello    [NonceSize]byte // the host's nonce, so that an old reply is told from ours
	Nonce    [NonceSize]byte
	Proof    [proofSize]byte
	// More is what follows the proof, which is covered by it too: the features,
	// and what later versions add.
	More []byte
}

// Signed is the part that the proofs cover.
func (r *ReplyFrame) Signed() []byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, 128))
	b.AddUint16(r.Version)
	b.AddUint16(r.Min)
	b.AddUint16(r.Max)
	addBool(b, r.HasKey)
	b.AddBytes(r.Instance[:])
	b.AddBytes(r.Hello[:])
	b.AddBytes(r.Nonce[:])
	b.AddBytes(r.More)
	return b.BytesOrPanic()
}

// Encode returns the body.
func (r *ReplyFrame) Encode() []byte {
	signed := r.Signed()
	fixed := len(signed) - len(r.More)
	return slices.Concat(signed[:fixed], r.Proof[:], r.More)
}

// Features are what the guest can do; none in version 1.
func (r *ReplyFrame) Features() (f uint64) {
	s := cryptobyte.String(r.More)
	s.ReadUint64(&f)
	return f
}

// Decode reads a body, and reports whether it is one.
func (r *ReplyFrame) Decode(body []byte) bool {
	s := cryptobyte.String(body)
	ok := s.ReadUint16(&r.Version) && s.ReadUint16(&r.Min) && s.ReadUint16(&r.Max) &&
		readBool(&s, &r.HasKey) && s.CopyBytes(r.Instance[:]) && s.CopyBytes(r.Hello[:]) &&
		s.CopyBytes(r.Nonce[:]) && s.CopyBytes(r.Proof[:])
	r.More = s
	return ok
}

// VerdictFrame is the body of proof and ready.
type VerdictFrame struct {
	Nonce  [NonceSize]byte // the receiver's
	Status uint8
	Reason string
	Proof  [proofSize]byte
}

// Encode returns the body.
func (v *VerdictFrame) Encode() []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddBytes(v.Nonce[:])
	b.AddUint8(v.Status)
	addString(b, v.Reason, MaxReason)
	b.AddBytes(v.Proof[:])
	return b.BytesOrPanic()
}

// Decode reads a body, and reports whether it is one.
func (v *VerdictFrame) Decode(body []byte) bool {
	s := cryptobyte.String(body)
	return s.CopyBytes(v.Nonce[:]) && s.ReadUint8(&v.Status) &&
		readString(&s, &v.Reason, MaxReason) == nil && s.CopyBytes(v.Proof[:])
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
