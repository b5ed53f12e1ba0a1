package tunnel

import (
	"context"
	"net"

	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// waitingConn is a raw connection in the guest that carries no stream: one of the pool,
// or one whose stream has ended. A loop waits for the request that opens the
// next.
type waitingConn struct {
	link *guestLink
	ctx  context.Context // the server's
	raw  *relay.Descriptor
}

// serveRaw takes over a raw connection that has proved to be the link's.
func (l *guestLink) serveRaw(ctx context.Context, conn net.Conn) {
	<-l.started
	if l.full() {
		_ = conn.Close()
		l.server.strangers.Charge()
		return
	}
	raw, err := relay.NewDescriptor(conn)
	if err != nil {
		_ = conn.Close()
		return
	}
	if !l.wait(ctx, raw) {
		raw.Close()
	}
}

// again takes back the raw connection of a stream that has come to a clean end.
func (l *guestLink) again(ctx context.Context, id uint64, raw *relay.Descriptor) {
	if !l.wait(ctx, raw) {
		raw.Close()
		return
	}
	l.ends.Tell(wire.EndMessage{ID: id, Kind: wire.EndReleased})
}

// wait has a loop wait for the next stream, unless the link has ended.
func (l *guestLink) wait(ctx context.Context, raw *relay.Descriptor) bool {
	w := &waitingConn{link: l, ctx: ctx, raw: raw}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || raw.Watch(w, true, false) != nil {
		return false
	}
	l.waiting[w] = true
	return true
}

// take makes the connection the caller's, and counts what it does with it among
// the streams. It fails if the link has ended.
func (w *waitingConn) take() bool {
	l := w.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.waiting[w] {
		return false
	}
	delete(l.waiting, w)
	w.raw.Unwatch()
	l.streams.Add(1)
	return true
}

// Ready opens a stream in place if that takes no waiting, as it mostly does, and
// in a goroutine if not.
func (w *waitingConn) Ready(l *relay.Loop, _, _ bool) {
	if !w.take() {
		return
	}
	if w.open(l) {
		w.link.streams.Done()
		return
	}
	go func() {
		defer w.link.streams.Done()
		w.link.serveOpen(w.ctx, w.raw.Conn(), w.link.countReading)
	}()
}

func (l *guestLink) countReading(n int) {
	l.mu.Lock()
	l.reading += n
	l.mu.Unlock()
}

// open reports false if the request is still to be read and served.
func (w *waitingConn) open(l *relay.Loop) bool {
	buf := l.Scratch()
	n, err := w.raw.Peek(buf)
	if err != nil {
		w.raw.Close() // one of the pool that was not needed
		return true
	}
	request, early, ok := wire.SplitOpen(buf[:n])
	if !ok || request.HandOver || request.Target.Network != wire.NetworkTCP {
		return false
	}
	target, ok := dial.Now(request.Target)
	if !ok {
		return false
	}
	// What has been looked at is taken now, and not more.
	for taken := 0; taken < n; {
		m, err := w.raw.Receive(buf[taken:n])
		if err != nil {
			w.raw.Close()
			target.Abort()
			return true
		}
		taken += m
	}
	w.join(l, target, request, early)
	return true
}

func (w *waitingConn) join(in *relay.Loop, target relay.Socket, request wire.OpenRequest, early []byte) {
	l := w.link
	s, err := l.newStream(w.ctx, request)
	if err != nil {
		w.raw.Close()
		target.Abort()
		return
	}
	if err := s.AttachRaw(w.raw); err != nil {
		target.Abort()
		return
	}
	// A client that has gone does not take it, and what it sent before still is to
	// arrive.
	_, _ = w.raw.Send(answerOK)
	l.streams.Add(1)
	in.Join(target, s, early, new(relay.Counters), l.streamEnded(request.Target))
}

var answerOK = wire.AppendAnswer(nil, wire.AnswerOK, "")
