package stream_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sys/unix"
)

// The ends of streams are told on a connection of their own, which may be ahead. A service
// that ends without a byte has all of it arrived before the guest's answer has come.
func TestAnEmptyReplyThatIsToldBeforeTheAnswerLeavesNothingToTheNextStream(t *testing.T) {
	back := make(chan *relay.Descriptor, 1)
	told := make(chan wire.EndMessage, 1)
	ends := &stream.Ends{
		Tell:      func(m wire.EndMessage) { told <- m },
		KeepEarly: func(uint64) bool { return false },
		Reuse:     func(c stream.Carrier) { back <- c.Descriptor() },
	}
	s := stream.New(1, ends)
	s.Reuse(func(c stream.Carrier) { ends.AwaitRelease(s, c) })
	if err := ends.Add(s); err != nil {
		t.Fatal(err)
	}
	near, guest := socketPair(t)
	defer unix.Close(guest)
	raw, err := relay.NewDescriptor(os.NewFile(uintptr(near), "raw connection"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AttachRaw(raw); err != nil {
		t.Fatal(err)
	}
	ours, theirs := socketPair(t)
	client := connOf(t, ours)
	defer client.Close()
	accepted := connOf(t, theirs)
	done := make(chan error, 1)
	relay.Relay(relay.Unix(accepted.(*net.UnixConn)), s, new(relay.Counters), func(err error) { done <- err })

	if err := client.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if m := soon(t, told, "the end of the client is told"); m.Kind != wire.EndComplete {
		t.Fatalf("%+v was told of a client that has ended", m)
	}
	ends.Deliver(wire.EndMessage{ID: 1, Kind: wire.EndComplete})
	ends.Deliver(wire.EndMessage{ID: 1, Kind: wire.EndReleased})
	select {
	case <-back:
		t.Fatal("the connection came back before the answer on it was read")
	default:
	}
	if _, err := unix.Write(guest, wire.AppendAnswer(nil, wire.AnswerOK, "")); err != nil {
		t.Fatal(err)
	}
	raw = soon(t, back, "the connection comes back")
	defer raw.Close()
	if n, err := raw.Receive(make([]byte, 16)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("the next stream would read %d bytes and %v, want nothing", n, err)
	}
	if err := soon(t, done, "the relay ends"); err != nil {
		t.Error(err)
	}
}

func soon[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(30 * time.Second):
		t.Fatalf("waited in vain until %s", what)
	}
	return v
}
