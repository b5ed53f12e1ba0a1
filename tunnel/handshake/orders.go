package handshake

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// An order is what a host asks of a guest agent beyond a connection to a port that
// listens: to connect to a unix socket, to listen, or what the agent does itself. The agent is root in the guest,
// and without a key everybody on the host who may open vsock can talk to it as if he
// were the host agent. It is also what a guest agent asks of the host: to open a URL.
// So orders take a key; and because the bytes after the handshake
// are not authenticated, each carries a proof: a counter, and an HMAC-SHA256 over the
// kind of order, the counter and the order under a key of the handshake, which is
// another one in each direction.
const (
	// orderWindow is how far behind the newest an order may come: raw connections
	// overtake each other.
	orderWindow = 1024

	OrderOpen    = "open"
	OrderReverse = "reverse"
	OrderAgent   = "agent"
	OrderOpenURL = "url" // of the guest
)

// OrderTo is the kind of order that a stream to a target takes; "" for none.
func OrderTo(t wire.Target) string {
	switch t.Network {
	case wire.NetworkUnix:
		return OrderOpen
	case wire.NetworkAgent:
		return OrderAgent
	}
	return ""
}

// ErrNoOrder denies an order.
var ErrNoOrder = errors.New("denied")

// Signer is the side that gives orders; nil where there is no key.
type Signer struct {
	Key  [sha256.Size]byte
	last atomic.Uint64
}

// Sign returns the proof for an order.
func (o *Signer) Sign(kind string, order []byte) []byte {
	if o == nil {
		return nil
	}
	return proofOf(o.Key, kind, o.last.Add(1), order)
}

func proofOf(key [sha256.Size]byte, kind string, counter uint64, order []byte) []byte {
	proof := binary.BigEndian.AppendUint64(nil, counter)
	mac := hmac.New(sha256.New, key[:])
	fmt.Fprintf(mac, "%s\n", kind)
	mac.Write(proof)
	mac.Write(order)
	return mac.Sum(proof)
}

// Verifier is the side that takes them; nil where there is no key.
type Verifier struct {
	Key [sha256.Size]byte

	mu     sync.Mutex
	newest uint64
	seen   [orderWindow]bool // by counter, of the window up to newest
	sets   uint64            // the newest that was an [OrderReverse]
}

// Verify says why an order is not to be followed. One that was seen before is not, nor
// is a complete set of reverse listeners older than one that was.
func (o *Verifier) Verify(kind string, order, proof []byte) error {
	if o == nil {
		what := "the guest agent connects to ports and does no more"
		if kind == OrderOpenURL {
			what = "the host opens no page"
		}
		return fmt.Errorf("%w: without a key %s; give the VM one with: rum-host-agent install VM", ErrNoOrder, what)
	}
	if len(proof) < 8 {
		return fmt.Errorf("%w: the order has no proof", ErrNoOrder)
	}
	counter := binary.BigEndian.Uint64(proof)
	if !hmac.Equal(proof, proofOf(o.Key, kind, counter, order)) {
		return fmt.Errorf("%w: the proof of the order is wrong", ErrNoOrder)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if counter > o.newest {
		for c := max(o.newest, counter-min(counter, orderWindow)) + 1; c <= counter; c++ {
			o.seen[c%orderWindow] = false
		}
		o.newest = counter
	} else if o.newest-counter >= orderWindow || o.seen[counter%orderWindow] {
		return fmt.Errorf("%w: the order has been given before", ErrNoOrder)
	}
	o.seen[counter%orderWindow] = true
	if kind == OrderReverse {
		if counter < o.sets {
			return fmt.Errorf("%w: a newer one has been given", ErrNoOrder)
		}
		o.sets = counter
	}
	return nil
}
