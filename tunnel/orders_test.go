package tunnel_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// TestWithoutAKeyAGuestAgentConnectsToPortsOnly asks a guest agent for more, as any
// user of the host may who can open vsock.
func TestWithoutAKeyAGuestAgentConnectsToPortsOnly(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			l := startLink(t, startGuest(t, kind, tunnel.Config{}), tunnel.Config{})
			echoed := through(t, l, service(t, echo))
			if _, err := echoed.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(echoed, make([]byte, 5)); err != nil {
				t.Errorf("a port that listens: %v", err)
			}

			s, err := l.Open(t.Context(), socketService(t, func(c *net.UnixConn) {
				t.Error("the socket was connected to")
				_ = c.Close()
			}), nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Read(make([]byte, 1))
			if refused, ok := errors.AsType[*wire.AnswerError](err); !ok || refused.Status != wire.AnswerDenied || !strings.Contains(err.Error(), "install") {
				t.Errorf("a unix socket: %v", err)
			}
			_ = s.Close()

			path := t.TempDir() + "/planted.sock"
			port, socket := reverseTo(freeAddr(t), service(t, echo)), reverseTo(wire.UnixTarget(path), service(t, echo))
			if err := l.SetReverse([]*announce.Reverse{port.Reverse, socket.Reverse}); err != nil {
				t.Fatal(err)
			}
			for _, r := range []*reversed{port, socket} {
				eventually(t, "the refusal of a listener", func() bool {
					return strings.Contains(r.said(), "without a key")
				})
			}
			if _, err := os.Lstat(path); err == nil {
				t.Error("a socket was planted")
			}
			if c, err := net.Dial("tcp", port.Listen.Addrs[0].String()); err == nil {
				_ = c.Close()
				t.Error("the agent listens")
			}
		})
	}
}
