package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"
)

// What a stream is to lead to. Values are on the wire.
const (
	ToAgent  Target = 1 // the guest agent of a VM
	ToBridge Target = 2 // a TCP port of a VM at its bridge address
)

// Target is what a stream leads to. Where that is the relay knows by itself: no request has an address.
type Target uint8

// requestSize is the length of a request in bytes.
const requestSize = 1 + 16 + 2

// Request is what a stream begins with.
type Request struct {
	To   Target
	UUID uuid.UUID
	Port uint16 // for ToBridge
}

// Append appends the request as it is sent.
func (r Request) Append(b []byte) []byte {
	b = append(append(b, byte(r.To)), r.UUID[:]...)
	return binary.BigEndian.AppendUint16(b, r.Port)
}

// ReadRequest reads a request.
func ReadRequest(r io.Reader) (q Request, err error) {
	var b [requestSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return q, err
	}
	q = Request{To: Target(b[0]), UUID: uuid.UUID(b[1:17]), Port: binary.BigEndian.Uint16(b[17:])}
	switch {
	case q.To != ToAgent && q.To != ToBridge:
		return q, fmt.Errorf("a stream cannot lead to a target of kind %d", q.To)
	case q.To == ToBridge && q.Port == 0:
		return q, errors.New("port 0 is none")
	}
	return q, nil
}
