package tunnel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/yamux"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// keysOfALink are those of one with a key whose ends have agreed on no features.
func keysOfALink() handshake.Agreed {
	return handshake.Agreed{Auth: "psk", OrderKey: &[sha256.Size]byte{1}, GuestOrderKey: &[sha256.Size]byte{2}}
}

// TestAHostTakesAURLFromTheGuestAgentAlone plays somebody on the way who puts in URLs of his own, one again, or
// an order that the host has given, and a guest without a key.
func TestAHostTakesAURLFromTheGuestAgentAlone(t *testing.T) {
	agreed := keysOfALink()
	m := wire.OpenURLMessage{ID: 1, URL: "https://example.com/"}
	guest, host := &handshake.Signer{Key: *agreed.GuestOrderKey}, &handshake.Signer{Key: *agreed.OrderKey}
	good := guest.Sign(handshake.OrderOpenURL, m.Order())
	for _, row := range []struct {
		name   string
		agreed handshake.Agreed
		url    string
		proofs [][]byte
		taken  int
		reason string
	}{
		{"the guest agent", agreed, m.URL, [][]byte{good}, 1, ""},
		{"one again", agreed, m.URL, [][]byte{good, good}, 1, "given before"},
		{"another URL", agreed, "https://example.org/", [][]byte{good}, 0, "proof"},
		{"no proof", agreed, m.URL, [][]byte{nil}, 0, "proof"},
		{"an order of the host's, sent back", agreed, m.URL, [][]byte{host.Sign(handshake.OrderOpenURL, m.Order())}, 0, "proof"},
		{"a guest without a key", handshake.Agreed{Auth: "none"}, m.URL, [][]byte{good}, 0, "without a key"},
	} {
		t.Run(row.name, func(t *testing.T) {
			hostEnd, guestEnd := net.Pipe()
			session, err := yamux.Server(guestEnd, peersConfig())
			if err != nil {
				t.Fatal(err)
			}
			taken := 0
			cfg := Config{OpenURL: func(_ uint32, url string, answer func(wire.OpenOutcome, string)) {
				taken++
				answer(wire.OpenOpened, url)
			}}
			l, err := newLink(endpoint.Endpoint{Scheme: endpoint.SchemeSerial}, cfg, hostEnd, row.agreed)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- l.Run(ctx, func(announce.Announcement) {}) }()
			control, err := session.AcceptStream()
			if err != nil {
				t.Fatal(err)
			}
			answers := wire.MessageReader{R: control}
			var last *wire.OpenURLAnswerMessage
			for _, proof := range row.proofs {
				if _, err := control.Write(wire.AppendMessage(nil, &wire.OpenURLMessage{ID: 1, URL: row.url, Proof: proof})); err != nil {
					t.Fatal(err)
				}
				for last = nil; last == nil; {
					b, err := answers.Next()
					if err != nil {
						t.Fatal(err)
					}
					got, err := wire.DecodeMessage(b)
					if err != nil {
						t.Fatal(err)
					}
					last, _ = got.(*wire.OpenURLAnswerMessage)
				}
			}
			if refused := last.Outcome == wire.OpenRefused; last.ID != 1 || refused != (row.reason != "") || !strings.Contains(last.Reason, row.reason) {
				t.Errorf("%+v, want %q", last, row.reason)
			}
			cancel()
			<-ran
			_ = session.Close()
			if taken != row.taken {
				t.Errorf("%d URLs were taken, want %d", taken, row.taken)
			}
		})
	}
}

// TestAnOlderHostIsNotAskedToOpenAURL has a host that has not agreed to be asked.
func TestAnOlderHostIsNotAskedToOpenAURL(t *testing.T) {
	hostEnd, guestEnd := net.Pipe()
	server := &Server{Source: func() (announce.Announcement, <-chan struct{}) { return announce.Announcement{}, nil }}
	server.init()
	g := newGuestLink(server, accepting{}, keysOfALink(), false)
	server.links = []*guestLink{g}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- g.run(ctx, guestEnd) }()
	session, err := yamux.Client(hostEnd, peersConfig())
	if err != nil {
		t.Fatal(err)
	}
	control, err := session.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	read := make(chan struct{})
	go func() { _, _ = io.Copy(&said, control); close(read) }()
	<-g.started
	if _, err := server.OpenURL(ctx, 0, "https://example.com/"); !errors.Is(err, ErrNoHost) || !strings.Contains(err.Error(), "older") || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("%v, want that the host agent is older, and what to do", err)
	}
	cancel()
	<-ran
	_ = session.Close()
	<-read
	if bytes.Contains(said.Bytes(), []byte("example.com")) {
		t.Error("the host was asked")
	}
}
