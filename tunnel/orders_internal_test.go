package tunnel

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

// TestAnOrderIsFollowedOnceAndOnlyWithItsProof plays somebody who relays the link and
// puts in orders of his own, or again.
func TestAnOrderIsFollowedOnceAndOnlyWithItsProof(t *testing.T) {
	key := [sha256.Size]byte{1}
	host, guest := &orderSigner{key: key}, &orderJudge{key: key}
	order := []byte("open /run/app.sock")
	proof := host.sign(orderOpen, order)
	flipped := append([]byte(nil), proof...)
	flipped[7]++
	for name, c := range map[string]struct {
		kind         string
		order, proof []byte
	}{
		"no proof":               {orderOpen, order, nil},
		"another order":          {orderOpen, []byte("open /run/docker.sock"), proof},
		"another kind":           {orderReverse, order, proof},
		"another counter":        {orderOpen, order, flipped},
		"under another link":     {orderOpen, order, (&orderSigner{key: [sha256.Size]byte{2}}).sign(orderOpen, order)},
		"cut short":              {orderOpen, order, proof[:9]},
		"without a key, a guess": {orderOpen, order, proofOf([sha256.Size]byte{}, orderOpen, 1, order)},
	} {
		if guest.judge(c.kind, c.order, c.proof) == nil {
			t.Errorf("%s: followed", name)
		}
	}
	if err := guest.judge(orderOpen, order, proof); err != nil {
		t.Fatal(err)
	}
	if guest.judge(orderOpen, order, proof) == nil {
		t.Error("followed twice")
	}
	if (*orderJudge)(nil).judge(orderOpen, order, proof) == nil || (*orderSigner)(nil).sign(orderOpen, order) != nil {
		t.Error("an order without a key")
	}

	// Orders overtake each other, each by less than the window.
	const n = 5 * orderWindow
	proofs := make([][]byte, n)
	for i := range proofs {
		proofs[i] = host.sign(orderOpen, order)
	}
	for begin := 0; begin < n; begin += orderWindow / 2 {
		some := proofs[begin : begin+orderWindow/2]
		rand.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	}
	for i, p := range proofs {
		if err := guest.judge(orderOpen, order, p); err != nil {
			t.Fatalf("order %d: %v", i, err)
		}
	}
	for i, p := range proofs {
		if guest.judge(orderOpen, order, p) == nil {
			t.Fatalf("order %d was followed twice", i)
		}
	}
}
