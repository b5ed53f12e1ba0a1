// Package urls is how a guest agent has its host open a URL: the order with its proof, and the answer that belongs
// to it. Which host is asked, and what a host makes of a URL, is told elsewhere.
package urls

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// ErrLinkLost is that the link ended before the host had answered.
var ErrLinkLost = errors.New("the link to the host ended before there was an answer")

// Guest is the guest's end.
type Guest struct {
	// Orders proves what is asked; nil without a key, and then nothing is.
	Orders *handshake.Signer

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan wire.OpenURLAnswerMessage
}

// Ask sends a URL of a user's, of at most [wire.MaxURL] bytes, and waits for the answer. The error is [ErrLinkLost] once ended
// is closed, or that of ctx.
func (g *Guest) Ask(ctx context.Context, user uint32, url string, send func(wire.Message), ended <-chan struct{}) (wire.OpenURLAnswerMessage, error) {
	id, answer := g.begin()
	defer g.forget(id)
	m := &wire.OpenURLMessage{ID: id, User: user, URL: url}
	m.Proof = g.Orders.Sign(handshake.OrderOpenURL, m.Order())
	send(m)
	select {
	case a := <-answer:
		return a, nil
	case <-ended:
		return wire.OpenURLAnswerMessage{}, ErrLinkLost
	case <-ctx.Done():
		return wire.OpenURLAnswerMessage{}, fmt.Errorf("the host does not answer: %w", ctx.Err())
	}
}

func (g *Guest) begin() (id uint64, answer <-chan wire.OpenURLAnswerMessage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting == nil {
		g.waiting = make(map[uint64]chan wire.OpenURLAnswerMessage)
	}
	g.last++
	c := make(chan wire.OpenURLAnswerMessage, 1)
	g.waiting[g.last] = c
	return g.last, c
}

func (g *Guest) forget(id uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.waiting, id)
}

// Answered takes an answer. One that nobody waits for is nothing.
func (g *Guest) Answered(m wire.OpenURLAnswerMessage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.waiting[m.ID]; c != nil {
		delete(g.waiting, m.ID)
		c <- m
	}
}

// Take is the host's end: it hands a URL on, if it is the guest agent that wants it opened; orders are nil without
// a key. open is nil where nothing is opened, and calls answer once.
func Take(m *wire.OpenURLMessage, orders *handshake.Verifier, open func(user uint32, url string, answer func(wire.OpenOutcome, string)), send func(wire.Message)) {
	answer := func(o wire.OpenOutcome, reason string) {
		send(&wire.OpenURLAnswerMessage{ID: m.ID, Outcome: o, Reason: reason})
	}
	err := orders.Verify(handshake.OrderOpenURL, m.Order(), m.Proof)
	switch {
	case err != nil:
		answer(wire.OpenRefused, err.Error())
	case open == nil:
		answer(wire.OpenNotAllowed, "this host opens no pages")
	default:
		open(m.User, m.URL, answer)
	}
}
