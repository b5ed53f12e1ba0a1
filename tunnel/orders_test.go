package tunnel_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/socketpair"
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

			for _, target := range []wire.Target{wire.LogRequest{Lines: 10}.Target(), wire.UpgradeRequest{Size: 10, Version: "v2"}.Target()} {
				s, err = l.Open(t.Context(), target, nil)
				if err != nil {
					t.Fatal(err)
				}
				_, err = s.Read(make([]byte, 1))
				if refused, ok := errors.AsType[*wire.AnswerError](err); !ok || refused.Status != wire.AnswerDenied {
					t.Errorf("%v: %v", target, err)
				}
				_ = s.Close()
			}

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

func TestWhatAnAgentServesItselfComesOverEveryKindOfConnection(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			g := startGuest(t, kind, keyed)
			want := randomBytes(1 << 20)
			g.server.Itself = func(to wire.Target) (relay.Conn, error) {
				if to.Path != wire.ServiceLog {
					return nil, errors.New("only the log")
				}
				theirs, ours, err := socketpair.New(t.Context())
				if err != nil {
					return nil, err
				}
				go func() {
					defer ours.Close()
					_, _ = ours.Write(want)
					_ = ours.(*net.UnixConn).CloseWrite()
					_, _ = io.Copy(io.Discard, ours)
				}()
				return relay.Unix(theirs.(*net.UnixConn)), nil
			}
			l := startLink(t, g, keyed)
			s, err := l.Open(t.Context(), wire.LogRequest{Lines: 10}.Target(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d of %d bytes come: %v", len(got), len(want), err)
			}
			other, err := l.Open(t.Context(), wire.UpgradeRequest{Version: "v2"}.Target(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if refused, ok := errors.AsType[*wire.AnswerError](other.Answer(t.Context())); !ok || refused.Reason != "only the log" {
				t.Errorf("what it does not serve: %v", refused)
			}
		})
	}
}
