package tunnel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// TestAnAgentDoesNothingItselfWithoutTheProofOfTheOrder is somebody who can put in requests of his own, and does not know the key.
func TestAnAgentDoesNothingItselfWithoutTheProofOfTheOrder(t *testing.T) {
	e := endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: filepath.Join(t.TempDir(), "s")}
	asked := make(chan wire.Target, 10)
	cfg := Config{Key: bytes.Repeat([]byte{7}, keyfile.Size)}
	server := &Server{
		Config: cfg, Source: func() (announce.Announcement, <-chan struct{}) { return announce.Announcement{Generation: 1}, nil },
		Itself: func(to wire.Target) (relay.Conn, error) { asked <- to; return nil, errors.New("this is a test") },
	}
	listener, err := endpoint.Listen(e, nil, cfg.log())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() { _ = server.Serve(ctx, listener) })
	l, err := Dial(ctx, e, cfg)
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { _ = l.Run(ctx, func(announce.Announcement) {}) })

	order := wire.UpgradeRequest{Size: 10, Version: "v2"}.Target()
	ask := func() *wire.AnswerError {
		t.Helper()
		s, err := l.Open(ctx, order, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		refused, ok := errors.AsType[*wire.AnswerError](s.Answer(ctx))
		if !ok {
			t.Fatalf("%v is no answer", err)
		}
		return refused
	}
	proper := l.orders
	for name, signer := range map[string]*handshake.Signer{
		"no proof": nil, "the proof of another key": {Key: [sha256.Size]byte{1}}, "the key of the guest's orders": {Key: *l.agreed.GuestOrderKey},
	} {
		l.orders = signer
		if refused := ask(); refused.Status != wire.AnswerDenied {
			t.Errorf("%s: %v", name, refused)
		}
	}
	if len(asked) > 0 {
		t.Errorf("the agent was asked for %v", <-asked)
	}
	l.orders = proper
	if refused := ask(); refused.Reason != "this is a test" || len(asked) != 1 {
		t.Errorf("with the proof: %v", refused)
	}
}
