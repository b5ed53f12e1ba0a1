package forward

import (
	"fmt"
	"io"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/udp"
)

// serve takes what comes to a listener until done is closed, which is with the
// listener. When a listener serves no more, its binding waits for another.
func (b *binding) serve(l io.Closer, done chan struct{}) error {
	t := b.vm.table
	switch l := l.(type) {
	case *relay.Acceptor:
		return l.Serve(b.service.Serve, b.service.CannotAccept, func(err error) {
			t.server.Go(func() { t.lost(b, done, err) })
		})
	case *udp.Socket:
		t.server.Go(func() { b.vm.udp.Receive(b.service, l, done) })
	}
	return nil
}

// lost makes a binding a claim again that was open as long as done was.
func (t *Table) lost(b *binding, done chan struct{}, err error) {
	t.mu.LockTurn()
	defer t.mu.UnlockTurn()
	if t.mu.Closed() || b.open == nil || b.open.done != done {
		return
	}
	t.waitAgain(b, fmt.Sprintf("it served no more: %v", err))
}

// waitAgain makes a claim of an open binding that is to be tried again.
func (t *Table) waitAgain(b *binding, reason string) {
	t.remove(b)
	t.settle(b, status.Claim, reason)
	t.claim(b)
	for _, s := range b.spots() {
		t.watch(s)
	}
}
