package integration

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// older is between a host agent and a guest agent without a key, and makes an older one of that: it
// takes the features out of its reply. The tokens that both derive from what they have seen are
// two then, so it puts the one in the place of the other.
type older struct {
	guest string // its unix socket

	mu    sync.Mutex
	token []byte // the guest agent's
}

// withoutFeatures returns the socket at which a guest agent is an older one.
func withoutFeatures(t *testing.T, guest string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "older.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	o := &older{guest: guest}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go o.serve(c.(*net.UnixConn))
		}
	}()
	return path
}

func (o *older) serve(host *net.UnixConn) {
	defer host.Close()
	conn, err := net.Dial("unix", o.guest)
	if err != nil {
		return
	}
	guest := conn.(*net.UnixConn)
	defer guest.Close()
	kind, body, err := (&wire.FrameReader{R: host}).Next()
	if err != nil {
		return
	}
	if kind != wire.FrameHello {
		o.mu.Lock()
		body = o.token
		o.mu.Unlock()
	}
	_, _ = guest.Write(wire.AppendFrame(nil, kind, body))
	if kind == wire.FrameHello {
		_, reply, err := (&wire.FrameReader{R: guest}).Next()
		var r wire.ReplyFrame
		if err != nil || !r.Decode(reply) {
			return
		}
		o.mu.Lock()
		o.token = tokenOf(body, r.Signed())
		o.mu.Unlock()
		clear(r.More)
		_, _ = host.Write(wire.AppendFrame(nil, wire.FrameReply, r.Encode()))
	}
	var up sync.WaitGroup
	up.Go(func() { _, _ = io.Copy(guest, host); _ = guest.CloseWrite() })
	_, _ = io.Copy(host, guest)
	_ = host.CloseWrite()
	up.Wait()
}

// tokenOf is the token of a link without a key.
func tokenOf(hello, reply []byte) []byte {
	mac := hmac.New(sha256.New, nil)
	fmt.Fprint(mac, "rum-agent stream token\n")
	mac.Write(hello)
	mac.Write(reply)
	return mac.Sum(nil)[:16]
}
