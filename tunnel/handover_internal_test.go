package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// A host that asks all the same for one of the streams of a session to be handed over.
func TestAGuestHandsOverNoStreamOfASession(t *testing.T) {
	hostEnd, guestEnd := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	server := &Server{Source: func() (announce.Announcement, <-chan struct{}) { return announce.Announcement{Generation: 1}, nil }}
	server.init()
	lost := make(chan error, 2)
	defer func() { cancel(); <-lost; <-lost }()
	go func() { lost <- newGuestLink(server, accepting{}, handshake.Agreed{}, false).run(ctx, guestEnd) }()
	l, err := newLink(endpoint.Endpoint{Scheme: endpoint.SchemeSerial, Path: "pipe"}, Config{}, hostEnd, handshake.Agreed{})
	if err != nil {
		t.Fatal(err)
	}
	go func() { lost <- l.Run(ctx, func(announce.Announcement) {}) }()
	conn, err := l.session.OpenWithin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.openOn(conn, nil, wire.OpenRequest{HandOver: true, Target: wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SetDeadline(time.Now().Add(30 * time.Second))
	err = s.Answer(t.Context())
	if answer, ok := errors.AsType[*wire.AnswerError](err); !ok || answer.Reason != errOneConnection.Error() {
		t.Errorf("%v", err)
	}
}

// An older guest agent has no such feature, and drops a connection with a flag that it does not know.
func TestAnOlderGuestIsNotAskedToHandAnythingOver(t *testing.T) {
	hostEnd, guestEnd := net.Pipe()
	defer guestEnd.Close()
	go func() { _, _ = io.Copy(io.Discard, guestEnd) }()
	nowhere := endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: filepath.Join(t.TempDir(), "nobody")}
	l, err := newLink(nowhere, Config{}, hostEnd, handshake.Agreed{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.HandOver(t.Context(), wire.Target{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
