// Package handshake is how two agents find each other to be of one protocol and to have
// the same key, on a connection that is to carry a session:
//
//	host  -> hello   lowest and highest version, key or not, nonce, features
//	guest -> reply   version (0: none in common), its range, key or not, instance, nonce, proof, features
//	host  -> proof   status and reason, proof
//	guest -> ready   status and reason; yamux follows
//
// A proof is HMAC-SHA256 under the key over the role of its sender and the
// bodies of hello and reply, so over both nonces and the version. On a line
// that may still hold bytes of a dead peer the host repeats its hello until
// the reply to it comes, and both ends skip what they do not expect; nothing
// but the session can follow ready.
//
// What both have agreed upon also gives the keys by which orders are proved afterwards, one for
// those of each end ([Signer], [Verifier]).
package handshake

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// protocolVersion is what this code speaks, and nothing else: version 1 ended a
// link for what it did not know, so nothing could be added to it.
const protocolVersion = 2

const (
	// featureHandOver is of a guest agent that knows [wire.OpenRequest.HandOver].
	featureHandOver = 1 << 0
	// featureOpenURL is of a host agent that answers [wire.OpenURLMessage], and of a guest agent that sends it.
	featureOpenURL = 1 << 1
	// featureAgent is of a guest agent that can be asked for something of its own ([wire.NetworkAgent]).
	featureAgent = 1 << 2
)

// features are what this code can do beyond the version, a bit for each. A link uses
// what both ends have. What an agent does not know of it skips, unless the sender
// marked it as required.
const features uint64 = featureHandOver | featureOpenURL | featureAgent

// tokenSize is the length of what opens raw streams, in bytes.
const tokenSize = 16

// IncompatibleError says that host and guest speak no common version of the
// protocol.
type IncompatibleError struct {
	// GuestMin and GuestMax are what the guest agent speaks.
	GuestMin, GuestMax uint16
}

func (e *IncompatibleError) Error() string {
	older := "guest agent"
	if !e.GuestIsOlder() {
		older = "host agent"
	}
	return fmt.Sprintf("guest agent speaks protocol version %d to %d, this host agent version %d: the %s is older, upgrade it",
		e.GuestMin, e.GuestMax, protocolVersion, older)
}

// GuestIsOlder reports whether the guest agent is the one to replace.
func (e *IncompatibleError) GuestIsOlder() bool { return e.GuestMax < protocolVersion }

// AuthError says that one end did not prove the key.
type AuthError struct{ Reason string }

func (e *AuthError) Error() string { return "authentication failed: " + e.Reason }

// Reasons of an AuthError. The same text is shown on both sides.
const (
	reasonNoHostKey  = "the guest agent has a key and the host agent has none for it"
	reasonNoGuestKey = "the host agent has a key for this guest and the guest agent has none"
	reasonWrongHost  = "the host agent's key is not the guest agent's"
	reasonWrongGuest = "the guest agent's key is not the host agent's"
)

// AuthPSK is the Auth of two ends that have proved a key.
const AuthPSK = "psk"

// Agreed is what a handshake leaves to a link.
type Agreed struct {
	Auth     string // AuthPSK or "none"
	features uint64 // what both ends can do
	Instance [16]byte
	Token    [tokenSize]byte    // opens raw streams
	OrderKey *[sha256.Size]byte // proves orders of the host; nil without a key
	// GuestOrderKey proves those of the guest. It is another, so that no end takes an order of its own, sent
	// back, for one of the other's; nil without a key.
	GuestOrderKey *[sha256.Size]byte
}

// HandsOver reports whether the guest agent lets go of raw connections.
func (a *Agreed) HandsOver() bool { return a.features&featureHandOver != 0 }

// OpensURLs reports whether both ends know how a guest has a URL opened.
func (a *Agreed) OpensURLs() bool { return a.features&featureOpenURL != 0 }

// ServesItself reports whether the guest agent knows requests for something of its own.
func (a *Agreed) ServesItself() bool { return a.features&featureAgent != 0 }

// refusal is the error that a verdict means; nil for none.
func refusal(v *wire.VerdictFrame) error {
	switch v.Status {
	case wire.StatusOK:
		return nil
	case wire.StatusFull:
		return errors.New(v.Reason)
	}
	return &AuthError{Reason: v.Reason}
}

// secret derives what one role or purpose needs from the key, which may be
// empty, and the transcript. Without a key it is secret only because nobody
// but the two ends saw the nonces.
func secret(key []byte, purpose string, hello, reply []byte) [sha256.Size]byte {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "rum-agent %s\n", purpose)
	mac.Write(hello)
	mac.Write(reply)
	return [sha256.Size]byte(mac.Sum(nil))
}

func (a *Agreed) conclude(key []byte, hello, reply []byte) {
	a.Auth = "none"
	if key != nil {
		a.Auth = AuthPSK
	}
	token := secret(key, "stream token", hello, reply)
	copy(a.Token[:], token[:])
	if key != nil {
		orders, guestOrders := secret(key, "orders", hello, reply), secret(key, "orders of the guest", hello, reply)
		a.OrderKey, a.GuestOrderKey = &orders, &guestOrders
	}
}

// helloInterval is how often a hello is repeated on a line that may swallow it.
const helloInterval = 250 * time.Millisecond

// flushSize of invalid bytes end any frame that a stale yamux session may be in
// the middle of, and then the session.
const flushSize = 64 << 10

// Flush is what is written to a line to end a stale session at its other end.
func Flush() []byte {
	b := make([]byte, flushSize)
	for i := range b {
		b[i] = wire.FrameMagic[0]
	}
	return b
}

// Host runs the host's side. With resync the line may hold stale bytes
// in both directions. Cancelling does not interrupt it; closing rw does.
func Host(rw io.ReadWriter, resync bool, key []byte) (Agreed, error) {
	h := wire.HelloFrame{Min: protocolVersion, Max: protocolVersion, HasKey: key != nil, Nonce: newNonce(), Features: features}
	hello := h.Encode()
	stop, err := sayHello(rw, wire.AppendFrame(nil, wire.FrameHello, hello), resync)
	if err != nil {
		return Agreed{}, fmt.Errorf("send hello: %w", err)
	}
	defer stop()

	frames := newFrameReader(rw, resync)
	var r wire.ReplyFrame
	for {
		k, body, err := frames.Next()
		if err != nil {
			return Agreed{}, fmt.Errorf("waiting for the guest's reply: %w", err)
		}
		if k == wire.FrameReply && r.Decode(body) && r.Hello == h.Nonce {
			break
		}
		if !resync {
			return Agreed{}, fmt.Errorf("unexpected frame of kind %d instead of a reply", k)
		}
	}
	stop()
	if r.Version != protocolVersion {
		return Agreed{}, &IncompatibleError{GuestMin: r.Min, GuestMax: r.Max}
	}

	verdict := wire.VerdictFrame{Nonce: r.Nonce}
	reply := r.Signed()
	switch guest := secret(key, "guest proof", hello, reply); {
	case key != nil && !r.HasKey:
		verdict.Reason = reasonNoGuestKey
	case key == nil && r.HasKey:
		verdict.Reason = reasonNoHostKey
	case key != nil && !hmac.Equal(guest[:], r.Proof[:]):
		verdict.Reason = reasonWrongGuest
	}
	if verdict.Reason != "" {
		verdict.Status = wire.StatusAuth
	} else if key != nil {
		verdict.Proof = secret(key, "host proof", hello, reply)
	}
	if _, err := rw.Write(wire.AppendFrame(nil, wire.FrameProof, verdict.Encode())); err != nil {
		return Agreed{}, fmt.Errorf("send proof: %w", err)
	}
	if err := refusal(&verdict); err != nil {
		return Agreed{}, err
	}

	for {
		k, body, err := frames.Next()
		if err != nil {
			return Agreed{}, fmt.Errorf("waiting for the guest to be ready: %w", err)
		}
		var v wire.VerdictFrame
		if k == wire.FrameReady && v.Decode(body) && v.Nonce == h.Nonce {
			if err := refusal(&v); err != nil {
				return Agreed{}, err
			}
			break
		}
		if !resync {
			return Agreed{}, fmt.Errorf("unexpected frame of kind %d instead of ready", k)
		}
	}
	a := Agreed{Instance: r.Instance, features: features & r.Features()}
	a.conclude(key, hello, reply)
	return a, nil
}

// sayHello writes the hello and, on a line that needs it, repeats it until stop
// is called. The second time it is preceded by a flush, for the case that a
// stale session at the other end took the first for the body of a frame.
func sayHello(w io.Writer, hello []byte, repeat bool) (stop func(), err error) {
	if _, err := w.Write(hello); err != nil {
		return nil, err
	}
	if !repeat {
		return func() {}, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(helloInterval)
		defer tick.Stop()
		again := append(Flush(), hello...)
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if _, err := w.Write(again); err != nil {
				return // the reader sees it too
			}
			again = hello
		}
	})
	return sync.OnceFunc(func() { cancel(); wg.Wait() }), nil
}

// Guest runs the guest's side. first is the body of a hello that was
// read already, or nil. known is called with the result before the host learns
// of it, because the host's raw connections may come right then; its error ends the
// handshake.
func Guest(rw io.ReadWriter, resync bool, key []byte, instance [16]byte, first []byte, known func(Agreed) error) error {
	frames := newFrameReader(rw, resync)
	var (
		h     wire.HelloFrame
		hello []byte
		r     wire.ReplyFrame
		reply []byte
		v     wire.VerdictFrame
	)
	k, body := wire.FrameHello, first
	for {
		if body == nil {
			var err error
			if k, body, err = frames.Next(); err != nil {
				return fmt.Errorf("waiting for the host: %w", err)
			}
		}
		switch {
		case k == wire.FrameHello && (hello == nil || resync) && h.Decode(body):
			// A host that spoke before this end was up left the same hello many
			// times over, and goes on from the first reply: they must be equal.
			nonce := newNonce()
			if bytes.Equal(body, hello) {
				nonce = r.Nonce
			}
			hello = body
			r = wire.ReplyFrame{Min: protocolVersion, Max: protocolVersion, HasKey: key != nil, Instance: instance, Hello: h.Nonce, Nonce: nonce}
			r.More = binary.BigEndian.AppendUint64(nil, features)
			if h.Min <= protocolVersion && protocolVersion <= h.Max {
				r.Version = protocolVersion
			}
			reply = r.Signed()
			if key != nil && h.HasKey {
				r.Proof = secret(key, "guest proof", hello, reply)
			}
			if _, err := rw.Write(wire.AppendFrame(nil, wire.FrameReply, r.Encode())); err != nil {
				return fmt.Errorf("send reply: %w", err)
			}
			if r.Version == 0 && !resync {
				return fmt.Errorf("host agent speaks protocol version %d to %d, this guest agent version %d: upgrade the older of the two",
					h.Min, h.Max, protocolVersion)
			}
		case k == wire.FrameProof && hello != nil && v.Decode(body) && v.Nonce == r.Nonce:
			return guestVerdict(rw, key, &h, hello, reply, &v, instance, known)
		case !resync:
			return fmt.Errorf("unexpected frame of kind %d", k)
		}
		body = nil
	}
}

// guestVerdict judges the host's proof and tells it the result.
func guestVerdict(w io.Writer, key []byte, h *wire.HelloFrame, hello, reply []byte, v *wire.VerdictFrame, instance [16]byte, known func(Agreed) error) error {
	if err := refusal(v); err != nil {
		return err
	}
	ready := wire.VerdictFrame{Nonce: h.Nonce}
	switch host := secret(key, "host proof", hello, reply); {
	case key == nil && h.HasKey:
		ready.Reason = reasonNoGuestKey
	case key != nil && !h.HasKey:
		ready.Reason = reasonNoHostKey
	case key != nil && !hmac.Equal(host[:], v.Proof[:]):
		ready.Reason = reasonWrongHost
	}
	if ready.Reason != "" {
		ready.Status = wire.StatusAuth
	} else {
		a := Agreed{Instance: instance, features: features & h.Features}
		a.conclude(key, hello, reply)
		if err := known(a); err != nil {
			ready.Status, ready.Reason = wire.StatusFull, err.Error()
		}
	}
	if _, err := w.Write(wire.AppendFrame(nil, wire.FrameReady, ready.Encode())); err != nil {
		return fmt.Errorf("send ready: %w", err)
	}
	return refusal(&ready)
}

func newNonce() (n [wire.NonceSize]byte) {
	_, _ = rand.Read(n[:]) // never fails, crypto/rand
	return n
}

// CheckKey says what is wrong with a key; none is fine.
func CheckKey(key []byte) error {
	if key != nil && len(key) != keyfile.Size {
		return fmt.Errorf("key of %d bytes, want %d", len(key), keyfile.Size)
	}
	return nil
}

// Line reads a line through a buffer, so that skipping stale bytes does
// not take a system call for each.
type Line struct {
	io.ReadWriteCloser
	r *bufio.Reader
}

// NewLine returns a line that reads c through a buffer.
func NewLine(c io.ReadWriteCloser) *Line {
	return &Line{c, bufio.NewReaderSize(c, 64<<10)}
}

func (l *Line) Read(b []byte) (int, error) { return l.r.Read(b) }

// Writer is what has the descriptor that is written to, or nil.
func (l *Line) Writer() syscall.Conn {
	switch c := l.ReadWriteCloser.(type) {
	case interface{ Writer() syscall.Conn }:
		return c.Writer()
	case syscall.Conn:
		return c
	}
	return nil
}
