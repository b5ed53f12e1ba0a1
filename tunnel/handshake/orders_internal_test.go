package handshake

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// TestAnOrderIsFollowedOnceAndOnlyWithItsProof plays somebody who relays the link and
// puts in orders of his own, or again.
func TestAnOrderIsFollowedOnceAndOnlyWithItsProof(t *testing.T) {
	key := [sha256.Size]byte{1}
	host, guest := &Signer{Key: key}, &Verifier{Key: key}
	order := []byte("open /run/app.sock")
	proof := host.Sign(OrderOpen, order)
	flipped := append([]byte(nil), proof...)
	flipped[7]++
	for name, c := range map[string]struct {
		kind         string
		order, proof []byte
	}{
		"no proof":               {OrderOpen, order, nil},
		"another order":          {OrderOpen, []byte("open /run/docker.sock"), proof},
		"another kind":           {OrderReverse, order, proof},
		"another counter":        {OrderOpen, order, flipped},
		"under another link":     {OrderOpen, order, (&Signer{Key: [sha256.Size]byte{2}}).Sign(OrderOpen, order)},
		"cut short":              {OrderOpen, order, proof[:9]},
		"without a key, a guess": {OrderOpen, order, proofOf([sha256.Size]byte{}, OrderOpen, 1, order)},
	} {
		if guest.Verify(c.kind, c.order, c.proof) == nil {
			t.Errorf("%s: followed", name)
		}
	}
	if err := guest.Verify(OrderOpen, order, proof); err != nil {
		t.Fatal(err)
	}
	if guest.Verify(OrderOpen, order, proof) == nil {
		t.Error("followed twice")
	}
	if (*Verifier)(nil).Verify(OrderOpen, order, proof) == nil || (*Signer)(nil).Sign(OrderOpen, order) != nil {
		t.Error("an order without a key")
	}

	// Orders overtake each other, each by less than the window.
	const n = 5 * orderWindow
	proofs := make([][]byte, n)
	for i := range proofs {
		proofs[i] = host.Sign(OrderOpen, order)
	}
	for begin := 0; begin < n; begin += orderWindow / 2 {
		some := proofs[begin : begin+orderWindow/2]
		rand.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	}
	for i, p := range proofs {
		if err := guest.Verify(OrderOpen, order, p); err != nil {
			t.Fatalf("order %d: %v", i, err)
		}
	}
	for i, p := range proofs {
		if guest.Verify(OrderOpen, order, p) == nil {
			t.Fatalf("order %d was followed twice", i)
		}
	}
}

// TestAnOrderSentBackIsNotOneOfTheOtherEnds holds that each end has a key of its own for its orders, which both know.
func TestAnOrderSentBackIsNotOneOfTheOtherEnds(t *testing.T) {
	key := bytes.Repeat([]byte{7}, keyfile.Size)
	hostEnd, guestEnd := net.Pipe()
	guest := make(chan Agreed, 1)
	go func() {
		_ = Guest(guestEnd, false, key, [16]byte{1}, nil, func(a Agreed) error { guest <- a; return nil })
	}()
	host, err := Host(hostEnd, false, key)
	if err != nil {
		t.Fatal(err)
	}
	if g := <-guest; *g.OrderKey != *host.OrderKey || *g.GuestOrderKey != *host.GuestOrderKey || !g.OpensURLs() || !host.OpensURLs() {
		t.Error("the ends have agreed on different things")
	}
	order := []byte("https://example.com/")
	back := (&Signer{Key: *host.OrderKey}).Sign(OrderOpenURL, order)
	if (&Verifier{Key: *host.GuestOrderKey}).Verify(OrderOpenURL, order, back) == nil {
		t.Error("followed")
	}
}

// TestAnOlderSetOfListenersIsNotFollowedAfterANewerOne plays somebody who withholds the
// older one for a while: the newer one may have taken its listeners away.
func TestAnOlderSetOfListenersIsNotFollowedAfterANewerOne(t *testing.T) {
	key := [sha256.Size]byte{1}
	host, guest := &Signer{Key: key}, &Verifier{Key: key}
	older, open, newer := host.Sign(OrderReverse, []byte("8080")), host.Sign(OrderOpen, []byte("a socket")), host.Sign(OrderReverse, nil)
	if err := guest.Verify(OrderReverse, nil, newer); err != nil {
		t.Fatal(err)
	}
	if guest.Verify(OrderReverse, []byte("8080"), older) == nil {
		t.Error("followed")
	}
	if err := guest.Verify(OrderOpen, []byte("a socket"), open); err != nil {
		t.Errorf("an order of another kind that was overtaken: %v", err)
	}
}
