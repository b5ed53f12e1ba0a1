package handshake

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// TestFeaturesAreAgreedUponUnderTheKey changes a feature bit on its way. Where there
// is a key the handshake fails; an unchanged one is known to both ends.
func TestFeaturesAreAgreedUponUnderTheKey(t *testing.T) {
	key := bytes.Repeat([]byte{7}, keyfile.Size)
	shake := func(key []byte, flip bool) (hostErr error) {
		host, guest := net.Pipe()
		var to net.Conn = guest
		if flip {
			to = &flipped{Conn: guest}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = Guest(to, false, key, [16]byte{1}, nil, func(Agreed) error { return nil })
			_ = guest.Close()
		}()
		_, hostErr = Host(host, false, key)
		_ = host.Close()
		<-done
		return hostErr
	}
	if err := shake(key, false); err != nil {
		t.Errorf("a handshake: %v", err)
	}
	if err := shake(key, true); err == nil {
		t.Error("features were changed on the way and nobody noticed")
	}
	if err := shake(nil, true); err != nil {
		t.Errorf("without a key there is no proof to fail: %v", err)
	}
}

// flipped turns a feature bit of the reply that is written to it.
type flipped struct{ net.Conn }

func (f *flipped) Write(b []byte) (int, error) {
	if k := wire.FrameKind(b[len(wire.FrameMagic)]); k == wire.FrameReply {
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
	}
	return f.Conn.Write(b)
}

// TestAnOlderAgentIsToldToBeUpgraded shakes hands with a version 1 agent, whose hello
// and reply end before the features.
func TestAnOlderAgentIsToldToBeUpgraded(t *testing.T) {
	host, guest := net.Pipe()
	go func() {
		defer guest.Close()
		frames := wire.FrameReader{R: guest}
		_, body, err := frames.Next()
		var h wire.HelloFrame
		if err != nil || !h.Decode(body) {
			return
		}
		r := wire.ReplyFrame{Min: 1, Max: 1, Hello: h.Nonce}
		_, _ = guest.Write(wire.AppendFrame(nil, wire.FrameReply, r.Encode()))
	}()
	_, err := Host(host, false, nil)
	if err == nil || !strings.Contains(err.Error(), "version 1 to 1") || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("an older guest agent: %v", err)
	}

	host, guest = net.Pipe()
	go func() {
		old := wire.HelloFrame{Min: 1, Max: 1}
		_, _ = host.Write(wire.AppendFrame(nil, wire.FrameHello, old.Encode()[:5+wire.NonceSize]))
		_, _ = host.Read(make([]byte, 1024))
		_ = host.Close()
	}()
	err = Guest(guest, false, nil, [16]byte{1}, nil, func(Agreed) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "version 1 to 1") || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("an older host agent: %v", err)
	}
}
